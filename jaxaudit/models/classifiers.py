"""Classifiers of vectors and of small images without normalisation layers."""

from flax import linen as nn

from .layers import Convolution, max_pool


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
            inputs = max_pool(nn.relu(Convolution(features)(inputs)))
        return _dense(self.classes)(inputs.reshape(inputs.shape[0], -1))


def _dense(features: int) -> nn.Dense:
    """On a GPU the default precision would be TF32, and the recorded updates would depend on the device."""
    return nn.Dense(features, precision="highest")
