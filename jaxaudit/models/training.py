"""Local training on a client, as one pure function from records to the update it sends."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.flatten_util import ravel_pytree

# Records whose logits are computed at once: the patches of the convolutions take 0.2 MB each on 28×28 pixels.
_EVALUATED = 1000


@dataclass(frozen=True)
class LocalTraining:
    """Stochastic gradient descent on the cross-entropy of a few mini-batches.

    Parameters travel as one flat vector, so that an update is what the server sums.

    Attributes:
      model: a flax module from inputs to logits.
      learning_rate: of SGD, positive.
      momentum: of SGD, in [0, 1).
    """

    model: nn.Module
    learning_rate: float
    momentum: float

    @cached_property
    def optimizer(self):
        """The optax transformation; its state starts afresh on every client."""
        return optax.sgd(self.learning_rate, momentum=self.momentum or None)

    def init(self, key, inputs) -> tuple[jax.Array, Callable]:
        """Initial parameters.

        Args:
          key: PRNG key.
          inputs: f32[batch, ...], for their shape.

        Returns:
          (theta f32[dim], the function from theta to the pytree of the model).
        """
        return ravel_pytree(self.model.init(key, inputs))

    def loss(self, unravel, theta, inputs, labels):
        """Mean cross-entropy of a mini-batch: f32[]."""
        logits = self.model.apply(unravel(theta), inputs)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def update(self, unravel, theta, inputs, labels):
        """What a client sends: the sum of its SGD steps.

        Args:
          unravel: from `init`.
          theta: f32[dim], the global model.
          inputs: f32[steps, batch, ...].
          labels: i32[steps, batch].

        Returns:
          f32[dim], the local model minus the global one.
        """

        def step(carry, batch):
            moved, state = carry
            gradient = jax.grad(self.loss, argnums=1)(unravel, theta + moved, *batch)
            change, state = self.optimizer.update(gradient, state)
            return (moved + change, state), None

        # Summing the steps keeps the bits that `(theta + moved) - theta` would round away.
        (moved, _), _ = jax.lax.scan(step, (jnp.zeros_like(theta), self.optimizer.init(theta)), (inputs, labels))
        return moved

    def projected_update(self, unravel, theta, weights, inputs, labels):
        """The products of a one-step update with some directions, without computing the update.

        The first SGD step is linear in the gradient, so directional derivatives take the gradient's place; they
        share one forward pass. For dense layers this is cheaper than the update itself; for convolutions, whose
        parameters are few beside their work, only with a single direction.

        Args:
          unravel, theta: as in `update`.
          weights: f32[directions, dim].
          inputs: f32[1, batch, ...].
          labels: i32[1, batch].

        Returns:
          f32[directions], equal to `weights @ update(...)` up to rounding.
        """
        _, slope = jax.linearize(lambda t: self.loss(unravel, t, inputs[0], labels[0]), theta)
        slopes = jax.vmap(slope)(weights)
        change, _ = self.optimizer.update(slopes, self.optimizer.init(slopes))
        return change

    def accuracy(self, unravel, theta, inputs, labels) -> float:
        """Share of records whose largest logit is their label, a thousand records at a time.

        Args:
          unravel, theta: as in `update`.
          inputs: f32[records, ...].
          labels: i32[records].

        Returns:
          float in [0, 1].
        """
        inputs, labels = jnp.asarray(inputs), jnp.asarray(labels)
        size = min(_EVALUATED, len(labels))
        starts = range(0, len(labels), size)
        hits = [_hits(self.model, unravel, size, theta, inputs, labels, np.int32(start)) for start in starts]
        return sum(map(int, hits)) / len(labels)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _hits(model, unravel, size, theta, inputs, labels, start):
    """How many of the records `start` to `start + size` are classified correctly; those past the end are not."""
    rows = start + jnp.arange(size, dtype=jnp.int32)
    inside = jnp.minimum(rows, len(labels) - 1)
    right = model.apply(unravel(theta), inputs[inside]).argmax(-1) == labels[inside]
    return jnp.sum(right & (rows == inside), dtype=jnp.int32)
