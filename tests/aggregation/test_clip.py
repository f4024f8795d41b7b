"""No client's vector is longer than agreed, also after float32 has rounded it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxaudit.aggregation.clip import Clip
from jaxaudit.aggregation.stage import UNBOUNDED, Norms, Setting
from jaxaudit.aggregation.vectors import euclidean_norm, norm_slack
from jaxaudit.aggregation.weight import Weight
from jaxaudit.random import Ticket

pytestmark = pytest.mark.usefixtures("strict")
TICKET = Ticket(jnp.uint32(1), jnp.uint32(2), jnp.uint32(3))
DIM = 4
CLIP, LIMIT = Clip(norm=2.5), Clip(norm=0.3, order="linf")
# Zero or normal: XLA flushes denormal numbers to zero.
entry = st.floats(2.0**-100, 2.0**100, width=32).flatmap(lambda x: st.sampled_from([x, -x, 0.0]))
vectors = st.lists(entry | st.floats(-4, 4, width=16), min_size=DIM, max_size=DIM)


def setting(dim=DIM, norms=UNBOUNDED, step=0.0):
    return Setting(dim, 10, norms, ring_bits=32, step=step)


@partial(jax.jit, static_argnums=0)
def clipped(stage, params, vector):
    return stage.encode(params, vector, TICKET)


def encoded(stage, vector, dim=DIM):
    return np.asarray(clipped(stage, stage.prepare(setting(dim)), jnp.asarray(vector, jnp.float32)))


def test_l2_clipping_known_answers():
    np.testing.assert_allclose(encoded(CLIP, [3.0, 0.0, -4.0, 0.0]), [1.5, 0, -2.0, 0], rtol=2**-20)
    np.testing.assert_array_equal(encoded(CLIP, [1.5, 0.0, 2.0, 0.0]), [1.5, 0, 2.0, 0])
    np.testing.assert_array_equal(encoded(CLIP, [0.0] * DIM), np.zeros(DIM))


def test_linf_clipping_known_answer():
    np.testing.assert_array_equal(encoded(LIMIT, [0.5, -0.25, -7.0, 0.0]), np.float32([0.3, -0.25, -0.3, 0.0]))


@given(vectors)
def test_float32_vector_is_exactly_within_the_norms_that_follow(vector):
    for stage in (CLIP, LIMIT):
        after, exact = stage.after(setting()).norms, encoded(stage, vector).astype(np.float64)
        sizes = Norms(*(np.linalg.norm(exact, order) for order in (1, 2, np.inf)))
        assert all(size <= norm for size, norm in zip(sizes, after))


@given(vectors)
def test_short_vectors_are_left_as_they_are(vector):
    if np.linalg.norm(np.float64(vector)) <= 2.5 * (1 - 2.0**-20):
        np.testing.assert_array_equal(encoded(CLIP, vector), np.float32(vector))


@given(vectors)
def test_length_in_float32_is_within_its_error(vector):
    exact = np.linalg.norm(np.float64(np.float32(vector)))
    length = float(jax.jit(euclidean_norm)(jnp.asarray(vector, jnp.float32)))
    assert abs(length - exact) <= norm_slack(DIM) * exact


def test_length_of_many_entries_is_within_its_error():
    vector = np.random.default_rng(0).random(2**20 - 7).astype(np.float32)
    exact = np.linalg.norm(vector.astype(np.float64))
    assert abs(float(euclidean_norm(jnp.asarray(vector))) - exact) <= norm_slack(vector.size) * exact
    assert norm_slack(2**20) == 2.0**-20 < norm_slack(2**26)


def test_norms_after_clipping():
    after = CLIP.after(setting(100)).norms
    np.testing.assert_allclose(after, (25.0, 2.5, 2.5), rtol=2**-19)
    assert after.l2 == 2.5 * (1 + 2.0**-20)
    np.testing.assert_allclose(LIMIT.after(setting(100)).norms, (30.0, 3.0, 0.3), rtol=2**-19)
    assert CLIP.after(setting(norms=Norms(1.0, 1.0, 1.0))).norms == Norms(1.0, 1.0, 1.0)


def test_a_clipped_vector_is_expected_as_it_is_encoded():
    params, vector = CLIP.prepare(setting()), jnp.asarray([3.0, 0.0, -4.0, 0.0], jnp.float32)
    mean, variance = CLIP.expected(params, vector, jnp.float32(1))
    np.testing.assert_array_equal(mean, clipped(CLIP, params, vector))
    np.testing.assert_allclose(variance, 0.25, rtol=2**-18)
    mean, variance = LIMIT.expected(LIMIT.prepare(setting()), vector, jnp.float32(1))
    np.testing.assert_array_equal(mean, encoded(LIMIT, vector))
    assert variance == 1.0


def test_traced_code_reads_no_bound():
    blank = Clip(norm=2.5)
    object.__setattr__(blank, "norm", 0.0)
    found = blank.encode(CLIP.prepare(setting()), jnp.asarray([3.0, 0, -4, 0], jnp.float32), TICKET)
    np.testing.assert_array_equal(found, encoded(CLIP, [3.0, 0, -4, 0]))


@given(vectors, st.sampled_from([0.5, 3.0, 0.377]))
def test_weights_are_undone_and_norms_follow(vector, factor):
    stage = Weight(factor=factor)
    params, inside = stage.prepare(setting()), np.float32(np.clip(vector, -1e20, 1e20))
    sent = np.asarray(stage.encode(params, jnp.asarray(inside), TICKET))
    np.testing.assert_allclose(sent, factor * inside.astype(np.float64), rtol=2**-22)
    np.testing.assert_allclose(stage.decode(params, sent.astype(np.float64), 3), inside, rtol=2**-22)
    largest = np.abs(inside).max().astype(np.float64)
    assert np.abs(sent).max() <= stage.after(setting(norms=Norms(*[largest] * 3))).norms.linf


def test_weights_multiply_means_and_variances():
    stage = Weight(factor=0.5)
    mean, variance = stage.expected(stage.prepare(setting()), jnp.ones(DIM, jnp.float32), jnp.float32(4))
    assert np.all(mean == 0.5) and variance == 1.0
    assert stage.decoded_variance(stage.prepare(setting()), np.float64(1.0)) == 4.0


@pytest.mark.parametrize("stage", [CLIP, LIMIT, Weight(factor=2.0)], ids=lambda stage: stage.kind)
def test_integers_are_refused_in_one_line(stage):
    with pytest.raises(ValueError, match=r"^integer vectors reach it .*, allowed are real ones; put it before .*$"):
        stage.prepare(setting(step=0.5))


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_bounds_are_positive(bad):
    with pytest.raises(ValueError, match="norm"):
        Clip(norm=bad)
