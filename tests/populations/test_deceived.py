"""Clients of a malicious server: their answers are real training on records that its models were made without."""

from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest

import jaxaudit as ja
from jaxaudit import datasets
from jaxaudit.populations import deceived
from jaxaudit.populations.candidates import candidate_batches, label_pair
from jaxaudit.populations.deceived import _recorded, _structural
from jaxaudit.populations.holdings import Batching
from jaxaudit.populations.memory import MemorySource
from jaxaudit.types import Pair

BASE = {"hidden": 128, "clients": 8, "batch_size": 16, "records": 32, "learning_rate": 1.0}
MANY = {"clients": 128, "alpha": 0.3}


def asked(attack=None, data=None, seed=0, **fields):
    """A population's responses and pairs; what the server was told; and whose records were used where."""
    seen, attack = SimpleNamespace(candidates=[]), attack or ja.LabelLeakage()
    craft, drawn, candidates = attack.broadcast(), Batching.drawn, deceived.candidate_batches

    def told(published):
        seen.published = published
        return craft(published)

    def dealt(batching, held, key):
        seen.held, seen.batches = held, drawn(batching, held, key)
        return seen.batches

    def chosen(*of):
        seen.candidates.append(candidates(*of))
        return seen.candidates[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batching, "drawn", dealt)
        patch.setattr(deceived, "candidate_batches", chosen)
        if data is not None:
            patch.setattr(datasets, "load", lambda name: data)
        seen.responses = ja.Deceived(**BASE | fields).respond(seed, told)
        seen.pairs = seen.responses.choose_pairs(())
    others = seen.responses.certify.sources[0].updates
    seen.rows = np.concatenate([seen.responses.truth.own.h0, others])
    return seen


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


@pytest.fixture(scope="module")
def exact():
    """Eight clients, whole updates, embeddings that no record touches."""
    return asked()


@pytest.fixture(scope="module")
def crowd():
    """128 clients with one channel each, whole updates."""
    return asked(**MANY)


def read(rows, index):
    """Entries of updates, leaf by leaf, in the shapes of the model."""
    return jax.tree.map(lambda places: rows[:, places], index)


def assert_close(found, expected):
    """Within 1e-5 of the largest entry of the leaf; a leaf that must vanish has to vanish."""
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_every_answer_is_the_gradient_of_the_whole_loss_on_own_images_under_own_parameters(crowd, digits):
    """For 128 clients, with the loss written out here; a step of learning rate 1 is the gradient with a minus."""
    model, published = crowd.published.training.model, crowd.published.params

    @jax.jit
    def gradient(params, inputs, labels):
        def loss(params):
            logits, _ = model.apply({"params": params}, inputs, mutable=["batch_stats", "intermediates"])
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        return jax.grad(loss)(params)

    leaves = read(crowd.rows, crowd.published.index)
    for client, batches in enumerate(crowd.batches):
        norm = {"scale": np.zeros(128, np.float32), "bias": 10 * np.eye(128, dtype=np.float32)[client]}
        expected = gradient(
            {**published, "last_norm": norm}, digits.inputs[batches[0, 0]], digits.labels[batches[0, 0]]
        )
        jax.tree.map(lambda rows, one, k=client: assert_close(rows[k], -one), leaves, expected)


def test_the_head_alone_is_the_head_of_the_whole(crowd):
    """For 128 clients, to 1e-5: what is not sent is not computed, and changes nothing."""
    alone = asked(sends="head", **MANY)
    whole = read(crowd.rows, crowd.published.index["head"])
    jax.tree.map(assert_close, read(alone.rows, alone.published.index["head"]), whole)
    assert alone.rows.shape == (128, 129 * 10)


def test_nothing_flows_behind_a_constant_embedding(exact):
    """Exactly nothing in every layer before the last normalisation of every client; the head's part has rank one."""
    leaves = read(exact.rows, exact.published.index)
    for layer, leaf in leaves.items():
        silent = layer not in ("head", "last_norm")
        for entries in jax.tree.leaves(leaf):
            assert (entries == 0).all() == silent
    scales = np.linalg.svd(leaves["head"]["kernel"], compute_uv=False)
    assert (scales[:, 1] < 1e-6 * scales[:, 0]).all()
    assert exact.responses.sent.facts.spread == 0


def other_images(data):
    """Every record with the image of another one of its label."""
    order, rng = np.arange(len(data.labels)), np.random.default_rng(0)
    for label in range(data.classes):
        own = np.flatnonzero(data.labels == label)
        order[own] = rng.permutation(own)
    return data._replace(inputs=data.inputs[order])


@pytest.mark.parametrize("mode", ["exact", "beta_only"])
def test_images_reach_the_head_only_where_the_scale_is_left_alone(mode, exact, digits):
    attack = ja.LabelLeakage(mode=mode)
    one = exact if mode == "exact" else asked(attack)
    other = asked(attack, other_images(digits))
    (first, second) = (read(seen.rows, seen.published.index) for seen in (one, other))
    np.testing.assert_array_equal(one.responses.truth.of_rows, other.responses.truth.of_rows)
    same = [np.array_equal(first["head"][name], second["head"][name]) for name in ("kernel", "bias")]
    assert same == ([True] * 2 if mode == "exact" else [False] * 2)
    # They are real images all the same: the gradient of the scale is made of them.
    assert not np.array_equal(first["last_norm"]["scale"], second["last_norm"]["scale"])


def test_models_are_made_before_any_label_is_seen(exact, digits):
    labels = np.random.default_rng(1).permutation(digits.labels)
    other = asked(data=digits._replace(labels=labels))
    # Mixtures of labels have keys of their own, so counts are the same; records are not, and nor is what is sent.
    assert not np.array_equal(exact.batches, other.batches) and not np.array_equal(exact.rows, other.rows)
    for name in ("common", "own", "exclusive"):
        jax.tree.map(np.testing.assert_array_equal, *(getattr(s.responses.sent, name) for s in (exact, other)))
    facts = [seen.responses.sent.facts._replace(published=None) for seen in (exact, other)]
    jax.tree.map(np.testing.assert_array_equal, *facts)


def test_the_servers_records_are_nobody_elses(digits):
    """Every image carries its number in a corner."""
    inputs = digits.inputs.copy()
    inputs[:, 0, 0, 0] = np.arange(len(inputs)) / 4096
    seen = asked(data=digits._replace(inputs=inputs), pair=("all_labels", "presence"))
    own = set((4096 * seen.published.probe[:, 0, 0, 0]).astype(int))
    assert len(own) == round(0.1 * len(inputs))
    for used in (seen.held, *seen.batches, *seen.candidates):
        assert own.isdisjoint(used.ravel().tolist())


def test_the_truth_is_what_the_batches_hold(exact, digits):
    counts = [np.bincount(digits.labels[batch[0, 0]], minlength=10) for batch in exact.batches]
    truth = exact.responses.truth
    np.testing.assert_array_equal(np.vstack([truth.of_target, truth.of_rows]), counts)
    np.testing.assert_array_equal(truth.own.h0, truth.own.h1)


def test_recordings_of_unequal_batches_keep_their_clients():
    batches = [np.full((2, 1, size), client) for client, size in enumerate((3, 5, 3, 5))]
    rows = _recorded(lambda who, own: np.stack([who, own[:, 0, 0], np.full(len(who), own.shape[2])], 1), batches)
    assert rows.tolist() == [[c, c, s] for c, s in enumerate((3, 5, 3, 5)) for _ in range(2)]


def test_recordings_in_memory_are_a_source():
    rows = np.arange(12, dtype=np.float32).reshape(6, 2)
    source = MemorySource(rows, np.array([1, 3, 2]))
    np.testing.assert_array_equal(source.rows(1, 2), rows[1:4])
    assert (source.dim, source.freedom(3), source.freedom(1)) == (2, 2, 0)
    products, error = source.project(np.array([[1.0, -1.0]]))
    np.testing.assert_allclose(products.ravel(), -np.ones(6), atol=float(np.max(error)))


# The candidates.

LABELS = np.repeat(np.arange(3), 20)


@pytest.mark.parametrize(
    "name, size, first, second, common",
    [
        ("all_labels", 4, [4, 0, 0], [0, 4, 0], 0),
        ("zeroed", 4, [4, 0, 0], [0, 4, 0], 0),
        ("one_label", 5, [3, 2, 0], [2, 3, 0], 4),
        ("presence", 4, [4, 0, 0], [3, 1, 0], 3),
    ],
)
def test_candidates_have_the_labels_that_they_are_called_by(name, size, first, second, common):
    theirs = np.arange(0, 60, 2)
    batches = candidate_batches(name, (0, 1), LABELS, theirs, size, jax.random.key(0))
    assert [np.bincount(LABELS[batch], minlength=3).tolist() for batch in batches] == [first, second]
    assert (batches[0] == batches[1]).sum() == common
    assert np.isin(batches, theirs).all() and all(len(set(batch)) == size for batch in batches.tolist())


def test_candidates_of_few_records_repeat_them_in_turn():
    (first, _) = candidate_batches("all_labels", (0, 1), LABELS, np.array([3, 7, 30]), 5, jax.random.key(0))
    assert sorted(np.bincount(first)[[3, 7]]) == [2, 3]


NOTHING, SOMETHING, MORE = np.zeros(2, np.float32), np.array([1, 0], np.float32), np.array([0, 1], np.float32)


@pytest.mark.parametrize(
    "name, h0, adjacency",
    [
        ("all_labels", SOMETHING, "replacement of a client's update"),
        ("one_label", SOMETHING, "replacement of one record of the target's batch"),
        ("presence", SOMETHING, "replacement of one record of the target's batch"),
        ("all_labels", NOTHING, "zero-out of a client's update"),
        ("zeroed", SOMETHING, "zero-out of a client's update"),
    ],
)
def test_zero_out_is_said_of_an_update_that_is_zero_and_of_no_other(name, h0, adjacency):
    pair = label_pair(name, (0, 1), h0, MORE)
    assert pair.adjacency == adjacency
    assert pair.h0.any() == (adjacency != "zero-out of a client's update")


# What is proved of the models.


def test_nothing_is_proved_where_others_send_something():
    pair = Pair("", SOMETHING[None], MORE[None], "", "")
    assert _structural(np.array([], int), pair, np.zeros((3, 2))) is None
    assert "leave zeros" in _structural(np.array([1]), pair, np.zeros((3, 2)))
    assert _structural(np.array([1]), pair, np.eye(2)) is None


# What is refused.


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"labels": (0, 10)}, "population.labels is [0, 10], allowed are labels below 10 for digits"),
        ({"class_weights": (1.0, 2.0)}, "population.class_weights has 2 numbers, allowed are 10"),
        ({"records": 5000}, "population.records is 5000, allowed are up to 1617"),
        (
            {"records": 0, "batch_size": 256, "partition": "iid"},
            "population.batch_size is 256, but its 8 clients hold 202 records",
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value),
)
def test_what_does_not_fit_the_data_is_refused_in_one_line(fields, words):
    with pytest.raises(ValueError) as refusal:
        asked(**fields)
    assert words in str(refusal.value) and "\n" not in str(refusal.value)


def test_an_even_batch_has_no_one_label_pair(exact):
    with pytest.raises(ValueError, match=r"batch_size is 16, allowed are odd sizes for pair one_label.*set 17"):
        asked(pair="one_label")


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"partition": "by_class"}, r'records is set, and partition = "by_class" deals each record.*set 0'),
        ({"labels": (3, 3)}, r"labels is \[3, 3\], allowed are two different labels"),
        ({"batch_size": 33}, "records is 32, allowed are 0, or 33 or more"),
        ({"class_weights": (1.0, 0.0)}, "class_weights is .*allowed are numbers > 0"),
    ],
)
def test_recipes_that_contradict_themselves_are_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        ja.Deceived(**BASE | fields)


def test_a_client_that_answers_with_nan_is_named(exact, digits):
    inputs = digits.inputs.copy()
    inputs[exact.batches[5][0, 0, 3]] = np.nan
    holders = [c for c, batches in enumerate(exact.batches) if exact.batches[5][0, 0, 3] in batches]
    with pytest.raises(ValueError, match=f"client {holders[0]} answers with NaN or infinity"):
        asked(data=digits._replace(inputs=inputs))


def test_honest_clients_and_malicious_servers_do_not_go_together(tmp_path):
    craft = ja.LabelLeakage().broadcast()
    with pytest.raises(ValueError, match=r'use attack.kind = "label_leakage", or population.kind = "federated"'):
        ja.Deceived(**BASE).respond(0, None)
    for honest in (ja.Federated(), ja.Synthetic(), ja.Arrays(path=str(tmp_path / "none.npz"))):
        with pytest.raises(ValueError, match=r"set population.kind = (\"deceived\"|deceived)"):
            honest.respond(0, craft)
