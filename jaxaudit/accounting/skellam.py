r"""Skellam noise: the difference of two Poisson variables, closed under summation.

Reference:
  Agarwal, Kairouz & Liu (2021), arXiv:2110.04995, Theorem 3.5 and Corollary 4.1.
"""

import numpy as np

SOURCE = "Skellam shares: Theorem 3.5 of Agarwal, Kairouz & Liu (2021)"


def divergence(orders, variance, l1: float, l2: float):
    r"""Rényi divergences of Skellam noise and the same noise, shifted by an integer vector.

    Args:
      orders: f64[k, n], integers above 1.
      variance: μ of the sum, f64[k], > 0.
      l1: norm of the shift, >= 0.
      l2: the same, Euclidean.

    Returns:
      f64[k, n], α l2² / 2μ + min{((2α - 1) l2² + 6 l1) / 4μ², 3 l1 / 2μ}.
    """
    variance = np.asarray(variance, np.float64)[:, None]
    excess = np.minimum(((2 * orders - 1) * l2**2 + 6 * l1) / (4 * variance**2), 3 * l1 / (2 * variance))
    return orders * l2**2 / (2 * variance) + excess
