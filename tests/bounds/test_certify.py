"""From a plan and counts to bounds: what is refused, and who pays for what."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxaudit import bounds

Event = bounds.Event
SIDES = ("forward", "reverse")


def counts(design="paired", stream="fresh", trials=1000, errors_h0=(400, 10), errors_h1=(200, 300)):
    """Counts at the thresholds 0 and 1."""
    return bounds.Counts([0.0, 1.0], errors_h0, errors_h1, trials, trials, stream, design)


def plan(*events, method="union", **more):
    return bounds.Plan(method, events or (Event(0.0, "forward"),), (0.0,), **{"stream": "pilot"} | more)


def conditional(*deltas, method="cc-cp", shares=None):
    """A test at threshold 1 for every delta."""
    shares = shares or [1.0] * len(deltas)
    return plan(*(Event(1.0, "forward", *each) for each in zip(deltas, shares)), method=method)


# What is refused.

ASK = {
    "epsilon_at": partial(bounds.epsilon_at, delta=0.0),
    "privacy_curve": partial(bounds.privacy_curve, deltas=[0.0]),
    "privacy_curve, each alone": partial(bounds.privacy_curve, deltas=[0.0], simultaneous=False),
    "delta_at": partial(bounds.delta_at, epsilon=1.0),
    "claim_p_value": partial(bounds.claim_p_value, epsilon=1.0, delta=0.0),
}
EVERY_QUESTION = pytest.mark.parametrize("ask", ASK.values(), ids=ASK)


PILOT, CERTIFY = "mine > split 0 > pilot", "mine > split 0 > certify"
OVERLAPPING = {
    "the same": PILOT,
    "whole": "mine",
    "part": f"{PILOT} > split 5 > certify",
    "other split": "mine > split 1 > certify",
}


@EVERY_QUESTION
@pytest.mark.parametrize("stream", OVERLAPPING.values(), ids=OVERLAPPING)
def test_the_stream_that_chose_the_thresholds_does_not_certify(ask, stream):
    for method in ("union", "cc-cp"):
        chosen = plan(Event(0.0, "forward", 0.0), method=method, stream=PILOT)
        with pytest.raises(
            ValueError, match=f"thresholds were chosen on stream '{PILOT}'.*a bound needs fresh trials"
        ):
            ask(chosen, counts("labelled", stream=stream))


@EVERY_QUESTION
@pytest.mark.parametrize("stream", OVERLAPPING.values(), ids=OVERLAPPING)
def test_a_stream_that_fitted_the_score_does_not_certify(ask, stream):
    for method in ("union", "cc-cp", "band"):
        fitted = plan(Event(0.0, "forward", 0.0), method=method, fitted_on=("other", PILOT))
        with pytest.raises(ValueError, match=f"the score was fitted on stream '{PILOT}'.*a bound needs fresh trials"):
            ask(fitted, counts("labelled", stream=stream))


@pytest.mark.parametrize("stream", [CERTIFY, f"{CERTIFY} > split 1 > pilot", "mine too", "yours"])
def test_other_parts_of_a_stream_certify(stream):
    chosen = plan(Event(1.0, "forward"), stream=PILOT, fitted_on=("theirs",))
    assert bounds.epsilon_at(chosen, counts(stream=stream), 0.0).epsilon > 0


def test_a_band_may_be_read_where_its_own_scores_suggest():
    assert bounds.epsilon_at(plan(method="band"), counts(stream="pilot"), 0.0).epsilon > 0


@pytest.mark.parametrize(
    "method, design",
    [
        ("cc-cp", "paired"),
        ("cc-cp", "nested"),
        ("cc-cp", "independent"),
        ("pc-cp", "paired"),
        ("pc-cp", "labelled"),
        ("pc-cp", "independent"),
    ],
)
@pytest.mark.parametrize("name", ["epsilon_at", "privacy_curve", "privacy_curve, each alone", "claim_p_value"])
def test_a_method_refuses_the_designs_it_was_not_proved_for(name, method, design):
    with pytest.raises(
        ValueError, match=f"{method} needs .* trials; these counts are {design}: use the union method"
    ):
        ASK[name](conditional(0.0, method=method), counts(design))


@pytest.mark.parametrize("design", ["paired", "nested", "labelled", "independent"])
def test_bounds_on_delta_take_the_union_which_every_design_allows(design):
    assert bounds.delta_at(conditional(0.0), counts(design), 1.0) > 0


@pytest.mark.parametrize(
    "asked, message",
    [
        ({"delta": 1.0}, r"delta must be in \[0, 1\)"),
        ({"delta": -0.1}, r"delta must be in \[0, 1\)"),
        ({"delta": np.nan}, r"delta must be in \[0, 1\)"),
        ({"delta": 0.0, "confidence": 1.0}, r"confidence must be in \(0, 1\)"),
        ({"delta": 0.0, "confidence": 0.0}, r"confidence must be in \(0, 1\)"),
        ({"delta": 0.0, "confidence": np.nan}, r"confidence must be in \(0, 1\)"),
    ],
)
def test_levels_outside_their_range_are_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        bounds.epsilon_at(plan(), counts(), **asked)


@pytest.mark.parametrize("epsilon", [-0.1, np.nan])
@pytest.mark.parametrize("ask", [bounds.delta_at, partial(bounds.claim_p_value, delta=0.0)], ids=["δ", "p"])
def test_negative_epsilons_are_refused(ask, epsilon):
    with pytest.raises(ValueError, match="epsilon must be >= 0"):
        ask(plan(), counts(), epsilon=epsilon)


# Who pays for what.


def test_a_bound_states_the_event_and_errors_it_rests_on():
    bound = bounds.epsilon_at(plan(Event(0.0, "forward"), Event(1.0, "forward")), counts(), 1e-3)
    assert bound.epsilon == bounds.epsilon_clopper_pearson(10, 300, 1000, 1e-3, bound.significance)
    assert (bound.threshold, bound.errors_h0, bound.errors_h1, bound.trials) == (1.0, 10, 300, 1000)
    assert (bound.direction, bound.kind, bound.delta, bound.confidence) == ("forward", "certified", 1e-3, 0.95)
    assert (bound.method, bound.design, bound.assumption) == ("union", "paired", bounds.METHODS["union"].assumption)


@pytest.mark.parametrize("shares", [(1.0, 1.0), (0.85, 0.15), (3.0, 2.0)])
def test_the_levels_of_all_events_sum_to_the_failure_probability(shares):
    both = plan(*(Event(place, "forward", share=share) for place, share in zip((0.0, 1.0), shares)))
    nothing, clear = (1000, 1000), (0, 0)
    levels = []
    for n in (0, 1):
        # Only the n-th threshold separates.
        errors_h0, errors_h1 = ([clear[k] if k == n else nothing[k] for k in (0, 1)] for _ in (0, 1))
        bound = bounds.epsilon_at(both, counts(errors_h0=errors_h0, errors_h1=errors_h1), 0.0)
        assert bound.threshold == n
        assert bound.epsilon == bounds.epsilon_clopper_pearson(0, 0, 1000, 0.0, bound.significance) <= bound.ceiling
        levels.append(bound.significance)
    assert sum(levels) == pytest.approx(1 - 0.95) and levels[0] / levels[1] == pytest.approx(shares[0] / shares[1])


@pytest.mark.parametrize("method, design", [("cc-cp", "labelled"), ("pc-cp", "nested")])
def test_a_conditional_event_serves_its_own_delta_and_every_smaller_one(method, design):
    planned = conditional(1e-3, method=method)
    own, smaller, larger = (bounds.epsilon_at(planned, counts(design), delta).epsilon for delta in (1e-3, 0.0, 1e-2))
    assert own == smaller > 0 == larger
    function = {"cc-cp": bounds.epsilon_labelled, "pc-cp": bounds.epsilon_paired}[method]
    assert own == function(10, 300, (1000, 1000), 1e-3, 1 - 0.95)


@pytest.mark.parametrize("direction", SIDES)
@pytest.mark.parametrize("method, design", [("cc-cp", "labelled"), ("pc-cp", "nested")])
def test_a_conditional_event_is_tested_in_its_own_direction_only(method, design, direction):
    planned = plan(Event(1.0, direction, 0.0), method=method)
    rare = {"forward": (10, 300), "reverse": (300, 10)}[direction]
    function = {"cc-cp": bounds.epsilon_labelled, "pc-cp": bounds.epsilon_paired}[method]
    for errors, proved in ((rare, True), (rare[::-1], False)):
        found = counts(design, errors_h0=(1000, errors[0]), errors_h1=(1000, errors[1]))
        bound = bounds.epsilon_at(planned, found, 0.0, 0.95)
        assert bound.epsilon == function(*errors, (1000, 1000), 0.0, 1 - 0.95, direction)
        assert bound.direction == direction and (bound.epsilon > 2) == proved


@pytest.mark.parametrize("chosen, rare", [("forward", "fpr"), ("reverse", "fnr")])
def test_a_union_event_serves_both_directions_with_the_limits_of_its_own(chosen, rare):
    planned = plan(Event(0.0, chosen))
    for errors in ((10, 300), (300, 10)):
        found = counts(errors_h0=(errors[0], 1000), errors_h1=(errors[1], 1000))
        bound = bounds.epsilon_at(planned, found, 1e-3)
        both = [bounds.epsilon_clopper_pearson(*errors, 1000, 1e-3, 1 - 0.95, side, rare) for side in SIDES]
        assert bound.epsilon == max(both) and bound.direction == SIDES[int(np.argmax(both))]


def test_a_band_pays_for_nothing_but_itself():
    few, many = (
        plan(Event(1.0, "forward"), method="band"),
        plan(*(Event(place, side) for place in (0.0, 1.0) for side in SIDES), method="band"),
    )
    one, other = (bounds.epsilon_at(each, counts(), 1e-3) for each in (few, many))
    assert one.epsilon == other.epsilon > 0 and one.significance == other.significance == pytest.approx(0.05)


# The curve.


def test_a_curve_is_made_of_the_bounds_at_its_deltas():
    for planned, found in ((plan(), counts()), (conditional(1e-3, 1e-5, 0.1), counts("labelled"))):
        deltas = [0.0, 1e-5, 1e-4, 1e-3, 0.01, 0.5]
        curve = bounds.privacy_curve(planned, found, deltas)
        assert curve == tuple(bounds.epsilon_at(planned, found, delta) for delta in deltas)


def test_alone_the_events_of_one_delta_share_the_whole_failure_probability():
    planned, found = conditional(1e-5, 1e-2, shares=(0.15, 0.85)), counts("labelled")
    deltas = (0.0, 1e-5, 1e-4, 1e-2)
    together = bounds.privacy_curve(planned, found, deltas)
    alone = bounds.privacy_curve(planned, found, deltas, simultaneous=False)
    for one, each, tested in zip(together, alone, (1e-5, 1e-5, 1e-2, 1e-2)):
        # By the smallest tested delta that serves it, which was chosen before any of these trials.
        assert each == replace(bounds.epsilon_at(conditional(tested), found, tested), delta=each.delta)
        assert each.significance == pytest.approx(0.05) and each.epsilon > one.epsilon


def test_alone_a_delta_above_all_that_were_tested_has_no_bound():
    (bound,) = bounds.privacy_curve(conditional(1e-5, 1e-3), counts("labelled"), [1e-2], simultaneous=False)
    assert bound.epsilon == 0


def test_alone_and_together_are_the_same_where_one_event_serves_every_delta():
    deltas = (0.0, 1e-3, 0.1)
    both = [bounds.privacy_curve(plan(), counts(), deltas, simultaneous=how) for how in (True, False)]
    assert both[0] == both[1]


def test_a_curve_never_rises():
    planned = conditional(0.0, 1e-5, 1e-3, 0.03, 0.3)
    epsilons = [bound.epsilon for bound in bounds.privacy_curve(planned, counts("labelled"), np.linspace(0, 0.4, 50))]
    assert np.all(np.diff(epsilons) <= 0) and epsilons[0] > epsilons[-1] == 0


# Bounds on delta.


def test_delta_is_bounded_at_every_threshold_by_its_share_of_the_failure_probability():
    shared = plan(Event(0.0, "forward", share=0.85), Event(1.0, "reverse", share=0.15))
    expected = max(
        bounds.delta_clopper_pearson(*errors, 1000, 0.5, (1 - 0.95) * share, side, rare)
        for errors, share, rare in (((400, 200), 0.85, "fpr"), ((10, 300), 0.15, "fnr"))
        for side in SIDES
    )
    assert bounds.delta_at(shared, counts(), 0.5) == pytest.approx(expected, rel=1e-12)


def test_a_threshold_tested_for_many_deltas_is_one_event_for_delta():
    many = bounds.delta_at(conditional(0.0, 1e-5, 1e-3), counts("labelled"), 1.0)
    assert many == bounds.delta_at(conditional(0.0), counts("labelled"), 1.0) > 0


@given(st.floats(0, 8), st.floats(0, 8))
def test_bounds_on_delta_fall_as_epsilon_grows(epsilon, other):
    small, large = (bounds.delta_at(plan(), counts(), one) for one in sorted((epsilon, other)))
    assert small >= large
