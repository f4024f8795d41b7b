r"""Membership inference on sums that leave their ring: residues are read around what the server expects.

The server sees r = (x_b + Y) mod M, entry by entry, and knows x_0, x_1 and the mean of Y. With c the expected sum
halfway between the candidates, d = r - c, lifted to [-M/2, M/2), is what a sum close to c is off by, in steps:
decoding lifts around zero instead, and so wraps sums that are merely far from zero. Two tests read d:

  lifted    the linear likelihood-ratio test with correlated Gaussian noise, of d in the place of the sum.
  wrapped   for noise as wide as the ring, where d wraps as well: the likelihood ratio of independent wrapped
            Gaussian entries,  Σ_j log Σ_k φ((d_j - a_j + kM) / s_j) - log Σ_k φ((d_j + a_j + kM) / s_j),
            with a_j half the difference of the candidates and s_j the standard deviation of the entry.

Any function of the residues is sound; these only say which residues speak for which candidate.

Reference:
  Mardia & Jupp (2000), Directional Statistics, section 3.5.7 (the wrapped normal law and its Fourier series).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from ..aggregation.channel import WIDE
from ..covariance import Covariance
from ..populations.moments import Shrinkage, regularise
from ..schema import recipe, several
from ..types import Moments, Server, SumView
from .membership import GaussianLRT, Ranks, Ridges

# Neighbouring copies of the ring on either side; those beyond are a ten millionth of the density at s = M / 2.
_COPIES = 3
# In steps: whole numbers are told apart as well by anything below one.
_NARROWEST = 2.0**-10
# Eigenvectors that are squared at once.
_ROWS = 256


class WrappedTest(NamedTuple):
    """What is known of the residues, in steps, for every round; whole numbers as their high and low 16 bits.

    Attributes:
      weights: f64[rounds, size], nats per step of the lifted distance; zero for the wrapped test.
      gain: f64[rounds, size], of every wrapped log-likelihood ratio; zero for the linear test.
      half: f64[rounds, size], half the difference of the candidates, modulo the ring.
      deviation: f64[rounds, size], of an entry of the sum, at most half of the ring.
      start: f64[rounds, 2, size], whole part of what is expected without the others, halfway between the candidates.
      start_part: f64[rounds, size], the rest of it.
      each: f64[rounds, 2, size], whole part of what one of the others adds on average.
      each_part: f64[rounds, size], the rest of it.
      ring: f64[], its size, 2^ring_bits.
    """

    weights: np.ndarray
    gain: np.ndarray
    half: np.ndarray
    deviation: np.ndarray
    start: np.ndarray
    start_part: np.ndarray
    each: np.ndarray
    each_part: np.ndarray
    ring: np.ndarray


def wrapped_score(knowledge: WrappedTest, view: SumView) -> jax.Array:
    """Log-likelihood ratio of the residues, in nats: f32[]; a round that was aborted adds nothing."""
    distance = _distance(knowledge, view)
    rounds = jnp.sum(knowledge.weights * distance + knowledge.gain * _ratio(knowledge, distance), axis=1)
    return jnp.sum(jnp.where(view.survivors == 0, jnp.float32(0), rounds))


def _distance(knowledge, view):
    """Steps from the expected sum, lifted to within half a ring: f32[rounds, size]."""
    # Nothing of the expectation is lost: whole parts are subtracted modulo 2^32, before anything is rounded.
    others = jnp.maximum(view.survivors - 1, 0)[:, None]
    part = knowledge.start_part + others.astype(jnp.float32) * knowledge.each_part
    carry = jnp.rint(part)
    whole = _joined(knowledge.start) + others.astype(jnp.uint32) * _joined(knowledge.each)
    whole = whole + carry.astype(jnp.int32).astype(jnp.uint32)
    # Blown up to a ring of 2^32, of which the upper half is negative; powers of two round nothing.
    turn = jnp.float32(2.0**32) / knowledge.ring
    signed = jax.lax.bitcast_convert_type((view.ring - whole) * turn.astype(jnp.uint32), jnp.int32)
    return signed.astype(jnp.float32) / turn - (part - carry)


def _joined(halves):
    high, low = halves[:, 0].astype(jnp.uint32), halves[:, 1].astype(jnp.uint32)
    return (high << jnp.uint32(16)) | low


def _ratio(knowledge, distance):
    """Log-likelihood ratios of wrapped normal entries: f32[rounds, size].

    In deviations, with x for the distance, L for the ring and a for half the difference, all exponents
    -(x + kL ∓ a)² / 2 hold -(x² + a²) / 2 ± ax. The first goes, the second is taken out, and nothing cancels.
    """
    x, half = distance / knowledge.deviation, knowledge.half / knowledge.deviation
    copies = jnp.arange(-_COPIES, _COPIES + 1, dtype=jnp.float32)[:, None, None]
    away = copies * (knowledge.ring / knowledge.deviation)[None]
    common = -away * (x[None] + away / jnp.float32(2))
    drift = away * half[None]
    more = jax.nn.logsumexp(common + drift, axis=0) - jax.nn.logsumexp(common - drift, axis=0)
    return jnp.float32(2) * half * x + more


@recipe
class WrappedLRT:
    """The likelihood-ratio test between two updates for sums that may leave the ring.

    Every ridge and rank is a setting of the linear test on lifted residues, and the test of independent wrapped
    entries, with the least of the ridges, is one more: pilot trials choose the one that separates best.

    Attributes:
      kind: "wrapped_lrt".
      shrinkage: how the covariance is made invertible: "ridge", "ledoit_wolf" or "oas" (the ridge is added to all).
      ridge: added to the diagonal, relative to the mean variance, > 0; one number or a list.
      rank: directions of the noise that are told from the ridge, the strongest first; 0 for all; one or a list.
    """

    reads: ClassVar[type] = SumView
    kind: Literal["wrapped_lrt"] = "wrapped_lrt"
    shrinkage: Shrinkage = "ridge"
    ridge: Ridges = Field(0.03, description="relative to the mean variance, one or a list")
    rank: Ranks = Field(0, description="directions that are kept, 0 for all, one or a list")

    score = staticmethod(wrapped_score)

    def broadcast(self) -> None:
        """An honest server."""

    def options(self, server: Server, moments: Sequence[Moments]) -> Mapping[str, WrappedTest]:
        """The linear test for every setting, and the wrapped one.

        Args:
          server: the candidates, and the chain that encodes them.
          moments: of the others' sum as decoded where nothing wraps, round by round.

        Returns:
          WrappedTest by its setting in words.

        Raises:
          ValueError: where the server sees no residues that may wrap, or the noise has no variance at all.
        """
        chain = server.chain
        _check(chain)
        least = min(several(self.ridge))
        embed, gain, aligned = _embedding(chain)
        mean = np.stack([one.mean for one in moments])
        each = np.stack([one.mean / one.terms for one in moments])
        start, more = server.pair.middle, 0.0
        if not chain.channel.announced:
            # Their number is not told: the expected one it is, and its variance is one of the sum.
            numbers, chances = np.array(server.attendance or ((server.noise_terms, 1.0),), np.float64).T
            more = chances @ numbers**2 - (chances @ numbers) ** 2
            start, each, hidden = start + mean, np.zeros_like(mean), each
        size, half = 2.0**chain.last.ring_bits, embed(server.pair.difference) / 2
        variance = np.stack([_variance(one, self.shrinkage, least, chain.last.dim, aligned) for one in moments])
        variance = variance / gain**2
        if more:
            variance = variance + more * embed(hidden) ** 2
        start, start_part = _split(embed(start))
        each, each_part = _split(embed(each))
        seen = np.clip(np.sqrt(variance), _NARROWEST, size / 2)
        wrapped = WrappedTest(
            weights=np.zeros_like(half),
            # Wider than half a ring, only the first harmonic is left, and the ratio is proportional to its amplitude
            # exp(-2 π² s² / M²).
            gain=np.exp(-2 * np.pi**2 * np.maximum(variance - seen**2, 0) / size**2),
            half=half - size * np.rint(half / size),
            deviation=seen,
            start=start,
            start_part=start_part,
            each=each,
            each_part=each_part,
            ring=np.float64(size),
        )
        linear = GaussianLRT(shrinkage=self.shrinkage, ridge=self.ridge, rank=self.rank).options(server, moments)
        lifted = {
            f"lifted, {setting}": wrapped._replace(weights=chain.scores(test.weights), gain=np.zeros_like(half))
            for setting, test in linear.items()
        }
        return {**lifted, "wrapped, independent coordinates": wrapped}


def _check(chain: Any):
    if chain is None or not chain.last.step or chain.last.ring_bits == WIDE:
        raise ValueError(
            "attack wrapped_lrt reads the residues of integers, and these sums have none that wrap, allowed are "
            'stages with a fixed_point and ring_bits up to 32; use attack "gaussian_lrt"'
        )
    if chain.channel.shifted:
        raise ValueError(
            "attack wrapped_lrt reads integers with a sign, and the encoding is shifted, allowed is shifted = false; "
            'use attack "gaussian_lrt"'
        )
    if any(link.stage.central for link in chain.noises):
        raise ValueError(
            "attack wrapped_lrt reads the residues, and noise that is added centrally is not in them, allowed is "
            'noise that clients add; use attack "gaussian_lrt"'
        )


def _embedding(chain) -> tuple[Callable[[np.ndarray], np.ndarray], float, bool]:
    """Decoded vectors f64[n, dim] to steps of the ring, the length that decoding gives a step, and whether it mixes.

    Decoding is g times a matrix of orthonormal rows, so its adjoint divided by g² is its inverse on what it reaches.
    """
    probe = np.arange(1.0, chain.dim + 1)
    (image,) = chain.scores(probe[None])
    gain = float(np.linalg.norm(image) / np.linalg.norm(probe))
    aligned = len(image) == len(probe) and np.allclose(image, gain * probe, rtol=1e-9, atol=0)
    return lambda vectors: chain.scores(vectors) / gain**2, gain, aligned


def _variance(moments, shrinkage, ridge, size, aligned):
    """Of the entries of the sum where clients send, in units of the update: f64[size]."""
    covariance, shrunk = moments.covariance, regularise(moments, shrinkage, ridge)
    if aligned:
        own = _diagonal(covariance)
    else:
        # A rotation gives every entry the mean; in the dimensions that pad it there is only what is everywhere.
        own = np.full(size, (covariance.trace + (size - covariance.dim) * covariance.floor) / size)
    return shrunk.slope * own + shrunk.ridge


def _diagonal(covariance: Covariance):
    own = np.full(covariance.dim, covariance.floor)
    rank = len(covariance.variances)
    for at in range(0, rank, _ROWS):
        some = np.eye(min(_ROWS, rank - at), rank, at)
        own += covariance.variances[at : at + _ROWS] @ covariance.directions.back(some) ** 2
    return own


def _split(steps):
    """High and low half of whole numbers modulo 2^32, f64[rounds, 2, size], and the rest f64[rounds, size]."""
    whole = np.rint(steps)
    high, low = np.divmod(np.mod(whole, 2.0**32), 2.0**16)
    return np.stack([high, low], axis=1), steps - whole
