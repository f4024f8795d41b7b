"""The channel is a ring: what it reveals is the sum of Python integers, and nothing else moves it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxaudit as ja
from jaxaudit.aggregation.channel import WIDE, Channel, ChannelState
from jaxaudit.aggregation.fitting import fit
from jaxaudit.types import ABSENT

pytestmark = pytest.mark.usefixtures("strict")
CLIENTS, DIM = 50, 3
RINGS = (1, 2, 8, 16, 31, 32, WIDE)
TICKET = ja.Ticket(jnp.uint32(5), jnp.uint32(2), jnp.uint32(9))
# All that one client can send, the ends among them.
INTEGERS = st.integers(-(2**31), 2**31 - 1) | st.sampled_from([-(2**31), 2**31 - 1, -1, 0])
COHORTS = st.lists(st.lists(INTEGERS, min_size=DIM, max_size=DIM), max_size=CLIENTS)
# No client rounds an integer, so coins and noise are all that is random here.
NOISY = (ja.FixedPoint(step=0.5, clip_range=100.0, rounding="stochastic"), ja.Skellam(deviation=2.0))


def ring_of(bits, shifted=False):
    """A channel to which integers come as they are."""
    return Channel((), DIM, bits, integers=True, shifted=shifted, announced=True, minimum=0)


def fitted(stages, clients=CLIENTS, dim=DIM, ring_bits=32, **facts):
    facts = {"wrap": False, "announced": True, "minimum": 0, "varying": False, "rounds": 1} | facts
    return fit(stages, ring_bits, dim, clients, **facts)


@partial(jax.jit, static_argnums=0)
def summed(channel, params, updates, seats, count, ticket=TICKET):
    """State and view after the first `count` of f32 or i32[clients, dim]: one shape for cohorts of all sizes."""

    def add(place, state):
        return channel.add(params, state, ticket, seats[place], updates[place])

    state = jax.lax.fori_loop(jnp.int32(0), count, add, channel.init(updates.shape[1]))
    return state, channel.reveal(params, state, ticket)


def cohort(channel, params, updates, seats=None, ticket=TICKET):
    """The same of a list of updates."""
    count, room = len(updates), max(CLIENTS, len(updates))
    dtype = np.float32 if channel.stages else np.int32
    padded = np.zeros((room, DIM), dtype)
    padded[:count] = np.reshape(np.asarray(updates, dtype), (-1, DIM))
    seated = np.arange(room, dtype=np.uint32)
    seated[:count] = seated[:count] if seats is None else seats
    return summed(channel, params, jnp.asarray(padded), jnp.asarray(seated), jnp.int32(count), ticket)


def same(left: ChannelState, right: ChannelState):
    return all(np.array_equal(one, other) for one, other in zip(left, right))


NONE = fitted((ja.Clip(norm=1.0),)).params(1.0)._replace(stages=())


# Sums


@pytest.mark.parametrize("bits", RINGS)
@settings(max_examples=25)
@given(COHORTS)
def test_residues_are_those_of_python_integers(bits, updates):
    state, view = cohort(ring_of(bits), NONE, updates)
    sums = [sum(entries) for entries in zip(*updates)] or [0] * DIM
    assert [int(one) for one in view.ring] == [one % 2 ** min(bits, 32) for one in sums]
    assert int(view.survivors) == len(updates)
    if bits == WIDE:
        assert [int(high) * 2**32 + int(low) for high, low in zip(state.high, state.low)] == sums
        # A rounded low word, and a rounded sum.
        assert all(abs(float(got) - one) <= 2.0**-23 * abs(one) for got, one in zip(view.total, sums))
    else:
        half = 2 ** (bits - 1)
        assert [int(one) for one in view.total] == [(one + half) % 2**bits - half for one in sums]


@pytest.mark.parametrize("bits", [2, 16, 31, 32])
@settings(max_examples=25)
@given(COHORTS)
def test_shifted_sums_are_lifted_to_what_is_not_negative(bits, updates):
    _, view = cohort(ring_of(bits, shifted=True), NONE, updates)
    sums = [sum(entries) for entries in zip(*updates)] or [0] * DIM
    # Of 32 bits the lift is the same pattern: decoding takes the shifts away modulo 2^32.
    assert [int(one) % 2**32 for one in view.total] == [one % 2**bits for one in sums]


@settings(max_examples=25)
@given(st.lists(st.lists(st.floats(-40, 40, width=32), min_size=DIM, max_size=DIM), min_size=1), st.randoms())
def test_clients_may_send_in_any_order(updates, random):
    """Coins and noise belong to a seat, so the order in which seats send changes no bit of the state."""
    updates = updates[:CLIENTS]
    chain = fitted(NOISY)
    order = random.sample(range(len(updates)), len(updates))
    state, view = cohort(chain.channel, chain.params(1.0), updates)
    again, other = cohort(chain.channel, chain.params(1.0), [updates[seat] for seat in order], order)
    assert same(state, again)
    np.testing.assert_array_equal(view.total, other.total)


def test_words_are_those_of_seat_and_trial():
    chain = fitted(NOISY)
    views = [
        cohort(chain.channel, chain.params(1.0), [[0.25] * DIM], [seat], TICKET._replace(trial=jnp.uint32(trial)))[1]
        for seat, trial in ((0, 9), (0, 9), (1, 9), (0, 8))
    ]
    np.testing.assert_array_equal(views[0].ring, views[1].ring)
    # 3 entries of noise with deviation of 4 steps: seed fixed, so this cannot fail by chance.
    assert all(not np.array_equal(views[0].ring, view.ring) for view in views[2:])


# The ends of the ring


@pytest.mark.parametrize(("clients", "decoded"), [(1023, 8.0 * 1023), (1024, -8.0 * 1024)])
def test_flower_wraps_from_1024_clients_at_its_clip_range(clients, decoded):
    """1,024 · 2^22 = 2^32: the server decodes the opposite end of the range, as Flower's does."""
    stack = ja.flower_secaggplus(examples=1000)
    chain = fitted(stack.stages, clients, wrap=True)
    _, view = cohort(chain.channel, chain.params(8.0), np.full((clients, DIM), 9.0))
    np.testing.assert_array_equal(view.ring, np.full(DIM, clients * 2**22 % 2**32))
    np.testing.assert_array_equal(view.total, np.full(DIM, decoded))


def test_a_zero_of_flower_is_half_of_its_levels():
    chain = fitted(ja.flower_secaggplus(examples=1000).stages)
    _, view = cohort(chain.channel, chain.params(8.0), np.zeros((7, DIM)))
    np.testing.assert_array_equal(view.ring, np.full(DIM, 7 * 2**21))
    np.testing.assert_array_equal(view.total, np.zeros(DIM))


@pytest.mark.parametrize(("clients", "steps"), [(4, 4 * 127), (5, 5 * 127 - 1024)])
def test_a_sum_of_clients_at_the_clip_range_wraps_where_it_must(clients, steps):
    """±127 steps, a ring of 10 bits: 4 · 127 <= 511 < 5 · 127."""
    chain = fitted((ja.FixedPoint(bits=8, clip_range=127.0),), clients, ring_bits=10, wrap=True)
    assert chain.may_wrap == (clients == 5)
    _, view = cohort(chain.channel, chain.params(1.0), [[1000.0, -127.0, 1.0]] * clients)
    np.testing.assert_array_equal(view.total, [steps, -steps, clients])


def test_without_a_clip_range_integers_wrap_before_they_are_summed():
    chain = fitted((ja.FixedPoint(step=1.0),), 2, ring_bits=8, wrap=True)
    _, view = cohort(chain.channel, chain.params(1.0), [[130.0, -129.0, 2.0**40], [1.0, 0.0, 3.0]])
    np.testing.assert_array_equal(view.total, [131 - 256, -129 + 256, 3])


# What the server is told


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("clients", [2, 3])
def test_a_cohort_below_the_minimum_reveals_nothing(clients, announced):
    met = clients >= 3
    for noise in ((), (ja.Gaussian(deviation=1.0),)):
        chain = fitted((ja.FixedPoint(step=0.25, clip_range=1.0), *noise), minimum=3, announced=announced)
        _, view = cohort(chain.channel, chain.params(1.0), [[0.5, -0.5, 0.25]] * clients)
        assert np.any(view.total) == met and (view.ring is None or np.any(view.ring) == met)
        assert view.survivors == ((clients if met else 0) if announced else ABSENT)


def test_hidden_survivors_change_nothing_but_their_number():
    told, hidden = (
        cohort(chain.channel, chain.params(1.0), [[0.5, -0.5, 0.25]] * 4)[1]
        for chain in (fitted(NOISY), fitted(NOISY, announced=False))
    )
    assert (int(told.survivors), int(hidden.survivors)) == (4, ABSENT)
    np.testing.assert_array_equal(told.ring, hidden.ring)
    np.testing.assert_array_equal(told.total, hidden.total)


def test_central_noise_is_in_the_decoded_sum_only():
    grid = ja.FixedPoint(step=0.5, clip_range=100.0)
    exact, noisy = (fitted(stages) for stages in ((grid,), (grid, ja.Gaussian(deviation=3.0))))
    updates = [[0.5, -1.0, 7.0]] * 4
    plain, view = (cohort(chain.channel, chain.params(1.0), updates)[1] for chain in (exact, noisy))
    np.testing.assert_array_equal(plain.total, [2.0, -4.0, 28.0])
    # The residues are free of it: whoever adds it keeps them.
    assert view.ring is None
    moved = np.asarray(view.total - plain.total)
    # Seed fixed. Noise is drawn once, by the server: that of no client is another's.
    assert np.all(moved != 0) and np.all(np.abs(moved) < 7 * 3)
    alone = cohort(noisy.channel, noisy.params(1.0), updates[:1], [17])[1]
    np.testing.assert_allclose(alone.total - jnp.asarray(updates[0], jnp.float32), moved, atol=1e-5)


# Round after round

ROUNDS = 7
HERE = st.lists(st.booleans(), min_size=ROUNDS, max_size=ROUNDS)
# Multiples of a step, so that nothing is rounded; of different magnitude, so that no two compete for a place.
SIXTEENTHS = st.lists(
    st.lists(st.integers(-200, 200), min_size=DIM, max_size=DIM), min_size=ROUNDS, max_size=ROUNDS
).map(lambda rows: np.array(rows, np.float32) / 16)
REMEMBERS = (ja.TopK(k=1, error_feedback=True), ja.FixedPoint(step=1 / 16, clip_range=1000.0))


@partial(jax.jit, static_argnums=0)
def sent_in_turn(channel, params, updates, here):
    """States of one client's rounds."""
    nothing = jax.vmap(lambda _: channel.init(DIM))(jnp.arange(ROUNDS))
    return channel.add_in_turn(params, nothing, TICKET, jnp.uint32(3), updates, here)


def in_turn(updates, here):
    chain = fitted(REMEMBERS, rounds=ROUNDS)
    assert chain.channel.remembered == (DIM, 0)
    states = sent_in_turn(chain.channel, chain.params(1.0), jnp.asarray(updates), jnp.asarray(here))
    return np.asarray(states.low).view(np.int32) / 16, np.asarray(states.survivors)


@settings(max_examples=25)
@given(SIXTEENTHS, HERE)
def test_error_feedback_equals_a_loop_over_rounds(updates, here):
    sums, survivors = in_turn(updates, here)
    memory, expected = np.zeros(DIM), np.zeros((ROUNDS, DIM))
    for number in np.flatnonzero(here):
        whole = updates[number] + memory
        largest = np.argmax(np.abs(whole))
        expected[number, largest] = whole[largest]
        memory = whole - expected[number]
    np.testing.assert_array_equal(sums, expected)
    np.testing.assert_array_equal(survivors, here)
    # What was sent and what is left is what there was.
    np.testing.assert_array_equal(sums.sum(0) + memory, updates[np.array(here)].sum(0))


@settings(max_examples=25)
@given(SIXTEENTHS)
def test_what_is_remembered_is_sent_when_nothing_more_comes(updates):
    updates[ROUNDS - DIM + 1 :] = 0
    sums, _ = in_turn(updates, [True] * ROUNDS)
    np.testing.assert_array_equal(sums.sum(0), updates.sum(0))


def test_who_is_absent_changes_nothing():
    updates = np.random.default_rng(0).integers(-200, 200, (ROUNDS, DIM)).astype(np.float32) / 16
    sums, survivors = in_turn(updates, [False] * ROUNDS)
    assert not sums.any() and not survivors.any()
    # Absent in one round, a client still has what it remembered before.
    here = [True, False] + [True] * (ROUNDS - 2)
    gone = updates.copy()
    gone[1] = 1e3
    np.testing.assert_array_equal(in_turn(updates, here)[0], in_turn(gone, here)[0])
