"""Label leakage as a whole: counts are exact through real sums, and the audit of one client is as tight as can be."""

import tomllib
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jaxaudit as ja
from jaxaudit import claimed, config, recovery, verdicts
from jaxaudit.attacks.label_leakage.solving import Told
from jaxaudit.bounds import best_plan, epsilon_at
from jaxaudit.bounds.theory import gaussian_epsilon
from jaxaudit.broadcast import Published
from jaxaudit.models import LocalTraining, Objective
from jaxaudit.models.bait import Bait
from jaxaudit.models.layers import batch_norm
from jaxaudit.player import Player
from jaxaudit.populations.answers import answers, placed, whole
from jaxaudit.random import CERTIFY
from jaxaudit.types import ABSENT, Range, Ticket

BASE = {"hidden": 128, "clients": 8, "batch_size": 16, "records": 32, "learning_rate": 1.0}
DELTAS = (1e-2, 1e-3, 1e-5)


def audit(*stages, attack=None, **fields):
    """A small audit of label leakage; `fields` are the population's and, by their names, the aggregator's."""
    ring = {name: fields.pop(name) for name in ("ring_bits", "wrap") if name in fields}
    return ja.Audit(
        population=ja.Deceived(**BASE | fields),
        aggregator=ja.SecureSum(stages=stages, **ring),
        attack=ja.LabelLeakage(**attack or {}),
    )


# Every loss that clients may minimise: a small network, all of whose gradients are real.

CLIENTS, CLASSES = 8, 6
WEIGHTS = (0.5, 1.0, 2.0, 0.7, 1.3, 1.9)


class Small(nn.Module):
    """A dense layer, its normalisation, a rectifier, the head."""

    bait = Bait(("last_norm",))

    @nn.compact
    def __call__(self, inputs, train=True):
        embedding = nn.relu(batch_norm(train, "last_norm")(nn.Dense(32, name="dense")(inputs)))
        self.sow("intermediates", "embedding", embedding)
        return nn.Dense(CLASSES, precision="highest", name="head")(embedding)


@cache
def newborn():
    """Parameters, and their places in an update."""
    params = jax.jit(Small().init)(jax.random.key(0), np.zeros((2, 12), np.float32))["params"]
    return params, placed(params, whole)


def recovered(objective, sizes=(16,) * CLIENTS, present=None, steps=1, **settings):
    """What the attack makes of the sum of those who sent, and what their batches held."""
    rng, sizes = np.random.default_rng(4), np.array(sizes)
    present = np.ones(CLIENTS, bool) if present is None else present
    inputs = rng.standard_normal((400, 12)).astype(np.float32)
    labels = rng.choice(CLASSES, 400, p=rng.dirichlet(np.ones(CLASSES))).astype(np.int32)
    training = LocalTraining(Small(), 0.1, 0.0, objective)
    published = Published(training, *newborn(), inputs[:20], CLIENTS, sizes, steps, False, CLASSES, (0, 1))
    attack = ja.LabelLeakage(**{"amplitude": 3.0} | settings)
    sent = attack.broadcast()(published)
    batches = [rng.choice(np.arange(20, 400), size, replace=False) for size in sizes]
    summed, data = 0.0, (training, sent, whole, jnp.asarray(inputs), jnp.asarray(labels))
    for size in np.unique(sizes):
        who = np.flatnonzero((sizes == size) & present)
        own = np.repeat(np.stack([batches[k] for k in who])[:, None], steps, axis=1)
        summed = summed + answers(*data, who, own).sum(0, dtype=np.float64)
    truth = np.stack([np.bincount(labels[own], minlength=CLASSES) for own in batches])
    return attack.recover(sent.facts, summed, Told(present)), truth


@pytest.mark.parametrize(
    "options",
    [
        {"smoothing": 0.1, "class_weights": WEIGHTS},
        {"reduction": "sum", "smoothing": 0.1, "class_weights": WEIGHTS},
        {"loss": "multilabel", "smoothing": 0.1, "reduction": "sum"},
        {"loss": "multilabel"},
        {"weight_decay": 0.05},
    ],
    ids=str,
)
@pytest.mark.parametrize("design", ["disjoint", "hadamard"])
def test_counts_are_exact_whatever_is_minimised_and_whoever_drops_out(options, design):
    """Known batch sizes; two of eight clients send nothing, and are not made up."""
    present = np.arange(CLIENTS) % 4 != 2
    found, truth = recovered(Objective(**options), present=present, design=design)
    np.testing.assert_array_equal(found.found, np.where(present[:, None], truth, -1))
    assert np.abs(found.counts - truth)[present].max() < 2e-3


def test_batch_sizes_that_differ_are_found_up_to_a_common_factor_of_the_counts():
    sizes = (16, 9) * (CLIENTS // 2)
    known, truth = recovered(Objective(), sizes)
    np.testing.assert_array_equal(known.found, truth)
    found, _ = recovered(Objective(), sizes, batch_sizes="unknown")
    factors = np.gcd.reduce(truth, axis=1)
    np.testing.assert_array_equal(found.sizes * factors, sizes)
    np.testing.assert_array_equal(found.found * factors[:, None], truth)


def test_drift_over_local_steps_is_corrected_and_matters():
    """Three steps on one batch at a rate of 0.1, under which the scale moves, too."""
    (found, truth), (naive, _) = (
        recovered(Objective(), steps=3, local_steps=decoder) for decoder in ("corrected", "naive")
    )
    np.testing.assert_array_equal(found.found, truth)
    assert (naive.found != truth).any(axis=1).sum() > CLIENTS // 2


# Through the sums of the library: LeNet on digits.


@pytest.fixture(scope="module")
def masked():
    """An audit through a ring of 16 bits, with dropouts."""
    fixed = ja.FixedPoint(step=1 / 256, clip_range=10.0)
    return audit(fixed, ring_bits=16, sends="head", dropout=0.4).prepare(0)


def masked_sum(steps, here, words):
    """The protocol of Bonawitz et al. (2017) without its self-masks: i64[clients, dim] in, u32[dim] out.

    Clients i < j share a seed. One adds what the generator makes of it, the other subtracts it, before anybody drops
    out. The seeds of those who left, with those who stayed, are reconstructed, and their masks removed.
    """

    def mask(i, j):
        sign = np.uint32(1) if i < j else np.uint32(2**32 - 1)
        return sign * np.random.default_rng([words, *sorted((i, j))]).integers(
            2**32, size=steps.shape[1], dtype=np.uint32
        )

    everyone = range(len(steps))
    sent = [own.astype(np.uint32) + sum(mask(i, j) for j in everyone if j != i) for i, own in enumerate(steps)]
    total = sum(sent[i] for i in everyone if here[i])
    return total - sum(mask(i, j) for i in everyone for j in everyone if here[i] and not here[j]), sent


def test_masks_cancel_in_the_ring_that_the_attack_reads(masked):
    """Pairwise masks are generated, added and removed, among them those of clients who dropped out."""
    attack, facts = masked.audit.attack, masked.responses.sent.facts
    fold, (source,) = masked.fold(), masked.responses.certify.pool.sources

    @jax.jit
    def played(trial):
        ticket = Ticket(jnp.uint32(0), jnp.uint32(CERTIFY), trial)
        (view,) = fold.program.reveal(fold.params, ticket)
        return view, fold.program.draws.others(fold.params.pool, ticket)[0]

    updates = np.concatenate([masked.cells[0].pair.h0, source.updates]).astype(np.float64)
    steps = np.rint(np.clip(updates, -10, 10) * 256).astype(np.int64)
    truth = np.vstack([np.bincount([0], minlength=10) * 16, masked.responses.truth.of_rows])
    dropped = 0
    for trial in range(4):
        view, who = played(jnp.uint32(trial))
        here = np.append(True, np.asarray(who) != ABSENT)
        total, sent = masked_sum(steps, here, trial)
        assert all(0.4 < np.mean(one > 2**31) < 0.6 for one in sent)
        ring = total % 2**16
        np.testing.assert_array_equal(ring, np.asarray(view.ring[0, 0]) % 2**16)
        lifted = (ring.astype(np.int64) + 2**15) % 2**16 - 2**15
        found = attack.recover(facts, lifted / 256, Told(here)).found
        np.testing.assert_array_equal(found, np.where(here[:, None], truth, -1))
        dropped += (~here).sum()
    assert dropped > 0


def quantised(scale, bits):
    fixed = ja.FixedPoint(step=1 / scale, clip_range=1.0)
    prepared = audit(fixed, ring_bits=bits, wrap=True, sends="head", attack={"amplitude": 1.0}).prepare(0)
    (row,) = recovery.recover(prepared, 0, clients=8).summary["rows"]
    return row["exact"], row["largest_error"]


@pytest.mark.parametrize("bits", [8, 6])
def test_counts_are_exact_where_steps_in_the_amplitude_exceed_the_batch(bits):
    """s a > B: B = 16 records, a = 1, s = 17 steps in one; 2 s + 1 = 35 values fit into six bits, for any cohort."""
    exact, error = quantised(17, bits)
    assert exact == 1 and 0.25 < error <= 16 / (2 * 17) + 1e-4


def test_below_that_the_error_is_within_its_bound_and_counts_are_wrong():
    exact, error = quantised(4, 8)
    assert exact < 1 and 1 < error <= 16 / (2 * 4) + 1e-4


# One client is the target: presets, adjacency, and bounds.

NOISY = ja.Clip(norm=1.0), ja.Gaussian(deviation=2.0)


@pytest.fixture(scope="module")
def tie():
    """Even odds of the two labels, clipped to 1, noise of deviation 2: a separation of 1."""
    return audit(*NOISY, attack={"preset": "tie"}).prepare(0)


def test_a_tie_makes_the_two_answers_antipodal(tie):
    logits = tie.responses.sent.facts.logits[0]
    assert abs(logits[0] - logits[1]) < 1e-4 and min(logits[:2]) - max(logits[2:]) > 19.9
    h0, h1 = tie.seen(tie.cells[0].pair).both[:, 0]
    assert h0 @ h1 / np.linalg.norm(h0) / np.linalg.norm(h1) < -0.999
    assert tie.cells[0].pair.adjacency == "replacement of a client's update"


def test_a_tie_is_the_worst_case_of_the_mechanism(tie):
    """Separation 2 S / σ within 1 %, never more, and the accountant says the same of any replacement."""
    (distance,) = tie.game().distance
    assert 0.99 < distance <= 1.0001
    proved = claimed.claim(tie, tie.cells[0], DELTAS).epsilons
    np.testing.assert_allclose(proved, [gaussian_epsilon(delta, 1.0) for delta in DELTAS], rtol=1e-4)


def test_certified_bounds_stay_below_the_analytic_epsilon(tie):
    """Twenty runs of 20,000 trials at 95 %: nine or more too high have probability < 1e-6 if it is kept."""
    game, deltas = tie.game(), DELTAS[:2]
    truth = np.array([gaussian_epsilon(delta, game.distance[0]) for delta in deltas])
    ratios = []
    for seed in range(20):
        player = Player(jax.local_devices()[:1], seed, lambda name, planned: lambda done: None)
        (pilot,) = player.scores(game, "pilot", 2000)
        plan = best_plan(pilot, 20_000, deltas, 0.95)
        (counts,) = player.count(game, "certify", Range(0, 20_000), [plan.thresholds])
        ratios.append([epsilon_at(plan, counts, delta, 0.95).epsilon for delta in deltas] / truth)
    assert np.sum(np.max(ratios, axis=1) > 1) <= 8
    assert np.median(ratios) > 0.5


STRONGER = {"preset": "one_hot", "edits": "norm_and_bias"}


@pytest.mark.parametrize("decay", [0.0, 0.01], ids=["zero", "decay"])
def test_zero_out_is_claimed_of_an_update_that_is_exactly_zero(decay):
    """At odds of one a batch of this label sends nothing: half the sensitivity is proved. With decay it does."""
    prepared = audit(*NOISY, attack=STRONGER, weight_decay=decay).prepare(0)
    (cell,) = prepared.cells
    assert cell.pair.h0.any() == bool(decay)
    assert cell.pair.adjacency == ("replacement of a client's update" if decay else "zero-out of a client's update")
    sensitivity = 2 if decay else 1
    claim = claimed.claim(prepared, cell, DELTAS)
    expected = [gaussian_epsilon(delta, sensitivity / 2) for delta in DELTAS]
    np.testing.assert_allclose(claim.epsilons, expected, rtol=1e-4)
    assert claim.words.startswith("Replacing" if decay else "Zeroing out")
    if not decay:
        assert 0.495 < prepared.game().distance[0] <= 0.50005


@pytest.mark.parametrize(
    "design, kind", [("disjoint", "structural"), ("hadamard", "undetermined"), ("noise", "in span")]
)
def test_only_models_that_leave_zeros_prove_that_nothing_hides_the_pair(design, kind, tie):
    prepared = tie if design == "noise" else audit(attack={"design": design}, clients=32).prepare(0)
    (cell,) = prepared.cells
    found = verdicts.verdict(prepared, cell, verdicts.truths(prepared)[cell.clients])
    assert found.kind == kind
    assert ("leave zeros in all other updates" in found.words) == (kind == "structural")


def test_the_statistic_reads_the_head_of_the_target_alone(tie):
    """Its own channels, and nothing of what others send: their recorded updates score exactly nothing."""
    weights = tie.cells[0].knowledge.weights[0]
    assert set(np.flatnonzero(weights)) <= set(tie.responses.sent.exclusive.tolist())
    assert not (tie.responses.certify.pool.sources[0].updates.astype(np.float64) @ weights).any()


def test_a_pair_without_a_difference_in_the_head_is_refused(tie):
    server = replace(tie.cells[0].server, facts=tie.responses.sent.facts)
    twin = replace(server, pair=replace(server.pair, h1=server.pair.h0))
    with pytest.raises(ValueError, match=r"leave the same gradient in the head; choose other population.labels"):
        tie.audit.attack.calibrate(twin, ())


def test_a_head_alone_cannot_be_clipped_as_a_whole():
    with pytest.raises(ValueError, match=r'only the head.*needs whole updates; set population.sends = "whole"'):
        audit(*NOISY, sends="head").prepare(0)


def test_the_built_in_recipe_is_its_own_toml():
    recipe = config.load("label-leakage")
    assert config.from_mapping(tomllib.loads(config.to_toml(recipe))) == recipe
