"""Parts of a sample: what certifies has the design it claims, and shares no draw with what chose."""

from importlib import import_module

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, chi2

from jaxaudit import bounds
from jaxaudit.bounds.records import overlap

splitting = import_module("jaxaudit.bounds.split")
DESIGNS = ("paired", "nested", "labelled", "independent")


def numbered(design, h0=100, h1=100):
    """Scores that say which trial they are of: trial i has score i, and under H1 half more."""
    return bounds.Scores(np.arange(h0), np.arange(h1) + 0.5, "mine", design)


def draws(scores):
    """The trials under H0 and under H1."""
    return set(np.floor(scores.h0)), set(np.floor(scores.h1))


@pytest.mark.parametrize("design", DESIGNS)
@given(st.integers(0, 99), st.floats(0.1, 0.9), st.integers(20, 100))
def test_every_score_is_in_one_of_two_parts(design, seed, share, most):
    whole = numbered(design)
    pilot, rest = bounds.split(whole, seed, share, most)
    for side in ("h0", "h1"):
        parts = [getattr(part, side) for part in (pilot, rest)]
        assert sorted(np.concatenate(parts)) == sorted(getattr(whole, side))
    assert pilot.design == rest.design == design
    assert overlap(whole.stream, pilot.stream) and not overlap(pilot.stream, rest.stream)


@pytest.mark.parametrize("sizes", [(100, 100), (100, 130), (130, 100)])
def test_no_draw_of_pairs_is_on_both_sides(sizes):
    pilot, rest = (set.union(*draws(part)) for part in bounds.split(numbered("paired", *sizes), seed=0, share=0.3))
    assert not pilot & rest


@pytest.mark.parametrize("failed", ["h0", "h1"])
def test_no_draw_of_pairs_is_on_both_sides_where_halves_of_them_failed(failed):
    # Without its failures an array is shorter, and the rest of it moves up.
    scores = {"h0": np.arange(100.0), "h1": np.arange(100) + 0.5}
    scores[failed][[3, 50]] = np.nan
    whole = bounds.Scores.with_failures(**scores, stream="mine")
    pilot, rest = (set.union(*draws(part)) for part in bounds.split(whole, seed=0, share=0.3))
    assert not pilot & rest


def test_pairs_stay_together_and_nested():
    pilot, rest = bounds.split(numbered("nested"), seed=0)
    for part in (pilot, rest):
        assert draws(part)[0] == draws(part)[1]


def test_failures_count_where_errors_are_counted():
    whole = bounds.Scores(np.arange(100), np.arange(100), "mine", "independent", failed=(7, 5))
    pilot, rest = bounds.split(whole, seed=0)
    assert pilot.failed == (0, 0) and rest.failed == (7, 5)


@pytest.mark.parametrize("trials, share, most", [(400, 0.5, 400), (400, 0.5, 50), (2000, 0.1, 80)])
def test_the_rest_of_labelled_trials_has_fair_coins(trials, share, most):
    """So it is labelled still: with m trials left, those of H1 are Bin(m, 1/2).

    The squares of 2000 standardised counts sum to a χ² of 2000 degrees, up to the lattice, whose kurtosis is below
    that of a normal; either tail is a false alarm of 1e-6.
    """
    rng, squares = np.random.default_rng(0), 0.0
    for seed in range(2000):
        heads = rng.binomial(trials, 0.5)
        whole = bounds.Scores(np.zeros(trials - heads), np.zeros(heads), "mine", "labelled")
        _, rest = bounds.split(whole, seed, share, most)
        left = sum(rest.trials)
        squares += (rest.trials[1] - left / 2) ** 2 / (left / 4)
    assert chi2.ppf(1e-6, 2000) < squares < chi2.isf(1e-6, 2000)


@pytest.mark.parametrize("share", [None, 0.1, 0.37])
@pytest.mark.parametrize("trials", [201, 10_001, 20_000])
def test_how_many_labelled_trials_are_left_does_not_depend_on_their_coins(trials, share):
    """Else the number would tell something about the coins, which given the number would no longer be fair."""
    heads = trials // 2 + np.arange(-2 * trials**0.5, 2 * trials**0.5, 1 + trials // 2000).astype(int)
    whole = [bounds.Scores(np.zeros(trials - n), np.ones(n), "mine", "labelled") for n in heads]
    assert len({sum(bounds.split(some, 0, share)[1].trials) for some in whole}) == 1


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, np.nan])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match=r"share of the pilot must be in \(0, 1\)"):
        bounds.split(numbered("paired"), 0, share)


@pytest.mark.parametrize("h0, h1, share", [(1, 1, 0.5), (1, 50, 0.5), (4, 50, 0.1), (3, 50, 0.9)])
@pytest.mark.parametrize("design", ["paired", "independent", "labelled"])
def test_too_few_scores_for_two_parts_are_refused(design, h0, h1, share):
    with pytest.raises(ValueError, match="cannot be split into a pilot and a rest; give more scores"):
        bounds.split(numbered(design, h0, h1), 0, share)


# Coins.


def test_a_coin_for_a_pair_keeps_one_of_its_two_scores():
    for design in ("paired", "nested"):
        labelled = bounds.toss(numbered(design), seed=0)
        h0, h1 = draws(labelled)
        assert labelled.design == "labelled" and labelled.stream == "mine"
        assert not h0 & h1 and h0 | h1 == set(range(100))


def test_coins_for_pairs_are_fair():
    # Trials of H1 among 200 tosses of 100 pairs: Bin(20,000, 1/2). Beyond 3 sd of 71 on either side: 0.3 %.
    heads = sum(bounds.toss(numbered("paired"), seed).h1.size for seed in range(200))
    assert abs(heads - 10_000) < 3 * np.sqrt(20_000) / 2


def test_labelled_trials_of_samples_are_made_of_their_scores():
    whole = numbered("independent", 120, 100)
    labelled = bounds.toss(whole, seed=0)
    assert labelled.design == "labelled"
    # 2n - 5 √(2n) with n = 100.
    assert sum(labelled.trials) == 129
    for some, every in ((labelled.h0, whole.h0), (labelled.h1, whole.h1)):
        assert set(some) <= set(every) and len(set(some)) == some.size


def test_errors_of_tossed_samples_have_the_law_of_labelled_trials():
    """Two samples of fixed size and the coins: in the event under H0, in it under H1, and neither, are multinomial.

    A χ² over a grid of both counts, with what has less than five expected taken together; false alarm 1e-6.
    """
    rng, repetitions, (q, p) = np.random.default_rng(0), 2000, (0.2, 0.6)
    trials, found = 129, []
    for seed in range(repetitions):
        samples = bounds.Scores(rng.random(100) < q, rng.random(110) < p, "mine", "independent")
        labelled = bounds.toss(samples, seed)
        found.append((labelled.h0.sum(), labelled.h1.sum()))
    h0, h1 = np.indices((trials + 1, trials + 1))
    # TP is binomial, and FP is binomial among the others.
    law = binom.pmf(h1, trials, p / 2) * binom.pmf(h0, trials - h1, (q / 2) / (1 - p / 2))
    edges = [np.array([0, 10, 12, 14, 16, trials + 1]), np.array([0, 34, 37, 40, 43, trials + 1])]
    expected = repetitions * np.add.reduceat(np.add.reduceat(law, edges[0][:-1], axis=0), edges[1][:-1], axis=1)
    seen = np.histogram2d(*np.array(found).T, bins=[edge - 0.5 for edge in edges])[0]
    assert expected.min() > 5 and seen.sum() == repetitions
    assert ((seen - expected) ** 2 / expected).sum() < chi2.isf(1e-6, expected.size - 1)


def test_samples_without_room_for_their_coins_certify_nothing(monkeypatch):
    """One toss in two million; here with room for a third of a standard deviation, where it is most of them."""
    monkeypatch.setattr(splitting, "_ROOM", 0.3)
    rng = np.random.default_rng(0)
    samples = bounds.Scores(rng.normal(size=100), rng.normal(size=100) + 50, "mine", "independent")
    tossed = [bounds.toss(samples, seed) for seed in range(40)]
    short = [labelled for labelled in tossed if labelled.trials == (100, 100)]
    assert 0 < len(short) < 40
    for labelled in short:
        everywhere = np.concatenate([samples.h0, samples.h1, [-1e9, 25.0, 1e9]])
        counts = labelled.count(everywhere)
        for direction in ("forward", "reverse"):
            for name in ("union", "cc-cp"):
                bound = bounds.METHODS[name].bound
                assert not np.any(bound(counts.errors_h0, counts.errors_h1, counts.trials, 0.0, 0.5, direction))


@pytest.mark.parametrize(
    "scores, message",
    [
        (numbered("labelled"), "must not be tossed again"),
        (numbered("independent", 99, 200), "99 trials, allowed are 100 or more"),
        (numbered("paired", 100, 101), "one length without failures; use the union method"),
        (bounds.Scores(np.zeros(100), np.ones(100), "mine", "paired", (1, 1)), "use the union method"),
        (bounds.Scores(np.zeros(100), np.ones(100), "mine", "independent", (0, 1)), "use the union method"),
    ],
    ids=["labelled", "few", "unequal", "failed pairs", "failed samples"],
)
def test_scores_that_coins_cannot_label_are_refused(scores, message):
    with pytest.raises(ValueError, match=message):
        bounds.toss(scores, seed=0)


# Many splits.


@pytest.mark.parametrize(
    "found, median", [([3.0], 3.0), ([3.0, 1.0], 1.0), ([3.0, 1.0, 2.0], 2.0), ([9.0, 0.0, 4.0, 1.0], 1.0)]
)
def test_many_splits_give_their_lower_median_each_at_half_the_failure_probability(monkeypatch, found, median):
    """The upper one would be exceeded where fewer than half of the splits fail, which Markov does not pay for."""
    bound = bounds.epsilon_at(bounds.declared([0.0], [0.0]), numbered("paired").count([0.0]), 0.0)
    answers, levels = iter(found), []

    def answer(plan, counts, delta, confidence):
        levels.append(confidence)
        return bounds.Bound(**(vars(bound) | {"epsilon": next(answers)}))

    monkeypatch.setattr(splitting, "epsilon_at", answer)
    assert bounds.multi_split(numbered("paired"), 0.0, confidence=0.9, splits=len(found)) == median
    assert levels == [pytest.approx(0.95)] * len(found)


def test_many_splits_of_clear_scores_certify_nearly_what_one_does():
    # Paid for by half the failure probability: ln(2) / ln(20) of a limit without errors, about 0.2.
    rng = np.random.default_rng(0)
    samples = bounds.Scores(rng.normal(size=2000), rng.normal(size=2000) + 30, "mine", "independent")
    pilot, rest = bounds.split(samples, seed=0)
    plan = bounds.robust_pilot(pilot, 1800, [0.0])
    one = bounds.epsilon_at(plan, rest.count(plan.thresholds), 0.0).epsilon
    many = [bounds.multi_split(samples, 0.0, splits=5, seed=seed) for seed in (1, 1, 2)]
    assert many[0] == many[1] == pytest.approx(many[2], abs=0.01)
    assert one - 0.25 < many[0] < one


def test_no_splits_at_all_are_refused():
    with pytest.raises(ValueError, match="splits must be 1 or more, got 0"):
        bounds.multi_split(numbered("paired"), 0.0, splits=0)


@pytest.mark.parametrize("other", [{"seed": 1}, {"seed": 0, "share": 0.2}, {"seed": 0, "most": 5}], ids=str)
def test_only_the_rest_of_its_own_split_certifies_what_a_pilot_chose(other):
    whole = numbered("paired")
    pilot, rest = bounds.split(whole, seed=0)
    plan = bounds.robust_pilot(pilot, 90, [0.0])
    bounds.epsilon_at(plan, rest.count(plan.thresholds), 0.0)
    for scores in (whole, pilot, bounds.split(whole, **other)[1]):
        with pytest.raises(ValueError, match="a bound needs fresh trials"):
            bounds.epsilon_at(plan, scores.count(plan.thresholds), 0.0)
