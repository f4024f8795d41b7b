"""The noise of all clients in one draw: what a linear score of a sum reads of it, in whole steps of the score."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..protocols import SumDraws
from ..random import Ticket, normals
from .laws import Table, draw
from .stage import lane

# The seat of the noise of all clients together, beside those of clients and of the server.
_TOGETHER = 2**26 - 2


class NoisyParams(NamedTuple):
    """What sums with noise look up.

    Attributes:
      base: of the sums without it.
      deviation: f32[columns], of the real noise, in steps of the score.
      tables: the law of the sum of all shares, for every kind of integer noise and cohort size.
      weights: i32[entries, columns] for each of them, in steps of the score; zero in other cohorts' columns.
    """

    base: Any
    deviation: jax.Array
    tables: tuple[Table, ...]
    weights: tuple[jax.Array, ...]


@dataclass(frozen=True)
class NoisySums:
    """Sums of the others with the noise of everyone, the target included, drawn in one go.

    Attributes:
      base: the sums without noise.
      entries: numbers drawn for each table.
      real: whether there is real noise.
    """

    base: SumDraws
    entries: int
    real: bool

    def width(self, params: NoisyParams) -> int:
        """Draws that stay in the second-level cache."""
        own = self.base.width(params.base)
        return (
            min(own, int(np.clip(2.0 ** (16 - (self.entries - 1).bit_length()), 1, 8192))) if params.tables else own
        )

    def others(self, params: NoisyParams, ticket: Ticket) -> jax.Array:
        """The others' sums and the noise, in steps: i32[columns]."""
        total = self.base.others(params.base, ticket)
        if self.real:
            drawn = normals(lane(ticket, jnp.uint32(_TOGETHER), 0), jnp.uint32(0), total.shape[0])
            total = total + jnp.rint(params.deviation * drawn).astype(jnp.int32)
        for number, (own, weights) in enumerate(zip(params.tables, params.weights)):
            # Whole numbers modulo 2^32: out of range a score would be wrong, but still a function of the ring's sum.
            noise = draw(own, lane(ticket, jnp.uint32(_TOGETHER - 1 - number), 0), self.entries)
            total = total + jnp.sum(noise[:, None] * weights, axis=0)
        return total
