from functools import cache

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import gammaln
from scipy.stats import binom

from jaxaudit import bounds

ERRORS = [(0, 0), (2, 300), (40, 900), (0, 999)]
SIDES = ("forward", "reverse")
SHARES = {"fpr": (0.8, 0.2), "fnr": (0.2, 0.8)}
COUNTS = st.integers(1, 10**5).flatmap(lambda n: st.tuples(st.integers(0, n), st.integers(0, n), st.just(n)))


def limits(errors, significance, rare="fpr"):
    """Upper limits for both error rates of 1000 trials, from the oracle."""
    return (upper(error, 1000, share * significance) for error, share in zip(errors, SHARES[rare]))


@cache
def upper(errors, trials, significance):
    return float(reference.clopper_pearson_upper(errors, trials, significance))


@pytest.mark.parametrize("errors", ERRORS)
@pytest.mark.parametrize("delta", [0.0, 1e-3])
def test_union_bound_is_the_log_ratio_of_its_two_limits(errors, delta):
    fpr, fnr = limits(errors, 0.05)
    expected = np.log(max(1 - fnr - delta, fpr) / fpr)
    assert bounds.epsilon_clopper_pearson(*errors, 1000, delta, 0.05) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("errors", ERRORS)
@pytest.mark.parametrize("epsilon", [0.0, 1.0, 4.0])
def test_delta_bound_is_the_difference_of_its_two_limits(errors, epsilon):
    fpr, fnr = limits(errors, 0.05)
    expected = max(1 - fnr - np.exp(epsilon) * fpr, 0)
    assert bounds.delta_clopper_pearson(*errors, 1000, epsilon, 0.05) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("direction", SIDES)
@pytest.mark.parametrize("rare", SHARES)
def test_one_pair_of_limits_serves_both_directions(direction, rare):
    fpr, fnr = limits((2, 30), 0.05, rare)
    scarce, common = (fpr, fnr) if direction == "forward" else (fnr, fpr)
    on_epsilon = bounds.epsilon_clopper_pearson(2, 30, 1000, 1e-3, 0.05, direction, rare)
    on_delta = bounds.delta_clopper_pearson(2, 30, 1000, 1.0, 0.05, direction, rare)
    assert on_epsilon == pytest.approx(np.log((1 - common - 1e-3) / scarce), abs=1e-6)
    assert on_delta == pytest.approx(1 - common - np.e * scarce, abs=1e-6)


@given(COUNTS, st.floats(0, 12), st.floats(1e-6, 0.9), st.sampled_from(SIDES))
def test_bounds_on_epsilon_and_delta_say_the_same(counted, epsilon, delta, direction):
    """δ is refuted at ε exactly where ε is refuted at δ: one pair of limits, read along either axis."""
    on_epsilon = bounds.epsilon_clopper_pearson(*counted, delta, 0.05, direction)
    on_delta = bounds.delta_clopper_pearson(*counted, epsilon, 0.05, direction)
    if abs(on_epsilon - epsilon) > 1e-9 and epsilon > 0:
        assert (on_epsilon > epsilon) == (on_delta > delta)


@given(COUNTS, st.floats(0, 12), st.floats(0, 12), st.sampled_from(SIDES))
def test_delta_bounds_are_probabilities_that_fall_as_epsilon_grows(counted, epsilon, other, direction):
    small, large = (bounds.delta_clopper_pearson(*counted, one, 0.05, direction) for one in sorted((epsilon, other)))
    assert 0 <= large <= small <= 1


def test_nothing_is_left_of_delta_at_a_very_large_epsilon():
    assert bounds.delta_clopper_pearson(0, 0, 10**6, [50.0, 800.0, np.inf], 0.05).tolist() == [0, 0, 0]


# The guarantee, over all outcomes of twenty trials of each hypothesis, weighed exactly. One pair of limits serves
# every delta, every epsilon and both directions, so the failure is that any of these bounds exceeds the truth.

TRIALS = 20
FALSE_POSITIVES, FALSE_NEGATIVES = np.indices((TRIALS + 1, TRIALS + 1))


def independent(q, p):
    return binom.pmf(FALSE_POSITIVES, TRIALS, q) * binom.pmf(FALSE_NEGATIVES, TRIALS, 1 - p)


def one_draw_nested(q, p):
    """One draw for both, where the event of chance q lies in that of chance p: never two errors in one draw."""
    rest = TRIALS - FALSE_POSITIVES - FALSE_NEGATIVES
    return multinomial((FALSE_POSITIVES, FALSE_NEGATIVES, rest), (q, 1 - p, p - q))


def one_draw_errors_together(q, p):
    """One draw for both, whose errors come together as often as can be."""
    turned = q > 1 - p
    fewer, more = (FALSE_NEGATIVES, FALSE_POSITIVES) if turned else (FALSE_POSITIVES, FALSE_NEGATIVES)
    rates = (1 - p, q - (1 - p), 1 - q) if turned else (q, 1 - p - q, p)
    return multinomial((fewer, more - fewer, TRIALS - more), rates)


def multinomial(counts, rates):
    """Chances of counts, which may be negative and then have none."""
    orders = gammaln(TRIALS + 1) - sum(gammaln(1.0 + count) for count in counts)
    return np.exp(orders + sum(count * np.log(max(rate, 1e-300)) for count, rate in zip(counts, rates)))


@pytest.mark.parametrize("rare", SHARES)
@pytest.mark.parametrize("weigh", [independent, one_draw_nested, one_draw_errors_together])
def test_all_union_bounds_of_a_threshold_hold_together_exactly(weigh, rare):
    deltas, significance = (0.0, 0.03, 0.3), 0.2
    found = {
        (side, delta): bounds.epsilon_clopper_pearson(
            FALSE_POSITIVES, FALSE_NEGATIVES, TRIALS, delta, significance, side, rare
        )
        for side in SIDES
        for delta in deltas
    }
    epsilons = (0.0, 0.5, 2.0)
    others = {
        (side, eps): bounds.delta_clopper_pearson(
            FALSE_POSITIVES, FALSE_NEGATIVES, TRIALS, eps, significance, side, rare
        )
        for side in SIDES
        for eps in epsilons
    }
    worst = 0.0
    for q in (0.01, 0.05, 0.1, 0.2, 0.4):
        for p in np.linspace(q, 1 - 1e-9, 12):
            wrong = np.zeros(FALSE_POSITIVES.shape, bool)
            for side, (rarely, often) in zip(SIDES, ((q, p), (1 - p, 1 - q))):
                for delta in deltas:
                    wrong |= found[side, delta] > np.log(max((often - delta) / rarely, 1.0))
                for eps in epsilons:
                    wrong |= others[side, eps] > max(often - np.exp(eps) * rarely, 0.0)
            weights = weigh(q, p)
            assert weights.sum() == pytest.approx(1)
            worst = max(worst, weights[wrong].sum())
    assert 0 < worst <= significance


def test_trials_of_different_numbers_have_their_own_limits():
    fpr, fnr = upper(3, 400, 0.8 * 0.05), upper(30, 100, 0.2 * 0.05)
    assert bounds.epsilon_clopper_pearson(3, 30, (400, 100), 0.0, 0.05) == pytest.approx(
        np.log((1 - fnr) / fpr), abs=1e-6
    )


@pytest.mark.parametrize("bound", [bounds.epsilon_clopper_pearson, bounds.delta_clopper_pearson])
def test_unknown_names_are_refused(bound):
    with pytest.raises(ValueError, match="rare must be 'fpr' or 'fnr', got 'both'"):
        bound(1, 1, 10, 0.0, 0.05, rare="both")
    with pytest.raises(ValueError, match="direction must be 'forward' or 'reverse', got 'sideways'"):
        bound(1, 1, 10, 0.0, 0.05, "sideways")


@pytest.mark.parametrize("epsilon", [-0.1, np.nan])
def test_epsilon_outside_its_range_is_refused(epsilon):
    with pytest.raises(ValueError, match="epsilon must be >= 0"):
        bounds.delta_clopper_pearson(1, 1, 1000, epsilon, 0.05)
