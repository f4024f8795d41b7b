"""A finite pool of recorded updates, and the three ways in which a cohort is drawn from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..permutation import permuted
from ..random import Ticket, index_below, words
from ..types import Column, Loaded, Moments, Pair
from .moments import Mixture, affordable, exact_moments
from .source import Source, product_error

Cohort = Literal["fixed", "with_replacement", "without_replacement"]

# Words that a round may use to draw updates, and where those begin that draw clients; rounds and seats are limited so
# that all stay below 2^31. A seat's words do not depend on how many seats there are.
_WORDS, _CLIENT_WORDS = 2**18, 2**30


class PoolParams(NamedTuple):
    """What the draws look up.

    Attributes:
      rows: f32[updates + 2 * pairs * rounds, dim], the recorded updates, then the candidates of every pair: h0 of all
        rounds, h1 of all rounds.
      first: i32[rounds, groups], where each group begins in a round.
      size: u32[rounds, groups], how many updates it holds.
    """

    rows: jax.Array
    first: jax.Array
    size: jax.Array


@dataclass(frozen=True)
class PoolDraws:
    """Independent uniform draws; a seat's occupant is a row number.

    Attributes:
      cohort: "fixed" (seat i belongs to group i), or in every round groups drawn with or without replacement.
      seats: other clients in the largest cohort.
      rounds: audited rounds.
      pairs: pairs of candidates at the end of the rows.
    """

    cohort: Cohort
    seats: int
    rounds: int
    pairs: int

    def width(self, params: PoolParams) -> int:
        """A batch of running sums that stays in the second-level cache: 8,192 scalars, 256 updates of 650 numbers."""
        return int(np.clip(2 ** (18 - (params.rows.shape[1] - 1).bit_length()), 16, 8192))

    def others(self, params: PoolParams, ticket: Ticket) -> jax.Array:
        """Rows of the other clients: i32[rounds, seats]."""
        first, size = params.first, params.size
        in_round = jnp.arange(self.rounds, dtype=jnp.uint32) * jnp.uint32(_WORDS)
        if self.cohort == "fixed":
            first, size = first[:, : self.seats], size[:, : self.seats]
        else:
            who = jax.vmap(lambda start: self._drawn(ticket, start, size.shape[1]))(
                jnp.uint32(_CLIENT_WORDS) + in_round
            )
            first, size = (jnp.take_along_axis(table, who, axis=1) for table in (first, size))
        word = jax.vmap(lambda start: words(ticket, start, self.seats))(in_round)
        return first + index_below(word, size).astype(jnp.int32)

    def target(self, params: PoolParams, ticket: Ticket, pair: int, bit) -> jax.Array:
        """The rows of the candidate that the bit chooses: i32[rounds, 1]."""
        del ticket
        first = params.rows.shape[0] - 2 * self.rounds * (self.pairs - pair)
        return (first + self.rounds * bit + jnp.arange(self.rounds, dtype=jnp.int32))[:, None]

    def update(self, params: PoolParams, ticket: Ticket, who) -> jax.Array:
        """The row itself: f32[dim]."""
        del ticket
        return params.rows.at[who].get(mode="promise_in_bounds")

    def _drawn(self, ticket, start, groups):
        """Groups of one round's seats, i32[seats]."""
        if self.cohort == "without_replacement":
            seat = jnp.arange(self.seats, dtype=jnp.uint32)
            return permuted(ticket, start, seat, groups).astype(jnp.int32)
        return index_below(words(ticket, start, self.seats), jnp.uint32(groups)).astype(jnp.int32)


@dataclass(frozen=True, eq=False)
class RecordedPool:
    """Recorded updates of every audited round, and the law by which a cohort is drawn from them.

    Attributes:
      sources: the updates, round by round; all rounds have the same groups.
      cohort: how the seats find their groups.
      noise_terms: other clients in the largest cohort.
      what: what the updates are, for the statement of a report.
      clients: how many clients they come from, None if not known.
      stands_in_for: how many clients the audited pool has, where the groups are not those but others like them, so
        that all of them tell the moments of a cohort of any size; 0 for the audited pool itself.
    """

    sources: tuple[Source, ...]
    cohort: Cohort
    noise_terms: int
    what: str
    clients: int | None
    stands_in_for: int = 0

    @property
    def dim(self) -> int:
        """Dimension of an update."""
        return self.sources[0].dim

    @property
    def rounds(self) -> int:
        """Audited rounds."""
        return len(self.sources)

    def affordable(self, noise_terms: int) -> bool:
        """Whether the moments of that many terms can be had in half a minute."""
        return affordable(self.sources[0], self._mixture(noise_terms), self.rounds)

    def moments(self, noise_terms: int) -> tuple[Moments, ...]:
        """Exact moments of the sum of the first `noise_terms` seats, round by round."""
        if self.stands_in_for and self.cohort != "without_replacement":  # one decomposition serves all sizes
            return tuple(_scaled(one, noise_terms / self.noise_terms) for one in self._exact(self.noise_terms))
        return self._exact(noise_terms)

    def _exact(self, terms):
        # Asked for when the server calibrates, and again for the verdict where it knows the audited pool.
        if terms not in self._found:
            self._found[terms] = tuple(exact_moments(source, self._mixture(terms)) for source in self.sources)
        return self._found[terms]

    @cached_property
    def _found(self):
        return {}

    def _mixture(self, terms):
        groups = len(self.sources[0].sizes)
        if self.cohort == "fixed":
            taken = groups if self.stands_in_for else terms
            return Mixture(taken, terms, terms / taken, 0.0)
        clients = self.stands_in_for or groups
        spread = (clients - terms) / (clients - 1) if self.cohort == "without_replacement" and clients > 1 else 1.0
        return Mixture(groups, terms, terms / groups, spread * terms / groups)

    def load(self, pairs: Sequence[Pair]) -> Loaded:
        """The rows themselves, for aggregators and attacks that need whole updates."""
        recorded = [source.rows(0, len(source.sizes)) for source in self.sources]
        rows = np.concatenate([np.asarray(part, np.float32) for part in (*recorded, *_candidates(pairs))])
        return Loaded(self._draws(len(pairs)), self._params(rows), float(np.abs(rows).max()))

    def project(self, columns: Sequence[Column]) -> Loaded:
        """One scalar per row and column. Multiplied and centred in float64, so float32 holds only what varies."""
        weights = np.stack([column.test.weights for column in columns], axis=1)
        shares = np.stack([column.test.offset / (column.noise_terms + 1) for column in columns], axis=1)
        parts, errors, variance = [], [], np.zeros(len(columns))
        for source, weight, share in zip(self.sources, weights, shares):
            scalars, error = source.project(weight)
            mixtures = [self._mixture(column.noise_terms) for column in columns]
            variance += [m.variance(scalars[:, [c]], source.sizes)[0] for c, m in enumerate(mixtures)]
            parts.append(scalars - share)
            errors.append(error)
        both = np.stack([column.pair.both for column in columns], axis=2)  # [2, rounds, columns, dim]
        ends = np.einsum("brcd,rcd->brc", both, weights) - shares
        errors += [product_error(np.abs(both).max(), weight) for weight in weights]
        scalars = np.concatenate([*parts, *ends])
        limit = np.abs(scalars).max(axis=0)
        params = self._params(scalars.astype(np.float32))
        # Half a unit in the last place of float32.
        error = np.max(errors, axis=0) + 2.0**-24 * limit
        return Loaded(self._draws(1), params, limit, error, np.sqrt(variance))

    def disjoint(self, columns: Sequence[Column]) -> list[np.ndarray]:
        """Summed scalars of cohorts that share no client, each sending its first recording; new ones every round."""
        weights = np.stack([column.test.weights for column in columns], axis=1)
        cohorts = [len(self.sources[0].sizes) // (column.noise_terms * self.rounds) for column in columns]
        sums = [np.zeros(count) for count in cohorts]
        for number, (source, weight) in enumerate(zip(self.sources, weights)):
            first = source.project(weight)[0][np.cumsum(source.sizes) - source.sizes]
            for c, column in enumerate(columns):
                taken = cohorts[c] * column.noise_terms
                own = first[number * taken : (number + 1) * taken, c]
                sums[c] += own.reshape(cohorts[c], column.noise_terms).sum(1)
        return sums

    def describe(self, noise_terms: int) -> dict[str, Any]:
        """Size and nature of the pool."""
        groups = noise_terms if self.cohort == "fixed" and not self.stands_in_for else None
        updates = int(sum(source.sizes[:groups].sum() for source in self.sources))
        clients = None if self.clients is None else (groups or self.clients)
        of = "" if clients is None else f" of {clients:,} clients"
        own = "" if clients is None else ", each client drawing one of its own"
        drawn = {
            "fixed": f"updates drawn with replacement from {updates:,} {self.what}{of}{own}",
            "with_replacement": f"updates drawn with replacement from {updates:,} {self.what}"
            if clients is None
            else f"updates, each of a client drawn with replacement from {clients:,}, which draws one of its own of "
            f"{updates:,} {self.what} in all",
            "without_replacement": f"distinct updates drawn without replacement from {updates:,} {self.what}"
            if clients is None
            else f"updates of distinct clients drawn without replacement from {clients:,}, each of which draws one "
            f"of its own of {updates:,} {self.what} in all",
        }[self.cohort]
        rounds = f" in each of {self.rounds} rounds" if self.rounds > 1 else ""
        return {
            "updates": updates,
            "clients": clients,
            "replacement": self.cohort != "without_replacement",
            "words": f"sum of {noise_terms:,} {drawn}{rounds}",
        }

    def _draws(self, pairs):
        cohort = self.cohort
        if self.stands_in_for and cohort == "without_replacement" and len(self.sources[0].sizes) < self.noise_terms:
            cohort = "with_replacement"  # the server has fewer clients of its own than the cohort
        return PoolDraws(cohort, self.noise_terms, self.rounds, pairs)

    def _params(self, rows):
        sizes = np.stack([source.sizes for source in self.sources])
        first = np.concatenate([[0], np.cumsum(sizes)[:-1]]).reshape(sizes.shape)
        return PoolParams(jnp.asarray(rows), jnp.asarray(first, jnp.int32), jnp.asarray(sizes, jnp.uint32))


def _candidates(pairs):
    return [end for pair in pairs for end in (pair.h0, pair.h1)]


def _scaled(moments: Moments, factor: float) -> Moments:
    """Moments of a sum of `factor` times as many terms."""
    return moments._replace(mean=moments.mean * factor, covariance=moments.covariance.scaled(factor))
