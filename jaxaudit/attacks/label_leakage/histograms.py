"""Label histograms: the nearest one to real-valued counts, how close two are, and the guess without an attack.

Rounding twice, onto the simplex and then by largest remainders, is never worse than rounding each count. The second
step takes the nearest integer point of the plane of sum B, and finds the truth as long as the errors of any two
classes differ by less than 1, which they do where every error is below 1/2. The first step keeps that: it shifts all
errors by one θ and raises to 0 what falls below, so it only lifts the smallest errors, and the largest one stays what
it was up to the shift (or every error is 0, for they sum to 0).
"""

import numpy as np


def onto_simplex(counts, sizes) -> np.ndarray:
    """Euclidean projection onto {n >= 0, sum of n = B}, exact.

    Args:
      counts: f64[..., C].
      sizes: [...], the B of each, at least 0; broadcasts.

    Returns:
      f64[..., C].

    Reference:
      Held, Wolfe & Crowder (1974), Mathematical Programming 6; the form with a sort of Duchi, Shalev-Shwartz, Singer
      & Chandra (2008), ICML.

    Example:
      >>> onto_simplex([3.0, 2.0, -1.0], 4)
      array([2.5, 1.5, 0. ])
    """
    counts = np.asarray(counts, np.float64)
    sizes = np.asarray(sizes, np.float64)[..., None]
    descending = -np.sort(-counts, axis=-1)
    excess = np.cumsum(descending, axis=-1) - sizes
    ranks = np.arange(1, counts.shape[-1] + 1)
    kept = np.maximum((descending * ranks > excess).sum(-1, keepdims=True), 1)
    return np.maximum(counts - np.take_along_axis(excess, kept - 1, axis=-1) / kept, 0.0)


def largest_remainder(counts, sizes) -> np.ndarray:
    """Integers with the right sum, nearest to counts that have it: Hamilton's method; ties go to the first classes.

    Args:
      counts: f64[..., C], with sum B.
      sizes: [...], integers B; broadcasts.

    Returns:
      i64[..., C].

    Raises:
      ValueError: when the counts do not add up to B.

    Example:
      >>> largest_remainder([1.4, 0.5, 2.1], 4)
      array([1, 1, 2])
    """
    counts = np.asarray(counts, np.float64)
    floors = np.floor(counts).astype(np.int64)
    missing = np.asarray(sizes, np.int64)[..., None] - floors.sum(-1, keepdims=True)
    classes = counts.shape[-1]
    if ((missing < 0) | (missing > classes)).any():
        raise ValueError(
            "counts add up to something other than their batch size; project them with onto_simplex first"
        )
    ranks = np.argsort(np.argsort(floors - counts, axis=-1, kind="stable"), axis=-1)
    return floors + (ranks < missing)


def nearest_histograms(counts, sizes) -> np.ndarray:
    """Label histograms of batches of known size.

    Args:
      counts: f64[..., C], real-valued counts, with errors.
      sizes: integers [...], the batch sizes; broadcasts.

    Returns:
      i64[..., C], at least 0, each with sum B.

    Guarantee:
      Exact wherever the errors of any two classes differ by less than 1; so wherever rounding each count is exact.
    """
    return largest_remainder(onto_simplex(counts, sizes), sizes)


def nearest_counts(counts, sizes) -> np.ndarray:
    """Label counts of batches whose records carry any number of labels.

    Args:
      counts: f64[..., C], real-valued counts, with errors.
      sizes: integers [...], the batch sizes; broadcasts.

    Returns:
      i64[..., C], each in [0, B]; of any sum.
    """
    return np.clip(np.rint(counts), 0, np.asarray(sizes)[..., None]).astype(np.int64)


def exact(found, truth) -> np.ndarray:
    """Whether every count is right: bool[...] of integers [..., C]."""
    return (np.asarray(found) == np.asarray(truth)).all(-1)


def overlap(found, truth) -> np.ndarray:
    """Share of the true labels that the found counts hold too, sum_c min(n_c, found_c) / B.

    Args:
      found: integers [..., C], at least 0.
      truth: integers [..., C], the labels of a batch, not all 0.

    Returns:
      f64[...], in [0, 1].

    Example:
      >>> float(overlap([3, 1, 0], [2, 1, 1]))
      0.75
    """
    truth = np.asarray(truth)
    return np.minimum(found, truth).sum(-1) / truth.sum(-1)


def pooled_guess(truth_sum, clients, size) -> np.ndarray:
    """What an honest round tells of every client: the histogram of all labels, scaled to its batch. The null.

    Args:
      truth_sum: integers [C], the labels of all clients together.
      clients: K.
      size: batch size, of all clients or [K] of each.

    Returns:
      i64[K, C], each with the sum of its batch.

    Example:
      >>> pooled_guess([5, 3, 0], 2, 4)
      array([[3, 1, 0],
             [3, 1, 0]])
    """
    sizes = np.broadcast_to(np.asarray(size, np.int64), (clients,))
    truth_sum = np.asarray(truth_sum, np.float64)
    # Divided last: shares that are integers, and ties, stay exact.
    return largest_remainder(sizes[:, None] * truth_sum / truth_sum.sum(), sizes)
