r"""Sums of discrete Gaussian shares: nearly a discrete Gaussian, and what the difference costs.

Reference:
  Kairouz, Liu & Steinke (2021), arXiv:2102.06387, Proposition 14; Canonne, Kamath & Steinke (2020), arXiv:2004.00010,
  Theorem 4 for one share.
"""

import numpy as np

SOURCE = "discrete Gaussian shares: Proposition 14 of Kairouz, Liu & Steinke (2021)"


def nonexactness(parameter: float, shares):
    r"""τ = 10 Σ_{k=1}^{m-1} exp(-2π²σ² k/(k+1)): how much a sum of shares differs from one discrete Gaussian.

    Args:
      parameter: σ of one share, > 0.
      shares: m, i64[k] or an int, >= 1.

    Returns:
      f64[k] or float: the ratio of the two laws is within e^-τ and e^τ, and varies by at most a factor e^τ; infinite
      for σ < 1/2 and two shares or more, of which nothing is proved.
    """
    count = np.asarray(shares)
    if parameter < 0.5:
        return np.where(count > 1, np.inf, 0.0)[()]
    k = np.arange(1, max(int(np.max(count)), 2), dtype=np.float64)
    terms = np.exp(-2 * np.pi**2 * parameter**2 * k / (k + 1))
    return 10 * np.append(0.0, np.cumsum(terms))[count - 1]


def divergence(orders, parameter: float, shares, l1: float, l2: float, dim: int):
    r"""Rényi divergences of a sum of shares and the same sum, shifted by an integer vector.

    Args:
      orders: f64[k, n], above 1.
      parameter: σ of one share, > 0.
      shares: m, i64[k], >= 1.
      l1: norm of the shift, >= 0.
      l2: the same, Euclidean.
      dim: entries of the shift.

    Returns:
      f64[k, n].

    Guarantee:
      One share of the sum alone already gives α l2² / 2σ², and further noise cannot undo that. Of all shares, with
      Δ = l2 / σ sqrt(m): α Δ² / 2 + τ d, for (p/q)^(α-1) is the same power of the ratio of two discrete Gaussians,
      whose logarithm is linear in x, times at most e^((α-1) τ d), and x is sub-Gaussian of variance m σ² about the
      shift. Also α/2 (Δ² + 2 l1 τ / σ sqrt(m) + τ² d) and α/2 (Δ + τ sqrt(d))², both by the proposition.
    """
    tau = np.asarray(nonexactness(parameter, shares), np.float64)[:, None]
    deviation = parameter * np.sqrt(np.asarray(shares, np.float64))[:, None]
    distance = l2 / deviation
    with np.errstate(invalid="ignore"):
        inflated = np.minimum(distance**2 + 2 * l1 / deviation * tau + tau**2 * dim, (distance + tau * dim**0.5) ** 2)
    alone = orders / 2 * (l2 / parameter) ** 2
    return np.minimum(alone, np.minimum(orders / 2 * distance**2 + tau * dim, orders / 2 * inflated))
