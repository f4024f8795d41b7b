"""The layers that the classifiers are made of, as plain matrix products and sums of shifted images."""

import jax.numpy as jnp
from flax import linen as nn


class Convolution(nn.Module):
    """A convolution with zero padding, as the matrix product of patches: `nn.Conv(features, (size, size))`.

    Attributes:
      features: number of output channels.
      size: height and width of the kernel, odd.
      stride: distance of neighbouring outputs, in pixels.
      bias: whether a bias is added; before a normalisation it would do nothing.
    """

    features: int
    size: int = 3
    stride: int = 1
    bias: bool = True

    @nn.compact
    def __call__(self, inputs):
        """f32[batch, ⌈height / stride⌉, ⌈width / stride⌉, features] of f32[batch, height, width, channels]."""
        shape = (self.size, self.size, inputs.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        # XLA's own convolution is ten times slower on a CPU inside a loop, and when clients are vectorised over
        # theirs becomes a grouped one; a matrix product is neither. Client-specific normalisation behind shared
        # kernels does not change that: two at a time, eight clients' gradients of a layer from 64 to 512 channels
        # take 0.2 s as products and 27 s as convolutions.
        patches = jnp.concatenate(_shifted(inputs, self.size, self.stride), -1)
        outputs = jnp.matmul(patches, kernel.reshape(-1, self.features), precision="highest")
        if not self.bias:
            return outputs
        return outputs + self.param("bias", nn.initializers.zeros_init(), (self.features,))


class DepthwiseConvolution(nn.Module):
    """A 3×3 convolution of every channel with a kernel of its own, without bias, as nine shifted products.

    Attributes:
      stride: distance of neighbouring outputs, in pixels.
    """

    stride: int = 1

    @nn.compact
    def __call__(self, inputs):
        """f32[batch, ⌈height / stride⌉, ⌈width / stride⌉, channels] of f32[batch, height, width, channels]."""
        # Of nine inputs to every output, whatever the number of channels.
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (3, 3, 1, inputs.shape[-1]))
        weights = kernel.reshape(9, -1)
        return sum(image * weights[tap] for tap, image in enumerate(_shifted(inputs, 3, self.stride)))


def max_pool(images):
    """Largest of every 2×2, of images with a side of one pixel the images themselves.

    The gradient of `nn.max_pool` would make a step half as long again on a CPU.
    """
    batch, height, width, channels = images.shape
    if min(height, width) == 1:
        return images
    even = images[:, : height // 2 * 2, : width // 2 * 2]
    return even.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))


def batch_norm(train: bool, name: str) -> nn.BatchNorm:
    """Batch normalisation over the records of one client.

    With an `axis_name`, as in the flax ImageNet example, statistics would be shared by clients that are vectorised
    over; the fast variance E[x²] - E[x]² cancels where the mean is large.
    """
    return nn.BatchNorm(use_running_average=not train, axis_name=None, use_fast_variance=False, name=name)


def _shifted(images, size: int, stride: int) -> list:
    """The images seen from every tap of a kernel, padded with zeros."""
    _, height, width, _ = images.shape
    edge = size // 2
    padded = jnp.pad(images, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    return [padded[:, i : i + height : stride, j : j + width : stride] for i in range(size) for j in range(size)]
