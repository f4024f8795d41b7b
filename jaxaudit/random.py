r"""Counter-based random words: every random number of a trial is addressed, not drawn in turn.

A `Ticket` names a trial. Its words are an array that exists only where it is looked at: word i of a trial is half
of Threefry-2x32 with 20 rounds, key (seed, stream), counter (trial, i // 2). So a trial is the same whatever the
block size, the number of devices or the order of execution, and it can be replayed alone.

The generator is written out instead of calling `jax.random.bits`: the unrolled rounds fuse with what consumes them,
both output words are used, and no key has to be split and carried. Its output is checked word for word against the
published vectors.

Reference:
  Salmon, Moraes, Dror & Shaw (2011), "Parallel random numbers: as easy as 1, 2, 3", SC11.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Streams keep what is fitted, tuned and certified apart: no two of them share a random word.
PILOT, CERTIFY, OFF_SPAN = 1, 2, 3
STREAMS = {"pilot": PILOT, "certify": CERTIFY, "off-span": OFF_SPAN}

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


class Ticket(NamedTuple):
    """Names every random number of one trial.

    Attributes:
      seed: u32[], of the run.
      stream: u32[], one of `STREAMS`.
      trial: u32[], number of the trial within its stream.
    """

    seed: jax.Array
    stream: jax.Array
    trial: jax.Array


def threefry2x32(key, counter):
    """Threefry-2x32 with 20 rounds, unrolled.

    Args:
      key: two u32 arrays.
      counter: two u32 arrays; everything broadcasts.

    Returns:
      two u32 arrays.

    Reference:
      Random123 `threefry2x32` with its default 20 rounds.
    """
    keys = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(0x1BD11BDA))
    x, y = counter[0] + keys[0], counter[1] + keys[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x = x + y
            y = (y << jnp.uint32(rotation)) | (y >> jnp.uint32(32 - rotation))
            y = x ^ y
        x = x + keys[(group + 1) % 3]
        y = y + keys[(group + 2) % 3] + jnp.uint32(group + 1)
    return x, y


def words(ticket: Ticket, first, size: int):
    """Words `first` to `first + size - 1` of a trial.

    Args:
      ticket: the trial.
      first: u32[], even; a trial has 2^33 words.
      size: number of words, static.

    Returns:
      u32[size], independent and uniform.
    """
    blocks = (size + 1) // 2
    block = jnp.uint32(first) // jnp.uint32(2) + jnp.arange(blocks, dtype=jnp.uint32)
    pair = threefry2x32((ticket.seed, ticket.stream), (ticket.trial, block))
    return jnp.stack(pair, axis=-1).reshape(2 * blocks)[:size]


def index_below(word, bound):
    """Map a uniform word to an index below `bound`: the high half of their 64-bit product, in 32-bit arithmetic.

    Args:
      word: u32 array.
      bound: u32 array, positive; broadcasts.

    Returns:
      u32, floor(word · bound / 2^32).

    Guarantee:
      Every index has probability within 2^-32 of 1 / bound.
    """
    half = jnp.uint32(16)
    mask = jnp.uint32(0xFFFF)
    word_high, word_low = word >> half, word & mask
    bound_high, bound_low = bound >> half, bound & mask
    low = (word_low * bound_low) >> half
    middle = word_high * bound_low + low
    cross = word_low * bound_high + (middle & mask)
    return word_high * bound_high + (middle >> half) + (cross >> half)


def normals(ticket: Ticket, first, size: int):
    """Standard normal numbers by the Box-Muller transform of a trial's words.

    The radius comes from the whole 32-bit word, small words giving large radii, so the tails reach 6.66 standard
    deviations; `jax.random.normal` in float32 stops at 5.4, which would overstate rare-event epsilons.

    Args:
      ticket: the trial.
      first: u32[], even: the first word used.
      size: number of normals, static; as many words are used, rounded up to even.

    Returns:
      f32[size].
    """
    pairs = (size + 1) // 2
    pair = words(ticket, first, 2 * pairs).reshape(pairs, 2)
    # (w + 1/2) / 2^32 lies in (0, 1]; float32 keeps the small values exact, which are the tail.
    uniform = (pair[:, 0].astype(jnp.float32) + jnp.float32(0.5)) * jnp.float32(2**-32)
    angle = pair[:, 1].astype(jnp.float32) * jnp.float32(2 * np.pi * 2**-32)
    radius = jnp.sqrt(jnp.float32(-2) * jnp.log(uniform))
    return jnp.stack([radius * jnp.cos(angle), radius * jnp.sin(angle)], axis=-1).reshape(2 * pairs)[:size]
