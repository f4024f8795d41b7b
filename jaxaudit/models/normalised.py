"""LeNet and VGG with batch normalisation: plain stacks of layers, without shortcuts.

Every model with normalisation layers, here and in the files next to this one, stores what enters its last layer, the
"head", as the intermediate "embedding", and says in `bait` which layers a server would edit to make it constant.
"""

from flax import linen as nn

from .bait import Bait
from .layers import Convolution, batch_norm, max_pool


class LeNetBN(nn.Module):
    """LeNet-5 with a batch normalisation behind every layer but the head, and rectifiers.

    The classic network normalises its convolutions only, if anything. Its embedding is then a function of the 16
    biases of the last normalisation, however wide the dense layers behind them are, and no more than that many
    directions are free. Here the dense layers are normalised too, and every entry of the embedding is free.

    Attributes:
      classes: number of classes.
      hidden: width of the embedding, 84 in the classic network.
      classic: no normalisation behind the dense layers.

    Reference:
      LeCun, Bottou, Bengio & Haffner (1998), Proc. IEEE 86, figure 2, with max pooling and padded convolutions.
    """

    classes: int
    hidden: int
    classic: bool = False

    @property
    def bait(self) -> Bait:
        """The last normalisation."""
        return Bait(("norm2",) if self.classic else ("last_norm",))

    @nn.compact
    def __call__(self, inputs, train: bool = True):
        """Logits f32[batch, classes] of f32[batch, height, width, channels], height and width at least 8."""
        for number, features in enumerate((6, 16), 1):
            inputs = Convolution(features, size=5, bias=False, name=f"conv{number}")(inputs)
            inputs = max_pool(nn.relu(batch_norm(train, f"norm{number}")(inputs)))
        inputs = inputs.reshape(inputs.shape[0], -1)
        for number, (features, norm) in enumerate(((120, "norm3"), (self.hidden, "last_norm")), 1):
            inputs = nn.Dense(features, use_bias=self.classic, precision="highest", name=f"dense{number}")(inputs)
            inputs = nn.relu(inputs if self.classic else batch_norm(train, norm)(inputs))
        self.sow("intermediates", "embedding", inputs)
        return nn.Dense(self.classes, precision="highest", name="head")(inputs)


class VGGBN(nn.Module):
    """Stages of 3×3 convolutions with batch normalisation and rectifiers, halved by max pooling, and a dense layer.

    What is left of the image after the last stage is averaged, on 32×32 pixels and five stages a single pixel.

    Attributes:
      classes: number of classes.
      stages: output channels of the convolutions of every stage; the last of them is the width of the embedding.
      dropout: share of the embedding that is dropped in training, which needs the PRNG "dropout".

    Reference:
      Simonyan & Zisserman (2015), arXiv:1409.1556, table 1; Ioffe & Szegedy (2015), arXiv:1502.03167.
    """

    classes: int
    stages: tuple[tuple[int, ...], ...]
    dropout: float = 0.0
    bait = Bait(("last_norm",))

    @nn.compact
    def __call__(self, inputs, train: bool = True):
        """Logits f32[batch, classes] of f32[batch, height, width, channels]."""
        number, last = 0, sum(map(len, self.stages))
        for stage in self.stages:
            for features in stage:
                number += 1
                inputs = Convolution(features, bias=False, name=f"conv{number}")(inputs)
                norm = batch_norm(train, "last_norm" if number == last else f"norm{number}")
                inputs = nn.relu(norm(inputs))
            inputs = max_pool(inputs)
        inputs = nn.Dropout(self.dropout, deterministic=not train)(inputs.mean((1, 2)))
        self.sow("intermediates", "embedding", inputs)
        return nn.Dense(self.classes, precision="highest", name="head")(inputs)
