"""What every population, aggregator and attack must satisfy, whoever wrote it."""

import inspect
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxaudit as ja
from jaxaudit import config, player
from jaxaudit.bounds import epsilon_at, robust_pilot
from jaxaudit.random import CERTIFY, normals
from jaxaudit.types import ABSENT, Ticket

POPULATIONS = {
    "federated": lambda pool: ja.Federated(clients=8, variants=16, rounds=1),
    "several_steps": lambda pool: ja.Federated(clients=8, variants=16, rounds=0, local_steps=3, momentum=0.9),
    "mlp": lambda pool: ja.Federated(clients=8, variants=4, rounds=0, model="mlp", hidden=4, partition="dirichlet"),
    "drawn_rounds": lambda pool: ja.Federated(
        clients=8, variants=1, rounds=0, cohort="without_replacement", pool_clients=20, audited_rounds=2
    ),
    "dropout": lambda pool: ja.Federated(clients=8, variants=16, rounds=1, dropout=0.3),
    "arrays": lambda pool: ja.Arrays(path=str(pool), clients=10),
    "poisson": lambda pool: ja.Arrays(path=str(pool), clients=10, cohort="poisson"),
    "distinct_dropout": lambda pool: ja.Arrays(path=str(pool), clients=10, cohort="without_replacement", dropout=0.2),
    "gaussian": lambda pool: ja.Synthetic(law="gaussian", dim=5, clients=4, spectrum=(1.0, 2.0, 3.0, 4.0, 5.0)),
    "sphere": lambda pool: ja.Synthetic(law="sphere", dim=5, clients=4),
    "cube": lambda pool: ja.Synthetic(law="cube", dim=5, clients=4),
    "student_t": lambda pool: ja.Synthetic(law="student_t", dim=5, clients=4, degrees=3),
}


@pytest.fixture(scope="module", params=POPULATIONS)
def game(request, pool_file):
    """A prepared audit of every kind of population."""
    return ja.Audit(
        population=POPULATIONS[request.param](pool_file), aggregator=ja.SecureSum(), attack=ja.GaussianLRT()
    ).prepare(seed=3)


def named(trial):
    return Ticket(jnp.uint32(0), jnp.uint32(CERTIFY), trial)


@partial(jax.jit, static_argnums=0)
def revealed(program, params):
    """Views of 64 trials, and who sits where. One program is compiled once, whatever its numbers."""

    def one(trial):
        return program.reveal(params, named(trial)), program.draws.others(params.pool, named(trial))

    return jax.vmap(one)(jnp.arange(64, dtype=jnp.uint32))


@contextmanager
def strictly():
    """Implicit promotion is an error in whatever is traced here."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


def views(game):
    with strictly():
        ((both,), _) = revealed(game.program, game.params)
    return tuple(jax.tree.map(lambda leaf, bit=bit: leaf[:, bit], both) for bit in (0, 1))


def keys(game, trials=64):
    """Keys i32[trials, 2, 1], as a run computes them."""
    mesh = jax.make_mesh((1,), ("trials",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])
    width = game.program.width(game.params)
    batches, room = (-(-number // width) for number in (trials, 8192))
    words = jnp.uint32(0), jnp.uint32(CERTIFY), jnp.uint32(0), jnp.uint32(0), jnp.uint32(batches)
    with strictly():
        found = player.play_block(game.program, mesh, width, room, game.params, *words)
    assert found.shape == (room * width, 2, 1)
    return np.asarray(found[:trials])


def scores(game, trials=64):
    """Scores f64[2, trials] without the slack that bounds stand off by."""
    return (game.program.decode(keys(game, trials))[..., game.order] * game.scale)[..., 0].T


def twin_of(prepared):
    """The same audit with two equal candidates."""
    (cell,) = prepared.cells
    server = replace(cell.server, pair=replace(cell.pair, h1=cell.pair.h0))
    return replace(prepared, cells=(replace(cell, server=server),))


def test_the_bit_is_no_argument_of_the_others(game):
    assert "bit" not in inspect.signature(game.fold().program.draws.others).parameters


def test_worlds_differ_by_the_candidates_and_nothing_else(game):
    first, second = views(game.fold())
    moved = np.asarray(second.total, np.float64) - np.asarray(first.total, np.float64)
    size = np.abs(first.total).max() + np.abs(second.total).max()
    np.testing.assert_allclose(moved, np.broadcast_to(game.cells[0].pair.difference, moved.shape), atol=4e-7 * size)
    np.testing.assert_array_equal(first.survivors, second.survivors)


def test_equal_candidates_give_equal_views(game):
    twin = twin_of(game)
    for left, right in zip(*views(twin.fold())):
        np.testing.assert_array_equal(left, right)


@dataclass(frozen=True)
class NoisySum(ja.SecureSum):
    """Adds to every update noise that its seat and the ticket name, as a stage with local noise would."""

    def add(self, params, state, ticket, seat, update):
        first = jnp.uint32(2**31) + jnp.uint32(2) * seat.astype(jnp.uint32)
        return super().add(params, state, ticket, seat, update + normals(ticket, first, 1))


def test_noise_by_seat_is_the_same_under_both_bits(game):
    fold = twin_of(game).fold()
    noisy = replace(fold, program=replace(fold.program, aggregator=NoisySum()))
    first, second = views(noisy)
    np.testing.assert_array_equal(first.total, second.total)
    assert not np.array_equal(first.total, views(fold)[0].total)


def test_every_client_is_counted(game):
    fold, (cell,) = game.fold(), game.cells
    with strictly():
        taken = (np.asarray(revealed(fold.program, fold.params)[1]) != ABSENT).sum(axis=2)
    for view in views(fold):
        np.testing.assert_array_equal(view.survivors, 1 + taken)
    if fold.program.draws.absent:
        assert len(np.unique(taken)) > 1
    else:
        assert np.all(taken == cell.server.noise_terms)


def test_trials_differ_and_repeat(game):
    first, again = (views(game.fold())[0].total for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert len(np.unique(np.asarray(first)[:, 0, 0])) > 32


def test_projected_scores_equal_those_of_the_whole_sum(game):
    whole, short = scores(game.fold()), scores(game.project())
    scale = np.std(whole[0]) + np.abs(whole[1] - whole[0]).max() + 1e-5 * game.project().distance[0]
    for left, right in zip(whole, short):
        np.testing.assert_allclose(left, right, atol=2e-4 * scale)


def test_projected_trials_are_nested(game):
    project = game.project()
    h0, h1 = np.moveaxis(project.scores(keys(project, trials=8192)), 1, 0)
    assert project.nested.all() and np.all(h1 >= h0)


def test_moments_are_those_of_the_draws(game):
    """Mean and variance of the projected sum over 8,192 trials against the exact moments.

    The server sees how many took part, and the score allows for that: its mean is that of as many as are expected.
    """
    trials = 8192
    h0, _ = scores(game.project(), trials)
    (cell,) = game.cells
    rounds = list(zip(*cell.knowledge, game.responses.certify.moments(cell.server.noise_terms), cell.pair.both[0]))
    mean = sum(
        weights @ (truth.mean + h0) - truth.terms * each - offset for weights, each, offset, truth, h0 in rounds
    )
    deviation = np.sqrt(sum(weights @ truth.covariance.dense() @ weights for weights, *_, truth, _ in rounds))
    # Five standard errors for the mean; the variance of heavy-tailed sums varies more, 15 % is over six of them
    # for the Gaussian and bounded laws. False alarm below 1e-6.
    assert abs(h0.mean() - mean) < 5 * deviation / np.sqrt(trials) + 1e-5 * abs(mean)
    assert abs(h0.std() / deviation - 1) < 0.15


# Aggregators with stages: coins, noise and memory are drawn by seat, so they are the same under both bits.

CLIP, COINS = ja.Clip(norm=4.0), ja.FixedPoint(step=0.5, clip_range=4.0, rounding="stochastic")
BOUNDED = ja.FixedPoint(step=0.5, clip_range=4.0, rounding="conditional")
REMEMBERS = ja.TopK(k=3, error_feedback=True)
# How far the worlds may be from the candidates' difference, for coins of the target alone: two steps an entry.
STACKS = {
    "skellam": (ja.SecureSum(stages=(CLIP, COINS, ja.Skellam(deviation=2.0))), {"dropout": 0.3}, 1.0),
    "rotated": (
        ja.SecureSum(stages=(ja.Rotate(), CLIP, BOUNDED, ja.DiscreteGaussian(deviation=2.0))),
        {"cohort": "without_replacement"},
        4.0,
    ),
    "shares": (ja.SecureSum(stages=(CLIP, ja.Gaussian(deviation=2.0, where="distributed"))), {}, 1e-4),
    "hidden": (
        ja.SecureSum(stages=(CLIP, COINS), minimum=8, survivors="hidden", ring_bits=12),
        {"dropout": 0.3},
        1.0,
    ),
    "remembers": (ja.SecureSum(stages=(CLIP, REMEMBERS, COINS)), {"cohort": "fixed", "rounds": (0, 1)}, None),
}


@pytest.fixture(scope="module")
def rounds_file(tmp_path_factory):
    """Recorded updates of 30 clients in 12 dimensions, 4 in each of two rounds."""
    updates = np.random.default_rng(2).standard_normal((240, 12)).astype(np.float32)
    path = tmp_path_factory.mktemp("updates") / "rounds.npz"
    np.savez(path, updates=updates, client=np.tile(np.repeat(np.arange(30), 4), 2), round=np.repeat([0, 1], 120))
    return path


@pytest.fixture(scope="module", params=STACKS)
def stack(request, pool_file, rounds_file):
    """A prepared audit of every kind of aggregator, what its worlds may differ by, and its views under both bits."""
    aggregator, drawn, blur = STACKS[request.param]
    path = str(rounds_file if "rounds" in drawn else pool_file)
    audit = ja.Audit(
        population=ja.Arrays(path=path, clients=10, **drawn), aggregator=aggregator, attack=ja.GaussianLRT()
    )
    prepared = audit.prepare(seed=3)
    return prepared, blur, views(prepared.fold())


def assert_same(left, right):
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(one, other)


def test_equal_candidates_give_equal_views_through_all_stages(stack):
    prepared, _, (first, second) = stack
    assert_same(*views(twin_of(prepared).fold()))
    assert not np.array_equal(first.ring, second.ring)


def test_what_the_target_would_have_sent_touches_no_other_word(stack):
    """World 0 is the same whatever the candidate of world 1 is: same coins, noise, seats and survivors."""
    prepared, _, (first, _) = stack
    assert_same(first, views(twin_of(prepared).fold())[0])


def test_worlds_differ_by_what_the_target_sends(stack):
    prepared, blur, (first, second) = stack
    np.testing.assert_array_equal(first.survivors, second.survivors)
    if blur is None:
        return  # The second round depends on what the first one left.
    (cell,), revealing = prepared.cells, np.any(np.asarray(first.total), axis=(1, 2))
    moved = (np.asarray(second.total, np.float64) - np.asarray(first.total, np.float64))[revealing]
    expected = prepared.seen(cell.pair).difference
    np.testing.assert_allclose(moved, np.broadcast_to(expected, moved.shape), atol=blur)


def test_every_client_is_counted_or_none_is_told(stack):
    prepared, _, both = stack
    fold = prepared.fold()
    with strictly():
        taken = 1 + (np.asarray(revealed(fold.program, fold.params)[1]) != ABSENT).sum(axis=2)
    channel = prepared.chain.channel
    for view in both:
        if channel.announced:
            np.testing.assert_array_equal(view.survivors, taken)
            assert np.all(np.any(view.total, axis=2))
        else:
            assert np.all(np.asarray(view.survivors) == ABSENT)
            aborted = taken < channel.minimum
            assert 0 < aborted.sum() < aborted.size
            np.testing.assert_array_equal(np.any(view.total, axis=2), ~aborted)
            np.testing.assert_array_equal(np.any(view.ring, axis=2), ~aborted)


def test_absent_clients_add_neither_coins_nor_noise(pool_file):
    """The residues are those of the clients that are here, added one by one on their seats."""
    aggregator, drawn, _ = STACKS["skellam"]
    population = ja.Arrays(path=str(pool_file), clients=10, **drawn)
    prepared = ja.Audit(population=population, aggregator=aggregator, attack=ja.GaussianLRT()).prepare(seed=3)
    fold = prepared.fold()
    program, params, ticket = fold.program, fold.params, named(jnp.uint32(5))
    ((view,), seats) = jax.tree.map(lambda leaf: leaf[5], revealed(program, params))
    channel, numbers = program.aggregator, params.aggregator
    (occupants,) = np.asarray(seats)
    assert 0 < (occupants == ABSENT).sum() < 9
    own = [*enumerate(occupants.tolist()), (9, int(program.draws.target(params.pool, ticket, 0, 0)[0, 0]))]
    add, state = jax.jit(channel.add), channel.init(program.dim)
    for seat, who in own:
        if who != ABSENT:
            update = program.draws.update(params.pool, ticket, jnp.int32(who))
            state = add(numbers, state, ticket, jnp.uint32(seat), update)
    np.testing.assert_array_equal(view.ring[0, 0], channel.reveal(numbers, state, ticket).ring)


@pytest.mark.parametrize("part", ["population", "aggregator", "attack"])
def test_every_part_is_a_tagged_frozen_recipe(part):
    for kind, cls in config.kinds(part).items():
        assert cls.kind == kind
        assert cls.__dataclass_params__.frozen
        assert cls.__doc__


def test_the_attacker_is_blind():
    for cls in config.kinds("attack").values():
        assert isinstance(inspect.getattr_static(cls, "score"), staticmethod)
        assert list(inspect.signature(cls.score).parameters) == ["knowledge", "view"]


def test_an_attack_that_reads_another_view_is_refused():
    class Other(ja.GaussianLRT):
        reads = tuple

    with pytest.raises(ValueError, match="reads tuple, but aggregator 'secure_sum' reveals SumView"):
        ja.Audit(population=ja.Synthetic(), aggregator=ja.SecureSum(), attack=Other()).prepare(0)


def test_an_incomplete_part_is_named():
    class Mean:
        kind, view, linear = "mean", ja.SumView, False

    with pytest.raises(ValueError, match="aggregator Mean has no 'words'"):
        ja.Audit(population=ja.Synthetic(), aggregator=Mean(), attack=ja.GaussianLRT()).prepare(0)


def test_a_law_has_no_pool_to_be_known():
    audit = ja.Audit(
        population=ja.Synthetic(), aggregator=ja.SecureSum(), attack=ja.GaussianLRT(), server_knows="certify_pool"
    )
    with pytest.raises(ValueError, match="server_knows is 'certify_pool', allowed are fit_pool"):
        audit.prepare(0)


def test_audits_that_differ_only_in_numbers_share_one_compilation():
    def played(seed, **numbers):
        population = ja.Federated(clients=8, variants=16, rounds=0, **numbers)
        audit = ja.Audit(
            population=population, aggregator=ja.SecureSum(), attack=ja.GaussianLRT(ridge=0.1 * (seed + 1))
        )
        scores(audit.prepare(seed).project())
        return player._compiled(player._play, jax.default_backend())._cache_size()

    before = played(0)
    assert played(1, learning_rate=0.1, partition="dirichlet", alpha=2.0) == before


def test_equal_candidates_certify_nothing(small):
    h0, h1 = scores(twin_of(small.prepare(0)).project(), 8192)
    pilot, fresh = (ja.bounds.Scores(h0[part], h1[part], str(part)) for part in (slice(1000), slice(1000, None)))
    plan = robust_pilot(pilot, 7192, [1e-3])
    assert epsilon_at(plan, fresh.count(plan.thresholds), 1e-3).epsilon == 0
