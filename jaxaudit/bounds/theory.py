r"""What a Gaussian model of the noise predicts: curves, and the laws of simple populations.

A target update hidden in Gaussian noise of covariance Σ is distinguished from another at Mahalanobis distance
Δ = \|Σ^{-1/2}(x1 - x0)\| exactly as N(0, 1) from N(Δ, 1). These functions are that comparison. None of them is a
bound on a real mechanism: a finite sum of clipped updates is not Gaussian in its tails.

Reference:
  Balle & Wang (2018), arXiv:1805.06530, Theorem 8; Dong, Roth & Su (2019), arXiv:1905.02383, Corollary 2.13.
"""

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr, ndtri


def gaussian_delta(epsilon, distance):
    """Smallest delta for which a Gaussian shift of `distance` standard deviations is (epsilon, delta)-DP.

    Args:
      epsilon: nats, any real number; broadcasts.
      distance: separation of the two means in standard deviations, >= 0; broadcasts.

    Returns:
      f64 in [0, 1].

    Example:
      >>> round(float(gaussian_delta(1.0, 1.0)), 5)
      0.12694
    """
    epsilon, distance = np.asarray(epsilon, np.float64), np.asarray(distance, np.float64)
    if np.any(~(distance >= 0)):
        raise ValueError(f"distance must be >= 0, got {distance}")
    with np.errstate(divide="ignore", invalid="ignore"):
        near, far = distance / 2 - epsilon / distance, -distance / 2 - epsilon / distance
        # e^ε Φ(far) in logarithms: e^ε alone overflows long before the product does.
        delta = ndtr(near) - np.exp(np.minimum(epsilon + log_ndtr(far), 0.0))
    return np.where(distance > 0, np.maximum(delta, 0.0), -np.expm1(np.minimum(epsilon, 0.0)))


def gaussian_epsilon(delta, distance):
    """Epsilon of a Gaussian shift at `delta`: the inverse of `gaussian_delta`.

    Args:
      delta: in [0, 1).
      distance: separation in standard deviations, >= 0; may be infinite.

    Returns:
      float, nats; 0 where delta already covers the shift, infinity at delta = 0 or infinite distance.

    Example:
      >>> round(gaussian_epsilon(1e-3, 1.0), 5)
      3.13867
    """
    delta, distance = float(delta), float(distance)
    if not 0 <= delta < 1:
        raise ValueError(f"delta must be in [0, 1), got {delta}")
    if not distance >= 0:
        raise ValueError(f"distance must be >= 0, got {distance}")
    if gaussian_delta(0.0, min(distance, 100.0)) <= delta:
        return 0.0
    if delta == 0 or np.isinf(distance):
        return np.inf
    # The privacy loss is N(Δ²/2, Δ²), so δ(ε) < P(loss > ε) and the tail quantile brackets the root.
    high = distance**2 / 2 + distance * max(-ndtri(delta), 0.0) + 1.0
    return float(brentq(lambda eps: float(gaussian_delta(eps, distance)) - delta, 0.0, high, xtol=1e-12))


def gaussian_tradeoff(fpr, distance):
    """False negative rate of the best test at a false positive rate, for a Gaussian shift.

    Args:
      fpr: false positive rates in [0, 1]; broadcasts.
      distance: separation in standard deviations, >= 0.

    Returns:
      f64, Φ(Φ⁻¹(1 - fpr) - distance).

    Example:
      >>> round(float(gaussian_tradeoff(0.05, 1.0)), 4)
      0.7405
    """
    return ndtr(-ndtri(np.asarray(fpr, np.float64)) - distance)


def balanced_error(distance):
    """Error rate of the test that errs equally often under both hypotheses: Φ(-distance / 2).

    Example:
      >>> round(float(balanced_error(1.6125)), 3)
      0.21
    """
    return ndtr(-np.asarray(distance, np.float64) / 2)


def sphere_distance(dim, noise_terms):
    """Distance of an antipodal pair hidden among updates that are uniform on the same sphere: 2 √(dim / n).

    The sum of `noise_terms` uniform vectors has covariance n r² / dim · I and the pair is 2r apart.

    Example:
      >>> round(float(sphere_distance(650, 60)), 4)
      6.5828
    """
    return 2 * np.sqrt(np.asarray(dim, np.float64) / noise_terms)


def cube_distance(dim, noise_terms):
    """Distance of opposite corners hidden among updates that are uniform in the same cube: √(12 dim / n).

    Example:
      >>> round(float(cube_distance(650, 1000)), 4)
      2.7928
    """
    return np.sqrt(12 * np.asarray(dim, np.float64) / noise_terms)


def gaussian_distance(epsilon, delta):
    """Largest separation that is still (epsilon, delta)-DP: the inverse of `gaussian_delta` in its second argument.

    Args:
      epsilon: nats, >= 0.
      delta: in (0, 1).

    Example:
      >>> round(gaussian_distance(3.13867, 1e-3), 4)
      1.0
    """
    if not epsilon >= 0:
        raise ValueError(f"epsilon must be >= 0, got {epsilon}")
    if not 0 < delta < 1:
        raise ValueError(f"delta must be in (0, 1), got {delta}")
    high = 1.0
    while gaussian_delta(epsilon, high) < delta:
        high *= 2
    return float(brentq(lambda d: float(gaussian_delta(epsilon, d)) - delta, 0.0, high, xtol=1e-13))


def clients_needed(epsilon, delta, dim, law="sphere"):
    """Number of other clients that would hide the worst pair at (epsilon, delta), if their sum were Gaussian.

    Args:
      epsilon: nats, >= 0.
      delta: in (0, 1).
      dim: dimension of an update.
      law: "sphere" (updates uniform on a sphere, antipodal pair) or "cube" (uniform in a cube, opposite corners).

    Returns:
      int, the smallest n with Δ(dim, n) at or below the distance that (epsilon, delta) allows.

    Example:
      >>> clients_needed(1.0, 1e-3, dim=100)
      2652
    """
    scale = {"sphere": 4.0, "cube": 12.0}
    if law not in scale:
        raise ValueError(f"law must be one of {sorted(scale)}, got {law!r}")
    return int(np.ceil(scale[law] * dim / gaussian_distance(epsilon, delta) ** 2))
