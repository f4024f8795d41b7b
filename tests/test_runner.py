"""The same answer everywhere: devices, blocks, repetition. And the whole path from recipe to bound."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import discrete_epsilon
from scipy import stats

import jaxaudit as ja
from jaxaudit import player
from jaxaudit.game import play
from jaxaudit.player import Player
from jaxaudit.random import CERTIFY
from jaxaudit.types import Ticket

TRIALS = 30_011  # no multiple of anything
ONE, EIGHT = jax.devices()[:1], jax.devices()


@dataclass(frozen=True)
class FoldedLRT:
    """The same test for an audit that cannot be projected: it does not say that it is linear."""

    reads: ClassVar[type] = ja.SumView
    kind: Literal["folded_lrt"] = "folded_lrt"

    score = staticmethod(ja.GaussianLRT.score)

    def broadcast(self):
        return None

    def calibrate(self, server, moments):
        (test,) = ja.GaussianLRT().options(server, moments).values()
        return test


@pytest.fixture(scope="module")
def folded(pool_file):
    return ja.Audit(
        population=ja.Arrays(path=str(pool_file), clients=10), aggregator=ja.SecureSum(), attack=FoldedLRT()
    )


@pytest.fixture(scope="module")
def projected(pool_file):
    return ja.Audit(
        population=ja.Arrays(path=str(pool_file), clients=10), aggregator=ja.SecureSum(), attack=ja.GaussianLRT()
    )


def silent(name, trials):
    return lambda done: None


def counted(audit, devices=EIGHT, trials=TRIALS, seed=0):
    return ja.run(audit, trials=trials, seed=seed, deltas=[1e-2], devices=devices)


@pytest.mark.parametrize("path", ["projected", "folded"])
def test_counts_do_not_depend_on_devices(path, request):
    audit = request.getfixturevalue(path)
    one, eight = (counted(audit, devices).headline.counts for devices in (ONE, EIGHT))
    np.testing.assert_array_equal(one.thresholds, eight.thresholds)
    np.testing.assert_array_equal(one.errors_h0, eight.errors_h0)
    np.testing.assert_array_equal(one.errors_h1, eight.errors_h1)


@pytest.mark.parametrize("path", ["projected", "folded"])
@pytest.mark.parametrize("launch", [1, 20_000])
def test_counts_do_not_depend_on_blocks(path, launch, request, monkeypatch):
    audit = request.getfixturevalue(path)
    usual = counted(audit, ONE).headline.counts
    monkeypatch.setattr(player, "_LAUNCH", launch)
    other = counted(audit, ONE).headline.counts
    np.testing.assert_array_equal(usual.errors_h0, other.errors_h0)
    np.testing.assert_array_equal(usual.errors_h1, other.errors_h1)


def test_one_trial_can_be_replayed_alone(projected):
    game = projected.prepare(0).project()
    mesh = jax.make_mesh((1,), ("trials",), (jax.sharding.AxisType.Auto,), devices=ONE)
    width = game.program.draws.width(game.params.pool)
    block = player.play_block(
        game.program, mesh, width, game.params, jnp.uint32(0), jnp.uint32(CERTIFY), jnp.zeros(1, jnp.uint32)
    )
    alone = play(game.program, game.params, Ticket(jnp.uint32(0), jnp.uint32(CERTIFY), jnp.uint32(777)))
    assert [score.shape for score in alone] == [(1,), (1,)]
    assert [float(score[0]) for score in alone] == [float(scores[0, 777, 0]) for scores in block]


def test_seed_and_trials_are_all_that_decides(projected):
    first, again, other = (counted(projected, seed=seed) for seed in (1, 1, 2))
    errors = [result.headline.counts.errors_h0 for result in (first, again, other)]
    np.testing.assert_array_equal(errors[0], errors[1])
    assert first.bounds == again.bounds
    assert not np.array_equal(errors[0], errors[2])


def test_every_trial_is_counted_once(projected):
    (counts,) = Player(EIGHT, 0, silent).count(projected.prepare(0).game(), "certify", TRIALS, [[-1e9, 1e9]])
    assert counts.trials_h0 == counts.trials_h1 == TRIALS
    assert counts.errors_h0.tolist() == [TRIALS, 0] and counts.errors_h1.tolist() == [0, TRIALS]


def test_pilot_and_certificate_come_from_different_streams(projected):
    result = counted(projected).headline
    assert (result.plan.stream, result.counts.stream) == ("0/pilot", "0/certify")


def test_paths_choose_their_method(projected, folded):
    assert counted(projected).headline.plan.method == "pc-cp"
    assert counted(folded).headline.plan.method == "union"


def test_projected_and_folded_audits_agree(projected, folded):
    """Same tickets, same draws: the same counts but for scores within rounding of a threshold."""
    short, whole = counted(projected), counted(folded)
    fine = short.headline.counts
    (again,) = Player(ONE, 0, silent).count(folded.prepare(0).game(), "certify", TRIALS, [fine.thresholds])
    assert np.abs(fine.errors_h0 - again.errors_h0).max() <= 2
    assert np.abs(fine.errors_h1 - again.errors_h1).max() <= 2
    assert whole.bounds[0].epsilon <= short.bounds[0].epsilon + 0.1


def test_projected_and_folded_sums_of_integers_are_equal_to_the_bit(tmp_path):
    """Where float32 is exact, the two paths are one function; the projected one stands off by its slack."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "u.npz", updates=rng.integers(-50, 50, (300, 6)).astype(np.float32))
    prepared = ja.Audit(
        population=ja.Arrays(path=str(tmp_path / "u.npz"), clients=20),
        aggregator=ja.SecureSum(),
        attack=ja.GaussianLRT(),
    ).prepare(0)
    (cell,) = prepared.cells
    test = ja.LinearTest(np.array([[1.0, -2.0, 3.0, 0.0, 5.0, -1.0]]), np.zeros(1))
    test = test if np.vdot(test.weights, cell.pair.difference) >= 0 else test._replace(weights=-test.weights)
    prepared = replace(prepared, cells=(replace(cell, options={"": test}, setting=""),))
    fold, projected = prepared.fold(), replace(prepared.project(), slack=np.zeros(1))
    (whole,), (short,) = (Player(EIGHT, 5, silent).scores(game, "certify", 20_000) for game in (fold, projected))
    np.testing.assert_array_equal(whole.h0, short.h0)
    np.testing.assert_array_equal(whole.h1, short.h1)


def lattice_epsilon(others, rate, delta):
    """Exact epsilon of a count of `others` Bernoulli clients against the same count plus one."""
    count = np.arange(others + 2)
    h0, h1 = (stats.binom.pmf(count - bit, others, rate) for bit in (0, 1))
    return discrete_epsilon(delta, h0, h1)


@pytest.mark.parametrize("attack", [ja.GaussianLRT(), FoldedLRT()], ids=["projected", "folded"])
def test_bounds_on_a_lattice_stay_below_the_truth(tmp_path, attack):
    """Updates of one bit: every total is reached in many orders, and a sum that rounds by order would tell the bit.

    A float32 sum exceeded the exact epsilon in 16 of 30 seeds here. Allowed are 5 % of them; more than 4 of 20 have
    probability 2.6e-3 even if the guarantee were met with equality.
    """
    bits = (np.random.default_rng(0).random((2000, 1)) < 0.4).astype(np.float32) * np.float32(0.1)
    np.savez(tmp_path / "bits.npz", updates=bits)
    np.savez(tmp_path / "pair.npz", h0=np.zeros(1), h1=np.full(1, 0.1))
    population = ja.Arrays(path=str(tmp_path / "bits.npz"), clients=21, pair=str(tmp_path / "pair.npz"))
    audit = ja.Audit(population=population, aggregator=ja.SecureSum(), attack=attack)
    exceeded = 0
    for seed in range(20):
        result = ja.run(audit, trials=20_000, seed=seed, deltas=[1e-2])
        (source,) = result.prepared.responses.certify.sources
        rate = np.mean(source.rows(0, len(source.sizes)) > 0)
        exceeded += result.bounds[0].epsilon > lattice_epsilon(20, rate, 1e-2)
    assert exceeded <= 4


def test_bound_at_an_unplanned_delta_is_that_of_the_next_larger_planned_one(projected):
    result = ja.run(projected, trials=TRIALS, deltas=[1e-1, 1e-2])
    assert result.bound(3e-2).epsilon == result.bound(1e-1).epsilon <= result.bound(1e-2).epsilon
    assert result.bound(0.5).epsilon == 0


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"trials": 10}, "trials is 10, allowed are ≥ 1,000"),
        ({"trials": 5_000_000_000}, "≤ 4,000,000,000"),
        ({"seed": -1}, "seed is -1"),
        ({"deltas": [1.0]}, "deltas is 1.0"),
        ({"deltas": []}, "deltas is"),
        ({"confidence": 1.0}, "confidence is 1.0"),
    ],
)
def test_plans_out_of_range_are_refused(projected, plan, message):
    with pytest.raises(ValueError, match=message):
        ja.run(projected, **plan)


def test_progress_reports_every_trial(projected):
    seen = {}

    def progress(name, trials):
        seen[name] = [trials, 0]

        def advance(done):
            seen[name][1] += done

        return advance

    ja.run(projected, trials=TRIALS, progress=progress)
    assert seen["certify"] == [TRIALS, TRIALS] and seen["pilot"][0] == seen["pilot"][1] > 0


@pytest.fixture(scope="module")
def sphere():
    """The known answer: dimension 39, 60 fresh uniform vectors, an antipodal pair, a million trials."""
    audit = ja.Audit(
        population=ja.Synthetic(law="sphere", dim=39, clients=61),
        aggregator=ja.SecureSum(),
        attack=ja.GaussianLRT(ridge=1e-9),
    )
    return ja.run(audit, trials=1_000_000, seed=0, deltas=[1e-2])


def test_sphere_has_its_known_distance(sphere):
    assert (
        sphere.headline.distance
        == pytest.approx(ja.bounds.sphere_distance(39, 60), rel=1e-6)
        == pytest.approx(1.6125, abs=5e-5)
    )


def test_sphere_errs_as_often_as_theory_says(sphere):
    """Balanced error inside its Clopper-Pearson interval around Φ(-Δ/2), by linear interpolation at score 0."""
    counts = sphere.headline.counts
    error = float(ja.bounds.balanced_error(ja.bounds.sphere_distance(39, 60)))
    for errors in (counts.errors_h0, counts.errors_h1):
        at_zero = round(float(np.interp(0.0, counts.thresholds, errors)))
        # Two-sided interval with false alarm 1e-5; the sum of 60 uniform vectors is Gaussian to 1e-4 here.
        low = ja.bounds.clopper_pearson_lower(at_zero, counts.trials_h0, 5e-6)
        high = ja.bounds.clopper_pearson_upper(at_zero, counts.trials_h0, 5e-6)
        assert low - 1e-4 <= error <= high + 1e-4


def test_sphere_certifies_most_of_its_epsilon_and_no_more(sphere):
    truth = ja.bounds.gaussian_epsilon(1e-2, ja.bounds.sphere_distance(39, 60))
    # Above the truth with probability 5 % at most by the guarantee; at this size by far less (the optimum is rarely
    # reached), so one seed is no gamble.
    assert 0.88 * truth <= sphere.bounds[0].epsilon <= truth
