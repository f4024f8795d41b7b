"""Words are addressed, not drawn: published vectors, exact index maps, laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.extend.random import threefry_2x32
from scipy import stats

from jaxaudit import config
from jaxaudit.random import (
    MAX_ROUNDS,
    MAX_TRIALS,
    STREAMS,
    Ticket,
    index_below,
    normals,
    numbered,
    of_round,
    threefry2x32,
    unit_circle,
    words,
)

u32 = st.integers(0, 2**32 - 1)


def ticket(seed=0, stream=0, trial=0):
    return Ticket(jnp.uint32(seed), jnp.uint32(stream), jnp.uint32(trial))


# Random123, file kat_vectors, lines "threefry2x32 20".
@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_equals_its_published_vectors(key, counter, expected):
    found = threefry2x32(*(tuple(jnp.uint32(x) for x in pair) for pair in (key, counter)))
    assert tuple(int(word) for word in found) == expected


def test_threefry_equals_the_generator_of_jax():
    counters = np.arange(64, dtype=np.uint32)
    ours = threefry2x32((jnp.uint32(7), jnp.uint32(11)), (jnp.asarray(counters[:32]), jnp.asarray(counters[32:])))
    theirs = threefry_2x32(jnp.array([7, 11], jnp.uint32), jnp.asarray(counters))
    np.testing.assert_array_equal(np.concatenate(ours), theirs)


def test_words_are_one_array_wherever_it_is_cut():
    whole = words(ticket(1, 2, 3), 0, 20)
    np.testing.assert_array_equal(words(ticket(1, 2, 3), 6, 7), whole[6:13])


@given(seed=u32, stream=u32, trial=u32)
def test_word_is_the_block_function_at_its_address(seed, stream, trial):
    pair = threefry2x32((jnp.uint32(seed), jnp.uint32(stream)), (jnp.uint32(trial), jnp.uint32(5)))
    np.testing.assert_array_equal(words(ticket(seed, stream, trial), 10, 2), jnp.stack(pair))


def test_streams_are_distinct():
    first = [int(words(ticket(0, stream, 0), 0, 1)[0]) for stream in STREAMS.values()]
    assert len(set(STREAMS.values())) == len(set(first)) == len(STREAMS)


@given(
    stream=st.sampled_from(sorted(STREAMS.values())),
    in_round=st.integers(0, MAX_ROUNDS - 1),
    trial=st.integers(0, MAX_TRIALS - 1),
)
def test_stream_round_and_trial_can_be_read_from_the_address(stream, in_round, trial):
    """So no two of them share a word: 8 bits of stream, 12 of round, 44 of trial."""
    of_trial = numbered(jnp.uint32(9), jnp.uint32(stream), jnp.uint32(trial >> 32), jnp.uint32(trial % 2**32))
    found = of_round(of_trial, jnp.uint32(in_round))
    key, low = int(found.stream), int(found.trial)
    assert int(found.seed) == 9 and found.stream.dtype == found.trial.dtype == jnp.uint32
    assert (key % 2**8, key >> 8 & 2**12 - 1, (key >> 20 << 32) + low) == (stream, in_round, trial)


def test_streams_and_trials_fit_in_an_address():
    assert all(0 < stream < 2**8 for stream in STREAMS.values())
    assert config.MAX_TRIALS < MAX_TRIALS


def test_the_first_round_and_the_first_trials_have_the_plain_address():
    first = numbered(jnp.uint32(1), jnp.uint32(2), jnp.uint32(0), jnp.uint32(3))
    assert tuple(map(int, of_round(first, jnp.uint32(0)))) == (1, 2, 3)


@given(word=u32, bound=st.integers(1, 2**32 - 1))
def test_index_is_the_high_half_of_the_product(word, bound):
    assert int(index_below(jnp.uint32(word), jnp.uint32(bound))) == word * bound >> 32


def test_indices_are_uniform():
    draws = index_below(words(ticket(seed=5), 0, 1_000_000), jnp.uint32(1000))
    counts = np.bincount(np.asarray(draws), minlength=1000)
    assert stats.chisquare(counts).pvalue > 1e-6  # false alarm 1e-6


@pytest.fixture(scope="module")
def many_normals():
    draw = jax.jit(jax.vmap(lambda trial: normals(Ticket(jnp.uint32(3), jnp.uint32(0), trial), 0, 1024)))
    blocks = [np.asarray(draw(jnp.arange(8192, dtype=jnp.uint32) + 8192 * i)).reshape(-1) for i in range(8)]
    return np.concatenate(blocks)


def test_normals_follow_their_law(many_normals):
    # Kolmogorov-Smirnov on 1e6 of them; false alarm 1e-6.
    assert stats.kstest(many_normals[:1_000_000], "norm").pvalue > 1e-6


@pytest.mark.parametrize("sigma", [4.0, 4.5, 5.0, 5.3])
def test_normals_have_tails_where_float32_normals_end(many_normals, sigma):
    # Two-sided count in 6.7e7 draws against the binomial; false alarm 1e-6.
    beyond = int(np.sum(np.abs(many_normals) > sigma))
    assert stats.binomtest(beyond, many_normals.size, 2 * stats.norm.sf(sigma)).pvalue > 1e-6


def test_unit_circle_is_sine_and_cosine():
    words = np.arange(0, 2**32, 99_991, dtype=np.uint64)
    angle = 2 * np.pi * (words.astype(np.float64) / 2**32) - np.pi / 4
    sine, cosine = unit_circle(jnp.asarray(words, jnp.uint32))
    # float32 polynomials: two units in the last place of 1.
    np.testing.assert_allclose(sine, np.sin(angle), atol=2.4e-7)
    np.testing.assert_allclose(cosine, np.cos(angle), atol=2.4e-7)


def test_the_two_normals_of_a_block_are_uncorrelated(many_normals):
    pairs = many_normals[:2_097_152].astype(np.float64).reshape(-1, 2, 512).transpose(0, 2, 1).reshape(-1, 2)
    # The correlation of independent pairs is N(0, 1/n); five standard deviations, false alarm 6e-7.
    assert abs(np.mean(pairs[:, 0] * pairs[:, 1])) < 5 / np.sqrt(len(pairs))
