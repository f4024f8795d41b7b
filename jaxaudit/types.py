"""The nouns of the game, and the protocols that its players satisfy.

Nothing has to inherit from these protocols. A population is a recipe whose `respond` does all the host work once and
returns pools; a pool hands out `Draws`, the pure functions that run in every trial. The attack sees a `View` and its
own knowledge, and nothing else.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from .bounds import Term
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
    """

    pair: Pair
    noise_terms: int
    knows: str
    attendance: tuple[tuple[int, float], ...] = ()
    chain: Any = None


class Column(NamedTuple):
    """One linear score of many that are computed from the same draws.

    Attributes:
      pair: the candidates it decides between.
      test: its weights.
      noise_terms: clients other than the target whose updates are in its sum.
    """

    pair: Pair
    test: LinearTest
    noise_terms: int


class Loaded(NamedTuple):
    """A pool that is ready to be drawn from, update by update.

    Attributes:
      draws: the program.
      params: its arrays, a pytree.
      limit: no entry of an update is larger than this in magnitude.
    """

    draws: "Draws"
    params: Any
    limit: float


class Projected(NamedTuple):
    """A pool that is ready to be drawn from, as one integer per update and column: its score in steps.

    Attributes:
      draws: the program.
      params: its arrays, a pytree.
      ends: i32[2, columns], what the target adds under either bit, in steps.
      step: f64[columns], powers of two, for which no sum exceeds 2^30 steps by more than half a step a term.
      error: f64[columns], how far one term may be from its exact product with the weights, rounding included.
      terms: i64[columns], the most terms of the others in one sum.
      deviation: f64[columns], standard deviation of the others' sum.
    """

    draws: "SumDraws"
    params: Any
    ends: np.ndarray
    step: np.ndarray
    error: np.ndarray
    terms: np.ndarray
    deviation: np.ndarray


class Draws(Protocol):
    """The part of a population that runs in every trial: pure, hashable, holding no arrays.

    Attributes:
      absent: whether seats may stay empty.
    """

    absent: bool

    def width(self, params) -> int:
        """Trials to compute together, a power of two, of shapes alone: results may depend on it in the last bit."""

    def seats(self, noise_terms: int) -> int:
        """Seats, from the first, of a cohort with so many noise terms."""

    def others(self, params, ticket: Ticket) -> jax.Array:
        """Who sits on the other clients' seats, or `ABSENT`: i32[rounds, seats]. The bit is not an argument."""

    def target(self, params, ticket: Ticket, pair: int, bit) -> jax.Array:
        """Who sits on the target's seats when it plays one of the loaded pairs: i32[rounds, seats]."""

    def update(self, params, ticket: Ticket, who) -> jax.Array:
        """What one occupant sends: f32[dim]."""


class SumDraws(Protocol):
    """The same where only a linear score of the sum is wanted: pure, hashable, holding no arrays."""

    def width(self, params) -> int:
        """Trials to compute together, a power of two; sums of integers do not depend on it."""

    def others(self, params, ticket: Ticket) -> jax.Array:
        """The others' sums over all rounds, in steps: i32[columns]. The bit is not an argument."""


class Pool(Protocol):
    """Recorded updates, or the law they come from, after all host work is done."""

    dim: int
    rounds: int
    noise_terms: int

    def affordable(self, noise_terms: int) -> bool:
        """Whether the moments of that many terms can be had in half a minute."""

    def moments(self, noise_terms: int) -> tuple[Moments, ...]:
        """Moments of the sum of the first so many noise terms, round by round."""

    def load(self, pairs: Sequence[Pair]) -> Loaded:
        """Draws of whole updates."""

    def project(self, columns: Sequence[Column], step: np.ndarray | float = 0.0) -> Projected:
        """Sums of one scalar per column and update: its product with the weights, less what one adds on average.

        Args:
          columns: the scores.
          step: f64[columns], the least step, a power of two; to leave room for what else is added.

        Returns:
          Projected.
        """

    def attendance(self, noise_terms: int) -> tuple[tuple[int, float], ...]:
        """How many of the others send, and with what probability."""

    def terms(self, columns: Sequence[Column]) -> list[tuple[list[Term], float]]:
        """For each column the law of its others' sum, as independent terms, and how far off a value may be.

        Raises:
          ValueError: with the reason, where the sum has no such law.
        """

    def disjoint(self, columns: Sequence[Column]) -> list[np.ndarray]:
        """For each column f64[cohorts]: its others' summed scalars in cohorts that share no client."""

    def describe(self, noise_terms: int) -> dict[str, Any]:
        """For reports: `updates`, `clients` (None if not known), `replacement`, and in `words` what is summed."""


@dataclass(frozen=True)
class Responses:
    """What a population prepared: two disjoint pools and a way to choose the candidates.

    Attributes:
      fit: what the server may learn from.
      certify: what the trials draw from.
      cohorts: cohort sizes to be audited, the target included, from the same draws.
      choose_pairs: called once with the server's moments of the first cohort, round by round.
      real: what in this audit is real, in words.
      knows: what the server knows, in words, for every value of `Audit.server_knows` that makes sense.
      given: what the bound is conditional on, in words.
      structural: called with a pair; a proof in words that no noise can hide its difference, or None.
      fresh: what makes disjoint cohorts of the certify pool independent trials on the population its clients come
        from, in words; empty where they are not, as when the model was trained by them.
      metrics: figures of the preparation, such as the model's accuracy.
      data_sha256: what the updates were computed from.
    """

    fit: Pool
    certify: Pool
    cohorts: tuple[int, ...]
    choose_pairs: Callable[[Sequence[Moments]], tuple[Pair, ...]]
    real: str
    knows: Mapping[str, str]
    given: str = "this pool"
    structural: Callable[[Pair], str | None] = lambda pair: None
    fresh: str = ""
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

    def prepare(self, limit: Any, clients: int) -> Any:
        """Params, once: updates have no entry beyond `limit` (a number or f64[dim]) and at most so many clients."""

    def init(self, dim: int) -> Any:
        """State before any client."""

    def add(self, params, state, ticket: Ticket, seat, update) -> Any:
        """State after one more client, on seat number `seat`; the same number under both bits. f32[dim] comes in."""

    def reveal(self, params, state, ticket: Ticket) -> Any:
        """What the server sees."""


class Attack(Protocol):
    """What the server infers. `score` is a pure function of knowledge and view, larger speaking for H1.

    An attack whose score is linear has a method `linear(knowledge) -> LinearTest` as well, and is projected. One with
    settings to tune has `options(server, moments)`, a mapping from a setting in words to its knowledge, instead of
    `calibrate`; pilot trials choose among them.
    """

    kind: str
    reads: ClassVar[type]

    def broadcast(self) -> Any:
        """What a malicious server sends before the round; None is an honest server."""

    def calibrate(self, server: Server, moments: Sequence[Moments]) -> Any:
        """Knowledge from the moments of every round: a pytree of arrays, all that `score` sees besides the view."""

    score: Callable[[Any, Any], jax.Array]
