"""Mean and covariance of the other clients' sum, and the covariance a test should be built on."""

import hashlib
from typing import Literal, NamedTuple

import numpy as np

from ..cache import key_of, remembered
from ..covariance import Covariance, coordinate_pairs, row_pairs
from ..types import Moments
from .source import Source, blocks

Shrinkage = Literal["ridge", "ledoit_wolf", "oas"]

# A covariance matrix of this size takes 1.8 GB; larger models are handled by their rows alone.
_MATRIX_DIM = 15_000
_ROWS_BYTES = 10 * 2**30
# A matrix of this size is decomposed in a few seconds, even where rows would do.
_BLURRED_DIM = 2048
# Multiplications, and the size of an eigenvalue problem, that take half a minute on two cores.
_OPERATIONS, _EIGENVALUES = 5e11, 4500


class Mixture(NamedTuple):
    """How the covariance of a sum is made of the groups its terms come from.

    Attributes:
      groups: how many groups, from the first, take part.
      terms: updates in the sum, on average.
      within: coefficient of every group's own covariance.
      between: coefficient of the scatter of the groups' means.
    """

    groups: int
    terms: float
    within: float
    between: float

    def variance(self, scalars: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Variance of the sum of scalars drawn from f64[updates, k]: f64[k]."""
        edges = np.concatenate([[0], np.cumsum(sizes[: self.groups])])
        scalars, counts = scalars[: edges[-1]], sizes[: self.groups, None]
        means = np.add.reduceat(scalars, edges[:-1]) / counts
        scatter = np.add.reduceat((scalars - np.repeat(means, counts[:, 0], axis=0)) ** 2, edges[:-1]) / counts
        return self.within * scatter.sum(0) + self.between * ((means - means.mean(0)) ** 2).sum(0)


def affordable(source: Source, mixture: Mixture, rounds: int = 1) -> bool:
    """Whether the moments of all rounds take half a minute or less, and fit in memory."""
    count, smaller = _rows(source, mixture), min(_rows(source, mixture), source.dim)
    return (
        smaller * rounds <= _EIGENVALUES
        and count * source.dim * smaller * rounds <= _OPERATIONS
        and _fits(count, source.dim)
    )


def exact_moments(source: Source, mixture: Mixture, blur: np.ndarray | None = None) -> Moments:
    """Moments of a sum of updates drawn from a source: sums over the whole pool, not estimates from draws.

    Args:
      source: recorded updates of one round.
      mixture: the law of the sum.
      blur: f64[dim], variance that every update has besides.

    Returns:
      Moments.

    Raises:
      ValueError: where the updates are too many and too large for memory.
    """
    count, dim = _rows(source, mixture), source.dim
    if not _fits(count, dim):
        raise ValueError(
            f"{count:,} recorded updates of dimension {dim:,} do not fit in memory; allowed are {_ROWS_BYTES >> 30} "
            f"GiB of them, or dimensions up to {_MATRIX_DIM:,}: record fewer updates, or audit fewer layers"
        )
    blur = np.zeros(dim) if blur is None else mixture.terms * blur
    sizes, blurs = (
        hashlib.sha256(np.ascontiguousarray(one).tobytes()).hexdigest()
        for one in (np.asarray(source.sizes, np.int64), blur)
    )
    key = source.key and key_of(source=source.key, dim=dim, sizes=sizes, blur=blurs, mixture=list(mixture))
    # Variance that differs by coordinates needs the matrix; where that takes long, its mean must do.
    blurred = bool(np.ptp(blur)) and dim <= max(_BLURRED_DIM, min(count, _MATRIX_DIM))
    floor = 0.0 if blurred else float(blur.mean())
    if count < dim and not blurred and count * dim * 4 <= _ROWS_BYTES:
        rows = np.empty((count, dim), np.float32)
        mean, fourth = _factor(source, mixture, _Filler(rows))
        covariance = Covariance.of_rows(rows, **remembered(key, lambda: row_pairs(rows)))
    else:
        kept = dict(remembered(key, lambda: _matrix_pairs(source, mixture, blur if blurred else np.zeros(dim))))
        mean, fourth = kept.pop("mean"), float(kept.pop("fourth"))
        covariance = Covariance.of_coordinates(dim, **kept)
    freedom = source.freedom(mixture.groups) + (mixture.groups - 1) * (mixture.between > 0)
    samples = int(source.sizes[: mixture.groups].sum())
    return Moments(mean, covariance.lifted(floor), mixture.terms, samples, min(freedom, dim), fourth)


def _rows(source, mixture):
    """Rows of a factor of the covariance."""
    sizes = source.sizes[: mixture.groups]
    return int(sizes[sizes > 1].sum()) * (mixture.within > 0) + mixture.groups * (mixture.between > 0)


def _fits(count, dim):
    return dim <= _MATRIX_DIM or count * dim * 4 <= _ROWS_BYTES


def _matrix_pairs(source, mixture, blur):
    matrix = np.diag(blur)

    def add(rows):
        nonlocal matrix
        matrix += rows.T @ rows

    mean, fourth = _factor(source, mixture, add)
    return {"mean": mean, "fourth": np.float64(fourth), **coordinate_pairs(matrix)}


class _Filler:
    """Copies what it is called with into a matrix, from the top."""

    def __init__(self, into):
        self.into, self.filled = into, 0

    def __call__(self, rows):
        self.into[self.filled : self.filled + len(rows)] = rows
        self.filled += len(rows)


def _factor(source, mixture, take):
    """Give `take` the rows f64[n, dim] of a factor of the covariance; returns the mean and the fourth moment."""
    sizes, groups = source.sizes, mixture.groups
    grand = _grand_mean(source, groups) if mixture.between else None
    mean, fourth = np.zeros(source.dim), 0.0
    for first, last in blocks(sizes[:groups], source.dim):
        rows, count = np.asarray(source.rows(first, last), np.float64), sizes[first:last]
        # Centring before squaring avoids the cancellation of E[xx'] - E[x]E[x]'.
        means = _group_means(rows, count)
        mean += means.sum(0)
        rows -= np.repeat(means, count, axis=0)
        varied = np.repeat(count > 1, count)
        if mixture.within and varied.any():
            take(rows[varied] * np.sqrt(mixture.within / np.repeat(count, count)[varied, None]))
        if mixture.between:
            means -= grand
            take(means * np.sqrt(mixture.between))
            rows += np.repeat(means, count, axis=0)
        fourth += float(np.sum(np.einsum("ij,ij->i", rows, rows) ** 2))
    return mean * (mixture.terms / groups), fourth / sizes[:groups].sum()


def _grand_mean(source, groups):
    """Mean of the groups' means: f64[dim]."""
    total = np.zeros(source.dim)
    for first, last in blocks(source.sizes[:groups], source.dim):
        rows = np.asarray(source.rows(first, last), np.float64)
        total += _group_means(rows, source.sizes[first:last]).sum(0)
    return total / groups


def _group_means(rows, counts):
    edges = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return np.add.reduceat(rows, edges) / counts[:, None]


class Shrunk(NamedTuple):
    """A positive definite stand-in for a covariance Σ: slope · Σ + ridge · I."""

    slope: float
    ridge: float


def regularise(moments: Moments, shrinkage: Shrinkage, ridge: float) -> Shrunk:
    """What to make of a covariance to invert it: any choice is sound, a poor one costs power.

    Args:
      moments: of the sum.
      shrinkage: "ridge" adds `ridge` times the mean variance to the diagonal; "ledoit_wolf" and "oas" mix with
        the scaled identity, with weights that assume independent recordings, and add the ridge to that.
      ridge: relative to the mean variance, >= 0.

    Returns:
      Shrunk.

    Raises:
      ValueError: where the noise has no variance at all.

    Reference:
      Ledoit & Wolf (2004), J. Multivariate Analysis 88; Chen, Wiesel, Eldar & Hero (2010), IEEE TSP 58.
    """
    scale = moments.covariance.trace / len(moments.mean)
    if not scale > 0:
        raise ValueError(
            "the others' sum has no variance: all recorded updates are equal, or every client takes part in every "
            "trial with its only one, and any difference is visible in the sum; record updates that vary"
        )
    weight = 0.0
    if moments.samples and shrinkage != "ridge":
        weight = _WEIGHTS[shrinkage](moments.covariance.scaled(1 / moments.terms), moments.samples, moments.fourth)
    return Shrunk(1 - weight, (weight + ridge) * scale)


def _ledoit_wolf_weight(covariance, samples, fourth):
    square = covariance.square
    spread = square - covariance.trace**2 / covariance.dim
    noise = (fourth - square) / samples
    return float(np.clip(noise / spread, 0, 1)) if spread > 0 else 1.0


def _oas_weight(covariance, samples, fourth):
    del fourth
    square, trace = covariance.square, covariance.trace
    spread = (samples + 1) * (square - trace**2 / covariance.dim)
    return float(min((square + trace**2) / spread, 1.0)) if spread > 0 else 1.0


_WEIGHTS = {"ledoit_wolf": _ledoit_wolf_weight, "oas": _oas_weight}
