"""The layers are those of flax, computed another way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxaudit.models.layers import Convolution, DepthwiseConvolution, batch_norm, max_pool


def images(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (1, 2), (3, 2), (5, 1)])
@pytest.mark.parametrize("height", [7, 8])
def test_convolution_is_the_one_of_flax(size, stride, height):
    inputs = images(2, height, 6, 3)
    ours = Convolution(4, size=size, stride=stride, bias=False)
    theirs = nn.Conv(4, (size, size), strides=stride, padding=size // 2, use_bias=False, precision="highest")
    params = ours.init(jax.random.key(0), inputs)
    np.testing.assert_allclose(ours.apply(params, inputs), theirs.apply(params, inputs), atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_convolution_is_the_one_of_flax(stride):
    inputs = images(2, 7, 8, 5)
    ours = DepthwiseConvolution(stride)
    theirs = nn.Conv(5, (3, 3), strides=stride, padding=1, feature_group_count=5, use_bias=False, precision="highest")
    params = ours.init(jax.random.key(0), inputs)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, theirs.init(jax.random.key(0), inputs))
    np.testing.assert_allclose(ours.apply(params, inputs), theirs.apply(params, inputs), atol=1e-5)


def test_pooling_keeps_what_is_one_pixel_wide():
    np.testing.assert_array_equal(max_pool(images(2, 5, 4, 3)), nn.max_pool(images(2, 5, 4, 3), (2, 2), (2, 2)))
    np.testing.assert_array_equal(max_pool(images(2, 1, 4, 3)), images(2, 1, 4, 3))


def test_batch_norm_takes_the_statistics_of_the_batch():
    # A mean of 1000 standard deviations: E[x²] - E[x]² in float32 would have two digits left, or none.
    inputs = images(64, 3, 3, 2) + 1000
    norm = batch_norm(True, "norm")
    params = {"scale": jnp.asarray([2.0, 0.5], jnp.float32), "bias": jnp.asarray([-1.0, 3.0], jnp.float32)}
    found, _ = norm.apply({"params": params}, inputs, mutable=["batch_stats"])
    exact = np.float64(inputs)
    mean, variance = exact.mean((0, 1, 2)), exact.var((0, 1, 2))
    expected = np.float64(params["scale"]) * (exact - mean) / np.sqrt(variance + 1e-5) + np.float64(params["bias"])
    np.testing.assert_allclose(found, expected, atol=2e-3)


@settings(max_examples=20)
@given(st.integers(0, 2**20), st.sampled_from([1e-6, 1.0, 1e6]))
def test_scale_zero_puts_out_the_bias_bit_for_bit(seed, spread):
    rng = np.random.default_rng(seed)
    inputs = jnp.asarray(spread * rng.standard_normal((4, 2, 2, 3)), jnp.float32)
    bias = jnp.asarray(rng.standard_normal(3), jnp.float32)
    params = {"scale": jnp.zeros(3, jnp.float32), "bias": bias}
    found, _ = batch_norm(True, "norm").apply({"params": params}, inputs, mutable=["batch_stats"])
    np.testing.assert_array_equal(found, jnp.broadcast_to(bias, inputs.shape))
