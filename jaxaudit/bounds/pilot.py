"""Choose on pilot trials where to test, so that fresh trials can certify without paying for a search.

Any rule is sound here, because the trials that certify are others. What matters is that the rule is smooth and
does not depend on the scores being Gaussian: for every delta and direction two thresholds are kept, the best one
under a Gaussian fit of the pilot scores (good in tails the pilot has not reached) and the best one by the pilot's
own counts (good when the scores are not Gaussian at all).
"""

import numpy as np
from scipy.special import ndtr

from .epsilon import METHODS
from .records import Event, Method, Plan, Scores

_GRID = 512


def robust_pilot(pilot: Scores, trials: int, deltas, method: Method = "union", confidence: float = 0.95) -> Plan:
    """Two thresholds for every delta and direction: the plan of a certificate.

    Args:
      pilot: scores of both hypotheses from a stream of their own.
      trials: number of trials that will certify.
      deltas: deltas in [0, 1) that the certificate is made for.
      method: "pc-cp" for nested paired trials, "union" for all others.
      confidence: of the certificate to come; the thresholds depend on it slightly, the guarantee does not.

    Returns:
      Plan.

    Raises:
      ValueError: for a delta outside [0, 1), or "pc-cp" with scores that are not nested.
    """
    deltas = tuple(float(delta) for delta in deltas)
    if not deltas:
        raise ValueError("deltas must hold at least one delta in [0, 1)")
    for delta in deltas:
        if not 0 <= delta < 1:
            raise ValueError(f"delta must be in [0, 1), got {delta}")
    if method == "pc-cp" and not pilot.nested:
        raise ValueError("pc-cp needs nested paired trials: use the union method")
    significance = (1 - confidence) / (4 * len(deltas))
    events = []
    for delta in deltas:
        for direction in ("forward", "reverse"):
            for threshold in (
                _best_gaussian(pilot, trials, delta, direction, method, significance),
                _best_counted(pilot, delta, direction, method, significance),
            ):
                events.append(Event(threshold, direction, delta if method == "pc-cp" else None))
    return Plan(method, tuple(dict.fromkeys(events)), deltas, pilot.stream)


def _best_gaussian(pilot, trials, delta, direction, method, significance):
    """The threshold with the largest expected bound if both score laws were normal."""
    (mean0, sd0), (mean1, sd1) = ((s.mean(), s.std()) for s in (pilot.h0, pilot.h1))
    if not (sd0 > 0 and sd1 > 0):
        return _between_atoms((mean0 + mean1) / 2)
    grid = np.linspace(min(mean0 - 8 * sd0, mean1 - 8 * sd1), max(mean0 + 8 * sd0, mean1 + 8 * sd1), _GRID)
    fpr, fnr = ndtr((mean0 - grid) / sd0), ndtr((grid - mean1) / sd1)
    expected = METHODS[method](
        trials * fpr, trials * np.minimum(fnr, 1 - fpr), trials, delta, significance, direction=direction
    )
    return _between_atoms(grid[_middle_argmax(expected)])


def _best_counted(pilot, delta, direction, method, significance):
    """The threshold with the largest bound on the pilot itself, among those that separate its scores."""
    atoms = np.unique(np.concatenate([pilot.h0, pilot.h1]))
    ranks = np.unique(np.geomspace(1, atoms.size, _GRID // 2).astype(int))
    cuts = np.unique(np.concatenate([ranks, atoms.size - ranks]))
    cuts = cuts[(cuts > 0) & (cuts < atoms.size)]
    if not cuts.size:
        return _between_atoms(atoms[0])
    counts = pilot.count((atoms[cuts - 1] + atoms[cuts]) / 2)
    trials = counts.trials_h0 if pilot.nested else (counts.trials_h0, counts.trials_h1)
    values = METHODS[method](counts.errors_h0, counts.errors_h1, trials, delta, significance, direction=direction)
    return _between_atoms(counts.thresholds[_middle_argmax(values)])


def _middle_argmax(values):
    """The middle of the best entries: on a plateau of zeros that is the balanced threshold."""
    best = np.flatnonzero(values == values.max())
    return best[best.size // 2]


def _between_atoms(threshold):
    """Move a threshold halfway between two float32 numbers, where no float32 score can tie with it."""
    below = np.float32(threshold)
    return (float(below) + float(np.nextafter(below, np.float32(np.inf)))) / 2
