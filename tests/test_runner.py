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
from jaxaudit import player, runner
from jaxaudit.config import make_recipe
from jaxaudit.player import Player
from jaxaudit.populations.pool import PoolSums
from jaxaudit.random import CERTIFY, numbered
from jaxaudit.types import Range

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


def counted(audit, devices=EIGHT, trials=TRIALS, seed=0, **plan):
    return ja.run(audit, trials=trials, seed=seed, deltas=[1e-2], devices=devices, **plan)


def require_equal(one, other):
    np.testing.assert_array_equal(one.thresholds, other.thresholds)
    np.testing.assert_array_equal(one.errors_h0, other.errors_h0)
    np.testing.assert_array_equal(one.errors_h1, other.errors_h1)
    assert (one.trials_h0, one.trials_h1) == (other.trials_h0, other.trials_h1)


@pytest.fixture(scope="module")
def usual(projected, folded):
    """What both audits find on one device."""
    return {"projected": counted(projected, ONE), "folded": counted(folded, ONE)}


@pytest.mark.parametrize("devices", [3, 8])
@pytest.mark.parametrize("path", ["projected", "folded"])
def test_counts_do_not_depend_on_devices(path, devices, request, usual):
    found = counted(request.getfixturevalue(path), EIGHT[:devices]).headline
    require_equal(found.counts, usual[path].headline.counts)
    require_equal(found.histogram, usual[path].headline.histogram)


# The room of a device in keys, and how long a block is to take: blocks of one batch, and blocks that double.
@pytest.mark.parametrize(("keys", "look_s"), [(1, 0.5), (2**17, 1e9), (2**17, 0.0)])
@pytest.mark.parametrize("path", ["projected", "folded"])
def test_counts_do_not_depend_on_blocks(path, keys, look_s, request, usual, monkeypatch):
    monkeypatch.setitem(player._KEYS, "cpu", keys)
    monkeypatch.setattr(player, "_LOOK_S", look_s)
    require_equal(counted(request.getfixturevalue(path), ONE).headline.counts, usual[path].headline.counts)


@pytest.mark.parametrize("width", [256, 65_536])
def test_sums_of_integers_do_not_depend_on_how_many_are_computed_together(width, projected, usual, monkeypatch):
    monkeypatch.setattr(PoolSums, "width", lambda draws, params: width)
    require_equal(counted(projected, ONE).headline.counts, usual["projected"].headline.counts)


@pytest.mark.parametrize("path", ["projected", "folded"])
def test_ranges_of_trials_add_up_to_the_run(path, request, usual):
    """Cut where no batch ends."""
    whole = usual[path]
    parts = [
        runner.run_recipe(whole.recipe, part=Range(first, last - first), devices=ONE)
        for first, last in ((0, 7_001), (7_001, 7_002), (7_002, TRIALS))
    ]
    assert {part.fingerprint for part in parts} == {whole.fingerprint}
    first, *rest = (part.headline for part in parts)
    require_equal(first.counts + rest[0].counts + rest[1].counts, whole.headline.counts)
    require_equal(first.histogram + rest[0].histogram + rest[1].histogram, whole.headline.histogram)


def test_a_part_of_a_run_certifies_nothing(projected):
    recipe = make_recipe(projected, trials=TRIALS, deltas=[1e-2])
    part = runner.run_recipe(recipe, part=Range(0, TRIALS - 1), devices=ONE)
    with pytest.raises(ValueError, match="a part of a run certifies nothing; merge it"):
        part.bound(1e-2)


@pytest.mark.parametrize("path", ["projected", "folded"])
def test_one_trial_can_be_replayed_alone(path, request):
    game = getattr(request.getfixturevalue(path).prepare(0), path.removesuffix("ed"))()
    mesh = jax.make_mesh((1,), ("trials",), (jax.sharding.AxisType.Auto,), devices=ONE)
    width, named = game.program.width(game.params), (jnp.uint32(0), jnp.uint32(CERTIFY), jnp.uint32(3))
    block = player.play_block(game.program, mesh, width, 2, game.params, *named, jnp.uint32(2 * width), jnp.uint32(2))
    ticket = numbered(*named, jnp.uint32(2 * width + 777))
    np.testing.assert_array_equal(block[777], jax.jit(game.program.play)(game.params, ticket))


def test_seed_and_trials_are_all_that_decides(projected):
    first, again, other = (counted(projected, seed=seed) for seed in (1, 1, 2))
    errors = [result.headline.counts.errors_h0 for result in (first, again, other)]
    np.testing.assert_array_equal(errors[0], errors[1])
    assert first.bounds == again.bounds
    assert not np.array_equal(errors[0], errors[2])


def test_every_trial_is_counted_once(projected):
    game = projected.prepare(0).game()
    (counts,) = Player(EIGHT, 0, silent).count(game, "certify", Range(0, TRIALS), [[-1e9, 1e9]])
    assert counts.trials_h0 == counts.trials_h1 == TRIALS
    assert counts.errors_h0.tolist() == [TRIALS, 0] and counts.errors_h1.tolist() == [0, TRIALS]


def test_pilot_and_certificate_come_from_different_streams(projected):
    result = counted(projected).headline
    assert (result.plan.stream, result.counts.stream) == ("0/pilot", "0/certify")


def test_paths_choose_their_method(projected, folded):
    assert counted(projected).headline.plan.method == "pc-cp"
    assert counted(folded).headline.plan.method == "union"


def test_labelled_trials_are_played_under_one_hypothesis_each(projected, usual):
    """The thresholds of one plan are not those of the other, so the histogram's are compared: it needs no plan."""
    (labelled,), paired = counted(projected, design="labelled").cells, usual["projected"].headline
    one, both = labelled.histogram, paired.histogram
    assert one.trials_h0 + one.trials_h1 == both.trials_h0 == both.trials_h1 == TRIALS
    # A fair coin: five standard deviations, false alarm 6e-7.
    assert abs(one.trials_h0 - TRIALS / 2) < 5 * np.sqrt(TRIALS) / 2
    np.testing.assert_array_equal(one.thresholds, both.thresholds)
    for errors in ("errors_h0", "errors_h1"):
        assert np.all(getattr(one, errors) <= getattr(both, errors))


def test_labelled_trials_are_independent_and_certified_as_such(projected, usual):
    labelled = counted(projected, design="labelled").headline
    assert labelled.plan.method == labelled.bounds[0].method == "cc-cp" and labelled.counts.design == "labelled"
    bound, paired = labelled.bounds[0], usual["projected"].bounds[0]
    # A trial under one hypothesis can say less than a draw that serves both.
    assert 0 < bound.epsilon < bound.ceiling < paired.ceiling


def test_projected_and_folded_audits_agree(projected, folded):
    """Same tickets, same draws: the same counts but for scores within rounding of a threshold."""
    short, whole = counted(projected), counted(folded)
    fine = short.headline.counts
    game = folded.prepare(0).game()
    (again,) = Player(ONE, 0, silent).count(game, "certify", Range(0, TRIALS), [fine.thresholds])
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
    test = ja.LinearTest(np.array([[1.0, -2.0, 3.0, 0.0, 5.0, -1.0]]), np.array([3.0]), np.array([-7.0]))
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
        ({"trials": 2 * 10**13}, "≤ 10,000,000,000,000"),
        ({"design": "coupled"}, "design is 'coupled'"),
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


def test_only_pilot_scores_come_to_the_host(projected, monkeypatch):
    """Counts leave the devices, so a longer run needs no more memory."""
    brought = []

    class Watched(Player):
        def scores(self, game, stream, trials):
            brought.append((stream, trials))
            return super().scores(game, stream, trials)

    monkeypatch.setattr(runner, "Player", Watched)
    counted(projected, ONE, trials=100_000)
    assert set(brought) == {("pilot", 5000), ("fit", 5000)}


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
