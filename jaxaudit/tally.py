"""Counting scores on the device that made them: how many lie between one threshold and the next.

A score arrives as an i32 key, the sum in steps or the bits of a float32 in the order of its values. Thresholds
become cuts, the first keys beyond them, so that a comparison of integers on the device decides exactly as one of
float64 numbers on the host. What leaves the device is one number for each gap between two cuts, whatever the number
of trials.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# The smallest key stands for a score that is no number; those of finite float32 numbers end at their largest.
INVALID = -(2**31)
_LARGEST = 0x7F7FFFFF
# Fixed bins of the table that a key is first looked up in; a power of two.
_BINS = 512


def ordered(scores: jax.Array) -> jax.Array:
    """Keys in the order of float32 scores: i32, `INVALID` for what is not finite."""
    bits = jax.lax.bitcast_convert_type(scores, jnp.int32)
    # One key for both zeros, told by their bits: a processor that flushes subnormal numbers calls those zero, too.
    bits = jnp.where(bits == jnp.int32(INVALID), jnp.int32(0), bits)
    keys = jnp.where(bits < 0, bits ^ jnp.int32(0x7FFFFFFF), bits)
    return jnp.where(jnp.isfinite(scores), keys, jnp.int32(INVALID))


def disordered(keys: np.ndarray) -> np.ndarray:
    """The float32 scores that keys belong to, as f64; NaN for `INVALID`."""
    keys = np.asarray(keys, np.int32)
    scores = np.where(keys < 0, keys ^ np.int32(0x7FFFFFFF), keys).view(np.float32).astype(np.float64)
    return np.where(keys == INVALID, np.nan, scores)


def first_key(beyond: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """The smallest key for which a monotone condition holds, by bisection.

    Args:
      beyond: of i32 keys of that shape, to bool; false and then true as keys grow.
      shape: of the answer.

    Returns:
      i64, one more than the largest key where the condition never holds.
    """
    low, high = np.full(shape, -_LARGEST - 1, np.int64), np.full(shape, _LARGEST + 1, np.int64)
    while np.any(low < high):
        middle = (low + high) // 2
        found = beyond(np.minimum(middle, _LARGEST).astype(np.int32))
        low, high = np.where(found | (low == high), low, middle + 1), np.where(found, middle, high)
    return low


class Cuts(NamedTuple):
    """Where keys are told apart, under either bit and in every column.

    Attributes:
      keys: i32[2, columns, cuts], increasing; a gap begins at each.
      low: i32[2, columns], where the fixed bins begin.
      shift: u32[2, columns], a bin is 2^shift keys.
      start: i32[2, columns, bins], how many cuts lie at or before the beginning of each bin.
      steps: i32[], bisections that find a cut within a bin.
    """

    keys: jax.Array
    low: jax.Array
    shift: jax.Array
    start: jax.Array
    steps: jax.Array


def cuts_of(keys: Sequence[Sequence[np.ndarray]]) -> Cuts:
    """Cuts that are ready for the device.

    Args:
      keys: for either bit and every column, i64[k], increasing.

    Returns:
      Cuts. Gap 0 is that of `INVALID` alone; the columns are filled up to a common number of cuts, a power of two.
    """
    full = [[np.concatenate([[INVALID + 1], own]) for own in one] for one in keys]
    size = 1 << (max(own.size for one in full for own in one) - 1).bit_length()
    padded = np.array(
        [[np.pad(own, (0, size - own.size), constant_values=_LARGEST + 1) for own in one] for one in full]
    )
    low = padded[:, :, 1]
    # The highest cut of a column that is no filling: beyond it nothing is told apart.
    high = np.array([[own[-1] for own in one] for one in full])
    width = np.maximum(high - low, 1)
    shift = np.maximum(np.ceil(np.log2((width + 1) / _BINS)), 0).astype(np.int64)
    begin = low[..., None] + (np.arange(_BINS) << shift[..., None])
    begin[..., 0] = INVALID
    start = np.array([[np.searchsorted(p, b, side="right") for p, b in zip(*one)] for one in zip(padded, begin)])
    last = np.array([[own.size for own in one] for one in full])
    most = np.diff(np.concatenate([start, last[..., None]], axis=2), axis=2).max()
    return Cuts(
        jnp.asarray(padded, jnp.int32),
        jnp.asarray(low, jnp.int32),
        jnp.asarray(shift, jnp.uint32),
        jnp.asarray(start, jnp.int32),
        jnp.asarray(int(most).bit_length(), jnp.int32),
    )


def gaps(cuts: Cuts, keys: jax.Array) -> jax.Array:
    """The gap of every key: how many cuts lie at or below it.

    Args:
      cuts: from `cuts_of`.
      keys: i32[2, columns, n].

    Returns:
      i32[2, columns, n].
    """
    bits, columns, size = cuts.keys.shape
    own = jnp.arange(bits * columns, dtype=jnp.int32).reshape(bits, columns, 1)
    low, shift = cuts.low[:, :, None], cuts.shift[:, :, None]
    offset = jnp.maximum(keys, low).astype(jnp.uint32) - low.astype(jnp.uint32)
    at = jnp.minimum(offset >> shift, jnp.uint32(_BINS - 1)).astype(jnp.int32)
    start = cuts.start.reshape(-1).at[own * _BINS + at].get(mode="promise_in_bounds")
    flat = cuts.keys.reshape(-1)

    def halve(step, passed):
        ahead = passed + (jnp.int32(1) << (cuts.steps - 1 - step))
        key = flat.at[own * size + jnp.minimum(ahead, size) - 1].get(mode="promise_in_bounds")
        return jnp.where((key <= keys) & (ahead <= size), ahead, passed)

    return jax.lax.fori_loop(0, cuts.steps, halve, start)


def count(cuts: Cuts, keys: jax.Array, counted: jax.Array) -> jax.Array:
    """How many keys lie in each gap.

    Args:
      cuts: from `cuts_of`.
      keys: i32[n, 2, columns].
      counted: bool[n, 2], which of them count.

    Returns:
      i32[2, columns, cuts + 1].
    """
    bits, columns, size = cuts.keys.shape
    own = jnp.arange(bits * columns, dtype=jnp.int32).reshape(bits, columns, 1)
    # Column by column, so that its table stays in the first-level cache.
    place = own * (size + 1) + gaps(cuts, jnp.moveaxis(keys, 0, -1))
    # What does not count goes to a place of its own.
    place = jnp.where(counted.T[:, None], place, bits * columns * (size + 1))
    into = jnp.zeros(bits * columns * (size + 1) + 1, jnp.int32)
    found = into.at[place.reshape(-1)].add(1, mode="promise_in_bounds")
    return found[:-1].reshape(bits, columns, size + 1)
