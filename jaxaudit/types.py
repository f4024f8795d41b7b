"""The nouns of the game: views, tests, moments, candidates, and what the server knows."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .covariance import Covariance as Covariance
from .random import Ticket as Ticket


class Range(NamedTuple):
    """Trials first, ..., first + count - 1 of a stream."""

    first: int
    count: int


class SumView(NamedTuple):
    """What secure aggregation reveals to the server.

    Attributes:
      total: f32[rounds, dim], the sum of the updates of every client that took part, as decoded from `ring`.
      survivors: i32[rounds], how many did; 0 where a round was aborted, `ABSENT` where the server is not told.
      ring: u32[rounds, size], the residues themselves, for attacks that need exactness or wrap; None where somebody
        adds noise to the sum before the server sees it.
    """

    total: jax.Array
    survivors: jax.Array
    ring: jax.Array | None = None


# In the place of an occupant: nobody sits there. In the place of a number of survivors: it is not told.
ABSENT = -1


class LinearTest(NamedTuple):
    """A score that is linear in what the server sees: Σ_rounds weights · total - others · each - offset.

    Attributes:
      weights: f64[rounds, dim].
      each: f64[rounds], nats: what one of the others adds on average; the server sees how many took part.
      offset: f64[rounds], nats: of the target. Together they put the Gaussian decision threshold at 0.
    """

    weights: np.ndarray
    each: np.ndarray
    offset: np.ndarray


def linear_score(knowledge: LinearTest, view: SumView) -> jax.Array:
    """Log-likelihood ratio of the totals, in nats: f32[]."""
    others = (view.survivors - 1).astype(jnp.float32)
    expected = jnp.sum(others * knowledge.each) + jnp.sum(knowledge.offset)
    return jnp.vdot(view.total, knowledge.weights, precision="highest") - expected


class Moments(NamedTuple):
    """Mean and covariance of the other clients' sum in one round, in float64.

    Where the number of those who take part varies, the covariance is that of the sum less mean / terms for each of
    them, because the server sees the number.

    Attributes:
      mean: f64[dim].
      covariance: of the sum over all noise terms.
      terms: updates in the sum, on average.
      samples: recorded updates behind it; 0 where the law is known exactly.
      freedom: the largest rank that so many recordings could show; `dim` for an exact law.
      fourth: mean of the squared squared norm of a centred update, which Ledoit-Wolf needs; 0 for an exact law.
    """

    mean: np.ndarray
    covariance: Covariance
    terms: float
    samples: int
    freedom: int
    fourth: float


@dataclass(frozen=True)
class Pair:
    """The two updates between which the server must decide, in every audited round.

    Attributes:
      name: how it was chosen: a word of the population's `pair`, or a file.
      h0: f32[rounds, dim], what the target sends under bit 0.
      h1: f32[rounds, dim], what it sends under bit 1.
      adjacency: the relation between the two, in words.
      source: where they come from, in words.
    """

    name: str
    h0: np.ndarray
    h1: np.ndarray
    adjacency: str
    source: str

    @property
    def both(self) -> np.ndarray:
        """f64[2, rounds, dim], h0 and h1."""
        return np.stack([self.h0, self.h1]).astype(np.float64)

    @property
    def difference(self) -> np.ndarray:
        """f64[rounds, dim], h1 - h0."""
        return self.h1.astype(np.float64) - self.h0

    @property
    def middle(self) -> np.ndarray:
        """f64[rounds, dim], (h0 + h1) / 2, where a symmetric test puts its threshold."""
        return (self.h0.astype(np.float64) + self.h1) / 2


@dataclass(frozen=True)
class Server:
    """What the adversary knows when it calibrates its attack.

    Attributes:
      pair: the two candidates, as they add to the sum.
      noise_terms: clients other than the target whose updates are in the sum.
      knows: what its moments were taken from, in words.
      attendance: how many of the others send, and with what probability.
      chain: how updates are encoded, an `aggregation.chain.Chain`; None for a plain sum.
      facts: what a malicious attack remembers of the models that it sent.
    """

    pair: Pair
    noise_terms: int
    knows: str
    attendance: tuple[tuple[int, float], ...] = ()
    chain: Any = None
    facts: Any = None
