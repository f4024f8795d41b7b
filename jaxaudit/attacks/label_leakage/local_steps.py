"""Several local steps: predict what a client would send for given labels, and correct the labels until it fits.

After its first step a client's head and its embedding have moved, so the sum of its gradients no longer has the
counts as a linear function. But the server knows where they start, and the blind body makes all that follows a
function of the labels alone: the head W, b and the offset β of the fishing layer, whose output is the embedding.
(Its scale γ moves too, by what the records put into it; that part is small and left out.)
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ...models.objective import Objective
from .decoding import dual_rows, label_counts, require_countable
from .histograms import onto_simplex

_ACTIVATIONS = {"relu": jax.nn.relu, "relu6": jax.nn.relu6, "none": lambda x: x}
# Clients that train at once: each holds a few copies of the kernel.
_TOGETHER = 64
# A share of a batch that no count notices.
_SETTLED = 1e-6


def simulated(
    kernel,
    bias,
    betas,
    activation: str,
    frequencies,
    steps: int,
    learning_rate: float,
    momentum: float,
    objective: Objective,
    *,
    sizes=None,
    read_bias: bool = False,
) -> np.ndarray:
    """What the sum decodes to if these are the labels.

    The change of every client's kernel is simulated, all are added, and the sum is decoded as if the embeddings had
    not moved: just as the server decodes what it observes, with all that one client's drift puts into the others'.

    Args:
      kernel: f[d, C], of the head, as it was sent.
      bias: f[C], of the head; or f[K, C], if it differs by client.
      betas: f[K, d], offsets of the fishing layer; what the activation makes of them is the embedding.
      activation: between the fishing layer and the head, "relu", "relu6" or "none".
      frequencies: f[K, C], shares of the records of a batch that have each label; the same in every step.
      steps: T, local steps of SGD, at least 1.
      learning_rate: of SGD, positive.
      momentum: of SGD as in optax, in [0, 1).
      objective: what the clients minimise, weight decay included.
      sizes: [K], batch sizes; needed where the loss is the sum of a batch.
      read_bias: the sum of the bias's changes is decoded too.

    Returns:
      f64[K, C], the sum of a client's steps over minus the learning rate; in one step, its gradient of the bias.

    Raises:
      ValueError: for an unknown activation, a sum over batches of unknown size, class weights of a multilabel loss,
        and embeddings that are linearly dependent.
    """
    require_countable(objective)
    embeddings = _embeddings(betas, activation)
    head = (kernel, bias, betas, activation, dual_rows(embeddings, bias=read_bias))
    return _predicted(head, frequencies, steps, learning_rate, momentum, objective, sizes)


def corrected(
    observed,
    kernel,
    bias,
    betas,
    activation: str,
    steps: int,
    learning_rate: float,
    momentum: float,
    objective: Objective,
    *,
    sizes=None,
    read_bias: bool = False,
    iterations: int = 30,
) -> np.ndarray:
    """Label frequencies behind several local steps.

    Args:
      observed: f64[K, C], the sum of the changes over minus the learning rate, decoded by `head_gradients` with the
        embeddings as they were sent; with weight decay still in it. Clients that dropped out must be left out, here
        and in `betas`: their steps must not be simulated.
      kernel, bias, betas, activation, steps, learning_rate, momentum, objective, sizes, read_bias: as in `simulated`.
      iterations: of the correction, at most; it ends when it has settled.

    Returns:
      f64[K, C], shares of the records of a batch. Where every step has a fresh batch only the total over the steps
      can be found, approximately: these are its shares.

    Raises:
      ValueError: as `simulated`.
    """
    observed = np.asarray(observed, np.float64)
    embeddings = _embeddings(betas, activation)
    head = (kernel, bias, betas, activation, dual_rows(embeddings, bias=read_bias))
    logits = embeddings @ np.asarray(kernel, np.float64) + np.asarray(bias, np.float64)
    records = np.ones(len(observed)) if sizes is None else np.asarray(sizes, np.float64)
    undecayed = replace(objective, weight_decay=0.0)
    # With momentum μ the gradient of step t enters the steps after it too, (1 - μ^(T-t)) / (1 - μ) times in all.
    effective = sum((1 - momentum**left) / (1 - momentum) for left in range(1, steps + 1))

    def decoded(gradients):
        found = label_counts(gradients, logits, records, objective) / records[:, None]
        return np.clip(found, 0, 1) if objective.loss == "multilabel" else onto_simplex(found, np.ones(len(found)))

    # To first order all T gradients are the first one, so what the prediction misses is T times what the first
    # gradient misses. Decoding the corrected first gradient is Newton's step, q + (A(q) - A_obs) / T for the plain
    # loss, and takes smoothing and class weights into account without a derivative of their own.
    frequencies = decoded(observed / effective)
    for _ in range(iterations):
        missed = observed - _predicted(head, frequencies, steps, learning_rate, momentum, objective, sizes)
        first = _predicted(head, frequencies, 1, learning_rate, 0.0, undecayed, sizes)
        before, frequencies = frequencies, decoded(first + missed / effective)
        if np.abs(frequencies - before).max() < _SETTLED:
            break
    return frequencies


def _embeddings(betas, activation) -> np.ndarray:
    """What clients feed into their head before the first step: f64[K, d]."""
    if activation not in _ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(_ACTIVATIONS)}, got {activation!r}")
    return np.asarray(_ACTIVATIONS[activation](jnp.asarray(betas, jnp.float32)), np.float64)


def _predicted(head, frequencies, steps, learning_rate, momentum, objective, sizes) -> np.ndarray:
    """What `simulated` returns, with the vectors that decode the sum at hand: f64[K, C]."""
    kernel, bias, betas, activation, duals = head
    weights, targets = _as_one_record(np.asarray(frequencies, np.float64), objective, sizes)
    arrays = (kernel, np.broadcast_to(bias, targets.shape), betas, weights, targets)
    scalars = (learning_rate, momentum, objective.weight_decay)
    kernel_change, bias_change = _summed_change(
        activation,
        replace(objective, reduction="mean", class_weights=(), weight_decay=0.0),
        *(jnp.asarray(each, jnp.float32) for each in arrays),
        *(jnp.float32(each) for each in scalars),
        jnp.int32(steps),
    )
    rows = np.concatenate([kernel_change, bias_change[None]])
    # Without the bias the vectors are one entry shorter, and its row is left out.
    return duals @ rows[: duals.shape[1]].astype(np.float64)


def _as_one_record(frequencies, objective, sizes) -> tuple[np.ndarray, np.ndarray]:
    """A batch as one record with soft targets: (its weight f64[K], the targets f64[K, C])."""
    # The loss is linear in the targets, and the logits of all records are the same. So the mean of a batch is the
    # loss of its mean target, in which each label counts w_c times; and its sum is that times the summed weight.
    shares = frequencies
    weight = np.ones(len(shares))
    if objective.class_weights:
        shares = shares * np.asarray(objective.class_weights)
        weight = shares.sum(-1)
        shares = shares / weight[:, None]
    if objective.reduction == "mean":
        return np.ones(len(shares)), shares
    if sizes is None:
        raise ValueError("sizes must be given where the loss is the sum of a batch; infer them with batch_size_of")
    return weight * np.asarray(sizes), shares


@partial(jax.jit, static_argnums=(0, 1))
def _summed_change(
    activation, objective, kernel, biases, betas, weights, targets, learning_rate, momentum, weight_decay, steps
):
    """Sum over clients of the head's change over minus the learning rate: (f32[d, C], f32[C])."""
    # The momentum of optax.sgd; the learning rate comes after it.
    trace = optax.trace(decay=momentum, nesterov=False)

    def loss(parameters, weight, target):
        kernel, bias, beta = parameters
        embedding = _ACTIVATIONS[activation](beta)
        logits = jnp.matmul(embedding, kernel, precision=jax.lax.Precision.HIGHEST) + bias
        decay = sum(jnp.sum(jnp.square(each)) for each in parameters) * (weight_decay / 2)
        return weight * objective.of_logits(logits[None], target[None]) + decay

    def change(client):
        bias, beta, weight, target = client
        start = (kernel, bias, beta)

        def step(_, carry):
            moved, state = carry
            at = jax.tree.map(lambda initial, change: initial - learning_rate * change, start, moved)
            update, state = trace.update(jax.grad(loss)(at, weight, target), state)
            return optax.apply_updates(moved, update), state

        moved, _ = jax.lax.fori_loop(0, steps, step, (jax.tree.map(jnp.zeros_like, start), trace.init(start)))
        return moved[:2]

    changes = jax.lax.map(change, (biases, betas, weights, targets), batch_size=_TOGETHER)
    return jax.tree.map(lambda each: each.sum(0), changes)
