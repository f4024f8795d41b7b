import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxaudit import bounds

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
DELTAS = st.floats(0, 1, exclude_max=True)
DESIGNS = st.sampled_from(["paired", "nested", "labelled", "independent"])
SIDES = st.sampled_from(["forward", "reverse"])
METHODS = st.sampled_from(sorted(bounds.METHODS))
# Without the sign that makes one stream a part of another.
STREAMS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=">"))
COUNTS = {
    "jaxaudit": 1,
    "record": "counts",
    "thresholds": [0.5],
    "errors_h0": [3],
    "errors_h1": [4],
    "trials_h0": 10,
    "trials_h1": 12,
    "stream": "mine",
    "design": "paired",
}
EVENT = {"threshold": 0.5, "direction": "forward", "delta": 0.0, "share": 1.0}
PLAN = {
    "jaxaudit": 1,
    "record": "plan",
    "method": "cc-cp",
    "events": [EVENT],
    "deltas": [0.0],
    "stream": "mine",
    "fitted_on": [],
}


@st.composite
def counted(draw):
    trials, size = draw(st.integers(1, 10**15)), draw(st.integers(1, 5))
    errors = st.lists(st.integers(0, trials), min_size=size, max_size=size)
    thresholds = draw(st.lists(NUMBERS, min_size=size, max_size=size, unique=True))
    return bounds.Counts(thresholds, draw(errors), draw(errors), trials, trials, draw(st.text()), draw(DESIGNS))


@st.composite
def planned(draw):
    shares = st.floats(1e-6, 1e6)
    events = st.lists(st.builds(bounds.Event, NUMBERS, SIDES, DELTAS, shares), min_size=1, max_size=5).map(tuple)
    fitted_on = draw(st.lists(STREAMS).map(tuple))
    stream = draw(STREAMS.filter(lambda name: name not in fitted_on))
    return bounds.Plan(draw(METHODS), draw(events), tuple(draw(st.lists(DELTAS))), stream, fitted_on)


BOUNDS = st.builds(
    bounds.Bound,
    epsilon=st.floats(0, 700),
    delta=DELTAS,
    confidence=st.floats(0, 1, exclude_min=True, exclude_max=True),
    method=METHODS,
    kind=st.sampled_from(["certified", "estimate"]),
    assumption=st.text(),
    direction=SIDES,
    threshold=NUMBERS,
    errors_h0=st.integers(0, 2**53),
    errors_h1=st.integers(0, 2**53),
    trials=st.integers(1, 2**53),
    ceiling=st.floats(0, 700),
    significance=DELTAS,
    design=DESIGNS,
)


@given(counted())
def test_counts_survive_to_the_bit(record):
    np.testing.assert_equal(vars(bounds.from_json(bounds.to_json(record))), vars(record))


@given(st.one_of(planned(), BOUNDS))
def test_plans_and_bounds_survive_to_the_bit(record):
    assert bounds.from_json(bounds.to_json(record)) == record


def test_a_bound_can_be_had_again_from_what_was_written():
    rng = np.random.default_rng(0)
    pilot, rest = bounds.split(bounds.Scores(rng.normal(size=500), rng.normal(size=500) + 2, "mine"), seed=0)
    plan = bounds.robust_pilot(pilot, 450, [1e-3])
    counts = rest.count(plan.thresholds)
    written = [bounds.to_json(record) for record in (plan, counts)]
    assert bounds.epsilon_at(*map(bounds.from_json, written), 1e-3) == bounds.epsilon_at(plan, counts, 1e-3)


def test_counts_of_privacy_estimates_are_understood():
    # Their true positives are decisions for H1 in trials of H1; what they are missing is a false negative.
    counts = bounds.from_json('{"FN": 100, "FP": 20, "TN": 980, "TP": 900}')
    assert counts.at(0.0) == (20, 100) and counts.trials == (1000, 1000) and counts.design == "paired"
    bound = bounds.epsilon_at(bounds.declared(counts.thresholds, [0.0]), counts, 0.0)
    assert bound.epsilon == bounds.epsilon_clopper_pearson(20, 100, 1000, 0.0, bound.significance) > 3


@pytest.mark.parametrize(
    "text, message",
    [
        ("nope", "not JSON"),
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1, 2]", "holds no record"),
        ("{}", "record is None, allowed are counts, plan, bound"),
        ('{"FN": 1, "FP": 2, "TN": 8}', "FN, FP, TN and TP"),
        ('{"FN": 1.5, "FP": 2, "TN": 8, "TP": 9}', r"FN is 1\.5, allowed are whole numbers"),
        ('{"FN": -1, "FP": 2, "TN": 8, "TP": 9}', "FN is -1, allowed are whole numbers"),
        ('{"FN": true, "FP": 2, "TN": 8, "TP": 9}', "FN is True, allowed are whole numbers"),
        ('{"FN": 0, "FP": 2, "TN": 8, "TP": 0}', "must be 1 or more"),
        ('{"FN": 1' + "0" * 30 + ', "FP": 2, "TN": 8, "TP": 9}', "FN"),
    ],
    ids=lambda text: text[:24],
)
def test_texts_that_hold_no_record_are_refused(text, message):
    refused(text, message)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"jaxaudit": 2}, "format 2, this version of jaxaudit reads 1"),
        ({"record": "scores"}, "record is 'scores'"),
        ({"record": ["counts"]}, "record is"),
        ({"more": 1}, "counts with missing or unknown fields: more"),
        ({"errors_h0": [1.0]}, "whole numbers"),
        ({"errors_h0": ["1"]}, "whole numbers"),
        ({"errors_h0": 3}, "counts"),
        ({"errors_h0": [[3]]}, "whole numbers"),
        ({"errors_h0": [10**30]}, "errors_h0|counts"),
        ({"errors_h0": [11]}, r"errors_h0 must be in \[0, 10\]"),
        ({"trials_h0": "10"}, "whole numbers"),
        ({"trials_h0": -10}, "trials_h0|errors_h0"),
        ({"thresholds": [float("nan")]}, "thresholds"),
        ({"thresholds": ["a"]}, "a"),
        ({"thresholds": None}, "thresholds"),
        ({"design": "odd"}, "design must be one of"),
        ({"design": ["paired"]}, "design must be one of"),
        ({"stream": 7}, "stream"),
    ],
    ids=str,
)
def test_counts_with_a_wrong_field_are_refused(change, message):
    refused(json.dumps(COUNTS | change), message)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"method": "magic"}, "method must be one of"),
        ({"method": ["union"]}, "method must be one of"),
        ({"events": []}, "at least one event"),
        ({"events": 5}, "plan"),
        ({"events": [5]}, "plan"),
        ({"events": [EVENT | {"more": 1}]}, "plan"),
        ({"events": [EVENT | {"threshold": "a"}]}, "plan"),
        ({"events": [EVENT | {"direction": "up"}]}, "direction must be"),
        ({"events": [EVENT | {"delta": None}]}, "needs its delta"),
        ({"events": [EVENT | {"delta": "a"}]}, "delta"),
        ({"events": [EVENT | {"delta": 1.5}]}, "delta"),
        ({"deltas": 5}, "plan"),
        ({"deltas": ["a"]}, "delta"),
        ({"fitted_on": ["mine"]}, "fitted on stream 'mine'"),
    ],
    ids=str,
)
def test_plans_with_a_wrong_field_are_refused(change, message):
    refused(json.dumps(PLAN | change), message)


@pytest.mark.parametrize(
    "change", [{"epsilon": "high"}, {"delta": None}, {"trials": []}, {"kind": 3}, {"direction": "up"}], ids=str
)
def test_bounds_with_a_wrong_field_are_refused(change):
    bound = bounds.epsilon_at(bounds.declared([0.5], [0.0]), bounds.from_json(json.dumps(COUNTS)), 0.0)
    refused(json.dumps(json.loads(bounds.to_json(bound)) | change), "bound")


def refused(text, message):
    """With a ValueError of one line."""
    with pytest.raises(ValueError, match=message) as error:
        bounds.from_json(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("record", [bounds.Event(0.0, "forward"), {"record": "counts"}, None, 3.0])
def test_nothing_but_counts_plans_and_bounds_is_written(record):
    with pytest.raises(ValueError, match="only counts, plans and bounds"):
        bounds.to_json(record)


def test_what_json_has_no_number_for_is_not_written():
    counts = bounds.from_json(json.dumps(COUNTS))
    with pytest.raises(ValueError, match="JSON"):
        bounds.to_json(replace(counts, thresholds=np.array([np.inf])))
