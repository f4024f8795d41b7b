"""Mean and covariance of the other clients' sum, and the covariance a test should be built on."""

from collections.abc import Collection, Iterable
from typing import Literal

import numpy as np

from ..types import Moments

Shrinkage = Literal["ridge", "ledoit_wolf", "oas"]


def exact_moments(groups: Iterable[tuple[Collection[np.ndarray], int]], dim: int, freedom: int) -> Moments:
    """Moments of the sum when every seat draws uniformly from its own finite group of updates.

    They are sums over the whole pool, not estimates from draws: Σ_seats mean(group), Σ_seats cov(group) with the
    divisor n of the drawing law.

    Args:
      groups: for each group its updates, in chunks f32[n, dim] that can be read twice, and how many seats
        draw from it.
      dim: dimension of an update.
      freedom: the largest rank that these recordings could show.

    Returns:
      Moments.
    """
    mean, covariance = np.zeros(dim), np.zeros((dim, dim))
    samples, fourth = 0, 0.0
    for chunks, seats in groups:
        # Two passes: centring before squaring avoids the cancellation of E[xx'] - E[x]E[x]'.
        count = sum(len(chunk) for chunk in chunks)
        centre = sum(np.sum(chunk, axis=0, dtype=np.float64) for chunk in chunks) / count
        scatter = np.zeros((dim, dim))
        for chunk in chunks:
            rows = np.asarray(chunk, np.float64) - centre
            scatter += rows.T @ rows
            fourth += float(np.sum(np.einsum("ij,ij->i", rows, rows) ** 2))
        mean += seats * centre
        covariance += scatter * (seats / count)
        samples += count
    return Moments(mean, covariance, samples, freedom, fourth / max(samples, 1))


def regularise(moments: Moments, noise_terms: int, shrinkage: Shrinkage, ridge: float) -> np.ndarray:
    """A positive definite covariance: any choice is sound, a poor one costs power.

    Args:
      moments: of the sum of `noise_terms` updates.
      noise_terms: number of updates in the sum.
      shrinkage: "ridge" adds `ridge` times the mean variance to the diagonal; "ledoit_wolf" and "oas" mix with
        the scaled identity, with weights that assume independent recordings, and add the ridge to that.
      ridge: relative to the mean variance, >= 0.

    Returns:
      f64[dim, dim].

    Reference:
      Ledoit & Wolf (2004), J. Multivariate Analysis 88; Chen, Wiesel, Eldar & Hero (2010), IEEE TSP 58.
    """
    dim = len(moments.mean)
    identity = np.eye(dim)
    scale = np.trace(moments.covariance) / dim
    weight = 0.0
    if moments.samples and shrinkage != "ridge":
        one = moments.covariance / noise_terms
        weight = _WEIGHTS[shrinkage](one, moments.samples, moments.fourth)
    return (1 - weight) * moments.covariance + (weight + ridge) * scale * identity


def _ledoit_wolf_weight(covariance, samples, fourth):
    dim = len(covariance)
    square = np.sum(covariance**2)
    spread = square - np.trace(covariance) ** 2 / dim
    noise = (fourth - square) / samples
    return float(np.clip(noise / spread, 0, 1)) if spread > 0 else 1.0


def _oas_weight(covariance, samples, fourth):
    dim = len(covariance)
    square, trace = np.sum(covariance**2), np.trace(covariance)
    spread = (samples + 1) * (square - trace**2 / dim)
    return float(min((square + trace**2) / spread, 1.0)) if spread > 0 else 1.0


_WEIGHTS = {"ledoit_wolf": _ledoit_wolf_weight, "oas": _oas_weight}
