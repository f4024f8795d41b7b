"""What is claimed together holds together: all bounds of a plan, p-values of claims, several claims.

Nothing is sampled here: every outcome of a few trials of a pair with known privacy has its chance and its bounds.
"""

from functools import cache

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import gammaln

from jaxaudit import bounds

Event = bounds.Event
# How far a p-value is rounded up, at most and relatively.
ROUNDING = 1e-3


def counts(design, trials=1000, errors_h0=(400, 10), errors_h1=(200, 300)):
    """Counts at the thresholds 0 and 1."""
    return bounds.Counts([0.0, 1.0], errors_h0, errors_h1, trials, trials, "fresh", design)


def plan(*events, method="union"):
    return bounds.Plan(method, events or (Event(0.0, "forward"),), (0.0,), "pilot")


def conditional(*deltas, method="cc-cp"):
    """A test at threshold 1 for every delta."""
    return plan(*(Event(1.0, "forward", delta) for delta in deltas), method=method)


# Everything at once, weighed exactly: every outcome of a few trials has its chance and its bounds.

# Three outcomes; the odds of the first and of the last are e to 1, so one threshold is tight in each direction.
LAWS = np.array([np.e, 0.2, 1.0]) / (np.e + 1.2), np.array([1.0, 0.2, np.e]) / (np.e + 1.2)
PLACES = (0.5, 1.5)
ASKED = (0.0, 0.05, 0.4)
CONFIDENCE = 0.4


def outcomes(trials, rates):
    """All ways to sort trials into kinds, i64[outcomes, kinds], and their chances."""
    found = np.indices((trials + 1,) * (len(rates) - 1)).reshape(len(rates) - 1, -1)
    found = found[:, found.sum(axis=0) <= trials]
    found = np.vstack([found, trials - found.sum(axis=0)]).T
    return found, np.exp(gammaln(trials + 1) - gammaln(found + 1).sum(axis=1) + (found * np.log(rates)).sum(axis=1))


def of_labelled_trials():
    """Kinds of trials, an outcome under H0 or one under H1, and their chances."""
    return [((cell, None), LAWS[0][cell] / 2) for cell in range(3)] + [
        ((None, cell), LAWS[1][cell] / 2) for cell in range(3)
    ]


def of_pairs(order):
    """Kinds of pairs whose outcomes come from one uniform number, read in the same or the opposite direction."""
    h0, h1 = (np.cumsum(law)[:-1] for law in LAWS)
    cuts = np.unique(np.concatenate([[0.0], h0, h1 if order > 0 else 1 - h1, [1.0]]).round(12))
    at = (cuts[1:] + cuts[:-1]) / 2
    cells = np.searchsorted(h0, at, side="right"), np.searchsorted(h1, at if order > 0 else 1 - at, side="right")
    return list(zip(zip(*cells), np.diff(cuts)))


KINDS = {"labelled": (of_labelled_trials(), 7), "nested": (of_pairs(1), 9), "paired": (of_pairs(-1), 9)}


@cache
def weighed(design, rarest):
    """All counts of errors that a few trials can give, with their chances; what is rarer is left out."""
    kinds, trials = KINDS[design]
    found, chances = outcomes(trials, [rate for _, rate in kinds])
    errors_h0 = found @ [[h0 is not None and h0 >= place for place in PLACES] for (h0, _), _ in kinds]
    errors_h1 = found @ [[h1 is not None and h1 <= place for place in PLACES] for (_, h1), _ in kinds]
    played = found @ [[cell is not None for cell in cells] for cells, _ in kinds]
    each, which = np.unique(np.hstack([errors_h0, errors_h1, played]), axis=0, return_inverse=True)
    chances = np.bincount(which.ravel(), chances)
    assert chances.sum() == pytest.approx(1)
    usual = (chances > rarest) & (each[:, 4:].min(axis=1) > 0)
    return [
        (bounds.Counts(PLACES, row[:2], row[2:4], *row[4:], "fresh", design), chance)
        for row, chance in zip(each[usual], chances[usual])
    ]


def failures(design, fails, rarest=1e-4):
    """The chance of a failure; what was left out counts as one."""
    every = weighed(design, rarest)
    return sum(chance for found, chance in every if fails(found)) + 1 - sum(chance for _, chance in every)


@pytest.mark.parametrize("method, design", [("cc-cp", "labelled"), ("pc-cp", "nested"), ("union", "paired")])
def test_all_bounds_of_a_plan_hold_at_once_exactly(method, design):
    """At two thresholds, in both directions and at deltas that were tested, that were not, and that have no bound."""
    shared = ((0.5, "reverse", 0.0, 2.0), (1.5, "forward", 0.0, 2.0), (1.5, "forward", 0.05, 1.0))
    planned = plan(*(Event(*each) for each in shared), method=method)
    truth = [reference.discrete_epsilon(delta, *LAWS) for delta in ASKED]
    assert truth[0] == pytest.approx(1)

    def fails(found):
        curve = bounds.privacy_curve(planned, found, ASKED, CONFIDENCE)
        return any(bound.epsilon > most + 1e-9 for bound, most in zip(curve, truth))

    assert 0.02 < failures(design, fails) <= 1 - CONFIDENCE


def test_all_bounds_on_delta_hold_at_once_exactly():
    planned, epsilons = plan(*(Event(place, "forward") for place in PLACES)), (0.0, 0.5, 0.9)
    truth = [reference.discrete_delta(eps, *LAWS) for eps in epsilons]

    def fails(found):
        return any(
            bounds.delta_at(planned, found, eps, CONFIDENCE) > most + 1e-9 for eps, most in zip(epsilons, truth)
        )

    assert 0.02 < failures("paired", fails) <= 1 - CONFIDENCE


# Claims.


def test_the_p_value_of_a_claim_is_the_binomial_tail_it_rests_on():
    # Of 710 trials in the event 10 are of H0; were ε = 3 true, Bin(710, 1 / (1 + e³)) would have so few:
    found = bounds.claim_p_value(conditional(0.0), counts("labelled"), 3.0, 0.0)
    assert found == pytest.approx(float(reference.binomial_cdf(10, 710, 1 / (1 + np.exp(3)))), rel=ROUNDING)


def test_the_p_value_of_nested_pairs_is_the_binomial_tail_it_rests_on():
    found = bounds.claim_p_value(conditional(0.0, method="pc-cp"), counts("nested"), 3.0, 0.0)
    assert found == pytest.approx(float(reference.binomial_cdf(10, 700, np.exp(-3))), rel=ROUNDING)


def test_the_p_value_of_a_claim_pays_for_all_events():
    one, two = (
        bounds.claim_p_value(planned, counts("labelled"), 3.0, 0.0)
        for planned in (conditional(0.0), conditional(0.0, 0.1))
    )
    assert two == pytest.approx(2 * one, rel=2 * ROUNDING)


@pytest.mark.parametrize("method, design", [("union", "paired"), ("cc-cp", "labelled"), ("pc-cp", "nested")])
@pytest.mark.parametrize("epsilon", [1.0, 2.0, 3.0])
def test_a_claim_is_rejected_where_the_bound_exceeds_it(method, design, epsilon):
    planned = plan(Event(1.0, "forward", 1e-3), Event(0.0, "reverse", 1e-2), method=method)
    found = counts(design, trials=100, errors_h0=(40, 2), errors_h1=(20, 30))
    p_value = bounds.claim_p_value(planned, found, epsilon, 1e-3)
    assert bounds.epsilon_at(planned, found, 1e-3, 1 - p_value).epsilon > epsilon
    assert bounds.epsilon_at(planned, found, 1e-3, 1 - p_value * (1 - 2 * ROUNDING)).epsilon <= epsilon


@pytest.mark.parametrize("method, design", [("cc-cp", "labelled"), ("union", "paired"), ("pc-cp", "nested")])
def test_a_true_claim_has_a_p_value_of_at_most_a_with_chance_at_most_a_exactly(method, design):
    planned = plan(Event(1.5, "forward", 0.0, 2.0), Event(1.5, "reverse", 0.0, 1.0), method=method)
    answers = {}
    for found, _ in weighed(design, 0.0):
        key = found.at(1.5), found.trials
        if key not in answers:
            answers[key] = bounds.claim_p_value(planned, found, 1.0 + 1e-9, 0.0)
    # What has no trial of some hypothesis is no sample, and refused.
    alone = failures(design, lambda found: False, 0.0)
    for level in sorted(set(answers.values())):
        if level < 1:
            found = failures(design, lambda found, level=level: answers[found.at(1.5), found.trials] <= level, 0.0)
            assert found - alone <= level
    assert min(answers.values()) < 0.5


@pytest.mark.parametrize(
    "method, design, delta",
    [
        ("union", "paired", 1e-3),
        ("cc-cp", "labelled", 0.0),
        ("cc-cp", "labelled", 1e-3),
        ("pc-cp", "nested", 1e-3),
        ("band", "paired", 1e-3),
    ],
)
def test_a_claim_far_off_has_a_tiny_p_value(method, design, delta):
    found = counts(design, trials=200, errors_h0=(0, 200), errors_h1=(0, 200))
    assert bounds.claim_p_value(plan(Event(0.0, "forward", delta), method=method), found, 0.5, delta) < 1e-12


@pytest.mark.parametrize("epsilon", [5.0, np.inf])
def test_a_claim_that_nothing_contradicts_has_p_value_one(epsilon):
    equal = counts("paired", errors_h0=(500, 500), errors_h1=(500, 500))
    assert bounds.claim_p_value(plan(), equal, epsilon, 0.0) == 1.0


def test_the_largest_bound_beats_no_claim_above_its_ceiling():
    clear = counts("labelled", errors_h0=(0, 0), errors_h1=(0, 0))
    ceiling = bounds.ceiling(1000, 0.0, 0.05, "cc-cp")
    assert bounds.claim_p_value(conditional(0.0), clear, ceiling + 0.001, 0.0) > 0.05
    assert bounds.claim_p_value(conditional(0.0), clear, ceiling - 0.001, 0.0) < 0.05


# Several claims.


def rejected(p_values, level):
    """Holm's procedure as he wrote it: the smallest first, at level/n, level/(n - 1), …, until one is kept."""
    left, found = sorted(p_values), 0
    while left and left[0] <= level / len(left):
        left.pop(0)
        found += 1
    return found


@given(st.lists(st.integers(0, 100).map(lambda n: n / 100), max_size=8), st.sampled_from([0.051, 0.3, 0.7]))
def test_holm_rejects_what_his_steps_reject(p_values, level):
    adjusted = bounds.holm(p_values)
    assert sum(p <= level for p in adjusted) == rejected(p_values, level)
    assert all(one >= p for one, p in zip(adjusted, p_values))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_holm_does_not_mind_the_order_of_the_claims(p_values, random):
    order = list(range(len(p_values)))
    random.shuffle(order)
    assert bounds.holm([p_values[n] for n in order]) == tuple(bounds.holm(p_values)[n] for n in order)


def test_holm_holds_its_level_exactly_for_claims_that_are_all_true():
    """Of the 27 combinations of three p-values, whose chances make them as small as p-values may be."""
    steps = np.array([0.01, 0.04, 1.0])
    some = np.array(np.meshgrid(steps, steps, steps)).reshape(3, -1).T
    chances = np.prod(np.diff(steps, prepend=0)[np.searchsorted(steps, some)], axis=1)
    for level in (0.03, 0.06, 0.12):
        assert sum(chance for each, chance in zip(some, chances) if min(bounds.holm(each)) <= level) <= level


@pytest.mark.parametrize("bad", [[0.5, np.nan], [-0.1], [1.1], [[0.5]]])
def test_what_are_no_p_values_is_refused(bad):
    with pytest.raises(ValueError, match=r"p-values must be a list of numbers in \[0, 1\]"):
        bounds.holm(bad)
