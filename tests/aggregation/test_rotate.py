"""The rotation is orthonormal, public, and its own inverse, in both libraries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from jaxaudit.aggregation.rotate import Rotate, hadamard, padded
from jaxaudit.aggregation.stage import UNBOUNDED, Norms, Setting
from jaxaudit.random import Ticket

pytestmark = pytest.mark.usefixtures("strict")
TICKET = Ticket(jnp.uint32(1), jnp.uint32(2), jnp.uint32(3))
DIM, SIZE = 11, 16
STAGE = Rotate(seed=5)
vectors = st.lists(st.floats(-8, 8, width=32), min_size=DIM, max_size=DIM)


def setting(dim=DIM, norms=UNBOUNDED, step=0.0):
    return Setting(dim, 10, norms, ring_bits=32, step=step)


PARAMS = STAGE.prepare(setting())
turn = jax.jit(lambda vector: STAGE.encode(PARAMS, vector, TICKET))
turn_back = jax.jit(lambda total: STAGE.decode(PARAMS, total, 3))


def exact(signs):
    """The rotation as a matrix, from SciPy."""
    size = padded(len(signs))
    return scipy.linalg.hadamard(size)[:, : len(signs)] * signs / np.sqrt(size)


@pytest.mark.parametrize("size", [1, 2, 8, 64])
def test_transform_is_the_hadamard_matrix_in_both_libraries(size):
    matrix = scipy.linalg.hadamard(size) / np.sqrt(size)
    for library, precision, close in ((np, np.float64, 1e-15), (jnp, jnp.float32, 1e-6)):
        found = np.stack([hadamard(row) for row in library.eye(size, dtype=precision)])
        assert found.dtype == precision
        np.testing.assert_allclose(found, matrix, atol=close)


def test_known_answer():
    np.testing.assert_array_equal(hadamard(np.array([1.0, 2.0, 3.0, 5.0])), [5.5, -1.5, -2.5, 0.5])


@given(vectors)
def test_encoding_is_the_matrix_with_signs(vector):
    sent = np.asarray(turn(jnp.asarray(vector, jnp.float32)))
    assert sent.shape == (SIZE,)
    np.testing.assert_allclose(sent, exact(PARAMS.signs) @ np.float64(vector), atol=2e-6 * (1 + np.abs(vector).max()))


@given(vectors)
def test_decoding_undoes_encoding_in_both_libraries(vector):
    sent = turn(jnp.asarray(vector, jnp.float32))
    np.testing.assert_allclose(turn_back(sent), np.float32(vector), atol=1e-5)
    rows = exact(PARAMS.signs) @ np.float64(vector)
    decoded = STAGE.decode(PARAMS, rows, 3)
    assert decoded.dtype == np.float64
    np.testing.assert_allclose(decoded, vector, atol=1e-13)


@given(vectors)
def test_norms_of_the_float32_vector_are_within_what_follows(vector):
    whole = np.float32(vector).astype(np.float64)
    after = STAGE.after(setting(norms=Norms(*(np.linalg.norm(whole, order) for order in (1, 2, np.inf))))).norms
    sent = np.asarray(turn(jnp.asarray(vector, jnp.float32))).astype(np.float64)
    assert all(np.linalg.norm(sent, order) <= norm for order, norm in zip((1, 2, np.inf), after))


def test_what_follows_has_the_padded_size():
    after = STAGE.after(setting(norms=Norms(9.0, 3.0, 1.0)))
    assert after.dim == SIZE
    np.testing.assert_allclose(after.norms, (12.0, 3.0, 3.0), rtol=1e-6)


def test_mean_and_variances_are_those_of_the_matrix():
    rng = np.random.default_rng(0)
    vector, variance = rng.standard_normal(DIM), rng.random(DIM)
    mean, spread = STAGE.expected(PARAMS, *(jnp.asarray(one, jnp.float32) for one in (vector, variance)))
    matrix = exact(PARAMS.signs)
    np.testing.assert_allclose(mean, matrix @ vector, atol=1e-5)
    np.testing.assert_allclose(np.broadcast_to(spread, SIZE), matrix**2 @ variance, rtol=1e-5)
    _, same = STAGE.expected(PARAMS, jnp.asarray(vector, jnp.float32), jnp.float32(2))
    np.testing.assert_allclose(same, 2 * DIM / SIZE, rtol=1e-6)
    back = rng.random(SIZE)
    np.testing.assert_allclose(STAGE.decoded_variance(PARAMS, back), (matrix.T**2) @ back, rtol=1e-12)
    np.testing.assert_allclose(STAGE.decoded_variance(PARAMS, jnp.float32(3)), np.full(DIM, 3.0))


def test_signs_come_from_the_seed_alone():
    # False alarm: P(a fair coin leaves its mean by 0.1 in 4096 tosses) < 2e-10.
    wide = setting(4096)
    signs = Rotate(seed=5).prepare(wide).signs
    np.testing.assert_array_equal(signs, Rotate(seed=5).prepare(wide).signs)
    assert set(signs) == {-1.0, 1.0} and abs(signs.mean()) < 0.1
    assert abs((signs * Rotate(seed=6).prepare(wide).signs).mean()) < 0.1


def test_a_million_entries_come_back():
    dim = 10**6
    params, vector = STAGE.prepare(setting(dim)), np.random.default_rng(1).standard_normal(dim).astype(np.float32)
    sent = jax.jit(lambda vector: STAGE.encode(params, vector, TICKET))(vector)
    length = np.linalg.norm(vector.astype(np.float64))
    assert np.linalg.norm(np.float64(sent)) <= STAGE.after(setting(dim, Norms(np.inf, length, np.inf))).norms.l2
    np.testing.assert_allclose(STAGE.decode(params, np.float64(sent), 1), vector, atol=1e-5)


def test_integers_are_refused_in_one_line():
    with pytest.raises(ValueError, match=r"^integer vectors reach it .*; put it before fixed_point$"):
        STAGE.prepare(setting(step=0.5))
