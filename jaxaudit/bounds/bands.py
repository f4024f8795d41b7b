r"""Upper limits for an error rate that hold at every threshold at once, so that any may be picked after the fact.

Of N scores the rate above the k-th largest is Beta(k, N - k + 1), whatever their law. A Clopper-Pearson limit at one
small level η, the same for all numbers of errors, is therefore a band; only η is needed, and it is calculated here,
exactly, from the chance that uniforms cross a boundary (`crossing.py`), once for each number of trials.

Why not Dvoretzky-Kiefer-Wolfowitz: it adds √(ln(1/a) / 2N) to every rate, which at 1e6 trials hides every false
positive rate below 1e-3, and ln FPR is what epsilon is made of. The band widens each rate by about 3.4 of its own
standard deviations instead.

Reference:
  Berk & Jones (1979), Z. Wahrscheinlichkeitstheorie 47; Moscovich, Nadler & Spiegelman (2016), arXiv:1311.3190;
  equal local levels: Weine, McPeek & Abney (2023), arXiv:2111.15082.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .conditional import checked_delta
from .crossing import crossing_probability, spread
from .intervals import clopper_pearson_lower, clopper_pearson_upper

# Ranks from either end that share one exactly calibrated level. Doubling it widens every limit there by 0.04 standard
# deviations, which is seen at 10 errors, and narrows those of the ranks taken in by one, which at 4096 is 1.6 %.
EXACT_RANKS = 4096
# Share of the failure probability for the ranks between, where a standard deviation is below 2 % of the rate.
MIDDLE_SHARE = 0.1
# Length of a block of middle ranks in log-odds: shorter ones fit the boundary better but divide the share further.
_BLOCK = 0.2
# The level is used once its crossing probability lies this close below what is allowed.
_TOLERANCE = 1e-3


def equal_level_limit(errors, trials, significance):
    r"""Upper limit for an error rate, simultaneous over all thresholds: the equal-local-level band.

    Args:
      errors: observed errors, in [0, trials]; broadcasts. Real numbers, for planning, are rounded up.
      trials: number of independent trials, a whole number in [1, 2^53); broadcasts.
      significance: allowed probability that some limit is too low, in [1e-200, 1); broadcasts.

    Returns:
      f64, not decreasing in `errors`; 1 if all erred. The first call for a (trials, significance) takes a few tenths
      of a second; the calibration is kept.

    Guarantee:
      For independent trials of one law, P(at some threshold the error rate exceeds the limit) <= significance,
      whatever the law, ties and atoms included.

    Proof:
      U(m) is a boundary b_k at a rank k >= m + 1, or above it. Let V_i = P(S > S_i) + W_i P(S = S_i), W_i uniform:
      these are n independent uniforms, whether or not the law has atoms; N(b) counts those at most b. A score below t
      has V_i >= p(t) = P(S >= t), so m errors at t leave at most m of the V_i below p(t). If p(t) > b_k, then
      N(b_k) <= m < k. Hence the band fails only if N(b_k) < k for some k; with atoms p(t) takes few values, and it
      fails less. For errors {S <= t}, turn the scores around. P(N(b_k) < k for some k) <= significance is left to
      show; three ranges of k share it.
      *Ends.* For k <= 4096, and for n - k < 4096, b_k is the Clopper-Pearson limit of k - 1 errors at level η. All
      ranks to 64 are on the grid, then every quarter of a standard deviation; others use the next one on it. The
      crossing probability of each end is computed by `crossing_probability`, and η is the level at which
      they add up to significance (nine tenths of it, where there is a middle).
      *Middle.* Blocks of ranks end at K with limit B = U(K - 1; n, a), and inside a block
      b_k = B - (1 - B)(K - k) / (n - K + 1). At the first k of the block with N(b_k) <= k - 1, the later increment
      N(B) - N(b_k) is binomial; N(B) is at most k - 1 plus a Bin(n - k + 1, (B - b_k) / (1 - b_k)) stochastically,
      whose mean is K - k, and the median of a binomial with whole mean is its mean. So N(B) <= K - 1 with
      probability at least 1/2, and P(a crossing in the block) <= 2 P(N(B) <= K - 1) = 2 a: every rank of the middle
      has its own limit, and a is MIDDLE_SHARE · significance / (2 · blocks).

    Example:
      >>> from jaxaudit.bounds import clopper_pearson_upper
      >>> float(clopper_pearson_upper(10, 10_000, 0.025)), float(equal_level_limit(10, 10_000, 0.025))
      (0.00183..., 0.0025...)

    Reference:
      Lévy's inequality, for the middle; median of a binomial: Kaas & Buhrman (1980), Statistica Neerlandica 34.
    """
    errors, trials, significance = (np.asarray(x, np.float64) for x in (errors, trials, significance))
    _check(errors, trials, significance)
    each = np.stack(np.broadcast_arrays(trials, significance), axis=-1)
    limits = np.ones(np.broadcast_shapes(errors.shape, each.shape[:-1]))
    errors = np.broadcast_to(errors, limits.shape)
    for pair in np.unique(each.reshape(-1, 2), axis=0):
        chosen = np.broadcast_to((each == pair).all(axis=-1), limits.shape) & (np.ceil(errors) < pair[0])
        band, rank = _calibrated(int(pair[0]), float(pair[1])), np.ceil(errors[chosen]) + 1
        at = np.searchsorted(band.ranks, rank)
        line = _on_line(band.limits[at], band.slopes[at] * (band.ranks[at] - rank))
        limits[chosen] = np.minimum(line, band.caps[at])
    return limits


def local_level(trials: int, significance: float) -> float:
    """Significance of the single Clopper-Pearson limits that `equal_level_limit` is made of, at either end.

    Args:
      trials: a whole number in [1, 2^53).
      significance: of the whole band, in [1e-200, 1).

    Returns:
      float, at most `significance`; the ends spend between 99.9 % and all of what is allowed to them.

    Example:
      >>> f"{local_level(100, 0.025):.2g}"
      '0.0011'
    """
    _check(0, np.asarray(trials, np.float64), np.asarray(significance, np.float64))
    return _calibrated(int(trials), float(significance)).level


def dkw_limit(errors, trials, significance):
    """Upper limit for an error rate, simultaneous over all thresholds: the observed rate plus one constant.

    For teaching and comparison: too wide for small rates (see the module).

    Args:
      errors: observed errors, in [0, trials]; broadcasts.
      trials: number of independent trials, a whole number in [1, 2^53); broadcasts.
      significance: allowed probability that some limit is too low, in [1e-200, 1/2]; broadcasts.

    Returns:
      f64, min(1, errors / trials + √(ln(1 / significance) / (2 trials))).

    Guarantee:
      For independent trials of one law, P(at some threshold the error rate exceeds the limit) <= significance,
      whatever the law.

    Example:
      >>> round(float(dkw_limit(10, 10_000, 0.025)), 5)
      0.01458

    Reference:
      Massart (1990), Annals of Probability 18, Theorem 1: one side, and the reason for significance <= 1/2.
    """
    errors, trials, significance = (np.asarray(x, np.float64) for x in (errors, trials, significance))
    _check(errors, trials, significance)
    if np.any(significance > 0.5):
        raise ValueError(f"significance must be at most 1/2 for this inequality, got {significance}")
    limit = errors / trials + np.sqrt(-np.log(significance) / (2 * trials))
    return np.minimum(limit * (1 + 1e-15), 1.0)


def epsilon_simultaneous(
    false_positives, false_negatives, trials, delta, significance, direction="forward", limit=equal_level_limit
):
    r"""Lower bound on epsilon that holds at all thresholds, all deltas and in both directions at once.

    ε ≥ ln[(1 - δ - FNR_u) / FPR_u] forward, and with the two rates exchanged in reverse; the largest of any such
    bounds, picked after looking at all of them, is a bound.

    Args:
      false_positives: scores of H0 at or above a threshold; broadcasts.
      false_negatives: scores of H1 at or below the same threshold; broadcasts.
      trials: trials under each hypothesis, or a tuple (under H0, under H1).
      delta: in [0, 1); broadcasts.
      significance: allowed failure probability in (0, 1), both error rates together.
      direction: "forward" or "reverse".
      limit: a simultaneous limit, `equal_level_limit` or `dkw_limit`.

    Returns:
      f64, nats, at least 0.

    Guarantee:
      If trials of one hypothesis are independent and of one law, P(at some threshold, delta or direction the bound
      exceeds the true epsilon) <= significance, however the two hypotheses depend on each other.

    Proof:
      Except with probability significance / 2 each, FPR(t) <= FPR_u(t) for all t, and FNR(t) <= FNR_u(t) for all t.
      Where both hold, the events {S >= t} and {S < t} give by (ε, δ)-DP, for every t and δ,
      1 - FNR_u(t) <= P1(S >= t) <= e^ε FPR_u(t) + δ and 1 - FPR_u(t) <= P0(S < t) <= e^ε FNR_u(t) + δ.
      Nothing more is random, so no choice among these has to be paid for.

    Example:
      >>> errors = np.array([40, 4, 0])  # at three thresholds, whether or not chosen on these trials
      >>> epsilon_simultaneous(errors, [3000, 6000, 8000], 10_000, 1e-5, 0.05).round(2)
      array([4.63, 5.46, 5.44])
    """
    delta = checked_delta(delta)
    if direction not in ("forward", "reverse"):
        raise ValueError(f"direction must be 'forward' or 'reverse', got {direction!r}")
    trials_h0, trials_h1 = trials if isinstance(trials, tuple) else (trials, trials)
    share = np.asarray(significance, np.float64) / 2
    rare, common = limit(false_positives, trials_h0, share), limit(false_negatives, trials_h1, share)
    if direction == "reverse":
        rare, common = common, rare
    power = 1 - common - delta
    return np.where(power > rare, np.log(np.where(power > rare, power / rare, 1.0)), 0.0)


class _Band(NamedTuple):
    """Limits at some ranks k, for k - 1 errors; before a rank its limit falls by `slope` for each rank.

    A limit of more errors is one of fewer, too: no limit need be above the cap, the least limit of higher ranks.
    """

    level: float
    ranks: np.ndarray
    limits: np.ndarray
    slopes: np.ndarray
    caps: np.ndarray


@lru_cache(maxsize=256)
def _calibrated(trials, significance):
    ranks = _grid(trials)
    split = trials > 2 * EXACT_RANKS
    allowed = (1 - MIDDLE_SHARE) * significance if split else significance
    negligible, highest_log = 1e-12 * significance, np.log(allowed * (1 - 1e-9))
    # Bonferroni over the ranks is always allowed; from there the probability is concave in the level, in logarithms,
    # so the secants rise to the root from below. No higher level is used than one whose crossing was computed.
    logs, excesses = [np.log(allowed / ranks.size / (1 + split) / 2)], []
    level = np.exp(logs[0])
    for _ in range(40):
        chance = _crossing(trials, np.exp(logs[-1]), ranks, split, negligible)
        excesses.append(np.log(chance / allowed))
        if excesses[-1] <= 0:
            level = max(level, np.exp(logs[-1]))
        if -_TOLERANCE <= excesses[-1] <= 0 or (excesses[-1] <= 0 and logs[-1] == highest_log):
            break
        slope = (excesses[-1] - excesses[-2]) / (logs[-1] - logs[-2]) if len(logs) > 1 else 1.0
        if not slope > 0:  # Every limit is 1.
            break
        logs.append(min(logs[-1] - (excesses[-1] + _TOLERANCE / 2) / slope, highest_log))
    limits, slopes = _limits(ranks, trials, level), np.zeros(ranks.size)
    if split:
        ends, highest = _blocks(trials), trials + 1 - ranks[::-1]
        middle = _limits(ends, trials, MIDDLE_SHARE * significance / (2 * ends.size))
        slopes = np.concatenate([slopes, (1 - middle) / (trials - ends + 1), slopes])
        limits = np.concatenate([limits, middle, _limits(highest, trials, level)])
        ranks = np.concatenate([ranks, ends, highest])
    lowest = _on_line(limits, slopes * (np.diff(ranks, prepend=0) - 1))
    caps = np.append(np.minimum.accumulate(lowest[:0:-1])[::-1], 1.0)
    return _Band(level, ranks, limits, slopes, caps)


def _grid(trials):
    """All ranks to 64, then every quarter of a standard deviation; to the last rank or to EXACT_RANKS."""
    ranks = [1]
    last = trials if trials <= 2 * EXACT_RANKS else EXACT_RANKS
    while ranks[-1] < last:
        step = max(1, int(np.sqrt(ranks[-1] * (1 - ranks[-1] / trials)) / 4))
        ranks.append(min(ranks[-1] + step, last))
    return np.array(ranks)


def _limits(ranks, trials, level):
    """Clopper-Pearson limits for rank - 1 errors; above 1/2 by the successes, safe relative to 1 - limit."""
    errors, limits = ranks - 1, np.ones(ranks.size)
    few = 2 * errors <= trials
    limits[few] = clopper_pearson_upper(errors[few], trials, level)
    high = limits > 0.5
    limits[high] = np.nextafter(1 - clopper_pearson_lower(trials - errors[high], trials, level), 1)
    return limits


def _on_line(limits, fall):
    """A limit less its fall, rounded outwards; without a fall it is the float that was calibrated."""
    return (limits - fall) * np.where(fall > 0, 1 + 1e-15, 1.0)


def _crossing(trials, level, ranks, split, negligible):
    """Chance that fewer than k uniforms are at or below the limit of k, for some k at either end."""
    cutoff = np.log(1 / negligible)
    limits = _limits(ranks, trials, level)
    crossed = limits < 1  # A limit of 1 is not.
    expected = trials * limits[crossed]
    # Counts far above the limit are given up as if they had crossed.
    many = np.maximum(ranks[crossed], np.ceil(expected + spread(expected, cutoff)))
    chance = crossing_probability(trials, limits[crossed], ranks[crossed], many, negligible)
    if not split:
        return chance
    # The upper end, turned around: with k = n + 1 - r, fewer than k at or below b_k are r or more above it.
    rates = 1 - _limits(trials + 1 - ranks, trials, level)
    ranks, rates = ranks[rates > 0], rates[rates > 0]
    expected = trials * rates
    few = np.minimum(np.floor(expected - np.sqrt(2 * expected * cutoff)), ranks - 1)
    return chance + crossing_probability(trials, rates, few, ranks - 1, negligible)


def _blocks(trials):
    """Last ranks of the blocks between EXACT_RANKS and its mirror image, evenly spaced in log-odds."""
    first, last = EXACT_RANKS, trials - EXACT_RANKS
    near, far = (np.log(rank / (trials + 1 - rank)) for rank in (first, last))
    odds = np.linspace(near, far, int(np.ceil((far - near) / _BLOCK)) + 1)[1:-1]
    inner = np.floor((trials + 1) / (1 + np.exp(-odds)))
    return np.append(np.unique(inner[(inner > first) & (inner < last)]), last)


def _check(errors, trials, significance):
    if np.any(~((trials >= 1) & (trials < 2**53) & (trials == np.floor(trials)))):
        raise ValueError(f"trials must be a whole number in [1, 2^53), got {trials}")
    if np.any(~((errors >= 0) & (errors <= trials))):
        raise ValueError(f"errors must be in [0, trials], got {errors} of {trials}")
    if np.any(~((significance >= 1e-200) & (significance < 1))):
        raise ValueError(f"significance must be in [1e-200, 1), got {significance}")
