"""How good a recovery is, beside what the pooled histogram would have told a server that sends one model to all."""

from typing import NamedTuple

import numpy as np

from . import histograms


class Grades(NamedTuple):
    """Of the clients that sent, in order.

    Attributes:
      exact: bool[n], the whole histogram is right.
      overlap: f64[n], share of the batch whose labels are right: Σ_c min(n_c, found_c) / B.
      null_exact, null_overlap: the same of the guess that everybody's histogram is the pooled one.
      largest_error: of a count before rounding, in records.
    """

    exact: np.ndarray
    overlap: np.ndarray
    null_exact: np.ndarray
    null_overlap: np.ndarray
    largest_error: float


def graded(counts: np.ndarray, found: np.ndarray, truth: np.ndarray) -> Grades:
    """A recovery against the truth.

    Args:
      counts: f64[clients, classes], before rounding.
      found: i64[clients, classes].
      truth: i64[clients, classes]; rows of clients that sent nothing are -1.

    Returns:
      Grades.
    """
    here = truth[:, 0] >= 0
    counts, found, truth = counts[here], found[here], truth[here]
    sizes = truth.sum(axis=1)
    guess = histograms.pooled_guess(truth.sum(axis=0), len(truth), sizes)
    return Grades(
        histograms.exact(found, truth),
        histograms.overlap(found, truth),
        histograms.exact(guess, truth),
        histograms.overlap(guess, truth),
        float(np.abs(counts - truth).max()),
    )
