import inspect
import warnings
from itertools import combinations

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm

from jaxaudit.bounds import auditing
from jaxaudit.bounds.auditing.canaries import Canaries, numbers_of_guesses
from jaxaudit.bounds.bands import epsilon_simultaneous, equal_level_limit
from jaxaudit.bounds.estimates import epsilon_one_run_fdp
from jaxaudit.bounds.intervals import clopper_pearson_upper
from jaxaudit.bounds.one_run import epsilon_one_run

# The values below are those of jax_privacy 2.0.0, auditing.CanaryScoreAuditor(HELD_IN, HELD_OUT).
HELD_IN, HELD_OUT = np.sin(np.arange(60.0) * 7) + 1.2, np.cos(np.arange(80.0) * 5)
SOME = auditing.ScoreAuditor(HELD_IN, HELD_OUT)
# Few values, so that there are ties within and between the hypotheses.
TIED = st.lists(st.integers(0, 6), min_size=1, max_size=12)


@pytest.mark.parametrize(
    "arguments, strategy, published",
    [
        ((0.05,), auditing.Explicit(0.9), 0.6320475467330705),
        ((0.05, 1e-2), auditing.Explicit(0.9), 0.6103267060372257),
        ((0.05, 0.1, False), auditing.Explicit(0.2), 1.7611674923449774),
        ((0.05, 1e-2), auditing.Split(0.3, 5), 1.7765627942576319),
        ((0.05, 0, False), auditing.Split(seed=5), 1.3600323868564959),
        ((0.05, 1e-2), auditing.MultiSplit(20, seed=3), 1.094574139118106),
    ],
)
def test_clopper_pearson_is_that_of_jax_privacy_rounded_down(arguments, strategy, published):
    found = SOME.epsilon_clopper_pearson(*arguments, threshold_strategy=strategy)
    assert published - 1e-6 < found <= published


def test_estimates_are_those_of_jax_privacy():
    assert SOME.epsilon_raw_counts(5) == pytest.approx(2.3082831141086833, abs=1e-12)
    assert SOME.epsilon_raw_counts(5, 0.1, False) == pytest.approx(2.1350113928346466, abs=1e-12)
    assert SOME.attack_auroc() == pytest.approx(0.9052083333333334, abs=1e-12)
    assert SOME.max_accuracy() == pytest.approx(0.8142857142857143, abs=1e-12)
    assert SOME.max_accuracy(prevalence=0.2) == pytest.approx(0.9133333333333333, abs=1e-12)
    rates = [0.5666666666666667, 0.5765714285714286, 0.8638095238095238, 1.0]
    np.testing.assert_allclose(SOME.tpr_at_given_fpr([0, 0.01, 0.3, 1]), rates, rtol=1e-12)


def test_bootstrap_quantiles_are_those_of_jax_privacy():
    params = auditing.BootstrapParams(num_samples=100, quantiles=(0.1, 0.9), seed=11)
    for found, published in (
        (SOME.epsilon_raw_counts(5, bootstrap_params=params), [2.1628992490722427, 2.397940791885708]),
        (SOME.tpr_at_given_fpr(0.1, bootstrap_params=params), [0.5984467763173127, 0.7279943755336349]),
        (SOME.attack_auroc(bootstrap_params=params), [0.8769952964509228, 0.92475052349017]),
    ):
        np.testing.assert_allclose(found, published, rtol=1e-12)


def test_one_run_at_a_threshold_is_that_of_jax_privacy():
    strategy = {"threshold_strategy": auditing.Explicit(0.9)}
    assert SOME.epsilon_one_run(0.05, 1e-5, **strategy) == pytest.approx(0.5170879775958769, abs=2e-6)
    assert SOME.epsilon_one_run_fdp(0.05, 1e-5, **strategy) == pytest.approx(0.908535520792685, abs=2e-6)


@pytest.mark.parametrize(
    "name, parameters",
    [
        ("epsilon_clopper_pearson", "significance, delta=0, one_sided=True, *, threshold_strategy"),
        ("epsilon_raw_counts", "min_count=50, delta=0, one_sided=True, *, bootstrap_params=None"),
        ("tpr_at_given_fpr", "fpr, *, bootstrap_params=None"),
        ("attack_auroc", "*, bootstrap_params=None"),
        ("max_accuracy", "*, prevalence=None, significance=None"),
        ("epsilon_from_gdp", "significance, delta, eps_tol=1e-06"),
        ("epsilon_one_run", "significance, delta, one_sided=True, *, threshold_strategy"),
        ("epsilon_one_run_fdp", "significance, delta, one_sided=True, *, threshold_strategy"),
    ],
)
def test_methods_are_called_as_those_of_jax_privacy(name, parameters):
    found = inspect.signature(getattr(auditing.CanaryScoreAuditor, name)).parameters
    keyword, written = False, []
    for parameter in list(found.values())[1:]:
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword:
            keyword = True
            written.append("*")
        strategy = isinstance(parameter.default, auditing.Bonferroni)
        required = parameter.default is parameter.empty
        written.append(parameter.name if strategy or required else f"{parameter.name}={parameter.default}")
    assert ", ".join(written) == parameters


def every_threshold(h1, h0):
    """(false positives, false negatives) at every threshold: each score, and infinity."""
    for threshold in [*sorted({*h1, *h0}), np.inf]:
        yield sum(score >= threshold for score in h0), sum(score < threshold for score in h1)


@given(TIED, TIED, st.booleans(), st.sampled_from([0.0, 0.1]))
def test_default_bound_is_the_largest_of_the_band(h1, h0, one_sided, delta):
    if one_sided:
        limits = [
            (equal_limit(fp, len(h0), 0.8 * 0.2), equal_limit(fn, len(h1), 0.2 * 0.2))
            for fp, fn in every_threshold(h1, h0)
        ]
        expected = max(np.log(max((1 - delta - fnr) / fpr, 1)) for fpr, fnr in limits)
    else:
        expected = max(
            float(epsilon_simultaneous(*errors, (len(h0), len(h1)), delta, 0.2, side))
            for errors in every_threshold(h1, h0)
            for side in ("forward", "reverse")
        )
    found = auditing.ScoreAuditor(h1, h0).epsilon_clopper_pearson(0.2, delta, one_sided)
    assert found == pytest.approx(expected, abs=1e-12)


def equal_limit(errors, trials, significance):
    return float(equal_level_limit(errors, trials, significance))


def hull_height(points, fpr):
    """Height of the upper hull of points (FPR, TPR) at one FPR: the best chord over it."""
    best = max(tpr for x, tpr in points if x <= fpr)
    for (x0, y0), (x1, y1) in combinations(sorted(points), 2):
        if x0 < fpr < x1:
            best = max(best, y0 + (y1 - y0) * (fpr - x0) / (x1 - x0))
    return best


@given(TIED, TIED)
def test_roc_is_the_upper_hull_of_all_thresholds(h1, h0):
    points = [(fp / len(h0), 1 - fn / len(h1)) for fp, fn in every_threshold(h1, h0)]
    auditor = auditing.ScoreAuditor(h1, h0)
    grid = np.union1d([x for x, _ in points], [0.03, 0.5, 0.9])
    heights = [hull_height(points, fpr) for fpr in grid]
    np.testing.assert_allclose(auditor.tpr_at_given_fpr(grid), heights, atol=1e-12)
    # The hull is straight between neighbouring false positive rates.
    assert auditor.attack_auroc() == pytest.approx(np.trapezoid(heights, grid), abs=1e-12)


@given(TIED, TIED, st.sampled_from([None, 0.0, 0.3, 1.0]))
def test_accuracy_and_its_limit_look_at_all_thresholds(h1, h0, prevalence):
    weight = len(h1) / (len(h0) + len(h1)) if prevalence is None else prevalence
    auditor, errors = auditing.ScoreAuditor(h1, h0), list(every_threshold(h1, h0))
    observed = max(weight * (1 - fn / len(h1)) + (1 - weight) * (1 - fp / len(h0)) for fp, fn in errors)
    assert auditor.max_accuracy(prevalence=prevalence) == pytest.approx(observed, abs=1e-12)
    limit = max(
        weight * clopper_pearson_upper(len(h1) - fn, len(h1), 0.05)
        + (1 - weight) * clopper_pearson_upper(len(h0) - fp, len(h0), 0.05)
        for fp, fn in errors
    )
    assert auditor.max_accuracy(prevalence=prevalence, significance=0.1) == pytest.approx(limit, abs=1e-12)


def test_gdp_reads_nothing_from_scores_that_tell_nothing():
    """300 null samples of 100 + 100: at most 5 % read anything; false alarm 1e-5. jax_privacy 2.0.0 reads 3 to 6."""
    rng = np.random.default_rng(0)
    readings = [
        auditing.ScoreAuditor(rng.normal(size=100), rng.normal(size=100)).epsilon_from_gdp(0.05, 1e-5)
        for _ in range(300)
    ]
    assert np.count_nonzero(readings) <= binom.isf(1e-5, 300, 0.05)


def test_gdp_is_close_and_below_for_gaussian_scores():
    """Exact quantiles of two normal laws one apart: the true epsilon is that of a Gaussian shift.

    A standard error of Φ⁻¹ of a rate of Φ(-1/2) is 0.00415; each of the two limits is at most 4.5 of them away.
    """
    quantiles = norm.ppf((np.arange(100_000) + 0.5) / 100_000)
    found = auditing.ScoreAuditor(quantiles + 1, quantiles).epsilon_from_gdp(0.05, 1e-3)
    lowest, true = (reference.gaussian_epsilon(1e-3, distance) for distance in (1 - 2 * 4.5 * 0.00415, 1.0))
    assert lowest < found < true


def test_one_run_shares_the_significance_among_numbers_of_guesses():
    h1, h0 = np.arange(500) + 400.5, np.arange(500)
    guesses = numbers_of_guesses(1000, 0.05)
    assert guesses.tolist() == [500, 250, 125, 62, 31, 15]
    # The 400 highest scores are held in, then the two alternate.
    correct = np.where(guesses <= 400, guesses, 450)
    share = 0.05 / guesses.size
    auditor = auditing.ScoreAuditor(h1, h0)
    expected = max(epsilon_one_run(correct, guesses, 1000, 1e-6, share))
    assert auditor.epsilon_one_run(0.05, 1e-6) == pytest.approx(expected)
    expected = max(epsilon_one_run_fdp(*numbers, 1000, 1e-6, share) for numbers in zip(correct, guesses))
    assert auditor.epsilon_one_run_fdp(0.05, 1e-6) == pytest.approx(expected)


@given(TIED, TIED)
def test_equal_scores_are_guessed_in_the_worst_order(h1, h0):
    ranked = sorted([(-score, 1) for score in h1] + [(-score, 0) for score in h0])
    guesses = np.arange(1, len(ranked) + 1)
    expected = np.cumsum([held_in for _, held_in in ranked])
    np.testing.assert_array_equal(Canaries(h1, h0).correct(guesses), expected)


def test_one_run_bound_never_exceeds_true_epsilon():
    """500 canaries answer by randomised response with ε = 1: 100 runs, false alarm 1e-5."""
    rng, above = np.random.default_rng(0), 0
    for _ in range(100):
        held_in = rng.random(500) < 0.5
        told = np.where(rng.random(500) < 1 / (1 + np.exp(-1)), held_in, ~held_in)
        scores = told + rng.random(500) / 2
        above += auditing.ScoreAuditor(scores[held_in], scores[~held_in]).epsilon_one_run(0.05, 1e-9) > 1
    assert above <= binom.isf(1e-5, 100, 0.05)


@pytest.mark.parametrize("strategy", [auditing.Split(), auditing.MultiSplit()])
def test_one_run_refuses_a_number_of_guesses_that_the_run_chose(strategy):
    with pytest.raises(ValueError, match="is not proved for one run"):
        SOME.epsilon_one_run(0.05, 1e-5, threshold_strategy=strategy)


def test_delta_one_shows_nothing():
    assert SOME.epsilon_clopper_pearson(0.05, 1) == SOME.epsilon_from_gdp(0.05, 1) == 0
    assert SOME.epsilon_one_run(0.05, 1) == SOME.epsilon_one_run_fdp(0.05, 1) == 0


@pytest.mark.parametrize(
    "held_in, held_out, message",
    [
        ([], [1.0], "in_canary_scores must be non-empty"),
        ([1.0], [], "out_canary_scores must be non-empty"),
        ([[1.0]], [1.0], "in_canary_scores must be 1-dimensional"),
        ([1.0], 3.0, "out_canary_scores must be 1-dimensional"),
        ([1.0, np.nan], [1.0], "in_canary_scores must be finite, got 1 that are not"),
        ([1.0], [np.inf, -np.inf], "out_canary_scores must be finite, got 2 that are not"),
    ],
)
def test_scores_that_cannot_be_ranked_are_refused(held_in, held_out, message):
    with pytest.raises(ValueError, match=message):
        auditing.ScoreAuditor(held_in, held_out)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda a: a.epsilon_clopper_pearson(0.5), "significance must be in"),
        (lambda a: a.epsilon_clopper_pearson(0.05, 1.1), "delta must be in"),
        (lambda a: a.epsilon_clopper_pearson(0.05, threshold_strategy=None), "Unsupported threshold strategy"),
        (lambda a: a.epsilon_clopper_pearson(0.05, threshold_strategy=auditing.Explicit(np.nan)), "threshold must"),
        (lambda a: a.epsilon_clopper_pearson(0.05, threshold_strategy=auditing.Split(1.0)), "frac must be in"),
        (lambda a: a.epsilon_raw_counts(0), "min_count must be positive"),
        (lambda a: a.epsilon_raw_counts(delta=-0.1), "delta must be in"),
        (lambda a: a.tpr_at_given_fpr(1.5), "fpr must be in"),
        (lambda a: a.tpr_at_given_fpr([0.1], bootstrap_params=auditing.BootstrapParams()), "a scalar for bootstrap"),
        (lambda a: a.max_accuracy(prevalence=-1), "prevalence must be in"),
        (lambda a: a.max_accuracy(significance=0), "significance must be in"),
        (lambda a: a.epsilon_from_gdp(0.05, 0), "delta must be in"),
        (lambda a: a.epsilon_from_gdp(0.05, 0.1, 0), "eps_tol must be positive"),
        (lambda a: a.epsilon_one_run(1.0, 0.1), "significance must be in"),
        (lambda a: a.epsilon_one_run(0.05, 0), "delta must be in"),
        (lambda a: a.epsilon_one_run_fdp(0.05, 0.1, False), "one_sided must be True"),
        (lambda a: a.epsilon_one_run(0.05, 0.1, threshold_strategy=None), "Unsupported threshold strategy"),
        (lambda a: auditing.BootstrapParams(quantiles=[]), "quantiles cannot be empty"),
        (lambda a: auditing.BootstrapParams(quantiles=(0, 0.5)), "quantiles must be in"),
        (lambda a: auditing.BootstrapParams(bias_correction=False, acceleration=True), "acceleration needs"),
        (lambda a: auditing.BootstrapParams.confidence_interval(confidence=1), "confidence must be in"),
    ],
)
def test_arguments_out_of_range_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(SOME)


def test_values_are_those_of_jax_privacy_where_it_is_installed():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = pytest.importorskip("jax_privacy.auditing")
        rng = np.random.default_rng(0)
        for seed in range(100):
            sizes = rng.integers(5, 300, 2)
            h1 = rng.integers(2, 14, sizes[0]) if seed % 3 == 0 else rng.normal(rng.uniform(-1, 4), 1, sizes[0])
            h0 = rng.integers(0, 12, sizes[1]) if seed % 3 == 0 else rng.normal(size=sizes[1])
            delta, one_sided, threshold = rng.choice([0, 1e-5, 0.1]), bool(rng.integers(2)), rng.choice(h0)
            found = []
            for module in (theirs, auditing):
                auditor = module.CanaryScoreAuditor(h1, h0)
                found.append(
                    [
                        *auditor.tpr_at_given_fpr([0, 0.01, 0.2, 1]),
                        auditor.attack_auroc(),
                        auditor.max_accuracy(),
                        auditor.epsilon_raw_counts(10, delta, one_sided),
                        *(
                            auditor.epsilon_clopper_pearson(0.05, delta, one_sided, threshold_strategy=strategy)
                            for strategy in (
                                module.Explicit(threshold),
                                module.Split(0.4, seed),
                                module.MultiSplit(5, seed=seed),
                            )
                        ),
                        auditor.epsilon_one_run(0.05, 1e-4, threshold_strategy=module.Explicit(threshold)),
                        auditor.epsilon_one_run_fdp(0.05, 1e-4, threshold_strategy=module.Explicit(threshold)),
                        *auditor.attack_auroc(bootstrap_params=module.BootstrapParams(20, seed=seed)),
                    ]
                )
            np.testing.assert_allclose(*found, atol=3e-6)
