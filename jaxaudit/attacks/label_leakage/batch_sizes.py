"""Who is in the sum, and with how many records: label counts are integers, which few batch sizes make them."""

import numpy as np

from ...models.objective import Objective
from .decoding import counts_by_size


def batch_size_of(
    gradients, logits, objective: Objective, largest: int = 1024, tolerance: float = 1e-3
) -> np.ndarray:
    """The smallest batch size that makes every count an integer of at least 0.

    With the mean of a batch, counts that share a factor are found divided by it: the shares of the classes are right,
    the batch size is right up to the factor. With the sum of a batch, sizes are told apart by their predictions
    alone: uniform ones tell B up to multiples of C, and one-hot ones nothing, so the answer is the smallest B that
    fits.

    Args:
      gradients: f64[K, C], from `head_gradients`.
      logits: f64[K, C], of each client's model.
      objective: what the clients minimise.
      largest: size to search up to, at least 1.
      tolerance: largest distance of a count from an integer, in (0, 1/2).

    Returns:
      i64[K]; 0 where no size fits.
    """
    slope, offset = counts_by_size(gradients, logits, objective)
    sizes, open_ = np.zeros(len(slope), np.int64), np.arange(len(slope))
    for size in range(1, largest + 1):
        counts = size * slope[open_] + offset[open_]
        whole = np.maximum(np.rint(counts), 0)
        fits = (np.abs(counts - whole) <= tolerance).all(-1)
        sizes[open_[fits]] = size
        open_ = open_[~fits]
        if not open_.size:
            break
    return sizes


def present(gradients, tolerance: float = 1e-5) -> np.ndarray:
    """Which clients are in the sum; of one that dropped out nothing but rounding is left.

    A client whose labels are all of the class that its model predicts with certainty looks as if it had dropped out:
    its gradient is 0 as well.

    Args:
      gradients: f64[..., K, C], from `head_gradients`.
      tolerance: largest absolute gradient of a client that is not there.

    Returns:
      bool[..., K].
    """
    return np.abs(np.asarray(gradients)).max(-1) > tolerance
