from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxaudit import bounds

# Halves, so that ties with each other and with the thresholds are common.
HALVES = st.integers(-6, 6).map(lambda n: n / 2)
SCORES = arrays(np.float64, st.integers(1, 20), elements=HALVES)
# Among them trials that failed, but not all of them.
WITH_FAILURES = arrays(
    np.float64, st.integers(1, 20), elements=st.one_of(HALVES, st.sampled_from([np.nan, np.inf, -np.inf]))
).filter(lambda scores: np.isfinite(scores).any())
THRESHOLDS = arrays(np.float64, st.integers(1, 6), elements=HALVES, unique=True)
SORTED = st.lists(st.floats(-2, 2), min_size=1, max_size=9, unique=True).map(sorted)
DESIGNS = ("paired", "nested", "labelled", "independent")


def counts(**changes):
    """Counts of ten trials at two thresholds."""
    fields = dict(
        thresholds=[0.0, 1.0], errors_h0=[3, 1], errors_h1=[0, 2], trials_h0=10, trials_h1=10, stream="fresh"
    )
    return bounds.Counts(**(fields | changes))


def plain(record):
    return {name: np.asarray(value).tolist() for name, value in asdict(record).items()}


@given(SCORES, SCORES, THRESHOLDS)
def test_a_tie_counts_as_an_error_under_both_hypotheses(h0, h1, thresholds):
    counted = bounds.Scores(h0, h1, "fresh").count(thresholds)
    assert counted.errors_h0.tolist() == [np.sum(h0 >= t) for t in thresholds]
    assert counted.errors_h1.tolist() == [np.sum(h1 <= t) for t in thresholds]


@given(SCORES, SCORES, THRESHOLDS)
def test_ties_are_counted_the_same_way_on_both_sides(h0, h1, thresholds):
    """Turning the scores around exchanges the hypotheses, and with them the errors."""
    counted = bounds.Scores(h0, h1, "fresh").count(thresholds)
    turned = bounds.Scores(-h1, -h0, "fresh").count(-thresholds)
    assert counted.errors_h0.tolist() == turned.errors_h1.tolist()
    assert counted.errors_h1.tolist() == turned.errors_h0.tolist()


@given(SCORES, SCORES, SCORES, SCORES, THRESHOLDS)
def test_counts_of_parts_add_up_to_counts_of_the_whole(a0, a1, b0, b1, thresholds):
    parts = [bounds.Scores(h0, h1, "fresh").count(thresholds) for h0, h1 in ((a0, a1), (b0, b1))]
    whole = bounds.Scores(np.append(a0, b0), np.append(a1, b1), "fresh").count(thresholds)
    assert plain(parts[0] + parts[1]) == plain(whole)


def test_more_scores_than_fit_in_a_block_are_all_counted():
    # 70,000 scores 0, 1, 2, …: 70,000 - t of them are at or above t, and t + 1 at or below it.
    scores = np.random.default_rng(0).permutation(70_000)
    counted = bounds.Scores(scores, scores, "fresh").count([0, 33_333, 69_999])
    assert counted.errors_h0.tolist() == [70_000, 36_667, 1]
    assert counted.errors_h1.tolist() == [1, 33_334, 70_000]


@pytest.mark.parametrize("change", [{"stream": "other"}, {"design": "labelled"}, {"thresholds": [0.0, 2.0]}])
def test_counts_of_different_kinds_do_not_add(change):
    with pytest.raises(ValueError, match="same stream, thresholds and design"):
        counts() + counts(**change)


def test_counts_are_not_added_to_themselves():
    once = counts()
    with pytest.raises(ValueError, match="each trial counts once"):
        once + once


@pytest.mark.parametrize("side, position", [("h0", 2), ("h1", 0)])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused_with_their_index_and_the_remedy(side, position, bad):
    scores = {"h0": np.zeros(4), "h1": np.ones(4)}
    scores[side][position] = bad
    with pytest.raises(ValueError, match=rf"scores {side}\[{position}\] is {bad}.*Scores\.with_failures"):
        bounds.Scores(**scores, stream="fresh")


@given(WITH_FAILURES, WITH_FAILURES, THRESHOLDS)
def test_trials_that_failed_are_errors_at_every_threshold(h0, h1, thresholds):
    counted = bounds.Scores.with_failures(h0, h1, "fresh", "independent").count(thresholds)
    assert counted.errors_h0.tolist() == [np.sum((h0 >= t) | ~np.isfinite(h0)) for t in thresholds]
    assert counted.errors_h1.tolist() == [np.sum((h1 <= t) | ~np.isfinite(h1)) for t in thresholds]
    assert counted.trials == (h0.size, h1.size)


@pytest.mark.parametrize("design", ["paired", "nested"])
def test_a_pair_of_which_one_half_failed_is_two_errors(design):
    # So the arrays stay paired. Draws 1 and 3 failed; of the others -1, 5 and 1, 6 are no errors at 0.5.
    scores = bounds.Scores.with_failures([-1, np.nan, 1, 2], [5, 6, 6, np.inf], "fresh", design)
    assert scores.h0.tolist() == [-1, 1] and scores.h1.tolist() == [5, 6]
    assert scores.failed == (2, 2) and scores.design == "paired"
    assert scores.count([0.5]).at(0.5) == (1 + 2, 0 + 2)


@pytest.mark.parametrize("side", ["h0", "h1"])
@pytest.mark.parametrize("design", DESIGNS)
def test_a_failure_never_raises_a_bound(design, side):
    """Whatever the failure was about: not even where it speaks for a hypothesis all by itself."""
    scores = {"h0": np.arange(1000.0), "h1": np.arange(1000.0) + 700}
    failed = scores | {side: np.where(np.arange(1000) % 9, scores[side], np.nan)}
    found = [bounds.Scores.with_failures(**some, stream="fresh", design=design) for some in (scores, failed)]
    plan = bounds.declared([500.5, 1000.5], [0.0], bounds.best_method(found[1].design))
    without, having = (bounds.epsilon_at(plan, some.count(plan.thresholds), 0.0) for some in found)
    assert 0 < having.epsilon <= without.epsilon


def test_pairs_of_which_none_failed_stay_nested():
    assert bounds.Scores.with_failures([1.0, 2.0], [1.5, 2.5], "fresh", "nested").design == "nested"


def test_failures_are_not_nested():
    with pytest.raises(ValueError, match=r"failed are not nested; Scores\.with_failures"):
        bounds.Scores([1.0], [2.0], "fresh", "nested", (1, 1))


def test_trials_that_all_failed_are_refused():
    with pytest.raises(ValueError, match="scores h0 must be a non-empty"):
        bounds.Scores.with_failures([np.nan, np.inf], [1.0, 2.0], "fresh", "independent")


@pytest.mark.parametrize("bad", [np.zeros(0), np.zeros((2, 2)), np.float64(1.0)])
def test_scores_must_be_a_list_of_numbers(bad):
    with pytest.raises(ValueError, match="non-empty one-dimensional array"):
        bounds.Scores(bad, np.ones(4), "fresh")


@pytest.mark.parametrize("h1", [[1.0, 1.9], [1.0, 2.0, 3.0]])
def test_a_nesting_that_does_not_hold_is_refused(h1):
    with pytest.raises(ValueError, match=r'nested scores need.*use design="paired"'):
        bounds.Scores([1.0, 2.0], h1, "fresh", "nested")


@pytest.mark.parametrize(
    "make", [lambda design: bounds.Scores([0.0], [1.0], "fresh", design), lambda d: counts(design=d)]
)
@pytest.mark.parametrize("design", ["coins", "", None, True])
def test_an_unknown_design_is_refused_with_those_that_are_known(make, design):
    with pytest.raises(ValueError, match="design must be one of paired, nested, labelled, independent"):
        make(design)


@pytest.mark.parametrize("trials, fair", [((4950, 5050), True), ((5000, 5900), False), ((0, 100), False)])
def test_labelled_trials_that_no_fair_coin_could_give_are_refused(trials, fair):
    def counted():
        return counts(trials_h0=trials[0], trials_h1=trials[1], errors_h0=[0, 0], errors_h1=[0, 0], design="labelled")

    if fair:
        assert counted().trials == trials
    else:
        with pytest.raises(ValueError, match=r"a fair coin.*use design="):
            counted()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"errors_h0": [11, 0]}, r"errors_h0 must be in \[0, 10\]"),
        ({"errors_h1": [0, -1]}, r"errors_h1 must be in \[0, 10\]"),
        ({"errors_h1": [0]}, "same shape"),
        ({"errors_h0": [0.9, 0.0]}, "whole numbers"),
        ({"errors_h0": [np.nan, 0.0]}, "whole numbers"),
        ({"design": "nested", "trials_h0": 20}, "as many trials"),
        ({"thresholds": [0.0, np.nan]}, "thresholds must be numbers"),
        ({"thresholds": [1.0, 1.0]}, "equal thresholds|thresholds must be different"),
    ],
)
def test_impossible_counts_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        counts(**change)


@pytest.mark.parametrize("change", [{"failed": (-1, 0)}, {"failed": (0, -1)}, {"failed": (0.5, 0)}])
def test_failures_that_are_no_numbers_of_trials_are_refused(change):
    with pytest.raises(ValueError, match="failed"):
        bounds.Scores([0.0, 1.0], [1.0, 2.0], "fresh", **change)


def test_errors_are_looked_up_by_their_threshold():
    assert counts().at(1.0) == (1, 2)
    with pytest.raises(ValueError, match=r"threshold 0\.5 was not counted"):
        counts().at(0.5)


@given(SORTED, st.data())
def test_some_of_the_thresholds_have_the_counts_they_would_have_alone(every, data):
    rng = np.random.default_rng(0)
    scores = bounds.Scores(rng.normal(size=50), rng.normal(size=50), "fresh")
    some = data.draw(st.lists(st.sampled_from(every), min_size=1, unique=True).map(np.sort))
    np.testing.assert_equal(plain(scores.count(np.array(every)).only(some)), plain(scores.count(some)))


@pytest.mark.parametrize("missing", [0.5, -3.0, 9.0])
def test_thresholds_that_were_not_counted_have_no_counts(missing):
    with pytest.raises(ValueError, match="some of these thresholds were not counted"):
        counts().only([1.0, missing] if missing > 1 else [missing, 1.0])
