r"""From error counts at one event, fixed in advance, to a lower bound on epsilon.

Notation: larger scores speak for H1. At a threshold t the decision is H1 if the score is at least t; a *false
positive* is a score of H0 with `score >= t`, a *false negative* one of H1 with `score <= t`. A tie is an error
under both hypotheses, so no bound profits from it.

(ε, δ)-DP implies P1(A) ≤ e^ε P0(A) + δ and P0(A) ≤ e^ε P1(A) + δ for every event A, hence each event gives two lower
bounds on ε. `direction="forward"` uses {score ≥ t}, which is likelier under H1; `direction="reverse"` uses
{score < t}, which is likelier under H0.

Reference:
  Kairouz, Oh & Viswanath (2015), arXiv:1311.0776.
"""

import numpy as np
from scipy.stats import binom

from .intervals import clopper_pearson_upper

# The rarer error carries the information, so it gets the larger share of the failure probability. The share is
# fixed in advance: choosing it on the data would be a selection that has to be paid for.
RARE_SHARE = 0.8
# Share of the failure probability spent on the tail of the δ-trials in `epsilon_paired`.
TAIL_SHARE = 0.05


def epsilon_clopper_pearson(
    false_positives, false_negatives, trials, delta, significance, direction="forward", rare=None
):
    r"""Lower bound on epsilon from a union of two Clopper-Pearson limits.

    ε ≥ ln[(1 - δ - FNR_u) / FPR_u] forward, and with the two rates exchanged in reverse.

    Args:
      false_positives: scores of H0 at or above the threshold; broadcasts.
      false_negatives: scores of H1 at or below the threshold; broadcasts.
      trials: trials under each hypothesis, or a tuple (under H0, under H1).
      delta: in [0, 1); broadcasts.
      significance: allowed failure probability in (0, 1), both limits together.
      direction: "forward" or "reverse".
      rare: the error, "fpr" or "fnr", that gets the larger share of the significance; by default the one in the
        denominator.

    Returns:
      f64, nats, at least 0.

    Guarantee:
      If the event was fixed before these trials and trials of one hypothesis are independent of each other,
      P(bound > true epsilon) <= significance, however the two hypotheses depend on each other. One pair of limits
      serves every delta and both directions at once.

    Example:
      >>> round(float(epsilon_clopper_pearson(0, 0, 5000, 1e-3, 0.05)), 2)
      7.35
    """
    delta = _checked(delta)
    fpr, fnr = error_limits(false_positives, false_negatives, trials, significance, rare or _denominator(direction))
    common, scarce = (fnr, fpr) if direction == "forward" else (fpr, fnr)
    with np.errstate(divide="ignore", invalid="ignore"):
        bound = np.log(1 - common - delta) - np.log(scarce)
    return np.where(np.isnan(bound), 0.0, np.maximum(bound, 0.0))


def error_limits(false_positives, false_negatives, trials, significance, rare="fpr"):
    """Simultaneous upper limits for the two error rates, the rarer one first in line for the significance.

    Args:
      false_positives, false_negatives, trials, significance: as in `epsilon_clopper_pearson`.
      rare: "fpr" or "fnr".

    Returns:
      (fpr_upper, fnr_upper), f64.

    Guarantee:
      P(either rate is above its limit) <= significance.
    """
    if rare not in ("fpr", "fnr"):
        raise ValueError(f"rare must be 'fpr' or 'fnr', got {rare!r}")
    trials_h0, trials_h1 = trials if isinstance(trials, tuple) else (trials, trials)
    share = RARE_SHARE if rare == "fpr" else 1 - RARE_SHARE
    return (
        clopper_pearson_upper(false_positives, trials_h0, share * significance),
        clopper_pearson_upper(false_negatives, trials_h1, (1 - share) * significance),
    )


def epsilon_paired(false_positives, false_negatives, trials, delta, significance, direction="forward"):
    r"""Lower bound on epsilon from paired, nested trials: the paired conditional Clopper-Pearson bound (PC-CP).

    One draw of the other clients gives a score S under H0 and S + m, m ≥ 0, under H1, so A0 = {S ≥ t} lies in
    A1 = {S + m ≥ t}. Only *which* of the trials in A1 are also in A0 matters, and that is a single binomial: no
    failure probability is split between two error rates.

    Args:
      false_positives: draws with S >= t; broadcasts.
      false_negatives: draws with S + m <= t; broadcasts.
      trials: number of draws.
      delta: in [0, 1); broadcasts.
      significance: allowed failure probability in (0, 1).
      direction: "forward" or "reverse".

    Returns:
      f64, nats, at least 0.

    Guarantee:
      For independent draws whose events are nested with probability one, and an event and a direction fixed in
      advance, P(bound > true epsilon) <= significance.

    Proof:
      Forward. Let q = P(A0), y = P(A1 \ A0), N draws, X of them in A0, Y in A1 \ A0, r = X + Y. By (ε, δ)-DP
      q + y ≤ e^ε q + δ, so y = y' + y'' with y'' ≤ δ and y' ≤ (e^ε - 1) q. Mark each draw of A1 \ A0, independently,
      as of the second kind with probability y''/y. Their number T is stochastically below Bin(N, δ), so T ≤ c except
      with probability α1, where c is the smallest integer with P(Bin(N, δ) > c) ≤ α1. Given the number r - T of the
      other draws in A1, X is Bin(r - T, q / (q + y')) and q / (q + y') ≥ e^-ε. Hence P(Bin(r - T, e^-ε) ≤ X) is a
      valid p-value; it increases when trials are taken away, so using c in place of T keeps its level, up to α1.
      Inverting in ε gives -ln U(X; r - c, α - α1), U the upper Clopper-Pearson limit. With Y ≤ c nothing is shown.
      At δ = 0 there are no draws of the second kind: c = 0 and α1 = 0.
      Reverse. {S + m < t} lies in {S < t}; exchange the hypotheses.
      Ties. A score equal to t counts as an error on both sides: X can only grow and r only shrink, which lowers
      the bound.

    Example:
      >>> round(float(epsilon_paired(500, 200, 10_000, 0.0, 0.05)), 3)
      2.904
    """
    errors, misses = (false_positives, false_negatives)
    if direction == "reverse":
        errors, misses = misses, errors
    else:
        _denominator(direction)
    errors, misses, trials = (np.asarray(x, np.float64) for x in (errors, misses, trials))
    delta = _checked(delta)
    spent = np.where(delta > 0, TAIL_SHARE * np.asarray(significance, np.float64), 0.0)
    offset = delta_offset(trials, delta, spent)
    kept = trials - misses - offset
    informative = kept > errors
    rate = clopper_pearson_upper(
        np.where(informative, errors, 0), np.where(informative, kept, 1), significance - spent
    )
    return np.where(informative, np.maximum(-np.log(rate), 0.0), 0.0)


def delta_offset(trials, delta, significance):
    """Smallest c with P(Bin(trials, delta) > c) <= significance; 0 where delta is 0.

    Example:
      >>> int(delta_offset(10_000, 1e-3, 0.01))
      18
    """
    trials, delta, significance = np.broadcast_arrays(
        *(np.asarray(x, np.float64) for x in (trials, delta, significance))
    )
    positive = delta > 0
    if not positive.any():
        return np.zeros(delta.shape)
    n, p, a = (np.where(positive, x, y) for x, y in ((np.floor(trials), 1.0), (delta, 0.5), (significance, 0.5)))
    count = binom.isf(a, n, p)
    # SciPy finds c by inverting a continuous tail; step to the exact smallest integer, whichever side it fell on.
    count = np.where(binom.sf(count, n, p) > a, count + 1, count)
    count = np.where((count > 0) & (binom.sf(count - 1, n, p) <= a), count - 1, count)
    return np.where(positive, count, 0.0)


def ceiling(trials, delta, significance, method):
    """The bound that a run without a single error would certify: no result of this size can exceed it.

    Args:
      trials: trials under each hypothesis, or for "union" a tuple (under H0, under H1).
      delta: in [0, 1).
      significance: failure probability of one test, as it is actually used.
      method: "union" or "pc-cp".

    Returns:
      float, nats.

    Example:
      >>> round(ceiling(5000, 1e-3, 0.05, "union"), 2)
      7.35
    """
    return max(float(METHODS[method](0, 0, trials, delta, significance, direction)) for direction in _DENOMINATOR)


_DENOMINATOR = {"forward": "fpr", "reverse": "fnr"}


def _denominator(direction):
    if direction not in _DENOMINATOR:
        raise ValueError(f"direction must be 'forward' or 'reverse', got {direction!r}")
    return _DENOMINATOR[direction]


def _checked(delta):
    delta = np.asarray(delta, np.float64)
    if np.any(~((delta >= 0) & (delta < 1))):
        raise ValueError(f"delta must be in [0, 1), got {delta}")
    return delta


METHODS = {"union": epsilon_clopper_pearson, "pc-cp": epsilon_paired}
