"""What was decided before the trials, and what follows from them. Plain data: numbers, strings and tuples."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from .samples import Design

Direction = Literal["forward", "reverse"]
Method = Literal["union", "cc-cp", "pc-cp", "band", "cc-anytime", "pc-anytime"]


@dataclass(frozen=True)
class Event:
    """One test that was decided on before the certifying trials.

    Attributes:
      threshold: in score units.
      direction: "forward" tests {score >= threshold}, "reverse" tests {score < threshold}.
      delta: the delta the test is for; None where one test serves every delta.
      share: of the failure probability, relative to the shares of the other events of a plan.
    """

    threshold: float
    direction: Direction
    delta: float | None = None
    share: float = 1.0


@dataclass(frozen=True)
class Plan:
    """Everything about a certificate that is fixed before its trials are looked at.

    Attributes:
      method: one of `bounds.METHODS`.
      events: the tests that share the failure probability.
      deltas: the deltas it was made for.
      stream: the random stream of the trials that chose it; a bound from the same stream is refused.
      fitted_on: streams that the score itself was learned from; a pilot or a bound from one of them is refused.
    """

    method: Method
    events: tuple[Event, ...]
    deltas: tuple[float, ...]
    stream: str
    fitted_on: tuple[str, ...] = ()

    def __post_init__(self):
        """Refuse a plan that no bound could be read from."""
        if not self.events:
            raise ValueError("a plan needs at least one event")
        if self.method not in get_args(Method):
            raise ValueError(f"method must be one of {', '.join(get_args(Method))}, got {self.method!r}")
        for event in self.events:
            if event.direction not in get_args(Direction):
                raise ValueError(f"direction must be 'forward' or 'reverse', got {event.direction!r}")
            if not (1e-6 <= event.share <= 1e6 and math.isfinite(event.threshold)):
                raise ValueError(f"an event needs a finite threshold and a share > 0 (1e-6 to 1e6), got {event}")
            if event.delta is not None and not 0 <= event.delta < 1:
                raise ValueError(f"delta of an event must be in [0, 1), got {event.delta}")
            if self.method not in ("union", "band") and event.delta is None:
                raise ValueError(f"every event of a {self.method} plan needs its delta")
        if shared := [stream for stream in self.fitted_on if overlap(stream, self.stream)]:
            raise ValueError(
                f"the score was fitted on stream {shared[0]!r}, which is also the pilot's, or overlaps with it: "
                "thresholds need a stream of their own"
            )

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
      method: one of `bounds.METHODS`, or of `bounds.ESTIMATES` where `kind` is another.
      kind: "certified"; only this kind may be printed as "ε ≥".
      assumption: what the guarantee needs.
      direction: of the event that gave the bound.
      threshold: of the event that gave the bound, in score units.
      errors_h0: false positives at the threshold.
      errors_h1: false negatives at the threshold.
      trials: trials under each hypothesis; the fewer of the two.
      ceiling: the bound that no errors at all would have given.
      significance: failure probability of one event, its share of 1 - confidence.
      design: how the trials were made.
    """

    epsilon: float
    delta: float
    confidence: float
    method: str
    kind: str
    assumption: str
    direction: Direction
    threshold: float
    errors_h0: int
    errors_h1: int
    trials: int
    ceiling: float
    significance: float
    design: Design

    @property
    def censored(self) -> bool:
        """No error of the rarer kind was seen: the number of trials limits the bound, not the leak."""
        rare = self.errors_h0 if self.direction == "forward" else self.errors_h1
        return self.epsilon > 0 and rare == 0

    def __post_init__(self):
        """Refuse to certify by what is no certificate."""
        if self.kind == "certified" and self.method not in get_args(Method):
            raise ValueError(f"certified bounds come from {', '.join(get_args(Method))}, got {self.method!r}")
        if not (self.epsilon >= 0 and 0 <= self.delta < 1 and 0 < self.confidence < 1):
            raise ValueError(
                "a bound needs epsilon >= 0, delta in [0, 1) and confidence in (0, 1), got "
                f"{self.epsilon}, {self.delta} and {self.confidence}"
            )

    def __add__(self, other):
        """Refused: bounds of several models or pairs cannot be averaged."""
        raise TypeError(
            "bounds cannot be added or averaged: the mean of lower bounds is no lower bound of anything that was "
            "audited; report each, or share the failure probability among them and report the largest"
        )

    __radd__ = __add__

    def __str__(self):
        """One line; the sign says which kind of statement it is."""
        sign = "≥" if self.kind == "certified" else "≈"
        note = ", limited by the trials" if self.censored else ""
        confidence = f"{percent(self.confidence)} confidence{note}"
        return f"ε {sign} {rounded_down(self.epsilon)} at δ = {self.delta:g} ({confidence})"


# Between the name of a stream and of its parts; no path holds it.
_OF = " > "


def part_of(stream: str, split: str, part: Literal["pilot", "certify"]) -> str:
    """The name of one of the two parts of a split."""
    return _OF.join((stream, split, part))


def overlap(one: str, other: str) -> bool:
    """Whether two streams may share trials: the two parts of one split do not, nor do streams of different roots.

    Example:
      >>> overlap("mine", "mine > split 0 > pilot"), overlap("mine > split 0 > certify", "mine > split 0 > pilot")
      (True, False)
    """
    names = one.split(_OF), other.split(_OF)
    differs = next((n for n, pair in enumerate(zip(*names)) if pair[0] != pair[1]), None)
    if differs is None or differs == 0:
        return differs is None
    return {names[0][differs], names[1][differs]} != {"pilot", "certify"}


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
      >>> percent(0.95), percent(0.999), percent(1 - 0.05 / 9), percent(1 - 1e-11)
      ('95%', '99.9%', '99.444%', '99.999999999%')
    """
    digits = 3 if confidence < 0.9999 else min(12, math.ceil(-math.log10(max(1 - confidence, 1e-12))))
    # The decimal that a float stands for may lie a hair above it.
    return f"{math.floor(100 * confidence * 10**digits + 1e-6) / 10**digits:.15g}%"
