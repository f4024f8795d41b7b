r"""Bounds that hold at every number of trials at once: look, stop, or go on, as often as you like.

A game against the claim "(ε, δ)-DP": before each trial a part of the wealth is bet on the event, at odds that are
fair or worse if the claim is true. A *success* is a trial in the event under H1 (of nested draws, one in it under H1
alone), a *failure* a trial in it under H0. With z = e^-ε, a bet θ in (0, 1) multiplies the wealth by

    labelled trials   (1 + θz)/c at a success, 1 - θ at a failure, else 1/c under H1 and 1 under H0
    nested draws      (1 + θz)/c at a success, (1 - θ(1 - z))/c at a failure, else 1/c

with c = 1 + θδz. Wealth whose mean never rises reaches 1/α at some time with probability at most α (Ville), so when
it has, ε is refuted at level α, whenever that is. The start is spread over forty bets: Robbins' mixture. At δ = 0 it
is the likelihood ratio of the share of successes against its largest value under the claim. δ costs the mean number
of the trials that it may account for, and no tail of it: no share of α is set aside.

Reference:
  Robbins (1970), Ann. Math. Statist. 41; Ville (1939); bets against (ε, δ)-DP: arXiv:2509.07055.
"""

import numpy as np
from scipy.special import xlog1py

from .conditional import checked_counts, checked_delta

# The bets θ = 1 - e^-s with s = 8, 8/1.5, ... 1e-6, weighted as if s were exponential of rate 3/4: θ ~ Beta(1, 3/4).
# A finer grid moves no mean bound by more than 0.002. A larger rate suits many failures, a smaller one few: over both
# designs and eleven cells of normal scores, 1e4 to 1e8 trials a side, the largest and the mean distance below CC-CP
# and PC-CP are 0.38 and 0.21 at rate 1.2, 0.32 and 0.21 at 3/4, 0.31 and 0.21 at 0.3. The smallest bet suits 1e12.
_RATES = 8.0 * 1.5 ** -np.arange(40.0)
_BETS = -np.expm1(-_RATES)
_WEIGHTS = _RATES * np.exp(-0.75 * _RATES)
_LOG_WEIGHTS = np.log(_WEIGHTS / _WEIGHTS.sum())
# Relative errors of a logarithm times a count stay below 1e-15 and absolute ones of what follows below 1e-12.
_ROUNDING = 2e-15
_SAFETY = 1e-11


def epsilon_anytime(
    false_positives, false_negatives, trials, delta, significance, direction="forward", design="labelled"
):
    r"""Lower bound on epsilon that may be looked at after every trial.

    Args:
      false_positives: scores of H0 at or above the threshold; broadcasts.
      false_negatives: scores of H1 at or below the threshold; broadcasts.
      trials: (trials under H0, trials under H1) so far, or their common number.
      delta: in [0, 1); broadcasts.
      significance: allowed failure probability in (0, 1), all looks together.
      direction: "forward" or "reverse".
      design: "labelled", a fair coin of its own for the hypothesis of every trial; or "nested", where one draw serves
        both hypotheses and moves the score by a shift that is never negative.

    Returns:
      f64, nats, at least 0.

    Raises:
      ValueError: for counts that are none, or that no fair coin and no nested draws could give.

    Guarantee:
      For independent trials of the design, and an event, a direction and a delta fixed in advance, P(the bound is
      above the true epsilon at some number of trials) <= significance. So the number of trials may depend on the
      bounds, and the largest bound so far is a bound. The event may even change, as long as it is fixed before its
      trial. "labelled" is as good for independent trials of the two hypotheses in turn, looked at after whole turns.

    Proof:
      `log_e_value` gives the wealth against each ε, and it falls as ε grows. The bound is at most the ε at which it
      passes 1/significance, so a bound above the true ε means a wealth of 1/significance against the true ε.

    Example:
      >>> round(float(epsilon_anytime(500, 200, 10_000, 0.0, 0.05, design="nested")), 3)
      2.834
    """
    successes, failures, trials = _counted(false_positives, false_negatives, trials, direction, design)
    delta, significance = checked_delta(delta), np.asarray(significance, np.float64)
    if np.any(~((significance > 0) & (significance < 1))):
        raise ValueError(f"significance must be in (0, 1), got {significance}")
    *counts, significance = np.broadcast_arrays(successes, failures, trials, delta, significance)
    needed = -np.log(significance)
    # The wealth is below exp(successes · e^-ε).
    low, high = np.zeros(needed.shape), np.log(np.maximum(counts[0] / needed, 1.0))
    for _ in range(45):
        middle = (low + high) / 2
        refuted = _log_wealth(middle, *counts, design) >= needed
        low, high = np.where(refuted, middle, low), np.where(refuted, high, middle)
    return np.maximum(low - _SAFETY, 0.0)


def log_e_value(epsilon, successes, failures, trials, delta, design="labelled"):
    r"""Logarithm of the wealth won against the claim (epsilon, delta)-DP.

    Args:
      epsilon: nats, >= 0; broadcasts.
      successes: trials in the event under H1; for nested draws those in it under H1 alone.
      failures: trials in the event under H0.
      trials: trials under H1; for nested draws all of them.
      delta: in [0, 1).
      design: "labelled" or "nested".

    Returns:
      f64, rounded down.

    Raises:
      ValueError: for another design, a negative number, or a delta outside [0, 1).

    Guarantee:
      If the claim is true, P(the wealth reaches 1/α at any number of trials) <= α. It falls as epsilon grows.

    Proof:
      Write z = e^-ε, c = 1 + θδz, and p, q for the chances of the event under H1 and H0, so p ≤ q/z + δ.
      Labelled. A trial multiplies the wealth on average by (1 + θzp)/2c + (1 - θq)/2. The first term is at most
      (c + θq)/2c ≤ (1 + θq)/2, so the sum is at most 1. For a trial of each hypothesis the product of the two
      means is at most (1 + θq)(1 - θq) ≤ 1.
      Nested. With y = p - q the mean is (1 + θ(zy - (1 - z)q))/c, and zy ≤ (1 - z)q + δz makes it at most 1.
      So for each θ the wealth is a supermartingale from 1, and so is their mixture; Ville's inequality applies.
      Monotone. With v successes, u failures and n trials the logarithm of the wealth of θ is
      v ln(1 + θz) + u ln(1 - θ) - n ln(1 + θδz), or with 1 - θ(1 - z) in the place of 1 - θ. Its derivative in z has
      the sign of (1 + θδz) (v/(1 + θz) [+ u/(1 - θ(1 - z))]) - nδ, which falls as z grows, because δ < 1. So over
      all claims from 0 to ε it is smallest at an end, and the smaller of the two ends, taken for each θ, is at most
      the wealth and falls as ε grows.

    Example:
      >>> round(float(log_e_value(0.0, 5, 0, 5, 0.0)), 3)  # five of five: at most five doublings
      2.563
    """
    if design not in ("labelled", "nested"):
        raise ValueError(f"design must be 'labelled' or 'nested', got {design!r}")
    epsilon, *counts = (np.asarray(x, np.float64) for x in (epsilon, successes, failures, trials))
    for name, number in zip(("epsilon", "successes", "failures", "trials"), (epsilon, *counts)):
        if np.any(~(number >= 0)):
            raise ValueError(f"{name} must be at least 0, got {number}")
    return _log_wealth(epsilon, *counts, checked_delta(delta), design)


def spending(significance, looks, final=0.9):
    r"""Failure probabilities for planned looks at growing data, the last of them the largest.

    For any bound for a fixed number of trials: give look j the j-th entry as its significance. All looks then hold
    at once, each with the trials up to it, and the last one loses little against a single look. The number of looks
    and the trials at each are fixed in advance; `epsilon_anytime` needs no such plan.

    Args:
      significance: allowed failure probability of all looks together, in (0, 1).
      looks: number of planned looks, at least 1.
      final: share of the last look, in (0, 1). The others share the rest in proportion to 1/j².

    Returns:
      f64[looks].

    Guarantee:
      The entries are positive and sum to at most `significance`.

    Example:
      >>> [round(float(share), 4) for share in spending(0.05, 4)]
      [0.0037, 0.0009, 0.0004, 0.045]
    """
    if not 0 < significance < 1:
        raise ValueError(f"significance must be in (0, 1), got {significance}")
    if looks != int(looks) or looks < 1:
        raise ValueError(f"looks must be a whole number of at least 1, got {looks}")
    if not 0 < final < 1:
        raise ValueError(f"final must be in (0, 1), got {final}")
    if looks == 1:
        return np.array([float(significance)])
    early = np.arange(1.0, looks) ** -2.0
    shares = np.append((1 - final) * early / early.sum(), final)
    return significance * shares * (1 - 1e-14)


def _log_wealth(epsilon, successes, failures, trials, delta, design):
    z, successes, failures, trials, delta = (
        x[..., None] for x in (np.exp(-epsilon), successes, failures, trials, delta)
    )

    def wealth(z):
        bet = _BETS if design == "labelled" else _BETS * (1 - z)
        lost = trials * np.log1p(_BETS * delta * z) - xlog1py(failures, -bet)
        return successes * np.log1p(_BETS * z) * (1 - _ROUNDING) - lost * (1 + _ROUNDING)

    logs = np.minimum(wealth(z), wealth(np.ones(1))) + _LOG_WEIGHTS
    largest = logs.max(-1)
    return largest + np.log(np.exp(logs - largest[..., None]).sum(-1)) - _SAFETY


def _counted(false_positives, false_negatives, trials, direction, design):
    """Successes, failures and the trials that δ is paid for."""
    rare, common, _, number = checked_counts(false_positives, false_negatives, trials, direction, design)
    return np.maximum(common - rare if design == "nested" else common, 0.0), rare, number
