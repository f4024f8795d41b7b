"""A small network of patches with layer normalisation, as a stand-in for the heads of transformers."""

import jax.numpy as jnp
from flax import linen as nn

from .bait import Bait


class Mixer(nn.Module):
    """MLP-Mixer: two blocks that mix 4×4 patches and then channels, an average, a last normalisation, the head.

    Nothing stands between the last normalisation and the head, so that its bias, of either sign, can be the
    embedding. Sides that 4 does not divide are padded with zeros.

    Attributes:
      classes: number of classes.
      hidden: channels of every patch, the width of the embedding.

    Reference:
      Tolstikhin et al. (2021), arXiv:2105.01601, figure 1, with the average before the last normalisation.
    """

    classes: int
    hidden: int
    bait = Bait(("last_norm",), signed=True)

    @nn.compact
    def __call__(self, inputs, train: bool = True):
        """Logits f32[batch, classes] of f32[batch, height, width, channels]; training changes nothing."""
        inputs = _dense(self.hidden, "embed")(_patches(inputs))
        for block in (1, 2):
            mixed = jnp.swapaxes(_layer_norm(f"norm{block}_patches")(inputs), 1, 2)
            mixed = _two_layers(mixed, max(1, self.hidden // 2), f"patches{block}")
            inputs = inputs + jnp.swapaxes(mixed, 1, 2)
            inputs = inputs + _two_layers(
                _layer_norm(f"norm{block}_channels")(inputs), 2 * self.hidden, f"channels{block}"
            )
        inputs = _layer_norm("last_norm")(inputs.mean(1))
        self.sow("intermediates", "embedding", inputs)
        return _dense(self.classes, "head")(inputs)


def _patches(images):
    """f32[batch, patches, 16 · channels]."""
    height, width = images.shape[1:3]
    images = jnp.pad(images, ((0, 0), (0, -height % 4), (0, -width % 4), (0, 0)))
    batch, height, width, channels = images.shape
    cut = images.reshape(batch, height // 4, 4, width // 4, 4, channels)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height * width // 16, 16 * channels)


def _two_layers(inputs, width: int, name: str):
    """A hidden layer of `width` and back."""
    return _dense(inputs.shape[-1], f"{name}_out")(nn.gelu(_dense(width, f"{name}_in")(inputs)))


def _layer_norm(name: str) -> nn.LayerNorm:
    return nn.LayerNorm(use_fast_variance=False, name=name)


def _dense(features: int, name: str) -> nn.Dense:
    return nn.Dense(features, precision="highest", name=name)
