r"""Epsilon from two independent sets of scores, with thresholds taken from the scores themselves.

The k-th largest of N scores of H0 is exceeded with a probability that is Beta(k, N - k + 1), whatever the law: a
threshold at an order statistic brings its own limit for the false positive rate, and no trial is spent on choosing
it. To the scores of H1, an independent sample, it is a threshold like any other, fixed in advance.
"""

from typing import NamedTuple

import numpy as np

from .conditional import checked_delta
from .epsilon import RARE_SHARE
from .intervals import clopper_pearson_upper
from .samples import Scores


class OrderStatisticBound(NamedTuple):
    """The best of the events at order statistics, for each delta.

    Attributes:
      epsilon: f64[k], lower bound, nats, at least 0.
      threshold: f64[k], in score units; infinite where the best event was empty for failed trials.
      direction: str[k], "forward" for the event {score > threshold}, "reverse" for {score < threshold}.
      errors_h0: i64[k], scores of H0 at or above the threshold; forward, its rank.
      errors_h1: i64[k], scores of H1 at or below the threshold; in reverse, its rank.
    """

    epsilon: np.ndarray
    threshold: np.ndarray
    direction: np.ndarray
    errors_h0: np.ndarray
    errors_h1: np.ndarray


def epsilon_order_statistics(scores: Scores, deltas, significance: float, direction: str | None = None):
    r"""Lower bounds on epsilon from the best of about 2 log2(trials) thresholds, for all deltas at once.

    Args:
      scores: independent samples under both hypotheses, "labelled" or "independent". Failed trials err everywhere.
      deltas: in [0, 1), scalar or f64[k].
      significance: allowed failure probability in (0, 1), over all thresholds, deltas and directions.
      direction: "forward" or "reverse", chosen before the scores were seen, gets all of the significance; None shares
        it between both.

    Returns:
      OrderStatisticBound, of arrays shaped like `deltas`.

    Guarantee:
      If all trials are independent, and those of one hypothesis of one law,
      P(at some delta the bound exceeds the true epsilon) <= significance.

    Raises:
      ValueError: for paired or nested scores, whose thresholds would not be independent of the sample they test.

    Proof:
      Forward; reverse is its mirror image. Let t be the k-th largest of n0 scores of H0, and A = {score > t}. With
      V_i = P0(S > S_i) + W_i P0(S = S_i), W_i uniform, the k-th largest score has the k-th smallest V, which is
      Beta(k, n0 - k + 1) and at least P0(A); ties only make A rarer. Its upper quantile is U(k - 1; n0, a). Given t,
      which depends on the other sample, the scores of H1 at or below t are Bin(n1, 1 - P1(A)). So each of K fixed
      ranks has FPR <= U(k - 1; n0, .8 a / K) and FNR <= U(errors; n1, .2 a / K) except with probability a / K, and
      all of them except with probability a. Where they hold, 1 - FNR <= e^ε FPR + δ for every rank and every δ: the
      limits know nothing of δ, so every δ, and the best rank for each, come at no further cost. A failed trial of H0
      is a score of +∞, one of H1 a score of -∞: both rates only rise.

    Example:
      >>> rng = np.random.default_rng(0)
      >>> scores = Scores(rng.normal(size=10_000), rng.normal(size=10_000) + 3, "mine", design="independent")
      >>> epsilon_order_statistics(scores, [1e-5, 1e-2], 0.05, direction="forward").epsilon.round(2)
      array([6.17, 6.13])
    """
    if scores.design not in ("labelled", "independent"):
        raise ValueError(
            f"order statistics need independent samples, got {scores.design} scores: use epsilon_simultaneous, or "
            'design="independent" where h0 and h1 share no draws'
        )
    if direction not in (None, "forward", "reverse"):
        raise ValueError(f"direction must be 'forward', 'reverse' or None for both, got {direction!r}")
    if not 0 < significance < 1:
        raise ValueError(f"significance must be in (0, 1), got {significance}")
    deltas = checked_delta(deltas)
    chosen = (direction,) if direction else ("forward", "reverse")
    share = significance / len(chosen)
    # Failed trials have the score that errs. NumPy sorts faster than it selects forty ranks.
    h0 = np.append(np.sort(scores.h0), np.full(scores.failed[0], np.inf))
    h1 = np.append(np.full(scores.failed[1], -np.inf), np.sort(scores.h1))
    events = [_events(h0, h1, share) if side == "forward" else _mirrored(h0, h1, share) for side in chosen]
    limits, power, thresholds, errors_h0, errors_h1 = (np.concatenate(parts) for parts in zip(*events))
    sides = np.repeat(chosen, [event[0].size for event in events])
    gain = power - deltas[..., None]
    bounds = np.where(gain > limits, np.log(np.where(gain > limits, gain / limits, 1.0)), 0.0)
    best = bounds.argmax(axis=-1)
    epsilon = np.take_along_axis(bounds, best[..., None], axis=-1)[..., 0]
    return OrderStatisticBound(epsilon, thresholds[best], sides[best], errors_h0[best], errors_h1[best])


def ranks(trials: int) -> np.ndarray:
    """The fixed ranks of the thresholds: powers of √2, rounded down, to half of the trials.

    Example:
      >>> ranks(100)
      array([ 1,  2,  4,  5,  8, 11, 16, 22, 32, 45])
    """
    powers = 2 ** (np.arange(2 * int(np.log2(trials)) + 1) / 2)
    # The square root of two squared is a hair above two, of four exactly four: no power is rounded a whole rank down.
    found = np.unique(np.floor(powers + 1e-9).astype(np.int64))
    return found[found <= max(trials // 2, 1)]


def _events(h0, h1, significance):
    """(FPR limits, 1 - FNR limits, thresholds, errors of H0, errors of H1) of sorted scores, at each rank of H0."""
    rank = ranks(h0.size)
    thresholds = h0[h0.size - rank]
    missed = np.searchsorted(h1, thresholds, side="right")
    share = significance / rank.size
    limits = clopper_pearson_upper(rank - 1, h0.size, RARE_SHARE * share)
    power = 1 - clopper_pearson_upper(missed, h1.size, (1 - RARE_SHARE) * share)
    return limits, power, thresholds, rank, missed


def _mirrored(h0, h1, significance):
    """The same for the events {score < threshold}: both hypotheses, and the axis, turned around."""
    limits, power, thresholds, errors_h1, errors_h0 = _events(-h1[::-1], -h0[::-1], significance)
    return limits, power, -thresholds, errors_h0, errors_h1
