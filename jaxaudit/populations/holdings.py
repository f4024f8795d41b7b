"""Which records clients hold, and which batches of them they train on."""

from dataclasses import dataclass

import jax
import numpy as np

from .partition import Name, deal

# Records that a client's own are drawn from, as a multiple of what it draws and of the number of classes.
_SHELF = 2


def holdings(
    labels: np.ndarray, records: np.ndarray, clients: int, each: int, partition: Name, alpha: float, key
) -> np.ndarray:
    """Records of every client.

    Args:
      labels: i32[all records].
      records: i64[n], those that belong to clients.
      clients: number of clients.
      each: records of a client, drawn from its own mixture of classes without repetition, while other clients may
        hold the same ones; 0 deals every record to one client.
      partition, alpha: as of `deal`.
      key: PRNG key.

    Returns:
      i64[clients, records per client].

    Raises:
      ValueError: where there are too few records.
    """
    if not each:
        return records[deal(labels[records], clients, partition, alpha, key)]
    if each > len(records):
        raise ValueError(
            f"population.records is {each}, allowed are up to {len(records)}, all that clients have; set fewer"
        )
    shelf = min(len(records), _SHELF * each * len(np.unique(labels)))
    key_shelf, key_deal = jax.random.split(key)
    rng, held = generator(key_shelf), []
    for own in jax.random.split(key_deal, clients):
        near = rng.choice(records, shelf, replace=False)
        held.append(near[deal(labels[near], 1, partition, alpha, own, each=each)[0]])
    return np.stack(held)


def generator(key) -> np.random.Generator:
    """NumPy's generator of a PRNG key, for many small draws on the host."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())


@dataclass(frozen=True)
class Batching:
    """How every client's batches are recorded.

    Attributes:
      size: records in a batch; several are given to the clients in turn.
      variants: recorded updates of a client.
      steps: local steps.
      fresh: every step has a batch of its own.
    """

    size: tuple[int, ...]
    variants: int
    steps: int
    fresh: bool

    def sizes(self, clients: int) -> np.ndarray:
        """Records in a batch of every client: i64[clients]."""
        return np.resize(np.array(self.size, np.int64), clients)

    def drawn(self, held: np.ndarray, key) -> list[np.ndarray]:
        """Record numbers of every client's batches: i64[variants, steps, its size], distinct within a batch.

        Raises:
          ValueError: where a batch is larger than what a client holds.
        """
        sizes = self.sizes(len(held))
        if sizes.max() > held.shape[1]:
            raise ValueError(
                f"population.batch_size is {sizes.max()}, but its {len(held)} clients hold {held.shape[1]} records "
                f"each; allowed are 1 to {held.shape[1]}: use fewer clients or smaller batches, or set "
                "population.records so that clients may hold the same ones"
            )
        rng, batches = generator(key), []
        for own, size in zip(held, sizes):
            drawn = rng.random((self.variants, self.steps if self.fresh else 1, len(own))).argsort(-1)[..., :size]
            batches.append(np.broadcast_to(own[drawn], (self.variants, self.steps, size)))
        return batches

    def counted(self, labels: np.ndarray, batches: list[np.ndarray], classes: int) -> np.ndarray:
        """Records of each label behind every update, client after client: i64[clients * variants, classes].

        Of steps that repeat one batch it counts once, of fresh batches all count.
        """
        steps = slice(None) if self.fresh else slice(1)
        own = [update[steps].reshape(-1) for client in batches for update in client]
        return np.stack([np.bincount(labels[update], minlength=classes) for update in own])
