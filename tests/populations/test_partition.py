"""Records are dealt evenly, once, and with the class mixtures that the papers describe."""

import time

import jax
import numpy as np
import pytest
from scipy.stats import binomtest, chisquare

from jaxaudit.populations.partition import deal

CLASSES, EACH, CLIENTS = 10, 20, 500
LABELS = np.random.default_rng(0).permutation(np.arange(CLIENTS * EACH + 7) % CLASSES).astype(np.int32)


def classes_seen(labels, dealt):
    return np.array([len(np.unique(labels[client])) for client in dealt])


@pytest.mark.parametrize(
    ("partition", "alpha"),
    [("iid", 1.0), ("by_class", 1.0), ("dirichlet", 1e-40), ("dirichlet", 0.1), ("dirichlet", 1e40)],
)
def test_dealing_is_even_and_distinct(partition, alpha):
    dealt = deal(LABELS, CLIENTS, partition, alpha, jax.random.key(0))
    assert dealt.shape == (CLIENTS, EACH) and dealt.dtype == np.int64
    assert len(np.unique(dealt)) == dealt.size
    assert dealt.min() >= 0 and dealt.max() < len(LABELS)


@pytest.mark.parametrize("partition", ["iid", "by_class", "dirichlet"])
def test_dealing_is_a_function_of_the_key(partition):
    once, again, other = (deal(LABELS, CLIENTS, partition, 0.1, jax.random.key(k)) for k in (0, 0, 1))
    np.testing.assert_array_equal(once, again)
    assert np.any(once != other)


def test_two_shards_are_two_classes_when_they_go_evenly():
    labels = np.repeat(np.arange(10), 60)  # ten shards of six records in every class
    dealt = deal(labels, 50, "by_class", 1.0, jax.random.key(0))
    assert dealt.shape == (50, 12)
    assert set(classes_seen(labels, dealt)) == {1, 2}
    np.testing.assert_array_equal(np.bincount(labels[dealt].ravel()), np.full(10, 60))


def test_by_class_a_shard_straddles_two_classes_at_most():
    rng = np.random.default_rng(1)
    labels = rng.choice(10, 3011, p=np.arange(1, 11) / 55)
    for shards in (1, 2, 3):
        dealt = deal(labels, 60, "by_class", 1.0, jax.random.key(0), shards=shards)
        seen = classes_seen(labels, dealt)
        # Nine borders between classes: nine shards of all have two.
        assert (seen > shards).sum() <= 9 and seen.max() <= 2 * shards
        assert dealt.shape == (60, 3011 // (60 * shards) * shards)


def test_a_shorter_last_class_is_not_what_is_left_over():
    labels = np.repeat(np.arange(10), 60)
    kept = deal(labels, 29, "by_class", 1.0, jax.random.key(0))
    assert np.bincount(labels[kept].ravel(), minlength=10).min() > 60 - 20  # of 20 left over


def test_dirichlet_extremes_are_one_class_and_all_classes():
    lone, even = (deal(LABELS, CLIENTS, "dirichlet", alpha, jax.random.key(0)) for alpha in (1e-5, 1e4))
    assert classes_seen(LABELS, lone[:, :5]).mean() < 1.01  # later some find their only class taken by others
    # 20 records of ten classes in equal shares: 10 (1 - 0.9^20) = 8.78 classes on average, sd 0.04 over 500 clients.
    assert abs(classes_seen(LABELS, even).mean() - 8.78) < 0.25


def test_smaller_alpha_is_more_uneven():
    dealt = [deal(LABELS, CLIENTS, "dirichlet", alpha, jax.random.key(0)) for alpha in (0.05, 0.5, 5.0)]
    seen = [classes_seen(LABELS, one).mean() for one in dealt]
    assert seen == sorted(seen) and seen[0] < seen[-1] - 2


def test_classes_run_dry_and_every_record_is_dealt():
    labels = LABELS[: CLIENTS * EACH]
    dealt = deal(labels, CLIENTS, "dirichlet", 0.05, jax.random.key(0))
    np.testing.assert_array_equal(np.sort(dealt.ravel()), np.arange(len(labels)))


# A fixed seed; each of the four comparisons would reject a right implementation with probability 1e-5.
@pytest.mark.parametrize("alpha", [0.1, 1.0])
def test_mixtures_follow_the_dirichlet_law(alpha):
    """Before any class runs dry, the first two picks of a client are draws from a Pólya urn."""
    labels = np.random.default_rng(0).permutation(np.arange(40_000) % CLASSES)
    first, second = labels[deal(labels, 2000, "dirichlet", alpha, jax.random.key(7))[:, :2].T]
    same = binomtest(int((first == second).sum()), 2000, (1 + alpha) / (1 + CLASSES * alpha))
    assert same.pvalue > 1e-5
    assert chisquare(np.bincount(first, minlength=CLASSES)).pvalue > 1e-5


def test_sixty_thousand_records_take_seconds_at_most():
    labels = np.random.default_rng(0).permutation(np.arange(60_000) % CLASSES)
    began = time.process_time()
    deal(labels, 2000, "dirichlet", 0.5, jax.random.key(0))
    assert time.process_time() - began < 10  # about 1, most of it compiling; a loop over records took minutes
