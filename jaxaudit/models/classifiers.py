"""Classifiers of vectors and of small images."""

from typing import Literal

import jax.numpy as jnp
from flax import linen as nn

Name = Literal["softmax", "mlp", "cnn"]


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


class CNN(nn.Module):
    """Two convolutions of 16 and 32 features, each halved by max pooling, and a dense layer.

    20,490 parameters on images of 28×28×1 and 10 classes; LeCun et al. (1998), Proc. IEEE 86, with the rectifiers
    and max pooling of McMahan et al. (2017), arXiv:1602.05629.

    Attributes:
      classes: number of classes.
    """

    classes: int

    @nn.compact
    def __call__(self, inputs):
        """Logits f32[batch, classes] of f32[batch, height, width, channels], height and width at least 4."""
        for features in (16, 32):
            inputs = _max_pool(nn.relu(Convolution(features)(inputs)))
        return _dense(self.classes)(inputs.reshape(inputs.shape[0], -1))


class Convolution(nn.Module):
    """A 3×3 convolution with zero padding, as the matrix product of patches: `nn.Conv(features, (3, 3))`.

    Attributes:
      features: number of output channels.
    """

    features: int

    @nn.compact
    def __call__(self, inputs):
        """f32[batch, height, width, features] of f32[batch, height, width, channels]."""
        _, height, width, channels = inputs.shape
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (3, 3, channels, self.features))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        padded = jnp.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)))
        shifted = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
        # XLA's own convolution is ten times slower on a CPU inside a loop, and when clients are vectorised over
        # theirs becomes a grouped one; a matrix product is neither.
        patches = jnp.concatenate(shifted, -1)
        return jnp.matmul(patches, kernel.reshape(-1, self.features), precision="highest") + bias


def _max_pool(images):
    """Largest of every 2×2; the gradient of `nn.max_pool` would make a step half as long again on a CPU."""
    batch, height, width, channels = images.shape
    even = images[:, : height // 2 * 2, : width // 2 * 2]
    return even.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))


def _dense(features: int) -> nn.Dense:
    """On a GPU the default precision would be TF32, and the recorded updates would depend on the device."""
    return nn.Dense(features, precision="highest")


def check(name: Name, shape: tuple[int, ...]) -> None:
    """Refuse a model that cannot read the records.

    Args:
      name: of the model.
      shape: of one record, e.g. `data.inputs.shape[1:]`.

    Raises:
      ValueError: for "cnn" on anything but images of 4×4 pixels or more.

    Example:
      >>> check("cnn", (28, 28, 1))
    """
    if name == "cnn" and (len(shape) != 3 or min(shape[:2]) < 4):
        raise ValueError(
            f"population.model is 'cnn', but a record of population.dataset has shape {shape}, allowed are images "
            "(height ≥ 4, width ≥ 4, channels); for other records set --set population.model=mlp or softmax"
        )


def build(name: Name, classes: int, hidden: int) -> nn.Module:
    """A classifier by name; `check` says whether it can read the records, and only "mlp" has a `hidden` width."""
    if name == "mlp":
        return MLP(classes, hidden)
    return CNN(classes) if name == "cnn" else Softmax(classes)
