"""Updates as trees, of models with normalisation layers: the same numbers, and less work for a part of them."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxaudit.models import LocalTraining, Objective, build

PLAIN = LocalTraining(build("lenet_bn", 10, 12), learning_rate=0.3, momentum=0.9)
DECAYING = dataclasses.replace(PLAIN, objective=Objective(weight_decay=0.5))


def head(tree):
    return tree["head"]


def everything(tree):
    return tree


tree_update = jax.jit(LocalTraining.tree_update, static_argnums=(0, 4))
logits = jax.jit(LocalTraining.logits, static_argnums=0)


@cache
def setting():
    """(theta, unravel, inputs f32[3, 5, 8, 8, 1], labels i32[3, 5])."""
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.standard_normal((3, 5, 8, 8, 1)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 10, (3, 5)), jnp.int32)
    return *PLAIN.init(jax.random.key(0), inputs[0]), inputs, labels


@pytest.mark.parametrize("steps", [1, 3])
def test_tree_update_is_the_update(steps):
    theta, unravel, inputs, labels = setting()
    with jax.enable_x64(True):
        # In float32 the steps of batch normalisation on five records amplify rounding.
        params, inputs = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (unravel(theta)["params"], inputs))
        theta, unravel = ravel_pytree({"params": params})
        vector = jax.jit(DECAYING.update, static_argnums=0)(unravel, theta, inputs[:steps], labels[:steps])
        tree = tree_update(DECAYING, params, inputs[:steps], labels[:steps], everything)
        assert jax.tree.structure(tree) == jax.tree.structure(params)
        np.testing.assert_allclose(ravel_pytree(tree)[0], vector, rtol=1e-10, atol=1e-12)


def test_head_of_one_step_is_the_head_of_the_whole():
    theta, unravel, inputs, labels = setting()
    arguments = PLAIN, unravel(theta)["params"], inputs[:1], labels[:1]
    whole, part = tree_update(*arguments, everything), tree_update(*arguments, head)
    for name in ("kernel", "bias"):
        np.testing.assert_allclose(part[name], whole["head"][name], rtol=1e-5, atol=1e-7)


def test_one_step_of_the_head_needs_no_backward_pass_of_the_rest():
    theta, unravel, inputs, labels = setting()
    variables = unravel(theta)

    def flops(function, *arguments):
        return function.lower(PLAIN, *arguments).compile().cost_analysis()["flops"]

    forward = flops(logits, variables, inputs[0])
    whole, part = (flops(tree_update, variables["params"], inputs[:1], labels[:1], f) for f in (everything, head))
    assert part < 1.2 * forward < 0.6 * whole


def test_weight_decay_pulls_every_parameter_towards_zero():
    theta, unravel, inputs, labels = setting()
    gap = DECAYING.loss(unravel, theta, inputs[0], labels[0]) - PLAIN.loss(unravel, theta, inputs[0], labels[0])
    np.testing.assert_allclose(gap, 0.25 * np.sum(np.float64(theta) ** 2), rtol=1e-5)
    params = unravel(theta)["params"]
    pulled, free = (tree_update(t, params, inputs[:1], labels[:1], everything) for t in (DECAYING, PLAIN))
    difference = ravel_pytree(pulled)[0] - ravel_pytree(free)[0]
    np.testing.assert_allclose(difference, -0.3 * 0.5 * theta, atol=1e-6)


def test_targets_can_be_shares_of_the_classes():
    theta, unravel, inputs, labels = setting()
    shares = jnp.eye(10, dtype=jnp.float32)[labels[:1]]
    params = unravel(theta)["params"]
    found, expected = (tree_update(PLAIN, params, inputs[:1], targets, head) for targets in (shares, labels[:1]))
    np.testing.assert_allclose(ravel_pytree(found)[0], ravel_pytree(expected)[0], atol=1e-6)


def test_accuracy_normalises_the_last_records_among_a_thousand_different_ones():
    theta, unravel, *_ = setting()
    inputs = np.random.default_rng(4).standard_normal((1001, 8, 8, 1)).astype(np.float32)
    first, last = (logits(PLAIN, unravel(theta), inputs[start : start + 1000]) for start in (0, 1))
    guesses = np.concatenate([first, last[-1:]]).argmax(1)
    assert PLAIN.accuracy(unravel, theta, inputs, np.int32(guesses)) == 1
    assert PLAIN.accuracy(unravel, theta, inputs, np.int32((guesses + 1) % 10)) == 0
