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

from collections.abc import Mapping, Sequence
from itertools import product
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from ..populations.moments import Shrinkage, regularise
from ..schema import one_or_more, recipe, several
from ..types import LinearTest, Moments, Server, SumView, linear_score

# The settings that tests of this kind have in common.
Ridges = one_or_more(float, "numbers > 0 and ≤ 1,000,000", lambda ridge: 0 < ridge <= 1e6)
Ranks = one_or_more(int, "whole numbers ≥ 0", lambda rank: rank >= 0)


@recipe
class GaussianLRT:
    """The most powerful test between two updates if the others' sum were Gaussian.

    Lists of ridges or ranks are settings: pilot trials choose the one that separates best.

    Attributes:
      kind: "gaussian_lrt".
      shrinkage: how the covariance is made invertible: "ridge", "ledoit_wolf" or "oas" (the ridge is added to all).
      ridge: added to the diagonal, relative to the mean variance, > 0; one number or a list.
      rank: directions of the noise that are told from the ridge, the strongest first; 0 for all; one or a list.
    """

    reads: ClassVar[type] = SumView
    kind: Literal["gaussian_lrt"] = "gaussian_lrt"
    shrinkage: Shrinkage = "ridge"
    ridge: Ridges = Field(0.03, description="relative to the mean variance, one or a list")
    rank: Ranks = Field(0, description="directions that are kept, 0 for all, one or a list")

    score = staticmethod(linear_score)

    def broadcast(self) -> None:
        """An honest server."""

    def options(self, server: Server, moments: Sequence[Moments]) -> Mapping[str, LinearTest]:
        """Weights and offsets of the test for every setting, in float64.

        The log-likelihood ratios of independent rounds add, so the weights of each round come from its own moments.

        Args:
          server: the candidates and the protocol facts.
          moments: of the others' sum, as the server knows it, round by round.

        Returns:
          LinearTest by its setting in words.

        Raises:
          ValueError: where the noise has no variance at all.
        """
        settings = list(product(several(self.ridge), several(self.rank)))
        weights = []
        for one, difference in zip(moments, server.pair.difference):
            shrunk = [regularise(one, self.shrinkage, ridge) for ridge, _ in settings]
            wanted = [(*how, rank) for how, (_, rank) in zip(shrunk, settings)]
            weights.append(one.covariance.solve_each(difference[None], wanted)[:, 0])
        means = np.stack([one.mean / one.terms for one in moments])
        found = {}
        for (ridge, rank), own in zip(settings, np.stack(weights, axis=1)):
            each, offset = (np.einsum("rd,rd->r", own, along) for along in (means, server.pair.middle))
            if server.chain is not None and not server.chain.channel.announced:
                # The score cannot allow for a number that the server is not told: only for the expected one.
                each, offset = np.zeros_like(each), offset + each * moments[0].terms
            setting = f"ridge {ridge}, {f'rank {rank:,}' if rank else 'full rank'}"
            found[setting] = LinearTest(own, each, offset)
        return found

    def linear(self, knowledge: LinearTest) -> LinearTest:
        """The score as weights and offsets: an attack that has this method can be projected."""
        return knowledge
