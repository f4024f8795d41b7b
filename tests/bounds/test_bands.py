from itertools import combinations_with_replacement

import mpmath as mp
import numpy as np
import pytest
import reference
from scipy.stats import binom, multinomial

from jaxaudit.bounds.bands import (
    EXACT_RANKS,
    MIDDLE_SHARE,
    dkw_limit,
    epsilon_simultaneous,
    equal_level_limit,
    local_level,
)
from jaxaudit.bounds.crossing import crossing_probability
from jaxaudit.bounds.intervals import clopper_pearson_lower, clopper_pearson_upper

# The two last have ranks with a limit of their own between the calibrated ends.
TRIALS = [1, 10, 1000, 2 * EXACT_RANKS, 2 * EXACT_RANKS + 1, 10**6, 10**13]


def condemned(failures, repetitions, significance=0.05):
    """Would a band that fails with probability `significance` fail this often? False alarms below 1e-5."""
    return binom.sf(failures - 1, repetitions, significance) < 1e-5


def failure_probability(limits):
    """P(the k-th smallest of n uniforms is above limits[k - 1] for some k), to any digits: Bolshev's recursion.

    At the first such k exactly k - 1 uniforms are at or below limits[k - 1], and among themselves those keep theirs.
    """
    trials = len(limits)
    with mp.workdps(60 + trials):
        above = [1 - mp.mpf(float(limit)) for limit in limits]
        keeps = [mp.mpf(1)]
        for n in range(1, trials + 1):
            keeps.append(1 - sum(mp.binomial(n, k) * keeps[k] * above[k] ** (n - k) for k in range(n)))
        return float(1 - keeps[trials])


def limits_of(trials, significance):
    return equal_level_limit(np.arange(trials), trials, significance)


def test_band_of_one_trial_is_its_clopper_pearson_limit():
    assert float(equal_level_limit(0, 1, 0.05)) == pytest.approx(0.95, abs=1e-4)


def test_band_of_two_trials_has_its_closed_form():
    # With a = 1 - √η and b = √(1 - η): P(smaller > a) is η, P(smaller <= a, larger > b) is 2 a (1 - b).
    eta = local_level(2, 0.05)
    a, b = 1 - np.sqrt(eta), np.sqrt(1 - eta)
    assert eta + 2 * a * (1 - b) == pytest.approx(0.05, rel=1e-3)


@pytest.mark.parametrize("significance", [0.9, 0.05, 1e-12])
@pytest.mark.parametrize("trials", [1, 2, 5, 50])
def test_band_fails_with_its_significance_and_not_with_more(trials, significance):
    failure = failure_probability(limits_of(trials, significance))
    assert 0.998 * significance < failure <= significance


@pytest.mark.parametrize("trials, level", [(100, 1.1e-3), (1000, 5.8e-4), (10**4, 3.4e-4)])
def test_local_level_agrees_with_simulated_values(trials, level):
    assert local_level(trials, 0.025) == pytest.approx(level, rel=0.1)


def test_local_level_of_a_million_trials_lies_in_its_simulated_interval():
    assert 2.8e-4 < local_level(10**6, 0.025) < 5.4e-4


@pytest.mark.parametrize("trials, repetitions", [(1000, 4000), (2 * EXACT_RANKS + 1, 500)])
def test_band_holds_all_order_statistics_of_uniforms(trials, repetitions):
    rng = np.random.default_rng(1)
    limits = limits_of(trials, 0.05)
    failures = sum(np.any(np.sort(rng.random(trials)) > limits) for _ in range(repetitions))
    assert not condemned(failures, repetitions)
    # Nor is it wasteful: so few failures would have probability 5e-5, at 0.047, the least that its shares allow.
    assert failures > 0.015 * repetitions


@pytest.mark.parametrize("trials", [9000, 12_000])
def test_ranks_between_the_ends_spend_no_more_than_their_share(trials):
    ranks = np.arange(EXACT_RANKS + 1, trials - EXACT_RANKS + 1)
    limits = equal_level_limit(ranks - 1, trials, 0.05)
    chance = crossing_probability(trials, limits, ranks, np.full(ranks.size, trials), 1e-9)
    assert 0.3 * MIDDLE_SHARE * 0.05 < chance <= MIDDLE_SHARE * 0.05


def test_crossing_probability_agrees_with_direct_binomial_steps():
    rng = np.random.default_rng(2)
    for trials in (3, 40):
        rates = np.sort(rng.random(12))
        lowest, highest = np.floor(trials * rates**2), np.ceil(trials * np.sqrt(rates))
        inside = np.eye(trials + 1)[0]
        for rate, step, low, high in zip(rates, np.diff(rates, prepend=0), lowest, highest):
            counts = np.arange(trials + 1)
            law = binom.pmf(counts - counts[:, None], trials - counts[:, None], step / (1 - rate + step))
            inside = (inside @ law) * ((low <= counts) & (counts <= high))
        chance = crossing_probability(trials, rates, lowest, highest, 1e-9)
        assert chance == pytest.approx(1 - inside.sum(), rel=1e-5)


def test_ties_only_make_the_band_safer():
    # Exactly: all laws on three atoms, in twelfths, and all outcomes of fifteen trials.
    limits = np.append(limits_of(15, 0.1), 1.0)
    outcomes = np.array([(a, b - a, 15 - b) for a, b in combinations_with_replacement(range(16), 2)])
    for first, both in combinations_with_replacement(np.arange(13) / 12, 2):
        law = [first, both - first, 1 - both]
        fails = (first > limits[outcomes[:, 0]]) | (both > limits[outcomes[:, 0] + outcomes[:, 1]])
        assert multinomial.pmf(outcomes[fails], 15, law).sum() <= 0.1


@pytest.mark.parametrize("trials", TRIALS)
def test_limits_rise_with_the_errors_and_cost_more_than_those_of_one_threshold(trials):
    few = np.minimum(np.unique(np.geomspace(1, 20_000, 1000).astype(int)) - 1, trials)
    errors = np.unique(np.concatenate([few, trials - few, np.linspace(0, trials, 500).astype(int)]))
    limits = equal_level_limit(errors, trials, 0.05)
    assert np.all(np.diff(limits) >= 0)
    # Nine decimals: close to 1 the two are rounded differently.
    assert np.all(limits >= clopper_pearson_upper(errors, trials, 0.05) * (1 - 1e-9) - 1e-7)
    assert limits[-1] == 1


@pytest.mark.parametrize("trials", [1000, 10**6])
def test_limits_widen_as_the_significance_falls(trials):
    errors = np.linspace(0, trials, 50).astype(int)
    table = equal_level_limit(errors, trials, np.array([[0.3], [0.01], [1e-9]]))
    assert np.all(np.diff(table, axis=0) >= 0)


def test_limits_broadcast_over_trials_and_significances():
    errors, trials, levels = np.array([0, 3]), np.array([[10], [20]]), np.array([[[0.05]], [[0.1]]])
    table = equal_level_limit(errors, trials, levels)
    assert table.shape == (2, 2, 2)
    assert table[1, 0, 1] == equal_level_limit(3, 10, 0.1)


def test_expected_counts_are_rounded_up():
    assert equal_level_limit(2.1, 100, 0.05) == equal_level_limit(3, 100, 0.05)


def test_successes_keep_their_relative_precision_among_many_trials():
    successes = clopper_pearson_lower(50, 10**9, local_level(10**9, 0.05))
    assert 1 - equal_level_limit(10**9 - 50, 10**9, 0.05) == pytest.approx(float(successes), rel=1e-6)


@pytest.mark.parametrize("significance", [0.5, 0.05, 1e-6])
def test_dkw_limit_holds_for_uniforms(significance):
    limits = dkw_limit(np.arange(30), 30, significance)
    assert limits[0] == pytest.approx(np.sqrt(np.log(1 / significance) / 60))
    assert failure_probability(limits) <= significance


def test_epsilon_is_the_log_ratio_of_the_limits():
    fpr, fnr = equal_level_limit([7, 300], 1000, 0.025)
    assert epsilon_simultaneous(7, 300, 1000, 1e-3, 0.05) == pytest.approx(np.log((1 - fnr - 1e-3) / fpr))
    assert epsilon_simultaneous(300, 7, 1000, 1e-3, 0.05, "reverse") == epsilon_simultaneous(7, 300, 1000, 1e-3, 0.05)
    assert epsilon_simultaneous(999, 999, 1000, 0.0, 0.05) == 0
    fpr, fnr = dkw_limit([7, 300], (1000, 2000), 0.025)
    assert epsilon_simultaneous(7, 300, (1000, 2000), 0.0, 0.05, limit=dkw_limit) == pytest.approx(
        np.log((1 - fnr) / fpr)
    )


@pytest.mark.parametrize("limit", [equal_level_limit, dkw_limit])
@pytest.mark.parametrize("shift", [0.0, 1.0, 3.0])
def test_the_best_of_all_thresholds_deltas_and_directions_is_below_the_truth(limit, shift):
    # Laplace scores: every threshold beyond the shift has the true epsilon. Paired trials, as dependent as can be.
    rng = np.random.default_rng(3)
    deltas = np.array([[0.0], [1e-3], [0.1]])
    truth = [[reference.laplace_epsilon(delta, shift)] for delta in deltas.ravel()]
    thresholds = np.linspace(-4, 4 + shift, 400)

    def fails():
        scores = np.sort(rng.laplace(size=1000))
        errors = (1000 - np.searchsorted(scores, thresholds), np.searchsorted(scores + shift, thresholds, "right"))
        bounds = [epsilon_simultaneous(*errors, 1000, deltas, 0.05, way, limit) for way in ("forward", "reverse")]
        return np.any(np.array(bounds) > truth)

    assert not condemned(sum(fails() for _ in range(200)), 200)


@pytest.mark.parametrize("limit", [equal_level_limit, dkw_limit])
@pytest.mark.parametrize(
    "errors, trials, significance, message",
    [
        (0, 0, 0.05, "trials must be a whole number"),
        (0, 10.5, 0.05, "trials must be a whole number"),
        (0, 2.0**53, 0.05, "trials must be a whole number"),
        (-1, 10, 0.05, "errors must be in"),
        (11, 10, 0.05, "errors must be in"),
        (np.nan, 10, 0.05, "errors must be in"),
        (1, 10, 0.0, "significance must be in"),
        (1, 10, 1.0, "significance must be in"),
    ],
)
def test_limits_refuse_what_is_no_observation(limit, errors, trials, significance, message):
    with pytest.raises(ValueError, match=message):
        limit(errors, trials, significance)


def test_dkw_limit_refuses_a_significance_above_one_half():
    with pytest.raises(ValueError, match="significance must be at most 1/2"):
        dkw_limit(1, 10, 0.6)


@pytest.mark.parametrize(
    "arguments, message",
    [((1, 1, 10, 1.0, 0.05), "delta must be in"), ((1, 1, 10, 0.0, 0.05, "sideways"), "direction must be")],
)
def test_simultaneous_bound_refuses_what_has_no_meaning(arguments, message):
    with pytest.raises(ValueError, match=message):
        epsilon_simultaneous(*arguments)
