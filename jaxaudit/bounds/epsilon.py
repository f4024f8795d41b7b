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

from .conditional import checked_delta
from .intervals import clopper_pearson_upper

# The rarer error carries the information, so it gets the larger share of the failure probability. The share is
# fixed in advance: choosing it on the data would be a selection that has to be paid for.
RARE_SHARE = 0.8
# The error in the denominator of each direction.
RARE = {"forward": "fpr", "reverse": "fnr"}


def epsilon_clopper_pearson(
    false_positives,
    false_negatives,
    trials,
    delta,
    significance,
    direction="forward",
    rare=None,
    limit=clopper_pearson_upper,
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
      limit: the upper limit of a rate: one that holds at all thresholds at once makes this a band, and planning takes
        a faster one.

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
    delta = checked_delta(delta)
    fpr, fnr = error_limits(
        false_positives, false_negatives, trials, significance, rare or _denominator(direction), limit
    )
    common, scarce = (fnr, fpr) if direction == "forward" else (fpr, fnr)
    with np.errstate(divide="ignore", invalid="ignore"):
        bound = np.log(1 - common - delta) - np.log(scarce)
    return np.where(np.isnan(bound), 0.0, np.maximum(bound, 0.0))


def error_limits(false_positives, false_negatives, trials, significance, rare="fpr", limit=clopper_pearson_upper):
    """Simultaneous upper limits for the two error rates, the rarer one first in line for the significance.

    Args:
      false_positives, false_negatives, trials, significance, limit: as in `epsilon_clopper_pearson`.
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
        limit(false_positives, trials_h0, share * significance),
        limit(false_negatives, trials_h1, (1 - share) * significance),
    )


def _denominator(direction):
    if direction not in RARE:
        raise ValueError(f"direction must be 'forward' or 'reverse', got {direction!r}")
    return RARE[direction]


def delta_clopper_pearson(
    false_positives, false_negatives, trials, epsilon, significance, direction="forward", rare=None
):
    r"""Lower bound on delta at a fixed epsilon: the hockey-stick divergence at one event, from the same two limits.

    δ ≥ (1 - FNR_u) - e^ε FPR_u forward, and with the two rates exchanged in reverse.

    Args:
      false_positives, false_negatives, trials, significance, direction, rare: as in `epsilon_clopper_pearson`.
      epsilon: nats, >= 0; broadcasts.

    Returns:
      f64 in [0, 1].

    Guarantee:
      That of `epsilon_clopper_pearson`, with which it shares its limits: one pair of limits serves every epsilon,
      every delta and both directions at once.

    Example:
      >>> round(float(delta_clopper_pearson(100, 4000, 10_000, 1.0, 0.05)), 3)
      0.556
    """
    epsilon = np.asarray(epsilon, np.float64)
    if np.any(~(epsilon >= 0)):
        raise ValueError(f"epsilon must be >= 0, got {epsilon}")
    fpr, fnr = error_limits(false_positives, false_negatives, trials, significance, rare or _denominator(direction))
    common, scarce = (fnr, fpr) if direction == "forward" else (fpr, fnr)
    return np.clip(1 - common - np.exp(np.minimum(epsilon + np.log(scarce), 1.0)), 0.0, 1.0)
