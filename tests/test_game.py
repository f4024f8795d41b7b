"""One trial by hand: who sits where, what is summed, what is scored, and for which cell.

The oracle replays the seats of every trial and adds their updates in NumPy.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxaudit as ja
from jaxaudit.player import Player
from jaxaudit.random import CERTIFY, normals
from jaxaudit.types import ABSENT, Range, Ticket

TRIALS = 128
UNSORTED = [12, 4, 9]


def ticket(trial):
    return Ticket(jnp.uint32(0), jnp.uint32(CERTIFY), trial)


@partial(jax.jit, static_argnums=(0, 1))
def each_trial(what, program, params):
    """What a program does, over trials; programs that are equal are compiled once."""
    trials = jnp.arange(TRIALS, dtype=jnp.uint32)
    return jax.vmap(lambda trial: getattr(program, what)(params, ticket(trial)))(trials)


def totals_of(game):
    """[cells][trials, 2, rounds, dim], what the server sees."""
    views = each_trial("reveal", game.program, game.params)
    return [np.asarray(views[column].total) for column in game.order]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Integer updates of 30 clients, one to three of each in each of 2 rounds; and integer candidates."""
    folder = tmp_path_factory.mktemp("integers")
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 4, (2, 30))
    client = np.concatenate([np.repeat(np.arange(30), one) for one in sizes])
    rounds = np.repeat([0, 1], sizes.sum(1))
    updates = rng.integers(-50, 50, (len(client), 3)).astype(np.float32)
    np.savez(folder / "u.npz", updates=updates, client=client, round=rounds)
    pairs = []
    for name in ("a", "b"):
        pairs.append(str(folder / f"{name}.npz"))
        np.savez(pairs[-1], h0=rng.integers(-50, 50, (2, 3)), h1=rng.integers(-50, 50, (2, 3)))
    return folder, pairs


def audit_of(files, cohort, clients=UNSORTED, dropout=0.0):
    """Two pairs in every cohort size, over two rounds: cells with weights of few bits."""
    folder, pairs = files
    chosen = {"clients": clients, "cohort": cohort, "dropout": dropout, "pair": pairs}
    population = ja.Arrays(path=str(folder / "u.npz"), rounds=(0, 1), **chosen)
    made = ja.Audit(population=population, aggregator=ja.SecureSum(), attack=ja.GaussianLRT()).prepare(0)
    rng = np.random.default_rng(1)
    cells = []
    for cell in made.cells:
        weights, each, offset = rng.integers(-4, 5, (2, 3)), rng.integers(-9, 9, 2), rng.integers(-99, 99, 2)
        test = ja.LinearTest(*(part.astype(float) for part in (weights, each, offset)))
        cells.append(replace(cell, options={"": test}, setting=""))
    return replace(made, cells=tuple(cells))


COHORTS = {
    "fixed": ("fixed",),
    "with_replacement": ("with_replacement",),
    "without_replacement": ("without_replacement",),
    "fixed, dropout": ("fixed", UNSORTED, 0.3),
    "without_replacement, dropout": ("without_replacement", UNSORTED, 0.3),
    "poisson, dropout": ("poisson", 9, 0.3),
}


@pytest.fixture(scope="module", params=COHORTS.values(), ids=COHORTS)
def every(request, files):
    return audit_of(files, *request.param)


@pytest.fixture(scope="module")
def prepared(files):
    return audit_of(files, "with_replacement")


@pytest.fixture(scope="module")
def truth(prepared):
    """Of `prepared`, by hand."""
    return by_hand(prepared)


@pytest.fixture(scope="module")
def scored(prepared):
    """Of `prepared`, as the trials compute them on both paths."""
    return {path: scores_of(getattr(prepared, path)()) for path in ("fold", "project")}


def by_hand(prepared):
    """f64[cells, 2, trials]: scores from the seats of every trial and float64 sums."""
    pool = prepared.responses.certify
    draws, params, *_ = pool.load([prepared.cells[0].pair])
    # What sits on a seat that nobody took is the last row, nothing.
    rows = np.concatenate([*(source.rows(0, len(source.sizes)) for source in pool.sources), np.zeros((1, 3))])
    seats = np.asarray(each_trial("others", draws, params))
    assert (seats == ABSENT).any() == draws.absent
    scores = []
    for cell in prepared.cells:
        test, own = cell.knowledge, seats[:, :, : draws.seats(cell.server.noise_terms)]
        totals, others = rows.astype(np.float64)[own].sum(2), (own != ABSENT).sum(2)
        expected = others @ test.each + test.offset.sum()
        scores.append([np.einsum("trd,rd->t", totals + end, test.weights) - expected for end in cell.pair.both])
    return np.array(scores)


def scores_of(game):
    """f64[cells, 2, trials], as the trials compute them."""
    keys = np.asarray(each_trial("play", game.program, game.params))
    assert keys.dtype == np.int32 and keys.shape == (TRIALS, 2, len(game.order))
    return (game.program.decode(keys)[..., game.order] * game.scale).transpose(2, 1, 0)


@pytest.mark.parametrize("path", ["fold", "project"])
def test_scores_are_those_of_a_sum_by_hand(every, path):
    """Integers, so both paths are exact: every cell has its own pair, cohort and test, in any order of the sizes."""
    game, sizes = getattr(every, path)(), [cell.clients for cell in every.cells]
    assert sizes in ([12, 12, 4, 4, 9, 9], [9, 9])
    np.testing.assert_array_equal(scores_of(game), by_hand(every))


def test_a_step_that_is_too_coarse_is_in_the_slack(prepared):
    """Weights that are no fractions of two: the scores are off, by no more than they say."""
    odd = [c.knowledge._replace(weights=c.knowledge.weights / 3, each=c.knowledge.each / 7) for c in prepared.cells]
    thirds = replace(prepared, cells=tuple(replace(c, options={"": t}) for c, t in zip(prepared.cells, odd)))
    game = thirds.project()
    off = np.abs(scores_of(game) - by_hand(thirds))
    assert off.any() and np.all(off <= game.slack[:, None, None])


def test_slack_is_a_small_part_of_the_score(prepared, truth):
    assert np.all(prepared.project().slack <= 1e-5 * truth[:, 0].std(axis=1))


def test_the_order_of_columns_undoes_the_order_of_sizes(prepared):
    game = prepared.fold()
    terms = np.array([evaluation.seats for evaluation in game.program.evaluations])
    assert np.all(np.diff(terms) >= 0) and sorted(game.order) == list(range(6))
    np.testing.assert_array_equal(terms[game.order] + 1, [cell.clients for cell in prepared.cells])


def test_cells_of_one_size_share_the_others(prepared):
    """Both pairs of a size see one crowd: their totals differ by what the target sends."""
    at = totals_of(prepared.fold())
    for first in (0, 2, 4):
        moved = at[first + 1] - at[first]
        sent = prepared.cells[first + 1].pair.both - prepared.cells[first].pair.both
        np.testing.assert_array_equal(moved, np.broadcast_to(sent, moved.shape))


def test_equal_candidates_have_equal_scores_to_the_bit(prepared):
    twins = [replace(c, server=replace(c.server, pair=replace(c.pair, h1=c.pair.h0))) for c in prepared.cells]
    odd = [replace(c, options={"": c.knowledge._replace(weights=c.knowledge.weights / 3)}) for c in twins]
    for path in ("fold", "project"):
        h0, h1 = np.moveaxis(scores_of(getattr(replace(prepared, cells=tuple(odd)), path)()), 1, 0)
        np.testing.assert_array_equal(h0, h1)


@dataclass(frozen=True)
class Largest:
    """An attack that is not linear: how far the totals lean towards the difference, at the most."""

    reads: ClassVar[type] = ja.SumView
    kind: Literal["largest"] = "largest"

    def broadcast(self):
        return None

    def calibrate(self, server, moments):
        return server.pair.difference

    @staticmethod
    def score(difference, view):
        return jnp.max(view.total * difference)


def test_an_attack_that_is_not_linear_has_cells_too(prepared):
    audit = replace(prepared.audit, attack=Largest())
    cells = [replace(cell, options={"": cell.pair.difference}) for cell in prepared.cells]
    game = replace(prepared, audit=audit, cells=tuple(cells)).game()
    for total, cell, found in zip(totals_of(game), cells, scores_of(game)):
        expected = np.max(total.astype(np.float64) * cell.pair.difference, axis=(2, 3)).T
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert not game.nested.any() and np.isnan(game.distance).all()


@dataclass(frozen=True)
class Noisy(ja.SecureSum):
    """Adds to every update noise that its seat and the ticket name, as a stage with local noise would."""

    def add(self, params, state, ticket, seat, update):
        first = jnp.uint32(2**31) + jnp.uint32(2) * seat.astype(jnp.uint32)
        return super().add(params, state, ticket, seat, update + 8 * normals(ticket, first, 1))


@pytest.fixture(scope="module")
def noise(prepared):
    """What `Noisy` adds to the totals of every cell, of equal candidates: [cells][trials, 2, rounds, dim]."""
    calm = [replace(c, server=replace(c.server, pair=replace(c.pair, h1=c.pair.h0))) for c in prepared.cells]
    quiet = replace(prepared, cells=tuple(calm)).fold()
    noisy = replace(quiet, program=replace(quiet.program, aggregator=Noisy()))
    return [loud - calm for calm, loud in zip(totals_of(quiet), totals_of(noisy))]


def test_noise_of_the_clients_is_the_same_under_both_bits(noise):
    for one in noise:
        np.testing.assert_array_equal(one[:, 0], one[:, 1])
        assert one.std() > 1


def test_noise_of_the_clients_is_drawn_afresh_in_every_round(noise):
    # Correlation of 128 independent pairs: beyond 0.5 with probability below 1e-8.
    for one in noise:
        assert abs(np.corrcoef(one[:, 0, 0, 0], one[:, 0, 1, 0])[0, 1]) < 0.5


@pytest.mark.parametrize("path", ["fold", "project"])
def test_every_cell_is_counted_at_its_own_thresholds(prepared, path):
    """Whole numbers are thresholds that scores meet: a tie is an error under both hypotheses."""
    game = getattr(prepared, path)()
    player = Player(tuple(jax.devices()[:2]), 0, lambda name, trials: lambda done: None)
    thresholds = [np.union1d([-1e9, 0.25, 1e9], np.arange(-9, 10) * (1 + number)) for number in range(6)]
    counts, scores = player.count(game, "certify", Range(0, 1000), thresholds), player.scores(game, "certify", 1000)
    for at, one, counted in zip(thresholds, scores, counts):
        expected = one.count(at)
        np.testing.assert_array_equal(counted.thresholds, at)
        np.testing.assert_array_equal(counted.errors_h0, expected.errors_h0)
        np.testing.assert_array_equal(counted.errors_h1, expected.errors_h1)
        assert counted.trials_h0 == counted.trials_h1 == 1000
        assert counted.errors_h0[[0, -1]].tolist() == [1000, 0] and counted.errors_h1[[0, -1]].tolist() == [0, 1000]


def test_scores_come_with_their_slack_on_the_safe_side(prepared, scored, truth):
    game, found = prepared.project(), scored["project"]
    player = Player(tuple(jax.devices()[:1]), 0, lambda name, trials: lambda done: None)
    for cell, scores in enumerate(player.scores(game, "certify", TRIALS)):
        np.testing.assert_array_equal(scores.h0, found[cell, 0] + game.slack[cell])
        np.testing.assert_array_equal(scores.h1, found[cell, 1] - game.slack[cell])
        assert np.all(scores.h0 > truth[cell, 0]) and np.all(scores.h1 < truth[cell, 1])


@pytest.mark.parametrize("path", ["fold", "project"])
def test_a_trial_replayed_alone_is_the_same_trial(prepared, scored, path):
    game = getattr(prepared, path)()
    alone = jax.jit(lambda: game.program.play(game.params, ticket(jnp.uint32(77))))()
    found = game.program.decode(alone)[:, game.order] * game.scale
    np.testing.assert_array_equal(found.T, scored[path][:, :, 77])
