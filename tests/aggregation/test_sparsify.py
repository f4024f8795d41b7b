"""Exactly k entries are sent, and what is remembered is sent later."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from jaxaudit.aggregation.sparsify import RandomK, TopK
from jaxaudit.aggregation.stage import UNBOUNDED, Norms, Setting
from jaxaudit.random import Ticket

pytestmark = pytest.mark.usefixtures("strict")
DIM, TRIALS = 6, 60_000
TOP, RANDOM = TopK(k=2), RandomK(k=2)
vectors = st.lists(st.integers(-5, 5).map(float), min_size=DIM, max_size=DIM)


def setting(dim=DIM, norms=UNBOUNDED, step=0.0):
    return Setting(dim, 10, norms, ring_bits=32, step=step)


@partial(jax.jit, static_argnums=0)
def encodings(stage, params, vector, trials):
    def one(trial):
        return stage.encode(params, vector, Ticket(jnp.uint32(1), jnp.uint32(2), trial))

    return jax.vmap(one)(trials)


def encoded(stage, vector, trials=1):
    numbers = jnp.arange(trials, dtype=jnp.uint32)
    return np.asarray(encodings(stage, stage.prepare(setting()), jnp.asarray(vector, jnp.float32), numbers))


def test_top_k_keeps_the_largest_magnitudes_and_of_equal_ones_the_first():
    np.testing.assert_array_equal(encoded(TOP, [1, -9, 3, 2, -3, 0])[0], [0, -9, 3, 0, 0, 0])
    np.testing.assert_array_equal(encoded(TOP, [0, 2, -2, 2, 2, 0])[0], [0, 2, -2, 0, 0, 0])


@given(vectors)
def test_top_k_is_the_best_vector_of_k_entries(vector):
    kept = sorted(range(DIM), key=lambda place: (-abs(vector[place]), place))[:2]
    expected = [value if place in kept else 0.0 for place, value in enumerate(vector)]
    np.testing.assert_array_equal(encoded(TOP, vector)[0], expected)


def test_random_k_draws_every_pair_equally_often():
    sent = encoded(RANDOM, np.ones(DIM), TRIALS) != 0
    np.testing.assert_array_equal(sent.sum(axis=1), 2)
    pairs = sent @ (1 << np.arange(DIM))
    counts = np.unique(pairs, return_counts=True)[1]
    assert counts.size == 15
    expected = TRIALS / 15
    # False alarm 1e-6; seed fixed.
    assert ((counts - expected) ** 2 / expected).sum() < chi2.isf(1e-6, 14)


def test_random_k_has_the_mean_and_variance_that_it_says():
    vector = np.array([1.0, -2.0, 3.0, 0.5, 0.0, 7.0])
    sent = encoded(RANDOM, vector, TRIALS)
    params = RANDOM.prepare(setting())
    mean, variance = RANDOM.expected(params, jnp.asarray(vector, jnp.float32), jnp.float32(0))
    np.testing.assert_allclose(mean, vector, rtol=1e-6)
    # Of share 1/3 and scale 3: 9 (1/3 - 1/9) x² = 2 x², and 3 for each unit of incoming variance.
    np.testing.assert_allclose(variance, 2 * vector**2, rtol=1e-5)
    np.testing.assert_allclose(RANDOM.expected(params, jnp.zeros(DIM, jnp.float32), jnp.float32(1))[1], 3, rtol=1e-5)
    # Bounds of 6 standard errors (8 for the variance: a coin of 1/3 has kurtosis 1.5): false alarm < 1e-7 in all.
    error = 6 * np.sqrt(2 * vector**2 / TRIALS)
    assert np.all(np.abs(sent.mean(axis=0) - vector) <= error)
    assert np.all(np.abs(sent.var(axis=0) - 2 * vector**2) <= 6 * 2 * vector**2 / np.sqrt(TRIALS))


def test_unscaled_random_k_sends_entries_as_they_are():
    sent = encoded(RandomK(k=2, scaled=False), np.arange(1.0, 7.0))[0]
    assert set(sent[sent != 0]) <= set(np.arange(1.0, 7.0))


@pytest.mark.parametrize("stage", [TopK(k=2, error_feedback=True), RandomK(k=2, error_feedback=True)])
def test_what_is_sent_and_what_is_remembered_add_up(stage):
    params = stage.prepare(setting())
    updates = np.random.default_rng(0).integers(-50, 50, (5, DIM)).astype(np.float32)
    memory, total = jnp.zeros(DIM, jnp.float32), np.zeros(DIM)
    for in_round, update in enumerate(updates):
        ticket = Ticket(jnp.uint32(1), jnp.uint32(2), jnp.uint32(in_round))
        sent, memory = stage.encode_with_memory(params, jnp.asarray(update), memory, ticket)
        assert np.count_nonzero(sent) <= 2
        total += np.asarray(sent)
        np.testing.assert_array_equal(total + np.asarray(memory), updates[: in_round + 1].sum(axis=0))


@pytest.mark.parametrize("stage", [TopK(k=2, error_feedback=True), RandomK(k=2, error_feedback=True)])
def test_without_memory_error_feedback_changes_nothing_but_norms(stage):
    params, vector = stage.prepare(setting()), jnp.arange(DIM, dtype=jnp.float32)
    ticket = Ticket(jnp.uint32(1), jnp.uint32(2), jnp.uint32(3))
    sent, _ = stage.encode_with_memory(params, vector, jnp.zeros(DIM, jnp.float32), ticket)
    np.testing.assert_array_equal(sent, stage.encode(params, vector, ticket))
    assert stage.after(setting(norms=Norms(1.0, 1.0, 1.0))).norms == UNBOUNDED


@given(vectors)
def test_norms_are_within_what_follows(vector):
    norms = Norms(*(np.linalg.norm(vector, order) for order in (1, 2, np.inf)))
    for stage in (TOP, RANDOM):
        after, sent = stage.after(setting(norms=norms)).norms, encoded(stage, vector)[0].astype(np.float64)
        # np.linalg.norm rounds.
        assert all(np.linalg.norm(sent, order) <= norm * (1 + 1e-15) for order, norm in zip((1, 2, np.inf), after))


def test_norms_of_sparse_vectors():
    assert TOP.after(setting(norms=Norms(6.0, np.inf, 1.0))).norms == Norms(2.0, np.sqrt(2), 1.0)
    np.testing.assert_allclose(RANDOM.after(setting(norms=Norms(6.0, np.inf, 1.0))).norms, (6, 18**0.5, 3), rtol=1e-5)


def test_top_k_expects_what_it_encodes():
    vector = jnp.asarray([1, -9, 3, 2, -3, 0], jnp.float32)
    mean, variance = TOP.expected((), vector, jnp.float32(2))
    np.testing.assert_array_equal(mean, encoded(TOP, vector)[0])
    np.testing.assert_array_equal(variance, [0, 2, 2, 0, 0, 0])


@pytest.mark.parametrize("kind", [TopK, RandomK])
def test_what_does_not_fit_is_refused_in_one_line(kind):
    with pytest.raises(ValueError, match=r"^k is 7, allowed are 1 to 6 \(entries of a vector\); keep fewer$"):
        kind(k=7).prepare(setting())
    with pytest.raises(ValueError, match=r"^integer vectors reach it .*; put it before fixed_point$"):
        kind(k=2).prepare(setting(step=1.0))
    with pytest.raises(ValueError, match="k"):
        kind(k=0)
