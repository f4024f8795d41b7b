"""Clipping is no defence: it hides the length of a gradient and keeps its direction, and counts are integers.

The counts of a clipped client lie on a known ray, n(t) = B (origin - t · shift) / (A - t D), of which t > 0, one over
the factor of the clip, is unknown. Few points of the ray have integer coordinates. Every candidate is found exactly,
by requiring one class to have each of the counts 0 ... B, and judged by the other classes.
"""

import numpy as np
from scipy.special import gammaln

from ...models.objective import Objective
from .decoding import count_line
from .histograms import nearest_counts, nearest_histograms

# Counts that float32 clients leave are off by 1e-4 and less; candidates this much worse than the best are as good.
_TIE = 3e-4
# Share by which rounding may lengthen an update.
_LONGER = 0.01
# Clients whose candidates are in memory at once, times classes times candidates.
_CELLS = 1 << 22


def unclipped(
    directions, logits, sizes, objective: Objective, shortened: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Label counts from gradients of unknown length.

    The point of the ray nearest to integers wins. Several can be equally near, above all for a one-hot prediction,
    which leaves the ratios of the other classes' counts and nothing else: half of even counts fit as well, and twice
    the counts if the predicted class has room. Of these the most probable histogram is taken under the prior of
    Jeffreys for the shares of the classes, Dirichlet(1/2, ..., 1/2), because the clients of a federation are far from
    balanced; it prefers few large counts, and so the end of the ray where the batch lacks a class that the model
    predicts. With two classes every integer point is on the ray, and nothing is learnt beyond the side of it.

    The reduction of the loss does not matter, as it scales the gradient; nor does a clip that left it as it was.

    Args:
      directions: f64[K, C], each client's gradient up to a positive factor, from `head_gradients`.
      logits: f64[K, C], of each client's model.
      sizes: integers [K], batch sizes.
      objective: what the clients minimise.
      shortened: the factor is known to be at most 1, as a clip's is.

    Returns:
      (counts i64[K, C], residual f64[K], the largest distance of a count from the integer found; near 0 where the
      search succeeded, and of the order of 1/2 where nothing fits).

    Raises:
      ValueError: for class weights of a multilabel loss.
    """
    origin, shift = count_line(directions, logits, objective)
    sizes = np.asarray(sizes, np.int64)
    several = int(max(1, _CELLS // (origin.shape[-1] * (sizes.max() + 1))))
    # A ray's parameter is the factor's inverse, of the gradient of a mean; that of a sum is longer by the weight of a
    # batch. Rounding may leave an update that was not clipped a little longer than it was.
    weight = np.max(objective.class_weights, initial=1.0) * sizes if objective.reduction == "sum" else sizes**0
    least = (1 - _LONGER) / weight if shortened else np.zeros(len(sizes))
    parts = [slice(at, at + several) for at in range(0, len(sizes), several)]
    points = np.concatenate([_nearest_point(origin[at], shift[at], sizes[at], objective, least[at]) for at in parts])
    nearest = nearest_counts if objective.loss == "multilabel" else nearest_histograms
    counts = nearest(points, sizes)
    return counts, np.abs(points - counts).max(-1)


def _nearest_point(origin, shift, sizes, objective, least) -> np.ndarray:
    """The point of each ray nearest to integers: f64[K, C]."""
    batch = sizes[:, None].astype(np.float64)
    # Only with class weights must the sum be brought to B; elsewhere it is B, or free, and dividing by it adds noise.
    weighted = bool(objective.class_weights)
    total = origin.sum(-1, keepdims=True) if weighted else np.ones_like(batch)
    drift = shift.sum(-1, keepdims=True) if weighted else np.zeros_like(batch)
    # The class whose count moves fastest with t is set to integers, so that its error grows in no other class.
    anchor = np.abs(shift * total - origin * drift).argmax(-1)[:, None]
    start, speed = np.take_along_axis(origin, anchor, 1), np.take_along_axis(shift, anchor, 1)
    asked = np.arange(sizes.max() + 1, dtype=np.float64)[None]
    below = batch * speed - asked * drift
    scale = np.divide(batch * start - asked * total, below, out=np.zeros_like(below), where=below != 0)
    left = total - scale * drift
    possible = (scale > least[:, None]) & (left > 0) & (asked <= batch)
    scale = np.where(possible, scale, 0.0)
    left = np.where(possible, left, total)
    points = (origin[:, None] - scale[..., None] * shift[:, None]) * (batch / left)[..., None]
    whole = np.rint(points)
    distance = np.abs(points - np.maximum(whole, 0.0)).max(-1)
    if objective.loss == "multilabel":
        distance = np.maximum(distance, (points - batch[..., None]).max(-1))
    distance = np.where(possible, distance, np.inf)
    good = distance <= distance.min(-1, keepdims=True) + _TIE
    # Γ(n + 1/2) / n! for every class, the part of the Dirichlet-multinomial law that differs within a batch size.
    prior = gammaln(asked[0] + 0.5) - gammaln(asked[0] + 1)
    plausible = prior[np.clip(whole, 0, asked[0, -1]).astype(np.int64)].sum(-1)
    chosen = np.where(good, plausible, -np.inf).argmax(-1)
    return np.take_along_axis(points, chosen[:, None, None], 1)[:, 0]
