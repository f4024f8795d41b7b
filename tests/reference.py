"""Oracles, written as the mathematics reads: slow, obvious, and sharing no code with what they check.

The true epsilon of a pair is the largest over both orders of the two hypotheses, in nats and at least 0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import mpmath as mp
import numpy as np
from scipy.stats import beta

DIGITS = 60  # working precision; limits are good to 40 digits after the point


def binomial_cdf(k, n, p):
    """P(Bin(n, p) <= k) to DIGITS digits, by the shorter of the two sums."""
    with mp.workdps(DIGITS):
        p = mp.mpf(p)
        if k >= n / 2:
            return 1 - binomial_cdf(n - k - 1, n, 1 - p)
        term, total = (1 - p) ** n, mp.mpf(0)
        for j in range(k + 1):
            total += term
            term *= p * (n - j) / ((1 - p) * (j + 1))
        return total


def clopper_pearson_upper(errors, trials, significance):
    """The rate at which `errors` or fewer of `trials` has probability `significance`, by bisection."""
    with mp.workdps(DIGITS):
        low, high = mp.mpf(0), mp.mpf(1)
        while errors < trials and high - low > mp.mpf(10) ** -40:
            middle = (low + high) / 2
            if binomial_cdf(errors, trials, middle) > significance:
                low = middle
            else:
                high = middle
        return high


def clopper_pearson_lower(errors, trials, significance):
    """The rate at which `errors` or more of `trials` has probability `significance`."""
    with mp.workdps(DIGITS):
        return 1 - clopper_pearson_upper(trials - errors, trials, significance)


def laplace_epsilon(delta, shift):
    """True epsilon of z against z + shift, z ~ Laplace(1): δ(ε) = 1 - exp((ε - shift) / 2)."""
    return max(0.0, shift + 2 * np.log1p(-delta))


def laplace_delta(epsilon, shift):
    """True delta of the same pair."""
    return max(0.0, -np.expm1((epsilon - shift) / 2))


def gaussian_epsilon(delta, shift):
    """True epsilon of z against z + shift, z ~ N(0, 1), by bisection; infinite at delta 0 unless the laws agree."""
    with mp.workdps(DIGITS):
        delta = mp.mpf(delta)
        if delta == 0:
            return float("inf") if shift else 0.0
        return float(_smallest_root(lambda eps: gaussian_delta(eps, shift) - delta))


def gaussian_delta(epsilon, shift):
    """True delta of the same pair: Balle & Wang (2018), Theorem 8."""
    with mp.workdps(DIGITS):
        epsilon, shift = mp.mpf(epsilon), mp.mpf(shift)
        if not shift:
            return mp.mpf(0)
        return mp.ncdf(shift / 2 - epsilon / shift) - mp.exp(epsilon) * mp.ncdf(-shift / 2 - epsilon / shift)


def randomised_response_epsilon(delta, epsilon):
    """True epsilon of one bit told with odds e^epsilon to 1."""
    truth = 1 / (1 + np.exp(-epsilon))
    return np.log(max(truth - delta, 1 - truth) / (1 - truth))


def four_outcomes(epsilon, delta):
    """The tightest (epsilon, delta)-DP pair: its laws (h0, h1) on outcomes 0 to 3.

    Every other (epsilon, delta)-DP pair is a function of its outcome: Kairouz, Oh & Viswanath (2015), Theorem 3.4.
    """
    truth = (1 - delta) / (1 + np.exp(-epsilon))
    h0 = np.array([delta, truth, 1 - delta - truth, 0.0])
    return h0, h0[::-1]


def discrete_delta(epsilon, h0, h1):
    """True delta of two laws on the same finite set: the larger of their two hockey-stick divergences."""
    return max(np.sum(np.maximum(p - np.exp(epsilon) * q, 0)) for p, q in ((h0, h1), (h1, h0)))


def discrete_epsilon(delta, h0, h1):
    """True epsilon of two laws on the same finite set: the root of their hockey-stick divergence."""
    return float(_smallest_root(lambda eps: discrete_delta(eps, h0, h1) - delta))


def truncated_geometric(epsilon, shift, cells):
    """Two-sided geometric noise on the middle cells, `shift` apart, clamped to 0 .. cells - 1: laws (h0, h1).

    Reference:
      Ghosh, Roughgarden & Sundararajan (2009), arXiv:0811.2841.
    """
    ratio, first = np.exp(-epsilon / shift), (cells - shift) // 2
    far = np.arange(-1000, 1000 + cells)
    laws = []
    for middle in (first, first + shift):
        law = np.bincount(np.clip(far, 0, cells - 1), ratio ** np.abs(far - middle), cells)
        laws.append(law / law.sum())
    return tuple(laws)


@dataclass(frozen=True)
class Law:
    """Two laws of scores whose privacy curve is known, both rising functions of a base draw, which they may share.

    Attributes:
      base: the draw, a method of `numpy.random.Generator`; `mirrored` has the same law.
      h0, h1: scores of base draws, f64[n] -> f64[n], with h1 >= h0.
      epsilon: true epsilon at a delta.
      delta: true delta at an epsilon.
      threshold: a fair place for a test that is declared without a look at any score.
    """

    base: str
    h0: Callable
    h1: Callable
    epsilon: Callable
    delta: Callable
    threshold: float

    def draw(self, rng, size):
        return getattr(rng, self.base)(size=size)

    def mirrored(self, base):
        return 1 - base if self.base == "random" else -base


def gaussian(shift):
    return _shifted("normal", shift, gaussian_epsilon, gaussian_delta, shift / 2 + 1)


def laplace(shift):
    return _shifted("laplace", shift, laplace_epsilon, laplace_delta, shift)


def atoms(h0, h1, threshold):
    """Scores 1/2, 3/2, … with laws h0 and h1: nothing but ties."""
    return _on_cells(h0, h1, threshold, lambda ends: lambda u: np.searchsorted(ends[1:-1], u, side="right") + 0.5)


def piecewise(h0, h1, threshold):
    """The same spread evenly, each atom over one unit: a ROC curve of straight pieces, without ties."""
    return _on_cells(h0, h1, threshold, lambda ends: lambda u: np.interp(u, ends, np.arange(ends.size)))


def _shifted(base, shift, epsilon, delta, threshold):
    curves = cache(partial(epsilon, shift=shift)), cache(partial(delta, shift=shift))
    return Law(base, lambda z: z, lambda z: z + shift, *curves, threshold)


def _on_cells(h0, h1, threshold, quantile):
    h0, h1 = np.array(h0), np.array(h1)
    ends = [np.append(0.0, np.cumsum(law)) for law in (h0, h1)]
    curves = (cache(partial(curve, h0=h0, h1=h1)) for curve in (discrete_epsilon, discrete_delta))
    return Law("random", *map(quantile, ends), *curves, threshold)


_LIKELY, _RARE = 0.02 * np.exp(3), 0.1 * np.exp(1)
_STRAIGHT = np.array([_LIKELY, _RARE, 0.1, 0.02]) / (_LIKELY + _RARE + 0.12)

LAWS = {
    "null": gaussian(0.0),
    "Gaussian 0.3": gaussian(0.3),
    "Gaussian 1": gaussian(1.0),
    "Gaussian 3": gaussian(3.0),
    "Laplace 1": laplace(1.0),
    "Laplace 3": laplace(3.0),
    "Laplace 5": laplace(5.0),
    "randomised response 1": atoms(*four_outcomes(1.0, 0.0), threshold=2),
    "geometric 1": atoms(*truncated_geometric(1.0, shift=2, cells=16), threshold=9),
    # Slopes of e³, e, 1/e and e⁻³.
    "piecewise-linear ROC": piecewise(_STRAIGHT, _STRAIGHT[::-1], threshold=3),
    "four outcomes": atoms(*four_outcomes(1.0, 1e-3), threshold=2),
}


def published_rule(h0, h1, delta, confidence=0.95):
    """The best of 1000 thresholds on the very sample that certifies. Unsound; kept to be caught.

    Each rate gets a Clopper-Pearson limit at half the failure probability, right for one threshold fixed in advance,
    and then thresholds and directions are searched as if that were free.

    Reference:
      Ngo, Östman, Durisi & Graell i Amat (2024), arXiv:2403.17775, as in their released script.
    """
    thresholds = np.linspace(min(h0.min(), h1.min()), max(h0.max(), h1.max()), 1000)
    false_positives = h0.size - np.searchsorted(np.sort(h0), thresholds)
    false_negatives = np.searchsorted(np.sort(h1), thresholds)
    fpr = _upper_limits(h0.size, (1 - confidence) / 2)[false_positives]
    fnr = _upper_limits(h1.size, (1 - confidence) / 2)[false_negatives]
    ratios = np.concatenate([(1 - delta - fnr) / fpr, (1 - delta - fpr) / fnr])
    return np.log(max(1.0, ratios.max()))


@cache
def _upper_limits(trials, significance):
    """Clopper-Pearson upper limits for 0 to `trials` errors."""
    errors = np.arange(trials)
    return np.append(beta.isf(significance, errors + 1, trials - errors), 1.0)


def _smallest_root(decreasing):
    """Where a decreasing function of epsilon >= 0 first reaches 0; infinity where it stays above."""
    if decreasing(0) <= 0:
        return 0.0
    low, high = 0.0, 1.0
    while decreasing(high) > 0:
        if high > 500:
            return float("inf")
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if decreasing(middle) > 0 else (low, middle)
    return high
