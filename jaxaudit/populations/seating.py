"""Who sits where: the rows of a pool that the other clients send in a trial, addressed seat by seat.

Seats come in pairs, because the generator gives words in pairs. The same function serves whole updates, where the
rows of all seats are listed, and scalars, where rows are drawn, looked up and summed in one loop that keeps none of
them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import binom

from ..permutation import columns_of, permute, round_keys
from ..random import Ticket, index_below, threefry2x32, words
from ..types import ABSENT
from .cohorts import Cohort

# A round has 2^18 words of each kind, and there are at most 1,000 rounds, so all are below 2^31. A seat's words do
# not depend on how many seats there are.
_WORDS = 2**18
_UPDATE, _DROPOUT, _CLIENT, _SIZE = 0, 2**29, 2**30, 2**30 + 2**29

_RARE = 1e-18


class Groups(NamedTuple):
    """The recorded updates of a pool, by client, in every round: what a seat looks up.

    Attributes:
      first: i32[rounds, groups], the row where each group begins.
      size: u32[rounds, groups], how many rows it has.
      cohorts: u32[k], the law of the size of a Poisson cohort: of 2^32 words, how many give 0, at most 1, ...
    """

    first: jax.Array
    size: jax.Array
    cohorts: jax.Array


@dataclass(frozen=True)
class Seating:
    """The law of a cohort.

    Attributes:
      cohort: "fixed" (seat i belongs to group i), or groups drawn in every round: "with_replacement",
        "without_replacement", or "poisson" (each of them takes part or not, by a coin of its own).
      seats: seats of the largest cohort; of a Poisson cohort some stay empty.
      groups: groups of the pool.
      each: rows of a group where all have as many in every round, else 0.
      dropout: of 2^32 words, how many keep a client away.
    """

    cohort: Cohort
    seats: int
    groups: int
    each: int
    dropout: int

    @property
    def absent(self) -> bool:
        """Whether seats may stay empty."""
        return self.cohort == "poisson" or self.dropout > 0

    def of(self, noise_terms: int) -> int:
        """Seats of a cohort with so many noise terms."""
        return self.seats if self.cohort == "poisson" else noise_terms

    def attendance(self, noise_terms: int, rate: float) -> tuple[tuple[int, float], ...]:
        """How many of the others send, and with what probability: the law of a number.

        Args:
          noise_terms: other clients of the cohort; of a Poisson cohort, how many are expected.
          rate: of a Poisson cohort, with which each group takes part.

        Returns:
          (number, probability) for every number of probability 1e-18 or more.
        """
        stay = 1 - self.dropout / 2.0**32
        count, chance = (self.groups, rate * stay) if self.cohort == "poisson" else (noise_terms, stay)
        numbers = np.arange(count + 1)
        law = binom.pmf(numbers, count, chance)
        return tuple((int(n), float(p)) for n, p in zip(numbers, law) if p >= _RARE)

    def pairs(self, groups: Groups, ticket: Ticket, in_round) -> Callable[[Any], tuple[Any, Any]]:
        """The seats of one round, two at a time.

        Args:
          groups: what a seat looks up.
          ticket: of the trial.
          in_round: u32[], number of the round.

        Returns:
          a function of i32[] j, for seats 2j and 2j + 1: their rows, two i32[], and whether somebody sits there, two
          bool[], or None where somebody always does.
        """
        in_round = in_round.astype(jnp.uint32)
        start = in_round * jnp.uint32(_WORDS)
        if self.cohort in ("without_replacement", "poisson"):
            # Without the barrier the keys would be drawn again for every seat.
            keys = jax.lax.optimization_barrier(round_keys(ticket, jnp.uint32(_CLIENT) + start, self.groups))
        if self.cohort == "poisson":
            (word,) = words(ticket, jnp.uint32(_SIZE) + start, 1)
            taken = jnp.searchsorted(groups.cohorts, word, side="right", method="scan_unrolled").astype(jnp.int32)

        def both(first_word, j):
            block = (jnp.uint32(first_word) + start) // jnp.uint32(2) + j.astype(jnp.uint32)
            return threefry2x32((ticket.seed, ticket.stream), (ticket.trial, block))

        def drawn_without(seat):
            columns = jnp.uint32(columns_of(self.groups))
            seat = seat.astype(jnp.uint32)
            return permute(keys, seat // columns, seat % columns, self.groups)

        def at(j):
            # The last pair may reach one seat too far; whoever is found there is not looked at.
            seats = [jnp.minimum(seat, self.groups - 1) for seat in (2 * j, 2 * j + 1)]
            if self.cohort == "with_replacement" and self.each:
                # A client and then one of its updates: where all have as many, one of all updates.
                everyone = jnp.uint32(self.groups * self.each)
                begin = (in_round * everyone).astype(jnp.int32)
                rows = [begin + index_below(word, everyone).astype(jnp.int32) for word in both(_UPDATE, j)]
            else:
                if self.cohort == "fixed":
                    who = seats
                elif self.cohort == "with_replacement":
                    who = [index_below(word, jnp.uint32(self.groups)).astype(jnp.int32) for word in both(_CLIENT, j)]
                else:
                    who = [drawn_without(seat).astype(jnp.int32) for seat in seats]
                rows = self._own(groups, in_round, who, lambda: both(_UPDATE, j))
            if not self.absent:
                return rows, None
            here = [jnp.bool_(True)] * 2
            if self.cohort == "poisson":
                here = [2 * j < taken, 2 * j + 1 < taken]
            if self.dropout:
                here = [h & (word >= jnp.uint32(self.dropout)) for h, word in zip(here, both(_DROPOUT, j))]
            return rows, here

        return at

    def _own(self, groups, in_round, who, own_words):
        """One of its own rows for each of two clients."""
        if self.each:
            first = [((in_round * jnp.uint32(self.groups)).astype(jnp.int32) + w) * self.each for w in who]
            if self.each == 1:
                return first
            size = [jnp.uint32(self.each)] * 2
        else:
            # Behind a barrier, because a look-up within a larger expression keeps XLA:CPU from vectorising it.
            first, size = jax.lax.optimization_barrier(
                ([groups.first[in_round, w] for w in who], [groups.size[in_round, w] for w in who])
            )
        return [f + index_below(word, s).astype(jnp.int32) for f, s, word in zip(first, size, own_words())]

    def rows(self, groups: Groups, ticket: Ticket) -> jax.Array:
        """The rows of all seats, `ABSENT` where nobody sits: i32[rounds, seats]."""
        pairs = jnp.arange((self.seats + 1) // 2, dtype=jnp.int32)

        def one(in_round):
            rows, here = jax.vmap(self.pairs(groups, ticket, in_round))(pairs)
            rows = jnp.stack(rows, axis=-1)
            if here is not None:
                rows = jnp.where(jnp.stack(here, axis=-1), rows, ABSENT)
            return rows.reshape(-1)[: self.seats]

        return jax.vmap(one)(jnp.arange(groups.first.shape[0], dtype=jnp.uint32))


def seated(
    cohort: Cohort, noise_terms: int, first: np.ndarray, size: np.ndarray, dropout: float
) -> tuple[Seating, Groups]:
    """The law of a cohort and what its seats look up.

    Args:
      cohort: how seats find their groups.
      noise_terms: other clients in the largest cohort; of a Poisson cohort, how many are expected.
      first: int[rounds, groups], the row where each group begins.
      size: int[rounds, groups], how many rows it has.
      dropout: probability in [0, 1) that a client of the cohort sends nothing; exact to 2^-32.

    Returns:
      (Seating, Groups).
    """
    groups, seats, taken = size.shape[1], noise_terms, np.zeros(1, np.uint32)
    if cohort == "poisson":
        # By inversion: the tail beyond the last size weighs less than one word of 2^32.
        rate = noise_terms / groups
        seats = int(min(groups, binom.isf(2.0**-34, groups, rate) + 1))
        taken = np.floor(binom.cdf(np.arange(seats), groups, rate) * 2.0**32).clip(0, 2**32 - 1).astype(np.uint32)
    even = (size == size[0, 0]).all() and (np.diff(first.ravel()) == size[0, 0]).all() and first[0, 0] == 0
    seating = Seating(cohort, seats, groups, int(size[0, 0]) if even else 0, round(dropout * 2**32))
    return seating, Groups(jnp.asarray(first, jnp.int32), jnp.asarray(size, jnp.uint32), jnp.asarray(taken))
