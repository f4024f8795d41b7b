"""The guarantee itself, measured: a certified bound exceeds the true epsilon at most one time in twenty.

Every certificate meets every pair of laws whose true epsilon is known, from pilot scores to the JSON a reader finds.
`certificates.py` says how it is judged, and `test_mutants.py` judges the judge.
"""

import numpy as np
import pytest
import reference
from certificates import (
    CERTIFICATES,
    DELTAS,
    SIGNIFICANCE,
    condemned,
    quicken,
    split_many_times,
    tried,
)
from reference import LAWS
from scipy.special import gammaln, xlogy
from trials import Sample

from jaxaudit import bounds

TRIALS = 10_000


@pytest.fixture(autouse=True)
def quickened(monkeypatch):
    quicken(monkeypatch.setattr)


# A bound that takes milliseconds is asked for less often: at these of the places where it can fail.
SLOW = {
    "union, delta at fixed epsilon": [0, -1],
    "ScoreAuditor": [0],
    "CC-anytime, worst of ten looks": [0, -1],
    "PC-anytime, worst of ten looks": [0, -1],
    "one run": [0],
}


def refutable(name, law):
    """The certificate where it can fail: no bound exceeds an infinite epsilon."""
    one = CERTIFICATES[name]
    at = [delta for delta in one.at if np.isfinite(one.truth(law, delta))]
    return one._replace(at=tuple(at[number] for number in SLOW[name]) if at and name in SLOW else tuple(at))


@pytest.mark.parametrize("name", LAWS)
def test_certified_bounds_exceed_the_truth_at_most_one_time_in_twenty(name):
    law, rng = LAWS[name], np.random.default_rng(1)
    certificates = {known: refutable(known, law) for known in CERTIFICATES}
    certificates = {known: one for known, one in certificates.items() if one.at}
    tallies = tried(certificates, law, rng, TRIALS, plans=5, reuses=40)
    assert not {known: tally for known, tally in tallies.items() if np.any(condemned(tally.judged, 200))}


@pytest.mark.parametrize("design, method", [("labelled", "cc-cp"), ("paired", "union")])
def test_median_of_many_splits_exceeds_the_truth_at_most_one_time_in_twenty(design, method):
    rng = np.random.default_rng(2)
    certificate = split_many_times(design, method, splits=5)._replace(at=(0.0,))
    (tally,) = tried({"median": certificate}, LAWS["randomised response 1"], rng, 1000, 200, 1).values()
    assert not condemned(tally.judged, 200).any()


@pytest.mark.parametrize("name", LAWS)
def test_truths_are_those_of_the_scores(name):
    # False alarm below 1e-6 for all laws: Massart's inequality for either empirical distribution.
    law, rng, size = LAWS[name], np.random.default_rng(3), 100_000
    off = np.sqrt(np.log(4 * len(LAWS) / 1e-6) / (2 * size))
    h0, h1 = law.h0(law.draw(rng, size)), law.h1(law.mirrored(law.draw(rng, size)))
    places = np.unique(np.concatenate([np.quantile(h, np.linspace(0, 1, 200)) for h in (h0, h1)] + [[law.threshold]]))
    below = [np.searchsorted(np.sort(h), places) / size for h in (h0, h1)]
    for epsilon in (0.0, 0.5, 2.0):
        factor = np.exp(epsilon)
        forward, reverse = (1 - below[1]) - factor * (1 - below[0]), below[0] - factor * below[1]
        seen = max(forward.max(), reverse.max(), 0.0)
        assert seen == pytest.approx(float(law.delta(epsilon)), abs=(1 + factor) * (off + 1 / 200))


@pytest.mark.parametrize("design", ["labelled", "nested"])
def test_the_last_look_is_at_all_trials(design):
    sample = Sample.draw(LAWS["Laplace 1"], np.random.default_rng(19), 1000, "fresh")
    errors, trials = sample.looks(design, 1.0)
    counts = getattr(sample, design).count([1.0])
    assert tuple(errors[:, -1]) == counts.at(1.0) and tuple(trials[:, -1]) == counts.trials
    assert np.all(np.diff(errors) >= 0) and np.all(np.diff(trials) > 0)


@pytest.mark.parametrize("delta", DELTAS)
def test_truths_have_closed_forms(delta):
    told = LAWS["randomised response 1"].epsilon(delta)
    assert told == pytest.approx(reference.randomised_response_epsilon(delta, 1.0), rel=1e-9)
    for law in LAWS.values():
        epsilon = law.epsilon(delta)
        if 0 < epsilon < np.inf:
            assert float(law.delta(epsilon)) == pytest.approx(delta, abs=1e-11)


# The boundary, where p = e^ε q + δ, with δ · trials from none to many.
BOUNDARY = [
    (10_000, 1e-3, 3.0, 0.0),
    (1000, 0.2, 1.0, 0.0),
    (10_000, 0.05, 1.0, 1e-5),
    (2000, 0.01, 2.0, 1e-3),
    (10_000, 2e-3, 1.0, 0.1),
    (1_000_000, 1e-5, 4.0, 1e-4),
]
at_the_boundary = pytest.mark.parametrize("trials, q, eps, delta", BOUNDARY)
either_way = pytest.mark.parametrize("direction", ["forward", "reverse"])


@either_way
@at_the_boundary
def test_paired_bound_holds_its_level_at_the_boundary(trials, q, eps, delta, direction):
    rng = np.random.default_rng(4)
    between = np.expm1(eps) * q + delta
    rare, _, rest = rng.multinomial(trials, [q, between, 1 - q - between], size=20_000).T
    errors = (rare, rest) if direction == "forward" else (rest, rare)
    bound = bounds.epsilon_paired(*errors, trials, delta, SIGNIFICANCE, direction)
    assert not condemned(np.sum(bound > eps), bound.size)


@either_way
@at_the_boundary
def test_labelled_bound_holds_its_level_at_the_boundary(trials, q, eps, delta, direction):
    rng = np.random.default_rng(5)
    p = np.exp(eps) * q + delta
    rare, common, missed, rest = rng.multinomial(2 * trials, np.array([q, p, 1 - p, 1 - q]) / 2, size=20_000).T
    counted = (rare, missed, (rare + rest, common + missed))
    if direction == "reverse":
        counted = (missed, rare, counted[2][::-1])
    bound = bounds.epsilon_labelled(*counted, delta, SIGNIFICANCE, direction)
    assert not condemned(np.sum(bound > eps), bound.size)


@either_way
@at_the_boundary
def test_union_bound_holds_its_level_at_the_boundary_with_unequal_trials(trials, q, eps, delta, direction):
    rng = np.random.default_rng(6)
    others = {"forward": trials // 3, "reverse": 3 * trials}[direction]
    rare, rest = rng.binomial(trials, q, 20_000), rng.binomial(others, 1 - np.exp(eps) * q - delta, 20_000)
    counted = (rare, rest, (trials, others)) if direction == "forward" else (rest, rare, (others, trials))
    bound = bounds.epsilon_clopper_pearson(*counted, delta, SIGNIFICANCE, direction)
    assert not condemned(np.sum(bound > eps), bound.size)


@either_way
@pytest.mark.parametrize("delta", [0.0, 1e-3, 0.03, 0.3])
def test_paired_bound_holds_its_level_exactly_for_forty_draws(delta, direction):
    """All outcomes of 40 draws, weighed with their probabilities: no sampling, no false alarms."""
    trials = 40
    rare, rest = (x.ravel() for x in np.indices((trials + 1, trials + 1)))
    possible = rare + rest <= trials
    rare, rest = rare[possible], rest[possible]
    between = trials - rare - rest
    errors = (rare, rest) if direction == "forward" else (rest, rare)
    bound = bounds.epsilon_paired(*errors, trials, delta, SIGNIFICANCE, direction)
    orders = gammaln(trials + 1) - gammaln(rare + 1) - gammaln(rest + 1) - gammaln(between + 1)
    for eps in (0.0, 0.1, 0.5, 1.0, 2.0, 4.0):
        for q in np.geomspace(1e-3, 1, 50) * (1 - delta) * np.exp(-eps):
            y = min(np.expm1(eps) * q + delta, 1 - q)
            chances = np.exp(orders + xlogy(rare, q) + xlogy(between, y) + xlogy(rest, max(1 - q - y, 0.0)))
            assert chances[bound > eps].sum() <= SIGNIFICANCE
