"""What every certificate has in common: what it does with its arguments, its ceiling, and what it is sound for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxaudit import bounds

# The others are calibrated for each number of trials, or looked at in their own files.
QUICK = ("union", "pc-cp", "cc-cp")
EVERY_METHOD = pytest.mark.parametrize("name", QUICK)
OTHER = {"forward": "reverse", "reverse": "forward"}
DELTAS = st.one_of(st.just(0.0), st.floats(1e-12, 0.999))
SIGNIFICANCES = st.floats(1e-9, 0.5)
DIRECTIONS = st.sampled_from(sorted(OTHER))


@st.composite
def observed(draw):
    """Any errors of any number of trials: (false positives, false negatives, trials)."""
    trials = draw(st.integers(1, 10**7))
    return draw(st.integers(0, trials)), draw(st.integers(0, trials)), (trials, trials)


@pytest.mark.parametrize("delta", [0.0, 1e-3, 0.5, 0.7994])
@pytest.mark.parametrize("trials", [5000, 10**8])
def test_union_ceiling_has_its_closed_form(trials, delta):
    fpr, fnr = -np.expm1(np.log([0.8 * 0.05, 0.2 * 0.05]) / trials)
    assert bounds.ceiling(trials, delta, 0.05, "union") == pytest.approx(np.log((1 - delta - fnr) / fpr), abs=1e-6)


def test_paired_ceiling_spends_everything_on_one_limit():
    assert bounds.ceiling(5000, 0.0, 0.05, "pc-cp") == pytest.approx(
        -np.log(-np.expm1(np.log(0.05) / 5000)), abs=1e-6
    )


def test_labelled_ceiling_is_the_log_odds_of_one_limit():
    # Of 4800 and 5200 trials the more numerous ones give the ceiling.
    share = np.log(0.05) / 5200
    assert bounds.ceiling((4800, 5200), 0.0, 0.05, "cc-cp") == pytest.approx(
        share - np.log(-np.expm1(share)), abs=1e-6
    )


@pytest.mark.parametrize(
    "design, method", [("nested", "pc-cp"), ("labelled", "cc-cp"), ("paired", "union"), ("independent", "union")]
)
def test_the_best_method_is_sound_for_its_design(design, method):
    assert bounds.best_method(design) == method
    assert design in bounds.METHODS[method].designs


def test_conditional_methods_are_sound_for_the_design_they_were_proved_for_only():
    for name, certificate in bounds.METHODS.items():
        proved = {"cc": ("labelled",), "pc": ("nested",)}.get(name[:2])
        assert certificate.designs == (proved or ("paired", "nested", "labelled", "independent"))


def test_every_method_has_an_assumption_in_words_and_its_own_name():
    assert len({certificate.assumption for certificate in bounds.METHODS.values()}) == len(bounds.METHODS)
    assert set(bounds.METHODS) == {"union", "cc-cp", "pc-cp", "band", "cc-anytime", "pc-anytime"}


@EVERY_METHOD
@given(observed(), DELTAS, SIGNIFICANCES)
def test_exchanging_the_hypotheses_exchanges_the_directions(name, observed, delta, significance):
    method, (false_positives, false_negatives, trials) = bounds.METHODS[name].bound, observed
    forward = method(false_positives, false_negatives, trials, delta, significance, "forward")
    assert forward == method(false_negatives, false_positives, trials, delta, significance, "reverse")


@EVERY_METHOD
@given(observed(), DELTAS, SIGNIFICANCES, DIRECTIONS)
def test_bounds_are_never_negative_and_never_above_the_ceiling(name, observed, delta, significance, direction):
    bound = bounds.METHODS[name].bound(*observed, delta, significance, direction)
    assert 0 <= bound <= bounds.ceiling(observed[-1], delta, significance, name) < np.inf


@pytest.mark.parametrize("name", ["union", "cc-cp"])
@given(st.integers(1, 10**6), st.floats(-3, 3), SIGNIFICANCES, DIRECTIONS)
def test_no_bound_of_unequal_trials_exceeds_the_ceiling(name, trials, off, significance, direction):
    # As far from equal as coins fall.
    trials = (trials, max(round(trials + off * trials**0.5), 1))
    bound = bounds.METHODS[name].bound(0, 0, trials, 0.0, significance, direction)
    assert bound <= bounds.ceiling(trials, 0.0, significance, name)


@pytest.mark.parametrize("name, trials", [("cc-cp", (5000, 6000)), ("pc-cp", (5000, 5001))])
@pytest.mark.parametrize("direction", sorted(OTHER))
def test_conditional_bounds_refuse_numbers_of_trials_that_their_design_cannot_give(name, trials, direction):
    with pytest.raises(ValueError, match=r"trials cannot be 5000.* of h0"):
        bounds.METHODS[name].bound(10, 10, trials, 0.0, 0.05, direction)


@pytest.mark.parametrize("name", bounds.METHODS)
@pytest.mark.parametrize("errors", [(-1, 0), (0, 11), (np.nan, 0)])
def test_errors_that_are_no_numbers_of_trials_are_refused(name, errors):
    with pytest.raises(ValueError, match=r"must be in \[0, trials\]"):
        bounds.METHODS[name].bound(*errors, (10, 10), 0.0, 0.05)


@pytest.mark.parametrize("name", bounds.METHODS)
@pytest.mark.parametrize("significance", [0.0, -0.1, np.nan])
def test_significances_outside_their_range_are_refused(name, significance):
    with pytest.raises(ValueError, match="significance must be in"):
        bounds.METHODS[name].bound(1, 1, (10, 10), 0.1, significance)


@EVERY_METHOD
@given(observed(), DELTAS, SIGNIFICANCES, DIRECTIONS)
def test_another_error_never_raises_a_bound(name, observed, delta, significance, direction):
    method, (false_positives, false_negatives, trials) = bounds.METHODS[name].bound, observed
    bound, (most, _) = method(*observed, delta, significance, direction), trials
    assert method(min(false_positives + 1, most), false_negatives, trials, delta, significance, direction) <= bound
    assert method(false_positives, min(false_negatives + 1, most), trials, delta, significance, direction) <= bound


@EVERY_METHOD
@given(observed(), DELTAS, DELTAS, SIGNIFICANCES, DIRECTIONS)
def test_bounds_fall_as_delta_grows(name, observed, delta, other, significance, direction):
    method, (small, large) = bounds.METHODS[name].bound, sorted([delta, other])
    assert method(*observed, large, significance, direction) <= method(*observed, small, significance, direction)


@EVERY_METHOD
@given(observed(), DELTAS, SIGNIFICANCES, SIGNIFICANCES)
def test_bounds_rise_with_the_failure_probability(name, observed, delta, significance, other):
    method, (small, large) = bounds.METHODS[name].bound, sorted([significance, other])
    assert method(*observed, delta, small) <= method(*observed, delta, large)


@EVERY_METHOD
def test_bounds_broadcast(name):
    method = bounds.METHODS[name].bound
    errors, deltas = np.arange(0, 200, 50), np.array([[0.0], [1e-3], [0.1]])
    table = method(errors, 100, (1000, 1000), deltas, 0.05)
    assert table.shape == (3, 4)
    assert table.tolist() == [[float(method(e, 100, (1000, 1000), d, 0.05)) for e in errors] for d in deltas.ravel()]


@pytest.mark.parametrize("name", bounds.METHODS)
def test_unknown_direction_is_refused(name):
    with pytest.raises(ValueError, match="direction must be 'forward' or 'reverse', got 'sideways'"):
        bounds.METHODS[name].bound(1, 1, (10, 10), 0.0, 0.05, "sideways")


@pytest.mark.parametrize("name", bounds.METHODS)
@pytest.mark.parametrize("delta", [-0.1, 1.0, np.nan])
def test_delta_outside_its_range_is_refused(name, delta):
    with pytest.raises(ValueError, match=r"delta must be in \[0, 1\)"):
        bounds.METHODS[name].bound(1, 1, (1000, 1000), delta, 0.05)


def test_unknown_designs_and_methods_are_refused():
    with pytest.raises(ValueError, match="design must be one of paired, nested, labelled, independent"):
        bounds.best_method("coins")
    with pytest.raises(ValueError, match="method must be one of union"):
        bounds.ceiling(10, 0.0, 0.05, "magic")
