"""Choosing the two candidate updates, from anything but the trials that certify."""

from typing import Annotated

import numpy as np
from pydantic import AfterValidator
from scipy.linalg import cho_factor, solve_triangular

from ..types import Moments, Pair
from .files import SUFFIXES, pick, read_arrays, refuse_non_finite
from .moments import regularise

# The search for the worst pair compares all pairs of at most this many candidates.
_CANDIDATES = 2048


def pair_field(*names: str):
    """The type of a recipe's `pair`: one of `names`, or a file with arrays h0 and h1."""
    allowed = f"{', '.join(names)}, or a file {'|'.join(SUFFIXES[1:])} with arrays h0 and h1"

    def check(value: str) -> str:
        if value in names or value.endswith(SUFFIXES[1:]):
            return value
        raise ValueError(f"allowed are {allowed}")

    return Annotated[str, AfterValidator(check)]


def require_pair_file(pair: str) -> None:
    """Raise ValueError now, before any training, where `pair` names a file that cannot be read."""
    if pair.endswith(SUFFIXES[1:]):
        read_arrays(pair)


def explicit_pair(path: str, dim: int) -> Pair:
    """Two vectors that the user gives in a file, as arrays `h0` and `h1`, f32[dim]."""
    arrays = read_arrays(path)
    both = [np.asarray(pick(arrays, name, path, ndim=1), np.float32) for name in ("h0", "h1")]
    for name, vector in zip(("h0", "h1"), both):
        if len(vector) != dim:
            raise ValueError(f"file {path}: array {name!r} has {len(vector)} entries, allowed are {dim} (dim)")
        refuse_non_finite(vector[None], f"file {path}: {name}")
    return Pair(*both, adjacency="replacement of a client's update", source=f"two vectors from {path}")


def zeroed_pair(update: np.ndarray) -> Pair:
    """The target's update, or nothing in its place."""
    return Pair(
        np.zeros_like(update),
        update,
        adjacency="zero-out of a client's update",
        source="a recorded update of the target, and zero",
    )


def random_pair(first: np.ndarray, second: np.ndarray) -> Pair:
    """Two of the target's updates."""
    return Pair(
        first,
        second,
        adjacency="replacement of a client's update",
        source="two recorded updates of the target, chosen at random",
    )


def thinned(candidates: np.ndarray) -> np.ndarray:
    """At most 2,048 of them, evenly spread."""
    return candidates[:: -(-len(candidates) // _CANDIDATES)]


def worst_pair(rows: np.ndarray, moments: Moments, noise_terms: int) -> Pair:
    """The two candidates farthest apart in the Mahalanobis distance of the noise.

    Args:
      rows: f32[n, dim], updates of the fit pool, n up to a few thousand.
      moments: of the others' sum, as the server knows them.
      noise_terms: clients in that sum.

    Returns:
      Pair.
    """
    factor, _ = cho_factor(regularise(moments, noise_terms, "oas", 1e-6), lower=True)
    white = solve_triangular(factor, rows.astype(np.float64).T, lower=True).T
    square = np.einsum("ij,ij->i", white, white)
    distance = square[:, None] + square[None, :] - 2 * white @ white.T
    first, second = np.unravel_index(np.argmax(distance), distance.shape)
    return Pair(
        rows[first],
        rows[second],
        adjacency="replacement of a client's update",
        source=f"the farthest pair among {len(rows):,} updates of the fit pool",
    )
