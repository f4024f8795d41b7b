"""A plan made on pilot trials and counts of fresh ones become bounds."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .conditional import checked_delta
from .epsilon import RARE, delta_clopper_pearson
from .methods import certificate, failure_probability
from .records import Bound, Direction, Event, Plan, overlap
from .samples import Counts

# A p-value is rounded up by at most so much, relatively.
_STEP = 1e-3


def epsilon_at(plan: Plan, counts: Counts, delta: float, confidence: float = 0.95) -> Bound:
    """The best certified bound at `delta` among the events of a plan.

    The failure probability 1 - confidence is shared among the events of the plan by their shares, whether or not they
    serve this delta, so the bounds at all deltas hold together. Under "union" an event serves every delta. Under the
    conditional methods it serves its own and every smaller one, because epsilon falls as delta grows. Under "band"
    all events hold at once and nothing is shared.

    Args:
      plan: events fixed on pilot trials.
      counts: errors on fresh trials at the thresholds of the plan.
      delta: in [0, 1).
      confidence: in (0, 1).

    Returns:
      Bound, with epsilon 0 where nothing can be claimed.

    Guarantee:
      P(some bound of this plan, at whatever deltas, exceeds the true epsilon) <= 1 - confidence, for the counts of
      the number of trials that was planned, or under an "anytime" method of any number of them.

    Raises:
      ValueError: where the counts come from the plan's own stream or from one that the score was fitted on, or do not
        fit its method.
    """
    return _bounds(plan, counts, [delta], confidence)[0]


def privacy_curve(
    plan: Plan, counts: Counts, deltas: Sequence[float], confidence: float = 0.95, simultaneous: bool = True
) -> tuple[Bound, ...]:
    """Certified bounds at several deltas.

    Args:
      plan, counts, confidence: as for `epsilon_at`.
      deltas: in [0, 1).
      simultaneous: all bounds hold together. Otherwise each of them holds alone: with a conditional method, the
        events made for one delta then share the whole failure probability, and no two of the bounds may be quoted
        together.

    Returns:
      tuple of Bound, one for each delta.

    Guarantee:
      simultaneous: P(some bound of the curve exceeds the true privacy curve) <= 1 - confidence; else the same of
      each bound by itself.
    """
    if simultaneous or certificate(plan.method).pays != "delta":
        return _bounds(plan, counts, deltas, confidence)
    found = []
    for delta in deltas:
        # The smallest tested delta that serves this one: chosen by the plan, before the counts are looked at.
        tested = min((event.delta for event in plan.events if event.delta >= delta), default=None)
        alone = tuple(event for event in plan.events if event.delta == tested) or plan.events
        found.append(epsilon_at(replace(plan, events=alone), counts, delta, confidence))
    return tuple(found)


def delta_at(plan: Plan, counts: Counts, epsilon: float, confidence: float = 0.95) -> float:
    """The best certified lower bound on delta at a fixed epsilon among the thresholds of a plan.

    Args:
      plan, counts, confidence: as for `epsilon_at`. Whatever the method of the plan, its thresholds are tested by the
        union of two Clopper-Pearson limits, which every design allows and which serves every epsilon at once.
      epsilon: nats, >= 0.

    Returns:
      float in [0, 1], 0 where nothing can be claimed.

    Guarantee:
      P(some bound, at whatever epsilons, exceeds the true delta) <= 1 - confidence: by themselves, not together with
      those of `epsilon_at`.
    """
    # Tests of one threshold for several deltas are one event here.
    merged: dict[float, Event] = {}
    for event in plan.events:
        before = merged.get(event.threshold)
        merged[event.threshold] = replace(event, delta=None, share=event.share + (before.share if before else 0.0))
    events = tuple(merged.values())
    union, best = replace(plan, method="union", events=events), 0.0
    for event, level in zip(events, _levels(union, counts, failure_probability(confidence))):
        errors, rare = counts.at(event.threshold), RARE[event.direction]
        for side in RARE:
            found = delta_clopper_pearson(*errors, counts.trials, epsilon, level, side, rare)
            best = max(best, float(found))
    return best


def claim_p_value(plan: Plan, counts: Counts, epsilon: float, delta: float) -> float:
    """The p-value of the claim that the mechanism is (epsilon, delta)-DP: small where the trials contradict it.

    The smallest failure probability at which `epsilon_at` exceeds the claimed epsilon; it pays for all events of the
    plan. Several claims take `holm`.

    Args:
      plan, counts: as for `epsilon_at`.
      epsilon, delta: the claim; it must have been made before the trials.

    Returns:
      float in [1e-150, 1], rounded up.

    Guarantee:
      If the claim is true, P(p-value <= a) <= a for every a.
    """
    if not epsilon >= 0:
        raise ValueError(f"epsilon must be >= 0, got {epsilon}")
    delta = checked_delta([delta])

    def contradicted(log_level):
        values = _values(plan, counts, _levels(plan, counts, np.exp(log_level)), delta)
        return max(value.max() for value in values.values()) > epsilon

    low, high = np.log(1e-150), np.log1p(-1e-12)
    if not contradicted(high):
        return 1.0
    while high - low > _STEP:
        middle = (low + high) / 2
        low, high = (low, middle) if contradicted(middle) else (middle, high)
    return float(np.exp(high))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjusted p-values of claims that were all declared beforehand: reject those at or below the level.

    Args:
      p_values: in [0, 1], one for each claim.

    Returns:
      tuple of float, in the same order.

    Guarantee:
      P(some true claim is rejected) <= level, whatever the dependence between the p-values. They adjust tests; bounds
      that are to hold together (cells of a sweep, best of several candidates) share the failure probability instead.

    Example:
      >>> [round(p, 9) for p in holm([0.01, 0.04, 0.03])]
      [0.03, 0.06, 0.06]

    Reference:
      Holm (1979), Scandinavian Journal of Statistics 6.
    """
    p_values = np.asarray(p_values, np.float64)
    if p_values.ndim != 1 or np.any(~((p_values >= 0) & (p_values <= 1))):
        raise ValueError(f"p-values must be a list of numbers in [0, 1], got {p_values}")
    order = np.argsort(p_values, kind="stable")
    steps = np.maximum.accumulate(p_values[order] * (p_values.size - np.arange(p_values.size)))
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(steps, 1.0)
    return tuple(adjusted.tolist())


def _levels(plan: Plan, counts: Counts, failure: float) -> np.ndarray:
    """The failure probability of every event, after checking that the counts may be judged by this plan."""
    if overlap(plan.stream, counts.stream) and certificate(plan.method).pays != "nothing":
        raise ValueError(
            f"thresholds were chosen on stream {plan.stream!r}, which shares trials with the stream to certify on, "
            f"{counts.stream!r}: a bound needs fresh trials"
        )
    if shared := [stream for stream in plan.fitted_on if overlap(stream, counts.stream)]:
        raise ValueError(
            f"the score was fitted on stream {shared[0]!r}, which shares trials with the stream to certify on, "
            f"{counts.stream!r}: a bound needs fresh trials"
        )
    if counts.design not in certificate(plan.method).designs:
        allowed = " or ".join(certificate(plan.method).designs)
        raise ValueError(
            f"{plan.method} needs {allowed} trials; these counts are {counts.design}: use the union method"
        )
    shares = np.array([event.share for event in plan.events])
    if certificate(plan.method).pays == "nothing":
        return np.full(shares.shape, failure)
    return failure * shares / shares.sum()


def _values(plan: Plan, counts: Counts, levels: np.ndarray, deltas: np.ndarray) -> dict[Direction, np.ndarray]:
    """The bound of every event at every delta in either direction: f64[events, deltas], 0 where it has none."""
    method, trials, events = certificate(plan.method), counts.trials, plan.events
    errors = np.array([counts.at(event.threshold) for event in events])
    values = {side: np.zeros((len(events), len(deltas))) for side in RARE}
    for tested, rare in RARE.items():
        own = np.flatnonzero([event.direction == tested for event in events])
        if not own.size:
            continue
        given = (*errors[own].T[:, :, None], trials)
        level = levels[own, None]
        if method.pays == "delta":
            at = np.array([[events[n].delta] for n in own])
            values[tested][own] = np.where(at >= deltas, method.bound(*given, at, level, tested), 0.0)
            continue
        # The two limits of an event also bound the complementary event, at no extra cost. A band has one split of
        # the failure probability between the two rates for all its thresholds; an event has its own.
        split = {"rare": rare} if method.pays == "event" else {}
        for side in RARE:
            values[side][own] = method.bound(*given, deltas, level, direction=side, **split)
    return values


def _bounds(plan: Plan, counts: Counts, deltas: Sequence[float], confidence: float) -> tuple[Bound, ...]:
    """The best event at every delta."""
    deltas, levels = checked_delta(deltas), _levels(plan, counts, failure_probability(confidence))
    values, ceilings = _values(plan, counts, levels, deltas), _ceilings(plan, counts, levels, deltas)
    found = []
    for number, delta in enumerate(deltas.tolist()):
        side = max(values, key=lambda side: values[side][:, number].max())
        at = int(np.argmax(values[side][:, number]))
        errors_h0, errors_h1 = counts.at(plan.events[at].threshold)
        found.append(
            Bound(
                epsilon=float(values[side][at, number]),
                delta=delta,
                confidence=confidence,
                method=plan.method,
                kind="certified",
                assumption=certificate(plan.method).assumption,
                direction=side,
                threshold=plan.events[at].threshold,
                errors_h0=errors_h0,
                errors_h1=errors_h1,
                trials=min(counts.trials),
                ceiling=float(ceilings[number]),
                significance=float(levels[at]),
                design=counts.design,
            )
        )
    return tuple(found)


def _ceilings(plan: Plan, counts: Counts, levels: np.ndarray, deltas: np.ndarray) -> np.ndarray:
    """The most that any event could certify, at every delta."""
    method = certificate(plan.method)

    def top(delta, level):
        return np.maximum(*(method.bound(0, 0, counts.trials, delta, level, side) for side in RARE))

    if method.pays != "delta":
        return top(deltas, levels.max())
    # Once for every event, and not again for every delta that it serves: each costs as much as a bound.
    tested = np.array([event.delta for event in plan.events])
    return np.where(tested[:, None] >= deltas, top(tested, levels)[:, None], 0.0).max(axis=0)
