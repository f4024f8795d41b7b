"""What error counts suggest about epsilon without certifying it.

Bayesian, conjectured and parametric bounds, and the plain estimate: each is called like `epsilon_clopper_pearson`,
and none of them may be printed as "ε ≥". `ESTIMATES` says of each what kind of statement it is and what would have to
be true. They serve to compare with other auditors, and show what certainty costs.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import betainccinv, betaincinv, ndtr, ndtri

from .conditional import checked_delta
from .intervals import clopper_pearson_upper
from .joint import joint_quantile
from .theory import gaussian_epsilon


def epsilon_jeffreys(false_positives, false_negatives, trials, delta, significance, direction="forward"):
    r"""Bayesian bound on epsilon from two Jeffreys limits, each at half the significance.

    Right on average and wrong where it matters: without errors in N trials the 5 % limit is 1.92 / N against 3.00 / N
    of Clopper & Pearson, and at a true rate just above it that happens with probability e^-1.92 = 14.7 %. A bound at
    significance 5 % takes limits at 2.5 %, 2.51 / N, and so fails with up to 8.1 %.

    Args:
      false_positives: scores of H0 at or above the threshold; broadcasts.
      false_negatives: scores of H1 at or below the threshold; broadcasts.
      trials: trials under each hypothesis, or a tuple (under H0, under H1).
      delta: in [0, 1); broadcasts.
      significance: posterior probability in (0, 1) that one of the two rates is above its limit, at most.
      direction: "forward" or "reverse".

    Returns:
      f64, nats, at least 0.

    Example:
      >>> round(float(epsilon_jeffreys(0, 0, 5000, 1e-3, 0.05)), 2)
      7.59

    Reference:
      Brown, Cai & DasGupta (2001), Statistical Science 16, 101-133; Zanella-Béguelin et al. (2022), arXiv:2206.05199.
    """
    tp, fn, fp, tn = _table(false_positives, false_negatives, trials, direction)
    half = _checked_significance(significance) / 2
    # Where every trial erred the limit is no rate below 1: the modification of Brown, Cai & DasGupta.
    power = np.where(tp > 0, betaincinv(tp + 0.5, fn + 0.5, half), 0.0)
    return _log_ratio(power, np.where(tn > 0, betainccinv(fp + 0.5, tn + 0.5, half), 1.0), delta)


def epsilon_joint_beta(false_positives, false_negatives, trials, delta, significance, direction="forward"):
    r"""Bayesian bound on epsilon from the joint posterior of both error rates, under the prior of Jeffreys.

    Args:
      false_positives, false_negatives, trials, delta: as in `epsilon_jeffreys`.
      significance: posterior probability in (0, 1) that the test is less powerful than the bound says.
      direction: "forward" for T ≤ e^ε F + δ, "reverse" for the complements 1 - F ≤ e^ε (1 - T) + δ, or "both" for
        these and for the two with the hypotheses exchanged, as `privacy-estimates` has it.

    Returns:
      f64, nats, at least 0: the epsilon at which the posterior probability of the event is `significance`.

    Example:
      >>> round(float(epsilon_joint_beta(13, 9770, 10_000, 1e-5, 0.05)), 3)
      2.426

    Reference:
      Zanella-Béguelin et al. (2022), arXiv:2206.05199.
    """
    both = direction == "both"
    table = _table(false_positives, false_negatives, trials, "forward" if both else direction)
    shapes = (counts + 0.5 for counts in table)
    return joint_quantile(*shapes, checked_delta(delta), _checked_significance(significance), both)


def epsilon_melded(false_positives, false_negatives, trials, delta, significance, direction="forward"):
    r"""Melded Clopper-Pearson bound on epsilon: conjectured, not proved, to fail at most as often as it says.

    The confidence laws of the two rates, T ~ Beta(TP, FN + 1) and F ~ Beta(FP + 1, TN), are combined as if they were
    posteriors: the bound is the `significance` quantile of ln((T - δ) / F). It spends nothing on a union, and needs
    trials of the two hypotheses that are independent of each other.

    Args:
      false_positives, false_negatives, trials, delta, direction: as in `epsilon_jeffreys`.
      significance: nominal failure probability in (0, 1).

    Returns:
      f64, nats, at least 0; 0 where no trial of H1 or every trial of H0 is in the event.

    Example:
      >>> round(float(epsilon_melded(13, 9770, 10_000, 1e-5, 0.05)), 3)
      2.393

    Reference:
      Fay, Proschan & Brittain (2015), Biometrics 71, doi:10.1111/biom.12231.
    """
    tp, fn, fp, tn = _table(false_positives, false_negatives, trials, direction)
    shapes = np.maximum(tp, 1), fn + 1, fp + 1, np.maximum(tn, 1)
    bound = joint_quantile(*shapes, checked_delta(delta), _checked_significance(significance), False)
    return np.where((tp > 0) & (tn > 0), bound, 0.0)


def epsilon_gdp(false_positives, false_negatives, trials, delta, significance, direction="forward"):
    r"""Epsilon of the Gaussian trade-off curve through two Clopper-Pearson limits, each at half the significance.

    μ ≥ Φ⁻¹(1 - FPR_u) - Φ⁻¹(FNR_u), and then ε(δ) of a Gaussian shift by μ. A point below the curve of μ refutes that
    the mechanism is μ-GDP; it says something about (ε, δ)-DP only if the curve of the mechanism is Gaussian. For
    randomised response with ε = 1 it comes to 5.6 at δ = 1e-5.

    Args:
      false_positives, false_negatives, trials, delta: as in `epsilon_jeffreys`.
      significance: allowed probability in (0, 1) that μ is below its limit.
      direction: "forward" or "reverse", which are the same here: the curve is symmetric.

    Returns:
      f64, nats, at least 0; infinite at delta 0 where any μ is refuted.

    Example:
      >>> round(float(epsilon_gdp(1587, 5000, 10_000, 1e-5, 0.05)), 3)
      4.102

    Reference:
      Nasr et al. (2023), arXiv:2302.07956; Dong, Roth & Su (2019), arXiv:1905.02383, Corollary 2.13.
    """
    tp, fn, fp, tn = _table(false_positives, false_negatives, trials, direction)
    half = _checked_significance(significance) / 2
    distance = -ndtri(clopper_pearson_upper(fp, fp + tn, half)) - ndtri(clopper_pearson_upper(fn, tp + fn, half))
    return _gaussian(checked_delta(delta), np.maximum(distance, 0.0))


def epsilon_raw_counts(false_positives, false_negatives, trials, delta, significance=None, direction="forward"):
    r"""The observed ln((TPR - δ) / FPR): an estimate that errs to both sides, and more the fewer the errors.

    Args:
      false_positives, false_negatives, trials, delta, direction: as in `epsilon_jeffreys`.
      significance: not used; the estimates of counts are all called alike.

    Returns:
      f64, nats, at least 0; infinite where no error of the rarer kind was seen.

    Example:
      >>> round(float(epsilon_raw_counts(20, 500, 1000, 0.0)), 3)
      3.219
    """
    tp, fn, fp, tn = _table(false_positives, false_negatives, trials, direction)
    return _log_ratio(tp / (tp + fn), fp / (fp + tn), delta)


def epsilon_one_run_fdp(correct, guesses, canaries, delta, significance):
    r"""Epsilon from the guesses of one run, if the trade-off curve of the mechanism is Gaussian.

    The largest μ refuted by that many correct guesses, and then ε(δ) of a Gaussian shift by μ. With c of c' guesses
    correct, m canaries, r = α c / m and h = α (c' - c) / m, for i from c - 1 down to 0
    h' = max(h, Φ(Φ⁻¹(r) - μ)) and r' = r + i / (c' - i) (h' - h); μ is refuted where r + h ends above c' / m.

    Args:
      correct: guesses that were right, int in [0, guesses].
      guesses: canaries whose membership was guessed, int in [0, canaries].
      canaries: canaries in the run, each included by a fair coin of its own.
      delta: in [0, 1).
      significance: allowed probability α in (0, 1) that μ is below its limit.

    Returns:
      float, nats, at least 0; infinite at delta 0 where any μ is refuted.

    Example:
      >>> round(epsilon_one_run_fdp(900, 1000, 2000, 1e-5, 0.05), 3)
      3.398

    Reference:
      Mahloujifar, Melis & Chaudhuri (2024), arXiv:2410.22235.
    """
    correct, guesses, canaries = (int(number) for number in (correct, guesses, canaries))
    if not 0 <= correct <= guesses <= canaries or canaries < 1:
        raise ValueError(
            f"one run needs 0 <= correct <= guesses <= canaries, got {correct} correct of {guesses} guesses "
            f"on {canaries} canaries"
        )
    significance = float(_checked_significance(significance))
    low, high = 0.0, 1.0
    if not _refuted(low, correct, guesses, canaries, significance):
        return 0.0
    while _refuted(high, correct, guesses, canaries, significance):
        low, high = high, 2 * high
    while high - low > 1e-10 * high:
        middle = (low + high) / 2
        if _refuted(middle, correct, guesses, canaries, significance):
            low = middle
        else:
            high = middle
    return gaussian_epsilon(delta, low)


class Estimate(NamedTuple):
    """A statement about epsilon that is no certified bound.

    Attributes:
      function: called like `epsilon_clopper_pearson` (`epsilon_one_run_fdp`: with guesses in place of errors).
      kind: "bayesian", "conjectured", "parametric" or "estimate".
      assumption: what would have to be true.
    """

    function: Callable
    kind: str
    assumption: str


ESTIMATES = {
    "jeffreys": Estimate(
        epsilon_jeffreys, "bayesian", "both error rates have Jeffreys' prior; with few errors it claims too much"
    ),
    "joint-beta": Estimate(
        epsilon_joint_beta, "bayesian", "both error rates have Jeffreys' prior; with few errors it claims too much"
    ),
    "melded": Estimate(
        epsilon_melded, "conjectured", "trials of both hypotheses are independent; its failure rate is not proved"
    ),
    "gdp": Estimate(
        epsilon_gdp, "parametric", "the trade-off curve of the mechanism is Gaussian, which counts cannot show"
    ),
    "raw-counts": Estimate(epsilon_raw_counts, "estimate", "the observed error rates are the true ones"),
}
"""Estimates from error counts at one event, by name."""

ONE_RUN_ESTIMATES = {
    "one-run-fdp": Estimate(
        epsilon_one_run_fdp,
        "parametric",
        "the trade-off curve of the mechanism is Gaussian, which guesses cannot show",
    ),
}
"""Estimates from the guesses of one run, by name."""


_gaussian = np.vectorize(gaussian_epsilon, otypes=[np.float64])


def _table(false_positives, false_negatives, trials, direction):
    """Trials in the event and not in it, under the hypothesis it is likelier under and then under the other."""
    trials = trials if isinstance(trials, tuple) else (trials, trials)
    errors = []
    for name, wrong, total in zip(("false_positives", "false_negatives"), (false_positives, false_negatives), trials):
        wrong, total = np.asarray(wrong, np.float64), np.asarray(total, np.float64)
        if np.any(~(total > 0)):
            raise ValueError(f"trials must be positive, got {total}")
        if np.any(~((wrong >= 0) & (wrong <= total))):
            raise ValueError(f"{name} must be in [0, trials], got {wrong} of {total}")
        errors.append((wrong, total - wrong))
    if direction not in ("forward", "reverse"):
        raise ValueError(f"direction must be 'forward' or 'reverse', got {direction!r}")
    rare, common = errors if direction == "forward" else errors[::-1]
    return *common[::-1], *rare


def _checked_significance(significance):
    significance = np.asarray(significance, np.float64)
    if np.any(~((significance > 0) & (significance < 1))):
        raise ValueError(f"significance must be in (0, 1), got {significance}")
    return significance


def _log_ratio(common, rare, delta):
    """The larger of ln((common - delta) / rare) and 0; infinite where only `rare` is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        epsilon = np.log(np.maximum(common - checked_delta(delta), 0.0)) - np.log(rare)
    return np.where(np.isnan(epsilon), 0.0, np.maximum(epsilon, 0.0))


def _refuted(distance, correct, guesses, canaries, significance):
    """Whether that many correct guesses refute that the trade-off curve is above the Gaussian one of `distance`."""
    right, wrong = significance * correct / canaries, significance * (guesses - correct) / canaries
    for number in range(correct - 1, -1, -1):
        raised = ndtr(ndtri(right) - distance)
        if raised <= wrong:  # neither changes any more
            return False
        right = min(right + number / (guesses - number) * (raised - wrong), 1.0)
        wrong = raised
        if right + wrong > guesses / canaries:  # both only grow
            return True
    return False
