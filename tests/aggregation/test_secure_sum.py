"""The plain sum is a sum."""

import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import jaxaudit as ja


@given(st.lists(st.lists(st.integers(-1000, 1000), min_size=3, max_size=3), min_size=1, max_size=12))
def test_total_is_the_sum_and_survivors_the_number_of_updates(updates):
    aggregator, ticket = ja.SecureSum(), ja.Ticket(*[jnp.uint32(0)] * 3)
    state = aggregator.init(3)
    for seat, update in enumerate(updates):
        state = aggregator.add(None, state, ticket, seat, jnp.asarray(update, jnp.float32))
    view = aggregator.reveal(None, state, ticket)
    np.testing.assert_array_equal(view.total, np.sum(updates, axis=0))
    assert view.survivors == len(updates)
