"""From the sum of the head's gradients to the label counts of every client.

The body of client k's model is blind: it gives one embedding e_k whatever the record is. Its gradient of the head's
kernel is then e_k g_kᵀ, where g_k is the gradient of its bias, and the sum over clients is Eᵀ Ĝ: a known matrix times
the unknown rows g_k. The logits z_k are constants that the server knows too, so g_k is an affine function of the
label counts.

Reference:
  Wang, Chang, Hu, Pang, Du, Chen & Ren (2024), INFOCOM, arXiv:2406.15731, for the attack; the decoders are ours.
"""

import numpy as np
from scipy.linalg import qr, solve_triangular
from scipy.special import expit, softmax

from ...models.objective import Objective

# Embeddings are float32: a singular value this far below the largest is their rounding.
RANK_TOLERANCE = 1e-6


def dual_rows(embeddings, *, bias: bool = False) -> np.ndarray:
    """The vectors that read one client's share out of the sum.

    Args:
      embeddings: f64[K, d].
      bias: whether the gradient of the bias is read too, as one more dimension in which every embedding is 1.

    Returns:
      f64[K, d], or f64[K, d + 1]; row k has product 1 with the embedding of client k and 0 with all others.

    Raises:
      ValueError: when the embeddings are linearly dependent.
    """
    rows = np.asarray(embeddings, np.float64)
    if bias:
        rows = np.hstack([rows, np.ones((len(rows), 1))])
    # A pivoted QR tells the rank as a singular value decomposition would here, at a quarter of its time.
    basis, triangle, order = qr(rows.T, mode="economic", pivoting=True)
    scales = np.abs(np.diag(triangle))
    rank = int((scales > RANK_TOLERANCE * scales.max(initial=0.0)).sum())
    if rank < len(rows):
        raise ValueError(
            f"embeddings of {len(rows)} clients have rank {rank}, and labels of as many clients at most can be told "
            "apart; use a design of full rank, fewer clients or packing"
        )
    duals = np.empty_like(rows)
    duals[order] = solve_triangular(triangle, basis.T)
    return duals


def head_gradients(kernel_sum, embeddings, bias_sum=None) -> np.ndarray:
    """Every client's gradient of the head's bias, out of the sum of all clients' updates.

    Args:
      kernel_sum: f64[..., d, C], sum of the gradients of the kernel, without weight decay.
      embeddings: f64[K, d], what each client's model feeds into the head.
      bias_sum: f64[..., C], sum of the gradients of the bias; None does without it.

    Returns:
      f64[..., K, C]; of a client that dropped out about 0.

    Raises:
      ValueError: when the embeddings are linearly dependent.
    """
    summed = np.asarray(kernel_sum, np.float64)
    if bias_sum is not None:
        summed = np.concatenate([summed, np.asarray(bias_sum, np.float64)[..., None, :]], axis=-2)
    return dual_rows(embeddings, bias=bias_sum is not None) @ summed


def without_decay(summed, parameters, weight_decay: float, survivors) -> np.ndarray:
    """The sum of gradients without what weight decay adds: λ times the parameters, once for every client.

    Args:
      summed: f64[..., d, C] of the kernel, or f64[..., C] of the bias.
      parameters: f64[d, C], or f64[C], as they were sent to the clients.
      weight_decay: λ.
      survivors: [...], how many clients the sum holds.

    Returns:
      f64 of the shape of `summed`.
    """
    parameters = np.asarray(parameters, np.float64)
    clients = np.asarray(survivors, np.float64).reshape(np.shape(survivors) + (1,) * parameters.ndim)
    return np.asarray(summed, np.float64) - weight_decay * clients * parameters


def require_countable(objective: Objective) -> None:
    """Refuse the objective whose gradients do not hold label counts.

    Args:
      objective: what the clients minimise.

    Raises:
      ValueError: for class weights of a multilabel loss.
    """
    if objective.loss == "multilabel" and objective.class_weights:
        raise ValueError(
            "class_weights weigh a multilabel record by all of its labels, so the head's gradient tells which "
            "classes occur together and not how often each does; set class_weights=()"
        )


def label_counts(gradients, logits, sizes, objective: Objective) -> np.ndarray:
    """Label counts before rounding.

    Args:
      gradients: f64[..., K, C], from `head_gradients`.
      logits: f64[K, C], of each client's model.
      sizes: [K], batch sizes B.
      objective: what the clients minimise; its weight decay is already off the gradients.

    Returns:
      f64[..., K, C]; integers up to the errors of the gradients.

    Raises:
      ValueError: for class weights of a multilabel loss.
    """
    slope, offset = counts_by_size(gradients, logits, objective)
    return np.asarray(sizes, np.float64)[:, None] * slope + offset


def counts_by_size(gradients, logits, objective: Objective) -> tuple[np.ndarray, np.ndarray]:
    """Label counts as a function of the batch size B, which is affine: n = B · slope + offset.

    Args:
      gradients, logits, objective: as in `label_counts`.

    Returns:
      (slope, offset), f64[..., K, C] each.
    """
    # Let w be the class weights (1 without), v_c = w_c n_c and V = Σ v, the summed weight of the batch. With `origin`
    # and `shift` as below, the loss that divides by V has n = V (origin - shift), for its gradient is h / V where h
    # is the gradient of the sum, which therefore has n = V origin - shift. Without weights V = B, and that is all.
    # With them V is unknown, and Σ n = B fixes it: V = B / Σ(origin - shift), or V = (B + Σ shift) / Σ origin.
    origin, shift = count_line(gradients, logits, objective)
    mean, weighted = objective.reduction == "mean", bool(objective.class_weights)
    if mean:
        slope = origin - shift
        return slope / slope.sum(-1, keepdims=True) if weighted else slope, np.zeros_like(slope)
    if weighted:
        slope = origin / origin.sum(-1, keepdims=True)
        return slope + np.zeros_like(shift), slope * shift.sum(-1, keepdims=True) - shift
    return origin + np.zeros_like(shift), -shift


def count_line(gradients, logits, objective: Objective) -> tuple[np.ndarray, np.ndarray]:
    """The line on which counts lie, up to their scale: origin - t · shift, with t = 1 for the mean of a batch.

    Args:
      gradients, logits, objective: as in `label_counts`.

    Returns:
      (origin f64[K, C], shift f64[..., K, C]).

    Raises:
      ValueError: for class weights of a multilabel loss.
    """
    gradients, logits = np.asarray(gradients, np.float64), np.asarray(logits, np.float64)
    smoothing, classes = objective.smoothing, logits.shape[-1]
    if objective.loss == "multilabel":
        require_countable(objective)

        # Smoothing a turns the labels of a record into (1 - a) y + a/C Σ y, so the counts appear in the gradient as
        # m = (1 - a) n + a/C Σ n. Both have the same sum, hence n = (m - a/C Σ m) / (1 - a); and m is
        # B (sigmoid(z) - g), or B sigmoid(z) - h of the gradient h of the sum.
        def sharpened(smooth):
            return (smooth - smoothing / classes * smooth.sum(-1, keepdims=True)) / (1 - smoothing)

        return sharpened(expit(logits)), sharpened(gradients)
    # A record of class c has weight w_c and gradient w_c (p - (1 - a) y - a/C), so the batch has
    # h = V (p - a/C) - (1 - a) v, and n_c = v_c / w_c = (V (p_c - a/C) - h_c) / ((1 - a) w_c).
    weights = np.asarray(objective.class_weights or 1.0, np.float64) * (1 - smoothing)
    return (softmax(logits, axis=-1) - smoothing / classes) / weights, gradients / weights
