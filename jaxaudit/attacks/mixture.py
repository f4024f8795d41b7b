r"""Membership inference where clients drop out and the server is not told how many: a mixture over their number.

Given m others, the sum z is about N(m e + x_b, m Σ / E[m]), with e what one of them adds on average and Σ the
covariance of the sum of the expected number. With one covariance for all m, and ν halfway between the candidates,

    log p(z | m, b) = ±w·(z - ν) / 2 + m u·(z - ν) ∓ m u·(x_1 - x_0) / 2 - m² e·u / 2 + terms without m and b,

    w = Σ⁻¹(x_1 - x_0),   u = Σ⁻¹e,

so the likelihood ratio reads two numbers of z alone: w·z decides, and u·z tells how many sent. This attack takes
these two, makes their noise white, and lets its variance grow with m. In one dimension they are the same number, and
its law under either bit is a comb of Gaussians, which no linear test can tell from the other bit's.

Any function of the view is sound; the mixture only says which sums speak for which candidate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from ..populations.moments import Shrinkage
from ..schema import recipe
from ..types import Moments, Server, SumView
from .membership import GaussianLRT, Ranks, Ridges

# Rarer numbers of others are left out.
_RARE = 1e-12
# Of nobody else there is no variance; that of so many keeps the density finite.
_FEWEST = 0.5
# A direction without recorded variance has this share of what the test assumes of it.
_FLOOR = 1e-6


class MixtureTest(NamedTuple):
    """Two linear statistics of the sum with white noise of variance one for the expected number of others.

    Attributes:
      directions: f64[rounds, 2, dim]; zero where a statistic says nothing.
      each: f64[rounds, 2], what one of the others adds to them on average.
      middle: f64[rounds, 2], what the target adds, halfway between the candidates.
      half: f64[rounds, 2], half the difference of the candidates.
      statistics: f64[rounds], how many of the two say something.
      levels: f64[k], numbers of others.
      log_chance: f64[k], of their probabilities.
      variance: f64[k], of a statistic given the number.
      mixes: f64[], 1 for the mixture, 0 for the first statistic less its middle.
      aborts: f64[], 1 where rounds may be aborted, which the server sees as a sum of nothing.
    """

    directions: np.ndarray
    each: np.ndarray
    middle: np.ndarray
    half: np.ndarray
    statistics: np.ndarray
    levels: np.ndarray
    log_chance: np.ndarray
    variance: np.ndarray
    mixes: np.ndarray
    aborts: np.ndarray


def mixture_score(knowledge: MixtureTest, view: SumView) -> jax.Array:
    """Log-likelihood ratio of the totals, in nats: f32[]; a round that was aborted adds nothing."""
    read = jnp.einsum("rkd,rd->rk", knowledge.directions, view.total, precision="highest") - knowledge.middle
    off = read[:, None] - knowledge.levels[None, :, None] * knowledge.each[:, None]  # [rounds, levels, 2]
    scale = knowledge.statistics[:, None] / jnp.float32(2) * jnp.log(knowledge.variance)[None]
    prior = knowledge.log_chance[None] - scale

    def log_density(gap):
        return jax.nn.logsumexp(
            prior - jnp.sum(gap * gap, axis=2) / (jnp.float32(2) * knowledge.variance)[None], axis=1
        )

    mixture = log_density(off - knowledge.half[:, None]) - log_density(off + knowledge.half[:, None])
    rounds = jnp.where(knowledge.mixes > jnp.float32(0), mixture, read[:, 0])
    aborted = (knowledge.aborts > jnp.float32(0)) & jnp.all(view.total == jnp.float32(0), axis=1)
    return jnp.sum(jnp.where(aborted, jnp.float32(0), rounds))


@recipe
class MixtureLRT:
    """The likelihood-ratio test between two updates where the server does not learn how many clients sent.

    Lists of ridges or ranks are settings, each of them as a mixture over the number of others and as the linear test
    that counts the variance of this number as noise: pilot trials choose the one that separates best.

    Attributes:
      kind: "mixture_lrt".
      shrinkage: how the covariance is made invertible: "ridge", "ledoit_wolf" or "oas" (the ridge is added to all).
      ridge: added to the diagonal, relative to the mean variance, > 0; one number or a list.
      rank: directions of the noise that are told from the ridge, the strongest first; 0 for all; one or a list.
    """

    reads: ClassVar[type] = SumView
    kind: Literal["mixture_lrt"] = "mixture_lrt"
    shrinkage: Shrinkage = "ridge"
    ridge: Ridges = Field(0.03, description="relative to the mean variance, one or a list")
    rank: Ranks = Field(0, description="directions that are kept, 0 for all, one or a list")

    score = staticmethod(mixture_score)

    def broadcast(self) -> None:
        """An honest server."""

    def options(self, server: Server, moments: Sequence[Moments]) -> Mapping[str, MixtureTest]:
        """The mixture and the linear test for every setting.

        Args:
          server: the candidates, and how many of the others send.
          moments: of the others' sum, less what their number makes of it, round by round.

        Returns:
          MixtureTest by its setting in words.

        Raises:
          ValueError: where the number of survivors is announced, or the noise has no variance at all.
        """
        if server.chain is None or server.chain.channel.announced:
            raise ValueError(
                "attack mixture_lrt is for numbers of survivors that the server is not told, but survivors is "
                '"announced", allowed is "hidden"; use attack "gaussian_lrt"'
            )
        levels, chances = _numbers(server)
        each = np.stack([one.mean / one.terms for one in moments])
        gaussian = GaussianLRT(shrinkage=self.shrinkage, ridge=self.ridge, rank=self.rank)
        # u solves for what one of the others adds as w does for the difference of the candidates.
        number = replace(server, pair=replace(server.pair, h0=np.zeros_like(each), h1=each))
        deciding, counting = (gaussian.options(one, moments) for one in (server, number))
        mixed, linear = {}, {}
        for setting, test in deciding.items():
            w, u = test.weights, counting[setting].weights
            white = np.stack([_whitened(*one) for one in zip(moments, w, u, server.pair.difference, each)])
            mixed[f"mixture, {setting}"] = _reading(white, each, server, levels, chances, moments[0].terms)
            # Sherman and Morrison: the weights for Σ + Var(m) e eᵀ.
            spread = chances @ levels**2 - (chances @ levels) ** 2
            share = spread * np.sum(each * w, axis=1) / (1 + spread * np.sum(each * u, axis=1))
            best = np.stack([w - share[:, None] * u, np.zeros_like(w)], axis=1)
            test = _reading(best, each, server, levels, chances, moments[0].terms)
            middle = test.middle + chances @ levels * test.each
            linear[f"linear, {setting}"] = test._replace(middle=middle, mixes=np.float64(0))
        return {**mixed, **linear}


def _numbers(server: Server) -> tuple[np.ndarray, np.ndarray]:
    """How many of the others send in a round that is not aborted, and with what probability."""
    numbers, chances = np.array(server.attendance or ((server.noise_terms, 1.0),), np.float64).T
    kept = (chances > _RARE) & (numbers + 1 >= server.chain.channel.minimum)
    if not kept.any():
        return numbers, chances
    return numbers[kept], chances[kept] / chances[kept].sum()


def _whitened(moments: Moments, w, u, difference, each) -> np.ndarray:
    """Combinations of w and u that are uncorrelated in the sum, of variance one or zero: f64[2, dim]."""
    unit = []
    for weights, along in ((w, difference), (u, each)):
        # Recordings may show no variance where the test assumes a ridge of it.
        variance = max(moments.covariance.quadratic(weights), _FLOOR * float(np.vdot(weights, along)))
        unit.append(weights / np.sqrt(variance) if variance > 0 else np.zeros_like(weights))
    first, second = unit
    # By polarisation: 4 aᵀΣb = (a + b)ᵀΣ(a + b) - (a - b)ᵀΣ(a - b).
    shared = (moments.covariance.quadratic(first + second) - moments.covariance.quadratic(first - second)) / 4
    left = 1 - shared**2
    rest = (second - shared * first) / np.sqrt(left) if left > _FLOOR and second.any() else np.zeros_like(second)
    return np.stack([first, rest])


def _reading(directions, each, server, levels, chances, terms) -> MixtureTest:
    """What statistics f64[rounds, 2, dim] make of the candidates and of one of the others."""
    each, middle, half = (
        np.einsum("rkd,rd->rk", directions, one) for one in (each, server.pair.middle, server.pair.difference / 2)
    )
    return MixtureTest(
        directions=directions,
        each=each,
        middle=middle,
        half=half,
        statistics=directions.any(axis=2).sum(axis=1).astype(np.float64),
        levels=levels,
        log_chance=np.log(chances),
        variance=np.maximum(levels, _FEWEST) / terms,
        mixes=np.float64(1),
        aborts=np.float64(server.chain.channel.minimum > 0),
    )
