import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxaudit import bounds

FLOAT32_SCORES = arrays(np.float32, st.integers(1, 30), elements=st.floats(-1e6, 1e6, width=32))


def paired(h0, shift, stream="pilot"):
    return bounds.Scores(h0, h0 + shift, stream, nested=True)


@pytest.mark.parametrize("shift, tightness", [(1.0, 2.33), (3.0, 6.00)])
def test_paired_certificates_are_as_tight_as_expected(shift, tightness):
    # The expected bound was measured once, for 10,000 draws and 500 pilot draws at δ = 1e-5. A hundred repetitions
    # have their own standard error (near 0.02); four of them below is a false alarm of 3e-5.
    rng = np.random.default_rng(1)

    def certified():
        plan = bounds.robust_pilot(paired(rng.normal(size=500), shift), 10_000, [1e-5], "pc-cp")
        counts = paired(rng.normal(size=10_000), shift, "fresh").count(plan.thresholds)
        return bounds.certify(plan, counts, 1e-5).epsilon

    epsilons = [certified() for _ in range(100)]
    assert np.mean(epsilons) > tightness - 4 * np.std(epsilons) / 10


@pytest.mark.parametrize("method", ["union", "pc-cp"])
@given(FLOAT32_SCORES, st.integers(0, 8))
def test_thresholds_never_tie_with_a_float32_score(method, h0, shift):
    plan = bounds.robust_pilot(paired(h0, np.float32(shift)), 1000, [0.0, 1e-3], method)
    assert np.all(np.float32(plan.thresholds) != plan.thresholds)


@pytest.mark.parametrize("method", ["union", "pc-cp"])
@pytest.mark.parametrize("deltas", [(0.0,), (1e-3, 1e-5), (0.0, 1e-6, 1e-4, 1e-2, 0.1)])
def test_a_plan_has_at_most_four_events_for_each_delta(method, deltas):
    plan = bounds.robust_pilot(paired(np.random.default_rng(2).normal(size=300), 2.0), 1000, deltas, method)
    assert plan.deltas == deltas
    assert 0 < len(plan.events) <= 4 * len(deltas)
    assert len(set(plan.events)) == len(plan.events)


def test_events_name_their_delta_only_where_they_pay_for_it():
    pilot = paired(np.random.default_rng(3).normal(size=300), 2.0)
    assert {event.delta for event in bounds.robust_pilot(pilot, 1000, [0.0, 1e-3], "pc-cp").events} == {0.0, 1e-3}
    assert {event.delta for event in bounds.robust_pilot(pilot, 1000, [0.0, 1e-3], "union").events} == {None}


@pytest.mark.parametrize("method", ["union", "pc-cp"])
def test_some_threshold_lies_between_the_atoms_of_scores_of_two_values(method):
    h0 = np.repeat([0.0, 1.0], [190, 10])
    h1 = np.repeat([0.0, 1.0], [10, 190])
    plan = bounds.robust_pilot(bounds.Scores(h0, h1, "pilot", nested=True), 1000, [0.0], method)
    for direction in ("forward", "reverse"):
        assert any(0 < event.threshold < 1 for event in plan.events if event.direction == direction)


@pytest.mark.parametrize("h0, h1", [([2.0] * 9, [2.0] * 9), ([0.0] * 9, [1.0] * 9), ([1.0], [1.0])])
def test_scores_without_spread_still_get_a_plan(h0, h1):
    assert bounds.robust_pilot(bounds.Scores(h0, h1, "pilot"), 1000, [1e-3]).events


def test_a_plan_remembers_its_stream():
    assert bounds.robust_pilot(paired(np.arange(9.0), 1.0, "first half"), 100, [0.0]).stream == "first half"


def test_paired_method_refuses_scores_that_are_not_nested():
    with pytest.raises(ValueError, match="pc-cp needs nested paired trials: use the union method"):
        bounds.robust_pilot(bounds.Scores(np.zeros(9), np.ones(9), "pilot"), 100, [0.0], "pc-cp")


@pytest.mark.parametrize(
    "deltas, message", [([], "at least one delta"), ([1.0], "delta must be in"), ([0.0, np.nan], "delta must be in")]
)
def test_deltas_outside_their_range_are_refused(deltas, message):
    with pytest.raises(ValueError, match=message):
        bounds.robust_pilot(paired(np.arange(9.0), 1.0), 100, deltas)
