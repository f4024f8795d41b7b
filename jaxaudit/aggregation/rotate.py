"""The randomised Hadamard transform: a public rotation that spreads every entry over all entries."""

from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from ..random import Ticket, words
from ..schema import recipe
from .stage import Norms, Setting
from .vectors import refuse_integers

# The stream of the public signs: those of trials start at 1.
_PUBLIC = 0


class RotateParams(NamedTuple):
    """What the rotation looks up.

    Attributes:
      signs: f32[dim], 1 or -1.
    """

    signs: jax.Array


@recipe
class Rotate:
    """A client pads its vector with zeros to the next power of two, flips public random signs, and transforms it.

    The rotation is public and linear, so it hides nothing by itself: it evens the entries out before they are
    clipped, rounded and noised. A per-element threshold behind it is inert, because every client touches every entry.

    Attributes:
      kind: "rotate".
      seed: of the public signs, 0 to 2^32 - 1.

    Reference:
      Ailon & Chazelle (2009), "The fast Johnson-Lindenstrauss transform"; Suresh et al. (2017), arXiv:1611.00429.
    """

    steady: ClassVar[bool] = True
    kind: Literal["rotate"] = "rotate"
    seed: int = Field(0, ge=0, lt=2**32, description="of the public signs")

    def prepare(self, setting: Setting) -> RotateParams:
        """The signs: of no trial, for everyone knows them."""
        refuse_integers(setting)
        ticket = Ticket(jnp.uint32(self.seed), jnp.uint32(_PUBLIC), jnp.uint32(0))
        bits = np.asarray(words(ticket, 0, setting.dim)) >> np.uint32(31)
        return RotateParams(1 - 2 * bits.astype(np.float32))

    def after(self, setting: Setting) -> Setting:
        """The same length, spread out.

        Guarantee:
          The exact l2 norm of the float32 vector is at most (1 + (log2 size + 2) · 2^-24) times what it was: a level
          of the transform is exact but for one rounding of each entry, and the scaling has two.
        """
        size = padded(setting.dim)
        slack = 2.0**-24 * (size.bit_length() + 2)
        norms = Norms(np.inf, setting.norms.l2 * (1 + slack), np.inf)
        return setting._replace(dim=size, norms=norms.tightened(size))

    def words(self, setting: Setting) -> str:
        """Both dimensions."""
        size = padded(setting.dim)
        return f"rotates it by a public randomised Hadamard matrix ({setting.dim:,} entries padded to {size:,})"

    def encode(self, params: RotateParams, vector, ticket: Ticket) -> jax.Array:
        """The rotated vector: f32[size]."""
        del ticket
        return hadamard(_padded(vector * params.signs))

    def expected(self, params: RotateParams, vector, variance) -> tuple[Any, Any]:
        """Exact; the entries of the result are uncorrelated only where their variances were equal."""
        mean = hadamard(_padded(vector * params.signs))
        total = jnp.sum(jnp.broadcast_to(variance, vector.shape))
        return mean, total * jnp.float32(1 / mean.shape[0])

    def decode(self, params: RotateParams, total, survivors) -> Any:
        """The transform is its own inverse; padding is dropped."""
        del survivors
        dim = params.signs.shape[0]
        return hadamard(total)[:dim] * params.signs.astype(total.dtype)

    def decoded_variance(self, params: RotateParams, variance) -> Any:
        """The mean of the variances, for every entry.

        An entry of an orthonormal mixture of independent entries, whose squared weights are all 1 / size, has the
        mean of their variances, whichever entry it is.
        """
        library = np if isinstance(variance, np.ndarray | np.floating | float) else jnp
        return library.broadcast_to(library.mean(variance), params.signs.shape)


def padded(dim: int) -> int:
    """The next power of two."""
    return 1 << int(dim - 1).bit_length()


def hadamard(vector) -> Any:
    """The orthonormal Walsh-Hadamard transform, in natural order.

    Args:
      vector: real[size] of NumPy or JAX, size a power of two.

    Returns:
      real[size] of the same library and precision.
    """
    library = np if isinstance(vector, np.ndarray) else jnp
    size, half = vector.shape[0], 1
    while half < size:
        pairs = vector.reshape(-1, 2, half)
        first, second = pairs[:, :1], pairs[:, 1:]
        vector = library.concatenate([first + second, first - second], axis=1).reshape(size)
        half *= 2
    return vector * np.asarray(size**-0.5, vector.dtype)


def _padded(vector):
    dim = vector.shape[0]
    return jnp.concatenate([vector, jnp.zeros(padded(dim) - dim, vector.dtype)])
