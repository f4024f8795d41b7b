"""What the bait of a model promises: a constant embedding, nothing upstream, and one outer product at the head."""

import math
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.errors import InvalidRngError
from flax.traverse_util import flatten_dict, unflatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxaudit import datasets
from jaxaudit.models import VGGBN, LeNetBN, LocalTraining, MobileNet, ResNet18, build

BATCH, CLASSES, HIDDEN = 8, 10, 32
NAMES = ("lenet_bn", "vgg_bn", "preact_resnet", "mobilenet", "layernorm")
MODELS = {name: build(name, CLASSES, HIDDEN) for name in NAMES}
MODELS["resnet18"] = ResNet18(CLASSES, (4, 8, 16, HIDDEN))
EVERY = pytest.mark.parametrize("name", MODELS)


@cache
def digits():
    """Real images f32[records, 16, 16, 1], every pixel of 8×8 four times, and their labels."""
    data = datasets.load("digits")
    return np.kron(data.inputs, np.ones((1, 2, 2, 1), np.float32)), data.labels


def batch(first):
    images, labels = digits()
    return jnp.asarray(images[first : first + BATCH]), jnp.asarray(labels[first : first + BATCH])


@cache
def honest(name):
    """(parameters, compiled function from them and a batch to gradients, embedding and logits)."""
    return prepared(MODELS[name])


def initial(model):
    """Parameters as flax initialises them: biases 0, scales 1, kernels of one over the square root of the fan-in."""
    shapes = jax.eval_shape(model.init, {"params": jax.random.key(0), "dropout": jax.random.key(1)}, batch(0)[0])
    rng = np.random.default_rng(0)
    flat = {}
    for path, leaf in flatten_dict(shapes["params"]).items():
        normal = rng.standard_normal(leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))
        values = {"kernel": normal, "scale": np.ones(leaf.shape), "bias": np.zeros(leaf.shape)}
        flat[path] = jnp.asarray(values[path[-1]], jnp.float32)
    return unflatten_dict(flat)


def prepared(model):
    training = LocalTraining(model, learning_rate=1.0, momentum=0.0)

    @jax.jit
    def look(params, inputs, labels):
        logits, seen = model.apply({"params": params}, inputs, mutable=["batch_stats", "intermediates"])
        update = training.tree_update(params, inputs[None], labels[None])
        return jax.tree.map(jnp.negative, update), seen["intermediates"]["embedding"][0], logits

    return initial(model), look


def fished(params, bait, bias, silenced=True):
    """The parameters with the normalisation layers of the bait edited."""
    flat = dict(flatten_dict(params))
    edits = {bait.norm: bias} | dict.fromkeys(bait.silenced if silenced else (), -1.0)
    for path, value in edits.items():
        shape = flat[(*path, "scale")].shape
        flat[(*path, "scale")] = jnp.zeros(shape, jnp.float32)
        flat[(*path, "bias")] = jnp.broadcast_to(jnp.asarray(value, jnp.float32), shape)
    return unflatten_dict(flat)


def expected_embedding(bait, bias):
    return bias if bait.signed else np.clip(bias, 0, bait.ceiling)


def biases(width, scale=9.0, seed=0):
    return np.float32(scale * np.random.default_rng(seed).uniform(-1, 1, width))


@EVERY
def test_embedding_is_the_rectified_bias_for_every_record(name):
    params, look = honest(name)
    bait, bias = MODELS[name].bait, biases(HIDDEN)
    _, before, _ = look(params, *batch(0))
    # Honest models tell records apart, so that the spread of zero below is the edit's doing.
    assert before.shape == (BATCH, HIDDEN) and np.ptp(before, axis=0).max() > 1e-2
    edited = fished(params, bait, bias)
    (_, first, logits), (_, second, _) = (look(edited, *batch(start)) for start in (0, 100))
    assert np.ptp(first, axis=0).max() == np.ptp(logits, axis=0).max() == 0
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first[0], expected_embedding(bait, bias))
    assert np.max(first) == (bait.ceiling if math.isfinite(bait.ceiling) else bias.max())
    assert (np.min(first) < 0) == bait.signed


@EVERY
def test_nothing_flows_back_through_the_bait(name):
    params, look = honest(name)
    bait = MODELS[name].bait
    alive, _, _ = look(params, *batch(0))
    gradient, _, _ = look(fished(params, bait, biases(HIDDEN)), *batch(0))
    kept = {("head",), bait.norm}
    upstream = {path: leaf for path, leaf in flatten_dict(gradient).items() if path[:-1] not in kept}
    assert len(upstream) == len(flatten_dict(params)) - 4
    assert all(np.all(np.asarray(leaf) == 0) for leaf in upstream.values())
    assert sum(np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(alive)) > len(upstream)


@EVERY
def test_gradient_of_the_head_is_one_outer_product(name):
    params, look = honest(name)
    inputs, labels = batch(0)
    gradient, embedding, logits = look(fished(params, MODELS[name].bait, biases(HIDDEN)), inputs, labels)
    kernel, bias = (np.float64(gradient["head"][part]) for part in ("kernel", "bias"))
    rank_one = np.outer(np.float64(embedding[0]), bias)
    assert np.linalg.norm(kernel - rank_one) < 1e-5 * np.linalg.norm(kernel)
    counts = np.bincount(labels, minlength=CLASSES)
    np.testing.assert_allclose(bias, np.float64(jax.nn.softmax(logits[0])) - counts / BATCH, atol=1e-6)


def test_one_edit_of_a_residual_network_saturates_only():
    params, look = honest("resnet18")
    bait = MODELS["resnet18"].bait
    spreads = []
    for size in (1.0, 100.0, 10_000.0):
        _, embedding, _ = look(fished(params, bait, size, silenced=False), *batch(0))
        spreads.append(float((np.ptp(embedding, axis=0) / np.mean(embedding, axis=0)).max()))
        assert np.ptp(embedding, axis=0).max() > 0.1
    assert spreads[0] > 0.05
    assert spreads[1] < spreads[0] / 10 and spreads[2] < spreads[1] / 10


def test_classic_lenet_sends_sixteen_biases_through_its_dense_layers():
    model = LeNetBN(CLASSES, HIDDEN, classic=True)
    (params, look), bait = prepared(model), model.bait
    assert params[bait.norm[0]]["bias"].shape == (16,)
    bias = biases(16)
    gradient, embedding, _ = look(fished(params, bait, bias), *batch(0))
    # 16×16 pixels are 4×4 when they enter the first dense layer, channels last.
    hidden = np.tile(np.maximum(bias, 0), 16).astype(np.float64)
    for number in (1, 2):
        dense = params[f"dense{number}"]
        hidden = np.maximum(hidden @ np.float64(dense["kernel"]) + np.float64(dense["bias"]), 0)
    assert np.ptp(embedding, axis=0).max() == 0
    np.testing.assert_allclose(embedding[0], hidden, rtol=1e-5, atol=1e-5)
    upstream = [gradient[layer] for layer in ("conv1", "norm1", "conv2")]
    assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(upstream))


@settings(max_examples=15)
@given(st.integers(0, 1700), st.integers(0, 2**20), st.sampled_from([1e-3, 1.0, 1e4]))
def test_no_image_moves_the_embedding(first, seed, scale):
    params, look = honest("lenet_bn")
    bias = biases(HIDDEN, scale, seed)
    _, embedding, _ = look(fished(params, MODELS["lenet_bn"].bait, bias), *batch(first))
    np.testing.assert_array_equal(embedding, np.tile(np.maximum(bias, 0), (BATCH, 1)))


def test_clients_vectorised_over_share_no_statistics():
    params, _ = honest("lenet_bn")
    training = LocalTraining(MODELS["lenet_bn"], learning_rate=1.0, momentum=0.0)
    stacked = jnp.stack([batch(first)[0] for first in (0, 50, 100)])
    together = jax.jit(jax.vmap(lambda inputs: training.logits({"params": params}, inputs)))(stacked)
    for inputs, logits in zip(stacked, together):
        np.testing.assert_allclose(logits, training.logits({"params": params}, inputs), atol=1e-5)


DROPPING = (VGGBN(CLASSES, ((HIDDEN,),), dropout=0.5), MobileNet(CLASSES, HIDDEN, dropout=0.5))


@pytest.mark.parametrize("model", DROPPING, ids=lambda model: type(model).__name__)
def test_dropout_breaks_the_constant_embedding(model):
    logits = jax.jit(LocalTraining(model, learning_rate=1.0, momentum=0.0).logits)
    inputs, _ = batch(0)
    variables = {"params": fished(initial(model), model.bait, 3.0)}
    assert np.ptp(logits(variables, inputs, jax.random.key(1)), axis=0).max() > 0.1
    with pytest.raises(InvalidRngError):
        logits(variables, inputs)
