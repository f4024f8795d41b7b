r"""Draws without replacement: a keyed permutation, so that the images of 0, 1, 2, ... are distinct clients.

The pool is laid out in rows of a square grid; the last row may be short. A round rotates every column, or every row,
by a pseudorandom amount of its own. Rotations are bijections whatever the amounts and whatever the length of the
line, so their composition is one, for every key and for pools of every size: nobody is dropped, nothing is rejected
and no state is kept. On a full grid this is the alternating Feistel network on Z_rows x Z_columns; the short row
takes the place of walking cycles, which costs two to four evaluations of a whole block.

Reference:
  Luby & Rackoff (1988), SIAM J. Comput. 17, for the network; Black & Rogaway (2002), "Ciphers with arbitrary finite
  domains", CT-RSA, for grids that are not powers of two and for cycle walking.
"""

import math

import jax.numpy as jnp

from .random import Ticket, words

# The law of two images is brought to one part in so many of two draws without replacement.
_PAIR_PRECISION = 10**6
# Lines of a grid of at most so many cells are numbered in 16 bits, which doubles what a vector instruction does.
_SHORT = 2**16


def permuted(ticket: Ticket, first, index, size: int):
    """Images of indices under the ticket's permutation of 0, ..., size - 1.

    The images of m distinct indices are m distinct clients; those of 0, ..., m - 1 are a sample without replacement.

    Args:
      ticket: the trial.
      first: u32[], even: the first word of the ticket that is used; 42 of them are at most.
      index: i32 or u32 array of any shape, in [0, size).
      size: of the pool, static, in [1, 2^31].

    Returns:
      the images, shape and dtype of `index`.

    Guarantee:
      A bijection for every ticket. If the rotations were independent and uniform, two images would be uniform over
      ordered pairs up to 1.2e-6 in total variation: see `rounds`. They are hashes, so there is no proof. What is
      measured: counts over structured pools follow the hypergeometric law (chi-square, 2.0e7 trials of 60 and 2.1e6
      of 1,000 from 10,000 clients), and pairs of small pools are uniform. A thousand images cannot be jointly
      uniform: eight keys have fewer values than they have orders.

    Example:
      >>> ticket = Ticket(jnp.uint32(0), jnp.uint32(0), jnp.uint32(0))
      >>> sorted(permuted(ticket, 0, jnp.arange(7), 7).tolist())
      [0, 1, 2, 3, 4, 5, 6]
    """
    columns = jnp.uint32(_grid(size)[1])
    place = index.astype(jnp.uint32)
    return permute(round_keys(ticket, first, size), place // columns, place % columns, size).astype(index.dtype)


def rounds(size: int) -> int:
    """Rounds for a pool of `size`, an even number of at least 8.

    Two clients in one column keep their distance until a round of rows separates them, which fails with probability
    1 / columns, and a round of columns follows. The first and the last round are lost to them, so after r rounds a
    pair of images is about rows^-((r - 2) / 2) from uniform, in total variation. As many rounds as bring this to
    1e-6 make 8 from 9,901 clients on, 14 for 100 and 42 for two to six. Computed exactly, for independent uniform
    rotations, it is at most 1.2e-6 for sizes to 130 (reached at 7) and 9.9e-7 for 10,000.

    Args:
      size: of the pool.

    Returns:
      int.
    """
    rows = max(_grid(size)[0], 2)
    return max(8, 2 + 2 * next(power for power in range(21) if rows**power >= _PAIR_PRECISION))


def columns_of(size: int) -> int:
    """Columns of the grid that a pool of `size` is laid out in: index i lies in row i // columns."""
    return _grid(size)[1]


def round_keys(ticket: Ticket, first, size: int) -> list:
    """Keys of a ticket's permutation: a factor and a summand for every round, of 16 bits in grids to 65,536 cells.

    Args:
      ticket: the trial.
      first: u32[], even: the first word of the ticket that is used.
      size: of the pool, static.

    Returns:
      list of pairs of u16[] or u32[].
    """
    number = rounds(size)
    if size <= _SHORT:
        drawn = words(ticket, first, number)
        return [(drawn[i].astype(jnp.uint16), (drawn[i] >> jnp.uint32(16)).astype(jnp.uint16)) for i in range(number)]
    drawn = words(ticket, first, 2 * number)
    return [(drawn[2 * i], drawn[2 * i + 1]) for i in range(number)]


def permute(keys, row, column, size: int):
    """The permutation that belongs to round keys.

    Args:
      keys: from `round_keys`; columns are rotated in the even rounds, rows in the odd ones.
      row, column: u32 arrays, a place in the grid.
      size: of the pool, static, in [1, 2^31].

    Returns:
      u32, the images.
    """
    rows, columns, last = _grid(size)
    half = keys[0][0].dtype.type
    row, column = row.astype(half), column.astype(half)
    for number, key in enumerate(keys):
        if number % 2 == 0:
            # Consecutive indices share rows; a rotation of whole rows would leave the set of them as it was.
            height = half(rows) if last == columns else jnp.where(column < half(last), half(rows), half(rows - 1))
            row = _rotate(row, height, column, key)
        else:
            width = half(columns) if last == columns else jnp.where(row < half(rows - 1), half(columns), half(last))
            column = _rotate(column, width, row, key)
    return row.astype(jnp.uint32) * jnp.uint32(columns) + column.astype(jnp.uint32)


def _grid(size):
    """(rows, columns, cells in the last row): as many columns as rows or one more, only the last row may be short."""
    if not 1 <= size <= 2**31:
        raise ValueError(f"size must be in [1, 2^31], got {size}")
    columns = math.isqrt(size - 1) + 1
    rows = -(-size // columns)
    return rows, columns, size - (rows - 1) * columns


def _rotate(position, length, line, key):
    """The position moved along its line, which is so long, by an amount that belongs to the line and the key."""
    moved = position + _amount(_mix(line, key), length)
    # Below `length` the difference wraps to a large number.
    return jnp.minimum(moved, moved - length)


def _mix(line, key):
    """A word for every line. Over the summand it is uniform, whatever the line and the factor."""
    # Factor · line + summand is a universal hash: it makes two lines independent, but leaves a lattice in the joint
    # law of many (chi-square finds it at once). So its high bits, the better ones, go into the low ones and back up.
    factor, summand = key
    word = line * factor + summand
    if word.dtype == jnp.uint16:
        return (word ^ (word >> jnp.uint16(7))) * jnp.uint16(0x2C1B)
    return (word ^ (word >> jnp.uint32(15))) * jnp.uint32(0x735A2D97)


def _amount(word, length):
    """The high half of word · length, an amount below `length`, which fits in 16 bits."""
    # Every amount has probability within 2^-16 (or 2^-32) of 1 / length; at 256 amounts one in 256 more or less. What
    # a round leaves uneven the next ones even out, because the rotations of a client add: four such make 256^-4.
    if word.dtype == jnp.uint16:
        return (word.astype(jnp.uint32) * length.astype(jnp.uint32) >> jnp.uint32(16)).astype(jnp.uint16)
    low = (word & jnp.uint32(0xFFFF)) * length >> jnp.uint32(16)
    return ((word >> jnp.uint32(16)) * length + low) >> jnp.uint32(16)
