"""Every model is found by its name, reads the images it says it does, and refuses others."""

from typing import get_args

import jax
import jax.numpy as jnp
import pytest

from jaxaudit.models import Name, build, check

NAMES = get_args(Name)
NORMALISED = ("lenet_bn", "vgg_bn", "vgg11_bn", "resnet18", "preact_resnet", "mobilenet", "layernorm")
FIXED = {"vgg11_bn": 512, "resnet18": 512}


def shapes(name, *image, hidden=40, classes=10):
    """(parameters, embedding, logits) as shapes, for three images."""
    inputs = jax.ShapeDtypeStruct((3, *image), jnp.float32)
    model = build(name, classes, hidden)
    params = jax.eval_shape(model.init, jax.random.key(0), inputs)["params"]
    logits, seen = jax.eval_shape(
        lambda p, x: model.apply({"params": p}, x, mutable=["batch_stats", "intermediates"]), params, inputs
    )
    return params, seen["intermediates"]["embedding"][0], logits


# Known from their definitions for three channels and ten classes: the convolutions, two numbers for every normalised
# channel, and the head.
@pytest.mark.parametrize(("name", "dim"), [("vgg11_bn", 9_228_362), ("resnet18", 11_173_962)])
def test_the_full_networks_have_the_published_sizes(name, dim):
    params, _, _ = shapes(name, 32, 32, 3)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == dim


@pytest.mark.parametrize("image", [(8, 8, 1), (9, 10, 1), (28, 28, 1), (32, 32, 3)])
@pytest.mark.parametrize("name", NORMALISED)
def test_head_reads_the_embedding_on_images_of_every_size(name, image):
    params, embedding, logits = shapes(name, *image, classes=7)
    width = FIXED.get(name, 40)
    assert embedding.shape == (3, width) and logits.shape == (3, 7)
    assert embedding.dtype == logits.dtype == jnp.float32
    assert params["head"]["kernel"].shape == (width, 7) and params["head"]["bias"].shape == (7,)


@pytest.mark.parametrize("name", NORMALISED)
def test_bait_names_layers_of_the_model(name):
    params, embedding, _ = shapes(name, 16, 16, 1)
    bait = build(name, 10, 40).bait
    for path in (bait.norm, *bait.silenced):
        layer = params
        for step in path:
            layer = layer[step]
        assert layer["scale"].shape == layer["bias"].shape == embedding.shape[1:]


@pytest.mark.parametrize("name", NORMALISED)
def test_no_layer_leaves_the_precision_to_the_device(name):
    inputs = jnp.zeros((2, 8, 8, 1), jnp.float32)
    model = build(name, 10, 8)
    params = jax.eval_shape(model.init, jax.random.key(0), inputs)["params"]

    def total(params):
        return model.apply({"params": params}, inputs, mutable=["batch_stats"])[0].sum()

    text = str(jax.make_jaxpr(jax.grad(total))(params))
    assert text.count("dot_general") == text.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") > 0
    assert "conv_general_dilated" not in text


@pytest.mark.parametrize("name", NAMES)
def test_models_can_be_static_arguments(name):
    assert hash(build(name, 10, 4)) == hash(build(name, 10, 4)) and build(name, 10, 4) == build(name, 10, 4)


@pytest.mark.parametrize("shape", [(105,), (64,), (8, 8), (7, 8, 1), (3, 32, 32)])
@pytest.mark.parametrize("name", NORMALISED)
def test_normalised_models_are_refused_on_what_is_no_image_of_eight_pixels(name, shape):
    with pytest.raises(ValueError, match=rf"^population.model is '{name}', but .*height ≥ 8, .*; .* --set [^\n]*$"):
        check(name, shape)
    check(name, (8, 8, 1))


def test_unknown_names_are_refused():
    for refuse in (lambda: build("lenet", 10, 4), lambda: check("lenet", (8, 8, 1))):
        with pytest.raises(
            ValueError, match=r"^population.model is 'lenet', allowed are softmax, mlp, cnn, lenet_bn"
        ):
            refuse()
