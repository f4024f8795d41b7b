"""Local training is SGD on the cross-entropy, and its shortcuts equal the long way."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from jaxaudit.models import LocalTraining, build

CASES = pytest.mark.parametrize(
    ("name", "momentum"), [("softmax", 0.0), ("softmax", 0.9), ("mlp", 0.9), ("cnn", 0.9)]
)


def setting(name, momentum=0.0):
    """(training, theta, unravel, inputs f32[3, 5, 8, 8, 1], labels i32[3, 5])."""
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.standard_normal((3, 5, 8, 8, 1)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 10, (3, 5)), jnp.int32)
    training = LocalTraining(build(name, 10, 4), learning_rate=0.3, momentum=momentum)
    theta, unravel = training.init(jax.random.key(0), inputs[0])
    return training, theta, unravel, inputs, labels


@CASES
def test_update_is_optax_sgd_on_the_gradient_of_the_loss(name, momentum):
    training, theta, unravel, inputs, labels = setting(name, momentum)
    params, optimizer = unravel(theta), optax.sgd(0.3, momentum=momentum)
    state = optimizer.init(params)

    @jax.jit
    @jax.grad
    def gradient(params, inputs, labels):
        logits = build(name, 10, 4).apply(params, inputs)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean()

    for batch in zip(inputs, labels):
        change, state = optimizer.update(gradient(params, *batch), state)
        params = optax.apply_updates(params, change)
    expected = ravel_pytree(params)[0] - theta
    found = jax.jit(training.update, static_argnums=0)(unravel, theta, inputs, labels)
    np.testing.assert_allclose(found, expected, atol=3e-6)


def test_gradient_of_the_cnn_is_the_slope_of_its_loss():
    training, theta, unravel, inputs, labels = setting("cnn")
    with jax.enable_x64(True):
        theta, inputs = jnp.asarray(theta, jnp.float64), jnp.asarray(inputs, jnp.float64)
        direction = jnp.asarray(np.random.default_rng(1).standard_normal(theta.size))
        # Small enough to cross no kink of the rectifiers and maxima.
        step = 1e-7
        loss = jax.jit(lambda theta: training.loss(unravel, theta, inputs[0], labels[0]))
        ends = [float(loss(theta + s * direction)) for s in (step, -step)]
        slope = jax.jit(jax.grad(loss))(theta) @ direction
    np.testing.assert_allclose((ends[0] - ends[1]) / (2 * step), slope, rtol=1e-5)


@CASES
def test_projected_update_is_the_product_in_every_direction(name, momentum):
    training, theta, unravel, inputs, labels = setting(name, momentum)
    weights = np.random.default_rng(2).standard_normal((4, theta.size)).astype(np.float32)
    whole = np.float64(jax.jit(training.update, static_argnums=0)(unravel, theta, inputs[:1], labels[:1]))
    projected = jax.jit(training.projected_update, static_argnums=0)(unravel, theta, weights, inputs[:1], labels[:1])
    assert projected.shape == (4,)
    np.testing.assert_allclose(projected, weights @ whole, rtol=0, atol=2e-5)


@pytest.mark.parametrize("records", [1, 999, 1000, 1001, 2500])
def test_accuracy_counts_every_record_once(records):
    training, theta, unravel, *_ = setting("softmax")
    rng = np.random.default_rng(3)
    inputs = rng.standard_normal((records, 8, 8, 1)).astype(np.float32)
    labels = rng.integers(0, 10, records).astype(np.int32)
    guesses = np.asarray(training.model.apply(unravel(theta), inputs)).argmax(1)
    labels[::3] = guesses[::3]
    assert training.accuracy(unravel, theta, inputs, labels) == (guesses == labels).sum() / records
