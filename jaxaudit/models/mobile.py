"""A small MobileNet of the second version."""

from flax import linen as nn

from .bait import Bait
from .layers import Convolution, DepthwiseConvolution, batch_norm


class MobileNet(nn.Module):
    """Inverted residuals, a last 1×1 convolution with normalisation and rectifier, an average and a dense layer.

    Four blocks in place of seventeen, which halve the image twice. Rectifiers end at 6, and so do the entries of the
    embedding.

    Attributes:
      classes: number of classes.
      hidden: channels of the last convolution, the width of the embedding.
      dropout: share of the embedding that is dropped in training, which needs the PRNG "dropout".

    Reference:
      Sandler, Howard, Zhu, Zhmoginov & Chen (2018), arXiv:1801.04381, tables 1 and 2.
    """

    classes: int
    hidden: int
    dropout: float = 0.0
    bait = Bait(("last_norm",), ceiling=6.0)

    @nn.compact
    def __call__(self, inputs, train: bool = True):
        """Logits f32[batch, classes] of f32[batch, height, width, channels]."""
        inputs = Convolution(16, bias=False, name="stem")(inputs)
        inputs = nn.relu6(batch_norm(train, "stem_norm")(inputs))
        for number, (features, stride) in enumerate(((16, 1), (24, 2), (24, 1), (32, 2)), 1):
            inputs = _InvertedResidual(features, stride, name=f"block{number}")(inputs, train)
        inputs = Convolution(self.hidden, size=1, bias=False, name="last_conv")(inputs)
        inputs = nn.relu6(batch_norm(train, "last_norm")(inputs)).mean((1, 2))
        inputs = nn.Dropout(self.dropout, deterministic=not train)(inputs)
        self.sow("intermediates", "embedding", inputs)
        return nn.Dense(self.classes, precision="highest", name="head")(inputs)


class _InvertedResidual(nn.Module):
    """Four times the channels, a depthwise convolution, and fewer channels again, without a rectifier."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, inputs, train):
        channels, shortcut = inputs.shape[-1], inputs
        inputs = Convolution(4 * channels, size=1, bias=False, name="expand")(inputs)
        inputs = nn.relu6(batch_norm(train, "expand_norm")(inputs))
        inputs = DepthwiseConvolution(self.stride, name="depthwise")(inputs)
        inputs = nn.relu6(batch_norm(train, "depthwise_norm")(inputs))
        inputs = Convolution(self.features, size=1, bias=False, name="project")(inputs)
        inputs = batch_norm(train, "project_norm")(inputs)
        return inputs + shortcut if self.stride == 1 and channels == self.features else inputs
