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
        return nn.Dense(self.classes)(inputs.reshape(inputs.shape[0], -1))


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
        return nn.Dense(self.classes)(nn.relu(nn.Dense(self.hidden)(inputs.reshape(inputs.shape[0], -1))))


def build(name: Name, classes: int, hidden: int) -> nn.Module:
    """A classifier by name."""
    return Softmax(classes) if name == "softmax" else MLP(classes, hidden)
