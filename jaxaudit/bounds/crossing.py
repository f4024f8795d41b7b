r"""The chance that an empirical distribution leaves a region, exactly, down to chances of 1e-12 and below.

Of `trials` independent uniforms let N(r) be the number at or below r. Conditioned on its number of points in [0, 1],
a Poisson process has the law of N; its increments are independent, so the law of its count among the paths that have
stayed inside is carried from one rate to the next by a convolution. The mass that leaves is added up where it leaves.
Every term is positive: nothing cancels, and a small chance keeps its relative precision.

Reference:
  Moscovich & Nadler (2017), arXiv:1503.04363, who sum the paths that stay; here those that leave are
  summed, because 1 - P(stay) has no digits left at 1e-12.
"""

import numpy as np
from scipy.special import gammaln

# Logarithms of size up to 1e4 in float64, summed over up to 1e4 terms, are wrong by less than 1e-8.
_ROUNDING = 1e-6


def crossing_probability(trials, rates, lowest, highest, negligible):
    r"""P(N(rates[j]) < lowest[j] or N(rates[j]) > highest[j] for some j).

    Args:
      trials: number of independent uniforms, a positive whole number below 2^53.
      rates: f64[k] in (0, 1), not decreasing, with trials * rates below 1e9.
      lowest, highest: whole numbers [k], neither decreasing, lowest <= highest.
      negligible: a probability far below the answer; at most so much is added to it.

    Returns:
      float, not below the probability, and above it by at most `negligible` and two parts in a million.

    Proof:
      Let s be the count at rate r, and b a Poisson process of intensity n = trials. P(N(r) = s, path) =
      P(b(r) = s, path) · P(Pois(n (1 - r)) = n - s) / P(Pois(n) = n), whose logarithm is
      n (ln(1 - r) + r) - s ln(1 - r) + Σ_{i<s} ln(1 - i/n): no large terms that cancel.
      An increment of mean λ is cut off above λ + √(2λu) + u/3, which Bin(n, λ/n) exceeds with probability at most
      e^-u (Bernstein); u is such that k of these are `negligible`, and `negligible` is added.

    Example:
      >>> round(crossing_probability(2, [0.2, 0.5], [1, 2], [2, 2], 1e-9), 5)  # 1 - P(both <= 0.5, one <= 0.2)
      0.84
    """
    n, rates = float(trials), np.asarray(rates, np.float64)
    if not rates.size:
        return negligible
    means = n * np.diff(rates, prepend=0.0)
    cutoff = np.log(rates.size / negligible)
    spans = np.floor(means + spread(means, cutoff)) + 1
    first, last = np.maximum(lowest, 0).astype(np.int64), np.minimum(highest, n).astype(np.int64)
    # The largest count that is ever looked at: inside at one rate, and then the longest increment.
    top = int(min(n, last[-1] + spans.max()))
    factorials = gammaln(np.arange(spans.max() + 1) + 1)
    thinning = np.concatenate([[0.0], np.cumsum(np.log1p(-np.arange(top) / n))])
    log_above = np.log1p(-rates)
    inside, start, crossed = np.ones(1), 0, 0.0
    for j, (mean, span) in enumerate(zip(means, spans)):
        if not inside.size:  # Every path has left, but for those that were cut off.
            break
        if mean > 0:
            increments = np.arange(int(span) + 1)
            law = np.exp(increments * np.log(mean) - mean - factorials[: increments.size])
            # More than n points cannot be n points.
            inside = np.convolve(inside, law)[: top - start + 1]
        counts = np.arange(start, start + inside.size)
        leaves = (counts < first[j]) | (counts > last[j])
        gone = counts[leaves]
        weights = np.exp(n * (log_above[j] + rates[j]) - gone * log_above[j] + thinning[gone])
        crossed += float(inside[leaves] @ weights)
        inside, start = inside[~leaves], max(start, first[j])
    return crossed * (1 + _ROUNDING) + negligible


def spread(mean, cutoff):
    """What a binomial or Poisson count exceeds its mean by with probability at most exp(-cutoff) (Bernstein)."""
    return np.sqrt(2 * mean * cutoff) + cutoff / 3
