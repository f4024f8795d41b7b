"""Real gradients of a real model on real records, dealt so that nobody sees what they should not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxaudit as ja
from jaxaudit import datasets
from jaxaudit.models import LocalTraining, Softmax
from jaxaudit.populations.partition import deal


def softmax_gradient(theta, inputs, labels):
    """Mean cross-entropy gradient of one dense layer, by hand, in the order of flax (bias, then kernel)."""
    bias, kernel = theta[:10], theta[10:].reshape(-1, 10)
    logits = inputs @ kernel + bias
    probabilities = np.exp(logits - logits.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    error = (probabilities - np.eye(10)[labels]) / len(labels)
    return np.concatenate([error.sum(0), (inputs.T @ error).reshape(-1)])


def parts(responses):
    return responses.certify.source, responses.fit.source


def test_recorded_updates_are_gradients_of_the_loss(prepared):
    audited, _ = parts(prepared.responses)
    theta = np.asarray(audited.model.theta, np.float64)
    batches = audited.batches(jax.random.fold_in(audited.key, 3), jnp.asarray(audited.records[3]))
    rows = audited.chunks(3)[0]
    for row, batch in zip(rows[:4], np.asarray(batches)[:4, 0]):
        gradient = softmax_gradient(theta, np.float64(audited.model.inputs[batch]), audited.model.labels[batch])
        np.testing.assert_allclose(row, -0.5 * gradient, atol=2e-6)


def test_the_record_pair_differs_by_one_record(prepared):
    audited, learned = parts(prepared.responses)
    words = [int(word) for word in prepared.pair.source.replace(",", "").split() if word.isdigit()]
    record, substitute = words
    theta = np.asarray(audited.model.theta, np.float64)
    inputs, labels = np.float64(audited.model.inputs), np.asarray(audited.model.labels)
    each = [softmax_gradient(theta, inputs[[i]], labels[[i]]) for i in (record, substitute)]
    np.testing.assert_allclose(prepared.pair.difference, -0.5 * (each[1] - each[0]) / 8, atol=2e-6)
    assert record in audited.records[0] and substitute in learned.records


def test_pools_share_no_record_and_nobody_draws_from_the_target(prepared):
    audited, learned = parts(prepared.responses)
    assert not set(audited.records.ravel()) & set(learned.records.ravel())
    assert 0 not in prepared.responses.certify.seats
    assert len(set(audited.records.ravel())) == audited.records.size


def test_a_batch_holds_no_record_twice(prepared):
    audited, _ = parts(prepared.responses)
    batches = np.asarray(audited.batches(audited.key, jnp.asarray(audited.records[1])))
    assert all(len(set(batch)) == 8 for batch in batches.reshape(-1, 8))
    assert set(batches.ravel()) <= set(audited.records[1].tolist())


@pytest.mark.parametrize("numbers", [{}, {"local_steps": 3, "momentum": 0.9}, {"model": "mlp", "hidden": 4}])
def test_projection_equals_the_product_of_the_whole_update(numbers):
    responses = ja.Federated(clients=8, variants=4, rounds=0, **numbers).respond(0, None)
    source = responses.certify.source
    weights = np.random.default_rng(0).standard_normal(source.dim)
    whole = np.concatenate([source.chunks(group)[0] for group in range(8)]).astype(np.float64)
    scalars, error = source.project(weights)
    np.testing.assert_allclose(scalars, whole @ weights, rtol=0, atol=2e-6 * np.linalg.norm(weights))
    assert np.abs(scalars - whole @ weights).max() <= error


def test_local_training_is_optax_sgd():
    training = LocalTraining(Softmax(3), learning_rate=0.3, momentum=0.9)
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.standard_normal((4, 5, 7)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 3, (4, 5)))
    theta, unravel = training.init(jax.random.key(0), inputs[0])
    params, optimizer = unravel(theta), optax.sgd(0.3, momentum=0.9)
    state = optimizer.init(params)
    for batch in zip(inputs, labels):

        def loss(params, batch=batch):
            logits = Softmax(3).apply(params, batch[0])
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

        change, state = optimizer.update(jax.grad(loss)(params), state)
        params = optax.apply_updates(params, change)
    expected = jax.flatten_util.ravel_pytree(params)[0] - theta
    np.testing.assert_allclose(training.update(unravel, theta, inputs, labels), expected, atol=1e-6)


def test_federated_averaging_learns():
    start, trained = (ja.Federated(clients=8, variants=2, rounds=r).respond(0, None).metrics for r in (0, 60))
    assert start["test_accuracy"] < 0.3 and trained["test_accuracy"] > 0.85


@pytest.mark.parametrize("concentration", [None, 0.1, 100.0])
def test_dealing_is_even_and_distinct(concentration):
    labels = datasets.load("digits").labels
    dealt = deal(labels, 20, concentration, jax.random.key(0))
    assert dealt.shape == (20, len(labels) // 20)
    assert len(np.unique(dealt)) == dealt.size


def test_small_concentration_makes_clients_uneven():
    labels = datasets.load("digits").labels
    classes = [
        np.mean([len(np.unique(labels[client])) for client in deal(labels, 60, concentration, jax.random.key(0))])
        for concentration in (0.05, 1.0, None)
    ]
    assert classes[0] < classes[1] < classes[2]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"clients": 600}, "batch_size is 8, but population.clients = 600 share"),
        ({"batch_size": 100}, "allowed are batches of 1 to 13: use fewer clients"),
    ],
)
def test_too_few_records_are_refused(numbers, message):
    with pytest.raises(ValueError, match=message):
        ja.Federated(**numbers).respond(0, None)


def test_digits_are_what_scikit_learn_ships():
    data = datasets.load("digits")
    assert data.inputs.shape == (1797, 64) and data.inputs.min() == 0 and data.inputs.max() == 1
    assert np.bincount(data.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert data.sha256 == datasets.load("digits").sha256
