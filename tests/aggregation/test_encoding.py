"""Fixed point: integers with a known law, a norm within its bound, and sums that a ring can hold."""

import math
from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, chi2

from jaxaudit.accounting.rounding import conditional_bound
from jaxaudit.aggregation.encoding import FixedPoint
from jaxaudit.aggregation.stage import UNBOUNDED, Norms, Setting
from jaxaudit.random import Ticket

pytestmark = pytest.mark.usefixtures("strict")
DIM, TRIALS = 6, 40_000
ROUNDINGS = ("nearest", "stochastic", "conditional")
NEAREST = FixedPoint(step=0.5, clip_range=100.0)
COINS = FixedPoint(step=0.5, clip_range=100.0, rounding="stochastic")
FLOWER = FixedPoint(levels=2**22, clip_range=8.0, rounding="stochastic", shifted=True)
vectors = st.lists(st.floats(-150, 150, width=32, allow_subnormal=False), min_size=DIM, max_size=DIM)


def setting(norms=UNBOUNDED, ring_bits=32, clients=10, dim=DIM, step=0.0):
    return Setting(dim, clients, norms, ring_bits, step)


@partial(jax.jit, static_argnums=0)
def encodings(stage, params, vector, trials):
    def one(trial):
        return stage.encode(params, vector, Ticket(jnp.uint32(1), jnp.uint32(2), trial))

    return jax.vmap(one)(trials)


def encoded(stage, vector, trials=1, params=None, **found):
    params = stage.prepare(setting(**found)) if params is None else params
    numbers = jnp.arange(trials, dtype=jnp.uint32)
    return np.asarray(encodings(stage, params, jnp.asarray(vector, jnp.float32), numbers))


def test_nearest_known_answers():
    sent = encoded(NEAREST, [0.24, 0.25, 0.75, -0.25, -0.75, 1.3])
    np.testing.assert_array_equal(sent[0], [0, 0, 2, 0, -2, 3])
    assert sent.dtype == np.int32
    np.testing.assert_array_equal(
        encoded(NEAREST, [101, -1e9, 100, -100, 99.9, 0])[0], [200, -200, 200, -200, 200, 0]
    )


@given(vectors)
def test_nearest_is_the_rounding_of_fractions(vector):
    inside = [min(max(Fraction(value), Fraction(-100)), Fraction(100)) for value in vector]
    np.testing.assert_array_equal(encoded(NEAREST, vector)[0], [round(value * 2) for value in inside])


@given(vectors)
def test_steps_that_are_no_power_of_two_round_to_a_neighbour(vector):
    stage = FixedPoint(step=0.377, clip_range=60.0)
    steps = np.clip(np.float64(vector), -60, 60) / float(np.float32(0.377))
    assert np.all(np.abs(encoded(stage, vector)[0] - steps) <= 0.5 + 2.0**-20 * np.abs(steps))


@given(vectors)
def test_coins_choose_between_the_two_neighbours(vector):
    steps = [min(max(Fraction(value), Fraction(-100)), Fraction(100)) * 2 for value in vector]
    sent = encoded(COINS, vector)[0]
    assert all(math.floor(exact) <= found <= math.ceil(exact) for exact, found in zip(steps, sent))


def test_integers_and_zero_toss_no_coin():
    vector = [0.0, -0.0, 1.0, -49.5, 100.0, -100.0]
    np.testing.assert_array_equal(encoded(COINS, vector, 1000), [[0, 0, 2, -99, 200, -200]] * 1000)
    np.testing.assert_array_equal(encoded(FLOWER, np.zeros(DIM), 1000), np.full((1000, DIM), 2**21))


def test_stochastic_rounding_is_right_on_average():
    vector = np.float32([0.15, -0.15, 17.25, -17.25, 0.001, 49.999])
    steps = [Fraction(float(value)) * 2 for value in vector]
    sent = encoded(COINS, vector, TRIALS)
    for exact, column in zip(steps, sent.T):
        up = int((column > exact).sum())
        # The upper one with the probability of the fraction; six tests at 1e-7: false alarm 6e-7, seed fixed.
        assert set(column.tolist()) <= {math.floor(exact), math.ceil(exact)}
        assert binomtest(up, TRIALS, float(exact - math.floor(exact))).pvalue > 1e-7


def test_entries_toss_different_coins():
    sent = encoded(COINS, np.full(DIM, 0.25), TRIALS)
    codes = np.bincount(sent @ (1 << np.arange(DIM)), minlength=2**DIM)
    expected = TRIALS / 2**DIM
    # False alarm 1e-6; seed fixed.
    assert ((codes - expected) ** 2 / expected).sum() < chi2.isf(1e-6, 2**DIM - 1)


def test_conditional_rounding_has_the_law_of_accepted_coins():
    stage = FixedPoint(step=0.5, rounding="conditional", beta=0.99)
    half = setting(norms=Norms(np.inf, 0.5 * np.sqrt(1.5), np.inf))
    # sqrt(3.34): of six fair coins, at most three may go up, 42 of 64 outcomes.
    bound = conditional_bound(np.sqrt(1.5), DIM, 0.99)
    assert 3 < bound**2 < 4
    sent = encoded(stage, np.full(DIM, 0.25), TRIALS, params=stage.prepare(half))
    assert set(np.unique(sent)) == {0, 1} and sent.sum(axis=1).max() == 3
    counts = np.unique(sent @ (1 << np.arange(DIM)), return_counts=True)[1]
    assert counts.size == 42
    # False alarm 1e-6; seed fixed.
    assert ((counts - TRIALS / 42) ** 2 / (TRIALS / 42)).sum() < chi2.isf(1e-6, 41)


@given(vectors)
def test_conditional_rounding_always_meets_its_bound(vector):
    l2 = float(np.linalg.norm(np.float64(vector))) * (1 + 1e-15)
    stage = FixedPoint(step=0.377, rounding="conditional", beta=0.9)
    sent = encoded(stage, vector, 64, norms=Norms(np.inf, l2, np.inf)).astype(np.int64)
    assert (sent**2).sum(axis=1).max() <= conditional_bound(l2 / 0.377 * (1 + 2**-19), DIM, 0.9) ** 2


def test_after_many_refusals_a_vector_is_rounded_towards_zero():
    stage = FixedPoint(step=0.5, rounding="conditional")
    params = stage.prepare(setting(norms=Norms(9.0, 9.0, 9.0)))._replace(bound=np.float32(0))
    sent = encoded(stage, [0.9, -0.9, 0.1, -0.1, 0.0, 1.0], 4, params=params)
    np.testing.assert_array_equal(sent, [[1, -1, 0, 0, 0, 2]] * 4)


@given(vectors, st.sampled_from(ROUNDINGS), st.sampled_from([0.5, 0.377, 40.0]))
def test_norms_of_integers_are_within_what_follows(vector, rounding, step):
    whole = np.float64(vector)
    norms = Norms(*(float(np.linalg.norm(whole, order)) * (1 + 1e-15) for order in (1, 2, np.inf)))
    stage, before = FixedPoint(step=step, clip_range=120.0, rounding=rounding), setting(norms=norms)
    sent, after = encoded(stage, vector, 64, params=stage.prepare(before)).astype(np.int64), stage.after(before)
    assert np.abs(sent).sum(axis=1).max() <= after.norms.l1
    assert (sent**2).sum(axis=1).max() <= after.norms.l2**2 * (1 + 1e-15)
    assert np.abs(sent).max() <= after.norms.linf <= math.ceil(120 / step)
    assert after.step == np.float32(step) and after.dim == DIM


def test_nothing_bounds_what_is_not_clipped():
    assert FixedPoint(step=0.5).after(setting()).norms == UNBOUNDED
    np.testing.assert_allclose(NEAREST.after(setting()).norms, (1200.0, 200 * np.sqrt(6), 200.0), rtol=1e-15)


def test_unclipped_integers_are_taken_modulo_the_word():
    vector = [3e9, -3e9, 1e12, -(2.0**40 + 2.0**33), 2.0**31, 7.0]
    exact = [round(float(np.float32(value))) for value in vector]
    wrapped = [(value + 2**31) % 2**32 - 2**31 for value in exact]
    np.testing.assert_array_equal(encoded(FixedPoint(step=1.0), vector)[0], wrapped)


def test_bits_levels_and_the_ring_say_the_step():
    for stage, found, step, top in (
        (FixedPoint(bits=8, clip_range=1.27), {}, 0.01, 127),
        (FixedPoint(levels=10, clip_range=5.0), {}, 1.0, 5),
        (FixedPoint(levels=7, clip_range=3.5), {}, 1.0, 3),
        (FixedPoint(clip_range=1.5), {"ring_bits": 4, "clients": 2}, 0.5, 3),
        (FixedPoint(clip_range=1.0, shifted=True), {"ring_bits": 4, "clients": 3}, 0.5, 2),
        (FixedPoint(clip_range=2.0**31 - 1), {"ring_bits": 64, "clients": 1000}, 1.0, 2**31 - 1),
        (FixedPoint(step=0.1, clip_range=0.3), {}, 0.1, 3),
        (FixedPoint(step=1.0, clip_range=2.5, rounding="stochastic"), {}, 1.0, 3),
    ):
        after = stage.after(setting(**found))
        assert after.step == np.float32(step) and after.norms.linf == top, stage


@given(st.integers(2, 32), st.integers(1, 1000), st.booleans())
def test_a_filled_ring_holds_the_cohort_and_no_finer_step_would(ring_bits, clients, shifted):
    stage, found = FixedPoint(clip_range=1.0, shifted=shifted), setting(ring_bits=ring_bits, clients=clients)
    capacity = 2**ring_bits - 1 if shifted else 2 ** (ring_bits - 1) - 1
    each = 2 if shifted else 1
    if clients * each > capacity:
        with pytest.raises(ValueError, match=rf"^ring_bits is {ring_bits}, .* one level .*; use more ring_bits$"):
            stage.prepare(found)
        return
    top = int(stage.after(found).norms.linf)
    assert each * top * clients <= capacity
    assert each * (top + 1) * clients > capacity or (shifted and top == 2**23)
    assert stage.largest_cohort(found) >= clients


def test_largest_cohorts():
    assert FLOWER.largest_cohort(setting()) == 1023
    assert FixedPoint(bits=8, clip_range=1.0).largest_cohort(setting(ring_bits=16)) == 32767 // 127
    assert FixedPoint(bits=16, clip_range=1.0).largest_cohort(setting(ring_bits=16)) == 1
    assert FLOWER.largest_cohort(setting(ring_bits=64)) is None
    assert FixedPoint(step=0.5).largest_cohort(setting()) is None


def test_flower_has_its_step_and_its_ends():
    params = FLOWER.prepare(setting())
    assert params.step == 16 / 2**22
    sent = encoded(FLOWER, [8.0, -8.0, 1e9, -1e9, 16 / 2**22, 0.0])[0]
    np.testing.assert_array_equal(sent, [2**22, 0, 2**22, 0, 2**21 + 1, 2**21])


def test_thirty_two_bits_reach_as_far_as_float32_does():
    sent = encoded(FixedPoint(levels=2**32 - 1, clip_range=1.0), [1.0, -1.0, 0.0, 0.5, 5.0, 2.0**-31], ring_bits=64)
    np.testing.assert_array_equal(sent[0], [2**31 - 128, -(2**31) + 128, 0, 2**30, 2**31 - 128, 1])


@given(vectors)
def test_an_encoding_without_coins_is_expected_exactly(vector):
    params = NEAREST.prepare(setting())
    mean, variance = NEAREST.expected(params, jnp.asarray(vector, jnp.float32), jnp.float32(1))
    np.testing.assert_array_equal(mean, encoded(NEAREST, vector)[0])
    assert variance == 4.0


def test_mean_and_variance_of_coins():
    vector = jnp.asarray([0.0, 0.1, -0.1, 4.25, 1000.0, -8.0], jnp.float32)
    stage = FixedPoint(step=1.0, clip_range=8.0, rounding="stochastic", shifted=True)
    mean, variance = stage.expected(stage.prepare(setting()), vector, jnp.float32(2))
    np.testing.assert_allclose(mean, [8, 8.1, 7.9, 12.25, 16, 0], rtol=1e-6)
    np.testing.assert_allclose(variance, 2 + np.array([0, 0.09, 0.09, 0.1875, 0, 0]), rtol=1e-6)


def test_decoding_takes_the_shift_of_every_survivor_away():
    params = FLOWER.prepare(setting())
    total = 3 * 2**21 + np.array([0.0, 5.0, -7.0, 2.0**22, 1.0, -1.0])
    expected = (total - 3 * 2**21) * 2.0**-18
    for array, precision in ((total, np.float64), (jnp.asarray(total, jnp.float32), np.float32)):
        decoded = FLOWER.decode(params, array, 3)
        assert decoded.dtype == precision
        np.testing.assert_array_equal(decoded, expected)
    assert FLOWER.decoded_variance(params, np.float64(1)) == 2.0**-36


@given(st.lists(st.integers(-(2**21), 2**21), min_size=DIM, max_size=DIM), st.integers(1, 1023))
def test_residues_are_decoded_without_loss(steps, clients):
    # A sum of shifted integers has 32 bits, float32 has 24: residues come as integers.
    residues = clients * (np.array(steps, np.int64) + 2**21)
    params, expected = FLOWER.prepare(setting()), clients * np.array(steps, np.int64)
    found = FLOWER.decode(params, jnp.asarray(residues.astype(np.uint32)), jnp.int32(clients))
    np.testing.assert_array_equal(found, expected.astype(np.float32) * np.float32(2.0**-18))
    np.testing.assert_array_equal(FLOWER.decode(params, residues, clients), expected * 2.0**-18)


def test_traced_code_reads_no_numbers_of_the_recipe():
    vector, before = [0.3, -7.7, 0.0, 99.9, 1e3, 2.2], setting(norms=Norms(1e4, 1e4, 1e4))
    for rounding in ROUNDINGS:
        stage, twin = (FixedPoint(step=0.5, clip_range=100.0, rounding=rounding) for _ in range(2))
        for name in ("step", "clip_range", "beta"):
            object.__setattr__(twin, name, 0.0)
        params = stage.prepare(before)
        np.testing.assert_array_equal(encoded(twin, vector, params=params), encoded(stage, vector, params=params))
        assert stage.steady == (rounding == "nearest")


@pytest.mark.parametrize(
    ("fields", "found", "message"),
    [
        ({"bits": 40}, {}, "bits"),
        ({"clip_range": -1.0}, {}, "clip_range"),
        ({"beta": 1.0}, {}, "beta"),
        ({}, {}, r"^clip_range is 0, allowed are > 0; give it, .*$"),
        ({"bits": 8, "step": 0.5, "clip_range": 1.0}, {}, r"^bits and step are given, allowed is one of them; .*$"),
        ({"bits": 8, "clip_range": 1.0}, {"ring_bits": 7}, r"^bits is 8, allowed are 2 to ring_bits \(7\); .*$"),
        ({"bits": 1, "clip_range": 1.0}, {}, r"^bits is 1, allowed are 2 to 32, .*$"),
        ({"levels": 1, "clip_range": 1.0}, {}, r"^levels is 1, allowed are 2 or more; .*$"),
        ({"levels": 7, "clip_range": 1.0, "shifted": True}, {}, r"^levels is 7, allowed are even numbers .*$"),
        ({"levels": 2**25, "clip_range": 1.0, "shifted": True}, {}, r"^the clip range is .* shifted, allowed .*$"),
        (
            {"levels": 2**22, "clip_range": 1.0},
            {"ring_bits": 16},
            r"^the integers .* reach .*, allowed are .*; use .*$",
        ),
        ({"step": 1e-9, "clip_range": 10.0}, {}, r"^the clip range is .* steps, allowed are .*; use a larger step$"),
        ({"step": 1.0, "shifted": True}, {}, r"^shifted is true and clip_range is 0, allowed are > 0; .*$"),
        ({"step": 1.0}, {"ring_bits": 64}, r"^clip_range is 0 and integers may pass .*; give clip_range, .*$"),
        ({"step": 1e-35, "clip_range": 1e-33}, {}, r"^the step is 1e-35, allowed are 2\^-100 to 2\^100; .*$"),
        (
            {"step": 1.0, "rounding": "conditional"},
            {},
            r'^rounding is "conditional" and nothing bounds .*; put a .*$',
        ),
        ({"step": 1.0}, {"step": 0.5}, r"^integer vectors reach it .*, allowed are real ones; .*$"),
    ],
)
def test_errors_say_what_is_allowed_in_one_line(fields, found, message):
    with pytest.raises(ValueError, match=message):
        FixedPoint(**fields).prepare(setting(**found))


def test_a_number_of_steps_that_wide_sums_hold_needs_no_clip_range():
    found = setting(ring_bits=64, norms=Norms(np.inf, 5.0, np.inf))
    np.testing.assert_array_equal(
        encoded(FixedPoint(step=1.0), np.ones(DIM), params=FixedPoint(step=1.0).prepare(found))[0], 1
    )
