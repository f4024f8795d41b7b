"""Classifiers of plain vectors."""

from typing import Literal

from flax import linen as nn

Name = Literal["softmax", "mlp"]


class Softmax(nn.Module):
    """Multinomial logistic regression: one dense layer.

    Attributes:
      classes: number of classes.
    """

    classes: int

    @nn.compact
    def __call__(self, inputs):
        """Logits f32[batch, classes] of f32[batch, ...]."""
        return _dense(self.classes)(inputs.reshape(inputs.shape[0], -1))


class MLP(nn.Module):
    """One hidden layer of rectified linear units.

    Attributes:
      classes: number of classes.
      hidden: width of the hidden layer.
    """

    classes: int
    hidden: int

    @nn.compact
    def __call__(self, inputs):
        """Logits f32[batch, classes] of f32[batch, ...]."""
        return _dense(self.classes)(nn.relu(_dense(self.hidden)(inputs.reshape(inputs.shape[0], -1))))


def _dense(features: int) -> nn.Dense:
    """On a GPU the default precision would be TF32, and the recorded updates would depend on the device."""
    return nn.Dense(features, precision="highest")


def build(name: Name, classes: int, hidden: int) -> nn.Module:
    """A classifier by name."""
    return Softmax(classes) if name == "softmax" else MLP(classes, hidden)
