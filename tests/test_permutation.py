"""A keyed permutation is a bijection whatever the key, and its images are a sample without replacement."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from jaxaudit.permutation import permute, permuted, round_keys, rounds
from jaxaudit.random import Ticket, words

u32 = st.integers(0, 2**32 - 1)

WIDTH = 8192
# All statistical tests of this file together raise a false alarm once in a million seeds: 78 p-values.
LEVEL = 1e-6 / 78


def ticket(seed=0, stream=0, trial=0):
    return Ticket(jnp.uint32(seed), jnp.uint32(stream), jnp.uint32(trial))


def square(size):
    """The grid: the fewest columns that are no fewer than the rows, and the cells in the last row."""
    columns = int(np.ceil(np.sqrt(size)))
    rows = -(-size // columns)
    return rows, columns, size - (rows - 1) * columns


def by_definition(keys, index, size, bits):
    """The permutation of one index in Python integers, by words of so many bits."""
    rows, columns, last = square(size)
    row, column = divmod(index, columns)
    shift, multiplier = {16: (7, 0x2C1B), 32: (15, 0x735A2D97)}[bits]

    def amount(line, key, length):
        factor, summand = key
        word = (factor * line + summand) % 2**bits
        word = (word ^ word >> shift) * multiplier % 2**bits
        return word * length >> bits

    for number, key in enumerate(keys):
        if number % 2 == 0:
            height = rows if column < last else rows - 1
            row = (row + amount(column, key, height)) % height
        else:
            width = columns if row < rows - 1 else last
            column = (column + amount(row, key, width)) % width
    return row * columns + column


def keys_of(numbers, bits):
    """Factors and summands, from an array whose last axis has both."""
    return [tuple(jnp.asarray(one[..., part], f"uint{bits}") for part in (0, 1)) for one in numbers]


@pytest.mark.parametrize("size", [1, 2, 3, 12, 97, 10_000, 10_007, 65_535, 65_536])
def test_permutation_by_short_words_equals_its_definition(size, strict):
    equals_its_definition(size, 16)


@pytest.mark.parametrize("size", [2, 97, 65_536, 65_537, 100_000, 2**31 - 1, 2**31])
def test_permutation_by_long_words_equals_its_definition(size, strict):
    equals_its_definition(size, 32)


def equals_its_definition(size, bits):
    rng = np.random.default_rng(size)
    keys, index = rng.integers(0, 2**bits, (rounds(size), 2)), rng.integers(0, size, 64)
    keys[:2], index[:2] = [[0, 2**bits - 1], [2**bits - 1, 2**bits - 1]], [0, size - 1]
    expected = [by_definition(keys.tolist(), int(i), size, bits) for i in index]
    row, column = (jnp.asarray(part, jnp.uint32) for part in np.divmod(index, square(size)[1]))
    found = permute(keys_of(keys, bits), row, column, size)
    assert found.dtype == jnp.uint32
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("size", "bits"), [(97, 16), (65_536, 16), (65_537, 32), (2**31, 32)])
def test_a_ticket_permutes_by_its_own_words(size, bits, strict):
    """A word is factor and summand where both are short, two words are where they are long."""
    index, number = np.array([0, 1, size // 2, size - 1]), rounds(size)
    drawn = np.asarray(words(ticket(5, 6, 7), 8, number * bits // 16)).tolist()
    keys = [(w % 2**16, w >> 16) for w in drawn] if bits == 16 else list(zip(drawn[::2], drawn[1::2]))
    expected = [by_definition(keys, int(i), size, bits) for i in index]
    look = jax.jit(permuted, static_argnums=3)
    images = look(ticket(5, 6, 7), jnp.uint32(8), jnp.asarray(index, jnp.uint32), size)
    np.testing.assert_array_equal(images, expected)


@pytest.mark.parametrize(("bits", "sizes"), [(16, range(1, 301)), (32, range(1, 50))])
def test_it_is_a_bijection_for_every_size_and_key(bits, sizes, strict):
    rng = np.random.default_rng(0)
    index = np.arange(len(sizes))
    for size in sizes:
        # A round is a bijection or it is not: four of them show it.
        keys = rng.integers(0, 2**bits, (4, 3, 1, 2))
        keys[:, 0] = rng.choice([0, 2**bits - 1], (4, 1, 2))
        # One shape for all sizes: indices beyond the size repeat.
        row, column = (jnp.asarray(part, jnp.uint32) for part in np.divmod(index[None] % size, square(size)[1]))
        for image in np.asarray(permute(keys_of(keys, bits), row, column, size)):
            np.testing.assert_array_equal(np.sort(image[:size]), index[:size])


@pytest.mark.parametrize("size", [9_973, 10_000, 65_535, 65_536, 65_537, 1_000_003])
def test_it_is_a_bijection_of_large_pools(size, strict):
    images = jax.jit(permuted, static_argnums=3)(ticket(1, 2, 3), jnp.uint32(8), jnp.arange(size), size)
    assert images.dtype == jnp.int32
    np.testing.assert_array_equal(np.sort(images), np.arange(size))


@pytest.mark.parametrize("size", [0, -1, 2**31 + 1])
def test_sizes_without_a_grid_are_refused(size):
    with pytest.raises(ValueError, match=r"size must be in \[1, 2\^31\]"):
        permuted(ticket(), 0, jnp.arange(1), size)


@jax.jit
def three_looks(seed, trial):
    look = partial(permuted, Ticket(seed, jnp.uint32(1), trial), jnp.uint32(6), size=1000)
    return look(jnp.arange(12)), look(jnp.arange(4, 7)), look(jnp.arange(12, dtype=jnp.uint32).reshape(3, 4))


@given(seed=u32, trial=u32)
def test_images_are_addressed_whatever_is_looked_at(seed, trial):
    whole, part, folded = three_looks(jnp.uint32(seed), jnp.uint32(trial))
    np.testing.assert_array_equal(part, whole[4:7])
    np.testing.assert_array_equal(folded, whole.reshape(3, 4))


def test_images_do_not_depend_on_the_block(strict):
    def one(trial):
        return permuted(Ticket(jnp.uint32(5), jnp.uint32(2), trial), 0, jnp.arange(60), 9_998)

    block, trials = jax.jit(jax.vmap(one)), jnp.arange(64, dtype=jnp.uint32)
    whole = block(trials)
    np.testing.assert_array_equal(np.concatenate([block(trials[i : i + 16]) for i in range(0, 64, 16)]), whole)
    np.testing.assert_array_equal(jax.jit(one)(trials[33]), whole[33])


def rotate_pairs(law, lines):
    """The law of a pair, p[x, y], after every line was rotated by an independent uniform amount."""
    share = np.zeros((len(law), len(lines)))
    for number, line in enumerate(lines):
        share[line, number] = 1 / len(line)
    inside = (share > 0).astype(float)
    moved = share @ (inside.T @ law @ inside) @ share.T
    for line in lines:
        # Two in one line keep their cyclic distance.
        places = np.arange(len(line))
        block = law[np.ix_(line, line)]
        by_distance = np.array([block[places, (places + d) % len(line)].mean() for d in places])
        moved[np.ix_(line, line)] = by_distance[(places[None, :] - places[:, None]) % len(line)]
    return moved


@pytest.mark.parametrize("size", [2, 3, 5, 7, 12, 13, 50, 101])
def test_ideal_rotations_make_pairs_uniform(size):
    columns = square(size)[1]
    # range() stops short in the last row by itself.
    across = [list(range(c, size, columns)) for c in range(columns)]
    along = [list(range(r, min(r + columns, size))) for r in range(0, size, columns)]
    uniform = (1 - np.eye(size)) / (size * (size - 1))
    for first, second in {(0, 1), (0, columns % size), (size - 1, 0), (size - 1, size - 2)} - {(0, 0)}:
        law = np.zeros((size, size))
        law[first, second] = 1
        for number in range(rounds(size)):
            law = rotate_pairs(law, along if number % 2 else across)
        assert np.abs(law - uniform).sum() / 2 < 1.2e-6


@partial(jax.jit, static_argnums=0)
def image_of(size, slot, seed):
    """Image of one index in 1e6 trials. One at a time: an axis of two is too short for vector instructions."""

    def block(start):
        return jax.vmap(lambda trial: permuted(Ticket(seed, jnp.uint32(0), trial), 0, slot, size))(
            start + jnp.arange(WIDTH, dtype=jnp.uint32)
        )

    return jax.lax.map(block, jnp.arange(128, dtype=jnp.uint32) * jnp.uint32(WIDTH)).reshape(-1)


@cache
def images(size, slot, seed):
    return np.asarray(image_of(size, jnp.int32(slot), jnp.uint32(seed)))


@pytest.mark.parametrize("size", [5, 12, 13, 37])
def test_pairs_of_a_small_pool_are_uniform(size):
    # All size · (size - 1) ordered pairs.
    counts = np.bincount(images(size, 0, 1) * size + images(size, 1, 1), minlength=size**2).reshape(size, size)
    assert not np.diag(counts).any()
    assert stats.chisquare(counts[~np.eye(size, dtype=bool)]).pvalue > LEVEL


@pytest.mark.parametrize("neighbour", ["trial", "seed"])
def test_neighbouring_tickets_are_independent(neighbour):
    # Where the first client goes under one ticket and under the next: all 144 pairs.
    here = images(12, 0, 1)
    one, other = (here[::2], here[1::2]) if neighbour == "trial" else (here, images(12, 0, 2))
    assert stats.chisquare(np.bincount(one * 12 + other, minlength=144)).pvalue > LEVEL


def populations(size):
    """Pools of clients that are counted or not, arranged along and against the grid."""
    columns = square(size)[1]
    row, column = np.divmod(np.arange(size), columns)
    return {
        "first half": np.arange(size) < size // 2,
        "even": np.arange(size) % 2 == 0,
        "columns": column < columns // 2,
        "rows": row % 10 < 5,
        "diagonal": (row + column) % columns < columns // 2,
        "random": np.random.default_rng(0).random(size) < 0.3,
    }


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def packed_counts(size, sample, number, blocks, packed):
    """How many of each population are in a trial's sample after so many rounds: three counts of 10 bits a word."""
    columns = jnp.uint32(square(size)[1])

    def one(trial):
        keys = round_keys(Ticket(jnp.uint32(4), jnp.uint32(0), trial), 0, size)[:number]
        slots = jnp.arange(sample, dtype=jnp.uint32)
        images = permute(keys, slots // columns, slots % columns, size)

        def add(slot, total):
            return total + packed.at[images[slot]].get(mode="promise_in_bounds")

        return jax.lax.fori_loop(0, sample, add, jnp.zeros(2, jnp.uint32))

    def block(start):
        return jax.vmap(one)(start + jnp.arange(WIDTH, dtype=jnp.uint32))

    starts = jnp.arange(blocks, dtype=jnp.uint32) * jnp.uint32(WIDTH)
    return jax.lax.map(block, starts).reshape(blocks * WIDTH, 2)


@cache
def counts(size, sample, number, blocks):
    """i64[populations, trials]."""
    pools = np.array(list(populations(size).values()), np.uint32).reshape(2, 3, size)
    shifts = np.array([0, 10, 20], np.uint32)
    packed = (pools << shifts[:, None]).sum(1, dtype=np.uint32).T
    found = np.asarray(packed_counts(size, sample, number, blocks, jnp.asarray(packed)))
    return (found.T[:, None, :] >> shifts[:, None] & 1023).reshape(6, -1).astype(np.int64)


def hypergeometric_pvalues(size, sample, number, blocks):
    """p-value of each population's counts against their law; tails pooled to 20 expected trials or more."""
    pvalues = {}
    for (name, pool), found in zip(populations(size).items(), counts(size, sample, number, blocks)):
        expected = len(found) * stats.hypergeom(size, int(pool.sum()), sample).pmf(np.arange(sample + 1))
        often = np.flatnonzero(expected >= 20)
        low, high = often[0], often[-1]
        observed = np.bincount(np.clip(found, low, high), minlength=high + 1)[low:]
        law = expected[low : high + 1].copy()
        law[0], law[-1] = expected[: low + 1].sum(), expected[high:].sum()
        pvalues[name] = stats.chisquare(observed, law * (observed.sum() / law.sum())).pvalue
    return pvalues


# Blocks of 8,192 trials.
SAMPLES = [
    (100, 50, 64),
    (9_973, 60, 48),
    (9_973, 1000, 12),
    (10_000, 60, 48),
    (10_000, 1000, 12),
    (100_000, 60, 48),
]


@pytest.mark.parametrize(("size", "sample", "blocks"), SAMPLES)
def test_counts_over_structured_pools_are_hypergeometric(size, sample, blocks):
    pvalues = hypergeometric_pvalues(size, sample, rounds(size), blocks)
    assert min(pvalues.values()) > LEVEL, pvalues


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize(("size", "sample", "blocks"), SAMPLES[-3:])
def test_the_same_test_finds_too_few_rounds(size, sample, blocks, number):
    assert min(hypergeometric_pvalues(size, sample, number, blocks).values()) < LEVEL**2


@pytest.mark.parametrize(("size", "sample", "blocks"), SAMPLES)
def test_consecutive_trials_are_uncorrelated(size, sample, blocks):
    found = counts(size, sample, rounds(size), blocks)
    for trials in found:
        assert stats.pearsonr(trials[:-1], trials[1:]).pvalue > LEVEL
