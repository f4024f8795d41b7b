"""Choosing the two candidate updates, from anything but the trials that certify."""

from collections.abc import Sequence

import numpy as np

from ..schema import one_or_more
from ..types import Moments, Pair
from .files import SUFFIXES, pick, read_arrays, refuse_non_finite
from .moments import regularise

# The search for the worst pair compares all pairs of at most this many candidates, in so many numbers.
_CANDIDATES, _NUMBERS = 2048, 2**28


def pair_field(*names: str):
    """The type of a recipe's `pair`: one of `names` or a file with arrays h0 and h1, or a list of several."""
    what = f"of {', '.join(names)}, and files {'|'.join(SUFFIXES[1:])} with arrays h0 and h1"
    return one_or_more(str, what, lambda pair: pair in names or pair.endswith(SUFFIXES[1:]))


def require_pair_files(pairs: tuple[str, ...], rounds: int, dim: int) -> None:
    """Raise ValueError now, before any training, where a pair names a file that cannot serve."""
    for pair in pairs:
        if pair.endswith(SUFFIXES[1:]):
            explicit_pair(pair, rounds, dim)


def explicit_pair(path: str, rounds: int, dim: int) -> Pair:
    """Two vectors that the user gives in a file, as arrays `h0` and `h1`: f32[rounds, dim], or f32[dim] for one."""
    arrays = read_arrays(path)
    both = []
    for name in ("h0", "h1"):
        found = pick(arrays, name, path, ndim=np.ndim(arrays.get(name, ())) or 1)
        vectors = np.atleast_2d(np.asarray(found, np.float32))
        if vectors.shape != (rounds, dim):
            shape = f"({dim},)" if rounds == 1 else f"({rounds}, {dim}): rounds, dim"
            raise ValueError(f"file {path}: array {name!r} has shape {found.shape}, allowed is {shape}")
        refuse_non_finite(vectors, f"file {path}: {name}")
        both.append(vectors)
    return Pair(path, *both, adjacency="replacement of a client's update", source=f"two vectors from {path}")


def zeroed_pair(updates: np.ndarray) -> Pair:
    """The target's update of every round, or nothing in its place."""
    return Pair(
        "zeroed",
        np.zeros_like(updates),
        updates,
        adjacency="zero-out of a client's update",
        source="a recorded update of the target, and zero",
    )


def random_pair(first: np.ndarray, second: np.ndarray) -> Pair:
    """Two of the target's updates in every round."""
    return Pair(
        "random",
        first,
        second,
        adjacency="replacement of a client's update",
        source="two recorded updates of the target, chosen at random",
    )


def candidates_of(dim: int) -> int:
    """How many updates the search for the worst pair can compare."""
    return max(2, min(_CANDIDATES, _NUMBERS // dim))


def worst_pair(rounds: Sequence[np.ndarray], moments: Sequence[Moments]) -> Pair:
    """In every round the two candidates farthest apart in the Mahalanobis distance of the noise.

    Args:
      rounds: for each round f32[n, dim], updates of the fit pool, n up to a few thousand.
      moments: of the others' sum in each round, as the server knows them.

    Returns:
      Pair.
    """
    ends = []
    for rows, one in zip(rounds, moments):
        distance = one.covariance.distances(rows, *regularise(one, "oas", 1e-6))
        first, second = np.unravel_index(np.argmax(distance), distance.shape)
        ends.append((rows[first], rows[second]))
    return Pair(
        "worst",
        *(np.stack(side) for side in zip(*ends)),
        adjacency="replacement of a client's update",
        source=f"the farthest pair among {len(rounds[0]):,} updates of the fit pool",
    )
