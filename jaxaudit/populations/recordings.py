"""Updates of recorded mini-batches, computed when they are asked for and never all at once."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..models import LocalTraining
from .pool import product_error

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


@dataclass(frozen=True, eq=False)
class FederatedSource:
    """The recorded mini-batch updates of some clients, computed when they are asked for.

    Attributes:
      training: the local training.
      unravel: from theta to the pytree of the model.
      model: the global model and the data.
      batches: how mini-batches are recorded.
      records: i64[clients, records per client].
      key: PRNG key of these clients' mini-batches.
    """

    training: LocalTraining
    unravel: Any
    model: Global
    batches: Batches
    records: np.ndarray
    key: jax.Array

    @property
    def dim(self):
        """Number of parameters."""
        return self.model.theta.size

    def freedom(self, groups: int) -> int:
        """Rank that within-client differences can reach; one-step updates are means over the client's records."""
        _, each = self.records.shape
        one = self.batches.variants - 1
        if self.batches.steps == 1:
            one = min(one, each - 1)
        return min(groups * one, self.dim)

    @property
    def sizes(self):
        """Every client has recorded as many variants."""
        return np.full(len(self.records), self.batches.variants)

    def chunks(self, group: int):
        """All variants of one client, in one piece."""
        static = (self.training, self.unravel, self.batches)
        rows = np.asarray(client_updates(*static, self.model, *self._client(group)))
        if not np.isfinite(rows).all():
            raise ValueError(
                f"population.learning_rate is {self.training.learning_rate}, and client {group} diverges: its "
                "updates hold NaN or infinity; set a smaller one with --set population.learning_rate=VALUE"
            )
        return [rows]

    def project(self, weights: np.ndarray) -> tuple[np.ndarray, float]:
        """One scalar per update; a single step needs only a directional derivative, and no update is stored.

        How far those may be off is sixteen times the most by which they miss the products of a few clients' updates.
        """
        groups = range(len(self.records))
        if self.batches.steps > 1:
            scalars, largest = [], 0.0
            for group in groups:
                rows = self.chunks(group)[0].astype(np.float64)
                scalars.append(rows @ weights)
                largest = max(largest, float(np.abs(rows).max()))
            return np.concatenate(scalars), product_error(largest, weights)
        arguments = (self.training, self.unravel, self.batches, self.model, jnp.asarray(weights, jnp.float32))
        slopes = [np.asarray(_client_slopes(*arguments, *self._client(group)), np.float64) for group in groups]
        seen = np.unique(np.linspace(0, len(groups) - 1, _COMPARED).astype(int))
        misses = [np.abs(slopes[g] - self.chunks(g)[0].astype(np.float64) @ weights).max() for g in seen]
        return np.concatenate(slopes), 16 * float(max(misses))

    def update(self, batches):
        """The update of given batches i32[steps, size] of record numbers: f32[dim]."""
        return np.asarray(_update(self.training, self.unravel, self.model, jnp.asarray(batches)))

    def _client(self, group):
        """Arguments that record one client: its records, and the key of its mini-batches."""
        return jnp.asarray(self.records[group]), jax.random.fold_in(self.key, group)


@partial(jax.jit, static_argnums=(0, 1))
def _update(training, unravel, model: Global, batch):
    return training.update(unravel, model.theta, model.inputs[batch], model.labels[batch])


@partial(jax.jit, static_argnums=(0, 1, 2))
def client_updates(training, unravel, batches: Batches, model: Global, records, key):
    """All recorded updates of one client.

    Args:
      training, unravel, batches: static, as in `FederatedSource`.
      model: the global model and the data.
      records: i32[records per client].
      key: PRNG key of its mini-batches.

    Returns:
      f32[variants, dim].
    """
    return jax.vmap(partial(_update, training, unravel, model))(batches(key, records))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _client_slopes(training, unravel, batches, model: Global, weights, records, key):
    def slope(batch):
        return training.projected_update(unravel, model.theta, weights, model.inputs[batch], model.labels[batch])

    return jax.vmap(slope)(batches(key, records))
