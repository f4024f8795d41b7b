from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import binom

from jaxaudit.bounds import clopper_pearson_lower
from jaxaudit.bounds.one_run import epsilon_one_run, one_run_p_value

LEVEL = 0.05


@st.composite
def guessed(draw):
    """(correct, guesses, canaries), more often right than wrong."""
    canaries = draw(st.integers(1, 10**7))
    guesses = draw(st.integers(1, canaries))
    return draw(st.integers(guesses // 2, guesses)), guesses, canaries


def theorem(epsilon, correct, guesses, canaries, delta):
    """The p-value as the theorem reads, every sum written out."""
    right = 1 / (1 + np.exp(-epsilon))
    law = [comb(guesses, k) * right**k * (1 - right) ** (guesses - k) for k in range(guesses + 1)]
    averages = [sum(law[correct - i : correct]) / i for i in range(1, correct + 1)]
    return min(1.0, sum(law[correct:]) + 2 * canaries * delta * max(averages, default=0.0))


def test_p_value_is_that_of_the_theorem_and_on_the_safe_side():
    for guesses, epsilon, delta in product((0, 1, 2, 7, 40), (0.0, 0.5, 3.0), (0.0, 1e-6, 1e-3, 0.1)):
        correct = np.arange(guesses + 1)
        for canaries in (guesses, guesses + 100):
            exact = np.array([theorem(epsilon, int(v), guesses, canaries, delta) for v in correct])
            found = one_run_p_value(epsilon, correct, guesses, canaries, delta)
            assert np.all(found >= exact)
            np.testing.assert_allclose(found, exact, rtol=2e-7, atol=0)


@pytest.mark.parametrize("epsilon, sds", [(0.0, 3), (1.0, 0), (1.0, 2), (2.0, 6), (5.0, 4)])
def test_p_value_of_a_million_guesses_is_that_of_the_theorem(epsilon, sds):
    right = expit(epsilon)
    correct = int(1e6 * right + sds * np.sqrt(1e6 * right * (1 - right)))
    i = np.arange(1, correct + 1)
    tail = binom.sf(correct - 1, 10**6, right)
    average = np.max((binom.sf(correct - i - 1, 10**6, right) - tail) / i)
    exact = min(1.0, tail + 2 * 2e6 * 1e-7 * average)
    assert one_run_p_value(epsilon, correct, 10**6, 2 * 10**6, 1e-7) == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("correct, guesses", [(3, 3), (60, 80), (999, 1000), (6 * 10**5, 10**6)])
@pytest.mark.parametrize("significance", [0.05, 1e-6])
def test_without_delta_it_is_the_clopper_pearson_limit_of_the_accuracy(correct, guesses, significance):
    limit = clopper_pearson_lower(correct, guesses, significance)
    expected = max(float(logit(limit)), 0.0)
    assert epsilon_one_run(correct, guesses, 2 * guesses, 0.0, significance) == pytest.approx(expected, abs=1e-5)


@given(guessed(), st.floats(0, 1e-3), st.floats(1e-9, 0.49))
def test_bound_is_the_last_claim_that_is_refuted(guessed, delta, significance):
    bound = epsilon_one_run(*guessed, delta, significance)
    assert bound == 0 or one_run_p_value(bound, *guessed, delta) <= significance
    assert one_run_p_value(bound + 1e-9, *guessed, delta) > significance * (1 - 1e-6)


@given(guessed(), st.floats(0, 1e-2), st.lists(st.floats(0, 15), min_size=2, max_size=8))
def test_weaker_claims_are_harder_to_refute(guessed, delta, claims):
    """Where the p-value is below a half; so all claims below the bound are refuted, too."""
    found = one_run_p_value(np.sort(claims), *guessed, delta)
    rises = found[1:] >= found[:-1] * (1 - 3e-7)
    assert np.all(rises | (found[1:] >= 0.5))


def false_claims(law, epsilon, canaries, delta, guesses, paid=None):
    """The chance that the bound exceeds `epsilon`, exactly, where `law` is that of the number of correct guesses."""
    bounds = epsilon_one_run(np.arange(guesses + 1), guesses, paid or canaries, delta, LEVEL)
    return law[bounds > epsilon].sum()


@pytest.mark.parametrize("guesses", [1, 20, 300])
@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0, 2.5])
def test_bound_for_randomised_response_is_too_high_at_most_as_often_as_allowed(guesses, epsilon):
    """Exactly: every canary told with odds e^epsilon, which is the worst there is without delta."""
    law = binom.pmf(np.arange(guesses + 1), guesses, expit(epsilon))
    chance = false_claims(law, epsilon, 400, 0.0, guesses)
    assert chance <= LEVEL
    assert guesses < 300 or chance > 0.02


def leaking(guesses, canaries, epsilon, delta):
    """The law of correct guesses where each canary is given away with chance delta, else told with odds e^epsilon.

    Those given away are known as such and guessed first.
    """
    given_away = np.minimum(np.arange(canaries + 1), guesses)
    law = np.zeros(guesses + 1)
    for sure, chance in zip(given_away, binom.pmf(np.arange(canaries + 1), canaries, delta)):
        if chance > 1e-15:
            law[sure:] += chance * binom.pmf(np.arange(guesses - sure + 1), guesses - sure, expit(epsilon))
    return law


MANY_LEAKS = [(10_000, 20, 1.0, 2e-3), (20_000, 100, 0.5, 2e-3)]
FEW_LEAKS = [(300, 300, 0.5, 1e-5), (300, 300, 1.0, 1e-4), (1000, 300, 1.0, 1e-4), (2000, 300, 0.3, 1e-4)]


@pytest.mark.parametrize("canaries, guesses, epsilon, delta", MANY_LEAKS + FEW_LEAKS)
def test_bound_for_the_tight_mechanism_with_delta_is_too_high_at_most_as_often_as_allowed(
    canaries, guesses, epsilon, delta
):
    """Exactly, for four-outcome mechanisms of the canaries and an attack that guesses the known ones first."""
    law = leaking(guesses, canaries, epsilon, delta)
    assert law.sum() == pytest.approx(1)
    assert false_claims(law, epsilon, canaries, delta, guesses) <= LEVEL


@pytest.mark.parametrize("canaries, guesses, epsilon, delta", MANY_LEAKS)
def test_paying_delta_for_the_guessed_canaries_only_is_caught(canaries, guesses, epsilon, delta):
    law = leaking(guesses, canaries, epsilon, delta)
    assert false_claims(law, epsilon, canaries, delta, guesses, paid=guesses) > 4 * LEVEL


@settings(max_examples=15)
@given(guessed(), st.floats(1e-9, 1e-3), st.floats(1e-9, 0.4))
def test_bounds_fall_with_mistakes_canaries_and_delta(guessed, delta, significance):
    correct, guesses, canaries = guessed
    bound = epsilon_one_run(*guessed, delta, significance) + 1e-12
    assert epsilon_one_run(max(correct - 1, 0), guesses, canaries, delta, significance) <= bound
    assert epsilon_one_run(correct, guesses, 2 * canaries, delta, significance) <= bound
    assert epsilon_one_run(correct, guesses, canaries, 2 * delta, significance) <= bound
    assert epsilon_one_run(correct, guesses, canaries, delta, significance / 2) <= bound


def test_bound_of_a_significance_above_one_half_is_sound():
    law = binom.pmf(np.arange(51), 50, expit(1.0))
    assert law[epsilon_one_run(np.arange(51), 50, 50, 0.0, 0.9) > 1.0].sum() <= 0.5


def test_a_trillion_canaries_are_bounded_all_the_same():
    bound = epsilon_one_run(9 * 10**10, 10**11, 10**12, 1e-12, LEVEL)
    assert bound == pytest.approx(np.log(9), abs=1e-3)
    assert bound < np.log(9)


def test_bounds_broadcast():
    correct, deltas = np.array([0, 60, 95, 100]), np.array([[0.0], [1e-4]])
    table = epsilon_one_run(correct, 100, 1000, deltas, LEVEL)
    assert table.shape == (2, 4)
    expected = [[float(epsilon_one_run(v, 100, 1000, d, LEVEL)) for v in correct] for d in deltas.ravel()]
    assert table.tolist() == expected


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((11, 10, 20, 0.0, 0.05), "correct must be in"),
        ((5, 30, 20, 0.0, 0.05), "guesses in"),
        ((-1, 10, 20, 0.0, 0.05), "correct must be in"),
        ((5.5, 10, 20, 0.0, 0.05), "correct must be whole numbers, got 5.5"),
        ((np.nan, 10, 20, 0.0, 0.05), "correct must be whole numbers, got nan"),
        ((5, 10, 20, 1.0, 0.05), "delta must be in"),
        ((5, 10, 20, 0.0, 0.0), "significance must be in"),
    ],
)
def test_bound_refuses_what_is_no_run(arguments, message):
    with pytest.raises(ValueError, match=message):
        epsilon_one_run(*arguments)


@pytest.mark.parametrize("epsilon", [-0.1, np.nan])
def test_p_value_refuses_what_is_no_claim(epsilon):
    with pytest.raises(ValueError, match="epsilon must be at least 0"):
        one_run_p_value(epsilon, 5, 10, 20, 0.0)
