"""A finite pool of recorded updates, and the ways in which a cohort is drawn from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..fixed_point import fixed_step
from ..random import Ticket
from ..types import Column, Loaded, Moments, Pair, Projected
from .cohorts import Cohort
from .moments import Mixture, affordable, exact_moments
from .seating import Groups, Seating, seated
from .source import Source, product_error


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

        def sent(j):
            rows, here = sit(j)
            if len(self.noise_terms) > 1:
                # Otherwise XLA draws the row again for every column of its scalars.
                rows = jax.lax.optimization_barrier(rows)
            found = [params.table.at[row].get(mode="promise_in_bounds") for row in rows]
            return found if here is None else [jnp.where(h, f, 0) for h, f in zip(here, found)]

        def add(j, total):
            first, second = sent(j)
            return total + first + second

        total = sums = jnp.zeros(len(self.noise_terms), jnp.int32)
        done, seats = 0, np.array([self.seating.of(one) for one in self.noise_terms])
        for size in np.unique(seats).tolist():
            total = jax.lax.fori_loop(done, size // 2, add, total, unroll=_unrolled(size // 2 - done))
            done = size // 2
            # A smaller cohort is the running sum, looked at on the way.
            seen = total + sent(jnp.int32(done))[0] if size % 2 else total
            sums = jnp.where(jnp.asarray(seats == size), seen, sums)
        return sums


def _unrolled(pairs):
    """Pairs of seats in a step of the loop: on a processor it hides latency, on a graphics card it is one launch."""
    return max(1, min(pairs, 4 if jax.default_backend() == "cpu" else 16))


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
      dropout: probability that a client of the cohort sends nothing.
    """

    sources: tuple[Source, ...]
    cohort: Cohort
    noise_terms: int
    what: str
    clients: int | None
    stands_in_for: int = 0
    dropout: float = 0.0

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
        """Exact moments of the sum of the first `noise_terms` seats, round by round, for as many as are expected."""
        if self.stands_in_for and self.cohort in ("fixed", "with_replacement"):  # one decomposition serves all sizes
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
        # The server sees how many took part, and its test allows for that: what varies is who they were.
        groups, stay = len(self.sources[0].sizes), 1 - self.dropout
        if self.cohort == "fixed":
            taken = groups if self.stands_in_for else terms
            each = stay * terms / taken
            return Mixture(taken, stay * terms, each, self.dropout * each)
        clients, here = self.stands_in_for or groups, stay * terms
        distinct = self.cohort != "with_replacement" and clients > 1
        spread = (clients - here) / (clients - 1) if distinct else 1.0
        return Mixture(groups, here, here / groups, spread * here / groups)

    def load(self, pairs: Sequence[Pair]) -> Loaded:
        """The rows themselves, for aggregators and attacks that need whole updates."""
        recorded = [source.rows(0, len(source.sizes)) for source in self.sources]
        rows = np.concatenate([np.asarray(part, np.float32) for part in (*recorded, *_candidates(pairs))])
        seating, groups = self._seated()
        params = PoolParams(jnp.asarray(rows), groups)
        return Loaded(PoolDraws(seating, self.rounds, len(pairs)), params, float(np.abs(rows).max()))

    def project(self, columns: Sequence[Column]) -> Projected:
        """One integer per row and column. Multiplied, centred and rounded in float64, once."""
        weights = np.stack([column.test.weights for column in columns], axis=1)
        centres = np.stack([column.test.each for column in columns], axis=1)
        parts, errors, variance = [], [], np.zeros(len(columns))
        for source, weight, centre in zip(self.sources, weights, centres):
            scalars, error = source.project(weight)
            mixtures = [self._mixture(column.noise_terms) for column in columns]
            variance += [m.variance(scalars[:, [c]], source.sizes)[0] for c, m in enumerate(mixtures)]
            parts.append(scalars - centre)
            errors.append(error)
        both = np.stack([column.pair.both for column in columns], axis=2)  # [2, rounds, columns, dim]
        offsets = np.stack([column.test.offset.sum() for column in columns])
        ends = np.einsum("brcd,rcd->bc", both, weights) - offsets
        errors += [self.rounds * product_error(np.abs(both).max(), weight) for weight in weights]
        seating, groups = self._seated()
        scalars, terms = np.concatenate(parts), self.rounds * seating.seats
        step = fixed_step(terms * np.abs(scalars).max(axis=0) + np.abs(ends).max(axis=0))
        steps = np.rint(scalars / step).astype(np.int32)
        return Projected(
            draws=PoolSums(seating, tuple(column.noise_terms for column in columns)),
            params=TableParams(jnp.asarray(steps), groups),
            ends=np.rint(ends / step).astype(np.int32),
            step=step,
            error=np.max(errors, axis=0) + step / 2,
            terms=np.array([self.rounds * seating.of(column.noise_terms) for column in columns]),
            deviation=np.sqrt(variance),
        )

    def disjoint(self, columns: Sequence[Column]) -> list[np.ndarray]:
        """Summed scalars of cohorts that share no client, each sending its first recording; new ones every round."""
        weights = np.stack([column.test.weights for column in columns], axis=1)
        if self.cohort == "poisson" or self.dropout:
            return [np.zeros(0) for _ in columns]
        cohorts = [len(self.sources[0].sizes) // (column.noise_terms * self.rounds) for column in columns]
        sums = [np.zeros(count) for count in cohorts]
        for number, (source, weight) in enumerate(zip(self.sources, weights)):
            first = source.project(weight)[0][np.cumsum(source.sizes) - source.sizes]
            for c, column in enumerate(columns):
                taken = cohorts[c] * column.noise_terms
                own = first[number * taken : (number + 1) * taken, c] - column.test.each[number]
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
            "poisson": f"updates on average, of {updates:,} {self.what}, of which each takes part with probability "
            f"{noise_terms / len(self.sources[0].sizes):.4g} by a coin of its own"
            if clients is None
            else f"updates on average: each of {clients:,} clients takes part with probability "
            f"{noise_terms / clients:.4g} by a coin of its own, and draws one of its own of {updates:,} {self.what} "
            "in all",
        }[self.cohort]
        rounds = f" in each of {self.rounds} rounds" if self.rounds > 1 else ""
        dropout = f", each of which drops out with probability {self.dropout:g} (the target never does)"
        return {
            "updates": updates,
            "clients": clients,
            "replacement": self.cohort in ("fixed", "with_replacement"),
            "words": f"sum of {noise_terms:,} {drawn}{rounds}{dropout if self.dropout else ', no dropouts'}",
        }

    def _seated(self):
        cohort, sizes = self.cohort, np.stack([source.sizes for source in self.sources])
        if self.stands_in_for and sizes.shape[1] < self.noise_terms and cohort in ("without_replacement", "poisson"):
            cohort = "with_replacement"  # the server has fewer clients of its own than the cohort
        first = np.concatenate([[0], np.cumsum(sizes)[:-1]]).reshape(sizes.shape)
        return seated(cohort, self.noise_terms, first, sizes, self.dropout)


def _candidates(pairs):
    return [end for pair in pairs for end in (pair.h0, pair.h1)]


def _scaled(moments: Moments, factor: float) -> Moments:
    """Moments of a sum of `factor` times as many terms."""
    mean, covariance = moments.mean * factor, moments.covariance.scaled(factor)
    return moments._replace(mean=mean, covariance=covariance, terms=moments.terms * factor)
