"""Clients that share a direction: counts as digits, up to what the floating-point format holds."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxaudit.attacks.label_leakage.packing import amplitudes, most_per_direction, require_one_hot, unpack
from jaxaudit.attacks.label_leakage.presets import bias_one_hot


@pytest.mark.parametrize(
    ("largest", "mantissa", "most"),
    [
        (1, 24, 24),
        (15, 24, 6),
        (50, 24, 4),
        (63, 24, 4),
        (64, 24, 3),
        (64, 53, 8),
        (2**24 - 1, 24, 1),
        (2**24, 24, 0),
    ],
)
def test_bits_of_the_mantissa_over_bits_of_a_count(largest, mantissa, most):
    assert most_per_direction(largest, mantissa) == most
    assert np.log2(largest + 1) * most <= mantissa < np.log2(largest + 1) * (most + 1)


def test_binary_digits_are_batches_of_one():
    np.testing.assert_array_equal(unpack([0b1011, 0b0100], np.ones((2, 4)), 1), [[1, 1, 0, 1], [0, 0, 1, 0]])
    np.testing.assert_array_equal(amplitudes(4, 1), [1, 2, 4, 8])


@given(st.integers(1, 300), st.sampled_from(["mean", "sum"]), st.data())
def test_counts_come_back_for_any_batch_sizes_and_errors_below_a_half(largest, reduction, data):
    # Half of the bits that float64 has are left for errors of the values.
    slots = data.draw(st.integers(1, most_per_direction(largest, mantissa=26)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    sizes = rng.integers(0, largest + 1, (3, slots))
    counts = rng.integers(0, sizes + 1, (4, 3, slots))
    counts[0] = sizes
    scale = largest / np.maximum(sizes, 1) if reduction == "mean" else 1.0
    values = (counts * scale * (largest + 1.0) ** np.arange(slots)).sum(-1) + rng.uniform(-0.499, 0.499, (4, 3))
    np.testing.assert_array_equal(unpack(values, sizes, largest, reduction), counts)


@pytest.mark.parametrize("largest", [1, 2, 7, 10, 15, 16, 50, 63, 64, 255, 256, 4095])
def test_packed_counts_survive_float32_within_the_limit_and_not_beyond(largest):
    most = most_per_direction(largest)
    packed = amplitudes(most, largest)
    counts = np.vstack([np.full(most, largest), np.random.default_rng(0).integers(0, largest + 1, (1000, most))])
    values = counts @ packed
    np.testing.assert_array_equal(values.astype(np.float32).astype(np.float64), values)
    # One slot more, and some counts add up to the least integer that float32 does not hold.
    lost = 2.0**24 + 1
    digits = unpack([lost], np.full((1, most + 1), largest), largest)[0]
    assert digits @ (largest + 1.0) ** np.arange(most + 1) == lost
    assert float(np.float32(lost)) != lost


@pytest.mark.parametrize(("largest", "slots"), [(64, 3), (32, 4), (50, 3)])
def test_gradients_of_float32_clients_come_apart(largest, slots):
    classes, dim, label, rng = 10, 4, 2, np.random.default_rng(0)
    kernel = rng.normal(size=(dim, classes), scale=0.05)
    embeddings = 10 * amplitudes(slots, largest)[:, None] * np.ones(dim)
    biases = np.stack([bias_one_hot(kernel, np.zeros(classes), one, label) for one in embeddings])
    labels = rng.integers(0, classes, (slots, largest)).astype(np.int32)
    labels[-1] = 7

    def loss(kernel, bias, embedding, labels):
        logits = jnp.broadcast_to(embedding, (largest, dim)) @ kernel + bias
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    sent = jax.vmap(jax.grad(loss), (None, 0, 0, 0))(
        jnp.asarray(kernel, jnp.float32), biases, jnp.asarray(embeddings, jnp.float32), labels
    )
    total = np.asarray(sent.sum(0), np.float64)
    values = -largest * (total / embeddings[0][:, None]).mean(axis=0)
    found = unpack(values[:, None], np.full((1, slots), largest), largest)[:, 0].T
    found[:, label] += largest - found.sum(axis=1)
    np.testing.assert_array_equal(found, [np.bincount(one, minlength=classes) for one in labels])


def test_a_value_below_zero_or_beyond_all_counts_is_cut_off():
    np.testing.assert_array_equal(unpack([-40.0, 1e6], np.full((2, 2), 9), 9), [[0, 0], [9, 9]])


def test_more_clients_on_a_direction_than_the_format_holds_are_refused():
    with pytest.raises(ValueError, match="per_direction is 4, allowed are 1 to 3 for batches of up to 64 records"):
        amplitudes(4, 64)
    with pytest.raises(ValueError, match="per_direction is 9, allowed are 1 to 8 for batches of up to 64 records"):
        unpack([0.0], np.full((1, 9), 64), 64)
    with pytest.raises(ValueError, match="largest batch size is 0, allowed is 1 or more"):
        most_per_direction(0)


def test_packing_needs_one_label_at_odds_of_one_for_all():
    logits = np.full((3, 5), -30.0)
    logits[:, 2] = 0
    require_one_hot(logits)
    with pytest.raises(ValueError, match="put label 2 ahead by 10, needed is 24 or more"):
        require_one_hot(np.where(logits < 0, -10.0, 0.0))
    logits[1] = np.roll(logits[1], 1)
    with pytest.raises(ValueError, match="put label 2 ahead by -30"):
        require_one_hot(logits)
