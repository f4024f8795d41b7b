"""The certificates by name: what each needs, what it pays for, and what no errors at all would have given."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from .anytime import epsilon_anytime
from .bands import epsilon_simultaneous
from .conditional import epsilon_labelled, epsilon_paired
from .epsilon import epsilon_clopper_pearson


@dataclass(frozen=True)
class Certificate:
    """A kind of certified bound.

    Attributes:
      bound: function of (false positives, false negatives, (trials of H0, trials of H1), delta, significance,
        direction).
      fixed: the bound at one event and a fixed number of trials that it comes from, which also takes a `limit`.
      designs: of the trials it is sound for.
      pays: "event" where one event serves every delta and both directions; "delta" where every delta and every
        direction is a test of its own; "nothing" where all events, deltas and directions hold at once.
      assumption: what the guarantee needs, in words.
    """

    bound: Callable
    fixed: Callable
    designs: tuple[str, ...]
    pays: str
    assumption: str


_ANY = ("paired", "nested", "labelled", "independent")

METHODS = {
    "union": Certificate(
        epsilon_clopper_pearson,
        epsilon_clopper_pearson,
        _ANY,
        "event",
        "independent trials; any dependence between the two hypotheses within a trial",
    ),
    "pc-cp": Certificate(
        epsilon_paired,
        epsilon_paired,
        ("nested",),
        "delta",
        "independent trials; one draw serves both hypotheses and moves the score by a shift of one sign",
    ),
    "cc-cp": Certificate(
        epsilon_labelled,
        epsilon_labelled,
        ("labelled",),
        "delta",
        "independent trials, each under the hypothesis that a fair coin of its own chose",
    ),
    "band": Certificate(
        epsilon_simultaneous,
        epsilon_clopper_pearson,
        _ANY,
        "nothing",
        "independent trials; any dependence between the two hypotheses within a trial; all thresholds hold at once",
    ),
    "pc-anytime": Certificate(
        partial(epsilon_anytime, design="nested"),
        epsilon_paired,
        ("nested",),
        "delta",
        "as for pc-cp; holds at all numbers of trials at once, so trials may be stopped or added after a look",
    ),
    "cc-anytime": Certificate(
        partial(epsilon_anytime, design="labelled"),
        epsilon_labelled,
        ("labelled",),
        "delta",
        "as for cc-cp; holds at all numbers of trials at once, so trials may be stopped or added after a look",
    ),
}


def certificate(method: str) -> Certificate:
    """A certificate by its name.

    Raises:
      ValueError: where there is none of that name.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    return METHODS[method]


def failure_probability(confidence: float) -> float:
    """What a confidence leaves to be shared among tests.

    Raises:
      ValueError: for a confidence outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}")
    return 1 - confidence


def best_method(design: str) -> str:
    """The tightest certificate, at one event, for trials of a design.

    Example:
      >>> best_method("labelled")
      'cc-cp'
    """
    if design not in _ANY:
        raise ValueError(f"design must be one of {', '.join(_ANY)}, got {design!r}")
    return {"nested": "pc-cp", "labelled": "cc-cp"}.get(design, "union")


def ceiling(trials, delta, significance, method):
    """The bound that a run without a single error would certify: no result of this size can exceed it.

    Args:
      trials: trials under each hypothesis, or a pair (under H0, under H1).
      delta: in [0, 1).
      significance: failure probability of one test, as it is actually used.
      method: one of `METHODS`.

    Returns:
      float, nats.

    Example:
      >>> round(ceiling(5000, 1e-3, 0.05, "union"), 2)
      7.35
    """
    trials = trials if isinstance(trials, tuple) else (trials, trials)
    bound = certificate(method).bound
    return max(float(bound(0, 0, trials, delta, significance, side)) for side in ("forward", "reverse"))
