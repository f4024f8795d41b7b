"""Local training on a client, as one pure function from records to the update it sends."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.flatten_util import ravel_pytree


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
        """The product of a one-step update with `weights`, without computing the update.

        The first SGD step is linear in the gradient, so the directional derivative takes the gradient's place.

        Args:
          unravel, theta: as in `update`.
          weights: f32[dim].
          inputs: f32[1, batch, ...].
          labels: i32[1, batch].

        Returns:
          f32[], equal to `update(...) @ weights` up to rounding.
        """
        _, slope = jax.jvp(lambda t: self.loss(unravel, t, inputs[0], labels[0]), (theta,), (weights,))
        change, _ = self.optimizer.update(slope, self.optimizer.init(slope))
        return change

    def accuracy(self, unravel, theta, inputs, labels) -> float:
        """Share of records whose largest logit is their label."""
        logits = self.model.apply(unravel(theta), inputs)
        return float(jnp.mean(logits.argmax(-1) == labels))
