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
PILOT, CERTIFY, OFF_SPAN, FIT, RECOVERY = 1, 2, 3, 4, 5
STREAMS = {"pilot": PILOT, "certify": CERTIFY, "off-span": OFF_SPAN, "fit": FIT, "recovery": RECOVERY}

# The second word of the key: 8 bits for the stream, 12 for the round of an aggregator, 12 for the trials beyond 2^32.
_ROUND, _TRIALS = 2**8, 2**20
MAX_ROUNDS, MAX_TRIALS = 2**12, 2**44

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


class Ticket(NamedTuple):
    """Names every random number of one trial.

    Attributes:
      seed: u32[], of the run.
      stream: u32[], one of `STREAMS`, and the high part of the trial's number: see `numbered`.
      trial: u32[], low part of the number of the trial within its stream.
    """

    seed: jax.Array
    stream: jax.Array
    trial: jax.Array


def numbered(seed, stream, high, low) -> Ticket:
    """The ticket of trial high · 2^32 + low of a stream.

    Args:
      seed: u32[].
      stream: u32[], one of `STREAMS`.
      high: u32[], below 2^12.
      low: u32[].

    Returns:
      Ticket.

    Guarantee:
      Different trials below 2^44, and different streams, share no word.
    """
    return Ticket(seed, stream + high * jnp.uint32(_TRIALS), low)


def of_round(ticket: Ticket, in_round) -> Ticket:
    """The ticket of an aggregator in one round: every round has words of its own.

    Args:
      ticket: of the trial.
      in_round: u32[], number of the round, below 2^12.

    Returns:
      Ticket; that of round 0 is the trial's own.
    """
    return ticket._replace(stream=ticket.stream + in_round * jnp.uint32(_ROUND))


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

    A trial has 2^32 words. The lower half is the population's, the upper half the aggregator's.

    Args:
      ticket: the trial.
      first: u32[], even.
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

    The radius comes from the whole 32-bit word, small words giving large radii, so the tails reach 6.76 standard
    deviations; `jax.random.normal` in float32 stops at 5.4, which would overstate rare-event epsilons. A tail beyond
    5.5, 6, 6.3 and 6.5 standard deviations is at most 0.005, 0.14, 1.5 and 6.4 % lighter than the normal one (every
    word enumerated, see benchmarks/gaussian.py); it matters where errors are counted in more than 1e10 trials.

    Args:
      ticket: the trial.
      first: u32[], even: the first word used.
      size: number of normals, static; as many words are used, rounded up to even.

    Returns:
      f32[size].
    """
    pairs = (size + 1) // 2
    block = jnp.uint32(first) // jnp.uint32(2) + jnp.arange(pairs, dtype=jnp.uint32)
    length, turn = threefry2x32((ticket.seed, ticket.stream), (ticket.trial, block))
    # (w + 1/2) / 2^32 lies in (0, 1]; float32 keeps the small values exact, which are the tail.
    uniform = (length.astype(jnp.float32) + jnp.float32(0.5)) * jnp.float32(2**-32)
    radius = jnp.sqrt(jnp.float32(-2) * jnp.log(uniform))
    # Computed once: without the barrier XLA repeats the whole generator for every reduction that reads it.
    radius, sine, cosine = jax.lax.optimization_barrier((radius, *unit_circle(turn)))
    return jnp.concatenate([radius * sine, radius * cosine])[:size]


def unit_circle(word):
    """A uniform point on the unit circle for a uniform word.

    The two high bits choose a quadrant, the others an angle within π/4 of its middle, where short polynomials are
    exact to float32: four times as fast as `jnp.sin` and `jnp.cos`, which reduce arguments of any size.

    Args:
      word: u32 array.

    Returns:
      (sine, cosine) of 2π word / 2^32 - π/4, f32.

    Reference:
      Polynomials of `sinf` and `cosf` in Cephes (Moshier 1992).
    """
    quadrant = word >> jnp.uint32(30)
    within = (word & jnp.uint32(2**30 - 1)).astype(jnp.int32) - jnp.int32(2**29)
    x = within.astype(jnp.float32) * jnp.float32(np.pi / 2**31)
    square = x * x
    sine = x + x * square * _horner(square, (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1))
    cosine = _horner(square, (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2, -0.5, 1.0))
    odd = (quadrant & jnp.uint32(1)) == jnp.uint32(1)
    first, second = jnp.where(odd, cosine, sine), jnp.where(odd, sine, cosine)
    first = jnp.where(quadrant >= jnp.uint32(2), -first, first)
    second = jnp.where((quadrant == jnp.uint32(1)) | (quadrant == jnp.uint32(2)), -second, second)
    return first, second


def _horner(x, coefficients):
    value = jnp.float32(coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * x + jnp.float32(coefficient)
    return value
