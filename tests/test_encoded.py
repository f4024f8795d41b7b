"""A pool behind its channel: one number for each update is as good as the update, and noise as good as its shares."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import ks_2samp, norm

import jaxaudit as ja
from jaxaudit.player import Player
from jaxaudit.random import CERTIFY, PILOT
from jaxaudit.types import Ticket

TRIALS = 20_000
# False alarm of each comparison, two-sided. Seeds are fixed throughout.
ALARM = 1e-7
NORMAL = float(norm.isf(ALARM / 2))
CLIP, ROTATE = ja.Clip(norm=1.5), ja.Rotate()
GRID = ja.FixedPoint(step=0.05, clip_range=2.0)
COINS = ja.FixedPoint(step=0.4, clip_range=2.0, rounding="stochastic")


def prepared(stages, population, **protocol):
    aggregator = ja.SecureSum(stages=stages, **protocol)
    return ja.Audit(population=population, aggregator=aggregator, attack=ja.GaussianLRT()).prepare(0)


def synthetic(law, clients=5, dim=3, **more):
    return ja.Synthetic(law=law, dim=dim, clients=clients, **more)


def player():
    return Player(jax.devices()[:1], 0, lambda name, count: lambda done: None)


def projected(audit, trials=TRIALS):
    """Scores f64[cells, 2, trials] of the projected game, less the slack that bounds stand off by."""
    assert audit.linear
    game = audit.project()
    both = [np.stack([one.h0, one.h1]) for one in player().scores(game, "certify", trials)]
    return np.stack(both) - game.slack[:, None, None] * np.array([[1.0], [-1.0]])


@partial(jax.jit, static_argnums=0)
def revealed(program, params, stream, trials):
    return jax.vmap(lambda trial: program.reveal(params, Ticket(jnp.uint32(0), stream, trial)))(trials)


def seen(audit, stream, trials=TRIALS):
    """Decoded sums f64[trials, 2, dim] of every cell, and their scores f64[2, trials], of the general game."""
    game = audit.fold()
    found = revealed(game.program, game.params, jnp.uint32(stream), jnp.arange(trials, dtype=jnp.uint32))
    for number, cell in zip(game.order, audit.cells):
        (weights,), (each,), (offset,) = cell.knowledge
        total = np.asarray(found[number].total, np.float64)[:, :, 0]
        others = np.asarray(found[number].survivors)[:, :, 0] - 1.0
        yield total, (total @ weights - others * each - offset).T


def assert_one_law(left, right):
    """Mean, variance, and the whole law: three tests of two independent samples of i.i.d. scores."""
    scale = np.sqrt((left.var() + right.var()) / 2)
    assert abs(left.mean() - right.mean()) <= NORMAL * scale * np.sqrt(2 / TRIALS)
    kurtosis = max(np.mean((each - each.mean()) ** 4) / each.var() ** 2 for each in (left, right))
    assert abs(np.log(left.var() / right.var())) <= NORMAL * np.sqrt(2 * (kurtosis - 1) / TRIALS)
    # Equal scores of integers differ by float32's rounding: rounded to a hundredth of a deviation they are tied. With
    # ties the p-value is too large, never too small.
    tied = (np.round(each / (0.01 * scale)) for each in (left, right))
    assert ks_2samp(*tied, method="asymp").pvalue > ALARM


def assert_moments(audit, totals, exact=True):
    """Mean and covariance of the decoded sum over trials, less what the target adds on average.

    A target's own coins are in the sample, and left out of the moments.
    """
    (cell,) = audit.cells
    (moments,) = audit.responses.certify.moments(cell.server.noise_terms)
    found = totals[:, 0] - audit.seen(cell.pair).h0[0]
    covariance = moments.covariance.dense()
    spread = np.sqrt(np.diag(covariance))
    # Estimates from 4,096 vectors have an error of their own, where there is no closed form.
    trials = TRIALS if exact else 1 / (1 / TRIALS + 1 / 4096)
    assert np.all(np.abs(found.mean(0) - moments.mean) <= NORMAL * spread * np.sqrt(cell.clients / trials) + 1e-5)
    # In units of the deviations: squares of a sum of several terms vary by √2.5 at most.
    _, blur = audit.chain.spread(cell.pair.h0)
    expected = (covariance + np.diag(blur)) / np.outer(spread, spread)
    sample = np.cov(found.T) / np.outer(spread, spread)
    np.testing.assert_allclose(sample, expected, atol=NORMAL * np.sqrt(2.5 / trials))


# Without noise: the same trials, to rounding


@pytest.mark.parametrize(
    ("stages", "drawn", "protocol"),
    [
        ((CLIP,), {}, {}),
        ((ROTATE, CLIP, ja.FixedPoint(bits=10, clip_range=2.0)), {}, {"ring_bits": 16}),
        ((ja.Weight(factor=0.3), ja.TopK(k=3), GRID), {"dropout": 0.3}, {"ring_bits": 64}),
    ],
    ids=["clip", "rotate and round", "weight and top-k"],
)
def test_projected_trials_are_those_of_the_whole_sum(stages, drawn, protocol, pool_file):
    audit = prepared(stages, ja.Arrays(path=str(pool_file), **{"clients": 10} | drawn), **protocol)
    for short, (_, whole) in zip(projected(audit, trials=1000), seen(audit, CERTIFY, trials=1000)):
        scale = whole.std() + np.abs(whole[1] - whole[0]).max() + np.abs(whole).max()
        np.testing.assert_allclose(short, whole, atol=3e-6 * scale)


@pytest.mark.parametrize("law", ["sphere", "gaussian"])
def test_a_law_behind_stages_that_change_updates_is_not_projected(law):
    assert not prepared((CLIP,), synthetic(law)).linear
    assert prepared((ja.Gaussian(deviation=1.0),), synthetic(law)).linear


# With noise: the same law, and its moments

LINEAR = {
    "central": (CLIP, GRID, ja.Gaussian(deviation=0.7)),
    "distributed": (CLIP, ja.Weight(factor=0.3), ja.Gaussian(deviation=0.2, where="distributed")),
    "discrete gaussian": (CLIP, GRID, ja.DiscreteGaussian(deviation=0.3)),
    "binomial": (CLIP, GRID, ja.Binomial(deviation=0.3)),
    "rotated binomial": (ROTATE, CLIP, GRID, ja.Binomial(deviation=0.4)),
    "two": (ROTATE, CLIP, GRID, ja.Skellam(deviation=0.5), ja.Gaussian(deviation=0.5)),
}
SKELLAM = CLIP, GRID, ja.Skellam(deviation=0.1, where="local")


@pytest.mark.parametrize("name", LINEAR)
def test_noise_drawn_at_once_has_the_law_of_all_shares(name):
    audit = prepared(LINEAR[name], synthetic("known"))
    ((short, (totals, whole)),) = zip(projected(audit), seen(audit, PILOT))
    assert_one_law(short[0], whole[0])
    # Under the other bit the target adds something else, and the noise is the same.
    np.testing.assert_allclose(short[1] - short[0], (whole[1] - whole[0]).mean(), rtol=1e-3)
    assert_moments(audit, totals)


def test_smaller_cohorts_have_fewer_shares():
    audit = prepared(SKELLAM, synthetic("known", clients=(5, 3)))
    for cell, short, (_, whole) in zip(audit.cells, projected(audit), seen(audit, PILOT)):
        assert_one_law(short[0], whole[0])
        truth = cell.clients * 0.1**2 * float(np.sum(cell.knowledge.weights**2))
        # Of Skellam shares with 4 steps² each: a kurtosis of 3 + 1 / 12 at most.
        assert abs(np.log(short[0].var() / truth)) <= NORMAL * np.sqrt(2.1 / TRIALS)


def test_noise_on_recorded_updates_has_the_law_of_all_shares(pool_file):
    audit = prepared(LINEAR["two"], ja.Arrays(path=str(pool_file), clients=10))
    ((short, (totals, whole)),) = zip(projected(audit), seen(audit, PILOT))
    assert_one_law(short[0], whole[0])
    assert_moments(audit, totals)


def test_central_noise_on_a_law_has_the_law_of_both():
    audit = prepared((ja.Gaussian(deviation=2.0),), synthetic("gaussian"))
    ((short, (totals, whole)),) = zip(projected(audit), seen(audit, PILOT))
    assert_one_law(short[0], whole[0])
    assert_moments(audit, totals)
    # 4 updates of variance 1 and noise of variance 4; standard error of a variance of normal numbers.
    truth = (4 + 4) * float(np.sum(audit.cells[0].knowledge.weights ** 2))
    assert abs(np.log(short[0].var() / truth)) <= NORMAL * np.sqrt(2 / TRIALS)


def test_a_score_of_integers_is_a_function_of_the_rings_sum():
    """Weights are whole numbers of steps, so every score is one, and has the residue of the ring's sum."""
    audit = prepared(SKELLAM, synthetic("known"))
    (cell,), game = audit.cells, audit.project()
    (weight,) = np.rint(audit.chain.scores(cell.knowledge.weights) / game.scale[:, None]).astype(np.int64)
    first, second = np.asarray(game.params.ends)[:, 0].astype(np.int64)
    sent = [audit.chain.sent(end)[0].astype(np.int64) for end in (cell.pair.h0, cell.pair.h1)]
    assert second - first == weight @ (sent[1] - sent[0])
    common = np.gcd.reduce(weight)
    assert common > 1
    keys = projected(audit, trials=4096)[0, 0] / game.scale[0]
    assert np.array_equal(keys, np.rint(keys)) and not np.any((keys - first).astype(np.int64) % common)


# Moments where a score is not a sum of one number for each update


@pytest.mark.parametrize("stages", [(ROTATE, CLIP, COINS, ja.Skellam(deviation=0.5)), (CLIP, ja.RandomK(k=2))])
def test_moments_of_a_law_are_those_of_the_decoded_sum(stages):
    audit = prepared(stages, synthetic("gaussian", spectrum=(0.5, 1.0, 2.0), clients=6))
    ((totals, _),) = seen(audit, PILOT)
    assert_moments(audit, totals, exact=False)


@pytest.mark.parametrize("stages", [(CLIP, COINS), (ROTATE, CLIP, COINS, ja.Skellam(deviation=0.5))])
def test_moments_of_a_pool_are_those_of_the_decoded_sum(stages, pool_file):
    audit = prepared(stages, ja.Arrays(path=str(pool_file), clients=6))
    ((totals, _),) = seen(audit, PILOT)
    assert_moments(audit, totals)


@pytest.mark.parametrize(
    ("stages", "deviation"),
    [
        ((CLIP, ja.Gaussian(deviation=0.7)), 0.7),
        ((CLIP, ja.Weight(factor=0.3), ja.Gaussian(deviation=0.3, where="distributed")), 1.0),
        ((ROTATE, CLIP, COINS, ja.Skellam(deviation=0.5)), 0.5),
        ((CLIP, GRID, ja.DiscreteGaussian(deviation=0.5, where="local")), 0.5 * np.sqrt(6)),
    ],
)
def test_moments_of_known_updates_are_those_of_the_noise(stages, deviation):
    (moments,) = prepared(stages, synthetic("known", clients=6)).responses.certify.moments(5)
    np.testing.assert_allclose(moments.covariance.dense(), deviation**2 * np.eye(3), rtol=1e-6)
    assert not moments.mean.any()


# What is seen


def test_the_server_sees_the_candidates_as_they_arrive():
    audit = prepared((ja.Clip(norm=0.5), ja.FixedPoint(step=0.2)), synthetic("gaussian", spectrum=(4.0, 4.0, 4.0)))
    (cell,) = audit.cells
    assert np.abs(cell.pair.h0).max() == pytest.approx(np.sqrt(12))
    arrived = audit.seen(cell.pair)
    # Clipped to 1/2, which is 2.5 steps but for a part in 2^21: 2 of them.
    assert np.abs(arrived.h0).max() == pytest.approx(0.4) and np.array_equal(arrived.h0, -arrived.h1)
    assert (arrived.name, arrived.adjacency, arrived.source) == (
        cell.pair.name,
        cell.pair.adjacency,
        cell.pair.source,
    )


def test_without_stages_the_server_sees_the_updates():
    audit = ja.Audit(population=synthetic("gaussian"), aggregator=ja.SecureSum(), attack=ja.GaussianLRT()).prepare(0)
    assert audit.chain is None and audit.seen(audit.cells[0].pair) is audit.cells[0].pair


def test_known_updates_hide_nothing():
    """The others send zeros: all that is in the decoded sum is what the target adds, and next to no noise."""
    audit = prepared((CLIP, GRID, ja.Gaussian(deviation=1e-6)), synthetic("known", pair="zeroed"))
    (cell,) = audit.cells
    ((totals, _),) = seen(audit, PILOT)
    np.testing.assert_allclose(totals, np.broadcast_to(audit.seen(cell.pair).both[:, 0], totals.shape), atol=1e-5)
    assert "updates that the server knows" in audit.statement(cell)


def test_exact_laws_of_sums_are_refused_where_noise_is_added(pool_file):
    population = ja.Arrays(path=str(pool_file), clients=6)
    audit = prepared((CLIP, ja.Gaussian(deviation=1.0)), population)
    with pytest.raises(ValueError, match="this channel adds noise: leave --exact out"):
        audit.responses.certify.terms(audit.columns())
    ((terms, error),) = prepared((CLIP, GRID), population).responses.certify.terms(audit.columns())
    assert len(terms) and error < 1e-9
