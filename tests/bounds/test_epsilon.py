import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from jaxaudit import bounds
from jaxaudit.bounds.epsilon import delta_offset

METHODS = {"union": bounds.epsilon_clopper_pearson, "pc-cp": bounds.epsilon_paired}
EVERY_METHOD = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
OTHER = {"forward": "reverse", "reverse": "forward"}
DELTAS = st.one_of(st.just(0.0), st.floats(1e-12, 0.999))
SIGNIFICANCES = st.floats(1e-9, 0.5)
DIRECTIONS = st.sampled_from(sorted(OTHER))


@st.composite
def observed(draw):
    """Any errors of any number of trials: (false positives, false negatives, trials)."""
    trials = draw(st.integers(1, 10**7))
    return draw(st.integers(0, trials)), draw(st.integers(0, trials)), trials


@pytest.mark.parametrize("delta", [0.0, 1e-3, 0.5, 0.7994])
@pytest.mark.parametrize("trials", [5000, 10**8])
def test_union_ceiling_has_its_closed_form(trials, delta):
    fpr, fnr = -np.expm1(np.log([0.8 * 0.05, 0.2 * 0.05]) / trials)
    assert bounds.ceiling(trials, delta, 0.05, "union") == pytest.approx(np.log((1 - delta - fnr) / fpr), abs=1e-6)


def test_paired_ceiling_spends_everything_on_one_limit():
    assert bounds.ceiling(5000, 0.0, 0.05, "pc-cp") == pytest.approx(
        -np.log(-np.expm1(np.log(0.05) / 5000)), abs=1e-6
    )


@pytest.mark.parametrize("errors", [(0, 0), (2, 300), (40, 900), (0, 999)])
@pytest.mark.parametrize("delta", [0.0, 1e-3])
def test_union_bound_is_the_log_ratio_of_its_two_limits(errors, delta):
    fpr = float(reference.clopper_pearson_upper(errors[0], 1000, 0.8 * 0.05))
    fnr = float(reference.clopper_pearson_upper(errors[1], 1000, 0.2 * 0.05))
    expected = np.log(max(1 - fnr - delta, fpr) / fpr)
    assert bounds.epsilon_clopper_pearson(*errors, 1000, delta, 0.05) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("errors", [(0, 0), (2, 300), (40, 900), (0, 999)])
@pytest.mark.parametrize("delta", [0.0, 1e-3, 0.1])
def test_paired_bound_is_the_conditional_limit_without_the_delta_trials(errors, delta):
    spent = 0.05 * 0.05 if delta else 0.0
    kept = 1000 - errors[1] - smallest_offset(1000, delta, spent)
    expected = (
        -np.log(float(reference.clopper_pearson_upper(errors[0], kept, 0.05 - spent))) if kept > errors[0] else 0
    )
    assert bounds.epsilon_paired(*errors, 1000, delta, 0.05) == pytest.approx(expected, abs=1e-6)


def smallest_offset(trials, delta, significance):
    """The smallest c with P(Bin(trials, delta) > c) <= significance, by trying them all."""
    return int(np.argmax(binom.sf(np.arange(trials + 1), trials, delta) <= significance))


@pytest.mark.parametrize("trials", [1, 7, 100, 3000])
@pytest.mark.parametrize("delta", [0.0, 1e-9, 1e-3, 0.02, 0.5, 0.99])
@pytest.mark.parametrize("significance", [0.3, 0.0025, 1e-6, 1e-12])
def test_delta_offset_is_the_smallest_that_covers_the_tail(trials, delta, significance):
    assert delta_offset(trials, delta, significance) == smallest_offset(trials, delta, significance)


@given(st.integers(10**6, 10**12), st.floats(1e-12, 1e-9), st.floats(1e-12, 0.5))
def test_delta_offset_is_the_smallest_for_very_many_trials(trials, delta, significance):
    count = int(delta_offset(trials, delta, significance))
    assert 1 - reference.binomial_cdf(count, trials, delta) <= significance
    assert count == 0 or 1 - reference.binomial_cdf(count - 1, trials, delta) > significance


@EVERY_METHOD
@given(observed(), DELTAS, SIGNIFICANCES)
def test_exchanging_the_hypotheses_exchanges_the_directions(method, observed, delta, significance):
    false_positives, false_negatives, trials = observed
    forward = method(false_positives, false_negatives, trials, delta, significance, "forward")
    assert forward == method(false_negatives, false_positives, trials, delta, significance, "reverse")


@EVERY_METHOD
@given(observed(), DELTAS, SIGNIFICANCES, DIRECTIONS)
def test_bounds_are_finite_and_never_negative(method, observed, delta, significance, direction):
    bound = method(*observed, delta, significance, direction)
    assert np.isfinite(bound)
    assert bound >= 0


@pytest.mark.parametrize("name", METHODS)
@given(observed(), DELTAS, SIGNIFICANCES, DIRECTIONS)
def test_no_bound_exceeds_the_ceiling(name, observed, delta, significance, direction):
    bound = METHODS[name](*observed, delta, significance, direction)
    assert bound <= bounds.ceiling(observed[-1], delta, significance, name)


@given(st.integers(1, 10**6), st.integers(1, 10**6), SIGNIFICANCES, DIRECTIONS)
def test_no_union_bound_of_unequal_trials_exceeds_the_ceiling(trials_h0, trials_h1, significance, direction):
    trials = (trials_h0, trials_h1)
    bound = bounds.epsilon_clopper_pearson(0, 0, trials, 0.0, significance, direction)
    assert bound <= bounds.ceiling(trials, 0.0, significance, "union")


@EVERY_METHOD
@given(observed(), DELTAS, SIGNIFICANCES, DIRECTIONS)
def test_another_error_never_raises_a_bound(method, observed, delta, significance, direction):
    false_positives, false_negatives, trials = observed
    bound = method(*observed, delta, significance, direction)
    assert method(min(false_positives + 1, trials), false_negatives, trials, delta, significance, direction) <= bound
    assert method(false_positives, min(false_negatives + 1, trials), trials, delta, significance, direction) <= bound


@EVERY_METHOD
@given(observed(), DELTAS, DELTAS, SIGNIFICANCES)
def test_bounds_fall_as_delta_grows(method, observed, delta, other, significance):
    small, large = sorted([delta, other])
    assert method(*observed, large, significance) <= method(*observed, small, significance)


@EVERY_METHOD
def test_bounds_broadcast(method):
    errors, deltas = np.arange(0, 200, 50), np.array([[0.0], [1e-3], [0.1]])
    table = method(errors, 100, 1000, deltas, 0.05)
    assert table.shape == (3, 4)
    assert table.tolist() == [[float(method(e, 100, 1000, d, 0.05)) for e in errors] for d in deltas.ravel()]


@EVERY_METHOD
def test_unknown_direction_is_refused(method):
    with pytest.raises(ValueError, match="direction must be 'forward' or 'reverse', got 'sideways'"):
        method(1, 1, 10, 0.0, 0.05, "sideways")


def test_unknown_rare_error_is_refused():
    with pytest.raises(ValueError, match="rare must be 'fpr' or 'fnr', got 'both'"):
        bounds.epsilon_clopper_pearson(1, 1, 10, 0.0, 0.05, rare="both")


@EVERY_METHOD
@pytest.mark.parametrize("delta", [-0.1, 1.0, np.nan])
def test_delta_outside_its_range_is_refused(method, delta):
    with pytest.raises(ValueError, match="delta must be in"):
        method(1, 1, 1000, delta, 0.05)
