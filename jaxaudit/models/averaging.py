"""Federated averaging: every client trains locally, and the server adds the mean of their updates."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

import jax
import jax.numpy as jnp
import numpy as np

from .training import LocalTraining


def average(
    training: LocalTraining,
    unravel: Callable,
    theta,
    inputs,
    labels,
    records: np.ndarray,
    draw: Callable,
    key,
    *,
    first: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Iterator[jax.Array]:
    """The global models of federated averaging, as many rounds as are asked for.

    The clients train one after the other and only the sum of their updates is kept, so memory does not grow with
    their number: two vectors of `dim` and one client's work. (On CPUs this is also faster than vectorising over
    clients, whose copies of the model leave the cache.)

    Args:
      training: the local training.
      unravel: from `training.init`.
      theta: f32[dim], the global model after `first` rounds.
      inputs: f32[records, ...].
      labels: i32[records].
      records: int[clients, records per client], record numbers.
      draw: from (key, records i32[records per client]) to the mini-batches i32[steps, size] that a client trains on.
        It is traced once for every object it is: a frozen dataclass is traced once, a lambda at every call.
      key: PRNG key of all rounds; round r and client c draw with `split(fold_in(key, r), clients)[c]`.
      first: rounds that `theta` has behind it, to go on where another call stopped.
      progress: called with the number of clients just done.

    Yields:
      f32[dim]: first `theta` itself, then the global model after every further round, without end.

    Raises:
      ValueError: when the global model diverges.

    Example:
      The model after five rounds, and then after the sixth::

        thetas = average(training, unravel, theta, inputs, labels, records, draw, key)
        fifth = next(itertools.islice(thetas, 5, None))
        sixth = next(thetas)

    Reference:
      McMahan, Moore, Ramage, Hampson & Agüera y Arcas (2017), arXiv:1602.05629, Algorithm 1 with all clients in
      every round and equal weights.
    """
    theta, inputs, labels = jnp.asarray(theta), jnp.asarray(inputs), jnp.asarray(labels)
    records = jnp.asarray(records, jnp.int32)
    yield theta
    for number in count(first):
        keys = jax.random.split(jax.random.fold_in(key, number), len(records))
        total = jnp.zeros_like(theta)
        for client in range(len(records)):
            arguments = (theta, inputs, labels, records, keys, np.int32(client))
            total = _add_update(training, unravel, draw, total, *arguments)
            if progress:
                progress(1)
        theta = theta + total / len(records)
        if not jnp.isfinite(theta).all():
            raise ValueError(
                f"population.learning_rate is {training.learning_rate}, and federated averaging diverges in round "
                f"{number + 1}: the global model holds NaN or infinity; set a smaller one with --set "
                "population.learning_rate=VALUE"
            )
        yield theta


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=3)
def _add_update(training, unravel, draw, total, theta, inputs, labels, records, keys, client):
    """Running sum f32[dim] of the updates, in place, with the update of one more client."""
    batches = draw(keys[client], records[client])
    return total + training.update(unravel, theta, inputs[batches], labels[batches])
