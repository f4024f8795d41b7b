"""Federated averaging as it is written in the paper, one client in memory at a time."""

from itertools import islice, pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from jaxaudit.models import LocalTraining, Softmax, average

CLIENTS, STEPS, SIZE = 4, 2, 3
KEY = jax.random.key(5)


def draw(key, records):
    return jax.random.permutation(key, records)[: STEPS * SIZE].reshape(STEPS, SIZE)


@pytest.fixture(scope="module")
def federation():
    """Arguments of `average` up to `key`: four clients of ten records in five dimensions."""
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((45, 5)).astype(np.float32)
    labels = rng.integers(0, 3, 45).astype(np.int32)
    records = rng.permutation(45)[:40].reshape(CLIENTS, 10)
    training = LocalTraining(Softmax(3), learning_rate=0.3, momentum=0.9)
    theta, unravel = training.init(jax.random.key(0), inputs[:1])
    return training, unravel, theta, inputs, labels, records, draw, KEY


def test_average_is_federated_averaging_with_optax(federation):
    training, unravel, theta, inputs, labels, records, *_ = federation
    params, optimizer = unravel(theta), optax.sgd(0.3, momentum=0.9)

    @jax.jit
    @jax.grad
    def gradient(params, inputs, labels):
        logits = training.model.apply(params, inputs)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    for number in range(3):
        local_models = []
        for own, key in zip(records, jax.random.split(jax.random.fold_in(KEY, number), CLIENTS)):
            local, state = params, optimizer.init(params)
            for batch in np.asarray(draw(key, jnp.asarray(own))):
                change, state = optimizer.update(gradient(local, inputs[batch], labels[batch]), state)
                local = optax.apply_updates(local, change)
            local_models.append(local)
        params = jax.tree.map(lambda *leaves: sum(leaves) / CLIENTS, *local_models)
    found = next(islice(average(*federation), 3, None))
    np.testing.assert_allclose(found, ravel_pytree(params)[0], atol=2e-6)


def test_no_round_gives_the_initial_model(federation):
    np.testing.assert_array_equal(next(average(*federation)), federation[2])


def test_going_on_equals_running_longer(federation):
    training, unravel, _, *rest = federation
    thetas = list(islice(average(*federation), 6))
    later = list(islice(average(training, unravel, np.asarray(thetas[2]), *rest, first=2), 4))
    np.testing.assert_array_equal(thetas[2:], later)
    assert all(np.any(a != b) for a, b in pairwise(thetas))


def test_one_client_is_in_memory_at_a_time(federation):
    training, unravel, theta, inputs, labels, *_ = federation
    records = np.random.default_rng(1).integers(0, 45, (2000, 10))
    seen = []

    def traced(key, own):
        seen.append((key.shape, own.shape))
        return draw(key, own)

    done = []
    thetas = average(training, unravel, theta, inputs, labels, records, traced, KEY, progress=done.append)
    assert np.isfinite(next(islice(thetas, 2, None))).all()
    # Traced once, for one client: nothing is computed for two clients together.
    assert seen == [((), (10,))]
    assert sum(done) == 2 * 2000


def test_divergence_is_one_clear_line(federation):
    training, unravel, theta, inputs, *rest = federation
    diverging = LocalTraining(training.model, learning_rate=1e38, momentum=0.9)
    thetas = average(diverging, unravel, theta, 100 * inputs, *rest)
    with pytest.raises(ValueError, match=r"^population.learning_rate is 1e\+38, .*; set a smaller one [^\n]*$"):
        list(islice(thetas, 20))
