"""Scores and counts that were made elsewhere, turned into a plan and counts."""

import numpy as np

from .bounds import Counts, Event, Plan, Scores, robust_pilot
from .populations.files import pick, read_arrays
from .store import read_counts

_PILOT_SHARE = 0.1
_SHIFT_TOLERANCE = 1e-3


def plan_and_counts(path, deltas, confidence, design, method, seed) -> tuple[Plan, Counts]:
    """Split a file of scores into pilot and certifying trials.

    The same random indices are taken from both arrays, so that trials which share a draw stay on the same side.

    Args:
      path: .npz or .safetensors with arrays `h0` and `h1`, f[trials] each, or counts as a run folder holds them.
      deltas: in [0, 1).
      confidence: in (0, 1).
      design: "paired" (h0[i] and h1[i] share one draw), "independent", or None for not declared.
      method: "union", "pc-cp", or None for the best that the declared design allows.
      seed: of the split.

    Returns:
      (plan, counts).

    Raises:
      ValueError: in one line.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"--confidence is {confidence}, allowed are numbers strictly between 0 and 1")
    arrays = read_arrays(path)
    if "errors_h0" in arrays:
        return _declared(read_counts(path), path, deltas, design, method)
    h0, h1 = (np.asarray(pick(arrays, name, path, ndim=1), np.float64) for name in ("h0", "h1"))
    Scores(h0, h1, str(path))  # refuses what is not finite, by its index in the file
    fewest = min(len(h0), len(h1))
    if fewest < 100:
        raise ValueError(f"file {path}: {fewest} trials, allowed are 100 or more under each hypothesis")
    if design == "paired" and len(h0) != len(h1):
        raise ValueError(f"file {path}: --design paired needs arrays of one length, got {len(h0)} and {len(h1)}")
    nested = design == "paired" and _moves_by_a_shift(h0, h1)
    if method == "pc-cp" and not nested:
        raise ValueError(
            f"file {path}: pc-cp needs --design paired and h1 - h0 the same number >= 0 in every trial; "
            "use --method union"
        )
    order = np.random.default_rng(seed).permutation(max(len(h0), len(h1)))
    cut = round(_PILOT_SHARE * len(order))
    pilot, rest = ([s[part[part < len(s)]] for s in (h0, h1)] for part in (order[:cut], order[cut:]))
    # Thresholds are kept in float32; in units of the pilot they are fine enough, whatever the unit of the file.
    seen = np.concatenate(pilot)
    centre, spread = np.median(seen), np.ptp(seen) or 1.0
    pilot, rest = (
        Scores(*((s - centre) / spread for s in part), f"{path}/{name}", nested)
        for name, part in (("pilot", pilot), ("certify", rest))
    )
    trials = min(len(rest.h0), len(rest.h1))
    plan = robust_pilot(pilot, trials, deltas, method or ("pc-cp" if nested else "union"), confidence)
    return plan, rest.count(plan.thresholds)


def _declared(counts: Counts, path, deltas, design, method) -> tuple[Plan, Counts]:
    """Counts without a pilot: every threshold was fixed beforehand, and all of them share the confidence."""
    if design or method == "pc-cp":
        raise ValueError(f"file {path} holds counts, which take --method union; leave --design out")
    events = tuple(Event(float(threshold), "forward") for threshold in counts.thresholds)
    return Plan("union", events, tuple(deltas), "declared beforehand"), counts


def _moves_by_a_shift(h0, h1) -> bool:
    shift = h1 - h0
    # Relative to the shift itself, so that no trial of the same law could have moved the other way.
    return bool(np.all(shift >= 0) and np.ptp(shift) <= _SHIFT_TOLERANCE * shift.min())
