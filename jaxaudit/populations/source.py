"""Where recorded updates come from, and how many of them are read: a block at a time."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

# Numbers in a block: 128 MiB of float32. Small products would cost more in waking threads than in multiplying.
_NUMBERS = 2**25


class Source(Protocol):
    """Where recorded updates of one round come from, group by group: a group is a client, or all updates.

    Attributes:
      dim: dimension of an update.
      sizes: i64[groups], recorded updates in each.
      key: address of what the updates are a function of, None if they are not to be remembered.
    """

    dim: int
    sizes: np.ndarray
    key: str | None

    def freedom(self, groups: int) -> int:
        """The largest rank that differences within so many groups can show."""

    def rows(self, first: int, last: int) -> np.ndarray:
        """The updates of groups `first` to `last - 1`, group after group: f32[n, dim]."""

    def project(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Products of every update with weights f64[k, dim]: f64[updates, k], and how far off each column may be."""


def blocks(sizes: Sequence[int], dim: int) -> Iterator[tuple[int, int]]:
    """Ranges of whole groups whose updates together are one block, or one group each if that is more.

    Args:
      sizes: updates in each group.
      dim: dimension of an update.

    Yields:
      (first group, last group + 1).
    """
    limit, first, filled = max(1, _NUMBERS // dim), 0, 0
    for group, size in enumerate(sizes):
        if filled and filled + size > limit:
            yield first, group
            first, filled = group, 0
        filled += size
    if filled:
        yield first, len(sizes)


def products(source: Source, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Products of all updates of a source with weights f64[k, dim], in float64: f64[updates, k], and their error."""
    scalars, largest = [], 0.0
    for first, last in blocks(source.sizes, source.dim):
        rows = source.rows(first, last)
        scalars.append(rows.astype(np.float64) @ weights.T)
        largest = max(largest, float(np.abs(rows).max()))
    return np.concatenate(scalars), product_error(largest, weights)


def product_error(largest: float, weights: np.ndarray) -> np.ndarray:
    """How far a float64 product of weights f64[k, dim] with entries up to `largest` may be off: f64[k]."""
    return 2.0**-52 * weights.shape[1] * largest * np.abs(weights).sum(axis=1)
