import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxaudit import bounds

# Halves, so that ties with each other and with the thresholds are common.
HALVES = st.integers(-6, 6).map(lambda n: n / 2)
SCORES = arrays(np.float64, st.integers(1, 20), elements=HALVES)
THRESHOLDS = arrays(np.float64, st.integers(1, 6), elements=HALVES, unique=True)


thresholds_of = st.lists(st.floats(-2, 2), min_size=1, max_size=9, unique=True).map(sorted)


def counts(**changes):
    """Counts of ten trials at two thresholds."""
    fields = dict(
        thresholds=[0.0, 1.0],
        errors_h0=[3, 1],
        errors_h1=[0, 2],
        trials_h0=10,
        trials_h1=10,
        stream="fresh",
        nested=False,
    )
    return bounds.Counts(**(fields | changes))


def plan(*events, method="union", stream="pilot"):
    return bounds.Plan(method, events, (0.0,), stream)


@given(SCORES, SCORES, THRESHOLDS)
def test_a_tie_counts_as_an_error_under_both_hypotheses(h0, h1, thresholds):
    counted = bounds.Scores(h0, h1, "fresh").count(thresholds)
    assert counted.errors_h0.tolist() == [np.sum(h0 >= t) for t in thresholds]
    assert counted.errors_h1.tolist() == [np.sum(h1 <= t) for t in thresholds]


@given(SCORES, SCORES, SCORES, SCORES, THRESHOLDS)
def test_counts_of_parts_add_up_to_counts_of_the_whole(a0, a1, b0, b1, thresholds):
    parts = [bounds.Scores(h0, h1, "fresh").count(thresholds) for h0, h1 in ((a0, a1), (b0, b1))]
    whole = bounds.Scores(np.append(a0, b0), np.append(a1, b1), "fresh").count(thresholds)
    total = parts[0] + parts[1]
    assert {name: np.asarray(value).tolist() for name, value in asdict(total).items()} == {
        name: np.asarray(value).tolist() for name, value in asdict(whole).items()
    }


@pytest.mark.parametrize("change", [{"stream": "other"}, {"nested": True}, {"thresholds": [0.0, 2.0]}])
def test_counts_of_different_kinds_do_not_add(change):
    with pytest.raises(ValueError, match="same stream, thresholds and design"):
        counts() + counts(**change)


@pytest.mark.parametrize("side, position", [("h0", 2), ("h1", 0)])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused_with_their_index(side, position, bad):
    scores = {"h0": np.zeros(4), "h1": np.ones(4)}
    scores[side][position] = bad
    with pytest.raises(ValueError, match=rf"scores {side}\[{position}\] is {bad}"):
        bounds.Scores(**scores, stream="fresh")


@pytest.mark.parametrize("bad", [np.zeros(0), np.zeros((2, 2)), np.float64(1.0)])
def test_scores_must_be_a_list_of_numbers(bad):
    with pytest.raises(ValueError, match="non-empty one-dimensional array"):
        bounds.Scores(bad, np.ones(4), "fresh")


@pytest.mark.parametrize("h1", [[1.0, 1.9], [1.0, 2.0, 3.0]])
def test_a_nesting_that_does_not_hold_is_refused(h1):
    with pytest.raises(ValueError, match="nested scores need"):
        bounds.Scores([1.0, 2.0], h1, "fresh", nested=True)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"errors_h0": [11, 0]}, r"errors_h0 must be in \[0, 10\]"),
        ({"errors_h1": [0, -1]}, r"errors_h1 must be in \[0, 10\]"),
        ({"errors_h1": [0]}, "same shape"),
        ({"errors_h0": [0.9, 0.0]}, "whole numbers"),
        ({"nested": True, "trials_h0": 20}, "as many trials"),
    ],
)
def test_impossible_counts_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        counts(**change)


def test_errors_are_looked_up_by_their_threshold():
    assert counts().at(1.0) == (1, 2)
    with pytest.raises(ValueError, match=r"threshold 0\.5 was not counted"):
        counts().at(0.5)


@given(thresholds_of, st.data())
def test_some_of_the_thresholds_have_the_counts_they_would_have_alone(every, data):
    rng = np.random.default_rng(0)
    scores = bounds.Scores(rng.normal(size=50), rng.normal(size=50), "fresh")
    some = data.draw(st.lists(st.sampled_from(every), min_size=1, unique=True).map(np.sort))
    found, alone = scores.count(np.array(every)).only(some), scores.count(some)
    np.testing.assert_equal(asdict(found), asdict(alone))


@pytest.mark.parametrize("missing", [0.5, -3.0, 9.0])
def test_thresholds_that_were_not_counted_have_no_counts(missing):
    with pytest.raises(ValueError, match="some of these thresholds were not counted"):
        counts().only([1.0, missing] if missing > 1 else [missing, 1.0])


def test_a_plan_lists_each_threshold_once_and_in_order():
    events = [bounds.Event(t, direction) for t in (2.0, -1.0) for direction in ("forward", "reverse")]
    assert plan(*events).thresholds.tolist() == [-1.0, 2.0]


def test_certificates_refuse_counts_of_the_stream_that_planned_them():
    with pytest.raises(ValueError, match="stream 'fresh', which is also the stream to certify on"):
        bounds.certify(plan(bounds.Event(0.0, "forward"), stream="fresh"), counts(), 0.0)


def test_certificates_refuse_paired_plans_for_counts_that_are_not_nested():
    with pytest.raises(ValueError, match="not nested: use the union method"):
        bounds.certify(plan(bounds.Event(0.0, "forward", 0.0), method="pc-cp"), counts(), 0.0)


@pytest.mark.parametrize(
    "asked, message",
    [
        ({"delta": 1.0}, "delta must be in"),
        ({"delta": np.nan}, "delta must be in"),
        ({"delta": 0.0, "confidence": 1.0}, "confidence must be in"),
    ],
)
def test_certificates_refuse_levels_outside_their_range(asked, message):
    with pytest.raises(ValueError, match=message):
        bounds.certify(plan(bounds.Event(0.0, "forward")), counts(), **asked)


def test_a_paired_event_serves_its_own_delta_and_every_smaller_one():
    planned = plan(bounds.Event(0.0, "forward", 1e-3), method="pc-cp")
    nested = counts(trials_h0=1000, trials_h1=1000, nested=True)
    own, smaller, larger = (bounds.certify(planned, nested, delta).epsilon for delta in (1e-3, 0.0, 1e-2))
    assert own == smaller > 0 == larger


def test_the_failure_probability_is_shared_among_all_events():
    events = [bounds.Event(t, direction) for t in (0.0, 1.0) for direction in ("forward", "reverse")]
    bound = bounds.certify(plan(*events), counts(), 0.0, confidence=0.9)
    assert bound.significance == pytest.approx(0.1 / 4)


def test_a_bound_states_the_event_and_errors_it_rests_on():
    events = (bounds.Event(0.0, "forward"), bounds.Event(1.0, "forward"))
    many = counts(errors_h0=[500, 10], errors_h1=[10, 300], trials_h0=1000, trials_h1=1000)
    bound = bounds.certify(plan(*events), many, 1e-3)
    limits = (10, 300, 1000, 1e-3, bound.significance)
    assert bound.epsilon == bounds.epsilon_clopper_pearson(*limits)
    assert (bound.threshold, bound.errors_h0, bound.errors_h1, bound.trials) == (1.0, 10, 300, 1000)
    assert (bound.direction, bound.kind, bound.delta, bound.confidence) == ("forward", "certified", 1e-3, 0.95)


@pytest.mark.parametrize("trials", [10, np.int64(10)])
def test_a_bound_survives_json_unchanged(trials):
    bound = bounds.certify(plan(bounds.Event(0.0, "forward")), counts(trials_h0=trials, trials_h1=trials), 1e-3)
    assert bounds.Bound(**json.loads(json.dumps(asdict(bound)))) == bound


def test_only_a_certified_bound_is_printed_as_one():
    clear = counts(errors_h0=[0, 0], errors_h1=[0, 0], trials_h0=5000, trials_h1=5000)
    bound = bounds.certify(plan(bounds.Event(0.0, "forward")), clear, 1e-3)
    assert str(bound) == "ε ≥ 7.346 at δ = 0.001 (95% confidence, limited by the trials)"
    assert str(replace(bound, kind="estimate", epsilon=3.0, errors_h0=9)) == "ε ≈ 3.000 at δ = 0.001 (95% confidence)"
