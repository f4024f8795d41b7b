"""How records are dealt to clients."""

import jax
import numpy as np


def deal(labels: np.ndarray, clients: int, concentration: float | None, key) -> np.ndarray:
    """Deal records to clients, as many to each as go evenly.

    Args:
      labels: i32[records].
      clients: number of clients.
      concentration: of the Dirichlet law from which every client draws its own mixture of classes, > 0; None deals
        at random (iid). Near 0 a client sees one class, at infinity all in equal shares.
      key: PRNG key.

    Returns:
      i64[clients, records per client], distinct record numbers. A few records may be left over.

    Reference:
      Hsu, Qi & Brown (2019), arXiv:1909.06335: equal sizes, Dirichlet class mixtures, classes run dry.
    """
    key_order, key_mixture, key_class = jax.random.split(key, 3)
    each = len(labels) // clients
    order = np.asarray(jax.random.permutation(key_order, len(labels)))
    if concentration is None:
        return order[: clients * each].reshape(clients, each)
    shelves = [list(order[labels[order] == label]) for label in np.unique(labels)]
    mixtures = np.asarray(
        jax.random.dirichlet(key_mixture, np.full(len(shelves), concentration, np.float32), (clients,)),
        np.float64,
    )
    draws = np.asarray(jax.random.uniform(key_class, (each, clients)), np.float64)
    dealt = np.empty((clients, each), np.int64)
    # Round by round, so that no client finds all shelves picked over by those before it.
    for turn in range(each):
        for client in range(clients):
            left = mixtures[client] * [len(shelf) > 0 for shelf in shelves]
            if left.sum() <= 0:
                left = np.array([float(len(shelf)) for shelf in shelves])
            edges = np.cumsum(left) / left.sum()
            dealt[client, turn] = shelves[int(np.searchsorted(edges, draws[turn, client], side="right"))].pop()
    return dealt
