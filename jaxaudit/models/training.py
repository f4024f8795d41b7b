"""Local training on a client, as one pure function from records to the update it sends."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.flatten_util import ravel_pytree

from .objective import Objective

# Records whose logits are computed at once: the patches of the convolutions take 0.2 MB each on 28×28 pixels.
_EVALUATED = 1000


@dataclass(frozen=True)
class LocalTraining:
    """Stochastic gradient descent on the loss of a few mini-batches.

    Parameters travel as one flat vector, so that an update is what the server sums. Batch normalisation takes its
    statistics from each mini-batch, and no running ones are kept.

    Attributes:
      model: a flax module from inputs to logits.
      learning_rate: of SGD, positive.
      momentum: of SGD, in [0, 1).
      objective: the loss of a mini-batch.
    """

    model: nn.Module
    learning_rate: float
    momentum: float
    objective: Objective = field(default_factory=Objective)

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
          (theta f32[dim], the function from theta to the variables of the model, {"params": the parameters}).
        """
        variables = jax.jit(self.model.init)({"params": key, "dropout": key}, inputs)
        return ravel_pytree({"params": variables["params"]})

    def logits(self, variables, inputs, key=None):
        """What the model says in training, with the statistics of this very batch.

        Args:
          variables: {"params": the parameters}.
          inputs: f32[batch, ...].
          key: PRNG key of models with dropout.

        Returns:
          f32[batch, classes].
        """
        rngs = None if key is None else {"dropout": key}
        return self.model.apply(variables, inputs, rngs=rngs, mutable=["batch_stats", "intermediates"])[0]

    def loss(self, unravel, theta, inputs, labels):
        """The objective of a mini-batch, with its weight decay: f32[]."""
        return self._loss(unravel(theta), inputs, labels)

    def _loss(self, variables, inputs, targets):
        loss = self.objective.of_logits(self.logits(variables, inputs), targets)
        if not self.objective.weight_decay:
            return loss
        squares = [jnp.sum(leaf**2) for leaf in jax.tree.leaves(variables["params"])]
        return loss + self.objective.weight_decay / 2 * sum(squares)

    def update(self, unravel, theta, inputs, labels):
        """What a client sends: the sum of its SGD steps.

        Args:
          unravel: from `init`.
          theta: f32[dim], the global model.
          inputs: f32[steps, batch, ...].
          labels: i32[steps, batch], or f32[steps, batch, classes] as the objective has them.

        Returns:
          f32[dim], the local model minus the global one.
        """
        step, start = self._sgd(partial(self.loss, unravel), theta)
        (moved, _), _ = jax.lax.scan(step, start, (inputs, labels))
        return moved

    def tree_update(self, params, inputs, targets, take: Callable = lambda tree: tree):
        """A part of what a client sends, without the work that only the other parts need.

        The gradient is that of the whole model. A single step is not looped over: under `jax.jit` XLA then leaves out
        the backward pass of every layer that `take` leaves out. The steps of a loop move all parameters.

        Args:
          params: the parameters of the model, a pytree.
          inputs: f32[steps, batch, ...].
          targets: i32[steps, batch], or f32[steps, batch, classes] as the objective has them.
          take: from a tree like `params` to the part that is wanted, e.g. `lambda tree: tree["head"]`.

        Returns:
          What `take` makes of the sum of the SGD steps, the local model minus the global one.
        """
        step, start = self._sgd(lambda params, *batch: self._loss({"params": params}, *batch), params)
        if len(inputs) == 1:
            (moved, _), _ = step(start, (inputs[0], targets[0]))
        else:
            (moved, _), _ = jax.lax.scan(step, start, (inputs, targets))
        return take(moved)

    def _sgd(self, loss, model):
        """(one step, its first carry) from a model that is a vector or a tree.

        Summing the steps keeps the bits that `(model + moved) - model` would round away.
        """

        def step(carry, batch):
            moved, state = carry
            gradient = jax.grad(loss)(jax.tree.map(jnp.add, model, moved), *batch)
            change, state = self.optimizer.update(gradient, state)
            return (jax.tree.map(jnp.add, moved, change), state), None

        return step, (jax.tree.map(jnp.zeros_like, model), self.optimizer.init(model))

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

        Batch normalisation takes the statistics of the records it sees together, as in training.

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
        hits = [_hits(self, unravel, size, theta, inputs, labels, np.int32(start)) for start in starts]
        return sum(map(int, hits)) / len(labels)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _hits(training, unravel, size, theta, inputs, labels, start):
    """How many of the records `start` to `start + size` are classified correctly; those past the end are not."""
    # The last ones are seen among `size` different records too: copies would have batch statistics of their own.
    rows = jnp.minimum(start, len(labels) - size) + jnp.arange(size, dtype=jnp.int32)
    right = training.logits(unravel(theta), inputs[rows]).argmax(-1) == labels[rows]
    return jnp.sum(right & (rows >= start), dtype=jnp.int32)
