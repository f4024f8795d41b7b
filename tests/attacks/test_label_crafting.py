"""Fishing models: constant embeddings, as few edits as said, logits as wanted, and refusals of what cannot be."""

import inspect
from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict
from scipy.special import softmax

from jaxaudit import models
from jaxaudit.attacks.label_leakage import LabelLeakage, crafting
from jaxaudit.broadcast import Published
from jaxaudit.models import LocalTraining, Objective
from jaxaudit.models.bait import Bait
from jaxaudit.models.layers import batch_norm
from jaxaudit.models.normalised import VGGBN
from jaxaudit.populations.answers import placed, whole

NORM, SHORT = ("last_norm", "bias"), ("short_norm", "bias")
CLIENTS, WIDTH, CLASSES = 4, 128, 5


class Fish(nn.Module):
    """One dense layer, its normalisation, and perhaps a shortcut around it that the bait does not tell of."""

    shortcut: bool = False
    honest: bool = True
    classes: int = CLASSES

    @property
    def bait(self):
        return Bait(("last_norm",), (("short_norm",),) if self.shortcut and self.honest else ())

    @nn.compact
    def __call__(self, inputs, train=True):
        inputs = inputs.reshape(len(inputs), -1)
        hidden = batch_norm(train, "last_norm")(nn.Dense(WIDTH, name="dense")(inputs))
        if self.shortcut:
            hidden = hidden + nn.relu(batch_norm(train, "short_norm")(nn.Dense(WIDTH, name="short")(inputs)))
        embedding = nn.relu(hidden)
        self.sow("intermediates", "embedding", embedding)
        return nn.Dense(self.classes, precision="highest", name="head")(embedding)


def published(model, params=None, clients=CLIENTS, **fields):
    """What a server knows, of records that are noise and parameters that nobody trained."""
    probe = np.random.default_rng(0).standard_normal((24, 8, 8, 1)).astype(np.float32)
    training = LocalTraining(model, 1.0, 0.0)
    if params is None:
        keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
        params = jax.jit(model.init)(keys, probe[:1])["params"]
    own = {"sizes": np.full(clients, 16), "steps": 1, "fresh": False, "classes": CLASSES, "labels": (1, 3)}
    return Published(training, params, placed(params, whole), probe, clients, **own | fields)


@pytest.fixture(scope="module")
def plain():
    return published(Fish())


def sent(attack, published):
    return attack.broadcast()(published)


# What is sent.


@pytest.mark.parametrize("design", ["disjoint", "hadamard"])
def test_what_the_heads_see_is_the_design_and_nothing_of_the_records(design, plain):
    facts = sent(LabelLeakage(design=design, amplitude=3.0), plain).facts
    own = np.kron(np.eye(CLIENTS), np.ones(WIDTH // CLIENTS))
    if design == "hadamard":
        assert np.isin(facts.embeddings, [0, 3]).all() and (facts.embeddings.sum(1) == 3 * WIDTH / 2).all()
    else:
        np.testing.assert_array_equal(facts.embeddings, 3 * own)
    kernel, bias = (np.asarray(plain.params["head"][name], np.float64) for name in ("kernel", "bias"))
    np.testing.assert_allclose(facts.logits, facts.embeddings @ kernel + bias, atol=1e-5)
    assert facts.spread == 0


@pytest.mark.parametrize(
    "settings, own, silenced",
    [
        ({}, {NORM}, {("last_norm", "scale")}),
        ({"mode": "beta_only"}, {NORM}, set()),
        ({"preset": "tie"}, {NORM}, {("last_norm", "scale")}),
        ({"edits": "norm_and_bias"}, {NORM}, {("last_norm", "scale")}),
        ({"edits": "norm_and_bias", "preset": "tie"}, {NORM, ("head", "bias")}, {("last_norm", "scale")}),
    ],
    ids=str,
)
def test_no_more_is_edited_than_is_said(settings, own, silenced, plain):
    found = sent(LabelLeakage(**settings), plain)
    assert set(found.own) == own and all(len(leaf) == CLIENTS for leaf in found.own.values())
    before, after = flatten_dict(plain.params), flatten_dict(found.common)
    changed = {path for path in before if not np.array_equal(before[path], after[path])}
    assert changed == silenced and all(not np.any(after[path]) for path in silenced)
    assert ("a stronger adversary" in found.words) == (("head", "bias") in own)
    assert ("scale 0" in found.words) == bool(silenced)


def test_places_of_the_targets_own_are_those_of_its_channels(plain):
    kernel = plain.index["head"]["kernel"]
    assert set(sent(LabelLeakage(), plain).exclusive) == set(kernel[: WIDTH // CLIENTS].ravel())
    # Records may come through a scale that is left alone, and decay is everywhere.
    assert not len(sent(LabelLeakage(mode="beta_only"), plain).exclusive)
    decaying = replace(plain.training, objective=Objective(weight_decay=0.01))
    assert not len(sent(LabelLeakage(), plain._replace(training=decaying)).exclusive)
    # Of Hadamard rows, those channels that all others happen to leave at zero.
    found = sent(LabelLeakage(design="hadamard"), plain)
    alone = (found.facts.embeddings > 0).tolist()
    assert set(found.exclusive) == set(
        kernel[[channel == (True, False, False, False) for channel in zip(*alone)]].ravel()
    )


def test_a_scale_that_is_left_alone_lets_the_records_through_a_little(plain):
    """Clients' own channels stand out, the others are dead."""
    facts = sent(LabelLeakage(mode="beta_only", amplitude=30.0), plain).facts
    own = np.kron(np.eye(CLIENTS, dtype=bool), np.ones(WIDTH // CLIENTS, bool))
    assert 0 < facts.spread < 0.2
    assert (facts.embeddings[~own] == 0).all() and np.abs(facts.embeddings[own] / 30 - 1).max() < 1e-3


# A way around the last normalisation.


def test_a_known_shortcut_is_silenced(plain):
    found = sent(LabelLeakage(), published(Fish(shortcut=True)))
    assert found.facts.spread == 0 and "1 more silenced for all: short_norm" in found.words
    assert (np.asarray(found.common["short_norm"]["bias"]) == -1).all()


def test_one_edited_layer_under_a_shortcut_saturates_with_its_amplitude():
    """Without the second edit the shortcut is seen, and the less the larger the shift is."""
    model = published(Fish(shortcut=True))
    found = [sent(LabelLeakage(mode="saturated", amplitude=amplitude), model) for amplitude in (10.0, 1e3, 1e5)]
    spreads = np.array([one.facts.spread for one in found])
    assert spreads[0] > 0.05 and (spreads[1:] < spreads[:-1] / 50).all()
    assert all(set(one.own) == {NORM} and "silenced" not in one.words for one in found)


@pytest.mark.parametrize(
    "model",
    [Fish(shortcut=True, honest=False), VGGBN(CLASSES, ((4,), (8,)), dropout=0.5)],
    ids=["shortcut", "dropout"],
)
def test_an_embedding_that_varies_is_refused(model):
    """Read off the model itself: nothing was said of the shortcut, or of the dropout layer."""
    with pytest.raises(
        ValueError, match=r"embedding varies by .* over a batch of 16 records: a dropout layer stands"
    ):
        sent(LabelLeakage(), published(model))


# Presets.


@pytest.mark.parametrize("edits", ["norm", "norm_and_bias"])
def test_a_tie_puts_two_labels_at_even_odds(edits, plain):
    facts = sent(LabelLeakage(preset="tie", edits=edits), plain).facts
    target = facts.logits[0]
    assert abs(target[1] - target[3]) < 1e-4
    np.testing.assert_allclose(softmax(target)[[1, 3]], 0.5, atol=1e-4)
    assert min(target[1], target[3]) - np.delete(target, [1, 3]).max() > 20 - 1e-3
    # The others keep their channels, and no more.
    assert np.linalg.matrix_rank(facts.embeddings) == CLIENTS
    assert (facts.embeddings > 0).sum(0).max() == 1


@pytest.mark.parametrize("edits", ["norm", "norm_and_bias"])
def test_one_hot_leaves_no_odds_to_others_in_float32(edits, plain):
    target = sent(LabelLeakage(preset="one_hot", edits=edits), plain).facts.logits[0]
    odds = np.asarray(jax.nn.softmax(target.astype(np.float32)))
    assert odds.tolist() == [0, 1, 0, 0, 0]


@pytest.mark.parametrize("preset", ["tie", "one_hot"])
def test_where_all_are_targets_all_get_the_preset(preset, plain):
    attack = LabelLeakage(preset=preset, edits="norm_and_bias", decisions="all")
    odds = softmax(sent(attack, plain).facts.logits, axis=1)
    expected = [0, 0.5, 0, 0.5, 0] if preset == "tie" else [0, 1, 0, 0, 0]
    np.testing.assert_allclose(odds, np.tile(expected, (CLIENTS, 1)), atol=1e-4)
    alone = sent(LabelLeakage(preset=preset, edits="norm_and_bias"), plain).facts.logits
    np.testing.assert_array_equal(alone[1:], sent(LabelLeakage(), plain).facts.logits[1:])


def test_clients_on_one_direction_differ_by_a_factor_of_their_batch_size_and_one(plain):
    attack = LabelLeakage(preset="one_hot", edits="norm_and_bias", per_direction=2, amplitude=1.0)
    found = sent(attack, plain)
    first, second, third, fourth = found.facts.embeddings
    np.testing.assert_array_equal(second, 17 * first)
    np.testing.assert_array_equal(fourth, 17 * third)
    assert not (first * third).any() and not len(found.exclusive)


# The server is blind.


def test_a_server_has_no_place_for_a_label():
    """What it crafts from, what it recovers from, and what it calibrates with: the types hold no client's data."""
    assert list(inspect.signature(crafting.craft).parameters) == ["plan", "published"]
    assert list(inspect.signature(LabelLeakage.recover).parameters) == ["self", "facts", "total", "told"]
    assert list(inspect.signature(LabelLeakage.calibrate).parameters) == ["self", "server", "moments"]
    fields = {"training", "params", "index", "probe", "clients", "sizes", "steps", "fresh", "classes", "labels"}
    assert set(Published._fields) == fields
    assert set(LabelLeakage.told_of_round._fields) == {"present", "clipped", "factors"}
    assert not {"truth", "batches", "counts"} & set(crafting.Facts._fields)


# What is refused.


def unborn(name):
    """What a server knows of a model, with parameters of no value: for what is refused before any is used."""
    model = models.build(name, CLASSES, 16)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 8, 8, 1), np.float32))
    return published(model, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes["params"]))


@pytest.mark.parametrize(
    "name, settings, words",
    [
        (
            "softmax",
            {},
            "population.model is Softmax, which has no normalisation layer in front of its head; allowed",
        ),
        ("mobilenet", {"amplitude": 6.5}, "attack.amplitude is 6.5, allowed are up to 6.0"),
        ("lenet_bn", {"design": "signed"}, "allowed are disjoint and hadamard for it, signed for model layernorm"),
    ],
)
def test_models_that_the_attack_does_not_reach_are_refused(name, settings, words):
    with pytest.raises(ValueError) as refusal:
        sent(LabelLeakage(**settings), unborn(name))
    assert words in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_scale_that_is_left_alone_does_not_hide_a_shortcut():
    with pytest.raises(ValueError, match=r"a skip connection goes around .* allowed are exact and saturated"):
        sent(LabelLeakage(mode="beta_only"), published(Fish(shortcut=True)))


@pytest.mark.parametrize(
    "settings, clients, words",
    [
        ({}, WIDTH + 1, "carries 1 to 128 clients on 128 channels, asked are 129; use a wider model, fewer clients"),
        ({"design": "hadamard"}, WIDTH, "carries 1 to 127 clients on 128 channels, asked are 128"),
        ({"preset": "tie"}, WIDTH, "clients on 128 channels, asked are 128"),
        ({"per_direction": 7, "edits": "norm_and_bias", "preset": "one_hot"}, 8, "allowed are 1 to 5 for batches"),
    ],
    ids=str,
)
def test_more_clients_than_the_channels_carry_are_refused(settings, clients, words, plain):
    more = plain._replace(clients=clients, sizes=np.full(clients, 16))
    with pytest.raises(ValueError) as refusal:
        sent(LabelLeakage(**settings), more)
    assert words in str(refusal.value) and "\n" not in str(refusal.value)


def test_packed_clients_of_several_steps_are_refused(plain):
    attack = LabelLeakage(per_direction=2, edits="norm_and_bias", preset="one_hot")
    with pytest.raises(ValueError, match=r"per_direction is above 1, allowed is 1 unless .* in one local step"):
        sent(attack, plain._replace(steps=2))


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"per_direction": 2}, "allowed is 1 unless edits = norm_and_bias, preset = one_hot and decisions = one"),
        ({"decisions": "all", "design": "hadamard"}, 'allowed is "one" unless design = disjoint'),
        ({"decisions": "all", "preset": "tie"}, "which takes many channels a client; set edits = norm_and_bias"),
        ({"design": "hadamard", "preset": "tie"}, "allowed is design = disjoint, where the target has channels"),
    ],
)
def test_recipes_that_contradict_themselves_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        LabelLeakage(**settings)
