import numpy as np
import pytest
import reference
from scipy.stats import beta, binom

from jaxaudit.bounds.intervals import clopper_pearson_upper
from jaxaudit.bounds.order_statistics import epsilon_order_statistics, ranks
from jaxaudit.bounds.samples import Scores

REPETITIONS = 300
DELTAS = np.array([0.0, 1e-3, 0.1])


def condemned(failures):
    """Would a bound that fails at most one time in twenty fail this often? False alarms below 1e-5."""
    return binom.sf(failures - 1, REPETITIONS, 0.05) < 1e-5


def independent(h0, h1, **others):
    return Scores(h0, h1, "fresh", design="independent", **others)


def laplace(rng, shift, size=1000):
    return independent(rng.laplace(size=size), rng.laplace(size=size) + shift)


@pytest.mark.parametrize("trials, many", [(1, 1), (2, 1), (3, 1), (10**4, 24), (10**6, 37), (10**13, 84)])
def test_ranks_are_about_two_log2_of_the_trials(trials, many):
    found = ranks(trials)
    assert found[0] == 1 and found[-1] <= max(trials // 2, 1) and np.all(np.diff(found) > 0)
    assert abs(found.size - many) <= 1


def test_ranks_hold_every_power_of_two():
    assert set(2 ** np.arange(40)) <= set(ranks(2**41))


def test_false_positive_rate_of_separated_scores_is_a_beta_quantile():
    # Ten thousand scores of H0 below as many of H1: rank 1 is best, and no score of H1 is missed.
    scores = independent(-np.arange(10_000.0), np.arange(1.0, 10_001))
    found = epsilon_order_statistics(scores, 0.0, 0.05, direction="forward")
    share = 0.05 / ranks(10_000).size
    fpr, fnr = beta.isf(0.8 * share, 1, 10_000), beta.isf(0.2 * share, 1, 10_000)
    assert found.epsilon == pytest.approx(np.log((1 - fnr) / fpr), abs=1e-6)
    assert (found.threshold, found.direction, found.errors_h0, found.errors_h1) == (0.0, "forward", 1, 0)


def test_bound_is_the_best_over_the_ranks_by_definition():
    rng = np.random.default_rng(1)
    scores = laplace(rng, 3.0)
    share = 0.05 / ranks(1000).size
    found = epsilon_order_statistics(scores, DELTAS, 0.05, direction="forward")
    for i, delta in enumerate(DELTAS):
        values = {}
        for k in ranks(1000):
            threshold = np.sort(scores.h0)[-k]
            fnr = clopper_pearson_upper(np.sum(scores.h1 <= threshold), 1000, 0.2 * share)
            values[threshold] = (1 - fnr - delta) / clopper_pearson_upper(k - 1, 1000, 0.8 * share)
        assert found.epsilon[i] == pytest.approx(np.log(max(values.values())))
        assert found.threshold[i] == max(values, key=values.get)


@pytest.mark.parametrize("shift", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("direction", [None, "forward"])
def test_no_delta_exceeds_the_truth(shift, direction):
    # Laplace scores, where every threshold beyond the shift has the true epsilon.
    rng = np.random.default_rng(2)
    truth = [reference.laplace_epsilon(delta, shift) for delta in DELTAS]
    failures = sum(
        np.any(epsilon_order_statistics(laplace(rng, shift), DELTAS, 0.05, direction).epsilon > truth)
        for _ in range(REPETITIONS)
    )
    assert not condemned(failures)


def test_ties_are_not_counted_for_the_bound():
    # One bit, told with odds e^2 to 1; and the same in scores of which most are equal.
    rng = np.random.default_rng(3)
    truth = [reference.randomised_response_epsilon(delta, 2.0) for delta in DELTAS]
    lie = 1 / (1 + np.exp(2.0))

    def fails():
        scores = independent(rng.random(1000) < lie, rng.random(1000) >= lie)
        return np.any(epsilon_order_statistics(scores, DELTAS, 0.05).epsilon > truth)

    assert not condemned(sum(fails() for _ in range(REPETITIONS)))


def test_equal_scores_show_nothing():
    found = epsilon_order_statistics(independent(np.zeros(1000), np.zeros(1000)), DELTAS, 0.05)
    assert np.all(found.epsilon == 0)


def test_exchanging_the_hypotheses_exchanges_the_directions():
    rng = np.random.default_rng(4)
    scores = independent(rng.laplace(size=800), rng.laplace(size=1000) + 2)
    turned = independent(-scores.h1, -scores.h0)
    forward = epsilon_order_statistics(scores, DELTAS, 0.05, direction="forward")
    reverse = epsilon_order_statistics(turned, DELTAS, 0.05, direction="reverse")
    np.testing.assert_array_equal(forward.epsilon, reverse.epsilon)
    np.testing.assert_array_equal(forward.threshold, -reverse.threshold)
    np.testing.assert_array_equal(forward.errors_h0, reverse.errors_h1)
    assert set(reverse.direction) == {"reverse"}


def test_both_directions_share_what_one_alone_would_have():
    scores = laplace(np.random.default_rng(5), 3.0)
    both = epsilon_order_statistics(scores, DELTAS, 0.05).epsilon
    halves = [epsilon_order_statistics(scores, DELTAS, 0.025, way).epsilon for way in ("forward", "reverse")]
    np.testing.assert_array_equal(both, np.maximum(*halves))


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_failed_trials_are_scores_that_err(direction):
    rng = np.random.default_rng(6)
    h0, h1 = rng.normal(size=500), rng.normal(size=500) + 3
    failed = epsilon_order_statistics(independent(h0, h1, failed=(2, 3)), DELTAS, 0.05, direction)
    erred = independent(np.append(h0, [100, 100]), np.append(h1, [-100, -100, -100]))
    np.testing.assert_array_equal(failed.epsilon, epsilon_order_statistics(erred, DELTAS, 0.05, direction).epsilon)
    assert np.all(failed.epsilon < epsilon_order_statistics(independent(h0, h1), DELTAS, 0.05, direction).epsilon)


def test_labelled_scores_are_taken_and_a_single_delta_gives_a_single_bound():
    rng = np.random.default_rng(7)
    scores = Scores(rng.normal(size=490), rng.normal(size=510) + 3, "fresh", design="labelled")
    assert epsilon_order_statistics(scores, 1e-5, 0.05).epsilon.shape == ()


@pytest.mark.parametrize("design", ["paired", "nested"])
def test_dependent_samples_are_refused(design):
    scores = Scores(np.zeros(10), np.ones(10), "fresh", design=design)
    with pytest.raises(ValueError, match=f"order statistics need independent samples, got {design} scores"):
        epsilon_order_statistics(scores, 0.0, 0.05)


@pytest.mark.parametrize(
    "deltas, significance, direction, message",
    [
        (1.0, 0.05, None, "delta must be in"),
        (0.0, 0.0, None, "significance must be in"),
        (0.0, 0.05, "sideways", "direction must be"),
    ],
)
def test_what_has_no_meaning_is_refused(deltas, significance, direction, message):
    with pytest.raises(ValueError, match=message):
        epsilon_order_statistics(independent([0.0], [1.0]), deltas, significance, direction)
