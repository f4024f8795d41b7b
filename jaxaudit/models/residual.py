"""Residual networks: with the last normalisation inside a shortcut (the first version) or behind it (the second)."""

from flax import linen as nn

from .bait import Bait
from .layers import Convolution, batch_norm


class ResNet18(nn.Module):
    """The residual network of 18 layers, with the 3×3 stem for small images.

    The last normalisation sits before the last addition: what the shortcut brings, a rectified feature of the
    records, is added to it whatever its scale. A constant embedding takes three edits: the block before must put out
    zeros, and being the first of its stage it ends in two normalisations, one on either side of its addition.

    Attributes:
      classes: number of classes.
      widths: channels of the four stages; the last is the width of the embedding.

    Reference:
      He, Zhang, Ren & Sun (2016), arXiv:1512.03385, table 1; section 4.2 for the stem.
    """

    classes: int
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    bait = Bait(("stage4_block2", "norm2"), (("stage4_block1", "norm2"), ("stage4_block1", "shortcut_norm")))

    @nn.compact
    def __call__(self, inputs, train: bool = True):
        """Logits f32[batch, classes] of f32[batch, height, width, channels]."""
        inputs = Convolution(self.widths[0], bias=False, name="stem")(inputs)
        inputs = nn.relu(batch_norm(train, "stem_norm")(inputs))
        for stage, features in enumerate(self.widths, 1):
            inputs = _Block(features, 1 if stage == 1 else 2, name=f"stage{stage}_block1")(inputs, train)
            inputs = _Block(features, 1, name=f"stage{stage}_block2")(inputs, train)
        inputs = inputs.mean((1, 2))
        self.sow("intermediates", "embedding", inputs)
        return nn.Dense(self.classes, precision="highest", name="head")(inputs)


class PreActResNet(nn.Module):
    """A small residual network with normalisation and rectifier before each convolution, and behind the last block.

    Attributes:
      classes: number of classes.
      hidden: channels of the last of three stages, the width of the embedding.

    Reference:
      He, Zhang, Ren & Sun (2016), "Identity mappings in deep residual networks", arXiv:1603.05027, figure 4(e).
    """

    classes: int
    hidden: int
    bait = Bait(("last_norm",))

    @nn.compact
    def __call__(self, inputs, train: bool = True):
        """Logits f32[batch, classes] of f32[batch, height, width, channels]."""
        inputs = Convolution(16, bias=False, name="stem")(inputs)
        for stage, (features, stride) in enumerate(((16, 1), (32, 2), (self.hidden, 2)), 1):
            inputs = _PreActBlock(features, stride, name=f"stage{stage}")(inputs, train)
        inputs = nn.relu(batch_norm(train, "last_norm")(inputs)).mean((1, 2))
        self.sow("intermediates", "embedding", inputs)
        return nn.Dense(self.classes, precision="highest", name="head")(inputs)


class _Block(nn.Module):
    """Two convolutions and a shortcut, rectified after their sum."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, inputs, train):
        shortcut = inputs
        if self.stride > 1 or inputs.shape[-1] != self.features:
            shortcut = Convolution(self.features, size=1, stride=self.stride, bias=False, name="shortcut")(inputs)
            shortcut = batch_norm(train, "shortcut_norm")(shortcut)
        inputs = Convolution(self.features, stride=self.stride, bias=False, name="conv1")(inputs)
        inputs = nn.relu(batch_norm(train, "norm1")(inputs))
        inputs = Convolution(self.features, bias=False, name="conv2")(inputs)
        return nn.relu(shortcut + batch_norm(train, "norm2")(inputs))


class _PreActBlock(nn.Module):
    """The same with nothing behind the sum."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, inputs, train):
        shortcut = inputs
        inputs = nn.relu(batch_norm(train, "norm1")(inputs))
        if self.stride > 1 or inputs.shape[-1] != self.features:
            shortcut = Convolution(self.features, size=1, stride=self.stride, bias=False, name="shortcut")(inputs)
        inputs = Convolution(self.features, stride=self.stride, bias=False, name="conv1")(inputs)
        inputs = nn.relu(batch_norm(train, "norm2")(inputs))
        return shortcut + Convolution(self.features, bias=False, name="conv2")(inputs)
