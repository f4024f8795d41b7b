"""How records are dealt to clients."""

from typing import Literal

import jax
import numpy as np

Name = Literal["iid", "dirichlet", "by_class"]

# Two shards a client, as McMahan et al. (2017) cut MNIST.
SHARDS = 2
# Records whose classes are drawn at once.
_BLOCK = 8192


def deal(
    labels: np.ndarray, clients: int, partition: Name, alpha: float, key, shards: int = SHARDS, each: int = 0
) -> np.ndarray:
    """Deal records to clients, as many to each as go evenly or are wanted.

    Args:
      labels: i32[records].
      clients: number of clients.
      partition: "iid", at random. "dirichlet": every client draws its own mixture of classes from a symmetric
        Dirichlet law, and its records from the mixture, in turns; once a class has run out, the others share its part
        in proportion.
        "by_class": records sorted by class are cut into shards, and every client is dealt `shards` of them at random.
      alpha: concentration of the Dirichlet law, > 0: near 0 a client sees one class, at infinity all in equal shares.
      key: PRNG key.
      shards: of every client in "by_class".
      each: records of a client, at most as many as go evenly; 0 for these. "by_class" knows no other.

    Returns:
      i64[clients, records per client], distinct record numbers. The few records that do not go evenly are left over:
      records per client is records // clients, in "by_class" rounded down to a multiple of `shards`.

    Reference:
      "dirichlet": Hsu, Qi & Brown (2019), arXiv:1909.06335. "by_class": McMahan, Moore, Ramage, Hampson & Agüera y
      Arcas (2017), arXiv:1602.05629, the pathological non-IID partition.
    """
    key_order, key_deal = jax.random.split(key)
    order = np.asarray(jax.random.permutation(key_order, len(labels)), np.int64)
    if partition == "dirichlet":
        return _deal_mixtures(labels, order, clients, alpha, key_deal, each or len(labels) // clients)
    if partition == "by_class":
        return _deal_shards(labels, order, clients, shards, key_deal)
    each = each or len(labels) // clients
    return order[: clients * each].reshape(clients, each)


def _deal_shards(labels, order, clients, shards, key):
    """Leftovers go before the sort: after it they would all be of the last class."""
    size = len(labels) // (clients * shards)
    kept = order[: clients * shards * size]
    by_class = kept[np.argsort(labels[kept], kind="stable")].reshape(clients * shards, size)
    dealt = np.asarray(jax.random.permutation(key, clients * shards))
    return by_class[dealt].reshape(clients, shards * size)


def _deal_mixtures(labels, order, clients, alpha, key, each):
    """Clients take records in turns, so that none finds all classes picked over by those before it."""
    key_mixture, key_class = jax.random.split(key)
    kinds = np.unique(labels)
    shelves = [order[labels[order] == kind] for kind in kinds]
    # Dirichlet shares are gamma variables over their sum. Only the logarithm holds them at a small alpha, where every
    # share but one would round to zero and nothing could be left of a mixture whose class has run out. Beyond the
    # limits the law is at its extremes, and float32 at its end.
    shape = np.float32(np.clip(alpha, 1e-30, 1e30))
    mixtures = np.asarray(jax.random.loggamma(key_mixture, shape, (clients, len(kinds))), np.float64)
    draws = np.asarray(jax.random.uniform(key_class, (each * clients,)), np.float64)
    stock = np.array([len(shelf) for shelf in shelves])
    taken = np.zeros_like(stock)
    dealt = np.empty(each * clients, np.int64)
    start = 0
    while start < dealt.size:
        turns = np.arange(start, min(start + _BLOCK, dealt.size))
        picked = _pick(np.where(taken < stock, mixtures[turns % clients], -np.inf), draws[turns])
        # Which of its class every pick is. The picks hold until one empties a shelf; those after it are made anew.
        rank = taken[picked] + _count_before(picked)
        last = np.flatnonzero(rank == stock[picked] - 1)
        held = turns[: last[0] + 1] if len(last) else turns
        for kind, shelf in enumerate(shelves):
            mine = np.flatnonzero(picked[: len(held)] == kind)
            dealt[held[mine]] = shelf[rank[mine]]
            taken[kind] += len(mine)
        start += len(held)
    return dealt.reshape(each, clients).T


def _pick(logits, draws):
    """Class i64[turns] of uniform numbers f64[turns], with probabilities in proportion to exp(logits)."""
    shares = np.exp(logits - logits.max(1, keepdims=True))
    edges = np.cumsum(shares, 1)
    return (edges / edges[:, -1:] <= draws[:, None]).sum(1)


def _count_before(picked):
    """How many equal entries stand before every entry of i64[turns]."""
    order = np.argsort(picked, kind="stable")
    ranked = picked[order]
    counts = np.empty_like(picked)
    counts[order] = np.arange(len(picked)) - np.searchsorted(ranked, ranked)
    return counts
