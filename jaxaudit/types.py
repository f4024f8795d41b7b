"""The nouns of the game, and the protocols that its players satisfy.

Nothing has to inherit from these protocols. A population is a recipe whose `respond` does all the host work once and
returns pools; a pool hands out `Draws`, the pure functions that run in every trial. The attack sees a `View` and its
own knowledge, and nothing else.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from .random import Ticket as Ticket


class SumView(NamedTuple):
    """What plain secure aggregation reveals to the server.

    Attributes:
      total: f32[rounds, dim], the sum of the updates of every client that took part.
      survivors: i32[rounds], how many did.
    """

    total: jax.Array
    survivors: jax.Array


class LinearTest(NamedTuple):
    """A score that is linear in the total: weights · total - offset.

    Attributes:
      weights: f64[dim].
      offset: f64[], nats; it puts the Gaussian decision threshold at 0.
    """

    weights: np.ndarray
    offset: np.ndarray


def linear_score(knowledge: LinearTest, view: SumView) -> jax.Array:
    """Log-likelihood ratio of the total, in nats: f32[]."""
    return jnp.dot(view.total[0], knowledge.weights, precision="highest") - knowledge.offset


class Moments(NamedTuple):
    """Mean and covariance of the other clients' sum, in float64.

    Attributes:
      mean: f64[dim].
      covariance: f64[dim, dim], of the sum over all noise terms.
      samples: recorded updates behind it; 0 where the law is known exactly.
      freedom: the largest rank that so many recordings could show; `dim` for an exact law.
      fourth: mean of the squared squared norm of a centred update, which Ledoit-Wolf needs; 0 for an exact law.
    """

    mean: np.ndarray
    covariance: np.ndarray
    samples: int
    freedom: int
    fourth: float


@dataclass(frozen=True)
class Pair:
    """The two updates between which the server must decide.

    Attributes:
      h0: f32[dim], what the target sends under bit 0.
      h1: f32[dim], what it sends under bit 1.
      adjacency: the relation between the two, in words.
      source: where they come from, in words.
    """

    h0: np.ndarray
    h1: np.ndarray
    adjacency: str
    source: str

    @property
    def both(self) -> np.ndarray:
        """f64[2, dim], h0 and h1."""
        return np.stack([self.h0, self.h1]).astype(np.float64)

    @property
    def difference(self) -> np.ndarray:
        """f64[dim], h1 - h0."""
        return self.both[1] - self.both[0]

    @property
    def middle(self) -> np.ndarray:
        """f64[dim], (h0 + h1) / 2, where a symmetric test puts its threshold."""
        return self.both.mean(axis=0)


@dataclass(frozen=True)
class Server:
    """What the adversary knows when it calibrates its attack.

    Attributes:
      pair: the two candidates.
      noise_terms: clients other than the target whose updates are in the sum.
      knows: what its moments were taken from, in words.
    """

    pair: Pair
    noise_terms: int
    knows: str


class Loaded(NamedTuple):
    """A pool that is ready to be drawn from.

    Attributes:
      draws: the program.
      params: its arrays, a pytree.
      limit: no entry of an update is larger than this in magnitude.
      error: how far a projected scalar may be from the exact product; 0 for whole updates.
    """

    draws: "Draws"
    params: Any
    limit: float
    error: float


class Draws(Protocol):
    """The part of a population that runs in every trial: pure, hashable, holding no arrays."""

    def width(self, params) -> int:
        """Trials to compute together: a function of shapes alone, for results may depend on it in the last bit."""

    def others(self, params, ticket: Ticket) -> jax.Array:
        """Who sits on the other clients' seats: i32[rounds, seats]. The bit is not an argument."""

    def target(self, params, ticket: Ticket, bit) -> jax.Array:
        """Who sits on the target's seats: i32[rounds, seats]."""

    def update(self, params, ticket: Ticket, who) -> jax.Array:
        """What one occupant sends: f32[dim]."""


class Pool(Protocol):
    """Recorded updates, or the law they come from, after all host work is done."""

    dim: int
    noise_terms: int

    def moments(self) -> Moments:
        """Moments of the sum of all noise terms."""

    def load(self, pair: Pair) -> Loaded:
        """Draws of whole updates."""

    def project(self, pair: Pair, weights: np.ndarray, offset: float) -> Loaded:
        """Draws of one scalar per update: its product with `weights`, less its share of `offset`."""

    def describe(self) -> dict[str, Any]:
        """For reports: `updates`, `clients` (None if not known), `replacement`, and in `words` what is summed."""


@dataclass(frozen=True)
class Responses:
    """What a population prepared: two disjoint pools and a way to choose the candidates.

    Attributes:
      fit: what the server may learn from.
      certify: what the trials draw from.
      choose_pair: called once with the server's `Moments`.
      structural: called with the pair; a proof in words that no noise can hide their difference, or None.
      real: what in this audit is real, in words.
      knows: what the server knows, in words, for every value of `Audit.server_knows` that makes sense.
      given: what the bound is conditional on, in words.
      metrics: figures of the preparation, such as the model's accuracy.
      data_sha256: what the updates were computed from.
    """

    fit: Pool
    certify: Pool
    choose_pair: Callable[[Moments], Pair]
    real: str
    knows: Mapping[str, str]
    given: str = "this pool"
    structural: Callable[[Pair], str | None] = lambda pair: None
    metrics: Mapping[str, float] = field(default_factory=dict)
    data_sha256: Mapping[str, str] = field(default_factory=dict)


class Population(Protocol):
    """A recipe for who sends what."""

    kind: str

    def respond(self, seed: int, broadcast: Any) -> Responses:
        """All host-bound work, once: data, training, recorded updates. `broadcast` None is an honest server."""


class Aggregator(Protocol):
    """A fold over the clients: memory per trial is one state, not clients × dim."""

    kind: str
    view: ClassVar[type]
    linear: ClassVar[bool]
    words: ClassVar[str]

    def prepare(self, limit: float, clients: int) -> Any:
        """Params, once: updates have no entry beyond `limit`, and there are at most so many clients."""

    def init(self, dim: int) -> Any:
        """State before any client."""

    def add(self, params, state, ticket: Ticket, seat, update) -> Any:
        """State after one more client, on seat number `seat`; the same number under both bits. f32[dim] comes in."""

    def reveal(self, params, state, ticket: Ticket) -> Any:
        """What the server sees."""


class Attack(Protocol):
    """What the server infers. `score` is a pure function of knowledge and view, larger speaking for H1."""

    kind: str
    reads: ClassVar[type]

    def broadcast(self) -> Any:
        """What a malicious server sends before the round; None is an honest server."""

    def calibrate(self, server: Server, moments: Moments) -> Any:
        """Knowledge: a pytree of arrays, all that `score` sees besides the view."""

    score: Callable[[Any, Any], jax.Array]
