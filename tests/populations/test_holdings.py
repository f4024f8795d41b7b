"""What clients hold and train on: real records, drawn as the recipe says, and counted right."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxaudit.populations.holdings import Batching, holdings

LABELS = np.arange(1000) % 10
THEIRS = np.arange(100, 1000)


def held(clients=6, each=0, partition="dirichlet", alpha=0.5, seed=0):
    return holdings(LABELS, THEIRS, clients, each, partition, alpha, jax.random.key(seed))


@pytest.mark.parametrize("partition", ["iid", "dirichlet", "by_class"])
def test_dealt_records_belong_to_one_client(partition):
    dealt = held(partition=partition)
    assert dealt.shape == (6, 150)
    assert len(np.unique(dealt)) == dealt.size and np.isin(dealt, THEIRS).all()


@pytest.mark.parametrize("partition", ["iid", "dirichlet"])
def test_drawn_records_are_distinct_within_a_client_and_shared_among_clients(partition):
    """Forty clients with 60 of 900 records each: were they apart, they would need 2,400."""
    drawn = held(clients=40, each=60, partition=partition)
    assert drawn.shape == (40, 60) and np.isin(drawn, THEIRS).all()
    assert all(len(np.unique(own)) == 60 for own in drawn)
    np.testing.assert_array_equal(drawn, held(clients=40, each=60, partition=partition))
    assert not np.array_equal(drawn, held(clients=40, each=60, partition=partition, seed=1))


def test_a_small_concentration_gives_a_client_one_label_and_a_large_one_gives_all():
    """At 1e6 a mixture is uniform to 1e-3: of 80 records a label has 8, and 27 or none with probability < 1e-7."""
    (lonely, mixed) = (LABELS[held(each=80, alpha=alpha)] for alpha in (1e-9, 1e6))
    assert all(len(set(own)) == 1 for own in lonely.tolist())
    counts = np.stack([np.bincount(own, minlength=10) for own in mixed])
    assert counts.max() < 27 and counts.sum(0).min() > 0


def test_a_client_may_draw_all_records_and_no_more():
    with pytest.raises(ValueError, match=r"population.records is 901, allowed are up to 900"):
        held(each=901)
    assert sorted(held(clients=1, each=900)[0]) == THEIRS.tolist()


# Batches.

SHAPES = st.tuples(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(1, 3), st.integers(1, 3))


@given(shape=SHAPES, fresh=st.booleans(), seed=st.integers(0, 3))
def test_batches_are_distinct_records_of_their_client_and_every_label_is_counted(shape, fresh, seed):
    sizes, variants, steps = shape
    mine = np.arange(4 * 9).reshape(4, 9) * 7 % 1000
    batching = Batching(tuple(sizes), variants, steps, fresh)
    batches = batching.drawn(mine, jax.random.key(seed))
    assert [own.shape for own in batches] == [(variants, steps, size) for size in batching.sizes(4)]
    for own, client in zip(batches, mine):
        assert np.isin(own, client).all()
        assert (np.diff(np.sort(own, axis=-1), axis=-1) > 0).all()
        assert fresh or (own == own[:, :1]).all()
    counts = batching.counted(LABELS, batches, 10)
    expected = [
        [
            sum(int(LABELS[r] == label) for step in (update if fresh else update[:1]) for r in step)
            for label in range(10)
        ]
        for own in batches
        for update in own
    ]
    np.testing.assert_array_equal(counts, expected)


def test_sizes_are_given_in_turn():
    assert Batching((64, 16), 1, 1, False).sizes(5).tolist() == [64, 16, 64, 16, 64]


def test_variants_and_fresh_steps_are_batches_of_their_own():
    (own,) = Batching((8,), 3, 2, True).drawn(np.arange(500)[None], jax.random.key(0))
    assert len({tuple(batch) for batch in own.reshape(6, 8).tolist()}) == 6


def test_every_record_is_as_likely():
    """20,000 records of batches of 2 among 10: each 2,000 ± 40 at most; 5.5 deviations, false alarm below 1e-6."""
    (own,) = Batching((2,), 10_000, 1, False).drawn(np.arange(10)[None], jax.random.key(0))
    assert np.abs(np.bincount(own.ravel()) - 2000).max() < 5.5 * 40


def test_a_batch_larger_than_what_clients_hold_is_refused():
    with pytest.raises(
        ValueError, match=r"batch_size is 9, but its 2 clients hold 8 records each; allowed are 1 to 8"
    ):
        Batching((4, 9), 1, 1, False).drawn(np.arange(16).reshape(2, 8), jax.random.key(0))
