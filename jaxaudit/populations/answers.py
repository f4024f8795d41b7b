"""What clients answer to the models that a malicious server sent them: real training on their own records."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.flatten_util import ravel_pytree

from ..broadcast import Sent
from ..models import LocalTraining

# Records whose activations a device holds at once: a processor's caches few, while a graphics card wants many. In a
# ResNet-18 on 32×32 pixels the patches of a convolution take 2.4 MB each.
_RECORDS = {"cpu": 16}
_MANY = 1024


def whole(tree) -> Any:
    """All parameters."""
    return tree


def head(tree) -> Any:
    """Those of the last layer alone."""
    return {"head": tree["head"]}


def placed(params, take: Callable[[Any], Any]) -> Any:
    """The tree that `take` leaves of the parameters, every leaf holding its places in the flat update: i64."""
    kept = take(params)
    size = sum(leaf.size for leaf in jax.tree.leaves(kept))
    _, unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.int32), kept))
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.int64), unravel(jnp.arange(size, dtype=jnp.int32)))


def answers(
    training: LocalTraining,
    sent: Sent,
    take: Callable[[Any], Any],
    inputs,
    labels,
    who: np.ndarray,
    batches: np.ndarray,
) -> np.ndarray:
    """The updates of given batches, each under the model that its client was sent.

    Every update is the whole network's forward pass and its gradient on the client's records, by `jax.grad`; what
    `take` leaves out is not kept, and for one local step the compiler drops the backward pass that only it would
    need. Parameters that all clients share stay single: only those of `sent.own` are mapped over clients, so a chunk
    of clients needs no copies of the model.

    Args:
      training: how clients train.
      sent: the models.
      take: `whole` or `head`.
      inputs: f32[records, ...], on the host.
      labels: i32[records], on the host.
      who: i64[n], the clients.
      batches: i64[n, steps, size], record numbers.

    Returns:
      f32[n, dim].

    Raises:
      ValueError: where an update is not finite.
    """
    steps, size = batches.shape[1:]
    devices = jax.local_devices()
    mesh = jax.make_mesh((len(devices),), ("clients",), (jax.sharding.AxisType.Auto,), devices=devices)
    # Several steps move copies of all parameters: one client at a time stays in the cache of a processor.
    each = max(1, _RECORDS.get(jax.default_backend(), _MANY) // size) if steps == 1 else 1
    # As many on every device whatever their number: the last bits depend on how many are mapped over.
    chunk = len(devices) * each
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    common, rows = jax.device_put(sent.common, everywhere), []
    for first in range(0, len(who), chunk):
        # The last chunk is filled up with its last client, so that all have one shape and are compiled once.
        at = np.minimum(np.arange(first, first + chunk), len(who) - 1)
        own = {path: np.asarray(leaf)[who[at]] for path, leaf in sent.own.items()}
        found = _chunk(mesh, training, take, common, own, inputs[batches[at]], labels[batches[at]])
        rows.append(np.asarray(found)[: len(who) - first])
    rows = np.concatenate(rows)
    if not np.isfinite(rows).all():
        client = int(who[np.flatnonzero(~np.isfinite(rows).all(axis=1))[0]])
        raise ValueError(
            f"client {client} answers with NaN or infinity: 0 · NaN breaks the constant embedding, too; check the "
            "records, or set a smaller --set population.learning_rate=VALUE"
        )
    return rows


def personal(common, own) -> Any:
    """The parameters of one client: `own` leaves by path, in place of the common ones."""
    return unflatten_dict(flatten_dict(common) | own)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _chunk(mesh, training, take, common, own, inputs, labels):
    """Updates of as many clients on every device of the mesh: f32[clients, dim]."""

    def answer(common, own, inputs, labels):
        return ravel_pytree(training.tree_update(personal(common, own), inputs, labels, take))[0]

    def on_one_device(common, own, inputs, labels):
        if inputs.shape[0] == 1:  # mapped over one client, several steps would still make grouped products
            return answer(common, *jax.tree.map(lambda leaf: leaf[0], (own, inputs, labels)))[None]
        return jax.vmap(answer, in_axes=(None, 0, 0, 0))(common, own, inputs, labels)

    alike, split = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec("clients")
    spread = jax.shard_map(
        on_one_device, mesh=mesh, in_specs=(alike, split, split, split), out_specs=split, check_vma=False
    )
    return spread(common, own, inputs, labels)
