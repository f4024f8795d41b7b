"""Recorded updates that are held in memory."""

from dataclasses import dataclass

import numpy as np

from .source import products


@dataclass(frozen=True, eq=False)
class MemorySource:
    """Updates as they were computed.

    Attributes:
      updates: f32[n, dim], client after client.
      sizes: i64[clients], how many of them belong to each client.
    """

    updates: np.ndarray
    sizes: np.ndarray
    key = None  # what they are a function of is not named, so nothing made of them is remembered

    @property
    def dim(self) -> int:
        """Dimension of an update."""
        return self.updates.shape[1]

    def freedom(self, groups: int) -> int:
        """Rank that within-client differences can reach."""
        return int(min(np.sum(self.sizes[:groups] - 1), self.dim))

    def rows(self, first: int, last: int) -> np.ndarray:
        """The updates of clients `first` to `last - 1`."""
        edges = np.concatenate([[0], np.cumsum(self.sizes)])
        return self.updates[edges[first] : edges[last]]

    def project(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Products in float64, and how far off they may be."""
        return products(self, weights)
