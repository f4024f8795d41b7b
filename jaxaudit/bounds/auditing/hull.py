"""Every threshold that matters of two sets of scores, and the upper hull of their receiver operating curve.

Errors are counted for the event {score >= t}: a false positive is a score of H0 at or above t, a false negative one
of H1 below t. A threshold between scores errs as often as the next score above it, and one that errs more often under
both hypotheses than another is never the best: what is left are the corners of the curve, all at scores of H1.
"""

from typing import NamedTuple

import numpy as np


class Curve(NamedTuple):
    """Points of an empirical receiver operating curve, from the lowest threshold to the highest.

    Attributes:
      thresholds: f64[k].
      false_negatives: i64[k], scores of H1 below each threshold; rising.
      true_negatives: i64[k], scores of H0 below each threshold; rising.
    """

    thresholds: np.ndarray
    false_negatives: np.ndarray
    true_negatives: np.ndarray


def corners(h0, h1):
    """The points of which no other has fewer errors of one kind and not more of the other, and infinity.

    Args:
      h0: f64[n0], sorted scores of H0.
      h1: f64[n1], sorted scores of H1.

    Returns:
      Curve.

    Example:
      >>> corners(np.array([1.0, 2, 3, 5]), np.array([0.0, 4, 6, 7])).thresholds
      array([ 0.,  4.,  6., inf])
    """
    false_negatives = np.flatnonzero(np.diff(h1, prepend=-np.inf) > 0)
    true_negatives = np.searchsorted(h0, h1[false_negatives], side="left")
    first = np.flatnonzero(np.diff(true_negatives, prepend=-1) > 0)
    return Curve(
        np.append(h1[false_negatives[first]], np.inf),
        np.append(false_negatives[first], h1.size),
        np.append(true_negatives[first], h0.size),
    )


def roc_hull(h0, h1):
    """Vertices of the upper hull of the curve, its two ends included.

    Args:
      h0: f64[n0], sorted scores of H0.
      h1: f64[n1], sorted scores of H1.

    Returns:
      Curve, from the smallest of all scores to infinity.

    Example:
      >>> roc_hull(np.array([1.0, 2, 3, 5]), np.array([0.0, 4, 6, 7])).true_negatives
      array([0, 3, 4, 4])
    """
    curve = corners(h0, h1)
    if h0[0] < h1[0]:
        curve = Curve(*(np.insert(values, 0, end) for values, end in zip(curve, (h0[0], 0, 0))))
    while True:
        across, up = np.diff(curve.false_negatives), np.diff(curve.true_negatives)
        # A point on or below the line through two others is no vertex, whether or not they are.
        vertex = up[:-1] * across[1:] > up[1:] * across[:-1]
        if vertex.all():
            return curve
        keep = np.concatenate([[True], vertex, [True]])
        curve = Curve(*(values[keep] for values in curve))


def mirrored(curve):
    """The curve of the same scores with their signs and the hypotheses exchanged: events {score < t} under H0."""
    thresholds, false_negatives, true_negatives = (values[::-1] for values in curve)
    return Curve(-thresholds, true_negatives[0] - true_negatives, false_negatives[0] - false_negatives)


def tpr_at(fpr, hull):
    """True positive rate on a hull at false positive rates in [0, 1], between vertices by randomising.

    Example:
      >>> tpr_at([0.0, 0.25, 0.5, 1.0], roc_hull(np.array([0.0, 2.0]), np.array([1.0, 3.0])))
      array([0.5 , 0.75, 1.  , 1.  ])
    """
    tp, fp = _positives(hull)
    wanted = fp[-1] * np.asarray(fpr, np.float64)
    right = np.minimum(np.searchsorted(fp, wanted, side="right"), fp.size - 1)
    share = (wanted - fp[right - 1]) / (fp[right] - fp[right - 1])
    return (tp[right - 1] + share * (tp[right] - tp[right - 1])) / tp[-1]


def area_under(hull):
    """Area under a hull, by trapezes.

    Example:
      >>> area_under(roc_hull(np.array([1.0, 2, 3, 5]), np.array([0.0, 4, 6, 7])))
      0.8125
    """
    fnr = hull.false_negatives / hull.false_negatives[-1]
    return float(np.trapezoid(hull.true_negatives / hull.true_negatives[-1], fnr))


def largest_ratio(hull, min_count, delta):
    """Largest ln((TPR - delta) / FPR) on a hull with `min_count` false positives or more; 0 where there are fewer.

    Example:
      >>> round(largest_ratio(roc_hull(np.arange(100.0), np.arange(100.0) + 60), 10, 0.0), 3)
      1.946
    """
    tp, fp = _positives(hull)
    if min_count >= fp[-1]:
        return 0.0
    fewest = min_count / fp[-1]
    some = fp >= min_count
    tpr, fpr = np.append(tp[some] / tp[-1], tpr_at(fewest, hull)), np.append(fp[some] / fp[-1], fewest)
    return float(np.log(max(np.max((tpr - delta) / fpr), 1.0)))


def _positives(curve):
    """True and false positives, rising."""
    return (curve.false_negatives[-1] - curve.false_negatives)[::-1], (
        curve.true_negatives[-1] - curve.true_negatives
    )[::-1]
