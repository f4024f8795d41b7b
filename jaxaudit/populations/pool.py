"""A finite pool of recorded updates: every seat draws, with replacement, from its own group of rows."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from ..random import Ticket, index_below, words
from ..types import Loaded, Moments, Pair
from .moments import exact_moments


class PoolParams(NamedTuple):
    """What the draws look up.

    Attributes:
      rows: f32[updates + 2, dim], the recorded updates, group after group, then the two candidates.
      first: i32[seats], where the group of each seat begins.
      size: u32[seats], how many updates it holds.
    """

    rows: jax.Array
    first: jax.Array
    size: jax.Array


@dataclass(frozen=True)
class PoolDraws:
    """Independent uniform draws, one word of the ticket a seat. A seat's occupant is a row number."""

    def width(self, params: PoolParams) -> int:
        """A batch of running sums that stays in the second-level cache: 8,192 scalars, 256 updates of 650 numbers."""
        return int(np.clip(2 ** (18 - (params.rows.shape[1] - 1).bit_length()), 16, 8192))

    def others(self, params: PoolParams, ticket: Ticket) -> jax.Array:
        """Rows of the other clients: i32[1, seats]."""
        word = words(ticket, 0, params.size.shape[0])
        return (params.first + index_below(word, params.size).astype(jnp.int32))[None, :]

    def target(self, params: PoolParams, ticket: Ticket, bit) -> jax.Array:
        """The row of the candidate that the bit chooses: i32[1, 1]."""
        del ticket
        return jnp.full((1, 1), params.rows.shape[0] - 2 + bit, jnp.int32)

    def update(self, params: PoolParams, ticket: Ticket, who) -> jax.Array:
        """The row itself: f32[dim]."""
        del ticket
        return params.rows.at[who].get(mode="promise_in_bounds")


def product_error(largest: float, weights: np.ndarray) -> float:
    """How far a float64 product of `weights` with an update of entries up to `largest` may be from the exact one."""
    return float(2.0**-52 * len(weights) * largest * np.abs(weights).sum())


class Source(Protocol):
    """Where recorded updates come from, group by group."""

    dim: int
    sizes: np.ndarray

    def freedom(self, groups: int) -> int:
        """The largest rank that the recordings of so many groups can show."""

    def chunks(self, group: int) -> Collection[np.ndarray]:
        """The updates of one group, f32[n, dim] at a time; can be read twice."""

    def project(self, weights: np.ndarray) -> tuple[np.ndarray, float]:
        """f64[updates], the product of every update with `weights`, group after group; and how far off it may be."""


@dataclass(frozen=True)
class RecordedPool:
    """A source of recorded updates and the seats that draw from its groups.

    Attributes:
      source: the updates.
      seats: i64[noise_terms], the group that each other client draws from.
      what: what the updates are, for the statement of a report.
      clients: how many clients they come from, None if not known.
    """

    source: Source
    seats: np.ndarray
    what: str
    clients: int | None

    @property
    def dim(self):
        """Dimension of an update."""
        return self.source.dim

    @property
    def noise_terms(self):
        """Clients other than the target."""
        return len(self.seats)

    def moments(self) -> Moments:
        """Exact moments of the sum of one draw from every seat's group."""
        seats = np.bincount(self.seats, minlength=len(self.source.sizes))
        # A group without a seat, the target's own recordings, is no part of the noise.
        groups = ((self.source.chunks(group), int(n)) for group, n in enumerate(seats) if n)
        return exact_moments(groups, self.dim, self.source.freedom(int(np.count_nonzero(seats))))

    def load(self, pair: Pair) -> Loaded:
        """The rows themselves, for aggregators and attacks that need whole updates."""
        rows = np.concatenate([np.asarray(c, np.float32) for c in self._chunks()] + [pair.h0[None], pair.h1[None]])
        return self._loaded(rows, 0.0)

    def project(self, pair: Pair, weights: np.ndarray, offset: float) -> Loaded:
        """One scalar per row. Multiplied and centred in float64, so that float32 holds only what varies."""
        others, error = self.source.project(weights)
        candidates = pair.both @ weights
        scalars = np.concatenate([others, candidates]) - offset / (self.noise_terms + 1)
        error = max(error, product_error(np.abs(pair.both).max(), weights))
        # Half a unit in the last place of float32.
        return self._loaded(scalars.astype(np.float32)[:, None], error + 2.0**-24 * np.abs(scalars).max())

    def describe(self) -> dict[str, Any]:
        """Size and nature of the pool."""
        updates = int(sum(self.source.sizes[group] for group in set(self.seats.tolist())))
        return {
            "updates": updates,
            "clients": self.clients,
            "replacement": True,
            "words": f"sum of {self.noise_terms:,} updates drawn with replacement from {updates:,} {self.what}",
        }

    def _chunks(self) -> Iterator[np.ndarray]:
        for group in range(len(self.source.sizes)):
            yield from self.source.chunks(group)

    def _loaded(self, rows, error):
        sizes = np.asarray(self.source.sizes)
        first = np.concatenate([[0], np.cumsum(sizes)])[self.seats]
        params = PoolParams(
            jnp.asarray(rows), jnp.asarray(first, jnp.int32), jnp.asarray(sizes[self.seats], jnp.uint32)
        )
        return Loaded(PoolDraws(), params, float(np.abs(rows).max()), float(error))
