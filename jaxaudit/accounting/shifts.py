r"""What the exact law of one coordinate proves about shifts: all in one dimension, and a good deal in many."""

from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from .lattice import TAIL, Law


class PrivacyLoss(NamedTuple):
    """The privacy loss of a law and the same law, shifted.

    Attributes:
      mass: f64[n], probabilities.
      loss: f64[n], nats; infinite where the other law has nothing. At most the true loss plus `error`.
      error: see there.
    """

    mass: np.ndarray
    loss: np.ndarray
    error: float


def privacy_loss(law: Law, shift: int) -> PrivacyLoss:
    """Of the core of the law, against the law that is moved by `shift` steps, at least 1."""
    mass, loss = _compared(law, shift)
    return PrivacyLoss(np.exp(mass), loss, 2 * law.error)


def delta(pair: PrivacyLoss, epsilon: float) -> float:
    r"""Delta of integer noise in one dimension, where no shift is larger than that of the pair.

    Args:
      pair: from `privacy_loss`, for the largest shift.
      epsilon: nats, >= 0.

    Returns:
      float in [0, 1].

    Guarantee:
      With p log-concave, p(x - k) / p(x) grows with x, so that an event {x >= c} is the best and δ_k(ε) =
      P(X >= c - k) - e^ε P(X >= c). At the same c a larger k gives more: δ_k grows with k. The law is symmetric, so
      the other direction is the same. What is outside of the core, and the rounding of the loss, are added.
    """
    gap = epsilon - pair.error - pair.loss
    return min(float(np.sum(pair.mass * -np.expm1(np.minimum(gap, 0.0)))) * np.exp(pair.error) + TAIL, 1.0)


class PerSquare(NamedTuple):
    """The worst single coordinate, per unit of squared shift.

    Attributes:
      divergence: f64[n], max over shifts k of R_α(k) / k², at the orders asked for.
      missing: max over k of m(k) / k², where m(k) is the probability that R(k) leaves out.
    """

    divergence: np.ndarray
    missing: float


def per_square(law: Law, largest: int, orders) -> PerSquare:
    r"""What bounds the Rényi divergence of every shift of a vector, by its norm alone.

    Args:
      law: of one coordinate of the noise, prepared for `largest`.
      largest: steps that one coordinate can move, >= 1.
      orders: f64[n], above 1.

    Guarantee:
      Coordinates that do not move have the same law under both hypotheses and drop out. For the others the noise is
      independent, so for a shift k, Σ_i R_α(k_i) <= \|k\|_2² max_k R_α(k) / k²; likewise for the probability outside
      of the parts of the laws that R_α compares.
    """
    divergence, missing = np.zeros(len(orders)), 0.0
    for shift in range(1, largest + 1):
        mass, loss = _compared(law, shift)
        common = np.isfinite(loss)
        outside = TAIL + np.sum(np.exp(mass[~common])) * np.exp(law.error)
        moment = logsumexp(mass[common] + (orders[:, None] - 1) * loss[common], axis=1) if common.any() else -np.inf
        divergence = np.maximum(divergence, moment / (orders - 1) / shift**2)
        missing = max(missing, outside / shift**2)
    # Each moment is off by the error of p^α q^(1-α), a probability or two more than the loss has.
    return PerSquare(divergence + law.error * (2 * orders - 1) / (orders - 1), float(missing))


def _compared(law, shift):
    """Log-probabilities of the core, and how much larger they are than those `shift` steps further."""
    at = np.arange(-law.core, law.core + 1)
    mass = law.log_pmf[np.abs(at)]
    held = np.isfinite(mass)
    mass = mass[held]
    return mass, mass - law.log_pmf[np.abs(at[held] + shift)]
