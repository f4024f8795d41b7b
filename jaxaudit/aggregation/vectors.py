"""Real vectors before they become integers: their length in float32, with a proved error."""

import jax
import jax.numpy as jnp
import numpy as np

from .stage import Setting


def norm_slack(dim: int) -> float:
    """How far `euclidean_norm` may be off, relatively, on every device; at least 2^-20, which covers 2^20 entries."""
    # In units of 2^-24: squares and one level of the tree after another, halved by the root; 4 for a root of 2 ulp.
    return max(2.0**-20, 2.0**-24 * ((int(dim - 1).bit_length() + 1) / 2 + 4))


def euclidean_norm(vector) -> jax.Array:
    """The l2 norm of a vector.

    Args:
      vector: f32[dim].

    Returns:
      f32[], 0 for the zero vector only.

    Guarantee:
      Within a factor 1 ± `norm_slack(dim)` of the exact norm, for entries between 2^-126 and 2^127 or zero. The order
      of the sum is written out, for the error of a backend's own sum may grow with its length.
    """
    # A power of two, so exact: without it squares overflow above 1e19, and vanish below 1e-19.
    power, inverse = _power_below(jnp.max(jnp.abs(vector)))
    scaled = vector * inverse
    return jnp.sqrt(_tree_sum(scaled * scaled)) * power


def refuse_integers(setting: Setting) -> None:
    """Raise ValueError where the vectors that reach a stage are integers already."""
    if setting.step:
        raise ValueError(
            f"integer vectors reach it (a step is {setting.step:g}), allowed are real ones; put it before fixed_point"
        )


def _power_below(value):
    """The power of two at or below a number, within 2^±126, and its inverse; by their bits, for these are exact."""
    bits = jax.lax.bitcast_convert_type(jnp.clip(value, 2.0**-126, 2.0**126), jnp.int32) & jnp.int32(0x7F800000)
    exact = [jax.lax.bitcast_convert_type(one, jnp.float32) for one in (bits, jnp.int32(254 << 23) - bits)]
    return exact[0], exact[1]


def _tree_sum(terms):
    """Sum of terms >= 0: every addition has one rounding, and each term passes log2(size) of them."""
    size = 1 << int(terms.shape[0] - 1).bit_length()
    terms = jnp.concatenate([terms, jnp.zeros(size - terms.shape[0], terms.dtype)])
    while terms.shape[0] > 1:
        terms = terms[: terms.shape[0] // 2] + terms[terms.shape[0] // 2 :]
    return terms[0]


def rounded_down(value: float) -> np.float32:
    """The largest float32 that is not above a number."""
    nearest = np.float32(value)
    # As floats: NumPy would round the number to float32 before it compares.
    return np.nextafter(nearest, np.float32(-np.inf)) if float(nearest) > float(value) else nearest
