"""What runs in every trial on a finite pool: whole updates by their row, or one integer per update and column."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..random import Ticket
from .seating import Groups, Seating


class PoolParams(NamedTuple):
    """What the draws look up.

    Attributes:
      rows: f32[updates + 2 * pairs * rounds, dim], the recorded updates, then the candidates of every pair: h0 of all
        rounds, h1 of all rounds.
      groups: which of them belong to whom.
    """

    rows: jax.Array
    groups: Groups


@dataclass(frozen=True)
class PoolDraws:
    """Draws of whole updates; a seat's occupant is a row number.

    Attributes:
      seating: the law of the cohort.
      rounds: audited rounds.
      pairs: pairs of candidates at the end of the rows.
    """

    seating: Seating
    rounds: int
    pairs: int

    @property
    def absent(self) -> bool:
        """Whether seats may stay empty."""
        return self.seating.absent

    def seats(self, noise_terms: int) -> int:
        """Seats of a cohort with so many noise terms."""
        return self.seating.of(noise_terms)

    def width(self, params: PoolParams) -> int:
        """A batch of running sums that stays in the second-level cache: 256 updates of 650 numbers."""
        return int(np.clip(2 ** (18 - (params.rows.shape[1] - 1).bit_length()), 16, 8192))

    def others(self, params: PoolParams, ticket: Ticket) -> jax.Array:
        """Rows of the other clients: i32[rounds, seats]."""
        return self.seating.rows(params.groups, ticket)

    def target(self, params: PoolParams, ticket: Ticket, pair: int, bit) -> jax.Array:
        """The rows of the candidate that the bit chooses: i32[rounds, 1]."""
        del ticket
        first = params.rows.shape[0] - 2 * self.rounds * (self.pairs - pair)
        return (first + self.rounds * bit + jnp.arange(self.rounds, dtype=jnp.int32))[:, None]

    def update(self, params: PoolParams, ticket: Ticket, who) -> jax.Array:
        """The row itself: f32[dim]."""
        del ticket
        return params.rows.at[who].get(mode="promise_in_bounds")


class TableParams(NamedTuple):
    """What the sums look up.

    Attributes:
      table: i32[updates, columns], the scalar of every recorded update in steps.
      groups: which of them belong to whom.
    """

    table: jax.Array
    groups: Groups


@dataclass(frozen=True)
class PoolSums:
    """Sums of one integer per update and column: draw, look up and add in one loop, nothing is kept.

    Attributes:
      seating: the law of the cohort.
      noise_terms: for every column, how many of the seats, from the first, are in its sum.
    """

    seating: Seating
    noise_terms: tuple[int, ...]

    def width(self, params: TableParams) -> int:
        """Running sums that stay in the second-level cache of a processor, or fill a graphics card."""
        if jax.default_backend() != "cpu":
            return 2**20 >> (len(self.noise_terms) - 1).bit_length()
        return int(np.clip(2 ** (14 - (len(self.noise_terms) - 1).bit_length()), 64, 8192))

    def others(self, params: TableParams, ticket: Ticket) -> jax.Array:
        """The others' sums in steps, over all rounds: i32[columns]."""
        rounds = params.groups.first.shape[0]
        if rounds == 1:
            return self._in_round(params, ticket, jnp.uint32(0))
        nothing = jnp.zeros(len(self.noise_terms), jnp.int32)
        return jax.lax.fori_loop(
            0, rounds, lambda r, total: total + self._in_round(params, ticket, r.astype(jnp.uint32)), nothing
        )

    def _in_round(self, params, ticket, in_round):
        sit = self.seating.pairs(params.groups, ticket, in_round)

        def sent(table, j):
            rows, here = sit(j)
            if table.shape[1] > 1:
                # Otherwise XLA draws the row again for every column of its scalars.
                rows = jax.lax.optimization_barrier(rows)
            found = [table.at[row].get(mode="promise_in_bounds") for row in rows]
            return found if here is None else [jnp.where(h, f, 0) for h, f in zip(here, found)]

        seats = np.array([self.seating.of(one) for one in self.noise_terms])
        table, total, done, columns = params.table, jnp.zeros(seats.size, jnp.int32), 0, np.arange(seats.size)
        sums, order = [], []
        for size in np.unique(seats).tolist():

            def add(j, total, table=table):
                first, second = sent(table, j)
                return total + first + second

            total = jax.lax.fori_loop(done, size // 2, add, total, unroll=_unrolled(size // 2 - done))
            done = size // 2
            # A smaller cohort is the running sum, looked at on the way; its columns need no more seats.
            seen = total + sent(table, jnp.int32(done))[0] if size % 2 else total
            more = seats[columns] > size
            sums.append(seen[~more] if more.any() else seen)
            order.append(columns[~more])
            if more.any():
                table, total, columns = table[:, more], total[more], columns[more]
        back = np.argsort(np.concatenate(order))
        return sums[0] if len(sums) == 1 else jnp.concatenate(sums)[back]


def _unrolled(pairs):
    """Pairs of seats in a step of the loop: on a processor it hides latency, on a graphics card it is one launch."""
    return max(1, min(pairs, 4 if jax.default_backend() == "cpu" else 16))
