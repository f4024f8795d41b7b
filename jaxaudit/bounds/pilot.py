"""Choose on pilot trials where to test, so that fresh trials can certify without paying for a search.

Any rule is sound here, because the trials that certify are others. What matters is that the rule is smooth, does not
depend on the scores being Gaussian, and asks few questions, because every test has its share of the failure
probability:

- For every delta and direction a Gaussian fit of the pilot scores gives the best threshold (good in tails that the
  pilot has not reached), and so do the pilot's own counts (good when the scores are not Gaussian at all). Of the two
  directions only the more promising one is tested. The fit gets most of the failure probability where the pilot looks
  Gaussian, little where it does not, so either rule can fail without losing much.
- A bound at a larger delta is also one at a smaller delta, so a delta whose own test promises nothing is not tested.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from .epsilon import RARE
from .intervals import approximate_upper
from .methods import best_method, certificate, failure_probability
from .records import Direction, Event, Method, Plan
from .samples import Scores

_GRID = 512
# The share of the failure probability of the better placed rule of the two.
LEAD_SHARE = 0.85
# Skewness and excess kurtosis of scores that look Gaussian. A Laplace law has (0, 3), a logistic one (0, 1.2).
_SKEW, _KURTOSIS = 0.3, 0.6
# What a delta may lose that is served by the test of a larger one, in expectation and in nats.
_WORTH = 0.02


def robust_pilot(
    pilot: Scores,
    trials: int,
    deltas: Sequence[float],
    method: Method = "union",
    confidence: float = 0.95,
    fitted_on: tuple[str, ...] = (),
) -> Plan:
    """Two thresholds for every tested delta, by a Gaussian fit and by counts: good for any law of the scores.

    Args:
      pilot: scores of both hypotheses from a stream of their own.
      trials: number of trials under each hypothesis that will certify.
      deltas: deltas in [0, 1) that the certificate is made for.
      method: one of `bounds.METHODS` that is sound for the design of the pilot.
      confidence: of the certificate to come; the thresholds depend on it slightly, the guarantee does not.
      fitted_on: streams that the score itself was learned from.

    Returns:
      Plan.

    Raises:
      ValueError: for a delta outside [0, 1), or a method that does not fit the design of the pilot.
    """
    return _planned(pilot, trials, deltas, method, confidence, fitted_on, ("gaussian", "counted"))


def gaussian_pilot(
    pilot: Scores,
    trials: int,
    deltas: Sequence[float],
    method: Method = "union",
    confidence: float = 0.95,
    fitted_on: tuple[str, ...] = (),
) -> Plan:
    """One threshold for every tested delta, by a Gaussian fit: tighter for Gaussian scores, loose for others.

    Args:
      pilot, trials, deltas, method, confidence, fitted_on: as for `robust_pilot`.

    Returns:
      Plan.
    """
    return _planned(pilot, trials, deltas, method, confidence, fitted_on, ("gaussian",))


def best_plan(
    pilot: Scores, trials: int, deltas: Sequence[float], confidence: float = 0.95, fitted_on: tuple[str, ...] = ()
) -> Plan:
    """The robust plan of the certificate that promises most, on average over the deltas.

    A conditional certificate is tighter at one delta, the union serves all of them and both directions at once: which
    is better depends on how many deltas there are and on how far apart the laws are, and the pilot knows both.

    Args:
      pilot, trials, deltas, confidence, fitted_on: as for `robust_pilot`.

    Returns:
      Plan.
    """
    methods = dict.fromkeys((best_method(pilot.design), "union"))
    plans = [robust_pilot(pilot, trials, deltas, method, confidence, fitted_on) for method in methods]
    return max(plans, key=lambda plan: _promise(plan, pilot, trials, confidence))


def declared(
    thresholds, deltas: Sequence[float], method: Method = "union", stream: str = "declared beforehand"
) -> Plan:
    """Thresholds that were fixed without looking at any score; each is tested in both directions.

    Args:
      thresholds: f64[k].
      deltas: deltas in [0, 1).
      method: one of `bounds.METHODS`; with "union" and "band" one test serves both directions and every delta, with
        the others each of them is paid for.
      stream: what fixed them.

    Returns:
      Plan.
    """
    deltas, places = _checked(deltas), [float(place) for place in np.ravel(thresholds)]
    if certificate(method).pays == "delta":
        sides: tuple[Direction, ...] = ("forward", "reverse")
        events = [Event(place, side, delta) for delta in deltas for side in sides for place in places]
    else:
        # The upper half of the thresholds expects false positives to be the rarer error.
        half = np.median(places) if places else 0.0
        events = [Event(place, "forward" if place >= half else "reverse") for place in places]
    return Plan(method, tuple(events), deltas, stream)


class _Test(NamedTuple):
    """A threshold and direction, and the bound that its rule expects of it."""

    threshold: float
    direction: Direction
    expected: float


def _planned(pilot, trials, deltas, method, confidence, fitted_on, rules) -> Plan:
    deltas = _checked(deltas)
    if not trials > 0:
        raise ValueError(f"trials must be positive, got {trials}")
    failure = failure_probability(confidence)
    if pilot.design not in certificate(method).designs:
        allowed = " or ".join(certificate(method).designs)
        raise ValueError(f"{method} needs {allowed} trials, the pilot's are {pilot.design}: use the union method")
    with np.errstate(over="ignore"):
        single = all(np.array_equal(scores, scores.astype(np.float32)) for scores in (pilot.h0, pilot.h1))
    pilot, unit = _scaled(pilot)
    rates = [_RATES[rule](pilot, trials) for rule in rules]
    shares = _shares(pilot) if len(rules) > 1 else (1.0,)
    levels = [failure * share for share in shares]
    lead = int(np.argmax(shares))
    tested = _worth_testing(lambda few: _best(*rates[lead], few, levels[lead] / len(few), method), deltas, method)
    events: dict[tuple, Event] = {}
    for rule, share in enumerate(shares):
        best = _best(*rates[rule], tested, levels[rule] / len(tested), method)
        counts = pilot.count([test.threshold for test in best])
        for test, delta, *errors in zip(best, tested, counts.errors_h0.tolist(), counts.errors_h1.tolist()):
            # Two thresholds between which no pilot score lies are one test.
            same = (*errors, test.direction, delta if certificate(method).pays == "delta" else None)
            weight = share + (events[same].share if same in events else 0.0)
            place = test.threshold / unit
            events[same] = Event(_between_atoms(place) if single else place, test.direction, same[-1], weight)
    return Plan(method, tuple(events.values()), deltas, pilot.stream, fitted_on)


def _checked(deltas) -> tuple[float, ...]:
    deltas = tuple(float(delta) for delta in deltas)
    if not deltas:
        raise ValueError("deltas must hold at least one delta in [0, 1)")
    for delta in deltas:
        if not 0 <= delta < 1:
            raise ValueError(f"delta must be in [0, 1), got {delta}")
    return deltas


def _scaled(pilot) -> tuple[Scores, float]:
    """The pilot in another unit: a power of two, so nothing is rounded, in which no square of a score overflows."""
    unit = 2.0 ** min(-np.frexp(max(np.abs(pilot.h0).max(), np.abs(pilot.h1).max()))[1], 1000)
    return replace(pilot, h0=pilot.h0 * unit, h1=pilot.h1 * unit), unit


def _shares(pilot):
    """Of the failure probability, for the Gaussian rule and for the counting rule."""
    looks = [
        (spread := scores.std()) > 0
        and abs(np.mean(((scores - scores.mean()) / spread) ** 3)) < _SKEW
        and abs(np.mean(((scores - scores.mean()) / spread) ** 4) - 3) < _KURTOSIS
        for scores in (pilot.h0, pilot.h1)
    ]
    return (LEAD_SHARE, 1 - LEAD_SHARE) if all(looks) else (1 - LEAD_SHARE, LEAD_SHARE)


def _worth_testing(best, deltas, method):
    """As few of the deltas as can be tested without expecting less than `_WORTH` at any that is left out."""
    ordered = tuple(sorted(set(deltas), reverse=True))
    expected = np.array([test.expected for test in best(ordered)])
    # From the largest delta down; what a delta adds to the next larger one that is kept says who goes first.
    kept, chosen = list(range(len(ordered))), ordered
    while len(kept) > 1:
        gains = np.diff(expected[kept])
        kept.pop(1 + int(np.argmin(gains)))
        few = tuple(ordered[n] for n in kept)
        if len(few) > 8 and len(few) % 4:
            continue
        fewer = np.array([test.expected for test in best(few)])
        served = np.array([fewer[: sum(delta <= at for at in few)].max() for delta in ordered])
        if np.all(served >= expected - _WORTH):
            chosen = few
    return chosen


def _gaussian_rates(pilot, trials):
    """Error rates along a grid of thresholds if both score laws were normal, and the trials to expect them in."""
    (mean0, sd0), (mean1, sd1) = ((scores.mean(), scores.std()) for scores in (pilot.h0, pilot.h1))
    if not (sd0 > 0 and sd1 > 0):
        middle = np.array([(mean0 + mean1) / 2])
        return middle, (middle <= mean0) * 1.0, (middle >= mean1) * 1.0, (trials, trials)
    grid = np.linspace(min(mean0 - 8 * sd0, mean1 - 8 * sd1), max(mean0 + 8 * sd0, mean1 + 8 * sd1), _GRID)
    return grid, *_normal_rates(pilot, grid), (trials, trials)


def _normal_rates(pilot, places):
    """Both error rates if the score laws were normal."""
    fpr = ndtr((pilot.h0.mean() - places) / pilot.h0.std())
    fnr = ndtr((places - pilot.h1.mean()) / pilot.h1.std())
    # Nested events cannot be likelier under H0, however the two fits differ.
    return fpr, np.minimum(fnr, 1 - fpr) if pilot.design == "nested" else fnr


def _counted_rates(pilot, trials):
    """Error rates of the pilot between its scores, evenly in log rank from either end; in its own trials only.

    In more of them a threshold beyond all scores of the pilot would seem free of errors.
    """
    del trials
    atoms = np.unique(np.concatenate([pilot.h0, pilot.h1]))
    ranks = np.unique(np.geomspace(1, atoms.size, _GRID // 2).astype(int))
    cuts = np.unique(np.concatenate([ranks, atoms.size - ranks]))
    cuts = cuts[(cuts > 0) & (cuts < atoms.size)]
    counts = pilot.count((atoms[cuts - 1] + atoms[cuts]) / 2 if cuts.size else atoms[:1])
    return (
        counts.thresholds,
        counts.errors_h0 / counts.trials_h0,
        counts.errors_h1 / counts.trials_h1,
        counts.trials,
    )


_RATES = {"gaussian": _gaussian_rates, "counted": _counted_rates}


def _best(places, fpr, fnr, trials, deltas, significance, method) -> list[_Test]:
    """The threshold and direction with the largest expected bound, for every delta."""
    bound, tests = certificate(method).fixed, []
    at = np.asarray(deltas)[:, None]
    sides: tuple[Direction, ...] = ("forward", "reverse")
    expected = [
        bound(trials[0] * fpr, trials[1] * fnr, trials, at, significance, side, limit=approximate_upper)
        for side in sides
    ]
    for number in range(len(at)):
        side = int(np.argmax([rows[number].max() for rows in expected]))
        values = expected[side][number]
        # The middle of the best: on a plateau of zeros that is the balanced threshold.
        best = np.flatnonzero(values == values.max())
        tests.append(_Test(float(places[best[best.size // 2]]), sides[side], float(values.max())))
    return tests


def _promise(plan, pilot, trials, confidence):
    """The mean over the deltas of what a plan is expected to certify, by the rule that leads."""
    pilot, unit = _scaled(pilot)
    places = unit * np.array([event.threshold for event in plan.events])
    if np.argmax(_shares(pilot)) == 0:
        (fpr, fnr), each = _normal_rates(pilot, places), (trials, trials)
    else:
        counts = pilot.count(places)
        fpr, fnr, each = counts.errors_h0 / counts.trials_h0, counts.errors_h1 / counts.trials_h1, counts.trials
    deltas, shares = np.array(plan.deltas), np.array([event.share for event in plan.events])
    best, method = np.zeros(deltas.shape), certificate(plan.method)
    for event, low, high, level in zip(plan.events, fpr, fnr, (1 - confidence) * shares / shares.sum()):
        given = each[0] * low, each[1] * high, each
        if method.pays == "delta":
            value = method.fixed(*given, event.delta, level, event.direction, limit=approximate_upper)
            best = np.maximum(best, np.where(event.delta >= deltas, value, 0.0))
            continue
        for side in RARE:
            value = method.fixed(*given, deltas, level, side, RARE[event.direction], limit=approximate_upper)
            best = np.maximum(best, value)
    return best.mean()


def _between_atoms(threshold):
    """Move a threshold halfway between two float32 numbers, where no float32 score can tie with it."""
    below = np.float32(threshold)
    return (float(below) + float(np.nextafter(below, np.float32(np.inf)))) / 2
