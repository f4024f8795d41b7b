from functools import partial
from importlib import import_module

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import ndtri
from scipy.stats import laplace

from jaxaudit import bounds

piloting = import_module("jaxaudit.bounds.pilot")

FLOAT32_SCORES = arrays(np.float32, st.integers(1, 30), elements=st.floats(-1e6, 1e6, width=32))
METHODS = pytest.mark.parametrize("method", ["union", "pc-cp"])
RULES = pytest.mark.parametrize("choose", [bounds.robust_pilot, bounds.gaussian_pilot])
# A sample that looks like its law: quantiles, evenly spaced in probability.
EVEN = (np.arange(1000) + 0.5) / 1000


def paired(h0, shift, stream="pilot"):
    return bounds.Scores(h0, h0 + shift, stream, "nested")


def independent(h0, h1, design="independent"):
    return bounds.Scores(h0, h1, "pilot", design)


def drawn(rng, design, size, shift, stream):
    """Normal scores of `size` trials of each hypothesis, or of so many draws."""
    if design == "nested":
        return paired(rng.normal(size=size), shift, stream)
    heads = rng.binomial(2 * size, 0.5)
    return bounds.Scores(rng.normal(size=2 * size - heads), rng.normal(size=heads) + shift, stream, "labelled")


@pytest.mark.parametrize(
    "method, design, shift, tightness",
    [
        ("pc-cp", "nested", 1.0, 2.33),
        ("pc-cp", "nested", 3.0, 6.00),
        ("cc-cp", "labelled", 1.0, 2.24),
        ("cc-cp", "labelled", 3.0, 5.93),
    ],
)
def test_certificates_are_as_tight_as_expected(method, design, shift, tightness):
    # Of 10,000 trials of each hypothesis and 500 more for the pilot, at δ = 1e-5: the goals of the project. Fifty
    # repetitions have their own standard error (near 0.04); four of them below the goal is a false alarm of 3e-5.
    rng = np.random.default_rng(1)

    def certified():
        plan = bounds.robust_pilot(drawn(rng, design, 500, shift, "pilot"), 10_000, [1e-5], method)
        counts = drawn(rng, design, 10_000, shift, "fresh").count(plan.thresholds)
        return bounds.epsilon_at(plan, counts, 1e-5).epsilon

    epsilons = [certified() for _ in range(50)]
    assert np.mean(epsilons) > tightness - 4 * np.std(epsilons) / np.sqrt(50)


# What is tested.


@METHODS
@RULES
@given(FLOAT32_SCORES, st.integers(0, 8))
def test_thresholds_never_tie_with_a_float32_score(choose, method, h0, shift):
    plan = choose(paired(h0, np.float32(shift)), 1000, [0.0, 1e-3], method)
    assert np.all(np.float32(plan.thresholds) != plan.thresholds)


@METHODS
@pytest.mark.parametrize("deltas", [(0.0,), (1e-3, 1e-5), (0.0, 1e-6, 1e-4, 1e-2, 0.1)])
def test_every_rule_has_one_event_at_most_for_each_delta(method, deltas):
    pilot = paired(np.random.default_rng(2).normal(size=300), 2.0)
    for choose, rules in ((bounds.robust_pilot, 2), (bounds.gaussian_pilot, 1)):
        plan = choose(pilot, 1000, deltas, method)
        assert plan.deltas == deltas
        assert 0 < len(plan.events) <= rules * len(deltas)
        assert len(set(plan.events)) == len(plan.events)


def test_events_name_their_delta_only_where_they_pay_for_it():
    pilot = paired(np.random.default_rng(3).normal(size=300), 2.0)
    assert {event.delta for event in bounds.robust_pilot(pilot, 1000, [0.0, 0.5], "pc-cp").events} == {0.0, 0.5}
    for method in ("union", "band"):
        assert {event.delta for event in bounds.robust_pilot(pilot, 1000, [0.0, 0.5], method).events} == {None}


def test_a_delta_is_not_tested_where_a_larger_one_serves_it_as_well():
    # At a thousand trials, or a million, δ = 1e-6 and 2e-6 differ by one trial at most.
    pilot = paired(ndtri(EVEN), 1.0)
    assert {event.delta for event in bounds.robust_pilot(pilot, 1000, [1e-6, 2e-6], "pc-cp").events} == {2e-6}
    assert {event.delta for event in bounds.robust_pilot(pilot, 1000, [1e-6, 0.3], "pc-cp").events} == {1e-6, 0.3}


@pytest.mark.parametrize("trials", [1000, 10**6])
@pytest.mark.parametrize("law, shift", [(ndtri, 1.0), (ndtri, 3.0), (laplace.ppf, 1.0)])
def test_what_is_not_tested_costs_little(law, shift, trials):
    """Beside a plan that gives each delta a test of its own, with the counts that a pilot of this law expects."""
    deltas, pilot = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1), paired(law(EVEN), shift)
    few = bounds.robust_pilot(pilot, trials, deltas, "pc-cp")
    alone = [bounds.robust_pilot(pilot, trials, [delta], "pc-cp") for delta in deltas]
    every = bounds.Plan("pc-cp", sum((plan.events for plan in alone), ()), deltas, "pilot")
    many = (np.arange(10**5) + 0.5) / 10**5

    def expected(plan):
        counts = paired(law(many), shift, "fresh").count(plan.thresholds)
        errors = (np.rint(found * (trials / 10**5)) for found in (counts.errors_h0, counts.errors_h1))
        typical = bounds.Counts(counts.thresholds, *errors, trials, trials, "fresh", "nested")
        return np.array([bound.epsilon for bound in bounds.privacy_curve(plan, typical, deltas)])

    assert len(few.events) < len(every.events)
    # 0.02 that a delta may lose, and as much again for what a whole count more or less is worth.
    assert np.all(expected(few) > expected(every) - 0.04)


@RULES
@pytest.mark.parametrize("method, design", [("union", "independent"), ("cc-cp", "labelled")])
def test_the_more_promising_direction_is_the_only_one_tested(choose, method, design):
    # Scores of H0 in a narrow and of H1 in a wide law: what H1 alone can reach lies above, and speaks for H1.
    narrow, wide = ndtri(EVEN), 3 * ndtri(EVEN) + 3
    for h0, h1, direction in ((narrow, wide, "forward"), (-wide, -narrow, "reverse")):
        plan = choose(independent(h0, h1, design), 1000, [1e-3], method)
        assert {event.direction for event in plan.events} == {direction}


@METHODS
@pytest.mark.parametrize("deltas", [(0.0,), (1e-5, 1e-4)])
def test_scores_of_two_values_give_one_event_between_them(method, deltas):
    """Two thresholds between which no score lies are one test, which gets the shares of both."""
    h0, h1 = np.repeat([0.0, 1.0], [190, 10]), np.repeat([0.0, 1.0], [10, 190])
    plan = bounds.robust_pilot(bounds.Scores(h0, h1, "pilot", "nested"), 1000, deltas, method)
    (event,) = plan.events
    assert 0 < event.threshold < 1 and event.share == pytest.approx(1)


# The share of the failure probability goes to the rule that suits the scores.


@pytest.mark.parametrize("law, lead", [(ndtri, "gaussian"), (laplace.ppf, "counted")])
def test_most_of_the_failure_probability_goes_to_the_rule_that_suits_the_scores(law, lead):
    # The wider law of H1 settles the direction.
    pilot = independent(law(EVEN), 1.5 * law(EVEN) + 3)
    (fitted,) = bounds.gaussian_pilot(pilot, 10**6, [1e-5]).thresholds
    events = sorted(bounds.robust_pilot(pilot, 10**6, [1e-5]).events, key=lambda event: abs(event.threshold - fitted))
    shares = [event.share for event in events]
    # The first is that of the fit, whose place depends a little on its share.
    assert shares == pytest.approx([0.85, 0.15] if lead == "gaussian" else [0.15, 0.85])


def test_a_gaussian_fit_reaches_tails_that_the_pilot_has_not():
    pilot = paired(ndtri(EVEN), 1.0)
    (event,) = bounds.gaussian_pilot(pilot, 10**9, [1e-6], "pc-cp").events
    assert event.threshold > pilot.h1.max() or event.threshold < pilot.h0.min()


@pytest.mark.parametrize(
    "significance, off", [(st.floats(1e-3, 0.1), 0.03), (st.floats(1e-6, 1e-3), 0.1)], ids=["usual", "small"]
)
def test_the_limit_that_is_planned_with_is_near_the_exact_one(significance, off):
    """Relative to the rarer of errors and successes, where there are ten successes or more."""

    @given(st.integers(100, 10**9), st.floats(0, 1), st.booleans(), significance)
    def near(trials, part, many, level):
        # Powers of the number of trials, so that few are as common as many.
        errors = trials - 10 * (trials / 20) ** part if many else (trials / 2) ** part - 1
        exact, planned = (
            limit(errors, trials, level) for limit in (bounds.clopper_pearson_upper, piloting.approximate_upper)
        )
        assert (1 - planned if many else planned) == pytest.approx(1 - exact if many else exact, rel=off)

    near()


# Pilots of all kinds.


@RULES
@pytest.mark.parametrize("h0, h1", [([2.0] * 9, [2.0] * 9), ([0.0] * 9, [1.0] * 9), ([1.0], [1.0])])
def test_scores_without_spread_still_get_a_plan(choose, h0, h1):
    assert choose(bounds.Scores(h0, h1, "pilot"), 1000, [1e-3]).events


@RULES
def test_a_plan_remembers_its_streams(choose):
    plan = choose(paired(np.arange(9.0), 1.0, "first half"), 100, [0.0], fitted_on=("fit",))
    assert plan.stream == "first half" and plan.fitted_on == ("fit",)


@RULES
def test_a_pilot_from_the_stream_that_fitted_the_score_is_refused(choose):
    with pytest.raises(ValueError, match=r"the score was fitted on stream 'fit'.*need a stream of their own"):
        choose(paired(np.arange(9.0), 1.0, "fit"), 100, [0.0], fitted_on=("other", "fit"))


@RULES
@pytest.mark.parametrize(
    "method, design", [("cc-cp", "paired"), ("cc-cp", "independent"), ("pc-cp", "paired"), ("pc-cp", "labelled")]
)
def test_methods_refuse_pilots_of_designs_they_were_not_proved_for(choose, method, design):
    needs = f"{method} needs .* trials, the pilot's are {design}: use the union method"
    with pytest.raises(ValueError, match=needs):
        choose(bounds.Scores(np.zeros(9), np.ones(9), "pilot", design), 100, [0.0], method)


@pytest.mark.parametrize(
    "choose", [partial(bounds.robust_pilot, paired(np.arange(9.0), 1.0), 100), partial(bounds.declared, [0.5])]
)
@pytest.mark.parametrize(
    "deltas, message", [([], "at least one delta"), ([1.0], "delta must be in"), ([0.0, np.nan], "delta must be in")]
)
def test_deltas_outside_their_range_are_refused(choose, deltas, message):
    with pytest.raises(ValueError, match=message):
        choose(deltas)


@pytest.mark.parametrize(
    "choose", [partial(bounds.robust_pilot, paired(np.arange(9.0), 1.0), 100), partial(bounds.declared, [0.5])]
)
def test_unknown_methods_are_refused(choose):
    with pytest.raises(ValueError, match="method must be one of union"):
        choose([0.0], "magic")


@pytest.mark.parametrize("change", [{"trials": 0}, {"trials": -5}, {"confidence": 0.0}, {"confidence": 1.0}], ids=str)
def test_trials_and_levels_that_nothing_can_be_planned_for_are_refused(change):
    asked = {"trials": 100, "deltas": [0.0]} | change
    with pytest.raises(ValueError, match=next(iter(change))):
        bounds.robust_pilot(paired(np.arange(9.0), 1.0), **asked)


# Thresholds that were declared.


@pytest.mark.parametrize("method", ["union", "band"])
def test_a_declared_threshold_is_one_event_where_one_serves_everything(method):
    plan = bounds.declared([0.0, 1.0, 2.0], [0.0, 1e-3], method)
    assert [(event.threshold, event.direction, event.delta) for event in plan.events] == [
        (0.0, "reverse", None),
        (1.0, "forward", None),
        (2.0, "forward", None),
    ]


@pytest.mark.parametrize("method", ["cc-cp", "pc-cp"])
def test_declared_thresholds_are_tested_in_both_directions_at_every_delta(method):
    plan = bounds.declared([0.0, 1.0], [0.0, 1e-3], method, stream="a talk with the vendor")
    found = {(event.threshold, event.direction, event.delta) for event in plan.events}
    assert found == {
        (place, side, delta) for place in (0.0, 1.0) for side in ("forward", "reverse") for delta in (0.0, 1e-3)
    }
    assert len(plan.events) == 8 and {event.share for event in plan.events} == {1.0}
    assert plan.stream == "a talk with the vendor"


def test_no_thresholds_at_all_are_refused():
    with pytest.raises(ValueError, match="at least one event"):
        bounds.declared([], [0.0])


# The certificate that the pilot chooses.


@pytest.mark.parametrize(
    "design, shift, deltas, method",
    [
        ("nested", 1.0, [1e-5], "pc-cp"),
        ("labelled", 1.0, [1e-5], "cc-cp"),
        ("nested", 3.0, np.geomspace(1e-5, 1e-1, 20), "union"),
        ("labelled", 3.0, np.geomspace(1e-5, 1e-1, 20), "union"),
        ("paired", 1.0, [1e-5], "union"),
        ("independent", 1.0, [1e-5], "union"),
    ],
)
def test_one_delta_takes_a_conditional_certificate_and_many_far_apart_the_union(design, shift, deltas, method):
    # Where the means of 30 simulated bounds differ by 0.06 to 0.15 (benchmarks/designs.py shows it on an audit).
    rng = np.random.default_rng(0)
    h0 = rng.normal(size=5000)
    pilot = bounds.Scores(h0, (h0 if design == "nested" else rng.normal(size=5000)) + shift, "pilot", design)
    plan = bounds.best_plan(pilot, 100_000, deltas)
    assert plan.method == method
    assert plan == bounds.robust_pilot(pilot, 100_000, deltas, method)


@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_scores_of_two_values_have_a_best_plan_too(shift):
    h0 = np.random.default_rng(0).random(500).round()
    plan = bounds.best_plan(bounds.Scores(h0, h0 + shift, "pilot", "nested"), 1000, [1e-3, 1e-5])
    assert plan.method in ("pc-cp", "union") and np.isfinite(plan.thresholds).all()
