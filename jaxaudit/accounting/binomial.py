r"""Binomial noise: fair coins, whose law is closed under summation but has bounded support.

Reference:
  Agarwal, Suresh, Yu, Kumar & McMahan (2018), arXiv:1805.10559, Theorem 1, for coins that are fair.
"""

import numpy as np

SOURCE = "binomial shares: Theorem 1 of Agarwal et al. (2018), cpSGD"


def epsilon(delta, trials, l1: float, l2: float, linf: float, dim: int):
    r"""Epsilon of binomial noise for a shift by an integer vector.

    Args:
      delta: f64[n], in (0, 1).
      trials: coins in the sum, f64[k, 1].
      l1: norm of the shift, >= 0.
      l2: the same, Euclidean.
      linf: the same, of one entry.
      dim: entries of the shift.

    Returns:
      f64[k, n]; infinite where the theorem's condition fails, trials / 4 >= max(23 log(10 d / δ), 2 linf), and where
      it would give more than 1.
    """
    variance = np.asarray(trials, np.float64) / 4
    tail = np.log(10 / delta)
    first = l2 * np.sqrt(2 * np.log(1.25 / delta)) / np.sqrt(variance)
    # b = 1/3, c = 7 sqrt(2) / 4 and d = 2/3 are the constants of the theorem at p = 1/2.
    second = (l2 * 7 * np.sqrt(2) / 4 * np.sqrt(tail) + l1 / 3) / (variance * (1 - delta / 10))
    third = 2 / 3 * linf * (np.log(1.25 / delta) + np.log(20 * dim / delta) * tail) / variance
    holds = variance >= np.maximum(23 * np.log(10 * dim / delta), 2 * linf)
    # The first term is that of the Gaussian mechanism of Dwork & Roth (2014), Theorem A.1, which is proved up to
    # ε = 1 only. Far above that, exact laws contradict the formula.
    total = first + second + third
    return np.where(holds & (total <= 1), total, np.inf)
