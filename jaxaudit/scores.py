"""Scores and counts that were made elsewhere, turned into a plan and counts."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from .bounds import (
    ESTIMATES,
    METHODS,
    Bound,
    Counts,
    Plan,
    Scores,
    best_method,
    declared,
    from_json,
    robust_pilot,
    roc_thresholds,
    split,
    toss,
)
from .populations.files import pick, read_arrays
from .store import UNBOUNDED, read_counts

DESIGNS = ("paired", "independent", "labelled")
_SHIFT_TOLERANCE = 1e-3


def plan_and_counts(path, deltas, confidence, design, method, seed, failures=False) -> tuple[Plan, Counts]:
    """Split a file of scores into pilot and certifying trials.

    Args:
      path: .npz or .safetensors with arrays `h0` and `h1`, f[trials] each, or counts: as a run folder holds them, as
        `bounds.to_json` writes them, or the dictionary of privacy-estimates.
      deltas: in [0, 1).
      confidence: in (0, 1).
      design: "paired" (h0[i] and h1[i] share one draw), "independent" (two samples of fixed size), "labelled" (a coin
        for each trial), or None for not declared, which assumes nothing.
      method: one of `bounds.METHODS`, or None for the best that the declared design allows.
      seed: of the split, and of the coins that make labelled trials of independent samples.
      failures: count scores that are not finite as errors, instead of refusing them.

    Returns:
      (plan, counts).

    Raises:
      ValueError: in one line.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"--confidence is {confidence}, allowed are numbers strictly between 0 and 1")
    if not Path(path).is_file():
        raise ValueError(f"file {path}: not found; give a file of scores or counts, or the folder of a run")
    found = _counted(path) if Path(path).suffix == ".json" else read_arrays(path)
    if isinstance(found, Counts) or "errors_h0" in found:
        counts = found if isinstance(found, Counts) else read_counts(path)
        if failures:
            raise ValueError(f"file {path} holds counts, in which failures are counted already; leave --failures out")
        return _declared(counts, path, deltas, design, method)
    h0, h1 = (np.asarray(pick(found, name, path, ndim=1), np.float64) for name in ("h0", "h1"))
    fewest = min(len(h0), len(h1))
    if fewest < 100:
        raise ValueError(f"file {path}: {fewest} trials, allowed are 100 or more under each hypothesis")
    if design == "paired" and len(h0) != len(h1):
        raise ValueError(f"file {path}: --design paired needs arrays of one length, got {len(h0)} and {len(h1)}")
    if failures and design in ("paired", None):
        h0, h1 = _whole_pairs(h0, h1)
    nested = design == "paired" and _moves_by_a_shift(h0, h1)
    make = Scores.with_failures if failures else Scores
    # Refuses what is not finite by its index in the file, or counts it.
    scores = make(h0, h1, str(path), "nested" if nested else design or "paired")
    if design == "independent" and not (method is None and any(scores.failed)):
        # Coins make the one design for which the tighter certificate is sound, and need the score of every trial.
        scores = toss(scores, seed) if METHODS[method or "cc-cp"].designs == ("labelled",) else scores
    method = method or best_method(scores.design)
    if scores.design not in METHODS[method].designs:
        raise ValueError(f"file {path}: {method} needs {_NEEDS[METHODS[method].designs]}; use --method union")
    everywhere = METHODS[method].pays == "nothing"
    pilot, rest = (scores, scores) if everywhere else split(scores, seed)
    # Thresholds are kept in float32; in units of the pilot they are fine enough, whatever the unit of the file.
    seen = np.concatenate([pilot.h0, pilot.h1])
    centre, spread = np.median(seen), np.ptp(seen) or 1.0
    pilot, rest = (
        replace(part, h0=(part.h0 - centre) / spread, h1=(part.h1 - centre) / spread) for part in (pilot, rest)
    )
    if everywhere:
        # A bound at all thresholds at once may take those that the same scores suggest.
        plan = declared(roc_thresholds(pilot), deltas, method)
    else:
        plan = robust_pilot(pilot, min(rest.trials), deltas, method, confidence)
    return plan, rest.count(plan.thresholds)


def estimated(bounds: Sequence[Bound], counts: Counts) -> tuple[Bound, ...]:
    """What the counts at the thresholds of certified bounds suggest without certifying it.

    Args:
      bounds: certified.
      counts: that they come from.

    Returns:
      tuple of Bound, one of every kind in `bounds.ESTIMATES` for every bound, each by itself at its whole confidence
      and none of them certified; `store.UNBOUNDED` stands for infinity.
    """
    found = []
    for bound in bounds:
        level = 1 - bound.confidence
        for name, (function, kind, assumption) in ESTIMATES.items():

            def value(*errors, function=function, bound=bound, level=level):
                return min(float(function(*errors, counts.trials, bound.delta, level, bound.direction)), UNBOUNDED)

            own = {"method": name, "kind": kind, "assumption": assumption, "significance": level}
            epsilon = value(bound.errors_h0, bound.errors_h1)
            found.append(replace(bound, epsilon=epsilon, ceiling=value(0, 0), **own))
    return tuple(found)


_NEEDS = {
    ("nested",): "--design paired and h1 - h0 the same number >= 0 in every trial",
    ("labelled",): "--design labelled or independent",
}


def _counted(path) -> Counts:
    try:
        found = from_json(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"file {path}: {error}") from error
    if not isinstance(found, Counts):
        raise ValueError(f"file {path} holds a {type(found).__name__.lower()}, allowed are counts")
    return found


def _declared(counts: Counts, path, deltas, design, method) -> tuple[Plan, Counts]:
    """Counts without a pilot: every threshold was fixed beforehand, and all of them share the confidence."""
    if design:
        raise ValueError(f"file {path} holds counts, which know their design; leave --design out")
    method = method or "union"
    if counts.design not in METHODS[method].designs:
        raise ValueError(
            f"file {path} holds counts of {counts.design} trials, for which {method} is not sound; use --method union"
        )
    return declared(counts.thresholds, deltas, method), counts


def _whole_pairs(h0, h1):
    """The scores with both halves of a pair failed where one half did.

    Counted so a failure can only lower a bound; and what is left in the two arrays still belongs together, so that no
    draw ends up on both sides of a split.
    """
    h0, h1, both = h0.copy(), h1.copy(), min(len(h0), len(h1))
    failed = np.flatnonzero(~(np.isfinite(h0[:both]) & np.isfinite(h1[:both])))
    h0[failed] = h1[failed] = np.nan
    return h0, h1


def _moves_by_a_shift(h0, h1) -> bool:
    with np.errstate(invalid="ignore"):
        shift = h1 - h0
    # Relative to the shift itself, so that no trial of the same law could have moved the other way.
    return bool(np.all(shift >= 0) and np.ptp(shift) <= _SHIFT_TOLERANCE * shift.min())
