"""Every variant of the loss against its definition, one record and one class at a time."""

import math
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxaudit.models import Objective

BATCH, CLASSES = 7, 5
WEIGHTS = (0.5, 2.0, 1.0, 3.0, 0.25)


def setting(seed=0):
    rng = np.random.default_rng(seed)
    logits = 4 * rng.standard_normal((BATCH, CLASSES))
    return logits.astype(np.float32), rng.integers(0, CLASSES, BATCH).astype(np.int32), rng.random((BATCH, CLASSES))


def by_definition(objective, logits, shares):
    """The loss in float64, from shares of every class."""
    total, weight_of_all = 0.0, 0.0
    for row, wanted in zip(np.float64(logits), shares):
        smooth = [(1 - objective.smoothing) * y + objective.smoothing * sum(wanted) / CLASSES for y in wanted]
        if objective.loss == "softmax":
            log_sum = math.log(sum(math.exp(z) for z in row))
            one = -sum(y * (z - log_sum) for y, z in zip(smooth, row))
        else:
            one = 0.0
            for y, z in zip(smooth, row):
                one -= y * -math.log1p(math.exp(-z)) + (1 - y) * -math.log1p(math.exp(z))
        weight = sum(w * y for w, y in zip(objective.class_weights, wanted)) if objective.class_weights else 1.0
        total, weight_of_all = total + weight * one, weight_of_all + weight
    return total / weight_of_all if objective.reduction == "mean" else total


VARIANTS = [
    Objective(loss=loss, reduction=reduction, smoothing=smoothing, class_weights=weights)
    for loss, reduction, smoothing, weights in product(
        ("softmax", "multilabel"), ("mean", "sum"), (0.0, 0.1), ((), WEIGHTS)
    )
]


@pytest.mark.parametrize("objective", VARIANTS, ids=str)
def test_loss_is_its_definition_for_labels_and_for_shares(objective):
    logits, labels, shares = setting()
    for targets, wanted in ((labels, np.eye(CLASSES)[labels]), (np.float32(shares), np.float32(shares))):
        found = objective.of_logits(jnp.asarray(logits), jnp.asarray(targets))
        assert found.shape == () and found.dtype == jnp.float32
        np.testing.assert_allclose(found, by_definition(objective, logits, np.float64(wanted)), rtol=2e-6)


def test_default_is_the_mean_cross_entropy_of_optax_bit_for_bit():
    logits, labels, _ = map(jnp.asarray, setting())
    for objective in (Objective(), Objective(weight_decay=0.1)):
        expected = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        np.testing.assert_array_equal(objective.of_logits(logits, labels), expected)


def test_gradient_of_the_default_is_probability_minus_label():
    logits, labels, _ = setting()
    found = jax.grad(Objective().of_logits)(jnp.asarray(logits), jnp.asarray(labels))
    exact = np.exp(np.float64(logits))
    expected = (exact / exact.sum(1, keepdims=True) - np.eye(CLASSES)[labels]) / BATCH
    np.testing.assert_allclose(found, expected, atol=1e-7)


@given(st.integers(0, 2**20), st.sampled_from(VARIANTS))
def test_labels_and_their_one_hot_shares_are_one_target(seed, objective):
    logits, labels, _ = setting(seed)
    logits, one_hot = jnp.asarray(logits), jnp.eye(CLASSES, dtype=jnp.float32)[labels]
    np.testing.assert_allclose(
        objective.of_logits(logits, jnp.asarray(labels)), objective.of_logits(logits, one_hot), rtol=2e-6
    )
