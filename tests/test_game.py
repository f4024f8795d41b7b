"""One trial by hand: who sits where, what is summed, what is scored, and for which cell.

The oracle replays the seats of every trial and adds their updates in NumPy.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxaudit as ja
from jaxaudit.game import play, reveal
from jaxaudit.player import Player
from jaxaudit.random import CERTIFY, normals
from jaxaudit.types import Ticket

TRIALS = 128
UNSORTED = [12, 4, 9]


def ticket(trial):
    return Ticket(jnp.uint32(0), jnp.uint32(CERTIFY), trial)


def each_trial(function, trials=TRIALS):
    """A function of a ticket, over trials."""
    return jax.jit(jax.vmap(lambda trial: function(ticket(trial))))(jnp.arange(trials, dtype=jnp.uint32))


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


def audit_of(files, cohort):
    """Two pairs in three unsorted cohort sizes, over two rounds: six cells, with weights of few bits."""
    folder, pairs = files
    population = ja.Arrays(path=str(folder / "u.npz"), rounds=(0, 1), clients=UNSORTED, cohort=cohort, pair=pairs)
    made = ja.Audit(population=population, aggregator=ja.SecureSum(), attack=ja.GaussianLRT()).prepare(0)
    rng = np.random.default_rng(1)
    cells = []
    for cell in made.cells:
        test = ja.LinearTest(rng.integers(-4, 5, (2, 3)).astype(float), rng.integers(-9, 9, 2) * cell.clients * 1.0)
        cells.append(replace(cell, options={"": test}, setting=""))
    return replace(made, cells=tuple(cells))


@pytest.fixture(scope="module", params=["fixed", "with_replacement", "without_replacement"])
def every(request, files):
    return audit_of(files, request.param)


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
    loaded = pool.load([prepared.cells[0].pair])
    rows = np.concatenate([source.rows(0, len(source.sizes)) for source in pool.sources]).astype(np.float64)
    seats = np.asarray(each_trial(lambda t: loaded.draws.others(loaded.params, t)))
    scores = []
    for cell in prepared.cells:
        (weights, offset), others = cell.knowledge, rows[seats[:, :, : cell.server.noise_terms]].sum(2)
        scores.append([np.einsum("trd,rd->t", others + end, weights) - offset.sum() for end in cell.pair.both])
    return np.array(scores)


def scores_of(game):
    """f64[cells, 2, trials], as the trials compute them."""
    both = each_trial(lambda t: play(game.program, game.params, t))
    return np.stack([np.asarray(one, np.float64) for one in both])[:, :, game.order].transpose(2, 0, 1)


@pytest.mark.parametrize("path", ["fold", "project"])
def test_scores_are_those_of_a_sum_by_hand(every, path):
    """Integers, so float32 is exact: every cell has its own pair, cohort and test, in any order of the sizes."""
    game = getattr(every, path)()
    assert [cell.clients for cell in every.cells] == [12, 12, 4, 4, 9, 9]
    found, expected = scores_of(game), by_hand(every)
    if path == "fold":
        np.testing.assert_array_equal(found, expected)
    else:
        # Half a step for every client, and shares of the offset that are no integers.
        assert np.all(np.abs(found - expected) <= game.slack[:, None, None])


def test_slack_is_a_small_part_of_the_score(prepared, truth):
    assert np.all(prepared.project().slack <= 1e-5 * truth[:, 0].std(axis=1))


def test_the_order_of_columns_undoes_the_order_of_sizes(prepared):
    game = prepared.fold()
    terms = np.array([evaluation.noise_terms for evaluation in game.program.evaluations])
    assert np.all(np.diff(terms) >= 0) and sorted(game.order) == list(range(6))
    np.testing.assert_array_equal(terms[game.order] + 1, [cell.clients for cell in prepared.cells])


def test_cells_of_one_size_share_the_others(prepared):
    """Both pairs of a size see one crowd: their totals differ by what the target sends."""
    game = prepared.fold()
    views = each_trial(lambda t: [view.total for view in reveal(game.program, game.params, t)])
    at = [views[column] for column in game.order]
    for first in (0, 2, 4):
        moved = np.asarray(at[first + 1] - at[first])
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
    views = each_trial(lambda t: [view.total for view in reveal(game.program, game.params, t)])
    for column, cell, found in zip(game.order, cells, scores_of(game)):
        expected = np.max(np.asarray(views[column], np.float64) * cell.pair.difference, axis=(2, 3)).T
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
    games = quiet, replace(quiet, program=replace(quiet.program, aggregator=Noisy()))
    views = [each_trial(lambda t, g=game: [v.total for v in reveal(g.program, g.params, t)]) for game in games]
    return [np.asarray(with_noise) - np.asarray(without) for without, with_noise in zip(*views)]


def test_noise_of_the_clients_is_the_same_under_both_bits(noise):
    for one in noise:
        np.testing.assert_array_equal(one[:, 0], one[:, 1])
        assert one.std() > 1


def test_noise_of_the_clients_is_drawn_afresh_in_every_round(noise):
    # Correlation of 128 independent pairs: beyond 0.5 with probability below 1e-8.
    for one in noise:
        assert abs(np.corrcoef(one[:, 0, 0, 0], one[:, 0, 1, 0])[0, 1]) < 0.5


def test_every_cell_is_counted_at_its_own_thresholds(prepared):
    game = prepared.project()
    player = Player(tuple(jax.devices()[:2]), 0, lambda name, trials: lambda done: None)
    thresholds = [np.array([-1e9, 10.25 * number, 1e9]) for number in range(6)]
    scores, counts = player.scores(game, "certify", 1000), player.count(game, "certify", 1000, thresholds)
    for at, one, counted in zip(thresholds, scores, counts):
        expected = one.count(at)
        np.testing.assert_array_equal(counted.thresholds, at)
        np.testing.assert_array_equal(counted.errors_h0, expected.errors_h0)
        np.testing.assert_array_equal(counted.errors_h1, expected.errors_h1)
        assert counted.trials_h0 == counted.trials_h1 == 1000


def test_scores_come_with_their_slack_on_the_safe_side(prepared, scored, truth):
    game, found = prepared.project(), scored["project"]
    player = Player(tuple(jax.devices()[:1]), 0, lambda name, trials: lambda done: None)
    for cell, scores in enumerate(player.scores(game, "certify", TRIALS)):
        np.testing.assert_array_equal(scores.h0, found[cell, 0] + game.slack[cell])
        np.testing.assert_array_equal(scores.h1, found[cell, 1] - game.slack[cell])
        assert np.all(scores.h0 >= truth[cell, 0]) and np.all(scores.h1 <= truth[cell, 1])


@pytest.mark.parametrize("path", ["fold", "project"])
def test_a_trial_replayed_alone_is_the_same_trial(prepared, scored, path):
    game = getattr(prepared, path)()
    alone = jax.jit(lambda: play(game.program, game.params, ticket(jnp.uint32(77))))()
    for one, bit in zip(alone, (0, 1)):
        np.testing.assert_array_equal(np.asarray(one)[game.order], scored[path][:, bit, 77])
