r"""The law of a sum of independent terms, without Monte Carlo: certain limits for both tails, down to 1e-30.

The score of a membership attack is S + a_bit, where S adds the projections of the other clients' updates. Where these
are independent, with finitely many values each, the law of S is a convolution, and `convolution` brackets its tails.
No limit can fail, so there is no failure probability to share, and any number of thresholds may be looked at.
"""

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from .convolution import UNIT, laws, quantiles, upper_tail
from .records import Direction
from .tradeoff import Tradeoff


class Term(NamedTuple):
    """Law of one independent term of the sum, or of several with the same law.

    Attributes:
      values: f64[k], finite.
      probabilities: f64[k], >= 0, sum to 1.
      times: how many independent copies are summed, >= 1.
    """

    values: np.ndarray
    probabilities: np.ndarray
    times: int = 1


class Tails(NamedTuple):
    """Certain limits for both tails of a sum S at thresholds t.

    Attributes:
      ge_lower, ge_upper: f64[k] in [0, 1], limits of P(S >= t).
      le_lower, le_upper: f64[k] in [0, 1], limits of P(S <= t).
    """

    ge_lower: np.ndarray
    ge_upper: np.ndarray
    le_lower: np.ndarray
    le_upper: np.ndarray


def exact_tails(terms, at, error=0.0, size=None) -> Tails:
    """Both tails of a sum of independent terms.

    Args:
      terms: sequence of Term.
      at: f64[k], thresholds.
      error: >= 0; every value of every copy of every term, 0 included, may be off by so much.
      size: cells of the lattice (the next power of two is used); by default 2^18 to 2^22, fewer for many terms.

    Returns:
      Tails.

    Guarantee:
      P(S >= t) and P(S <= t) lie within the limits, for the law of the float64 values as given, probabilities in
      proportion, and for every law whose values differ from them by at most `error`. A tie with a threshold that
      the lattice does not resolve is left open: the limits then enclose both P(S > t) and P(S >= t).

    Example:
      >>> coin = Term(np.array([0.0, 1.0]), np.array([0.5, 0.5]), times=100)
      >>> tails = exact_tails([coin], [100.0])
      >>> float(tails.ge_lower[0]), float(tails.ge_upper[0])  # 2^-100
      (7.888...e-31, 7.888...e-31)

    Reference:
      As for the module; checked against `scipy.stats.binom` and rational arithmetic.
    """
    terms = [_checked(where, term) for where, term in enumerate(_non_empty(terms))]
    at = np.asarray(at, np.float64)
    if at.ndim != 1 or not np.isfinite(at).all():
        raise ValueError(f"thresholds `at` must be a one-dimensional array of finite numbers, got {at}")
    moved = _error(error) * sum(times for _, _, times in terms)
    above, below = laws(terms)
    exact = [Fraction(float(t)) for t in at]
    right = upper_tail(above, [t + moved for t in exact], [t - moved for t in exact], size)
    left = upper_tail(below, [moved - t for t in exact], [-moved - t for t in exact], size)
    return Tails(*right, *left)


def exact_curve(terms, ends, error=0.0, size=None) -> tuple[np.ndarray, Tradeoff]:
    """The whole trade-off of the score S + a, where a is ends[0] under H0 and ends[1] under H1.

    Args:
      terms: sequence of Term; S is their sum.
      ends: (a0, a1), finite.
      error: >= 0; every value of every term, and each end, may be off by so much.
      size: as in `exact_tails`.

    Returns:
      (thresholds, curve): f64[k], k about 1300, increasing, and their Tradeoff. Thresholds follow both tails of both
      hypotheses evenly in log rate from 1e-30 to 1/2; some lie evenly over the whole support and beyond it. The
      rates themselves are the geometric means of their limits.

    Guarantee:
      P(S + a0 >= t) and P(S + a1 <= t) lie within the limits, all at once and with certainty; see `exact_tails`.

    Reference:
      As for the module.
    """
    terms = [_checked(where, term) for where, term in enumerate(_non_empty(terms))]
    ends = tuple(float(end) for end in ends)
    if len(ends) != 2 or not all(abs(end) <= 1e150 for end in ends):
        raise ValueError(f"ends must be two numbers (a0, a1) of at most 1e150, got {ends}; rescale the scores")
    moved = _error(error) * (1 + sum(times for _, _, times in terms))
    above, below = laws(terms)
    inner = np.concatenate([quantiles(above), -quantiles(below)])
    low, high = float(above.low) + min(ends), float(above.high) + max(ends)
    # One of the evenly spread thresholds separates the hypotheses wherever their supports do not meet.
    gap = (float(above.high) + ends[0]) / 2 + (float(above.low) + ends[1]) / 2
    beyond = max((high - low) / 16, float(np.spacing(max(abs(low), abs(high)))))
    even = np.linspace(low - beyond, high + beyond, 32)
    thresholds = np.unique(np.concatenate([inner + ends[0], inner + ends[1], even, [gap]]))
    at_h0, at_h1 = ([Fraction(float(t)) - Fraction(end) for t in thresholds] for end in ends)
    fpr_lower, fpr_upper = upper_tail(above, [t + moved for t in at_h0], [t - moved for t in at_h0], size)
    fnr_lower, fnr_upper = upper_tail(below, [moved - t for t in at_h1], [-moved - t for t in at_h1], size)
    # The rates are monotone, so that a limit at one threshold is a limit at all on one side of it.
    fpr_lower = np.maximum.accumulate(fpr_lower[::-1])[::-1]
    fpr_upper = np.minimum.accumulate(fpr_upper)
    fnr_lower = np.maximum.accumulate(fnr_lower)
    fnr_upper = np.minimum.accumulate(fnr_upper[::-1])[::-1]
    fpr, fnr = np.sqrt(fpr_lower) * np.sqrt(fpr_upper), np.sqrt(fnr_lower) * np.sqrt(fnr_upper)
    return thresholds, Tradeoff(fpr, fnr, fpr_lower, fpr_upper, fnr_lower, fnr_upper)


def exact_epsilon(curve: Tradeoff, delta) -> tuple[float, int, Direction]:
    """Largest lower bound on epsilon over all thresholds and both directions of a curve whose limits are certain.

    Args:
      curve: from `exact_curve`.
      delta: in [0, 1).

    Returns:
      (epsilon, index, direction): nats, at least 0, infinite where an event of probability above delta under one
      hypothesis is impossible under the other; and the threshold and direction that gave it.

    Guarantee:
      A mechanism whose score has this trade-off is not (ε, delta)-DP for any ε below `epsilon`. No limit can fail,
      so the maximum is free. It is never an upper bound on epsilon: another attack, or another event, may do better.

    Reference:
      Kairouz, Oh & Viswanath (2015), arXiv:1311.0776.
    """
    delta = float(delta)
    if not 0 <= delta < 1:
        raise ValueError(f"delta must be in [0, 1), got {delta}")
    common = np.stack([curve.fnr_upper, curve.fpr_upper])
    scarce = np.stack([curve.fpr_upper, curve.fnr_upper])
    # The subtractions and both logarithms round by less than what is taken away here.
    power = 1 - common - delta - 8 * UNIT
    with np.errstate(divide="ignore", invalid="ignore"):
        bounds = np.where(power > 0, np.log(power) - np.log(scarce) - 1e-12, -np.inf)
    row, index = np.unravel_index(np.argmax(bounds), bounds.shape)
    return max(float(bounds[row, index]), 0.0), int(index), ("forward", "reverse")[row]


def _non_empty(terms):
    terms = list(terms)
    if not terms:
        raise ValueError("terms is empty, allowed is at least one; a sum without clients is Term([0.0], [1.0])")
    return terms


def _error(error):
    error = float(error)
    if not 0 <= error < math.inf:
        raise ValueError(f"error must be finite and >= 0, got {error}")
    return Fraction(error)


def _checked(where, term):
    """Values of positive probability, their logarithms, and the number of copies."""
    values, mass, times = term
    values, mass = np.asarray(values, np.float64), np.asarray(mass, np.float64)
    if values.ndim != 1 or values.size == 0 or values.shape != mass.shape:
        raise ValueError(
            f"term {where} has values of shape {values.shape} and probabilities of shape {mass.shape}, "
            "allowed are equal one-dimensional shapes with at least one value"
        )
    if not np.all(np.abs(values) <= 1e150):
        raise ValueError(f"term {where} has values up to {np.abs(values).max()}, allowed is 1e150; rescale them")
    if not (np.all(mass >= 0) and abs(math.fsum(mass) - 1) <= 1e-9):
        raise ValueError(
            f"probabilities of term {where} must be >= 0 and sum to 1, got minimum {mass.min()} and sum {mass.sum()}"
        )
    if times != int(times) or not 1 <= times <= 1e9:
        raise ValueError(f"times of term {where} must be an integer in [1, 1e9], got {times}")
    kept = mass > 0
    return values[kept], np.log(mass[kept]) - math.log(math.fsum(mass)), int(times)
