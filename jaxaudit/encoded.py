"""A pool behind its channel: what its updates add to the decoded sum, and the noise that is added with them.

Stages that always make the same of an update are applied to every recorded update once. Where all that is left is
noise of a known law, a linear score of the sum is a sum of integers and one draw of that law: integer noise is drawn
as the sum of all clients' shares, entry by entry, in the ring's own steps, with weights that are whole numbers, so
the score is a function of the ring's sum to the bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np

from .aggregation.chain import Chain
from .aggregation.laws import table
from .aggregation.together import NoisyParams, NoisySums
from .bounds import Term
from .cache import key_of
from .covariance import Covariance
from .fixed_point import fixed_step
from .populations.source import Source, products
from .protocols import Column, Loaded, Pool, Projected
from .types import Moments, Pair

# Room for noise in a score: so many standard deviations.
_REACH = 40.0
# Share of the weights that may be lost to rounding before whole updates are summed instead.
_COARSE = 0.01
# Updates from which moments are estimated where they have no closed form, and rounding always is.
_SAMPLE = 4096


class CoarseWeights(ValueError):
    """Scores of 32 bits leave too little of the weights; whole updates have to be summed."""


@dataclass(frozen=True, eq=False)
class EncodedSource:
    """Recorded updates as they add to the decoded sum.

    Attributes:
      source: the updates themselves.
      chain: what becomes of them.
      quantum: f64[k], the score of one step is rounded to whole multiples of it; None leaves it as it is.
    """

    source: Source
    chain: Chain
    quantum: np.ndarray | None = None

    @property
    def dim(self) -> int:
        """Dimension of an update."""
        return self.source.dim

    @property
    def sizes(self) -> np.ndarray:
        """Recorded updates in each group."""
        return self.source.sizes

    @property
    def key(self) -> str | None:
        """Address of the encoded updates."""
        return self.source.key and f"{self.source.key}/{key_of(chain=self.chain.digest)}"

    def freedom(self, groups: int) -> int:
        """The largest rank that differences within so many groups can show."""
        return self.source.freedom(groups)

    def rows(self, first: int, last: int) -> np.ndarray:
        """What the updates of groups `first` to `last - 1` add to the decoded sum: f64[n, dim]."""
        return self.chain.arrived(self.source.rows(first, last))

    def project(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Products with weights of the decoded sum, taken where clients send, and how far off each may be."""
        return products(_Sent(self.source, self.chain), whole(self.chain.scores(weights), self.quantum))


@dataclass(frozen=True, eq=False)
class _Sent:
    """Recorded updates as they are sent."""

    source: Source
    chain: Chain

    @property
    def dim(self):
        return self.source.dim

    @property
    def sizes(self):
        return self.source.sizes

    def rows(self, first, last):
        return self.chain.sent(self.source.rows(first, last))


def whole(weights: np.ndarray, quantum: np.ndarray | None) -> np.ndarray:
    """Weights f64[k, size] rounded to multiples of f64[k]."""
    return weights if quantum is None else np.rint(weights / quantum[:, None]) * quantum[:, None]


@dataclass(frozen=True, eq=False)
class EncodedPool:
    """A pool of which the server sees what a chain makes of it.

    Attributes:
      pool: the updates themselves.
      chain: what becomes of them.
    """

    pool: Pool
    chain: Chain

    @property
    def dim(self) -> int:
        """Dimension of an update, and of the decoded sum."""
        return self.pool.dim

    @property
    def rounds(self) -> int:
        """Audited rounds."""
        return self.pool.rounds

    @property
    def noise_terms(self) -> int:
        """Other clients in the largest cohort."""
        return self.pool.noise_terms

    @property
    def ahead(self) -> int:
        """So many stages are applied to the recorded updates when they are loaded."""
        return self.chain.ahead if hasattr(self.pool, "through") else 0

    @cached_property
    def arrived(self) -> Pool | None:
        """The pool of what updates add to the decoded sum on average; None for a law that has no such pool."""
        if len(self.chain.noises) == len(self.chain.links) or getattr(self.pool, "law", "") == "known":
            return self.pool
        if not hasattr(self.pool, "through"):
            return None

        def encoded(source):
            groups = np.searchsorted(np.cumsum(source.sizes), _SAMPLE, side="right")
            few = source.rows(0, max(1, int(groups)))[:_SAMPLE]
            return EncodedSource(source, self.chain), self.chain.spread(few)[1]

        return self.pool.through(encoded)

    @property
    def linear(self) -> bool:
        """A linear score of the decoded sum is a sum of one number for each update, and of noise of a known law."""
        return self.chain.linear and self.arrived is not None

    def seen(self, pair: Pair) -> Pair:
        """What the candidates add to the decoded sum on average, f64."""
        h0, h1 = (self.chain.arrived(np.asarray(end, np.float32)) for end in (pair.h0, pair.h1))
        return replace(pair, h0=h0, h1=h1)

    def affordable(self, noise_terms: int) -> bool:
        """Whether the moments of that many terms can be had in half a minute."""
        return self.pool.affordable(noise_terms)

    def attendance(self, noise_terms: int) -> tuple[tuple[int, float], ...]:
        """How many of the others send, and with what probability."""
        return self.pool.attendance(noise_terms)

    def moments(self, noise_terms: int) -> tuple[Moments, ...]:
        """Moments of the decoded sum, noise included, as many as are expected taking part."""
        found = self._sampled(noise_terms) if self.arrived is None else self.arrived.moments(noise_terms)
        floor = self.noise_variance(noise_terms)
        return tuple(one._replace(covariance=one.covariance.lifted(floor)) for one in found)

    def noise_variance(self, noise_terms: int) -> float:
        """Of an entry of the decoded sum, by noise that is added on purpose: the mean over all entries."""
        shares = sum(number * chance for number, chance in self.attendance(noise_terms)) + 1
        return sum(float(np.mean(self._noise_variance(link, shares))) for link in self.chain.noises)

    def _sampled(self, noise_terms):
        mean, blur = self.chain.spread(self.pool.sample(_SAMPLE))
        covariance = Covariance.diagonal(noise_terms * (mean.var(axis=0) + blur))
        return (Moments(noise_terms * mean.mean(axis=0), covariance, float(noise_terms), 0, self.dim, 0.0),)

    def _noise_variance(self, link, shares):
        """Of the entries of the decoded sum."""
        own = link.stage.share(link.setting) ** 2
        if link.stage.central:
            return own
        for before in reversed(self.chain.links[: self.chain.links.index(link)]):
            own = before.stage.decoded_variance(before.params, own)
        return own * shares

    def load(self, pairs: Sequence[Pair]) -> Loaded:
        """Whole updates, as far as stages make the same of them in every trial."""
        return self.pool.load(pairs, self.chain.sent) if self.ahead else self.pool.load(pairs)

    def project(self, columns: Sequence[Column], step: np.ndarray | float = 0.0) -> Projected:
        """One integer per update and column, and noise of the law of the sum of all shares."""
        seen = [column._replace(pair=self.seen(column.pair)) for column in columns]
        base, noises = self.arrived.project(seen, step), self.chain.noises
        if not noises:
            return base
        size, shares = self.chain.last.dim, base.terms // self.rounds + 1
        decoded = np.stack([column.test.weights for column in columns])  # [columns, rounds, dim]
        sent = self.chain.scores(decoded.reshape(-1, self.dim)).reshape(len(columns), self.rounds, size)
        integer = [link for link in noises if link.setting.step and not link.stage.central]
        whole_numbers, real = np.zeros(len(columns)), np.zeros(len(columns))  # variances of the score
        for link in noises:
            own = (decoded**2).sum((1, 2)) if link.stage.central else (sent**2).sum((1, 2)) * shares
            into = whole_numbers if link in integer else real
            into += link.stage.share(link.setting) ** 2 * own
        deviation = np.sqrt(whole_numbers + real)
        step = fixed_step(2.0**31 * base.step + _REACH * deviation)
        base, weights = self._in_steps(seen, sent, step, quantised=bool(integer))
        ends, step = base.ends, base.step
        if integer:
            offsets = np.array([column.test.offset.sum() for column in columns])
            steps = np.stack([[self.chain.sent(end) for end in (c.pair.h0, c.pair.h1)] for c in columns])
            exact = np.einsum("cbrs,crs->bc", steps.astype(np.float64), weights * step[:, None, None])
            ends = np.rint((exact - offsets) / step).astype(np.int32)
        tables, table_weights = [], []
        for link in integer:
            law = link.stage.client_law(link.setting)
            for count in np.unique(shares).tolist():
                tables.append(table(law.sum_of(int(count))))
                own = np.where((shares == count)[:, None], weights.reshape(len(columns), -1), 0.0)
                table_weights.append(jnp.asarray((own.astype(np.int64).T % 2**32).astype(np.uint32).view(np.int32)))
        return base._replace(
            draws=NoisySums(base.draws, self.rounds * size, bool(real.any())),
            params=NoisyParams(
                base.params, jnp.asarray(np.sqrt(real) / step, jnp.float32), tuple(tables), tuple(table_weights)
            ),
            ends=ends,
            # Real noise is rounded to a step, too.
            error=base.error + (real > 0) * step / 2,
            deviation=np.hypot(base.deviation, deviation),
        )

    def _in_steps(self, seen, sent, step, quantised):
        """The sums without noise, in steps of `step` or more, and the weights f64[columns, rounds, size] in steps.

        Whole weights may spoil a cancellation and so enlarge the sums, and then need a larger step.
        """
        while True:
            weights, pool = np.rint(sent / step[:, None, None]), self.arrived
            if quantised and hasattr(pool, "through"):
                pool = pool.through(lambda source, step=step: (replace(source, quantum=step), np.zeros(1)))
            base = pool.project(seen, step)
            if np.all(base.step == step):
                break
            step = base.step
        lost = np.linalg.norm(weights * step[:, None, None] - sent, axis=(1, 2))
        if quantised and np.any(lost > _COARSE * np.linalg.norm(sent, axis=(1, 2))):
            raise CoarseWeights("the steps of the ring are too fine for whole weights")
        return base, weights

    def terms(self, columns: Sequence[Column]) -> list[tuple[list[Term], float]]:
        """What every seat adds to the others' sum.

        Raises:
          ValueError: where noise is added.
        """
        if self.chain.noises:
            raise ValueError(
                "the exact law of a sum is computed for recorded updates alone, and this channel adds noise: leave "
                "--exact out"
            )
        return self.arrived.terms([column._replace(pair=self.seen(column.pair)) for column in columns])

    def disjoint(self, columns: Sequence[Column]) -> list[np.ndarray]:
        """Summed scalars of cohorts that share no client; none where noise is added."""
        if self.chain.noises:
            return [np.zeros(0) for _ in columns]
        return self.arrived.disjoint([column._replace(pair=self.seen(column.pair)) for column in columns])

    def describe(self, noise_terms: int) -> dict[str, Any]:
        """Size and nature of the pool."""
        return self.pool.describe(noise_terms)
