"""A plan made on pilot trials and counts of fresh ones become bounds."""

from dataclasses import replace

import numpy as np

from .epsilon import METHODS, ceiling
from .records import Bound, Counts, Event, Plan

_ASSUMPTION = {
    "union": "independent trials; any dependence between the two hypotheses within a trial",
    "pc-cp": "independent trials; one draw serves both hypotheses and moves the score by a shift of one sign",
}


def certify(plan: Plan, counts: Counts, delta: float, confidence: float = 0.95) -> Bound:
    """The best certified bound at `delta` among the events of a plan.

    The failure probability 1 - confidence is shared equally among the events of the plan, whether or not they
    serve this delta, so the bounds at all deltas hold together. Under "union" an event serves every delta. Under
    "pc-cp" it serves its own and every smaller one, because epsilon falls as delta grows.

    Args:
      plan: events fixed on pilot trials.
      counts: errors on fresh trials at the thresholds of the plan.
      delta: in [0, 1).
      confidence: in (0, 1).

    Returns:
      Bound, with epsilon 0 where nothing can be claimed.

    Guarantee:
      P(some bound of this plan, at whatever deltas, exceeds the true epsilon) <= 1 - confidence.

    Raises:
      ValueError: where the counts come from the plan's own stream, or do not fit its method.
    """
    if not 0 <= delta < 1:
        raise ValueError(f"delta must be in [0, 1), got {delta}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}")
    if plan.stream == counts.stream:
        raise ValueError(
            f"thresholds were chosen on stream {plan.stream!r}, which is also the stream to certify on: "
            "a bound needs fresh trials"
        )
    if plan.method == "pc-cp" and not counts.nested:
        raise ValueError("pc-cp needs nested paired trials; these counts are not nested: use the union method")
    significance = (1 - confidence) / len(plan.events)
    bounds = [_at_event(plan, event, counts, delta, confidence, significance) for event in plan.events]
    best = max(bounds, key=lambda bound: bound.epsilon)
    return replace(best, ceiling=max(bound.ceiling for bound in bounds))


def _at_event(plan: Plan, event: Event, counts: Counts, delta, confidence, significance) -> Bound:
    errors_h0, errors_h1 = counts.at(event.threshold)
    if plan.method == "union":
        # The two limits of an event also bound the complementary event, at no extra cost.
        directions, tested, trials = ("forward", "reverse"), delta, (counts.trials_h0, counts.trials_h1)
        limits = {"rare": "fpr" if event.direction == "forward" else "fnr"}
    else:
        directions, tested, trials, limits = (event.direction,), event.delta, counts.trials_h0, {}
    method = METHODS[plan.method]
    serves = tested >= delta
    values = [
        serves * float(method(errors_h0, errors_h1, trials, tested, significance, direction=direction, **limits))
        for direction in directions
    ]
    best = int(np.argmax(values))
    return Bound(
        epsilon=values[best],
        delta=delta,
        confidence=confidence,
        method=plan.method,
        kind="certified",
        assumption=_ASSUMPTION[plan.method],
        direction=directions[best],
        threshold=event.threshold,
        errors_h0=errors_h0,
        errors_h1=errors_h1,
        trials=min(counts.trials_h0, counts.trials_h1),
        ceiling=serves * ceiling(trials, tested, significance, plan.method),
        significance=significance,
    )
