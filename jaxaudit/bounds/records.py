"""The records that travel from trials to a bound. Plain data: NumPy arrays, numbers and strings."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

Direction = Literal["forward", "reverse"]
Method = Literal["union", "pc-cp"]


@dataclass(frozen=True)
class Scores:
    """Scores of the same attack under both hypotheses; larger speaks for H1.

    Attributes:
      h0: f64[n0], scores when the target sent the first candidate.
      h1: f64[n1], scores when it sent the second.
      stream: names the random stream, or the part of a file, that the scores came from.
      nested: `h0[i]` and `h1[i]` share one draw, and the second is the first moved by a constant shift >= 0.

    Raises:
      ValueError: where an array is empty, not one-dimensional or not finite, or a claimed nesting does not hold.
    """

    h0: np.ndarray
    h1: np.ndarray
    stream: str
    nested: bool = False

    def __post_init__(self):
        """Convert to float64 and refuse what cannot be counted."""
        for name in ("h0", "h1"):
            scores = np.asarray(getattr(self, name), np.float64)
            if scores.ndim != 1 or scores.size == 0:
                raise ValueError(f"scores {name} must be a non-empty one-dimensional array, got shape {scores.shape}")
            if not np.isfinite(scores).all():
                where = int(np.flatnonzero(~np.isfinite(scores))[0])
                raise ValueError(
                    f"scores {name}[{where}] is {scores[where]}, allowed are finite numbers; a trial that failed "
                    "counts as an error: give it the score that errs (large under h0, small under h1)"
                )
            object.__setattr__(self, name, scores)
        if self.nested and (self.h0.shape != self.h1.shape or np.any(self.h1 < self.h0)):
            raise ValueError("nested scores need h1[i] >= h0[i] for every i; use nested=False")

    def count(self, thresholds):
        """Count errors at thresholds that were fixed on other scores.

        Args:
          thresholds: f64[k].

        Returns:
          Counts, with ties counted as errors under both hypotheses.
        """
        thresholds = np.asarray(thresholds, np.float64)
        h0, h1 = np.sort(self.h0), np.sort(self.h1)
        return Counts(
            thresholds=thresholds,
            errors_h0=h0.size - np.searchsorted(h0, thresholds, side="left"),
            errors_h1=np.searchsorted(h1, thresholds, side="right"),
            trials_h0=h0.size,
            trials_h1=h1.size,
            stream=self.stream,
            nested=self.nested,
        )


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
      nested: each draw served both hypotheses and moved the score by a shift of one sign.
    """

    thresholds: np.ndarray
    errors_h0: np.ndarray
    errors_h1: np.ndarray
    trials_h0: int
    trials_h1: int
    stream: str
    nested: bool

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
        if self.nested and self.trials_h0 != self.trials_h1:
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

    def __add__(self, other):
        """Counts of both sets of trials, which must be disjoint parts of one stream."""
        same = (
            np.array_equal(self.thresholds, other.thresholds)
            and self.stream == other.stream
            and self.nested == other.nested
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


@dataclass(frozen=True)
class Event:
    """One test that was decided on before the certifying trials.

    Attributes:
      threshold: in score units.
      direction: "forward" tests {score >= threshold}, "reverse" tests {score < threshold}.
      delta: the delta the test is for; None where one test serves every delta.
    """

    threshold: float
    direction: Direction
    delta: float | None = None


@dataclass(frozen=True)
class Plan:
    """Everything about a certificate that is fixed before its trials are looked at.

    Attributes:
      method: "pc-cp" (each event pays for its own delta) or "union" (an event serves every delta).
      events: the tests among which the failure probability is shared equally.
      deltas: the deltas it was made for.
      stream: the random stream of the trials that chose it; a bound from the same stream is refused.
    """

    method: Method
    events: tuple[Event, ...]
    deltas: tuple[float, ...]
    stream: str

    def __post_init__(self):
        """Refuse a plan that no bound could be read from."""
        if not self.events:
            raise ValueError("a plan needs at least one event")
        if self.method not in ("union", "pc-cp"):
            raise ValueError(f"method must be 'union' or 'pc-cp', got {self.method!r}")
        if self.method == "pc-cp" and any(event.delta is None for event in self.events):
            raise ValueError("every event of a pc-cp plan needs its delta")

    @property
    def thresholds(self):
        """f64[k], the distinct thresholds in increasing order."""
        return np.unique([event.threshold for event in self.events])


@dataclass(frozen=True)
class Bound:
    """A lower bound on epsilon and everything it rests on.

    Attributes:
      epsilon: nats, >= 0.
      delta: in [0, 1).
      confidence: probability, at least, that all bounds of the same plan hold at once.
      method: "pc-cp" or "union".
      kind: "certified"; only this kind may be printed as "ε ≥".
      assumption: what the guarantee needs.
      direction: of the event that gave the bound.
      threshold: of the event that gave the bound, in score units.
      errors_h0: false positives at the threshold.
      errors_h1: false negatives at the threshold.
      trials: trials under each hypothesis.
      ceiling: the bound that no errors at all would have given.
      significance: failure probability of one event, its share of 1 - confidence.
    """

    epsilon: float
    delta: float
    confidence: float
    method: Method
    kind: str
    assumption: str
    direction: Direction
    threshold: float
    errors_h0: int
    errors_h1: int
    trials: int
    ceiling: float
    significance: float

    @property
    def censored(self) -> bool:
        """No error of the rarer kind was seen: the number of trials limits the bound, not the leak."""
        rare = self.errors_h0 if self.direction == "forward" else self.errors_h1
        return self.epsilon > 0 and rare == 0

    def __str__(self):
        """One line; the sign says which kind of statement it is."""
        sign = "≥" if self.kind == "certified" else "≈"
        note = ", limited by the trials" if self.censored else ""
        confidence = f"{percent(self.confidence)} confidence{note}"
        return f"ε {sign} {rounded_down(self.epsilon)} at δ = {self.delta:g} ({confidence})"


def rounded_down(epsilon: float) -> str:
    """A bound in three decimals that are certified, too.

    Example:
      >>> rounded_down(3.2499)
      '3.249'
    """
    return f"{math.floor(1000 * epsilon) / 1000:.3f}"


def percent(confidence: float) -> str:
    """A confidence, never rounded up: in whole percent, 99.9 % would claim certainty.

    Example:
      >>> percent(0.95), percent(0.999), percent(1 - 0.05 / 9)
      ('95%', '99.9%', '99.444%')
    """
    return f"{math.floor(1e5 * confidence + 1e-6) / 1000:g}%"
