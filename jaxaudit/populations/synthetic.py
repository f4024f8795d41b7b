"""Clients whose updates follow a known law, drawn afresh in every trial: the audits with a known answer."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field, model_validator

from ..random import Ticket, normals, words
from ..schema import recipe
from ..types import Loaded, Moments, Pair, Responses
from .pairs import explicit_pair, pair_field

Law = Literal["gaussian", "sphere", "cube", "student_t"]


# Beyond so many standard deviations a draw is clipped where it is summed: once in 1e15 for a Gaussian, once in 1e12
# for Student's t with 3 degrees of freedom; the sphere and the cube end at one.
_REACH = {"gaussian": 8.0, "sphere": 1.0, "cube": 1.0, "student_t": 1e4}


class FreshParams(NamedTuple):
    """What the draws look up.

    Attributes:
      scale: f32[dim], multiplies every coordinate of the standard law.
      candidates: f32[2, dim].
      weights: f32[dim] to reveal one product per update instead of the update, or None.
      share: f32[], each update's share of the offset of that product.
      ends: f32[2], the candidates' products less their share, computed in float64.
    """

    scale: jax.Array
    candidates: jax.Array
    weights: jax.Array | None = None
    share: jax.Array | None = None
    ends: jax.Array | None = None


@dataclass(frozen=True)
class FreshDraws:
    """A new vector for every seat of every trial. Occupants are seat numbers; the last two are the candidates."""

    law: Law
    noise_terms: int
    degrees: int

    def width(self, params: FreshParams) -> int:
        """A batch of fresh vectors that stays in the first-level cache through all the steps of their generation."""
        return int(np.clip(2.0 ** (11 - (params.scale.shape[0] - 1).bit_length()), 1, 1024))

    def others(self, params: FreshParams, ticket: Ticket) -> jax.Array:
        """Seats of the other clients: i32[1, noise_terms]."""
        del params, ticket
        return jnp.arange(self.noise_terms, dtype=jnp.int32)[None, :]

    def target(self, params: FreshParams, ticket: Ticket, bit) -> jax.Array:
        """The candidate that the bit chooses: i32[1, 1]."""
        del params, ticket
        return jnp.full((1, 1), self.noise_terms + bit, jnp.int32)

    def update(self, params: FreshParams, ticket: Ticket, who) -> jax.Array:
        """The seat's vector, f32[dim], or its product with the weights, f32[1]."""
        dim = params.scale.shape[0]
        fresh = params.scale * self._standard(ticket, who, dim)
        if params.weights is not None:
            fresh = (jnp.sum(fresh * params.weights) - params.share)[None]
        ends = params.candidates if params.weights is None else params.ends[:, None]
        candidate = jnp.where(who == self.noise_terms, ends[0], ends[1])
        return jnp.where(who < self.noise_terms, fresh, candidate)

    def _standard(self, ticket, who, dim):
        even = dim + dim % 2
        extra = self.degrees + self.degrees % 2 if self.law == "student_t" else 0
        first = who.astype(jnp.uint32) * jnp.uint32(even + extra)
        if self.law == "cube":
            word = words(ticket, first, dim)
            return (word.astype(jnp.float32) + jnp.float32(0.5)) * jnp.float32(2**-31) - jnp.float32(1)
        normal = normals(ticket, first, dim)
        if self.law == "sphere":
            return normal * jax.lax.rsqrt(jnp.sum(normal * normal))
        if self.law == "student_t":
            chi = normals(ticket, first + jnp.uint32(even), self.degrees)
            return normal / jnp.sqrt(jnp.mean(chi * chi))
        return normal


@dataclass(frozen=True)
class LawPool:
    """The law itself, in the place of a pool: nothing is recorded, so nothing can be memorised."""

    law: Law
    dim: int
    noise_terms: int
    degrees: int
    scale: np.ndarray
    variance: np.ndarray

    def moments(self) -> Moments:
        """The exact moments of the sum."""
        return Moments(np.zeros(self.dim), np.diag(self.noise_terms * self.variance), 0, self.dim, 0.0)

    def load(self, pair: Pair) -> Loaded:
        """Whole vectors."""
        limit = max(_REACH[self.law] * self.scale.max(), np.abs(pair.both).max())
        return Loaded(self._draws(), FreshParams(*self._arrays(pair)), float(limit), 0.0)

    def project(self, pair: Pair, weights: np.ndarray, offset: float) -> Loaded:
        """The same vectors, from the same words, each reduced to its product with the weights.

        The law is continuous, so rounding blurs a score but cannot tell two draws of one total apart.
        """
        share = offset / (self.noise_terms + 1)
        length = np.abs(weights).sum() if self.law == "cube" else np.linalg.norm(weights * self.scale)
        ends = pair.both @ weights - share
        params = FreshParams(
            *self._arrays(pair),
            weights=jnp.asarray(weights, jnp.float32),
            share=jnp.asarray(share, jnp.float32),
            ends=jnp.asarray(ends, jnp.float32),
        )
        limit = max(_REACH[self.law] * length + abs(share), np.abs(ends).max())
        error = 2.0**-21 * (length + abs(share)) + 2.0**-24 * np.abs(ends).max()
        return Loaded(self._draws(), params, float(limit), float(error))

    def describe(self) -> dict[str, Any]:
        """No pool: the law."""
        law = {
            "gaussian": "Gaussian updates of known covariance",
            "sphere": "updates uniform on a sphere",
            "cube": "updates uniform in a cube",
            "student_t": f"multivariate Student-t updates with {self.degrees} degrees of freedom",
        }[self.law]
        text = f"sum of {self.noise_terms:,} independent {law}, drawn afresh in every trial"
        return {"updates": 0, "clients": self.noise_terms, "replacement": True, "words": text}

    def _draws(self):
        return FreshDraws(self.law, self.noise_terms, self.degrees if self.law == "student_t" else 0)

    def _arrays(self, pair):
        return jnp.asarray(self.scale, jnp.float32), jnp.asarray(pair.both, jnp.float32)


@recipe
class Synthetic:
    """Clients that send independent vectors of a known law.

    Attributes:
      kind: "synthetic".
      law: "gaussian" (independent coordinates with variances `spectrum`), "sphere" (uniform on the unit sphere),
        "cube" (uniform in [-1, 1]^dim) or "student_t" (multivariate, unit scale).
      dim: dimension of an update, 1 to 15,000; 2 or more for the sphere.
      clients: cohort size, the target included, 2 to 10,000.
      spectrum: variances of the coordinates of the Gaussian law; empty for all ones, else `dim` numbers >= 0.
      degrees: degrees of freedom of the Student-t law, 3 to 1,000.
      pair: "antipodal" (farthest points of the sphere or cube; for the other laws, opposite points of typical
        length on the axis of least variance), "zeroed" (one of them against nothing), or a file with arrays
        `h0` and `h1`.
    """

    kind: Literal["synthetic"] = "synthetic"
    law: Law = "sphere"
    dim: int = Field(39, ge=1, le=15_000, description="dimension of an update")
    clients: int = Field(61, ge=2, le=10_000, description="cohort size, the target included")
    spectrum: tuple[float, ...] = Field((), description="variances of the coordinates, empty or dim numbers >= 0")
    degrees: int = Field(5, ge=3, le=1000, description="degrees of freedom of the Student-t law")
    pair: pair_field("antipodal", "zeroed") = "antipodal"

    @model_validator(mode="after")
    def _spectrum_fits(self):
        if self.law == "sphere" and self.dim < 2:
            raise ValueError('dim is 1, allowed are 2 or more for law = "sphere"')
        if self.spectrum and self.law != "gaussian":
            raise ValueError(f'spectrum belongs to law = "gaussian", got law = "{self.law}"; leave it out')
        if self.spectrum and len(self.spectrum) != self.dim:
            raise ValueError(f"spectrum holds {len(self.spectrum)} variances, allowed are {self.dim} (dim)")
        if any(not 0 <= v < np.inf for v in self.spectrum) or (self.spectrum and not any(self.spectrum)):
            raise ValueError("spectrum must hold finite variances >= 0, not all 0")
        return self

    def respond(self, seed: int, broadcast: Any) -> Responses:
        """The law is both the fit and the certify pool: it has no finite sample to keep apart."""
        del seed, broadcast
        spectrum = np.asarray(self.spectrum or np.ones(self.dim), np.float64)
        variance = {
            "gaussian": spectrum,
            "sphere": np.full(self.dim, 1 / self.dim),
            "cube": np.full(self.dim, 1 / 3),
            "student_t": np.full(self.dim, self.degrees / (self.degrees - 2)),
        }[self.law]
        pool = LawPool(self.law, self.dim, self.clients - 1, self.degrees, np.sqrt(spectrum), variance)
        return Responses(
            fit=pool,
            certify=pool,
            choose_pair=lambda moments: self._pair(variance),
            real="nothing, every update follows a law",
            knows={"fit_pool": "the two candidates, the protocol, and the exact law of the updates"},
            given="this law",
            structural=lambda pair: self._structural(variance, pair),
        )

    def _pair(self, variance):
        if self.pair not in ("antipodal", "zeroed"):
            return explicit_pair(self.pair, self.dim)
        point = np.zeros(self.dim)
        point[np.argmin(np.where(variance > 0, variance, np.inf))] = np.sqrt(variance.sum())
        point = np.ones(self.dim) if self.law == "cube" else point
        point = point.astype(np.float32)
        if self.pair == "zeroed":
            return Pair(np.zeros_like(point), point, "zero-out of a client's update", "a fixed vector and zero")
        return Pair(-point, point, "replacement of a client's update", "antipodal vectors of the law's support")

    def _structural(self, variance, pair):
        outside = (variance == 0) & (pair.difference != 0)
        if not outside.any():
            return None
        return f"coordinate {int(np.argmax(outside))} of the sum has no variance, and the candidates differ there"
