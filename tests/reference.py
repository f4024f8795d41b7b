"""Oracles, written as the mathematics reads: slow, obvious, and sharing no code with what they check.

The true epsilon of a pair is the largest over both orders of the two hypotheses, in nats and at least 0.
"""

from functools import cache

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


def gaussian_epsilon(delta, shift):
    """True epsilon of z against z + shift, z ~ N(0, 1): Balle & Wang (2018), Theorem 8, by bisection."""

    def excess(eps):
        return mp.ncdf(shift / 2 - eps / shift) - mp.exp(eps) * mp.ncdf(-shift / 2 - eps / shift) - delta

    with mp.workdps(DIGITS):
        shift, delta = mp.mpf(shift), mp.mpf(delta)
        if delta == 0:
            return float("inf") if shift else 0.0
        return float(_smallest_root(excess)) if shift else 0.0


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


def discrete_epsilon(delta, h0, h1):
    """True epsilon of two laws on the same finite set: the root of their hockey-stick divergence."""

    def excess(eps):
        return max(np.sum(np.maximum(p - np.exp(eps) * q, 0)) for p, q in ((h0, h1), (h1, h0))) - delta

    return float(_smallest_root(excess))


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
