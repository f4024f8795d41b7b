"""The players of the game, as protocols: who sends, who adds up, who infers, and what they hand to each other.

Nothing has to inherit from these protocols. A population is a recipe whose `respond` does all the host work once and
returns pools; a pool hands out `Draws`, the pure functions that run in every trial. The attack sees a view and its
own knowledge, and nothing else.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import numpy as np

from .bounds import Term
from .types import LinearTest, Moments, Pair, Server, Ticket


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


class Truth(NamedTuple):
    """What a recovery is compared with; no attack sees it.

    Attributes:
      own: what the target sends when it is not asked to choose, on both sides of a pair.
      of_target: what its update hides, such as i64[classes] records of each label.
      of_rows: the same of every recorded update of the audited pool, with a leading axis.
    """

    own: Pair
    of_target: np.ndarray
    of_rows: np.ndarray


@dataclass(frozen=True)
class Responses:
    """What a population prepared: two disjoint pools and a way to choose the candidates.

    Attributes:
      fit: what the server may learn from; None where it needs nothing but what it sent.
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
      sent: what a malicious server sent, a `broadcast.Sent`.
      truth: what a recovery is compared with.
      everyone: the same choice for every client in turn, for rounds in which each of them is a target.
      partial: which entries of an update are missing, in words; empty where all are there.
    """

    fit: Pool | None
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
    sent: Any = None
    truth: Truth | None = None
    everyone: Callable[[], tuple[Pair, ...]] | None = None
    partial: str = ""


class Population(Protocol):
    """A recipe for who sends what."""

    kind: str

    def respond(self, seed: int, broadcast: Any) -> Responses:
        """All host-bound work, once: data, training, recorded updates. `broadcast` is what the attack's returns."""


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
        """None for an honest server; of a malicious one a `broadcast.Craft`, from what is public to what is sent."""

    def calibrate(self, server: Server, moments: Sequence[Moments]) -> Any:
        """Knowledge from the moments of every round: a pytree of arrays, all that `score` sees besides the view."""

    score: Callable[[Any, Any], jax.Array]
