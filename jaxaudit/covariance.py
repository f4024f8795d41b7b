"""A covariance as its eigen-decomposition, from a few thousand rows or from the matrix itself.

Updates of a large model span few directions: n recorded updates in d >> n dimensions have a covariance Σ = BᵀB of
rank n at most, with B f32[n, d]. Its eigenvectors are Bᵀv / √λ for the eigenpairs (λ, v) of the small Gram matrix
BBᵀ, so they are never stored: d = 1,000,000 with n = 2,000 takes the rows and a 2,000 × 2,000 matrix. By Woodbury

    (Σ + ρI)⁻¹ x = (x - UUᵀx) / ρ + U (Uᵀx / (λ + ρ)),

and after one decomposition every ridge ρ and every rank costs a few passes over the rows. (Written as a correction of
x/ρ it would cancel: seven digits are lost at ρ = 1e-9.)
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from scipy.linalg import eigh

# Columns of wide matrices that are converted to float64 at a time.
_SLICE = 4096
# Eigenvalues of a Gram matrix below this share of the largest are rounding, and 1/√λ would make much of it.
_GRAM_TOLERANCE = 1e-14


class Directions(Protocol):
    """Orthonormal directions, strongest first."""

    def along(self, vectors: np.ndarray) -> np.ndarray:
        """Coordinates of vectors f[k, dim] along the directions: f64[k, rank]."""

    def back(self, coordinates: np.ndarray) -> np.ndarray:
        """The combinations of the directions with coordinates f64[k, rank]: f64[k, dim]."""


@dataclass(frozen=True, eq=False)
class _Axes:
    """Coordinate axes, in the order of their variances."""

    order: np.ndarray

    def along(self, vectors):
        return np.asarray(vectors[:, self.order], np.float64)

    def back(self, coordinates):
        result = np.zeros_like(coordinates)
        result[:, self.order] = coordinates
        return result


@dataclass(frozen=True, eq=False)
class _Columns:
    """Eigenvectors f64[live, rank] of the coordinates that vary at all; the others are constant."""

    dim: int
    live: np.ndarray
    basis: np.ndarray

    def along(self, vectors):
        return np.asarray(vectors[:, self.live], np.float64) @ self.basis

    def back(self, coordinates):
        result = np.zeros((len(coordinates), self.dim))
        result[:, self.live] = coordinates @ self.basis.T
        return result


@dataclass(frozen=True, eq=False)
class _Lifted:
    """Combinations f64[n, rank] of rows f32[n, dim]."""

    rows: np.ndarray
    mix: np.ndarray

    def along(self, vectors):
        return products(vectors, self.rows) @ self.mix

    def back(self, coordinates):
        weights = coordinates @ self.mix.T
        slices = range(0, self.rows.shape[1], _SLICE)
        parts = [weights @ np.asarray(self.rows[:, at : at + _SLICE], np.float64) for at in slices]
        return np.concatenate(parts, axis=1)


def products(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """left @ right.T in float64, for wide matrices that would not fit in float64: f64[m, n]."""
    total = np.zeros((len(left), len(right)))
    for at in range(0, left.shape[1], _SLICE):
        part = np.asarray(left[:, at : at + _SLICE], np.float64)
        other = part if right is left else np.asarray(right[:, at : at + _SLICE], np.float64)
        total += part @ other.T
    return total


@dataclass(frozen=True, eq=False)
class Covariance:
    """A positive semi-definite matrix by its eigenvalues and eigenvectors, and one variance that is everywhere.

    Attributes:
      dim: its size.
      variances: f64[rank], eigenvalues, largest first; all others are zero. The floor is not in them.
      directions: the eigenvectors.
      floor: added to the variance of every direction, as noise of equal strength in all coordinates is.
    """

    dim: int
    variances: np.ndarray
    directions: Directions
    floor: float = 0.0

    @classmethod
    def diagonal(cls, variances: np.ndarray) -> "Covariance":
        """Independent coordinates of the given variances, f64[dim]."""
        order = np.argsort(-np.asarray(variances), kind="stable")
        return cls(len(order), np.asarray(variances, np.float64)[order], _Axes(order))

    @classmethod
    def of_matrix(cls, matrix: np.ndarray) -> "Covariance":
        """A symmetric matrix f64[dim, dim]. Coordinates without variance are left out of the decomposition."""
        return cls.of_coordinates(len(matrix), **coordinate_pairs(matrix))

    @classmethod
    def of_coordinates(cls, dim: int, live, variances, vectors) -> "Covariance":
        """The matrix whose `coordinate_pairs` are known."""
        return cls(dim, variances, _Columns(dim, live, vectors))

    @classmethod
    def of_rows(cls, rows: np.ndarray, variances=None, vectors=None) -> "Covariance":
        """rowsᵀ @ rows for rows f32[n, dim], n < dim; faster where the `row_pairs` are known."""
        if variances is None:
            variances, vectors = row_pairs(rows).values()
        return cls(rows.shape[1], variances, _Lifted(rows, vectors / np.sqrt(variances)))

    @property
    def trace(self) -> float:
        """Sum of the variances."""
        return float(self.variances.sum()) + self.dim * self.floor

    @property
    def square(self) -> float:
        """Squared Frobenius norm."""
        rest = self.dim - len(self.variances)
        return float(np.sum((self.variances + self.floor) ** 2)) + rest * self.floor**2

    def scaled(self, factor: float) -> "Covariance":
        """The covariance times a positive number."""
        return replace(self, variances=self.variances * factor, floor=self.floor * factor)

    def lifted(self, floor: float) -> "Covariance":
        """The covariance with so much more variance in every direction."""
        return replace(self, floor=self.floor + floor)

    def dense(self) -> np.ndarray:
        """The matrix itself, f64[dim, dim]."""
        basis = self.directions.back(np.eye(len(self.variances)))
        return (basis.T * self.variances) @ basis + self.floor * np.eye(self.dim)

    def quadratic(self, vector: np.ndarray) -> float:
        """vectorᵀ Σ vector, the variance along f64[dim]."""
        own = float(self.variances @ self.directions.along(vector[None])[0] ** 2)
        return own + self.floor * float(np.vdot(vector, vector))

    def solve(self, vectors: np.ndarray, slope: float, ridge: float, rank: int = 0) -> np.ndarray:
        """(slope · Σ + ridge · I)⁻¹ applied to vectors.

        Args:
          vectors: f64[k, dim].
          slope: multiplies the covariance, >= 0.
          ridge: added to the diagonal, > 0.
          rank: directions to keep of the covariance, the strongest; 0 keeps all.

        Returns:
          f64[k, dim].
        """
        return self.solve_each(vectors, [(slope, ridge, rank)])[0]

    def solve_each(self, vectors: np.ndarray, settings: Sequence[tuple[float, float, int]]) -> np.ndarray:
        """`solve` for every (slope, ridge, rank), in as many passes as for one: f64[settings, k, dim]."""
        vectors = np.asarray(vectors, np.float64)
        coordinates, off_span = self.directions.along(vectors), self._off_span(vectors)
        inside, outside = [], []
        for slope, ridge, rank in settings:
            gain = slope * self.variances
            gain[rank or len(gain) :] = 0.0
            ridge = ridge + slope * self.floor
            inside.append(coordinates / (gain + ridge))
            outside.append(off_span / ridge)
        back = self.directions.back(np.concatenate(inside))
        return np.stack(outside) + back.reshape(len(settings), *vectors.shape)

    def distances(self, vectors: np.ndarray, slope: float, ridge: float) -> np.ndarray:
        """Squared Mahalanobis distances between all vectors f32[k, dim] under slope · Σ + ridge · I: f64[k, k]."""
        coordinates, ridge = self.directions.along(vectors), ridge + slope * self.floor
        inner = (coordinates / (slope * self.variances + ridge)) @ coordinates.T
        if len(self.variances) < self.dim:
            inner += (products(vectors, vectors) - coordinates @ coordinates.T) / ridge
        square = inner.diagonal()
        return square[:, None] + square[None, :] - 2 * inner

    def residual(self, vector: np.ndarray, rank: int) -> np.ndarray:
        """What is left of f64[dim] off the span of the strongest `rank` directions; with a floor, nothing."""
        if self.floor:
            return np.zeros(self.dim)
        return self._left(np.asarray(vector, np.float64)[None], rank)[0]

    def _off_span(self, vectors):
        """What is left of f64[k, dim] off the span of all directions; exactly nothing where they span everything."""
        full = len(self.variances) == self.dim
        return np.zeros_like(vectors) if full else self._left(vectors, len(self.variances))

    def _left(self, vectors, rank):
        for _ in range(2):  # once more takes away what rounding put back
            coordinates = self.directions.along(vectors)
            coordinates[:, rank:] = 0.0
            vectors = vectors - self.directions.back(coordinates)
        return vectors


def coordinate_pairs(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """Eigenpairs of a matrix: `live` i64[m] coordinates that vary, `variances` f64[r], `vectors` f64[m, r]."""
    live = np.flatnonzero(matrix.diagonal() > 0)
    part = matrix.copy() if len(live) == len(matrix) else matrix[np.ix_(live, live)]
    return {"live": live, **_eigenpairs(part, 0.0)}


def row_pairs(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Eigenpairs of the Gram matrix of rows f32[n, dim]: `variances` f64[r], `vectors` f64[n, r]."""
    return _eigenpairs(products(rows, rows), _GRAM_TOLERANCE)


def _eigenpairs(matrix, tolerance):
    """Eigenpairs of a positive semi-definite matrix, largest first, above a share of the largest eigenvalue."""
    if not len(matrix):
        return {"variances": np.zeros(0), "vectors": np.zeros((0, 0))}
    variances, vectors = eigh(matrix, driver="evd", overwrite_a=True, check_finite=False)
    kept = np.flatnonzero(variances > tolerance * max(variances[-1], 0.0))[::-1]
    return {"variances": variances[kept], "vectors": np.ascontiguousarray(vectors[:, kept])}
