"""The step of a fixed-point sum: integers add up to the same total in any order and on every device."""

import numpy as np


def fixed_step(largest) -> np.ndarray:
    """The finest power-of-two step for which a sum cannot overflow 31 bits.

    Args:
      largest: f64, >= 0, magnitudes that add up to no more than this; broadcasts.

    Returns:
      f64, at least 2^-100: below that its reciprocal would leave float32.

    Guarantee:
      Terms that are rounded to whole steps sum to at most 2^30 steps and half a step for each of them.
    """
    exponent = np.ceil(np.log2(np.maximum(np.asarray(largest, np.float64), 1e-300) / 2**30))
    return 2.0 ** np.maximum(exponent, -100)
