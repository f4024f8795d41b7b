r"""Membership inference through secure aggregation: the likelihood-ratio test with correlated Gaussian noise.

The server sees z = x_b + Y, where x_0 and x_1 are known and Y is the sum of the other clients' updates. If Y were
N(μ, Σ), the log-likelihood ratio would be linear in z, because both hypotheses have the same covariance and their
quadratic terms cancel:

    L(z) = w·(z - μ - (x_0 + x_1) / 2),   w = Σ⁻¹ (x_1 - x_0),   L ~ N(∓Δ²/2, Δ²),   Δ² = (x_1 - x_0)·w.

The Gaussian model only chooses the test. Any w is sound, because error rates are measured on trials that had no
part in choosing it.

Reference:
  Ngo, Östman, Durisi & Graell i Amat (2024), "Secure Aggregation is Not Private Against Membership Inference
  Attacks", ECML PKDD, arXiv:2403.17775.
"""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from scipy.linalg import cho_factor, cho_solve

from ..populations.moments import Shrinkage, regularise
from ..schema import recipe
from ..types import LinearTest, Moments, Server, SumView, linear_score


@recipe
class GaussianLRT:
    """The most powerful test between two updates if the others' sum were Gaussian.

    Attributes:
      kind: "gaussian_lrt".
      shrinkage: how the covariance is made invertible: "ridge", "ledoit_wolf" or "oas" (the ridge is added to all).
      ridge: added to the diagonal, relative to the mean variance, > 0.
    """

    reads: ClassVar[type] = SumView
    kind: Literal["gaussian_lrt"] = "gaussian_lrt"
    shrinkage: Shrinkage = "ridge"
    ridge: float = Field(0.03, gt=0, le=1e6, description="relative to the mean variance")

    score = staticmethod(linear_score)

    def broadcast(self) -> None:
        """An honest server."""

    def calibrate(self, server: Server, moments: Moments) -> LinearTest:
        """Weights and offset of the test, in float64.

        Args:
          server: the candidates and the protocol facts.
          moments: of the others' sum, as the server knows it.

        Returns:
          LinearTest.

        Raises:
          ValueError: where the noise has no variance at all, or the ridge is too small for its covariance.
        """
        difference = server.pair.difference
        covariance = regularise(moments, server.noise_terms, self.shrinkage, self.ridge)
        if not np.trace(covariance) > 0:
            raise ValueError(
                "the fit pool has no variance: all its updates are equal, and any difference is visible in the sum; "
                "record updates that vary"
            )
        try:
            weights = cho_solve(cho_factor(covariance, lower=True), difference)
        except np.linalg.LinAlgError as error:
            raise ValueError(
                f"attack.ridge is {self.ridge}, too small to make the covariance invertible ({error}); "
                "set a larger one with --set attack.ridge=VALUE"
            ) from error
        return LinearTest(weights, weights @ (moments.mean + server.pair.middle))

    def linear(self, knowledge: LinearTest) -> LinearTest:
        """The score as weights and offset: an attack that has this method can be projected."""
        return knowledge
