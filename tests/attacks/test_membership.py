"""The likelihood-ratio test is the quadratic form, knows what it should, and no more."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxaudit as ja
from jaxaudit.covariance import Covariance
from jaxaudit.types import Moments, Pair, Server

RNG = np.random.default_rng(0)


def pair_of(h0, h1):
    """Two candidates for one round."""
    return Pair("test", *(np.float32(sent)[None] for sent in (h0, h1)), "replace", "test")


def calibrated(attack, pair, noise_terms, mean, covariance, samples):
    """The one test of an attack without settings to choose, for one round of known moments."""
    moments = Moments(mean, Covariance.of_matrix(covariance), noise_terms, samples, len(mean), 0.0)
    (test,) = attack.options(Server(pair, noise_terms, "all"), [moments]).values()
    return test


def quadratic_scores(totals, mean, covariance, h0, h1):
    """Log-likelihood ratio of N(mean + h1, covariance) against N(mean + h0, covariance), as the formula reads."""

    def log_density(centre):
        residual = totals - centre
        return -0.5 * np.einsum("ij,ij->i", residual, np.linalg.solve(covariance, residual.T).T)

    return log_density(mean + h1) - log_density(mean + h0)


@pytest.mark.parametrize("dim", [650, 2000])
def test_projected_scalar_equals_the_quadratic_form(dim):
    """Sums of projected updates against two d × d forms per trial: equal to 1e-8, and equal counts everywhere."""
    updates = RNG.standard_normal((300, dim)) * np.geomspace(1, 0.03, dim)
    mean, covariance = 30 * updates.mean(0), 30 * np.cov(updates.T, bias=True) + 1e-2 * np.eye(dim)
    h0, h1 = (0.3 * RNG.standard_normal(dim) * np.geomspace(1, 0.03, dim) for _ in range(2))
    pair = pair_of(h0, h1)
    test = calibrated(ja.GaussianLRT(ridge=1e-12), pair, 30, mean, covariance, 300)
    (weights,), (each,), (offset,) = test
    draws = RNG.integers(0, 300, (2000, 30))
    h0, h1 = pair.both[:, 0]
    for sent in (h0, h1):
        whole = quadratic_scores(updates[draws].sum(1) + sent, mean, covariance, h0, h1)
        scalars = updates @ weights - each
        short = scalars[draws].sum(1) + sent @ weights - offset
        scale = np.abs(whole).max()
        np.testing.assert_allclose(short, whole, rtol=0, atol=1e-8 * scale)
        thresholds = np.linspace(whole.min() - 1, whole.max() + 1, 1001)
        counts = [np.searchsorted(np.sort(scores), thresholds) for scores in (short, whole)]
        np.testing.assert_array_equal(*counts)


def test_white_noise_gives_the_matched_filter():
    pair = pair_of(np.zeros(3), [1, 2, 2])
    mean, covariance = 2 * np.ones(3), 4 * np.eye(3)
    (weights,), (each,), (offset,) = calibrated(ja.GaussianLRT(ridge=1e-12), pair, 2, mean, covariance, 10)
    np.testing.assert_allclose(weights, [0.25, 0.5, 0.5])
    assert each == pytest.approx(0.25 + 0.5 + 0.5)
    assert offset == pytest.approx(0.25 * 0.5 + 0.5 * 1 + 0.5 * 1)


def test_a_total_without_evidence_scores_nothing_however_many_took_part(strict):
    """Others at their mean, and the target half way between its candidates: 0 nats for any number of survivors."""
    mean, pair = np.array([5.0, -3.0, 2.0]), pair_of([1, 1, 1], [2, 0, 4])
    test = calibrated(ja.GaussianLRT(), pair, 4, 4 * mean, np.diag([4.0, 1.0, 2.0]), 9)
    known = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), test)
    for survivors in (1, 2, 5, 60):
        total = jnp.asarray((survivors - 1) * mean + pair.middle, jnp.float32)
        score = ja.GaussianLRT.score(known, ja.SumView(total, jnp.array([survivors], jnp.int32)))
        assert abs(score) < 1e-6 * survivors * np.abs(test.weights * mean).sum()


def test_noise_without_variance_is_refused():
    with pytest.raises(ValueError, match="the others' sum has no variance"):
        calibrated(ja.GaussianLRT(), pair_of(np.zeros(3), np.ones(3)), 1, np.zeros(3), np.zeros((3, 3)), 10)


def audit_of(updates, tmp_path, clients=41, knows="fit_pool", pair="random", ridge=1e-6):
    np.save(tmp_path / "u.npy", updates.astype(np.float32))
    return ja.Audit(
        population=ja.Arrays(path=str(tmp_path / "u.npy"), clients=clients, pair=pair),
        aggregator=ja.SecureSum(),
        attack=ja.GaussianLRT(ridge=ridge),
        server_knows=knows,
    )


def distance_of(audit):
    """Separation of the two score laws of a prepared audit, from the exact moments of the audited pool."""
    (distance,) = audit.prepare(0).project().distance
    return distance


def on_sphere(size, dim):
    vectors = np.random.default_rng(size).standard_normal((size, dim))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("ratio", [1.5, 3, 8, 20])
def test_only_a_server_that_knows_the_pool_sees_it_inflated(tmp_path, ratio):
    """A finite pool is its own mechanism: fitted on the audited pool, Δ is 1/√(1 - d/P) too large (claims.md 1)."""
    dim = 40
    size = round(2 * ratio * dim) + 2
    pair = np.zeros(dim)
    pair[0] = 1
    np.savez(tmp_path / "pair.npz", h0=-pair, h1=pair)
    truth = ja.bounds.sphere_distance(dim, 40)
    distance = {
        knows: distance_of(audit_of(on_sphere(size, dim), tmp_path, knows=knows, pair=str(tmp_path / "pair.npz")))
        for knows in ("fit_pool", "certify_pool")
    }
    inflated = truth / np.sqrt(1 - 1 / ratio)
    # One pool of P vectors: the squared inflation has relative spread about √(2 / (P - d)), 3 standard deviations of
    # the smallest pool (20 degrees of freedom) are allowed in Δ; the pools are fixed by their size.
    spread = 1.5 * np.sqrt(2 / (ratio * dim - dim))
    assert distance["certify_pool"] == pytest.approx(inflated, rel=spread)
    assert distance["fit_pool"] < min(truth * (1 + 0.5 * spread), distance["certify_pool"])


def test_leakage_falls_with_clients_and_the_worst_pair_is_worst(tmp_path):
    updates = on_sphere(1000, 10)
    by_clients = [distance_of(audit_of(updates, tmp_path, clients=n)) for n in (11, 41, 161)]
    assert by_clients[0] > by_clients[1] > by_clients[2]
    by_pair = {pair: distance_of(audit_of(updates, tmp_path, pair=pair)) for pair in ("random", "worst")}
    assert by_pair["worst"] > by_pair["random"]


@pytest.mark.parametrize("shrinkage", ["ridge", "ledoit_wolf", "oas"])
def test_every_shrinkage_finds_most_of_a_well_sampled_distance(tmp_path, shrinkage):
    audit = audit_of(on_sphere(4000, 10), tmp_path)
    exact = distance_of(audit)
    shrunk = ja.Audit(
        population=audit.population, aggregator=audit.aggregator, attack=ja.GaussianLRT(shrinkage=shrinkage)
    )
    assert distance_of(shrunk) == pytest.approx(exact, rel=0.01)
