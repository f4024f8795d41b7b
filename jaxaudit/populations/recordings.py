"""Updates of recorded mini-batches, computed when they are asked for and never all at once."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..models import LocalTraining
from .source import products

# Models of so many parameters are projected by directional derivatives, so many at once, instead of whole updates.
_WIDE, _SLOPES = 2**17, 8
# Clients whose directional derivatives are compared with their whole updates.
_COMPARED = 8


class Global(NamedTuple):
    """The global model of the audited round, and what it trains on.

    Attributes:
      theta: f32[dim], its parameters.
      inputs: f32[records, ...].
      labels: i32[records].
    """

    theta: jax.Array
    inputs: jax.Array
    labels: jax.Array


@dataclass(frozen=True)
class Batches:
    """How a client's mini-batches are recorded: static sizes, no arrays.

    Attributes:
      variants: recorded updates of the client.
      steps: mini-batches in each.
      size: records in a mini-batch.
    """

    variants: int
    steps: int
    size: int

    def __call__(self, key, records):
        """Record numbers of every recorded variant, i32[variants, steps, size], distinct within a batch."""
        order = jax.random.uniform(key, (self.variants, self.steps, records.shape[0]))
        return records[jnp.argsort(order, axis=-1)[..., : self.size]]

    def once(self, key, records):
        """Record numbers of the first variant, i32[steps, size]."""
        return self(key, records)[0]


@dataclass(frozen=True, eq=False)
class FederatedSource:
    """The recorded mini-batch updates of some clients in one round, computed when they are asked for.

    Attributes:
      training: the local training.
      unravel: from theta to the pytree of the model.
      model: the global model and the data.
      batches: how mini-batches are recorded.
      records: i64[clients, records per client].
      key_batches: PRNG key of these clients' mini-batches.
      key: address of all that the updates are a function of.
    """

    training: LocalTraining
    unravel: Any
    model: Global
    batches: Batches
    records: np.ndarray
    key_batches: jax.Array
    key: str

    @property
    def dim(self) -> int:
        """Number of parameters."""
        return self.model.theta.size

    @property
    def sizes(self) -> np.ndarray:
        """Every client has recorded as many variants."""
        return np.full(len(self.records), self.batches.variants)

    def freedom(self, groups: int) -> int:
        """Rank that within-client differences can reach; one-step updates are means over the client's records."""
        one = self.batches.variants - 1
        if self.batches.steps == 1:
            one = min(one, self.records.shape[1] - 1)
        return min(groups * one, self.dim)

    def rows(self, first: int, last: int) -> np.ndarray:
        """All variants of clients `first` to `last - 1`."""
        return np.concatenate([self._client(client) for client in range(first, last)])

    def project(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scalars per update; of wide models a single step needs only directional derivatives, and no update is kept.

        How far those may be off is estimated: sixteen times the most by which they miss the products of a few
        clients' updates.
        """
        if self.batches.steps > 1 or self.dim < _WIDE:
            return products(self, weights)
        slopes = np.concatenate(
            [self._slopes(weights[at : at + _SLOPES]) for at in range(0, len(weights), _SLOPES)], 1
        )
        by_client = slopes.reshape(len(self.records), self.batches.variants, -1)
        seen = np.unique(np.linspace(0, len(self.records) - 1, _COMPARED).astype(int))
        misses = [np.abs(by_client[c] - self._client(c).astype(np.float64) @ weights.T).max(0) for c in seen]
        return slopes, 16 * np.max(misses, axis=0)

    def update(self, batches) -> np.ndarray:
        """The update of given batches i32[steps, size] of record numbers: f32[dim]."""
        return np.asarray(_update(self.training, self.unravel, self.model, jnp.asarray(batches)))

    def drawn(self, client: int) -> np.ndarray:
        """Record numbers of a client's recorded batches: i32[variants, steps, size]."""
        return np.asarray(_batches(self.batches, *self._arguments(client)))

    def _client(self, client):
        batches = self.drawn(client)
        if self.batches.steps > 1:
            # Every variant moves its own copy of the weights: on a CPU one copy at a time stays in the cache.
            rows = np.stack([self.update(batch) for batch in batches])
        else:
            rows = np.asarray(_updates(self.training, self.unravel, self.model, jnp.asarray(batches)))
        if not np.isfinite(rows).all():
            raise ValueError(
                f"population.learning_rate is {self.training.learning_rate}, and client {client} diverges: its "
                "updates hold NaN or infinity; set a smaller one with --set population.learning_rate=VALUE"
            )
        return rows

    def _slopes(self, weights):
        static, directions = (self.training, self.unravel, self.batches), jnp.asarray(weights, jnp.float32)
        found = [
            _client_slopes(*static, self.model, directions, *self._arguments(client))
            for client in range(len(self.records))
        ]
        return np.concatenate([np.asarray(one, np.float64) for one in found])

    def _arguments(self, client):
        """What decides a client's mini-batches: their key, and its records."""
        return jax.random.fold_in(self.key_batches, client), jnp.asarray(self.records[client])


@partial(jax.jit, static_argnums=0)
def _batches(batches: Batches, key, records):
    return batches(key, records)


@partial(jax.jit, static_argnums=(0, 1))
def _update(training, unravel, model: Global, batch):
    return training.update(unravel, model.theta, model.inputs[batch], model.labels[batch])


@partial(jax.jit, static_argnums=(0, 1))
def _updates(training, unravel, model: Global, batches):
    return jax.vmap(partial(_update, training, unravel, model))(batches)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _client_slopes(training, unravel, batches: Batches, model: Global, weights, key, records):
    def slopes(batch):
        return training.projected_update(unravel, model.theta, weights, model.inputs[batch], model.labels[batch])

    return jax.vmap(slopes)(batches(key, records))
