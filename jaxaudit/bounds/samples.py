"""What leaves the trials: scores, or the errors counted at fixed thresholds. Plain data: NumPy arrays and numbers."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

Design = Literal["paired", "nested", "labelled", "independent"]

# Scores are sorted in blocks that fit in a cache: constant memory, and three times as fast as sorting them all.
_BLOCK = 32_768


@dataclass(frozen=True)
class Scores:
    """Scores of the same attack under both hypotheses; larger speaks for H1.

    Attributes:
      h0: f64[n0], scores when the target sent the first candidate.
      h1: f64[n1], scores when it sent the second.
      stream: names the random stream, or the part of a file, that the scores came from.
      design: how the trials were made.
        "paired": h0[i] and h1[i] may share a draw; nothing is assumed of how they depend on each other.
        "nested": they do, and the second is the first moved by a constant shift >= 0.
        "labelled": every trial was played under one hypothesis, chosen by a fair coin of its own.
        "independent": two independent samples whose sizes were fixed in advance.
      failed: (n0, n1), trials without a score, which count as errors at every threshold.

    Raises:
      ValueError: where an array is empty, not one-dimensional or not finite, or a claimed nesting does not hold.
    """

    h0: np.ndarray
    h1: np.ndarray
    stream: str
    design: Design = "paired"
    failed: tuple[int, int] = (0, 0)

    def __post_init__(self):
        """Convert to float64 and refuse what cannot be counted."""
        for name in ("h0", "h1"):
            scores = np.asarray(getattr(self, name), np.float64)
            if scores.ndim != 1 or scores.size == 0:
                raise ValueError(f"scores {name} must be a non-empty one-dimensional array, got shape {scores.shape}")
            finite = np.isfinite(scores)
            if not finite.all():
                where = int(np.flatnonzero(~finite)[0])
                raise ValueError(
                    f"scores {name}[{where}] is {scores[where]}, allowed are finite numbers; "
                    "Scores.with_failures counts trials that failed as errors"
                )
            object.__setattr__(self, name, scores)
        if not all(isinstance(count, int | np.integer) and count >= 0 for count in self.failed):
            raise ValueError(f"failed must be two whole numbers >= 0, got {self.failed}")
        _check_design(self.design, self.trials)
        if self.design == "nested" and any(self.failed):
            raise ValueError('trials that failed are not nested; Scores.with_failures makes them design="paired"')
        if self.design == "nested" and (self.h0.shape != self.h1.shape or np.any(self.h1 < self.h0)):
            raise ValueError('nested scores need h1[i] >= h0[i] for every i; use design="paired"')

    @classmethod
    def with_failures(cls, h0, h1, stream: str, design: Design = "paired") -> "Scores":
        """Scores of which some are NaN or infinite: trials that failed, and count as errors at every threshold.

        A failure may tell the hypotheses apart; counted as an error it can only lower a bound. A pair of which one
        half failed counts as two errors, so that what is left stays paired; it is no longer nested, so "nested"
        becomes "paired".

        Args:
          h0, h1, stream, design: as for the class; h0 and h1 may hold NaN and infinities.
        """
        arrays = [np.asarray(scores, np.float64) for scores in (h0, h1)]
        kept = [scores[good] for scores, good in zip(arrays, with_score(*arrays, design))]
        failed = tuple(int(scores.size - finite.size) for scores, finite in zip(arrays, kept))
        return cls(*kept, stream, "paired" if design == "nested" and any(failed) else design, failed)

    @property
    def trials(self) -> tuple[int, int]:
        """Trials under H0 and under H1, those that failed included."""
        return self.h0.size + self.failed[0], self.h1.size + self.failed[1]

    def count(self, thresholds) -> "Counts":
        """Count errors at thresholds that were fixed on other scores.

        Args:
          thresholds: f64[k].

        Returns:
          Counts, with ties counted as errors under both hypotheses.
        """
        thresholds = np.asarray(thresholds, np.float64)
        above, below = np.full(thresholds.shape, self.failed[0]), np.full(thresholds.shape, self.failed[1])
        for start in range(0, self.h0.size, _BLOCK):
            block = np.sort(self.h0[start : start + _BLOCK])
            above += block.size - np.searchsorted(block, thresholds, side="left")
        for start in range(0, self.h1.size, _BLOCK):
            below += np.searchsorted(np.sort(self.h1[start : start + _BLOCK]), thresholds, side="right")
        return Counts(thresholds, above, below, *self.trials, self.stream, self.design)


@dataclass(frozen=True)
class Counts:
    """Errors at fixed thresholds: all that a bound needs, addable across blocks and devices.

    Attributes:
      thresholds: f64[k], in score units.
      errors_h0: i64[k], scores of H0 at or above each threshold (false positives).
      errors_h1: i64[k], scores of H1 at or below each threshold (false negatives).
      trials_h0: trials under H0.
      trials_h1: trials under H1.
      stream: the random stream of these trials.
      design: how the trials were made, as for `Scores`.
    """

    thresholds: np.ndarray
    errors_h0: np.ndarray
    errors_h1: np.ndarray
    trials_h0: int
    trials_h1: int
    stream: str
    design: Design = "paired"

    def __post_init__(self):
        """Hold counts as int64, and check that they can be counts."""
        object.__setattr__(self, "thresholds", np.asarray(self.thresholds, np.float64))
        for name in ("errors_h0", "errors_h1"):
            errors = np.asarray(getattr(self, name))
            if np.any(errors != np.floor(errors)):
                raise ValueError(f"{name} must be whole numbers, got {errors}")
            object.__setattr__(self, name, errors.astype(np.int64))
        for name in ("trials_h0", "trials_h1"):
            object.__setattr__(self, name, int(getattr(self, name)))
        _check_design(self.design, self.trials)
        if self.design == "nested" and self.trials_h0 != self.trials_h1:
            raise ValueError(
                f"nested counts need as many trials of h1 as of h0, got {self.trials_h0} and {self.trials_h1}"
            )
        if not self.thresholds.shape == self.errors_h0.shape == self.errors_h1.shape:
            raise ValueError("thresholds, errors_h0 and errors_h1 must have the same shape")
        for errors, trials, name in (
            (self.errors_h0, self.trials_h0, "h0"),
            (self.errors_h1, self.trials_h1, "h1"),
        ):
            if errors.size and not (errors.min() >= 0 and errors.max() <= trials):
                raise ValueError(f"errors_{name} must be in [0, {trials}], got {errors.min()} to {errors.max()}")
        if np.isnan(self.thresholds).any():
            raise ValueError("thresholds must be numbers, got NaN")
        order = np.argsort(self.thresholds, axis=None, kind="stable")
        again = np.diff(self.thresholds.ravel()[order]) == 0
        if any(np.diff(errors.ravel()[order])[again].any() for errors in (self.errors_h0, self.errors_h1)):
            raise ValueError("equal thresholds must have equal errors")

    @property
    def trials(self) -> tuple[int, int]:
        """Trials under H0 and under H1."""
        return self.trials_h0, self.trials_h1

    def __add__(self, other):
        """Counts of both sets of trials, which must be disjoint parts of one stream."""
        if other is self:
            raise ValueError("counts cannot be added to themselves: each trial counts once")
        same = (
            np.array_equal(self.thresholds, other.thresholds)
            and self.stream == other.stream
            and self.design == other.design
        )
        if not same:
            raise ValueError("only counts of the same stream, thresholds and design can be added")
        return replace(
            self,
            errors_h0=self.errors_h0 + other.errors_h0,
            errors_h1=self.errors_h1 + other.errors_h1,
            trials_h0=self.trials_h0 + other.trials_h0,
            trials_h1=self.trials_h1 + other.trials_h1,
        )

    def only(self, thresholds):
        """The same trials at some of the thresholds."""
        where = np.searchsorted(self.thresholds, thresholds)
        if not np.array_equal(self.thresholds[np.minimum(where, self.thresholds.size - 1)], thresholds):
            raise ValueError("some of these thresholds were not counted")
        return replace(
            self,
            thresholds=self.thresholds[where],
            errors_h0=self.errors_h0[where],
            errors_h1=self.errors_h1[where],
        )

    def at(self, threshold):
        """Errors (h0, h1) at one of the thresholds."""
        (where,) = np.nonzero(self.thresholds == threshold)
        if not where.size:
            raise ValueError(f"threshold {threshold} was not counted")
        return int(self.errors_h0[where[0]]), int(self.errors_h1[where[0]])


def with_score(h0, h1, design: Design) -> tuple[np.ndarray, np.ndarray]:
    """Which trials have a score: bool[n0] and bool[n1]; a pair of which one half failed has none."""
    good = np.isfinite(h0), np.isfinite(h1)
    if design in ("paired", "nested"):
        both = min(good[0].size, good[1].size)
        pairs = good[0][:both] & good[1][:both]
        good = tuple(np.concatenate([pairs, one[both:]]) for one in good)
    return good


def _check_design(design: str, trials: tuple[int, int]) -> None:
    if design not in get_args(Design):
        raise ValueError(f"design must be one of {', '.join(get_args(Design))}, got {design!r}")
    # Eight standard deviations of a fair coin: once in 1e15.
    if design == "labelled" and (trials[0] - trials[1]) ** 2 > 64 * sum(trials):
        raise ValueError(
            f"labelled trials toss a fair coin each, which does not give {trials[0]} of h0 and {trials[1]} of h1; "
            'use design="paired" or "independent"'
        )
