r"""Exact laws of integer noise in one coordinate.

A sum of honest shares has a law that is symmetric and log-concave: the discrete Gaussian, the Skellam and the centred
binomial law are, and convolution preserves both. The laws are tables of log-probabilities with small relative errors
far into the tails, where a Fourier transform would have none left.

Reference:
  Canonne, Kamath & Steinke (2020), arXiv:2004.00010; Agarwal, Kairouz & Liu (2021), arXiv:2110.04995.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from .discrete_gaussian import nonexactness

# What a law has outside of its core. By Bernstein's inequality, 2 exp(-t² / 2(σ² + t/3)), a Skellam law (log-moment
# σ²(cosh λ - 1)) has less than 2 e^-90 beyond t = 14 σ + 90; the tails of a discrete Gaussian and of a binomial law
# are at most 2 exp(-t² / 2σ²).
TAIL = 3e-39
# Log-probabilities are sums of one rounded term a step, and the sums stay below 1000.
_ROUNDING = 1e-13
# A probability below this is no longer held to full precision; without it the law is only less private.
_TINY = 1e-290
# Shares of at least this parameter sum to a discrete Gaussian but for e^-39 a share.
SMOOTH = 2.0


class Law(NamedTuple):
    """A symmetric, log-concave law on the integers.

    Attributes:
      log_pmf: f64[core + shift + 1], of 0, 1, 2, ...; -inf where nothing falls, or too little to be held.
      core: int, the law has at most `TAIL` further than this from 0.
      error: of a log-probability, absolute.
    """

    log_pmf: np.ndarray
    core: int
    error: float


def reach(deviation: float) -> int:
    """Steps from the centre to the end of the core."""
    return math.ceil(14 * deviation + 90)


def skellam(variance: float, shift: int) -> Law:
    """The difference of two Poisson variables of half the variance each, for shifts up to `shift`."""
    core = reach(math.sqrt(variance))
    size = core + shift
    # p(k)/p(k-1) = I_k(σ²)/I_{k-1}(σ²) = 1/(2k/σ² + p(k+1)/p(k)): all terms are positive, and the wrong value at the
    # start is forgotten like p(start)²/p(k)².
    ratio, ratios = 0.0, np.empty(size)
    for k in range(size + 3 * math.ceil(math.sqrt(variance)) + 50, 0, -1):
        ratio = 1 / (2 * k / variance + ratio)
        if k <= size:
            ratios[k - 1] = ratio
    return _normalised(np.append(0.0, np.cumsum(np.log(ratios))), core)


def binomial(trials: int, shift: int) -> Law:
    """Half of the heads minus the tails of an even number of fair coins, for shifts up to `shift`."""
    half = trials // 2
    core = min(reach(math.sqrt(trials) / 2), half)
    log_pmf = np.full(core + shift + 1, -np.inf)
    k = np.arange(min(core + shift, half), dtype=np.float64)
    log_pmf[: len(k) + 1] = np.append(0.0, np.cumsum(np.log(half - k) - np.log(half + k + 1)))
    return _normalised(log_pmf, core)


def discrete_gaussian(parameter: float, shares: int, shift: int) -> Law:
    """The sum of variables with probabilities proportional to exp(-x² / 2σ²), for shifts up to `shift`."""
    core = reach(parameter * math.sqrt(shares))
    x = np.arange(core + shift + 1, dtype=np.float64)
    if shares > 1 and parameter < SMOOTH:
        return _normalised(_summed(-(x**2) / (2 * parameter**2), shares), core)
    law = _normalised(-(x**2) / (2 * shares * parameter**2), core)
    return law._replace(error=law.error + nonexactness(parameter, shares))


def _summed(log_pmf, shares):
    """Log-probabilities of a sum, from those of its terms."""
    one = np.exp(np.append(log_pmf[:0:-1], log_pmf))
    one /= one.sum()
    # Sums of n and n + 1, doubled: for terms this alike, what is cut off at the end weighs e^-90 of what is kept.
    # Nothing is subtracted, so small probabilities are as accurate as large ones.
    low, high = one, np.convolve(one, one, "same")
    for bit in f"{shares:b}"[1:]:
        mixed = np.convolve(low, high, "same")
        low, high = (mixed, np.convolve(high, high, "same")) if bit == "1" else (np.convolve(low, low, "same"), mixed)
    half = low[len(log_pmf) - 1 :]
    return np.where(half > _TINY, np.log(np.maximum(half, _TINY)), -np.inf)


def _normalised(log_pmf, core):
    total = logsumexp(np.append(log_pmf[1:] + math.log(2), log_pmf[0]))
    return Law(log_pmf - total, core, _ROUNDING * len(log_pmf))
