"""The plain sum is a sum: of integers, so exactly, in any order."""

import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import jaxaudit as ja

CLIENTS = 12
updates_of = st.lists(st.lists(st.floats(-7.0, 7.0, width=32), min_size=3, max_size=3), min_size=1, max_size=CLIENTS)


def summed(updates, limit=7.0):
    """The view of a sum, and the step of its encoding."""
    aggregator, ticket = ja.SecureSum(), ja.Ticket(*[jnp.uint32(0)] * 3)
    params = aggregator.prepare(limit, CLIENTS)
    state = aggregator.init(3)
    for seat, update in enumerate(updates):
        state = aggregator.add(params, state, ticket, seat, jnp.asarray(update, jnp.float32))
    return aggregator.reveal(params, state, ticket), float(params.step)


@given(st.lists(st.lists(st.integers(-1000, 1000), min_size=3, max_size=3), min_size=1, max_size=CLIENTS))
def test_total_of_integers_is_their_sum(updates):
    view, _ = summed(updates, limit=1000.0)
    np.testing.assert_array_equal(view.total, np.sum(updates, axis=0))
    assert view.survivors == len(updates)


@given(updates_of, st.randoms(use_true_random=False))
def test_total_does_not_depend_on_the_order(updates, random):
    shuffled = random.sample(updates, len(updates))
    np.testing.assert_array_equal(summed(updates)[0].total, summed(shuffled)[0].total)


@given(updates_of)
def test_total_equals_the_ring_sum_of_python_integers(updates):
    view, step = summed(updates)
    exact = [sum(round(entry / step) for entry in column) for column in zip(*updates)]
    np.testing.assert_array_equal(view.total, np.float32(exact) * np.float32(step))


def test_the_largest_updates_of_all_clients_do_not_overflow():
    view, _ = summed([[7.0, -7.0, 7.0]] * CLIENTS)
    np.testing.assert_allclose(view.total, [84.0, -84.0, 84.0])


def test_what_is_beyond_the_limit_is_clipped():
    view, _ = summed([[100.0, -100.0, 0.5]])
    np.testing.assert_allclose(view.total, [7.0, -7.0, 0.5])
