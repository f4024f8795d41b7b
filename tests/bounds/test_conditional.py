r"""Conditional bounds: known answers, and their guarantee over all outcomes of a few trials, weighed exactly.

Nothing is sampled where a level is tested: every outcome of m trials has its bound, the multinomial law its chance,
and the chances of the bounds that exceed epsilon are added up. So there are no false alarms.
"""

from functools import cache
from importlib import import_module

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import gammaln
from scipy.stats import binom

from jaxaudit.bounds import epsilon_clopper_pearson, epsilon_labelled, epsilon_paired
from jaxaudit.bounds.conditional import delta_offset

DIRECTIONS = ("forward", "reverse")
DELTAS = (0.0, 1e-3, 0.03, 0.3)
EPSILONS = (0.0, 0.1, 0.5, 1.0, 2.0, 4.0)
ERRORS = [(0, 0), (2, 300), (40, 900), (0, 999)]


def smallest_offset(trials, delta, significance):
    """The smallest c with P(Bin(trials, delta) > c) <= significance, by trying them all."""
    return int(np.argmax(binom.sf(np.arange(trials + 1), trials, delta) <= significance))


@cache
def upper(errors, trials, significance):
    return float(reference.clopper_pearson_upper(errors, trials, significance))


# Known answers.


@pytest.mark.parametrize("rare, missed", ERRORS)
@pytest.mark.parametrize("delta", [0.0, 1e-3, 0.1])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_labelled_bound_is_the_log_odds_of_one_limit_without_the_delta_trials(rare, missed, delta, direction):
    spent = 0.05 * 0.05 if delta else 0.0
    kept = 1000 - missed - smallest_offset(1900, delta / 2, spent)
    limit = upper(rare, rare + kept, 0.05 - spent) if kept > 0 else 1.0
    expected = max(np.log1p(-limit) - np.log(limit), 0.0) if limit < 1 else 0.0
    errors, trials = ((rare, missed), (900, 1000)) if direction == "forward" else ((missed, rare), (1000, 900))
    assert epsilon_labelled(*errors, trials, delta, 0.05, direction) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("rare, missed", ERRORS)
@pytest.mark.parametrize("delta", [0.0, 1e-3, 0.1])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_paired_bound_is_the_conditional_limit_without_the_delta_trials(rare, missed, delta, direction):
    spent = 0.05 * 0.05 if delta else 0.0
    kept = 1000 - missed - smallest_offset(1000, delta, spent)
    expected = -np.log(upper(rare, kept, 0.05 - spent)) if kept > rare else 0
    errors = (rare, missed) if direction == "forward" else (missed, rare)
    assert epsilon_paired(*errors, 1000, delta, 0.05, direction) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("trials", [100, 10**4, 10**8])
def test_labelled_bound_without_errors_has_its_closed_form(trials):
    # The limit for none of n is 1 - α^(1/n), so the odds are α^(1/n) to 1 - α^(1/n).
    share = np.log(0.05) / trials
    assert epsilon_labelled(0, 0, (trials, trials), 0.0, 0.05) == pytest.approx(
        share - np.log(-np.expm1(share)), abs=1e-6
    )


def test_conditional_bounds_are_tighter_than_the_union():
    # One draw in a hundred under H0 and one in four under H1: typical counts of 10,000 trials of each.
    counted = (100, 7500, (10_000, 10_000), 1e-5, 0.05)
    union, labelled, paired = (
        bound(*counted) for bound in (epsilon_clopper_pearson, epsilon_labelled, epsilon_paired)
    )
    assert union < labelled < paired < np.log(2500 / 100)


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


# The guarantee.


def outcomes(trials, kinds):
    """All ways to sort trials into kinds, i64[kinds, outcomes], and the logarithm of their numbers of orders."""
    first = np.indices((trials + 1,) * (kinds - 1)).reshape(kinds - 1, -1)
    first = first[:, first.sum(axis=0) <= trials]
    found = np.vstack([first, trials - first.sum(axis=0)])
    return found, gammaln(trials + 1) - gammaln(found + 1).sum(axis=0)


LABELLED = outcomes(36, 4)
PAIRED = outcomes(40, 3)


def labelled_bounds(delta, significance, direction="forward"):
    """The bound of every outcome: trials of H0 in the rare event, of H1 in it, of H0 outside, of H1 outside."""
    (rare, common, quiet, missed), _ = LABELLED
    if direction == "forward":
        return epsilon_labelled(rare, missed, (rare + quiet, common + missed), delta, significance, direction)
    return epsilon_labelled(missed, rare, (common + missed, rare + quiet), delta, significance, direction)


def paired_bounds(delta, significance, direction="forward"):
    """The bound of every outcome: draws in both events, in neither, in the larger one only."""
    (rare, rest, _), _ = PAIRED
    errors = (rare, rest) if direction == "forward" else (rest, rare)
    return epsilon_paired(*errors, 40, delta, significance, direction)


def labelled_chances(q, p):
    """Of every outcome, where the event has chance q under one hypothesis and p under the other: f64[outcomes, k]."""
    return chances(LABELLED, np.stack([q, p, 1 - q, 1 - p]) / 2)


def paired_chances(q, p):
    """The same of pairs, where the event of chance q lies in the one of chance p."""
    return chances(PAIRED, np.stack([q, 1 - p, p - q]))


def chances(all_of_them, rates):
    found, orders = all_of_them
    return np.exp(orders[:, None] + sum(map(np.multiply.outer, found, np.log(np.maximum(rates, 1e-300)))))


def boundary(eps, delta):
    """Chances (q, p) of an event with p as large as (eps, delta)-DP allows."""
    q = np.geomspace(1e-3, 1, 25)
    return q, np.minimum(np.exp(eps) * q + delta, 1.0)


@pytest.mark.parametrize("delta", DELTAS)
@pytest.mark.parametrize("design", ["labelled", "paired"])
def test_conditional_bounds_hold_their_levels_exactly_for_all_outcomes(design, delta):
    """On the boundary p = e^ε q + δ and inside it, in both directions, at two levels."""
    bounds, weigh = {"labelled": (labelled_bounds, labelled_chances), "paired": (paired_bounds, paired_chances)}[
        design
    ]
    cases = [(level, direction) for level in (0.05, 0.3) for direction in DIRECTIONS]
    found = [bounds(delta, *case) for case in cases]
    for eps in EPSILONS:
        q, most = boundary(eps, delta)
        for inside in (1.0, 0.99, 0.9, 0.5):
            weights = weigh(q, q + inside * np.maximum(most - q, 0))
            assert weights.sum(axis=0) == pytest.approx(1)
            for bound, (level, _) in zip(found, cases):
                assert np.all(weights[bound > eps].sum(axis=0) <= level)


def test_labelled_bound_comes_close_to_its_level():
    """So the enumeration looks where it matters: the bound has little to give away."""
    bound = labelled_bounds(0.0, 0.3)
    failures = [labelled_chances(*boundary(eps, 0.0))[bound > eps].sum(axis=0).max() for eps in EPSILONS]
    assert max(failures) > 0.8 * 0.3


def test_expected_delta_trials_without_their_tail_exceed_the_level(monkeypatch):
    """The mutant c = mδ/2: the enumeration sees what is wrong with it."""
    monkeypatch.setattr(
        import_module("jaxaudit.bounds.conditional"),
        "delta_offset",
        lambda trials, delta, _: np.floor(trials * delta),
    )
    bound = labelled_bounds(0.3, 0.05)
    failures = [labelled_chances(*boundary(eps, 0.3))[bound > eps].sum(axis=0).max() for eps in EPSILONS]
    assert max(failures) > 0.05


def test_paired_bound_of_pairs_that_are_not_nested_would_exceed_its_level():
    """Why it refuses them: two independent draws of one law, of which 40 of 80 in the event prove "epsilon"."""
    draws, rate = 80, 0.5
    h0, h1 = np.indices((draws + 1, draws + 1))
    bound = epsilon_paired(h0, draws - h1, draws, 0.0, 0.05)
    failure = (binom.pmf(h0, draws, rate) * binom.pmf(h1, draws, rate))[bound > 0].sum()
    assert failure > 0.3
