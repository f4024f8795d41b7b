"""The user's own recorded updates, from a file."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from pydantic import Field, field_validator

from ..schema import recipe
from ..types import Moments, Pair, Responses
from .files import SUFFIXES, file_sha256, pick, read_arrays, refuse_non_finite
from .pairs import (
    explicit_pair,
    pair_field,
    random_pair,
    require_pair_file,
    thinned,
    worst_pair,
    zeroed_pair,
)
from .pool import RecordedPool, product_error

_CHUNK = 4096


class _Rows:
    """Some rows of a matrix, a chunk at a time, so that a memory-mapped file is never loaded whole."""

    def __init__(self, matrix, rows):
        self.matrix, self.rows = matrix, rows

    def __len__(self):
        return -(-len(self.rows) // _CHUNK)

    def __iter__(self):
        for start in range(0, len(self.rows), _CHUNK):
            yield np.asarray(self.matrix[self.rows[start : start + _CHUNK]], np.float32)


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Rows of one matrix as a single group that every seat draws from."""

    matrix: np.ndarray
    rows: np.ndarray

    @property
    def dim(self):
        """Dimension of an update."""
        return self.matrix.shape[1]

    def freedom(self, groups: int) -> int:
        """Rank that centred rows can reach."""
        return min(len(self.rows) - groups, self.dim)

    @property
    def sizes(self):
        """One group."""
        return np.array([len(self.rows)])

    def chunks(self, group: int):
        """All rows, a few thousand at a time."""
        del group
        return _Rows(self.matrix, self.rows)

    def project(self, weights: np.ndarray) -> tuple[np.ndarray, float]:
        """Product of every row with the weights, in float64, and what that rounds away."""
        largest = max(float(np.abs(chunk).max()) for chunk in self.chunks(0))
        scalars = np.concatenate([chunk.astype(np.float64) @ weights for chunk in self.chunks(0)])
        return scalars, product_error(largest, weights)


@recipe
class Arrays:
    """Recorded updates in a file: the cohort draws, with replacement, from the rows that certify.

    Attributes:
      kind: "arrays".
      path: a .npy file (one matrix), or .npz or .safetensors with `updates` f32[updates, dim] and, if known,
        `client` i64[updates], the client of each row. With it the pools are disjoint by clients, without by rows.
      clients: cohort size, the target included.
      fit_share: share of the clients (or rows) that the server may learn from; the others certify.
      pair: "random" (two rows of the target), "zeroed" (one row against nothing), "worst" (farthest pair of the fit
        pool), or a file with arrays `h0` and `h1`. The target's rows are left out of both pools.
    """

    kind: Literal["arrays"] = "arrays"
    path: str = Field(description="a .npy, .npz or .safetensors file")
    clients: int = Field(60, ge=2, description="cohort size, the target included")
    fit_share: float = Field(0.5, gt=0, lt=1, description="share of the clients that the server may learn from")
    pair: pair_field("random", "zeroed", "worst") = "random"

    @field_validator("path")
    @classmethod
    def _known_suffix(cls, path):
        if not path.endswith(SUFFIXES):
            raise ValueError(f"allowed are files {'|'.join(SUFFIXES)}")
        return path

    def respond(self, seed: int, broadcast: Any) -> Responses:
        """Read, check and split the file; nothing is copied but the rows in use."""
        if broadcast is not None:
            raise ValueError("recorded arrays cannot answer a malicious broadcast; use an honest attack")
        arrays = read_arrays(self.path)
        matrix = pick(arrays, "updates", self.path, ndim=2)
        if not matrix.size:
            raise ValueError(f"file {self.path}: updates has shape {matrix.shape}, allowed are one number or more")
        owners, known = np.arange(len(matrix)), "client" in arrays
        if known:
            owners = pick(arrays, "client", self.path, ndim=1)
            if len(owners) != len(matrix):
                raise ValueError(f"file {self.path}: {len(owners)} client numbers for {len(matrix)} updates")
        for start in range(0, len(matrix), _CHUNK):
            refuse_non_finite(matrix[start : start + _CHUNK], f"file {self.path}: updates", start)
        require_pair_file(self.pair)
        target, fit, certify = self._split(owners, known, seed)
        pools = []
        for rows in (fit, certify):
            clients = len(np.unique(owners[rows])) if known else None
            of = f" of {clients:,} clients" if known else ""
            seats = np.zeros(self.clients - 1, int)
            pools.append(RecordedPool(ArraySource(matrix, rows), seats, f"recorded updates{of}", clients))
        apart = "clients" if known else "rows (their clients are not recorded)"
        return Responses(
            *pools,
            choose_pair=partial(self._pair, matrix, target, fit),
            real=f"the updates, as recorded in {Path(self.path).name}",
            knows={
                "fit_pool": "the two candidates, the protocol, and recorded updates disjoint from the audited by "
                + apart,
                "certify_pool": "the two candidates, the protocol, and every recorded update of the audited pool",
            },
            data_sha256={Path(self.path).name: file_sha256(self.path)},
        )

    def _split(self, owners, known, seed):
        key_order, key_target = jax.random.split(jax.random.key(seed))
        names = np.unique(owners)
        order = names[np.asarray(jax.random.permutation(key_order, len(names)))]
        # By rows, two of them play the target; by clients, one client with all its rows does.
        taken = 1 if known else 2
        cut = taken + round(self.fit_share * (len(order) - taken))
        target, fit, certify = (
            np.flatnonzero(np.isin(owners, part)) for part in (order[:taken], order[taken:cut], order[cut:])
        )
        target = target[np.asarray(jax.random.permutation(key_target, len(target)))]
        for name, rows in (("fit", fit), ("certify", certify)):
            if len(rows) < self.clients - 1:
                raise ValueError(
                    f"population.clients is {self.clients}, but the {name} pool holds only {len(rows)} of "
                    f"{len(owners)} updates; allowed are cohorts up to {len(rows) + 1}: record more updates, "
                    "or change population.fit_share"
                )
        return target, fit, certify

    def _pair(self, matrix, target, fit, moments: Moments) -> Pair:
        rows = np.asarray(matrix[target], np.float32)
        if self.pair == "zeroed":
            return zeroed_pair(rows[0])
        if self.pair == "random":
            if len(rows) < 2:
                raise ValueError('population.pair = "random" needs two updates of the target, its client has one')
            return random_pair(rows[0], rows[1])
        if self.pair == "worst":
            return worst_pair(np.asarray(matrix[thinned(fit)], np.float32), moments, self.clients - 1)
        return explicit_pair(self.pair, matrix.shape[1])
