"""What is planned is what happens: against exact expectations, and against certificates of simulated scores."""

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import beta, binom

from jaxaudit import bounds
from jaxaudit.bounds.planning import expected_epsilon, leading_significance, trials_needed

EVERY_METHOD = pytest.mark.parametrize("method", bounds.METHODS)
# Trials for 80, 90 and 95 % of the true epsilon by the union at 5 %, from the exact expectation below, whose steps in
# trials are 0.2 %. The table of the field notes has the same to about 8 %.
KNOWN_TRIALS = {
    (1.0, 1e-5): (1.70e6, 1.86e7, 1.13e8),
    (3.0, 1e-3): (1.41e7, 2.51e8, 1.88e9),
    (3.0, 1e-5): (4.19e9, 2.05e11, 2.35e12),
}


def mean_over_errors(value, rate, trials):
    """Mean of a function of a binomial number of errors, over every number within seven deviations."""
    middle, spread = trials * rate, 7 * np.sqrt(trials * rate * (1 - rate)) + 7
    errors = np.arange(max(0, int(middle - spread)), min(trials - 1, int(middle + spread)) + 1)
    return float(np.sum(binom.pmf(errors, trials, rate) * value(errors)))


def exact_expectation(distance, trials, delta, places):
    """The mean union bound at the best of some thresholds: two sums, where the bound is not 0."""

    def common(misses):
        return np.log(beta.ppf(0.2 * 0.05, trials - misses, misses + 1) - delta)

    def rare(errors):
        return np.log(beta.isf(0.8 * 0.05, errors + 1, trials - errors))

    return max(
        mean_over_errors(common, ndtr(place - distance), trials) - mean_over_errors(rare, ndtr(-place), trials)
        for place in places
    )


@pytest.mark.parametrize(
    "distance, trials, delta, places",
    [
        (1.0, 10_000, 1e-5, np.arange(2.6, 3.3, 0.05)),
        (1.0, 1_000_000, 1e-3, np.arange(3.2, 3.9, 0.1)),
        (3.0, 10_000, 1e-5, np.arange(3.3, 4.0, 0.05)),
    ],
)
def test_the_expected_bound_is_the_mean_over_the_numbers_of_errors(distance, trials, delta, places):
    known = exact_expectation(distance, trials, delta, places)
    assert expected_epsilon(distance, trials, delta, "union", 0.05) == pytest.approx(known, abs=0.004)


@pytest.mark.parametrize("distance, delta", KNOWN_TRIALS)
def test_trials_needed_are_those_of_the_known_table(distance, delta):
    found = [trials_needed(distance, delta, within, "union", 0.05) for within in (0.2, 0.1, 0.05)]
    assert found == pytest.approx(KNOWN_TRIALS[distance, delta], rel=0.02)


def simulated(rng, method, trials, delta):
    """A certificate of Gaussian scores at distance 1 by the robust pilot."""
    design = {"cc-cp": "labelled", "pc-cp": "nested", "union": "independent"}[method]

    def scores(number, stream):
        h0 = rng.standard_normal(number)
        return bounds.Scores(h0, (h0 if design == "nested" else rng.standard_normal(number)) + 1.0, stream, design)

    plan = bounds.robust_pilot(scores(1000, "pilot"), trials, [delta], method)
    return bounds.epsilon_at(plan, scores(trials, "certify").count(plan.thresholds), delta).epsilon


@pytest.mark.parametrize("method", ["union", "cc-cp", "pc-cp"])
def test_certificates_are_on_average_what_was_planned(method):
    # The mean of 200 certificates has a standard error of 0.6 % or so; four of them beside 2 % for the pilot's own
    # error make a false alarm less likely than 1e-4.
    rng = np.random.default_rng(11)
    found = np.array([simulated(rng, method, 10_000, 1e-5) for _ in range(200)])
    expected = expected_epsilon(1.0, 10_000, 1e-5, method, leading_significance(0.95))
    assert found.mean() == pytest.approx(expected, abs=0.02 * expected + 4 * found.std() / np.sqrt(200))


@EVERY_METHOD
@pytest.mark.parametrize("distance", [0.0, 0.3, 3.0, 50.0])
def test_no_plan_exceeds_its_ceiling(method, distance):
    expected = expected_epsilon(distance, 5000, 1e-3, method, 0.05)
    assert 0 <= expected <= bounds.ceiling(5000, 1e-3, 0.05, method)
    assert (expected == 0) == (distance == 0) or distance == 0.3


def test_a_plan_that_nothing_disturbs_is_at_the_ceiling():
    assert expected_epsilon(50.0, 5000, 1e-3, "union", 0.05) == bounds.ceiling(5000, 1e-3, 0.05, "union")


def test_more_trials_promise_more_and_never_more_than_there_is():
    promised = [expected_epsilon(1.0, 10**k, 1e-3, "pc-cp", 0.05) for k in range(2, 14)]
    assert promised == sorted(promised) and promised[-1] == pytest.approx(
        bounds.gaussian_epsilon(1e-3, 1.0), rel=1e-3
    )
    assert promised[-1] < bounds.gaussian_epsilon(1e-3, 1.0)


def test_as_many_trials_as_were_planned_are_enough_and_fewer_are_not():
    wanted = 0.9 * bounds.gaussian_epsilon(1e-3, 1.0)
    trials = trials_needed(1.0, 1e-3, 0.1, "cc-cp", 0.05)
    assert expected_epsilon(1.0, trials, 1e-3, "cc-cp", 0.05) >= wanted
    assert expected_epsilon(1.0, int(0.995 * trials), 1e-3, "cc-cp", 0.05) < wanted


def test_what_no_number_of_trials_shows_is_said_to_be_so():
    assert trials_needed(6.0, 1e-5, 0.05, "union", 0.05) is None


def test_cells_and_the_second_rule_of_the_pilot_take_their_shares():
    rng = np.random.default_rng(3)
    pilot = bounds.Scores(rng.standard_normal(2000), rng.standard_normal(2000) + 1, "pilot")
    shares = [event.share for event in bounds.robust_pilot(pilot, 10_000, [1e-3]).events]
    assert leading_significance(0.95) == pytest.approx(0.05 * max(shares) / sum(shares))
    assert leading_significance(0.95, 9) == pytest.approx(leading_significance(0.95) / 9)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"distance": -1.0}, "distance must be finite and >= 0, got -1.0"),
        ({"distance": np.nan}, "distance must be finite and >= 0, got nan"),
        ({"distance": np.inf}, "distance must be finite and >= 0, got inf"),
        ({"method": "exact"}, "method must be one of union"),
        ({"significance": 0.0}, r"significance must be in \(0, 1\), got 0.0"),
        ({"delta": 1.0}, "delta must be in"),
        ({"trials": 0}, "trials must be in"),
        ({"trials": 10**14}, "trials must be in"),
        ({"within": 0.0}, "within must be in"),
        ({"within": np.nan}, "within must be in"),
    ],
)
def test_values_outside_their_range_are_refused(change, message):
    given = {"distance": 1.0, "trials": 100, "delta": 1e-3, "within": 0.1, "method": "union", "significance": 0.05}
    given |= change
    if "within" not in change:
        with pytest.raises(ValueError, match=message):
            expected_epsilon(*(given[name] for name in ("distance", "trials", "delta", "method", "significance")))
    if "trials" not in change:
        with pytest.raises(ValueError, match=message):
            trials_needed(*(given[name] for name in ("distance", "delta", "within", "method", "significance")))


@pytest.mark.parametrize("distance, delta, predicted", [(1.0, 0.0, "inf"), (0.0, 1e-3, "0"), (0.1, 0.5, "0")])
def test_nothing_is_planned_where_no_finite_epsilon_is_predicted(distance, delta, predicted):
    with pytest.raises(ValueError, match=f"predicts epsilon {predicted} at delta"):
        trials_needed(distance, delta, 0.1, "union", 0.05)


@pytest.mark.parametrize("confidence", [0.0, 1.0, np.nan])
def test_confidence_outside_its_range_is_refused(confidence):
    with pytest.raises(ValueError, match="confidence must be in"):
        leading_significance(confidence)
