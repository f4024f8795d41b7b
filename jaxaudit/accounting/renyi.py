"""From moments of the privacy loss to delta, and the orders at which to take them."""

import numpy as np

# Orders per decade of distance cost little and lose little: neighbours differ by an eighth, epsilon by 0.2 %.
COUNT = 56
_GRID = np.logspace(-1.3, 1.5, COUNT)


def orders(distance):
    """Orders of Rényi divergence that suit a separation: for a Gaussian the best is 1 + sqrt(2 log(1/δ)) / distance.

    Args:
      distance: separation in standard deviations, > 0; f64[k] or a number.

    Returns:
      f64[k, n] or f64[n], all above 1.
    """
    return 1 + _GRID / np.asarray(distance, np.float64)[..., None]


def delta(orders, divergence, epsilon):
    r"""Smallest delta that Rényi divergences of several orders allow.

    Args:
      orders: f64[..., n], above 1.
      divergence: f64[..., n], (1/(α-1)) log Σ p^α q^(1-α): at most this in both directions. p may be a part of a law,
        and then weighs less than 1.
      epsilon: nats, >= 0.

    Returns:
      f64[...] in [0, 1], at least Σ (p - e^ε q)₊.

    Guarantee:
      With r = p/q, (p - e^ε q)₊ = p (1 - e^ε/r)₊ <= c p r^(α-1), where c = max over r of (1 - e^ε/r) r^(1-α) is
      reached at r = e^ε α/(α-1): c = (1/α) (1 - 1/α)^(α-1) e^(-(α-1)ε). The sum over all outcomes is the claim. It
      holds outcome by outcome, so neither p nor q has to add up to 1.

    Reference:
      Canonne, Kamath & Steinke (2020), arXiv:2004.00010, Proposition 12; agrees with `dp_accounting.rdp`.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        exponent = (orders - 1) * (divergence - epsilon + np.log1p(-1 / orders)) - np.log(orders)
    return np.exp(np.minimum(np.min(exponent, axis=-1), 0.0))
