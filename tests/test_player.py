"""A trial is the same in every range, block, batch and mesh, and errors are counted to the last one.

The oracle plays trials one by one through their tickets, keeps all scores, and counts them on the host.
"""

from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxaudit as ja
from jaxaudit import player as player_module
from jaxaudit.game import FoldParams, FoldProgram, Game
from jaxaudit.player import Player
from jaxaudit.random import STREAMS, numbered, words
from jaxaudit.types import Range

ONE, EIGHT = jax.devices()[:1], jax.devices()
TRIALS = 30_011  # no multiple of anything
SEED = 5
WIDE = 2**16
# Where ranges are cut: within a batch, at its end, beside it, and one trial alone.
EDGES = (0, 1, 700, 8191, 8192, 8193, 24_577, TRIALS)
PATHS = ("project", "fold")


def silent(name, trials):
    return lambda done: None


def player_on(devices, progress=silent):
    return Player(tuple(devices), SEED, progress)


@pytest.fixture(scope="module")
def audits(tmp_path_factory):
    """Two cells in unsorted cohorts: of real numbers; and of integers, where float32 is exact and scores tie."""
    rng = np.random.default_rng(0)
    made = {}
    for name, updates in {
        "real": rng.standard_normal((400, 6)),
        "integers": rng.integers(-3, 4, (400, 6)),
    }.items():
        path = tmp_path_factory.mktemp(name) / "u.npy"
        np.save(path, updates.astype(np.float32))
        population = ja.Arrays(path=str(path), clients=[10, 4])
        audit = ja.Audit(population=population, aggregator=ja.SecureSum(), attack=ja.GaussianLRT(ridge=0.1))
        prepared = audit.prepare(0)
        if name == "integers":
            test = ja.LinearTest(np.array([[1.0, -1, 0, 2, 0, 1]]), np.zeros(1), np.zeros(1))
            cells = [replace(cell, options={"": test}, setting="") for cell in prepared.cells]
            prepared = replace(prepared, cells=tuple(cells))
        made[name] = prepared
    return made


@pytest.fixture(scope="module", params=PATHS)
def game(request, audits):
    return getattr(audits["real"], request.param)()


@pytest.fixture(scope="module", params=PATHS)
def lattice(request, audits):
    return getattr(audits["integers"], request.param)()


@pytest.fixture(scope="module")
def projected(audits):
    return audits["real"].project()


@pytest.fixture(scope="module")
def thresholds(audits):
    """For both games of the real audit: of either cell, some scores and some numbers between them."""
    scores = player_on(ONE).scores(audits["real"].project(), "pilot", 1000)
    return [np.sort(np.concatenate([one.h0[:40], one.h1[:40], [-1e9, 0.0, 1e9]])) for one in scores]


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        np.testing.assert_array_equal(one.thresholds, other.thresholds)
        np.testing.assert_array_equal(one.errors_h0, other.errors_h0)
        np.testing.assert_array_equal(one.errors_h1, other.errors_h1)
        assert (one.trials_h0, one.trials_h1) == (other.trials_h0, other.trials_h1)
        assert (one.stream, one.design) == (other.stream, other.design)


def added(parts):
    """Counts of every cell, over parts."""
    return [sum(cell[1:], cell[0]) for cell in zip(*parts)]


def ranges(edges):
    return [Range(a, b - a) for a, b in pairwise(edges)]


def whole_of(game, thresholds, devices=EIGHT, trials=TRIALS, **more):
    return player_on(devices).count(game, "certify", Range(0, trials), thresholds, **more)


# Ranges, meshes, blocks, batches


@pytest.mark.parametrize("devices", [ONE, EIGHT], ids=len)
def test_counts_of_ranges_add_up_to_those_of_the_whole(game, thresholds, devices):
    player = player_on(devices)
    parts = [player.count(game, "certify", part, thresholds) for part in ranges(EDGES)]
    assert [one.trials_h0 for one, _ in parts] == np.diff(EDGES).tolist()
    assert_same(added(parts), whole_of(game, thresholds))


def test_counts_do_not_depend_on_the_mesh(game, thresholds):
    expected = whole_of(game, thresholds)
    for devices in (ONE, jax.devices()[3:6]):
        assert_same(whole_of(game, thresholds, devices), expected)


def test_a_range_is_the_same_trials_wherever_it_begins(projected, thresholds):
    """Unaligned parts of parts, in any order."""
    player = player_on(EIGHT)
    few = [Range(11_003, 977), Range(5, 10_998), Range(11_980, 8)]
    parts = [player.count(projected, "certify", part, thresholds) for part in few]
    assert_same(added(parts), player.count(projected, "certify", Range(5, 11_983), thresholds))


@pytest.mark.parametrize("keys", [1, 2**24])
def test_counts_do_not_depend_on_the_size_of_blocks(game, thresholds, keys, monkeypatch):
    expected = whole_of(game, thresholds)
    monkeypatch.setitem(player_module._KEYS, "cpu", keys)
    for devices in (ONE, EIGHT):
        assert_same(whole_of(game, thresholds, devices), expected)


@pytest.mark.parametrize("width", [256, WIDE])
def test_sums_do_not_depend_on_the_width_of_batches(projected, thresholds, width, monkeypatch):
    expected = whole_of(projected, thresholds)
    monkeypatch.setattr(type(projected.program), "width", lambda self, params: width)
    for devices, edges in ((ONE, (0, TRIALS)), (EIGHT, (0, 300, 12_345, TRIALS))):
        player = player_on(devices)
        assert_same(added([player.count(projected, "certify", r, thresholds) for r in ranges(edges)]), expected)


def test_counts_do_not_depend_on_how_long_a_block_takes(projected, thresholds, monkeypatch):
    """A slow block is followed by a smaller one, a fast one by a larger."""
    expected, sizes = whole_of(projected, thresholds, trials=10 * TRIALS), {}
    for look_s in (0.0, 1e9):
        seen = sizes[look_s] = []
        monkeypatch.setattr(player_module, "_LOOK_S", look_s)
        found = whole_of(
            projected, thresholds, ONE, 10 * TRIALS, keep=lambda done, gaps, seen=seen: seen.append(done)
        )
        assert_same(found, expected)
    assert len(sizes[0.0]) > len(sizes[1e9]) > 1


def test_scores_do_not_depend_on_mesh_or_blocks(game, monkeypatch):
    expected = player_on(EIGHT).scores(game, "pilot", TRIALS)
    monkeypatch.setitem(player_module._KEYS, "cpu", 1)
    for one, other in zip(player_on(ONE).scores(game, "pilot", TRIALS), expected):
        np.testing.assert_array_equal(one.h0, other.h0)
        np.testing.assert_array_equal(one.h1, other.h1)
        assert one.h0.shape == (TRIALS,) and one.stream == f"{SEED}/pilot"


def test_every_trial_is_reported_once(projected, thresholds):
    seen = []

    def progress(name, trials):
        seen.append([name, trials, 0])

        def advance(done):
            seen[-1][2] += done

        return advance

    player = player_on(EIGHT, progress)
    player.count(projected, "certify", Range(77, TRIALS), thresholds)
    player.scores(projected, "pilot", 1000)
    assert seen == [["certify", TRIALS, TRIALS], ["pilot", 1000, 1000]]
    assert player.played == TRIALS and player.first_block_s > 0


# Counts are those of the scores


def scored(game, trials=TRIALS):
    return player_on(EIGHT).scores(game, "certify", trials)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("numbers", ["real", "integers"])
def test_counts_are_those_of_the_scores(audits, numbers, path):
    """At scores, at the float64 numbers beside them, at those of the other bit, between and beyond them."""
    game = getattr(audits[numbers], path)()
    scores = scored(game)
    thresholds = []
    for one in scores:
        at = np.concatenate([one.h0[:60], one.h1[:60], [one.h0.min(), one.h1.max()]])
        beside = [np.nextafter(at, -np.inf), np.nextafter(at, np.inf), (at[1:] + at[:-1]) / 2, [-1e300, 0, 1e300]]
        thresholds.append(np.unique(np.concatenate([at, *beside])))
    counts = whole_of(game, thresholds)
    assert_same(counts, [one.count(at) for one, at in zip(scores, thresholds)])
    ties = [np.isin(one.h0, at).sum() for one, at in zip(scores, thresholds)]
    assert min(ties) > (TRIALS / 2 if numbers == "integers" else 20)


def test_thresholds_may_come_in_any_order_and_twice(projected):
    scores = scored(projected)
    order = [np.array([3.0, -1.0, 3.0, 0.5, -1.0]), np.array([0.25])]
    assert_same(whole_of(projected, order), [one.count(at) for one, at in zip(scores, order)])


def test_both_paths_count_the_same_integers(audits):
    """Where float32 is exact the two paths are one function, but for the slack of the projected one."""
    at = [np.arange(-60, 61) / 2.0] * 2
    fold, projected = (getattr(audits["integers"], path)() for path in PATHS[::-1])
    assert_same(
        whole_of(replace(projected, slack=np.zeros(2), nested=fold.nested), at),
        whole_of(fold, at),
    )


# Trials beyond 2^32


def alone(game, trials):
    """Keys of trials that are played one by one, through their tickets: i32[trials, 2, columns]."""
    play = jax.jit(
        lambda high, low: game.program.play(
            game.params, numbered(jnp.uint32(SEED), jnp.uint32(STREAMS["certify"]), high, low)
        )
    )
    return np.array([play(jnp.uint32(t >> 32), jnp.uint32(t % 2**32)) for t in trials])


@pytest.mark.parametrize(
    ("first", "count"), [(2**32 - 300, 601), (2 * 2**32 + 8191, 257), (2**44 - 5, 5), (3 * 2**32, 1)]
)
def test_trials_beyond_32_bits_are_those_of_their_tickets(lattice, first, count):
    """Both parts of a range that straddles 2^32, and no trial of the first 2^32 in the place of a later one."""
    scores = lattice.scores(alone(lattice, range(first, first + count)))
    thresholds = [np.unique(scores[:, :, cell])[::3] for cell in range(2)]
    expected = [ja.bounds.Scores(*scores[:, :, cell].T, f"{SEED}/certify") for cell in range(2)]
    for devices in (ONE, EIGHT):
        counts = player_on(devices).count(lattice, "certify", Range(first, count), thresholds)
        for one, scored, at in zip(counts, expected, thresholds):
            np.testing.assert_array_equal(one.errors_h0, scored.count(at).errors_h0)
            np.testing.assert_array_equal(one.errors_h1, scored.count(at).errors_h1)
            assert one.trials_h0 == one.trials_h1 == count


def test_a_range_across_the_boundary_is_its_two_sides(projected, thresholds, monkeypatch):
    player, edges = player_on(EIGHT), (2**33 - 20_001, 2**33, 2**33 + 30_005)
    whole = player.count(projected, "certify", Range(edges[0], edges[-1] - edges[0]), thresholds)
    assert_same(added([player.count(projected, "certify", part, thresholds) for part in ranges(edges)]), whole)
    monkeypatch.setattr(type(projected.program), "width", lambda self, params: WIDE)
    assert_same(player.count(projected, "certify", Range(edges[0], edges[-1] - edges[0]), thresholds), whole)


# Labelled trials


def labels_of(first, count):
    """The coin of each trial: the low bit of its last word below those of the aggregator."""
    trials = np.arange(first, first + count)
    ticket = jax.vmap(partial(numbered, jnp.uint32(SEED), jnp.uint32(STREAMS["certify"])))(
        jnp.asarray(trials >> 32, jnp.uint32), jnp.asarray(trials & 0xFFFFFFFF, jnp.uint32)
    )
    return np.asarray(jax.vmap(lambda t: words(t, 2**31 - 2, 1)[0])(ticket)) & 1


@pytest.mark.parametrize("first", [0, 2**32 - 12_000], ids=["low", "across 2^32"])
def test_a_labelled_trial_counts_under_the_bit_of_its_coin(game, thresholds, first):
    labels = labels_of(first, TRIALS)
    counts = player_on(EIGHT).count(game, "certify", Range(first, TRIALS), thresholds, labelled=True)
    for cell, one in enumerate(counts):
        assert (one.trials_h0, one.trials_h1) == (np.sum(labels == 0), np.sum(labels == 1))
        assert one.design == "labelled"
        if first == 0:
            paired = scored(game)[cell]
            h0, h1 = paired.h0[labels == 0], paired.h1[labels == 1]
            np.testing.assert_array_equal(one.errors_h0, [np.sum(h0 >= t) for t in thresholds[cell]])
            np.testing.assert_array_equal(one.errors_h1, [np.sum(h1 <= t) for t in thresholds[cell]])


def test_labelled_counts_do_not_depend_on_ranges_mesh_or_batches(projected, thresholds, monkeypatch):
    expected = whole_of(projected, thresholds, labelled=True)
    one = player_on(ONE)
    parts = [one.count(projected, "certify", part, thresholds, labelled=True) for part in ranges(EDGES)]
    assert_same(added(parts), expected)
    monkeypatch.setattr(type(projected.program), "width", lambda self, params: 256)
    assert_same(whole_of(projected, thresholds, labelled=True), expected)


def test_labels_are_fair_and_independent():
    """Binomial and runs tests with a false-alarm rate of 1e-6 each, seed fixed."""
    labels = labels_of(0, 2**17)
    assert stats.binomtest(int(labels.sum()), len(labels), 0.5).pvalue > 1e-6
    pairs = np.bincount(2 * labels[::2] + labels[1::2], minlength=4)
    assert stats.chisquare(pairs).pvalue > 1e-6


def test_the_label_says_nothing_about_the_score(projected):
    """Two-sample Kolmogorov-Smirnov, false-alarm rate 1e-6, seed fixed."""
    labels = labels_of(0, TRIALS)
    for one in scored(projected):
        assert stats.ks_2samp(one.h0[labels == 0], one.h0[labels == 1]).pvalue > 1e-6


# Interrupted, and gone on


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("devices", [ONE, EIGHT], ids=len)
def test_an_interrupted_count_goes_on_to_the_same_counts(game, thresholds, devices, labelled, monkeypatch):
    """Interrupted in the second block, and again in the next; then on other devices to the end."""
    monkeypatch.setitem(player_module._KEYS, "cpu", 1)
    trials = Range(1234, 9 * TRIALS)
    count = partial(player_on(EIGHT).count, game, "certify", trials, thresholds, labelled)
    expected, kept, blocks = count(), None, 0

    def keep(done, gaps):
        nonlocal kept, blocks
        kept, blocks = (done, gaps), blocks + 1
        if blocks in (2, 3):
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            player_on(devices).count(game, "certify", trials, thresholds, labelled, begun=kept, keep=keep)
    assert 0 < kept[0] < trials.count and blocks == 3
    assert kept[1].dtype == np.int64 and kept[1].sum() == kept[0] * 2 * 2 / (2 if labelled else 1)
    assert_same(count(begun=kept), expected)


def test_an_interruption_while_progress_is_shown_loses_nothing_that_was_kept(projected, thresholds, monkeypatch):
    """A block is kept before it is shown."""
    monkeypatch.setitem(player_module._KEYS, "cpu", 1)
    kept, shown = [], []

    def progress(name, trials):
        def advance(done):
            shown.append(done)
            if len(shown) == 4:
                raise KeyboardInterrupt

        return advance

    trials = Range(0, 9 * TRIALS)
    with pytest.raises(KeyboardInterrupt):
        player_on(ONE, progress).count(
            projected, "certify", trials, thresholds, keep=lambda done, gaps: kept.append((done, gaps))
        )
    assert kept[-1][0] == sum(shown) > 0
    found = player_on(ONE).count(projected, "certify", trials, thresholds, begun=kept[-1])
    assert_same(found, whole_of(projected, thresholds, trials=trials.count))


def test_a_finished_count_is_not_played_again(projected, thresholds):
    kept = []
    whole = whole_of(projected, thresholds, keep=lambda done, gaps: kept.append((done, gaps)))
    player = player_on(EIGHT)
    assert_same(player.count(projected, "certify", Range(0, TRIALS), thresholds, begun=kept[-1]), whole)
    assert player.played == 0


# Scores that are none


@dataclass(frozen=True)
class Rarely:
    """A score that is one of these now and then."""

    value: float

    def __call__(self, knowledge, view):
        return jnp.where(view.total[0, 0] > knowledge, jnp.float32(self.value), view.total[0, 1])


def failing(audits, value):
    """The folded audit with a score that fails in one trial of many."""
    game = audits["integers"].fold()
    program: FoldProgram = replace(game.program, score=Rarely(value))
    params: FoldParams = game.params._replace(knowledge=(jnp.float32(10), jnp.float32(10)))
    return Game(program, params, game.order, game.scale, game.slack, game.nested, game.distance)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_refused_in_one_line(audits, value):
    game = failing(audits, value)
    message = (
        r"\d scores of certify trials are not finite, allowed are finite numbers; .*: give it the score that errs"
    )
    with pytest.raises(ValueError, match=message) as refused:
        whole_of(game, [np.zeros(1)] * 2)
    assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match=r"scores h[01]\[\d+\] is (nan|-?inf), allowed are finite numbers"):
        scored(game)


def test_a_failure_outside_the_range_is_not_of_this_range(audits):
    """A batch is played whole, but only its own trials count."""
    game = failing(audits, np.nan)
    keys = alone(game, range(200))
    (bad,) = np.nonzero((keys == -(2**31)).any(axis=(1, 2)))
    assert len(bad) and bad[0] > 0
    first = int(bad[0])
    player_on(ONE).count(game, "certify", Range(0, first), [np.zeros(1)] * 2)
    with pytest.raises(ValueError, match="are not finite"):
        player_on(ONE).count(game, "certify", Range(first, 1), [np.zeros(1)] * 2)


def test_widths_that_do_not_divide_two_to_the_32_are_refused(game, monkeypatch):
    """Aligned batches never cross a multiple of 2^32, where a batch would repeat the trials from 0 on."""
    monkeypatch.setattr(type(game.program), "width", lambda self, params: 48)
    with pytest.raises(ValueError, match=r"width of \w+ is 48, allowed are powers of two"):
        player_on(ONE).scores(game, "certify", 100)
