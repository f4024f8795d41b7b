"""Settings to tune: pilot trials choose the one that separates best, and certifying trials have no say."""

from dataclasses import replace

import jax
import numpy as np
import pytest

import jaxaudit as ja
from jaxaudit import player as player_module
from jaxaudit import random, report, runner, tuning
from jaxaudit.player import Player
from jaxaudit.populations.pool import PoolSums

RIDGES, RANKS = [1e-6, 0.03, 3.0, 1000.0], [0, 2]


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Small batches and little room for them: results do not depend on either."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(player_module._KEYS, "cpu", 2**14)
        patch.setattr(PoolSums, "width", lambda draws, params: 1024)
        yield


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Noise of very unequal directions, too few recordings to know it well: pairs differ in their best setting."""
    rng = np.random.default_rng(2)
    updates = rng.standard_normal((100, 30)) * np.geomspace(10, 0.01, 30)
    path = tmp_path_factory.mktemp("settings") / "u.npy"
    np.save(path, updates.astype(np.float32))
    return str(path)


def audit(pool, **attack):
    population = ja.Arrays(path=pool, clients=[10, 4], pair=["random", "zeroed"], fit_share=0.4)
    return ja.Audit(population=population, aggregator=ja.SecureSum(), attack=ja.GaussianLRT(**attack))


def run(pool, trials=1000, **attack):
    return ja.run(audit(pool, **attack), trials=trials, deltas=[1e-2], devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def tuned(pool):
    return run(pool, ridge=RIDGES, rank=RANKS)


def silent_player(seed=0):
    return Player(tuple(jax.devices()[:1]), seed, lambda name, trials: lambda done: None)


def separations(prepared, pilots):
    """Of every cell under every setting, each scored in an audit of that setting alone."""
    found = []
    for cell in prepared.cells:
        row = {}
        for setting in cell.options:
            alone = replace(prepared, cells=tuple(replace(c, setting=setting) for c in prepared.cells))
            scores = silent_player().scores(alone.game(), "pilot", pilots)[prepared.cells.index(cell)]
            row[setting] = (scores.h1.mean() - scores.h0.mean()) / np.sqrt((scores.h0.var() + scores.h1.var()) / 2)
        found.append(row)
    return found


def test_the_setting_with_the_largest_separation_on_pilot_trials_is_chosen(pool, tuned):
    prepared = audit(pool, ridge=RIDGES, rank=RANKS).prepare(0)
    assert all(len(cell.options) == 8 for cell in prepared.cells)
    for cell, row in zip(tuned.prepared.cells, separations(prepared, 1000), strict=True):
        assert cell.setting == max(row, key=row.get)
        assert max(row.values()) > 1.02 * min(row.values())  # there was something to choose


def test_settings_are_every_ridge_with_every_rank_in_order(tuned):
    words = [f"ridge {ridge}, {'full rank' if rank == 0 else f'rank {rank}'}" for ridge in RIDGES for rank in RANKS]
    for cell in tuned.prepared.cells:
        assert list(cell.options) == words


@pytest.mark.parametrize(("ridge", "rank"), [(0.03, 0), (3.0, 2)])
def test_a_setting_is_the_test_that_its_numbers_make(pool, ridge, rank):
    many = audit(pool, ridge=RIDGES, rank=RANKS).prepare(0)
    for cell, alone in zip(many.cells, audit(pool, ridge=ridge, rank=rank).prepare(0).cells, strict=True):
        (setting, test), *rest = alone.options.items()
        assert not rest
        np.testing.assert_allclose(cell.options[setting].weights, test.weights, rtol=1e-9)
        np.testing.assert_allclose(cell.options[setting].each, test.each, rtol=1e-9)
        np.testing.assert_allclose(cell.options[setting].offset, test.offset, rtol=1e-9)


def test_the_certificate_is_that_of_the_chosen_setting_alone(pool, tuned):
    """Tuning costs nothing but pilot trials: a recipe of the chosen numbers has the same plan, counts and bounds."""
    settings = {finding.cell.setting for finding in tuned.cells}
    for setting in settings:
        ridge, rank = setting.removeprefix("ridge ").split(", ")
        alone = run(pool, ridge=float(ridge), rank=0 if rank == "full rank" else int(rank.removeprefix("rank ")))
        for one, other in zip(tuned.cells, alone.cells, strict=True):
            if one.cell.setting == setting:
                np.testing.assert_allclose(one.plan.thresholds, other.plan.thresholds, rtol=1e-6, atol=1e-6)
                assert one.bounds[0].epsilon == pytest.approx(other.bounds[0].epsilon, abs=1e-2)


def test_the_number_of_certifying_trials_does_not_choose(pool, tuned):
    # 5 % of either are fewer than the 1,000 pilot trials that are played at least.
    longer = run(pool, trials=9000, ridge=RIDGES, rank=RANKS)
    assert [c.setting for c in longer.prepared.cells] == [c.setting for c in tuned.prepared.cells]
    for one, other in zip(tuned.cells, longer.cells):
        np.testing.assert_array_equal(one.cell.knowledge.weights, other.cell.knowledge.weights)


def test_the_words_of_the_certifying_trials_do_not_choose(pool, tuned, monkeypatch):
    monkeypatch.setitem(random.STREAMS, "certify", 77)
    other = run(pool, ridge=RIDGES, rank=RANKS)
    assert [c.setting for c in other.prepared.cells] == [c.setting for c in tuned.prepared.cells]
    assert [f.plan.events for f in other.cells] == [f.plan.events for f in tuned.cells]
    assert any(not np.array_equal(a.counts.errors_h0, b.counts.errors_h0) for a, b in zip(tuned.cells, other.cells))


def test_certifying_trials_are_played_once_with_one_setting_each(pool, monkeypatch):
    played = []

    class Watched(Player):
        def _blocks(self, game, stream, trials, look):
            played.append((stream, *trials, len(game.order)))
            return super()._blocks(game, stream, trials, look)

    monkeypatch.setattr(runner, "Player", Watched)
    run(pool, ridge=RIDGES, rank=RANKS)
    assert played[:3] == [("pilot", 0, 1000, 32), ("pilot", 0, 1000, 4), ("certify", 0, 1000, 4)]
    assert [stream for stream, *_ in played].count("certify") == 1


def test_cells_choose_for_themselves(pool, tuned):
    assert len(tuned.cells) == 4 and len({finding.cell.setting for finding in tuned.cells}) > 1


def test_the_chosen_setting_and_its_rivals_are_in_the_summary(tuned):
    stored = report.to_run(tuned)
    for cell, finding in zip(stored.cells, tuned.cells, strict=True):
        assert cell.summary["setting"] == finding.cell.setting and cell.summary["options"] == list(
            finding.cell.options
        )
    assert stored.summary["setting"] == tuned.headline.cell.setting


@pytest.mark.parametrize("ridge", [0.03, 3.0])
def test_a_list_of_one_is_the_number_itself(pool, ridge):
    listed, plain = run(pool, ridge=[ridge], rank=[2]), run(pool, ridge=ridge, rank=2)
    assert all(len(cell.options) == 1 for cell in listed.prepared.cells)
    for one, other in zip(listed.cells, plain.cells, strict=True):
        assert (one.cell.setting, one.bounds, one.plan) == (other.cell.setting, other.bounds, other.plan)
        np.testing.assert_array_equal(one.counts.errors_h0, other.counts.errors_h0)


def test_ridges_that_are_nearly_equal_are_settings_of_their_own(pool):
    """Named in words, and still told apart."""
    prepared = audit(pool, ridge=[0.12345678, 0.12345679]).prepare(0)
    assert all(len(cell.options) == 2 for cell in prepared.cells)


@pytest.mark.parametrize(
    ("h0", "h1", "expected"),
    [
        ([0.0, 2.0], [3.0, 5.0], 3.0),
        ([0.0, 0.0], [1.0, 1.0], np.inf),
        ([1.0, 1.0], [0.0, 0.0], -np.inf),
        ([5.0, 7.0], [1.0, 3.0], -4.0),
    ],
)
def test_separation_is_in_standard_deviations_and_has_a_sign(h0, h1, expected):
    """A test that speaks for the wrong side is worse than none."""
    assert tuning._separation(ja.bounds.Scores(np.array(h0), np.array(h1), "pilot")) == expected


def test_a_setting_without_any_effect_never_wins():
    """Equal constants under both hypotheses: no separation, not an undefined one that beats all others."""
    silent = tuning._separation(ja.bounds.Scores(np.zeros(5), np.zeros(5), "pilot"))
    assert max({"silent": silent, "telling": 1.0}.items(), key=lambda item: item[1])[0] == "telling"
