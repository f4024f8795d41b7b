"""The whole trade-off between the two error rates, with a band that holds at all its thresholds at once."""

from typing import NamedTuple

import numpy as np

from .intervals import clopper_pearson_lower, clopper_pearson_upper
from .samples import Counts, Scores


class Tradeoff(NamedTuple):
    """Error rates along a grid of thresholds, false positives falling.

    Attributes:
      fpr, fnr: f64[k], observed rates.
      fpr_lower, fpr_upper, fnr_lower, fnr_upper: f64[k], limits that hold simultaneously.
    """

    fpr: np.ndarray
    fnr: np.ndarray
    fpr_lower: np.ndarray
    fpr_upper: np.ndarray
    fnr_lower: np.ndarray
    fnr_upper: np.ndarray


def roc_thresholds(pilot: Scores, size: int = 64):
    """Thresholds that trace the curve evenly in log rate on both tails, and evenly between; fixed on pilot scores.

    Args:
      pilot: scores of both hypotheses.
      size: number of thresholds for each tail of each hypothesis.

    Returns:
      f64[k], increasing, k <= 6 size + 8; a few lie beyond the extremes of the pilot.
    """
    tails = 0.5 * np.geomspace(1.0, 1.0 / max(pilot.h0.size, pilot.h1.size), size)
    levels = np.concatenate([tails, 1 - tails, np.linspace(0, 1, size + 2)[1:-1]])
    inner = np.concatenate([np.quantile(pilot.h0, levels), np.quantile(pilot.h1, levels)])
    low, high = inner.min(), inner.max()
    outer = (high - low) * np.arange(1, 5) / 16
    # Halfway to the next float32 number, which no score of that precision ties with.
    grid = np.concatenate([inner, low - outer, high + outer]).astype(np.float32)
    return np.unique((grid.astype(np.float64) + np.nextafter(grid, np.float32(np.inf)).astype(np.float64)) / 2)


def histogram_edges(pilot: Scores, bins: int = 128):
    """Equally spaced thresholds that draw the laws of the scores, fixed on pilot scores.

    Args:
      pilot: scores of both hypotheses.
      bins: bins within the range of the pilot.

    Returns:
      f64[bins + 1].
    """
    low, high = min(pilot.h0.min(), pilot.h1.min()), max(pilot.h0.max(), pilot.h1.max())
    width = (high - low) / bins or abs(low) * 2.0**-20 or 1.0
    # Moved off the extremes, so that of scores on a lattice, which has its ends there, few lie on an edge.
    return low + width * (np.arange(bins + 1) - 2.0**-9)


def tradeoff(counts: Counts, confidence: float = 0.95) -> Tradeoff:
    """Error rates at the thresholds of `counts`, with a simultaneous confidence band.

    Args:
      counts: errors at thresholds fixed before these trials.
      confidence: in (0, 1), that every limit of every threshold holds.

    Returns:
      Tradeoff.

    Guarantee:
      Clopper-Pearson limits, their failure probability shared over thresholds, both rates and both sides
      (Bonferroni), hold at all thresholds at once with probability at least `confidence`.
    """
    share = (1 - confidence) / (4 * max(counts.thresholds.size, 1))
    h0, h1 = (counts.errors_h0, counts.trials_h0), (counts.errors_h1, counts.trials_h1)
    return Tradeoff(
        fpr=counts.errors_h0 / counts.trials_h0,
        fnr=counts.errors_h1 / counts.trials_h1,
        fpr_lower=clopper_pearson_lower(*h0, share),
        fpr_upper=clopper_pearson_upper(*h0, share),
        fnr_lower=clopper_pearson_lower(*h1, share),
        fnr_upper=clopper_pearson_upper(*h1, share),
    )


def roc_band(curve: Tradeoff, fpr) -> tuple[np.ndarray, np.ndarray]:
    """Limits for the true positive rate at any false positive rate, between the thresholds as well.

    Args:
      curve: from `tradeoff`.
      fpr: f64[k] in [0, 1].

    Returns:
      (lower, upper), f64[k].

    Guarantee:
      The ROC curve rises. Where the true rates of some threshold are at most fpr_upper and at least tpr_lower, the
      curve is at least tpr_lower from fpr_upper on, and likewise above; so with the confidence of `curve` the whole
      ROC curve of the score lies in the band.
    """
    fpr = np.asarray(fpr, np.float64)[:, None]
    lower = np.where(curve.fpr_upper <= fpr, 1 - curve.fnr_upper, 0.0).max(axis=1)
    upper = np.where(curve.fpr_lower >= fpr, 1 - curve.fnr_lower, 1.0).min(axis=1)
    return lower, upper


def area_under_roc(curve: Tradeoff) -> float:
    """Area under the ROC curve by the trapezoid rule over the grid, a description and not a bound.

    Args:
      curve: error rates along increasing thresholds.

    Returns:
      float in [0, 1]; 0.5 is chance.
    """
    fpr = np.concatenate([[1.0], curve.fpr, [0.0]])
    tpr = np.concatenate([[1.0], 1 - curve.fnr, [0.0]])
    return float(np.sum((fpr[:-1] - fpr[1:]) * (tpr[:-1] + tpr[1:]) / 2))
