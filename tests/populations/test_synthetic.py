"""Known laws: what is drawn has the support and the moments that are claimed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxaudit as ja
from jaxaudit.types import Ticket

DIM = 5


def drawn(law, **fields):
    """40,000 fresh vectors of a law, and its claimed covariance."""
    pool = ja.Synthetic(law=law, dim=DIM, clients=5, **fields).respond(0, None).certify
    (moments,) = pool.moments(4)
    pairs = ja.Synthetic(law=law, dim=DIM, clients=5, **fields).respond(0, None).choose_pairs([moments])
    draws, params, *_ = pool.load(pairs)

    def one(trial):
        ticket = Ticket(jnp.uint32(0), jnp.uint32(0), trial)
        return jax.vmap(lambda seat: draws.update(params, ticket, seat))(jnp.arange(4))

    vectors = jax.jit(jax.vmap(one))(jnp.arange(10_000, dtype=jnp.uint32))
    return np.asarray(vectors, np.float64).reshape(-1, DIM), moments.covariance.dense() / 4


@pytest.mark.parametrize(
    ("law", "fields"),
    [
        ("gaussian", {"spectrum": (0.0, 0.5, 1.0, 2.0, 4.0)}),
        ("sphere", {}),
        ("cube", {}),
        ("student_t", {"degrees": 8}),
    ],
)
def test_vectors_have_the_claimed_moments(law, fields):
    vectors, covariance = drawn(law, **fields)
    scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    # Entries of a sample covariance of 4e4 vectors have standard errors up to 1 % of this scale (Student-t: kurtosis
    # 4.5 gives 1.4 %); 7 % is five of the largest. False alarm below 1e-5.
    np.testing.assert_allclose(np.cov(vectors.T), covariance, atol=0.07 * scale.max())
    assert np.abs(vectors.mean(0)).max() < 5 * np.sqrt(np.diag(covariance).max() / len(vectors))


def test_seats_and_trials_are_independent_draws():
    vectors, _ = drawn("sphere")
    assert len(np.unique(vectors[:, 0])) > 0.99 * len(vectors)
    correlation = np.corrcoef(vectors[:-1, 0], vectors[1:, 0])[0, 1]
    assert abs(correlation) < 5 / np.sqrt(len(vectors))  # false alarm 6e-7


def test_sphere_and_cube_stay_in_their_support():
    np.testing.assert_allclose(np.linalg.norm(drawn("sphere")[0], axis=1), 1, atol=1e-6)
    assert np.abs(drawn("cube")[0]).max() <= 1


@pytest.mark.parametrize(
    ("law", "fields", "distance"),
    [
        ("sphere", {"dim": 39, "clients": 61}, ja.bounds.sphere_distance(39, 60)),
        ("cube", {"dim": 20, "clients": 41}, ja.bounds.cube_distance(20, 40)),
    ],
)
def test_antipodal_pair_has_the_distance_of_theory(law, fields, distance):
    population = ja.Synthetic(law=law, **fields)
    audit = ja.Audit(population=population, aggregator=ja.SecureSum(), attack=ja.GaussianLRT(ridge=1e-9))
    assert audit.prepare(0).project().distance[0] == pytest.approx(distance, rel=1e-6)


def test_candidates_far_from_the_origin_are_compared_exactly(tmp_path):
    """Two huge candidates that differ by little: their float32 products would cancel, and did claim too much."""
    h0 = np.float32([14158902, 14158902])
    np.savez(tmp_path / "pair.npz", h0=h0, h1=h0 + np.float32([1, -1]))
    population = ja.Synthetic(law="gaussian", dim=2, clients=21, pair=str(tmp_path / "pair.npz"))
    prepared = ja.Audit(population=population, aggregator=ja.SecureSum(), attack=ja.GaussianLRT(ridge=0.045)).prepare(
        4
    )
    game = prepared.project()
    (cell,) = prepared.cells
    (first,), (second,) = game.program.decode(game.params.ends) * game.scale
    assert abs((second - first) - np.vdot(cell.knowledge.weights, cell.pair.difference)) <= game.slack[0]
    truth = ja.bounds.gaussian_epsilon(1e-2, np.sqrt(2 / 20))
    assert ja.run(prepared.audit, trials=200_000, seed=4, deltas=[1e-2]).bounds[0].epsilon <= truth


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"law": "sphere", "spectrum": (1.0,)}, "spectrum belongs to law"),
        ({"law": "gaussian", "dim": 2, "spectrum": (1.0,)}, "1 variances, allowed are 2"),
        ({"law": "gaussian", "dim": 2, "spectrum": (1.0, -1.0)}, "finite variances >= 0"),
        ({"law": "sphere", "dim": 1}, "allowed are 2 or more"),
        ({"degrees": 2}, "greater than or equal to 3"),
        ({"law": "cauchy"}, "gaussian"),
    ],
)
def test_impossible_laws_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ja.Synthetic(**fields)
