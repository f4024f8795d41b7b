"""A finite pool of recorded updates, and the ways in which a cohort is drawn from it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..bounds import Term
from ..fixed_point import fixed_step
from ..protocols import Column, Loaded, Projected
from ..types import Moments, Pair
from .cohorts import Cohort
from .draws import PoolDraws, PoolParams, PoolSums, TableParams
from .moments import Mixture, affordable, exact_moments
from .seating import seated
from .source import Source, product_error, products


def _as_they_are(rows):
    return rows


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
      blur: f64[dim] for every round, variance that each update has besides, where its encoding is random.
    """

    sources: tuple[Source, ...]
    cohort: Cohort
    noise_terms: int
    what: str
    clients: int | None
    stands_in_for: int = 0
    dropout: float = 0.0
    blur: tuple[np.ndarray, ...] = ()

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
            mixture, blur = self._mixture(terms), self.blur or (None,) * self.rounds
            self._found[terms] = tuple(exact_moments(source, mixture, own) for source, own in zip(self.sources, blur))
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
        clients, here, spread = self.stands_in_for or groups, stay * terms, 1.0
        # k distinct clients of N vary by k (N - k) / (N - 1): its mean over k, in units of the mean of k.
        if self.cohort == "poisson":
            spread = 1 - here / clients
        elif self.cohort == "without_replacement" and clients > 1:
            spread = (clients - here - self.dropout) / (clients - 1)
        return Mixture(groups, here, here / groups, spread * here / groups)

    def through(self, encoded: Callable[[Source], tuple[Source, np.ndarray]]) -> "RecordedPool":
        """The same pool with other sources, and the variance that each of their updates has besides."""
        sources, blur = zip(*map(encoded, self.sources))
        return replace(self, sources=sources, blur=blur if any(one.any() for one in blur) else ())

    def load(self, pairs: Sequence[Pair], become: Callable[[np.ndarray], np.ndarray] = _as_they_are) -> Loaded:
        """The rows themselves, for aggregators and attacks that need whole updates, or what they `become`."""
        recorded = [source.rows(0, len(source.sizes)) for source in self.sources]
        rows = np.concatenate([np.asarray(part, np.float32) for part in (*recorded, *_candidates(pairs))])
        seating, groups = self._seated()
        params = PoolParams(jnp.asarray(become(rows)), groups)
        return Loaded(PoolDraws(seating, self.rounds, len(pairs)), params, float(np.abs(rows).max()))

    def attendance(self, noise_terms: int) -> tuple[tuple[int, float], ...]:
        """How many of the others send, and with what probability."""
        return self._seated()[0].attendance(noise_terms, noise_terms / len(self.sources[0].sizes))

    def project(self, columns: Sequence[Column], step: np.ndarray | float = 0.0) -> Projected:
        """One integer per row and column, of `step` or more. Multiplied, centred and rounded in float64, once."""
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
        errors += [self.rounds**2 * product_error(np.abs(both).max(), weight) for weight in weights]
        seating, groups = self._seated()
        scalars, terms = np.concatenate(parts), self.rounds * seating.seats
        step = np.maximum(step, fixed_step(terms * np.abs(scalars).max(axis=0) + np.abs(ends).max(axis=0)))
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

    def terms(self, columns: Sequence[Column]) -> list[tuple[list[Term], float]]:
        """What every seat adds to the others' sum, independently of the other seats, where it does so.

        Raises:
          ValueError: for cohorts whose seats depend on each other.
        """
        if self.cohort not in ("fixed", "with_replacement"):
            raise ValueError(
                f'the exact law of a sum needs independent draws; cohort = "{self.cohort}" makes the seats depend on '
                "each other: leave --exact out, or audit cohorts drawn with_replacement"
            )
        weights = np.stack([column.test.weights for column in columns], axis=1)
        found, errors = [[] for _ in columns], []
        for number, (source, weight) in enumerate(zip(self.sources, weights)):
            # Not `source.project`, which may take directional derivatives, whose error is estimated.
            scalars, error = products(source, weight)
            centred = scalars - np.array([column.test.each[number] for column in columns])
            # Half a unit in the last place for centring.
            errors.append(error + 2.0**-52 * np.abs(centred).max(axis=0))
            for column, own, terms in zip(columns, centred.T, found):
                terms += self._terms(own, source.sizes, column.noise_terms)
        both = np.stack([column.pair.both for column in columns], axis=2)
        errors += [self.rounds**2 * product_error(np.abs(both).max(), weight) for weight in weights]
        return list(zip(found, np.max(errors, axis=0).tolist()))

    def _terms(self, scalars, sizes, seats):
        def term(values, probabilities, times=1):
            away = np.full(int(self.dropout > 0), self.dropout)
            return Term(
                np.append(values, np.zeros(away.size)), np.append((1 - self.dropout) * probabilities, away), times
            )

        share = np.repeat(1 / sizes, sizes)
        if self.cohort == "with_replacement":
            return [term(scalars, share / len(sizes), seats)]
        edges = np.concatenate([[0], np.cumsum(sizes)])
        return [term(scalars[first:last], share[first:last]) for first, last in pairwise(edges[: seats + 1])]

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
        dropout = f", each client dropping out with probability {self.dropout:g} (the target never does)"
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
