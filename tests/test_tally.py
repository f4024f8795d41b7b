"""Scores become keys, thresholds become cuts, and keys are counted between cuts: exactly, whatever lies where."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxaudit.tally import INVALID, count, cuts_of, disordered, first_key, gaps, ordered

# In float32: the smallest subnormal, the largest, the smallest normal, the largest.
TINY, UNDER, NORMAL, LARGEST = np.array([1, 0x7FFFFF, 0x800000, 0x7F7FFFFF], np.uint32).view(np.float32)
LAST = 0x7F7FFFFF
KEYS = 512
count_of, gaps_of, keys_of = jax.jit(count), jax.jit(gaps), jax.jit(ordered)


# Keys


def test_keys_of_some_scores():
    """Bits of positive numbers as they are; of negative ones, counted down from minus one."""
    found = keys_of(np.array([1, -1, 0, LARGEST, -LARGEST, NORMAL, -NORMAL], np.float32))
    assert found.dtype == jnp.int32
    assert found.tolist() == [0x3F800000, -0x3F800001, 0, LAST, -LAST - 1, 0x800000, -0x800001]


@pytest.mark.parametrize("score", [np.nan, -np.nan, np.inf, -np.inf])
def test_scores_that_are_no_number_have_the_smallest_key(score):
    scores = np.array([score, -LARGEST, LARGEST], np.float32)
    found = np.asarray(keys_of(scores))
    assert found[0] == INVALID < found[1] < found[2]
    assert np.isnan(disordered(found)[0])


def test_every_bit_pattern_that_is_no_finite_number_is_invalid():
    bits = np.random.default_rng(0).integers(0, 2**23, KEYS, dtype=np.uint32) | np.uint32(0x7F800000)
    for sign in (0, 0x80000000):
        np.testing.assert_array_equal(keys_of((bits | np.uint32(sign)).view(np.float32)), INVALID)


def test_both_zeros_have_one_key():
    """A threshold at 0 would tell them apart, and the sign of a zero may tell the bit."""
    assert keys_of(np.array([0.0, -0.0], np.float32)).tolist() == [0, 0]
    assert disordered(np.zeros(1, np.int32)).tolist() == [0.0]


def test_keys_are_in_the_order_of_scores():
    """Among neighbours, and on both sides of zero, where a processor may flush subnormal numbers to it."""
    steps = np.array([TINY, 3 * TINY, UNDER, NORMAL, 1e-30, 1, np.nextafter(np.float32(1), np.float32(2)), 1e30])
    scores = np.concatenate([-steps[::-1], [0], steps, [LARGEST]]).astype(np.float32)
    assert np.all(np.diff(scores.astype(np.float64)) > 0)
    assert np.all(np.diff(np.asarray(keys_of(scores), np.int64)) > 0)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=8, max_size=8))
def test_keys_keep_every_score_and_every_order(scores):
    scores = np.array(scores, np.float32)
    keys = np.asarray(keys_of(scores))
    np.testing.assert_array_equal(disordered(keys), scores.astype(np.float64))
    np.testing.assert_array_equal(np.argsort(keys, kind="stable"), np.argsort(scores, kind="stable"))


def test_disordered_inverts_keys_over_the_whole_range():
    keys = np.linspace(-LAST - 1, LAST, 100_003).astype(np.int64).astype(np.int32)
    scores = disordered(keys)
    assert scores.dtype == np.float64 and np.all(np.diff(scores) >= 0) and np.isfinite(scores).all()
    # -1 is the pattern of minus zero, which the device never makes.
    np.testing.assert_array_equal(keys_of(scores.astype(np.float32)), np.where(keys == -1, 0, keys))


# First keys

EDGES = [-LAST - 1, -LAST, -1_000_003, -2, -1, 0, 1, 2, 77, 2**30, LAST - 1, LAST]


def test_the_first_key_is_where_a_condition_begins_to_hold():
    target = np.array(EDGES).reshape(3, 4)
    found = first_key(lambda keys: keys >= target, target.shape)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, target)


def test_a_condition_that_always_or_never_holds_has_a_first_key_too():
    wanted = np.array([True, False])
    assert first_key(lambda keys: wanted, (2,)).tolist() == [-LAST - 1, LAST + 1]


def test_a_condition_is_only_asked_about_keys_of_finite_scores():
    asked = []

    def never(keys):
        asked.append(keys)
        return np.zeros(keys.shape, bool)

    first_key(never, (3,))
    assert all(keys.dtype == np.int32 and keys.max() <= LAST for keys in asked)


@pytest.mark.parametrize("strictly", [False, True])
@given(st.lists(st.floats(-1e39, 1e39), min_size=1, max_size=6))
def test_the_first_key_beyond_a_threshold_is_that_of_brute_force(strictly, thresholds):
    """The float32 numbers around each threshold, one by one."""
    thresholds = np.array(thresholds)
    beyond = np.greater if strictly else np.greater_equal
    found = first_key(lambda keys: beyond(disordered(keys), thresholds), thresholds.shape)
    for threshold, first in zip(thresholds, found):
        with np.errstate(over="ignore"):
            near = int(ordered_by_hand(np.clip(np.float32(threshold), -LARGEST, LARGEST)))
        window = np.clip(np.arange(near - 9, near + 10), -LAST - 1, LAST)
        holds = beyond(disordered(window), threshold)
        assert first == (window[holds][0] if holds.any() else LAST + 1)


def ordered_by_hand(score):
    """How many steps of float32 lie between zero and a score."""
    bits = int(np.float32(abs(score)).view(np.uint32))
    return bits if score >= 0 else -bits - 1


# Gaps and counts


def by_hand(cuts, keys):
    """i64[2, columns, n] of keys i32[n, 2, columns]: the cuts at or below each key, that of `INVALID` being one."""
    every = np.moveaxis(np.asarray(keys, np.int64), 0, -1)
    found = [
        [np.searchsorted([INVALID + 1, *own], k, side="right") for own, k in zip(*one)] for one in zip(cuts, every)
    ]
    return np.array(found)


def agrees(cuts, keys, counted=None):
    """Gaps equal a search, and counts a histogram of them."""
    counted = np.ones((len(keys), 2), bool) if counted is None else counted
    table, expected = cuts_of(cuts), by_hand(cuts, keys)
    np.testing.assert_array_equal(gaps_of(table, np.moveaxis(keys, 0, -1)), expected)
    found, size = np.asarray(count_of(table, keys, counted)), table.keys.shape[2]
    assert found.shape == (2, keys.shape[2], size + 1)
    for bit in (0, 1):
        for column in range(keys.shape[2]):
            taken = expected[bit, column][counted[:, bit]]
            np.testing.assert_array_equal(found[bit, column], np.bincount(taken, minlength=size + 1))


def cuts_from(draw, columns=3):
    return [[np.unique(draw()).astype(np.int64) for _ in range(columns)] for _ in (0, 1)]


def keys_near(rng, cuts, columns=3):
    """Keys everywhere, at the cuts and beside them, invalid ones and the extremes: i32[n, 2, columns]."""
    keys = rng.integers(-LAST - 1, LAST + 1, (KEYS, 2, columns))
    for bit in (0, 1):
        for column in range(columns):
            own = np.asarray(cuts[bit][column])
            beside = rng.choice(own, KEYS * 3 // 4) + rng.integers(-2, 3, KEYS * 3 // 4)
            keys[: KEYS * 3 // 4, bit, column] = np.clip(beside, -LAST - 1, LAST)
    keys[-6:] = np.array([INVALID, -LAST - 1, LAST, 0, -1, INVALID])[:, None, None]
    return keys.astype(np.int32)


def test_counts_of_a_few_keys():
    keys = np.array([4, 5, 5, 6, 9, 10, 11, INVALID], np.int32)
    keys = np.stack([keys, keys[::-1]], axis=1)[:, :, None]
    found = count_of(cuts_of([[np.array([5, 10])], [np.array([5])]]), keys, np.ones((8, 2), bool))
    assert found[:, 0].tolist() == [[1, 1, 4, 2, 0], [1, 1, 6, 0, 0]]


DRAWS = {
    "one cut": lambda rng: [rng.integers(-(2**30), 2**30)],
    "one cut at the lowest key": lambda rng: [-LAST - 1],
    "one cut beyond the highest key": lambda rng: [LAST + 1],
    "cuts at the extremes": lambda rng: [-LAST - 1, -LAST, -1, 0, 1, LAST, LAST + 1],
    "spread": lambda rng: rng.integers(-LAST, LAST, 700),
    "clustered": lambda rng: np.concatenate([rng.integers(0, 900, 250), 10**9 + rng.integers(0, 90, 60), [-(2**30)]]),
    "consecutive": lambda rng: rng.integers(-(2**31) + 2**24, 2**30) + np.arange(600),
    "two clusters, far apart": lambda rng: np.concatenate([-LAST + np.arange(300), LAST - np.arange(300)]),
    "as many in every bin": lambda rng: np.arange(-512, 512) << 20,
    "of scores in one binade": lambda rng: 0x3F800000 + rng.integers(0, 2**23, 400),
    "uneven columns": lambda rng: rng.integers(-LAST, LAST, rng.choice([1, 2, 3, 4, 7, 8, 9, 500])),
}


@pytest.mark.parametrize("name", DRAWS)
def test_counts_are_those_of_a_histogram(name):
    rng = np.random.default_rng(len(name))
    for _ in range(3):
        cuts = cuts_from(partial(DRAWS[name], rng))
        agrees(cuts, keys_near(rng, cuts))


def test_hundreds_of_columns_are_counted_apart():
    rng = np.random.default_rng(3)
    cuts = cuts_from(lambda: rng.integers(-LAST, LAST, 3), columns=200)
    agrees(cuts, keys_near(rng, cuts, columns=200))


def test_equal_keys_are_all_counted():
    cuts = [[np.array([7])] * 3, [np.array([8])] * 3]
    found = count_of(cuts_of(cuts), np.full((KEYS, 2, 3), 7, np.int32), np.ones((KEYS, 2), bool))
    assert found[0, :, :3].tolist() == [[0, 0, KEYS]] * 3 and found[1, :, :3].tolist() == [[0, KEYS, 0]] * 3


def test_only_what_counts_is_counted():
    """By bit: in a labelled trial one of the two scores counts."""
    rng = np.random.default_rng(4)
    cuts = cuts_from(partial(DRAWS["clustered"], rng))
    keys = keys_near(rng, cuts)
    agrees(cuts, keys, rng.random((KEYS, 2)) < 0.5)
    agrees(cuts, keys, np.arange(KEYS)[:, None] < [[0, KEYS]])
    assert not count_of(cuts_of(cuts), keys, np.zeros((KEYS, 2), bool)).any()


near = st.builds(
    lambda base, step: int(np.clip(base + step, -LAST - 1, LAST)),
    st.sampled_from([-LAST - 1, -(2**30), -512, 0, 2**20, 2**30 + 1, LAST]) | st.integers(-LAST, LAST),
    st.integers(-40, 40),
)


@given(
    cuts=st.lists(st.lists(near, min_size=1, max_size=12, unique=True).map(sorted), min_size=4, max_size=4),
    keys=st.lists(near | st.just(INVALID), min_size=16, max_size=16),
    counted=st.lists(st.booleans(), min_size=8, max_size=8),
)
def test_counts_are_those_of_a_histogram_wherever_cuts_and_keys_lie(cuts, keys, counted):
    cuts = [[np.array(own) for own in one] for one in (cuts[:2], cuts[2:])]
    agrees(cuts, np.array(keys, np.int32).reshape(4, 2, 2), np.array(counted).reshape(4, 2))
