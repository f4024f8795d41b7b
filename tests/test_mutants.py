"""The judge of the coverage tests, judged: every way to spend the failure probability wrongly must be condemned.

Each mutant is one step away from a rule that passes on the same pair of laws, and its comment says how often it was
measured to fail. Two wrongs are missing, because no bound was seen to suffer from them: CC-CP for pairs, or for
samples of fixed size (the logarithm of true over false positives varies less there than with coins), and order
statistics of pairs.
"""

from dataclasses import replace

import numpy as np
import pytest
import reference
from certificates import (
    CONFIDENCE,
    SIGNIFICANCE,
    Certificate,
    certified,
    condemned,
    planned,
    quicken,
    tossed,
    tried,
    watched,
)
from reference import LAWS
from unsound import planned_on_itself, published

from jaxaudit import bounds
from jaxaudit.bounds import conditional

TRIALS = 10_000
conditional_bounds = pytest.mark.parametrize("design, method", [("labelled", "cc-cp"), ("nested", "pc-cp")])


@pytest.fixture(autouse=True)
def quickened(monkeypatch):
    quicken(monkeypatch.setattr)


def failures(certificate, law, repetitions, seed, trials=4000, reuses=20):
    """Repetitions in which a certificate exceeds the true epsilon at delta 0."""
    rng, certificate = np.random.default_rng(seed), certificate._replace(at=(0.0,))
    return tried({"one": certificate}, law, rng, trials, repetitions // reuses, reuses)["one"].judged.item()


@conditional_bounds
def test_a_plan_made_on_the_certifying_trials_is_caught(design, method):
    # 49 % and 80 %: likelihood ratios of a Laplace pair are level beyond the shift, so the luckiest of many wins.
    assert condemned(failures(planned_on_itself(design, method), LAWS["Laplace 1"], 100, seed=7), 100)


@conditional_bounds
def test_failure_probability_spent_on_every_event_is_caught(design, method):
    # 12 % and 18 %: each of eight events fails one time in twenty by itself.
    def bound(_, fresh, deltas):
        plan = bounds.declared(np.linspace(1, 3, 4), deltas, method)
        confidence = 1 - SIGNIFICANCE * len(plan.events)
        return [bounds.epsilon_at(plan, getattr(fresh, design).count(plan.thresholds), 0.0, confidence).epsilon]

    assert condemned(failures(Certificate(bound), LAWS["Laplace 1"], 600, seed=8), 600)


@conditional_bounds
def test_a_second_direction_that_is_not_paid_for_is_caught(design, method):
    # 10 % and 9 %: both directions of randomised response meet the boundary.
    rng, law, found = np.random.default_rng(9), LAWS["randomised response 1"], {}
    q = 1 / (1 + np.e)
    if design == "nested":
        fp, _, fn = rng.multinomial(TRIALS, [q, 1 - 2 * q, q], size=20_000).T
        counted = fp, fn, TRIALS
    else:
        fp, tp, fn, tn = rng.multinomial(2 * TRIALS, np.array([q, 1 - q, q, 1 - q]) / 2, size=20_000).T
        counted = fp, fn, (fp + tn, fn + tp)
    for level in (SIGNIFICANCE, SIGNIFICANCE / 2):
        either = [
            bounds.METHODS[method].bound(*counted, 0.0, level, direction) for direction in ("forward", "reverse")
        ]
        found[level] = np.sum(np.maximum(*either) > law.epsilon(0.0))
    assert condemned(found[SIGNIFICANCE], 20_000)
    assert not condemned(found[SIGNIFICANCE / 2], 20_000)


def test_a_split_that_follows_the_direction_unpaid_is_caught():
    # 7 %: with the larger share at whichever error is in the denominator, two events of 4 % each are one too many.
    rng, eps = np.random.default_rng(10), 5.0
    q = 1 / (1 + np.exp(eps))
    counted = (*rng.binomial(200_000, q, (2, 20_000)), 200_000, 0.0, SIGNIFICANCE)
    flipped = [bounds.epsilon_clopper_pearson(*counted, side) for side in ("forward", "reverse")]
    fixed = [bounds.epsilon_clopper_pearson(*counted, side, rare="fpr") for side in ("forward", "reverse")]
    assert condemned(np.sum(np.maximum(*flipped) > eps), 20_000)
    assert not condemned(np.sum(np.maximum(*fixed) > eps), 20_000)


def test_a_band_with_two_splits_is_caught():
    # 8 %: the rates themselves are judged, because hardly any pair of laws meets its epsilon at enough thresholds.
    rng, trials = np.random.default_rng(11), 200
    rates = np.sort(rng.random((2, 20_000, trials)))  # Just before its k-th error a rate is this, with k - 1 errors.

    def misses(share):
        limits = bounds.equal_level_limit(np.arange(trials), trials, share * SIGNIFICANCE)
        return np.any(rates[0] > limits, axis=1) | np.any(rates[1] > limits, axis=1)

    assert condemned(misses(0.8).sum(), 20_000)
    assert not condemned(misses(0.5).sum(), 20_000)


@conditional_bounds
def test_expected_delta_trials_without_their_tail_are_caught(design, method, monkeypatch):
    # 14 % and 28 %: a pair that spends δ = 0.05 on the event, in 190 ± 13 trials beside only 33 informative ones.
    q, delta = 20 / 3800, 0.05
    p = np.exp(0.5) * q + delta
    law = reference.atoms((1 - q, q), (1 - p, p), threshold=1)
    certificate = planned(design, bounds.robust_pilot, method)._replace(at=(delta,))

    def judged(seed):
        found = tried({"one": certificate}, law, np.random.default_rng(seed), 4000, 25, 20)["one"]
        return condemned(found.judged, 500)

    assert not judged(seed=12)
    monkeypatch.setattr(conditional, "delta_offset", lambda trials, delta, _: np.floor(trials * delta))
    assert judged(seed=12)


@conditional_bounds
def test_looking_ten_times_at_a_bound_for_one_look_is_caught(design, method):
    # 21 % and 20 %; the bounds that are made for it pass in test_coverage.py.
    assert condemned(failures(watched(design, method), LAWS["randomised response 1"], 400, seed=13), 400)


def test_coins_that_are_tossed_again_are_caught():
    # 24 %: the luckiest of ten tosses.
    def bound(plan, fresh, deltas):
        tosses = [tossed("nested").bound(plan, replace(fresh, seed=seed), deltas)[0] for seed in range(10)]
        return [max(tosses)]

    assert condemned(failures(tossed("nested")._replace(bound=bound), LAWS["Laplace 1"], 200, seed=14), 200)


def test_dropping_the_blocks_with_most_errors_is_caught():
    # 31 %: five of twenty blocks left out move the error rate down by one and a half standard deviations.
    def bound(plan, fresh, deltas):
        h0, h1 = (np.reshape(h, (20, -1)) for h in (fresh.nested.h0, fresh.nested.h1))
        errors = np.sum(h0 >= fresh.law.threshold, axis=1) + np.sum(h1 <= fresh.law.threshold, axis=1)
        kept = np.argsort(errors, kind="stable")[:15]
        return certified(plan, bounds.Scores(h0[kept].ravel(), h1[kept].ravel(), "fresh", "nested"), deltas)

    certificate = planned("nested", bounds.robust_pilot, "pc-cp")._replace(bound=bound)
    assert condemned(failures(certificate, LAWS["randomised response 1"], 200, seed=15), 200)


def test_the_published_rule_is_caught():
    # 19 % at 10,000 trials: the search over 1000 thresholds is not paid for.
    assert condemned(failures(published(), LAWS["Laplace 3"], 500, seed=16, trials=TRIALS), 500)


def test_a_covariance_fitted_on_the_certifying_trials_is_caught():
    # 47 %: 400 noise vectors in 200 dimensions, which look 1.4 times as far apart as they are. 0 % on other vectors.
    rng, trials, dim, delta = np.random.default_rng(17), 400, 200, 0.05

    def bound(certify_noise, fit_noise, streams):
        weights = np.linalg.solve(np.cov(fit_noise.T), np.eye(dim)[0])
        h0 = (certify_noise - fit_noise.mean(axis=0)) @ weights
        plan = replace(bounds.declared([1.3 * weights[0]], [delta], "pc-cp"), fitted_on=streams)
        scores = bounds.Scores(h0, h0 + weights[0], "certify", "nested")
        return bounds.epsilon_at(plan, scores.count(plan.thresholds), delta, CONFIDENCE).epsilon

    noises = [rng.standard_normal((2, trials, dim)) for _ in range(60)]
    truth = reference.gaussian_epsilon(delta, 1.0)
    assert condemned(sum(bound(noise, noise, ()) > truth for noise, _ in noises), 60)
    assert not condemned(sum(bound(noise, other, ("fit",)) > truth for noise, other in noises), 60)
    with pytest.raises(ValueError, match="fresh trials"):
        bound(*noises[0], ("certify",))


def test_the_stream_that_chose_the_thresholds_is_refused():
    rng = np.random.default_rng(18)
    h0 = rng.laplace(size=1000)
    scores = bounds.Scores(h0, h0 + 3, "one", "nested")
    plan = bounds.robust_pilot(scores, 1000, [0.0], "pc-cp")
    with pytest.raises(ValueError, match="fresh trials"):
        bounds.epsilon_at(plan, scores.count(plan.thresholds), delta=0.0)
