"""The models compute what their names say, and are refused on records they cannot read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy.signal import correlate

from jaxaudit.models import CNN, build, check
from jaxaudit.models.classifiers import Convolution


def images(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def test_convolution_is_the_one_of_scipy():
    inputs = images(1, 6, 5, 2)
    params = Convolution(3).init(jax.random.key(0), inputs)["params"]
    kernel = np.asarray(params["kernel"])
    expected = [
        sum(correlate(inputs[0, ..., c], kernel[..., c, feature], mode="same") for c in range(2))
        for feature in range(3)
    ]
    found = Convolution(3).apply({"params": params}, inputs)[0]
    np.testing.assert_allclose(found, np.stack(expected, -1), atol=1e-5)


def test_cnn_is_the_textbook_one_of_flax():
    class Textbook(nn.Module):
        @nn.compact
        def __call__(self, inputs):
            for number, features in enumerate((16, 32)):
                inputs = nn.relu(nn.Conv(features, (3, 3), name=f"Convolution_{number}")(inputs))
                inputs = nn.max_pool(inputs, (2, 2), (2, 2))
            return nn.Dense(10)(inputs.reshape(inputs.shape[0], -1))

    inputs = images(4, 7, 5, 3)
    params = CNN(10).init(jax.random.key(0), inputs)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, Textbook().init(jax.random.key(0), inputs))
    np.testing.assert_allclose(CNN(10).apply(params, inputs), Textbook().apply(params, inputs), atol=1e-5)


@pytest.mark.parametrize(("name", "dim"), [("softmax", 7850), ("mlp", 25_450), ("cnn", 20_490)])
def test_sizes_on_mnist(name, dim):
    params = jax.eval_shape(build(name, 10, 32).init, jax.random.key(0), images(1, 28, 28, 1))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == dim


@pytest.mark.parametrize("name", ["softmax", "mlp", "cnn"])
def test_every_product_is_computed_in_full_precision(name):
    model, inputs = build(name, 10, 4), images(2, 8, 8, 1)
    params = model.init(jax.random.key(0), inputs)
    text = str(jax.make_jaxpr(jax.grad(lambda p: model.apply(p, inputs).sum()))(params))
    assert text.count("dot_general") == text.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") > 0
    assert "conv_general_dilated" not in text


@pytest.mark.parametrize("shape", [(105,), (8, 8), (3, 28, 1)])
def test_cnn_is_refused_on_what_is_no_image(shape):
    with pytest.raises(ValueError, match=r"^population.model is 'cnn', but .*, allowed are .*; .* --set [^\n]*$"):
        check("cnn", shape)
    check("softmax", shape)
    check("mlp", shape)
