import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import ndtr
from scipy.stats import binom, mannwhitneyu

from jaxaudit import bounds

REPETITIONS = 250
SCORES = arrays(np.float32, st.integers(2, 40), elements=st.floats(-100, 100, width=32))


def condemned(failures):
    """Would a band that fails at most one time in twenty fail this often? False alarms below 1e-4."""
    return binom.sf(failures - 1, REPETITIONS, 0.05) < 1e-4


def gaussian(rng, distance, size, stream):
    return bounds.Scores(rng.normal(size=size), rng.normal(size=size) + distance, stream)


@pytest.mark.parametrize("distance", [0.0, 1.0, 3.0])
def test_band_holds_the_true_error_rates_at_all_thresholds_at_once(distance):
    rng = np.random.default_rng(1)
    thresholds = bounds.roc_thresholds(gaussian(rng, distance, 1000, "pilot"), size=16)
    fpr, fnr = ndtr(-thresholds), ndtr(thresholds - distance)

    def fails():
        band = bounds.tradeoff(gaussian(rng, distance, 2000, "fresh").count(thresholds))
        inside = (band.fpr_lower <= fpr) & (fpr <= band.fpr_upper) & (band.fnr_lower <= fnr) & (fnr <= band.fnr_upper)
        return not inside.all()

    assert not condemned(sum(fails() for _ in range(REPETITIONS)))


def test_roc_band_holds_the_true_curve_between_the_thresholds_too():
    rng = np.random.default_rng(2)
    thresholds = bounds.roc_thresholds(gaussian(rng, 1.0, 1000, "pilot"), size=16)
    fpr = np.geomspace(1e-4, 1, 200)
    tpr = 1 - bounds.gaussian_tradeoff(fpr, 1.0)

    def fails():
        lower, upper = bounds.roc_band(bounds.tradeoff(gaussian(rng, 1.0, 2000, "fresh").count(thresholds)), fpr)
        return not ((lower <= tpr) & (tpr <= upper)).all()

    assert not condemned(sum(fails() for _ in range(REPETITIONS)))


def test_privacy_curve_exceeds_the_truth_nowhere():
    # Laplace scores: every threshold beyond the shift is the best one, so all of them try to exceed the truth. The
    # band of all thresholds holds on the very scores that suggested them.
    rng = np.random.default_rng(3)
    deltas = (0.0, 1e-3, 1e-2, 0.1)
    truth = [reference.laplace_epsilon(delta, 3.0) for delta in deltas]

    def fails():
        scores = bounds.Scores(rng.laplace(size=2000), rng.laplace(size=2000) + 3, "fresh")
        thresholds = bounds.roc_thresholds(scores, size=8)
        curve = bounds.privacy_curve(bounds.declared(thresholds, deltas, "band"), scores.count(thresholds), deltas)
        return any(bound.epsilon > most for bound, most in zip(curve, truth))

    assert not condemned(sum(fails() for _ in range(REPETITIONS)))


def test_band_is_narrow_where_trials_are_many():
    rng = np.random.default_rng(4)
    thresholds = bounds.roc_thresholds(gaussian(rng, 1.0, 1000, "pilot"))
    band = bounds.tradeoff(gaussian(rng, 1.0, 10**6, "fresh").count(thresholds))
    # The widest place is a rate of 1/2: four to five standard deviations of 1/2000 on either side.
    assert np.max(band.fpr_upper - band.fpr_lower) < 10 / 2000


@given(SCORES, SCORES)
def test_area_between_all_atoms_is_the_chance_that_h1_scores_higher(h0, h1):
    atoms = np.unique(np.append(h0, h1)).astype(np.float64)
    curve = bounds.tradeoff(bounds.Scores(h0, h1, "fresh").count((atoms[:-1] + atoms[1:]) / 2))
    pairs = mannwhitneyu(h1, h0, method="asymptotic", use_continuity=False).statistic / (h0.size * h1.size)
    assert bounds.area_under_roc(curve) == pytest.approx(pairs)


@pytest.mark.parametrize("distance", [0.0, 1.0, 3.0])
def test_area_of_a_gaussian_shift_is_known(distance):
    # The area is Φ(Δ/√2), estimated with a standard deviation of at most √(A (1 - A) / trials); five of them are a
    # false alarm of 6e-7. Chords of the 392-point grid lie below the concave curve by less than 1e-3.
    rng = np.random.default_rng(5)
    thresholds = bounds.roc_thresholds(gaussian(rng, distance, 10_000, "pilot"))
    area = bounds.area_under_roc(bounds.tradeoff(gaussian(rng, distance, 10**5, "fresh").count(thresholds)))
    expected = ndtr(distance / np.sqrt(2))
    assert area == pytest.approx(expected, abs=1e-3 + 5 * np.sqrt(expected * (1 - expected) / 10**5))


@given(SCORES, SCORES)
def test_roc_thresholds_rise_and_never_tie_with_a_float32_score(h0, h1):
    thresholds = bounds.roc_thresholds(bounds.Scores(h0, h1, "pilot"))
    assert np.all(np.diff(thresholds) > 0)
    assert np.all(np.float32(thresholds) != thresholds)
    assert thresholds.size <= 6 * 64 + 8


def test_histogram_edges_are_equally_spaced_over_the_pilot():
    # 0 to 8 in four bins of 2, moved down by a 512th of one.
    pilot = bounds.Scores([0.0, 3.0], [5.0, 8.0], "pilot")
    np.testing.assert_array_equal(bounds.histogram_edges(pilot, bins=4), np.array([0, 2, 4, 6, 8]) - 2 / 512)


@given(SCORES, SCORES)
def test_histogram_edges_rise_and_hold_all_of_the_pilot_but_its_very_top(h0, h1):
    edges = bounds.histogram_edges(bounds.Scores(h0, h1, "pilot"))
    scores = np.concatenate([h0, h1]).astype(np.float64)
    assert edges.shape == (129,) and np.all(np.diff(edges) > 0)
    low, high = scores.min(), scores.max()
    inside = (edges[0] <= scores) & (scores <= edges[-1])
    assert np.all(inside | (scores >= high - (high - low) / 128 / 256))
