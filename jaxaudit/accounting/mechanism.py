"""Noise that honest clients add to a sum, and the epsilon that it is proved to guarantee."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from .curves import proof, proved_by
from .rounding import integer_norms

Noise = Literal["gaussian", "discrete_gaussian", "skellam", "binomial"]
Adjacency = Literal["replacement", "zero-out"]

_NOISES = ("gaussian", "discrete_gaussian", "skellam", "binomial")
# A larger epsilon is as good as none.
_LARGEST = 2.0**20


@dataclass(frozen=True)
class Mechanism:
    """Noise added to a sum in one round, and how far one client can move the sum.

    Attributes:
      noise: its law. The three discrete ones add integers, to a sum of integers.
      l1: how far the adjacency can move the sum, >= 0, in the units of the noise (integer steps for the three); from
        `sensitivity`. May be infinite.
      l2: the same, Euclidean.
      linf: the same, of one entry.
      dim: entries of the sum, >= 1.
      deviation: of one share of the noise, >= 0. For a central Gaussian of all of it; of a discrete Gaussian the
        parameter σ of exp(-x² / 2σ²); of binomial noise half the root of its coins.
      shares: (honest shares in the sum, probability) for each number that is possible: a public number, with one law
        whatever the bit is. Sybils and clients that dropped out before they added noise do not count.
      rounds: the target takes part in so many, with fresh noise each, >= 1.

    Raises:
      ValueError: for a field outside its range.
    """

    noise: Noise
    l1: float
    l2: float
    linf: float
    dim: int
    deviation: float
    shares: tuple[tuple[int, float], ...]
    rounds: int = 1

    def __post_init__(self):
        if self.noise not in _NOISES:
            raise ValueError(f"noise is {self.noise!r}, allowed are {', '.join(_NOISES)}")
        for name in ("l1", "l2", "linf", "deviation"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, allowed are numbers >= 0")
        if self.dim < 1 or self.rounds < 1:
            raise ValueError(f"dim is {self.dim} and rounds is {self.rounds}, allowed are integers from 1")
        if not math.isfinite(self.deviation):
            raise ValueError(f"deviation is {self.deviation}, allowed are finite numbers >= 0")
        if any(count < 0 or not 0 <= weight <= 1 for count, weight in self.shares):
            raise ValueError(f"shares is {self.shares}, allowed are (number >= 0, probability in [0, 1])")
        if not abs(math.fsum(weight for _, weight in self.shares) - 1) <= 1e-6:
            raise ValueError(f"shares is {self.shares}; its probabilities have to add up to 1")


def sensitivity(l1: float, l2: float, linf: float, adjacency: Adjacency) -> tuple[float, float, float]:
    """How far the sum moves when one client's vector is exchanged.

    Args:
      l1: largest norm of a client's vector as it enters the sum, after clipping and rounding, before noise.
      l2: the same, Euclidean.
      linf: the same, of one entry.
      adjacency: "replacement" of the vector by any other, or "zero-out": by the zero vector.

    Returns:
      (l1, l2, linf) of the difference: twice the norms, or the norms.

    Raises:
      ValueError: for another adjacency.
    """
    factor = {"replacement": 2.0, "zero-out": 1.0}.get(adjacency)
    if factor is None:
        raise ValueError(f"adjacency is {adjacency!r}, allowed are replacement and zero-out")
    return factor * l1, factor * l2, factor * linf


def delta_upper(mechanism: Mechanism, epsilon: float) -> float:
    r"""A delta that the sum is proved to have at an epsilon.

    Args:
      mechanism: noise and sensitivity.
      epsilon: nats, >= 0.

    Returns:
      float in [0, 1].

    Raises:
      ValueError: for an epsilon below 0.

    Guarantee:
      For every pair of adjacent inputs and all other clients' inputs, what the server sees in all rounds is
      (epsilon, delta)-DP: the sums, the number of shares in each, and whatever is computed from these, such as sums
      modulo a ring. One round: the number m of shares is part of the view and independent of the bit, so the
      densities are p_m p(x|m) and p_m q(x|m), and Σ_m Σ_x (p_m p(x|m) - e^ε p_m q(x|m))₊ = Σ_m p_m δ_m(ε). Shares
      beyond the m-th are noise added to what is already private: δ_m is at most δ_n for n <= m. Several rounds,
      however the numbers of shares depend on each other: all rounds have at least m shares but with probability
      rounds · P(fewer than m), so δ <= rounds · P(fewer than m) + δ_m(ε), for the best m.
    """
    if not epsilon >= 0:
        raise ValueError(f"epsilon is {epsilon}, allowed are numbers >= 0")
    weights, curves = _prepared(mechanism)
    # More shares are never less private, so each count may use what is proved of fewer.
    deltas = np.minimum.accumulate(np.minimum(curves(epsilon), 1.0))
    if mechanism.rounds == 1:
        return min(float(weights @ deltas), 1.0)
    fewer = np.cumsum(weights) - weights
    return min(float(np.min(mechanism.rounds * fewer + deltas)), 1.0)


def epsilon_upper(mechanism: Mechanism, delta: float) -> float:
    """An epsilon that the sum is proved to have at a delta.

    Args:
      mechanism: noise and sensitivity.
      delta: in [0, 1).

    Returns:
      float, nats, rounded up by at most 1e-9 relative; infinite where nothing is proved.

    Raises:
      ValueError: for a delta outside its range.

    Guarantee:
      `delta_upper` at the returned epsilon is at most delta.

    Example:
      >>> round(epsilon_upper(Mechanism("gaussian", 1.0, 1.0, 1.0, 1, 1.0, ((1, 1.0),)), 1e-5), 4)
      4.3772
    """
    if not 0 <= delta < 1:
        raise ValueError(f"delta is {delta}, allowed is [0, 1)")
    if delta_upper(mechanism, 0.0) <= delta:
        return 0.0
    sigma = _one_gaussian(mechanism)
    if sigma and delta > 0:
        from dp_accounting import get_epsilon_gaussian

        return float(get_epsilon_gaussian(sigma, delta)) * (1 + 1e-9)
    low, high = 0.0, 1.0
    while delta_upper(mechanism, high) > delta:
        low, high = high, 2 * high
        if high > _LARGEST:
            return math.inf
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if delta_upper(mechanism, middle) > delta else (low, middle)
    return high


def _one_gaussian(mechanism):
    """Deviation over sensitivity of a Gaussian mechanism of one law, which dp_accounting knows; else 0."""
    if mechanism.noise != "gaussian" or len(mechanism.shares) > 1 or not 0 < mechanism.l2 < math.inf:
        return 0.0
    return mechanism.deviation * math.sqrt(mechanism.shares[0][0] / mechanism.rounds) / mechanism.l2


def source(mechanism: Mechanism) -> str:
    """Which theorems `delta_upper` takes the least of, in one line."""
    noise, _, _, linf, dim, deviation = _shift(mechanism)
    return proved_by(noise, linf, dim, deviation, mechanism.rounds)


def _shift(mechanism):
    norms = mechanism.l1, mechanism.l2, mechanism.linf
    if mechanism.noise != "gaussian":
        norms = integer_norms(*norms, mechanism.dim)
    return mechanism.noise, *norms, mechanism.dim, mechanism.deviation


@lru_cache(maxsize=64)
def _prepared(mechanism):
    """Probabilities of the numbers of shares, ascending, and their curves."""
    law = {}
    for count, weight in mechanism.shares:
        law[count] = law.get(count, 0.0) + weight
    # What the probabilities lack to 1 is a round without noise.
    lost = max(1 - math.fsum(law.values()), 0.0)
    law[0] = law.get(0, 0.0) + (lost if lost > 1e-12 else 0.0)
    counts = np.array(sorted(count for count in law if law[count] > 0), np.int64)
    weights = np.array([law[int(count)] for count in counts])
    return weights, proof(*_shift(mechanism), counts, weights, mechanism.rounds)
