"""Real gradients of a real model on real records, dealt so that nobody sees what they should not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxaudit as ja
from jaxaudit.models import LocalTraining, Softmax


def softmax_gradient(theta, inputs, labels):
    """Mean cross-entropy gradient of one dense layer, by hand, in the order of flax (bias, then kernel)."""
    bias, kernel = theta[:10], theta[10:].reshape(-1, 10)
    logits = inputs @ kernel + bias
    probabilities = np.exp(logits - logits.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    error = (probabilities - np.eye(10)[labels]) / len(labels)
    return np.concatenate([error.sum(0), (inputs.T @ error).reshape(-1)])


def learning(source):
    """Parameters, inputs as vectors, and labels of what a source trains on, in float64."""
    theta, inputs, labels = map(np.asarray, source.model)
    return np.float64(theta), np.float64(inputs).reshape(len(inputs), -1), labels


def parts(responses):
    """The target, the audited others, and those that the server learns from, in the first audited round."""
    target, *_ = responses.choose_pairs.args
    return target[0], responses.certify.sources[0], responses.fit.sources[0]


def test_recorded_updates_are_gradients_of_the_loss(prepared):
    _, audited, _ = parts(prepared.responses)
    theta, inputs, labels = learning(audited)
    batches = audited.batches(jax.random.fold_in(audited.key_batches, 3), jnp.asarray(audited.records[3]))
    rows = audited.rows(3, 4)
    assert len(rows) == len(batches) == 16
    for row, batch in zip(rows[:4], np.asarray(batches)[:4, 0]):
        gradient = softmax_gradient(theta, inputs[batch], labels[batch])
        np.testing.assert_allclose(row, -0.5 * gradient, atol=2e-6)


def test_the_record_pair_differs_by_one_record(prepared):
    target, _, learned = parts(prepared.responses)
    pair = prepared.cells[0].pair
    record, substitute = [int(word) for word in pair.source.replace(",", "").split() if word.isdigit()]
    theta, inputs, labels = learning(target)
    each = [softmax_gradient(theta, inputs[[i]], labels[[i]]) for i in (record, substitute)]
    np.testing.assert_allclose(pair.difference[0], -0.5 * (each[1] - each[0]) / 8, atol=2e-6)
    assert record in target.records[0] and substitute in learned.records


def test_pools_share_no_record_and_nobody_draws_from_the_target(prepared):
    sources = parts(prepared.responses)
    assert [len(source.records) for source in sources] == [1, 7, 8]
    records = np.concatenate([source.records.ravel() for source in sources])
    assert len(set(records.tolist())) == records.size


def test_a_batch_holds_no_record_twice(prepared):
    _, audited, _ = parts(prepared.responses)
    batches = audited.drawn(1)
    assert batches.shape == (16, 1, 8)
    assert all(len(set(batch)) == 8 for batch in batches.reshape(-1, 8))
    assert set(batches.ravel()) <= set(audited.records[1].tolist())


@pytest.mark.parametrize("directions", [1, 3])
@pytest.mark.parametrize("numbers", [{}, {"local_steps": 3, "momentum": 0.9}, {"model": "mlp", "hidden": 4}])
def test_projection_equals_the_product_of_the_whole_update(numbers, directions):
    responses = ja.Federated(clients=8, variants=4, rounds=0, **numbers).respond(0, None)
    (source,) = responses.certify.sources
    weights = np.random.default_rng(0).standard_normal((directions, source.dim))
    whole = source.rows(0, 7).astype(np.float64)
    scalars, error = source.project(weights)
    atol = 2e-6 * np.linalg.norm(weights, axis=1)
    np.testing.assert_array_less(np.abs(scalars - whole @ weights.T), np.broadcast_to(atol, scalars.shape))
    assert np.all(np.abs(scalars - whole @ weights.T).max(0) <= error)


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


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"clients": 600}, "population.batch_size is 8, but the 600 clients of population.clients share"),
        ({"batch_size": 100}, "allowed are batches of 1 to 13: use fewer clients"),
    ],
)
def test_too_few_records_are_refused(numbers, message):
    with pytest.raises(ValueError, match=message):
        ja.Federated(**numbers).respond(0, None)
