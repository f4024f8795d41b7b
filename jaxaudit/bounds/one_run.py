r"""One run, many canaries: a bound for guesses that all come from the same output and depend on each other.

m canaries are each put in or left out by a fair coin, the mechanism runs once, and r of the coins are guessed. Under
(ε, δ)-DP the number of correct guesses is about at most Bin(r, e^ε / (1 + e^ε)), however the canaries interact. δ is
paid for once for each canary, so at mδ ≫ 1 little is left: where trials are independent the bounds of `conditional`
are far tighter.

Reference:
  Steinke, Nasr & Jagielski (2023), arXiv:2305.08846, Corollary 5.4.
"""

import numpy as np
from scipy.special import betaincc, expit

from .conditional import checked_delta

# Measured: the tail by `betaincc`, at arguments free of cancellation, is right to 3e-11 for up to 1e10 guesses, and
# the largest average is found exactly for up to 2e6. The margin is for more guesses, where its top is very flat.
_SAFETY = 1e-7
# Below this level the p-value rises with epsilon; see `epsilon_one_run`.
_LARGEST_LEVEL = 0.499


def one_run_p_value(epsilon, correct, guesses, canaries, delta):
    r"""P-value of the claim (epsilon, delta)-DP after one run.

    Args:
      epsilon: nats, >= 0; broadcasts.
      correct: correct guesses v, in [0, guesses]; broadcasts.
      guesses: guesses made r, in [0, canaries]; the other canaries are abstained from.
      canaries: coins tossed m, all of them, guessed or not.
      delta: in [0, 1).

    Returns:
      f64 in (0, 1], rounded up: P(W ≥ v) + 2mδ max_i P(v > W ≥ v - i)/i over 1 ≤ i ≤ v, W ~ Bin(r, e^ε/(1 + e^ε)).

    Raises:
      ValueError: unless 0 <= correct <= guesses <= canaries, all of them whole, 0 <= delta < 1 and epsilon >= 0.

    Guarantee:
      If the mechanism is (epsilon, delta)-DP for one canary put in or left out, P(p-value <= α) <= α for every α.
      Only the coins must be fair and independent; canaries may act on each other, and guesses use all of the output,
      but no coin. `guesses` is fixed before the run (at δ = 0 it may depend on the output).

    Reference:
      Steinke, Nasr & Jagielski (2023), arXiv:2305.08846, Corollary 5.4.

    Example:
      >>> round(float(one_run_p_value(0.0, 3, 3, 3, 0.0)), 5)  # three fair coins
      0.125
    """
    correct, guesses, canaries, delta = _checked(correct, guesses, canaries, delta)
    epsilon = np.asarray(epsilon, np.float64)
    if np.any(~(epsilon >= 0)):
        raise ValueError(f"epsilon must be at least 0, got {epsilon}")
    return _p_value(*np.broadcast_arrays(epsilon, correct, guesses, canaries, delta))


def epsilon_one_run(correct, guesses, canaries, delta, significance):
    r"""Lower bound on epsilon from the guesses of one run.

    Args:
      correct, guesses, canaries, delta: as in `one_run_p_value`.
      significance: allowed failure probability in (0, 1).

    Returns:
      f64, nats, at least 0: a claim that is itself refuted, so no rounding makes the bound too high.

    Raises:
      ValueError: as in `one_run_p_value`, or for a significance outside (0, 1).

    Guarantee:
      Under the conditions of `one_run_p_value`, P(bound > true epsilon) <= significance.

    Proof:
      What is needed is that all smaller ε are refuted, too: that p rises with ε wherever it is below 1/2. (A
      significance of 1/2 or more is treated as one just below.) Let b be the probabilities of Bin(r - 1, x),
      x = e^ε/(1 + e^ε), C = 2mδ, and i where the maximum is attained. P(W ≥ k) has derivative r b(k - 1) in x, so p
      has the derivative r [(1 - C/i) b(v - 1) + (C/i) b(v - i - 1)]. Were it negative, then C > i and
      b(v - i - 1) < b(v - 1). As b rises up to ⌊rx⌋ and falls from there, v - i - 1 < ⌊rx⌋, that is v - i ≤ ⌊rx⌋,
      and as no median of W is below ⌊rx⌋, p ≥ P(W ≥ v) + (C/i) P(v > W ≥ v - i) ≥ P(W ≥ v - i) ≥ 1/2.

    Example:
      >>> round(float(epsilon_one_run(95, 100, 1000, 1e-5, 0.05)), 3)
      2.165
    """
    correct, guesses, canaries, delta = _checked(correct, guesses, canaries, delta)
    significance = np.asarray(significance, np.float64)
    if np.any(~((significance > 0) & (significance < 1))):
        raise ValueError(f"significance must be in (0, 1), got {significance}")
    *counts, significance = np.broadcast_arrays(correct, guesses, canaries, delta, significance)
    level = np.minimum(significance, _LARGEST_LEVEL)
    # All guesses correct have probability above 1/2 at ε = ln r + 1, for every r.
    low, high = np.zeros(level.shape), np.log(np.maximum(counts[1], 1.0)) + 1
    refuted = _p_value(low, *counts) <= level
    for _ in range(45):
        middle = (low + high) / 2
        below = _p_value(middle, *counts) <= level
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.where(refuted, low, 0.0)


def _p_value(epsilon, correct, guesses, canaries, delta):
    wrong = expit(-epsilon)
    tail = _at_least(correct, guesses, wrong)
    cost = 2 * canaries * delta
    if np.any(cost > 0):
        tail = tail + cost * _largest_average(correct, guesses, wrong, tail)
    return np.minimum(tail * (1 + _SAFETY), 1.0)


def _at_least(number, guesses, wrong):
    """P(W >= number) for W correct guesses, each of them wrong with a probability that is accurate near 0."""
    some = number > 0
    return np.where(some, betaincc(guesses - number + 1, np.where(some, number, 1.0), wrong), 1.0)


def _largest_average(correct, guesses, wrong, tail):
    """max P(v > W >= v - i) / i over 1 <= i <= v, by bisection in i."""

    def average(i):
        return (_at_least(correct - i, guesses, wrong) - tail) / np.maximum(i, 1.0)

    # The probabilities of v - 1, v - 2, ... rise to the mode and then fall, so their average rises to the mode at
    # least; once a term is below the average, so are all later ones, and the average falls from there on.
    low = np.clip(correct - np.floor((guesses + 1) * (1 - wrong)), np.minimum(correct, 1.0), correct)
    high = correct
    while np.any(low < high):
        middle = np.floor((low + high) / 2)
        falls = average(middle + 1) < average(middle)
        low, high = np.where(falls, low, np.minimum(middle + 1, high)), np.where(falls, middle, high)
    return np.maximum(average(low), 0.0)


def _checked(correct, guesses, canaries, delta):
    correct, guesses, canaries = (np.asarray(x, np.float64) for x in (correct, guesses, canaries))
    for name, count in (("correct", correct), ("guesses", guesses), ("canaries", canaries)):
        if np.any(~(count == np.floor(count))):
            raise ValueError(f"{name} must be whole numbers, got {count}")
    if np.any(~((correct >= 0) & (correct <= guesses) & (guesses <= canaries))):
        raise ValueError(
            "correct must be in [0, guesses] and guesses in [0, canaries], "
            f"got {correct} correct of {guesses} guesses on {canaries} canaries"
        )
    return correct, guesses, canaries, checked_delta(delta)
