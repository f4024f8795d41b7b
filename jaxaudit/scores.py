"""Scores and counts that were made elsewhere, turned into a plan and counts."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .bounds import (
    ESTIMATES,
    METHODS,
    Bound,
    Counts,
    Plan,
    Scores,
    best_plan,
    declared,
    from_json,
    robust_pilot,
    roc_thresholds,
    split,
    to_json,
    toss,
    with_score,
)
from .populations.files import pick, read_arrays
from .store import read_counts

_SHIFT_TOLERANCE = 1e-3
_FEWEST = 100
# Coins take twice the smaller of two samples; beyond this ratio the trials they leave out are worth more.
_EVEN = 1.5


class Certifying(NamedTuple):
    """What a file gives to certify with.

    Attributes:
      plan: where to test.
      counts: of the trials that certify.
      failed: trials of h0 and of h1 without a score, which the counts hold as errors.
      reversed: the pilot's scores of h0 are the larger ones, which is no error and hardly meant.
    """

    plan: Plan
    counts: Counts
    failed: tuple[int, int] = (0, 0)
    reversed: bool = False


def plan_and_counts(path, deltas, confidence, design, method, seed, failures=False) -> Certifying:
    """Split a file of scores into pilot and certifying trials.

    Args:
      path: .npz or .safetensors with arrays `h0` and `h1`, f[trials] each, or counts: as a run folder holds them, as
        `bounds.to_json` writes them, or the dictionary of privacy-estimates.
      deltas: in [0, 1).
      confidence: in (0, 1).
      design: "paired" (h0[i] and h1[i] share one draw), "nested" (they do, and h1[i] is h0[i] plus the same shift
        >= 0 in every trial), "independent" (two samples of fixed size), "labelled" (a coin for each trial), or None
        for not declared, which assumes nothing.
      method: one of `bounds.METHODS`, or None for the best that the declared design allows.
      seed: of the split, and of the coins that make labelled trials of independent samples.
      failures: count scores that are not finite as errors, instead of refusing them.

    Returns:
      Certifying.

    Raises:
      ValueError: in one line.
    """
    path = Path(path)
    found = _read(path)
    if isinstance(found, Counts):
        if failures:
            raise ValueError(f"file {path} holds counts, in which failures are counted already; leave --failures out")
        return Certifying(*_declared(found, path, deltas, design, method))
    scores = _scores(found, path, design, failures)
    if design == "independent" and _tossed(scores, path, method):
        scores = toss(scores, seed)
    if method and scores.design not in METHODS[method].designs:
        raise ValueError(f"file {path}: {method} needs {_NEEDS[METHODS[method].designs]}; use --method union")
    if method and METHODS[method].pays == "nothing":
        # A bound at all thresholds at once may take those that the same scores suggest.
        plan = declared(_everywhere(scores), deltas, method, stream=scores.stream)
        return Certifying(plan, scores.count(plan.thresholds), scores.failed, _reversed(scores))
    pilot, rest = split(scores, seed)
    choose = partial(robust_pilot, method=method) if method else best_plan
    plan = choose(pilot, min(rest.trials), deltas, confidence=confidence)
    return Certifying(plan, rest.count(plan.thresholds), scores.failed, _reversed(pilot))


def estimated(bounds: Sequence[Bound], counts: Counts) -> tuple[Bound, ...]:
    """What the counts at the thresholds of certified bounds suggest without certifying it.

    Args:
      bounds: certified.
      counts: that they come from.

    Returns:
      tuple of Bound, one of every kind in `bounds.ESTIMATES` for every bound, each by itself at its whole confidence
      and none of them certified; epsilon and ceiling may be infinite.
    """
    found = []
    for bound in bounds:
        level = 1 - bound.confidence
        for name, (function, kind, assumption) in ESTIMATES.items():

            def value(*errors, function=function, bound=bound, level=level):
                return float(function(*errors, counts.trials, bound.delta, level, bound.direction))

            own = {"method": name, "kind": kind, "assumption": assumption, "significance": level}
            epsilon = value(bound.errors_h0, bound.errors_h1)
            found.append(replace(bound, epsilon=epsilon, ceiling=value(0, 0), **own))
    return tuple(found)


def estimate_json(estimate: Bound) -> str:
    """An estimate as JSON text: the fields of a bound, under the record "estimate" because it is none.

    Args:
      estimate: from `estimated`.

    Returns:
      str; null stands for an infinite number, and for the confidence of an estimate that has none.
    """
    infinite = {name: None for name in ("epsilon", "ceiling") if math.isinf(getattr(estimate, name))}
    without = {} if has_confidence(estimate) else {"confidence": None, "significance": None}
    finite = replace(estimate, **dict.fromkeys(infinite, 0.0))
    return json.dumps(
        json.loads(to_json(finite)) | {"record": "estimate"} | infinite | without, allow_nan=False, ensure_ascii=False
    )


def has_confidence(estimate: Bound) -> bool:
    """Whether an estimate is a limit of some confidence, and not only what the counts come to."""
    return estimate.kind != "estimate"


_NEEDS = {
    ("nested",): "--design nested, and a score in every trial",
    ("labelled",): "--design labelled or independent",
}


def _read(path: Path):
    """Counts, or the arrays of a file of scores."""
    if not path.is_file():
        raise ValueError(f"file {path}: not found; give a file of scores or counts, or the folder of a run")
    if path.suffix == ".json":
        return _checked(_counted(path), path)
    if path.suffix == ".npy":
        raise ValueError(f"file {path} holds one array; write both with np.savez(FILE, h0=…, h1=…)")
    if path.suffix not in (".npz", ".safetensors"):
        raise ValueError(
            f"file {path}: got suffix {path.suffix!r}, allowed are .npz and .safetensors, and .json for counts"
        )
    found = read_arrays(path)
    if "errors_h0" not in found:
        return found
    if path.name == "counts.npz" and (path.parent / "summary.json").is_file():
        raise ValueError(f"file {path} is a part of a run folder; give the folder, {path.parent}")
    return read_counts(path)


def _counted(path) -> Counts:
    try:
        found = from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"file {path}: {error}") from error
    if not isinstance(found, Counts):
        raise ValueError(f"file {path} holds a {type(found).__name__.lower()}, allowed are counts")
    return found


def _checked(counts: Counts, path) -> Counts:
    if counts.thresholds.ndim != 1 or not counts.thresholds.size or not np.isfinite(counts.thresholds).all():
        raise ValueError(f"file {path}: counts at no threshold or at one that is not finite, allowed are finite ones")
    if min(counts.trials) < 1:
        raise ValueError(f"file {path}: counts of no trials, allowed are 1 or more under each hypothesis")
    return counts


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


def _scores(found, path, design, failures) -> Scores:
    """The scores of a file under the design that was declared."""
    for name in ("h0", "h1"):
        if name not in found:
            held = ", ".join(sorted(found)) or "nothing"
            raise ValueError(f"file {path}: no array {name!r}, it holds {held}; name them h0 (out) and h1 (in)")
    h0, h1 = (np.asarray(pick(found, name, path, ndim=1), np.float64) for name in ("h0", "h1"))
    _refuse_few(path, min(len(h0), len(h1)), "trials")
    finite = np.isfinite(h0), np.isfinite(h1)
    for name, array, good in zip(("h0", "h1"), (h0, h1), finite):
        if not (failures or good.all()):
            where = int(np.argmin(good))
            raise ValueError(
                f"file {path}: {name}[{where}] is {array[where]}, allowed are finite numbers; --failures counts such "
                "trials as errors"
            )
    if design in ("paired", "nested") and len(h0) != len(h1):
        raise ValueError(f"file {path}: --design {design} needs arrays of one length, got {len(h0)} and {len(h1)}")
    if design == "nested":
        _refuse_spread(path, h0, h1, finite[0] & finite[1])
    whole = with_score(h0, h1, design or "paired")
    _refuse_few(path, min(int(good.sum()) for good in whole), "trials with a score")
    try:
        return (Scores.with_failures if failures else Scores)(h0, h1, str(path), design or "paired")
    except ValueError as error:
        if design != "labelled":
            raise
        raise ValueError(
            f"file {path}: --design labelled means that every trial tossed a fair coin, which does not give "
            f"{len(h0)} of h0 and {len(h1)} of h1; use --design independent, or leave it out"
        ) from error


def _refuse_few(path, trials, what):
    if trials < _FEWEST:
        raise ValueError(f"file {path}: {trials} {what}, allowed are {_FEWEST} or more under each hypothesis")


def _refuse_spread(path, h0, h1, finite):
    """Raise ValueError where the trials contradict that one shift >= 0 moves every score."""
    shift = h1[finite] - h0[finite]
    # Relative to the shift itself, so that no trial of the same law could have moved the other way.
    if shift.size and not (shift.min() >= 0 and np.ptp(shift) <= _SHIFT_TOLERANCE * shift.min()):
        raise ValueError(
            f"file {path}: h1[i] - h0[i] is {shift.min():g} to {shift.max():g}, but --design nested means the same "
            "number >= 0 in every trial; use --design paired"
        )


def _tossed(scores: Scores, path, method) -> bool:
    """Whether coins make labelled trials of two samples: the one design with a tighter certificate."""
    needed = METHODS[method].designs == ("labelled",) if method else False
    if needed and any(scores.failed):
        raise ValueError(f"file {path}: {method} of independent samples needs every score; use --method union")
    sizes = sorted(scores.trials)
    return needed or (method is None and not any(scores.failed) and sizes[1] < _EVEN * sizes[0])


def _everywhere(scores: Scores) -> np.ndarray:
    """Thresholds along the whole curve. They are found in float32: fine enough in units of the scores' own spread."""
    seen = np.concatenate([scores.h0, scores.h1])
    centre, spread = np.median(seen), np.ptp(seen) or 1.0
    found = roc_thresholds(replace(scores, h0=(scores.h0 - centre) / spread, h1=(scores.h1 - centre) / spread))
    return np.unique(centre + spread * found)


def _reversed(pilot: Scores) -> bool:
    """Whether h0 has the larger scores: five standard errors, by chance once in three million."""
    with np.errstate(over="ignore", invalid="ignore"):
        gap = pilot.h0.mean() - pilot.h1.mean()
        return bool(gap > 5 * np.sqrt(pilot.h0.var() / pilot.h0.size + pilot.h1.var() / pilot.h1.size))
