"""More clients than directions: those who share one get amplitudes 1, B+1, (B+1)², ..., and counts become digits.

Under models that give one label c0 odds of one, client k sends -n_kc / B e_k for every other class c: integers up to
the batch size, without an error of any probability. On a direction that the clients of slots l = 0, 1, ... share,
whose embeddings are (B+1)^l times that of slot 0, the decoded gradient is then

    -ĝ_c = Σ_l (B+1)^l n_lc / B_l,

and B times it has the counts as digits in base B + 1. Of c0 itself they follow from Σ_c n_lc = B_l.
"""

from typing import Literal

import numpy as np

# Of float32, in which clients compute, and of float64, in which sums are decoded.
_FLOAT32, _FLOAT64 = 24, 53
# Odds of e^-24, times the largest packed value of 2^24, are 1e-3 of a count.
_MARGIN = 24.0


def most_per_direction(largest: int, mantissa: int = _FLOAT32) -> int:
    """How many clients may share a direction.

    Args:
      largest: B, the largest batch size, at least 1.
      mantissa: bits of the least exact number on the way; the client's float32 has 24.

    Returns:
      The most L with (B+1)^L <= 2^mantissa: every packed value is then an integer that the format holds.

    Example:
      >>> most_per_direction(64), most_per_direction(63), most_per_direction(64, mantissa=53)
      (3, 4, 8)
    """
    if largest < 1:
        raise ValueError(f"largest batch size is {largest}, allowed is 1 or more; give every client records")
    number, value = 0, int(largest) + 1
    while value <= 2**mantissa:
        number, value = number + 1, value * (int(largest) + 1)
    return number


def amplitudes(per_direction: int, largest: int) -> np.ndarray:
    """Amplitudes of the clients on one direction.

    The limit is that of the format. Where B is no power of two, a client's n / B is rounded, and its gradient with
    it: of 2^24 about 2^20 are left (measured; 4 batches of 50 on one direction come apart in a quarter of the rounds,
    3 in all).

    Args:
      per_direction: L, clients that share it.
      largest: B, the largest batch size.

    Returns:
      f64[L], (B+1)^l.

    Raises:
      ValueError: where float32 does not hold the packed counts.
    """
    _require_fits(per_direction, largest, _FLOAT32)
    return (largest + 1.0) ** np.arange(per_direction)


def unpack(values, sizes, largest: int, reduction: Literal["mean", "sum"] = "mean") -> np.ndarray:
    """Counts of the clients on each direction, for one class or several.

    Args:
      values: f64[..., D], the decoded gradients of a class other than c0 on D directions, times -B for the mean of a
        batch or -1 for its sum, where B is `largest`: Σ_l (B+1)^l n_l B / B_l, or Σ_l (B+1)^l n_l.
      sizes: i64[D, L], the batch sizes B_l; 0 where no client is.
      largest: B, the largest batch size.
      reduction: what clients minimise.

    Returns:
      i64[..., D, L], each in [0, B_l].

    Raises:
      ValueError: where float64 does not hold the packed counts.

    Guarantee:
      Exact wherever the error of a value is below 1/2.

    Example:
      >>> unpack([3 + 65 * 40.0], [[64, 64]], 64)
      array([[ 3, 40]])
    """
    sizes = np.asarray(sizes, np.int64)
    slots = sizes.shape[-1]
    _require_fits(slots, largest, _FLOAT64)
    units = (largest + 1.0) ** np.arange(slots) * np.ones(sizes.shape)
    if reduction == "mean":
        units *= largest / np.maximum(sizes, 1)
    rest = np.array(values, np.float64)
    digits = np.zeros((*rest.shape, slots), np.int64)
    # From the top: what the lower slots add is at most (B+1)^l - 1, and a unit of slot l is at least (B+1)^l, so
    # there is a gap of 1 below it, whose middle tells them apart. Batch sizes may differ.
    for slot in reversed(range(slots)):
        digits[..., slot] = np.clip(np.floor((rest + 0.5) / units[:, slot]), 0, sizes[:, slot])
        rest -= digits[..., slot] * units[:, slot]
    return digits


def require_one_hot(logits) -> None:
    """Clients that share directions must all have one label at odds of one.

    Args:
      logits: f64[clients, C], of each client's model.

    Raises:
      ValueError: where the margin is too small, or the label is not the same for all.
    """
    logits = np.asarray(logits, np.float64)
    label = logits[0].argmax()
    margin = (logits[:, [label]] - np.delete(logits, label, axis=1)).min()
    if margin < _MARGIN:
        raise ValueError(
            f"models of clients that share directions put label {label} ahead by {margin:.3g}, needed is {_MARGIN:g} "
            "or more; set attack.preset = one_hot and attack.edits = norm_and_bias, or attack.per_direction = 1"
        )


def _require_fits(per_direction, largest, mantissa):
    most = most_per_direction(largest, mantissa)
    if not 1 <= per_direction <= most:
        raise ValueError(
            f"per_direction is {per_direction}, allowed are 1 to {most} for batches of up to {largest} records and "
            f"{mantissa} bits; lower it or the batch size"
        )
