r"""Conditional Clopper-Pearson bounds: one binomial in the place of two error rates.

At an event A fixed in advance only the trials in A are looked at, and among them only which hypothesis each of them
speaks for. That is one binomial whose rate (ε, 0)-DP limits; δ takes away a number of trials that is known up to a
tail. No failure probability is split between two error rates, and both bounds come from the same line:

    labelled trials   A under H1 against A under H0: odds at most e^ε : 1            ε ≥ ln((1 - U) / U)
    nested pairs      A under H1 only against A under both: odds at most e^ε - 1 : 1  ε ≥ -ln U

with U the upper Clopper-Pearson limit for the share of the rarer kind. Neither bound is in the literature that we
know of; the proofs are written out below, and the tests measure both at the boundary, where they are tight.
"""

import numpy as np
from scipy.special import betainc

from .intervals import clopper_pearson_lower, clopper_pearson_upper

# Share of the failure probability that pays for the tail of the δ-trials.
TAIL_SHARE = 0.05


def epsilon_labelled(
    false_positives, false_negatives, trials, delta, significance, direction="forward", limit=clopper_pearson_upper
):
    r"""Lower bound on epsilon from labelled trials: the conditional Clopper-Pearson bound (CC-CP).

    Every trial tosses a fair coin of its own for the hypothesis it is played under.

    Args:
      false_positives: trials of H0 with score >= t; broadcasts.
      false_negatives: trials of H1 with score <= t; broadcasts.
      trials: (trials under H0, trials under H1), as the coins fell, or their common number.
      delta: in [0, 1); broadcasts.
      significance: allowed failure probability in (0, 1).
      direction: "forward" or "reverse".
      limit: the upper limit of a rate; planning takes a faster one than the certificate.

    Returns:
      f64, nats, at least 0.

    Guarantee:
      For independent trials with independent fair coins, whose number was fixed in advance, and an event, a direction
      and a delta fixed in advance, P(bound > true epsilon) <= significance.

    Proof:
      Forward, A = {score ≥ t}; m trials. Let p = P1(A), q = P0(A), TP trials of H1 and FP of H0 in A, r = TP + FP. By
      (ε, δ)-DP p ≤ e^ε q + δ, so p = p' + p'' with p'' ≤ δ and p' ≤ e^ε q. Mark each trial of H1 in A, independently,
      as of the second kind with probability p''/p. A trial is of that kind with probability p''/2 ≤ δ/2, so their
      number T is stochastically below Bin(m, δ/2): T ≤ c except with probability α1, where c is the smallest integer
      with P(Bin(m, δ/2) > c) ≤ α1. Trials are independent, so given how many are in A and not of the second kind,
      r' = r - T, each of these is of H0 with probability q / (q + p') ≥ 1 / (1 + e^ε) =: π, and FP is
      Bin(r', q / (q + p')). Hence g(T) with g(k) = P(Bin(r - k, π) ≤ FP) is a valid p-value of (ε, δ)-DP: given r',
      FP is stochastically at least Bin(r', π). g(k) rises with k, because fewer trials make FP or fewer of them
      likelier, so rejecting where g(c) ≤ α - α1 errs only if g(T) ≤ α - α1 or T > c: with probability at most α.
      With U the upper Clopper-Pearson limit of FP in r - c at level α - α1, g(c) ≤ α - α1 means π ≥ U, that is
      ε ≤ ln((1 - U) / U). With TP ≤ c nothing is shown. At δ = 0 no trial is of the second kind: c = 0 and α1 = 0.
      Reverse. Exchange the hypotheses, with A = {score < t}.
      Ties. A score equal to t counts as an error on both sides: FP can only grow and TP only shrink.

    Example:
      >>> round(float(epsilon_labelled(500, 200, (5000, 5000), 0.0, 0.05)), 3)
      2.184
    """
    rare, common, *each = checked_counts(false_positives, false_negatives, trials, direction, "labelled")
    rate = _rarer(rare, common, sum(each), checked_delta(delta), 0.5, significance, limit)
    with np.errstate(divide="ignore"):
        return np.maximum(np.log1p(-rate) - np.log(rate), 0.0)


def epsilon_paired(
    false_positives, false_negatives, trials, delta, significance, direction="forward", limit=clopper_pearson_upper
):
    r"""Lower bound on epsilon from paired, nested trials: the paired conditional Clopper-Pearson bound (PC-CP).

    One draw of the other clients gives a score S under H0 and S + m, m ≥ 0, under H1, so A0 = {S ≥ t} lies in
    A1 = {S + m ≥ t}, and only *which* of the trials in A1 are also in A0 matters.

    Args:
      false_positives: draws with S >= t; broadcasts.
      false_negatives: draws with S + m <= t; broadcasts.
      trials: number of draws, or the pair (draws, draws).
      delta: in [0, 1); broadcasts.
      significance: allowed failure probability in (0, 1).
      direction: "forward" or "reverse".
      limit: the upper limit of a rate; planning takes a faster one than the certificate.

    Returns:
      f64, nats, at least 0.

    Guarantee:
      For independent draws whose events are nested with probability one, and an event, a direction and a delta fixed
      in advance, P(bound > true epsilon) <= significance.

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
    rare, common, draws, _ = checked_counts(false_positives, false_negatives, trials, direction, "nested")
    rate = _rarer(rare, common - rare, draws, checked_delta(delta), 1.0, significance, limit)
    return np.maximum(-np.log(rate), 0.0)


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
    low, count = np.full(n.shape, -1.0), n.copy()
    while np.any(count - low > 1):
        middle = np.clip(np.floor((low + count) / 2), 0, n - 1)
        enough = betainc(middle + 1, n - middle, p) <= a
        low, count = np.where(enough, low, np.maximum(low, middle)), np.where(enough, middle, count)
    # SciPy's tail finds the place; the limit of a rate, which errs on the safe side, has the last word.
    while np.any(short := (count < n) & (clopper_pearson_lower(np.minimum(count + 1, n), n, a) < p)):
        count = count + short
    return np.where(positive, count, 0.0)


def checked_counts(false_positives, false_negatives, trials, direction, design):
    """Trials in the event under the hypothesis where it is rare and under the other, and the trials of either.

    Args:
      false_positives, false_negatives, direction: as in `epsilon_labelled`.
      trials: (trials under H0, trials under H1), or their common number.
      design: "labelled" or "nested".

    Returns:
      (rare, common, trials where it is rare, trials where it is common), f64.

    Raises:
      ValueError: for counts that are none, or that no fair coin and no nested draws could give.
    """
    if design not in ("labelled", "nested"):
        raise ValueError(f"design must be 'labelled' or 'nested', got {design!r}: other trials take the union")
    if direction not in ("forward", "reverse"):
        raise ValueError(f"direction must be 'forward' or 'reverse', got {direction!r}")
    trials = trials if isinstance(trials, tuple) else (trials, trials)
    errors = [np.asarray(x, np.float64) for x in (false_positives, false_negatives)]
    numbers = [np.asarray(x, np.float64) for x in trials]
    for name, few, number in zip(("false_positives", "false_negatives"), errors, numbers):
        if np.any(~((few >= 0) & (few <= number))):
            raise ValueError(f"{name} must be in [0, trials], got {few} of {number}")
    # Eight standard deviations: less likely than 1e-13 for a fair coin, and unequal numbers would break the bound.
    if np.any(np.abs(numbers[0] - numbers[1]) > (8 * np.sqrt(sum(numbers)) if design == "labelled" else 0)):
        raise ValueError(
            f"{design} trials cannot be {numbers[0]} of h0 and {numbers[1]} of h1: the union of two limits takes any "
            "numbers"
        )
    if direction == "reverse":
        errors, numbers = errors[::-1], numbers[::-1]
    return errors[0], numbers[1] - errors[1], *numbers


def _rarer(rare, common, trials, delta, share, significance, limit):
    """Upper limit for the share of the rare kind, after taking away the common trials that δ may account for."""
    significance = np.asarray(significance, np.float64)
    if np.any(~((significance > 0) & (significance < 1))):
        raise ValueError(f"significance must be in (0, 1), got {significance}")
    spent = np.where(delta > 0, TAIL_SHARE * significance, 0.0)
    kept = common - delta_offset(trials, share * delta, spent)
    informative = kept > 0
    rate = limit(np.where(informative, rare, 0), np.where(informative, rare + kept, 1), significance - spent)
    return np.where(informative, rate, 1.0)


def checked_delta(delta):
    """Delta as float64.

    Raises:
      ValueError: outside [0, 1).
    """
    delta = np.asarray(delta, np.float64)
    if np.any(~((delta >= 0) & (delta < 1))):
        raise ValueError(f"delta must be in [0, 1), got {delta}")
    return delta
