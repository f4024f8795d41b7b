import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from jaxaudit import bounds
from jaxaudit.bounds.records import overlap

BOUND = bounds.Bound(
    epsilon=3.2499,
    delta=1e-3,
    confidence=0.95,
    method="union",
    kind="certified",
    assumption="none",
    direction="forward",
    threshold=0.5,
    errors_h0=2,
    errors_h1=0,
    trials=1000,
    ceiling=5.0,
    significance=0.05,
    design="paired",
)


def plan(*events, method="union", **more):
    return bounds.Plan(method, events or (bounds.Event(0.0, "forward"),), (0.0,), **{"stream": "pilot"} | more)


def test_a_plan_lists_each_threshold_once_and_in_order():
    events = [bounds.Event(t, direction) for t in (2.0, -1.0) for direction in ("forward", "reverse")]
    assert plan(*events).thresholds.tolist() == [-1.0, 2.0]


@pytest.mark.parametrize(
    "event, method, message",
    [
        (bounds.Event(0.0, "sideways"), "union", "direction must be 'forward' or 'reverse', got 'sideways'"),
        (bounds.Event(np.nan, "forward"), "union", "finite threshold"),
        (bounds.Event(np.inf, "forward"), "union", "finite threshold"),
        (bounds.Event(0.0, "forward", share=0.0), "union", "finite threshold and a share"),
        (bounds.Event(0.0, "forward", share=-1.0), "union", "finite threshold and a share"),
        (bounds.Event(0.0, "forward", share=np.inf), "union", "finite threshold and a share"),
        (bounds.Event(0.0, "forward", share=np.nan), "union", "finite threshold and a share"),
        (bounds.Event(0.0, "forward", 1.0), "cc-cp", r"delta of an event must be in \[0, 1\)"),
        (bounds.Event(0.0, "forward", -0.1), "union", r"delta of an event must be in \[0, 1\)"),
        (bounds.Event(0.0, "forward"), "magic", "method must be one of union, .*, got 'magic'"),
        *(
            (bounds.Event(0.0, "forward"), f"{kind}-{test}", "needs its delta")
            for kind in ("cc", "pc")
            for test in ("cp", "anytime")
        ),
    ],
)
def test_a_plan_that_no_bound_could_be_read_from_is_refused(event, method, message):
    with pytest.raises(ValueError, match=message):
        plan(event, method=method)


def test_a_plan_without_events_is_refused():
    with pytest.raises(ValueError, match="at least one event"):
        bounds.Plan("union", (), (0.0,), "pilot")


# A split says of which stream it is a part, and of which half.
FIRST, SECOND = "mine > split 0 > pilot", "mine > split 0 > certify"


@pytest.mark.parametrize(
    "one, other, shared",
    [
        ("mine", "mine", True),
        ("mine", "yours", False),
        ("0/pilot", "0/certify", False),
        ("mine", FIRST, True),
        (FIRST, FIRST, True),
        (FIRST, SECOND, False),
        (FIRST, "mine > split 1 > certify", True),
        (FIRST, f"{SECOND} > split 5 > pilot", False),
        (FIRST, f"{FIRST} > split 5 > certify", True),
        (f"{SECOND} > split 5 > pilot", f"{SECOND} > split 5 > certify", False),
        (f"{SECOND} > split 5 > pilot", f"{SECOND} > split 6 > certify", True),
        (FIRST, "yours > split 0 > certify", False),
    ],
)
def test_streams_share_trials_unless_they_come_from_both_halves_of_a_split(one, other, shared):
    assert overlap(one, other) == overlap(other, one) == shared


@pytest.mark.parametrize("fitted_on", ["mine", FIRST, f"{FIRST} > split 5 > certify", "mine > split 1 > certify"])
def test_a_pilot_on_the_stream_that_fitted_the_score_is_refused(fitted_on):
    message = f"the score was fitted on stream '{fitted_on}'.*the pilot's.*need a stream of their own"
    with pytest.raises(ValueError, match=message):
        plan(stream=FIRST, fitted_on=("other", fitted_on))


@pytest.mark.parametrize(
    "combine", [sum, np.mean, lambda two: two[0] + two[1], lambda two: two[0] + 1.0, lambda two: 1.0 + two[0]]
)
def test_averages_of_bounds_are_refused_with_the_reason(combine):
    with pytest.raises(TypeError, match=r"cannot be added or averaged: the mean of lower bounds is no lower bound"):
        combine([BOUND, BOUND])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"method": "jeffreys"}, "certified bounds come from union, .*, got 'jeffreys'"),
        ({"epsilon": -0.1}, "epsilon >= 0"),
        ({"epsilon": np.nan}, "epsilon >= 0"),
        ({"delta": 1.0}, r"delta in \[0, 1\)"),
        ({"confidence": 1.0}, r"confidence in \(0, 1\)"),
    ],
    ids=str,
)
def test_what_is_no_bound_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(BOUND, **change)


def test_a_bound_survives_json_unchanged():
    assert bounds.Bound(**json.loads(json.dumps(asdict(BOUND)))) == BOUND


def test_a_bound_is_limited_by_the_trials_where_no_rare_error_was_seen():
    assert not BOUND.censored
    assert replace(BOUND, errors_h0=0).censored
    assert replace(BOUND, direction="reverse").censored
    assert not replace(BOUND, direction="reverse", epsilon=0.0).censored


def test_only_a_certified_bound_is_printed_as_one():
    assert str(replace(BOUND, errors_h0=0)) == "ε ≥ 3.249 at δ = 0.001 (95% confidence, limited by the trials)"
    assert str(replace(BOUND, kind="estimate", confidence=0.999)) == "ε ≈ 3.249 at δ = 0.001 (99.9% confidence)"


@pytest.mark.parametrize("epsilon", [0.0, 1e-9, 0.9999, 2.9999999, 1 / 3, 12.0])
def test_the_printed_figure_is_certified_too(epsilon):
    assert epsilon - 1e-3 < float(bounds.rounded_down(epsilon)) <= epsilon
