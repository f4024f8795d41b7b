"""Clients whose updates follow a known law, drawn afresh in every trial: the audits with a known answer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field, field_validator, model_validator

from ..bounds import Term
from ..covariance import Covariance
from ..fixed_point import fixed_step
from ..protocols import Column, Loaded, Projected, Responses
from ..random import FIT, numbered
from ..schema import as_tuple, recipe, several
from ..types import Moments, Pair
from .cohorts import cohort_field
from .fresh import FreshDraws, FreshParams, FreshSums, Law, ProductParams
from .pairs import explicit_pair, pair_field, zeroed_pair

# Beyond so many standard deviations a draw is clipped where it is summed: once in 1e15 for a Gaussian, once in 1e12
# for Student's t with 3 degrees of freedom; the sphere and the cube end at one.
_REACH = {"gaussian": 8.0, "sphere": 1.0, "cube": 1.0, "student_t": 1e4, "known": 0.0}


@dataclass(frozen=True)
class LawPool:
    """The law itself, in the place of a pool: nothing is recorded, so nothing can be memorised."""

    law: Law
    dim: int
    noise_terms: int
    degrees: int
    scale: np.ndarray
    variance: np.ndarray

    @property
    def rounds(self) -> int:
        """One."""
        return 1

    def affordable(self, noise_terms: int) -> bool:
        """Always: the moments are known."""
        del noise_terms
        return True

    def moments(self, noise_terms: int) -> tuple[Moments, ...]:
        """The exact moments of the sum."""
        covariance = Covariance.diagonal(noise_terms * self.variance)
        return (Moments(np.zeros(self.dim), covariance, float(noise_terms), 0, self.dim, 0.0),)

    def attendance(self, noise_terms: int) -> tuple[tuple[int, float], ...]:
        """All of them."""
        return ((noise_terms, 1.0),)

    def sample(self, count: int) -> np.ndarray:
        """Vectors of the law from the fit stream, for moments that have no closed form: f32[count, dim]."""
        params = FreshParams(jnp.asarray(self.scale, jnp.float32), jnp.zeros((2, self.dim), jnp.float32))
        draws = FreshDraws(self.law, self.noise_terms, self._degrees)

        def one(trial):
            return draws.update(params, numbered(jnp.uint32(0), jnp.uint32(FIT), jnp.uint32(0), trial), jnp.int32(0))

        return np.asarray(jax.vmap(one)(jnp.arange(count, dtype=jnp.uint32)))

    def load(self, pairs: Sequence[Pair]) -> Loaded:
        """Whole vectors."""
        ends = np.concatenate([end for pair in pairs for end in (pair.h0, pair.h1)])
        limit = max(_REACH[self.law] * self.scale.max(), np.abs(ends).max())
        draws = FreshDraws(self.law, self.noise_terms, self._degrees)
        return Loaded(
            draws, FreshParams(jnp.asarray(self.scale, jnp.float32), jnp.asarray(ends, jnp.float32)), float(limit)
        )

    def project(self, columns: Sequence[Column], step: np.ndarray | float = 0.0) -> Projected:
        """Products with the weights in float32, in whole steps of `step` or more."""
        weights = np.stack([column.test.weights[0] for column in columns])
        each, offset = (
            np.array([getattr(column.test, what)[0] for column in columns]) for what in ("each", "offset")
        )
        terms = np.array([column.noise_terms for column in columns])
        ends = (
            np.stack([column.pair.both[:, 0] @ weight for column, weight in zip(columns, weights)], axis=1) - offset
        )
        length = np.abs(weights).sum(1) if self.law == "cube" else np.linalg.norm(weights * self.scale, axis=1)
        limit = _REACH[self.law] * length + np.abs(each)
        deviation = np.sqrt(terms * (weights**2 @ self.variance))
        # Heavy tails are made of single draws: a sum is within twice the reach of one and 80 deviations, which 31
        # bits hold, but for three draws at the end of their reach at once, which happens once in 1e30 trials.
        range_ = np.minimum(terms * limit, limit + 40 * deviation) + np.abs(ends).max(axis=0)
        step = np.maximum(step, fixed_step(range_))
        arrays = (jnp.asarray(array, jnp.float32) for array in (self.scale, weights, each, limit, step))
        return Projected(
            draws=FreshSums(self.law, tuple(terms.tolist()), self._degrees),
            params=ProductParams(*arrays),
            ends=np.rint(ends / step).astype(np.int32),
            step=step,
            error=2.0**-21 * (length + np.abs(each)) + 2.0**-24 * np.abs(ends).max(0) + step / 2,
            terms=terms,
            deviation=deviation,
        )

    def terms(self, columns: Sequence[Column]) -> list[tuple[list[Term], float]]:
        """Nothing to enumerate."""
        raise ValueError(
            f"the exact law of a sum needs terms with finitely many values; {self.law} updates are drawn from a "
            "continuous law: leave --exact out"
        )

    def disjoint(self, columns: Sequence[Column]) -> list[np.ndarray]:
        """Nothing is recorded."""
        return [np.zeros(0) for _ in columns]

    def describe(self, noise_terms: int) -> dict[str, Any]:
        """No pool: the law."""
        law = {
            "gaussian": "Gaussian updates of known covariance",
            "sphere": "updates uniform on a sphere",
            "cube": "updates uniform in a cube",
            "student_t": f"multivariate Student-t updates with {self.degrees} degrees of freedom",
        }.get(self.law)
        text = f"sum of {noise_terms:,} independent {law}, drawn afresh in every trial, no dropouts"
        if self.law == "known":
            text = f"sum of {noise_terms:,} updates that the server knows and subtracts (they are zero), no dropouts"
        return {"updates": 0, "clients": noise_terms, "replacement": True, "words": text}

    @property
    def _degrees(self):
        return self.degrees if self.law == "student_t" else 0


@recipe
class Synthetic:
    """Clients that send independent vectors of a known law.

    Attributes:
      kind: "synthetic".
      law: "gaussian" (independent coordinates with variances `spectrum`), "sphere" (uniform on the unit sphere),
        "cube" (uniform in [-1, 1]^dim), "student_t" (multivariate, unit scale), or "known" (the server knows all the
        others' updates, so that nothing hides the target but the noise of the protocol).
      dim: dimension of an update, 1 to 15,000; 2 or more for the sphere.
      clients: cohort size, the target included, 2 to 10,000; a list of them audits all from the same draws.
      spectrum: variances of the coordinates of the Gaussian law; empty for all ones, else `dim` numbers >= 0.
      degrees: degrees of freedom of the Student-t law, 3 to 1,000.
      pair: "antipodal" (farthest points of the sphere or cube; for the other laws, opposite points of typical
        length on the axis of least variance), "zeroed" (one of them against nothing), or a file with arrays
        `h0` and `h1`; a list of them audits all from the same draws.
    """

    kind: Literal["synthetic"] = "synthetic"
    law: Law = "sphere"
    dim: int = Field(39, ge=1, le=15_000, description="dimension of an update")
    clients: cohort_field(10_000) = Field(61, description="cohort sizes, the target included")
    spectrum: tuple[float, ...] = Field((), description="variances of the coordinates, empty or dim numbers >= 0")
    degrees: int = Field(5, ge=3, le=1000, description="degrees of freedom of the Student-t law")
    pair: pair_field("antipodal", "zeroed") = "antipodal"

    @field_validator("spectrum", mode="before")
    @classmethod
    def _list(cls, value):
        return as_tuple(value)

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
        del seed
        if broadcast is not None:
            raise ValueError("a synthetic law cannot answer a malicious server; set population.kind = deceived")
        spectrum = np.asarray(self.spectrum or np.ones(self.dim), np.float64)
        variance = {
            "gaussian": spectrum,
            "sphere": np.full(self.dim, 1 / self.dim),
            "cube": np.full(self.dim, 1 / 3),
            "student_t": np.full(self.dim, self.degrees / (self.degrees - 2)),
            "known": np.zeros(self.dim),
        }[self.law]
        largest = max(several(self.clients)) - 1
        pool = LawPool(self.law, self.dim, largest, self.degrees, np.sqrt(spectrum), variance)
        return Responses(
            fit=pool,
            certify=pool,
            cohorts=several(self.clients),
            choose_pairs=lambda moments: tuple(self._pair(name, variance) for name in several(self.pair)),
            real="nothing, every update follows a law",
            knows={"fit_pool": "the two candidates, the protocol, and the exact law of the updates"},
            given="this law",
            structural=lambda pair: self._structural(variance, pair),
        )

    def _pair(self, name, variance):
        if name not in ("antipodal", "zeroed"):
            return explicit_pair(name, 1, self.dim)
        point = np.zeros(self.dim)
        point[np.argmin(np.where(variance > 0, variance, np.inf))] = np.sqrt(variance.sum()) or 1.0
        point = np.ones(self.dim) if self.law == "cube" else point
        point = point.astype(np.float32)[None]
        if name == "zeroed":
            return replace(zeroed_pair(point), source="a fixed vector and zero")
        source = "antipodal vectors of the law's support"
        return Pair("antipodal", -point, point, "replacement of a client's update", source)

    def _structural(self, variance, pair):
        outside = (variance == 0) & (pair.difference[0] != 0)
        if not outside.any():
            return None
        return f"coordinate {int(np.argmax(outside))} of the sum has no variance, and the candidates differ there"
