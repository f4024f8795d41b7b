"""What a client minimises: the cross-entropy of its labels, in the variants that deployments train with."""

from typing import Literal

import jax.numpy as jnp
import optax
from pydantic import Field

from ..schema import recipe


@recipe
class Objective:
    """The loss of a mini-batch.

    Attributes:
      loss: "softmax" (cross-entropy of one label) or "multilabel" (binary cross-entropy of every class, summed over
        the classes).
      reduction: "mean" over the records of a batch (of weighted ones: over the sum of their weights) or "sum".
      smoothing: share of every label that is spread evenly over all classes, in [0, 1).
      class_weights: of the records of each class, all above 0; empty for equal ones.
      weight_decay: λ, adds λ/2 · |parameters|² to the loss, at least 0.
    """

    loss: Literal["softmax", "multilabel"] = "softmax"
    reduction: Literal["mean", "sum"] = "mean"
    smoothing: float = Field(0.0, ge=0, lt=1, description="share of a label that is spread over all classes")
    class_weights: tuple[float, ...] = Field((), description="of the records of each class")
    weight_decay: float = Field(0.0, ge=0, le=1e3, description="weight of half the squared norm of the parameters")

    def of_logits(self, logits, targets):
        """Loss of a batch without its weight decay: f32[].

        Args:
          logits: f32[batch, classes].
          targets: i32[batch], labels; or f32[batch, classes], shares of every class.
        """
        classes = logits.shape[-1]
        if self == Objective(weight_decay=self.weight_decay) and targets.ndim == 1:
            return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()
        hard = targets if targets.ndim == 2 else jnp.eye(classes, dtype=logits.dtype)[targets]
        soft = hard * (1 - self.smoothing) + hard.sum(-1, keepdims=True) * (self.smoothing / classes)
        if self.loss == "multilabel":
            each = optax.sigmoid_binary_cross_entropy(logits, soft).sum(-1)
        else:
            each = optax.softmax_cross_entropy(logits, soft)
        weights = jnp.ones(len(each), logits.dtype)
        if self.class_weights:
            weights = (hard * jnp.asarray(self.class_weights, logits.dtype)).sum(-1)
        return jnp.sum(weights * each) / (jnp.sum(weights) if self.reduction == "mean" else 1)
