"""The game: a population sends, an aggregator reveals, an attack scores.

`Audit` is the recipe. `Audit.prepare` does all the slow and host-bound work; what it returns makes a `Game`: a
static program and a pytree of arrays, of which every trial is a pure function of its ticket. Audits that differ only
in numbers share one program, hence one compilation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .schema import recipe
from .types import (
    Aggregator,
    Attack,
    Draws,
    LinearTest,
    Loaded,
    Moments,
    Pair,
    Population,
    Responses,
    Server,
    Ticket,
    linear_score,
)

Knows = Literal["fit_pool", "certify_pool"]
# Moments are dense: a covariance of this size takes 1.8 GB, and its eigenvectors as much again.
MAX_DIM = 15_000
_EXACT_SUM = (
    "the ideal functionality of secure aggregation (the exact sum of the updates, with all rounding counted against "
    "the bound; no dropouts)"
)
_VERBS = {
    "population": ("respond",),
    "aggregator": ("view", "linear", "words", "prepare", "init", "add", "reveal"),
    "attack": ("reads", "broadcast", "calibrate", "score"),
}


@dataclass(frozen=True)
class Program:
    """The static part of a game: what is traced, and nothing that is swept.

    Attributes:
      draws: who sits where and what they send.
      aggregator: the fold over the clients.
      score: a pure function of (knowledge, view).
      dim: dimension of an update.
    """

    draws: Draws
    aggregator: Aggregator
    score: Callable
    dim: int


class Params(NamedTuple):
    """The arrays of a game: a pytree.

    Attributes:
      pool: what the draws look up.
      aggregator: parameters of the aggregator.
      knowledge: what the attack knows.
    """

    pool: Any
    aggregator: Any
    knowledge: Any


def play(program: Program, params: Params, ticket: Ticket) -> tuple[jax.Array, jax.Array]:
    """One paired trial: the same draw of the others, once under each bit.

    The others' fold never sees the bit; only the target's seats are added per bit. So the bit cannot touch another
    seat, and both hypotheses share every other random word, by construction.

    Args:
      program: static.
      params: arrays.
      ticket: names the trial.

    Returns:
      (score under bit 0, score under bit 1), f32[].
    """
    both = jax.vmap(program.score, in_axes=(None, 0))(params.knowledge, reveal(program, params, ticket))
    return both[0], both[1]


def reveal(program: Program, params: Params, ticket: Ticket) -> Any:
    """What the server sees in one trial: views with a leading axis for the bit.

    Both bits go through the same operations, so that no rounding can depend on the bit.
    """
    fold = jax.vmap(partial(_fold, program, params, ticket), in_axes=(0, 0, None))
    others = program.draws.others(params.pool, ticket)
    start = jax.vmap(lambda _: program.aggregator.init(program.dim))(jnp.arange(others.shape[0]))
    crowd = fold(start, others, 0)

    def finish(bit):
        state = fold(crowd, program.draws.target(params.pool, ticket, bit), others.shape[1])
        return jax.vmap(lambda state: program.aggregator.reveal(params.aggregator, state, ticket))(state)

    return jax.vmap(finish)(jnp.arange(2))


def _fold(program, params, ticket, state, occupants, first_seat):
    # The next occupant travels in the carry. Read where it is used, `occupants[index]` would be fused into the update
    # and repeated for every element of it, which keeps XLA:CPU from vectorising (three times slower).
    last = occupants.shape[0] - 1

    def add(index, carry):
        state, who = carry
        update = program.draws.update(params.pool, ticket, who)
        # The aggregator learns the seat, not its occupant: the target's seat has one number under both bits.
        state = program.aggregator.add(params.aggregator, state, ticket, first_seat + index, update)
        return state, occupants[jnp.minimum(index + 1, last)]

    return jax.lax.fori_loop(0, occupants.shape[0], add, (state, occupants[0]))[0]


@dataclass(frozen=True)
class Game:
    """What runs in every trial.

    Attributes:
      program: static.
      params: arrays.
      slack: the score of the exact total lies within so much of the one computed. Bounds count on the safe side of
        it: scores of H0 are raised by it, those of H1 lowered.
      nested: even so, h0 <= h1 in every draw, so paired bounds apply.
    """

    program: Program
    params: Params
    slack: float
    nested: bool


@dataclass(frozen=True)
class Prepared:
    """An audit after all host-bound work.

    Attributes:
      audit: the recipe.
      responses: what the population prepared.
      pair: the candidates.
      knowledge: what the attack calibrated, in float64.
      known: moments of the others' sum that the server knows.
      truth: moments of the audited pool, for predictions and verdicts; the attack does not see them.
      server: what the adversary was told.
    """

    audit: "Audit"
    responses: Responses
    pair: Pair
    knowledge: Any
    known: Moments
    truth: Moments
    server: Server

    def game(self) -> Game:
        """The cheapest form of the game: projected where score and aggregator are linear, else the general one."""
        return self.project() if self.linear else self.fold()

    @property
    def linear(self) -> bool:
        """The score is linear in the total, and the total in the updates."""
        return self.audit.aggregator.linear and hasattr(self.audit.attack, "linear")

    @property
    def mechanism(self) -> str:
        """What was simulated of the protocol, in words: the exact sum if projected, else what the aggregator does."""
        return _EXACT_SUM if self.linear else self.audit.aggregator.words

    @property
    def distance(self) -> float | None:
        """Separation of the attack's two score laws in standard deviations: what a Gaussian model predicts with.

        From the exact moments of the audited pool, without a trial; infinite where the pool's noise has no variance
        along the score, None for a score that is not linear.
        """
        if not self.linear:
            return None
        weights = self.audit.attack.linear(self.knowledge).weights
        shift, variance = weights @ self.pair.difference, weights @ self.truth.covariance @ weights
        if shift == 0:
            return 0.0
        return float(abs(shift) / np.sqrt(variance)) if variance > 0 else float(np.inf)

    def fold(self) -> Game:
        """The general game, on whole updates."""
        loaded = self.responses.certify.load(self.pair)
        knowledge = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), self.knowledge)
        program = Program(loaded.draws, self.audit.aggregator, self.audit.attack.score, self.responses.certify.dim)
        # The score is a function of the view, and the view of the sum: there is nothing to allow for.
        return Game(program, self._params(loaded, knowledge), slack=0.0, nested=False)

    def project(self, test: LinearTest | None = None) -> Game:
        """The game on the exact sum, one scalar per update: a linear score of a sum is a sum of scores.

        Same tickets and same draws as `fold`, at a cost per trial that does not depend on the dimension. The sum is
        not rounded to the aggregator's fixed point; what arithmetic leaves open is in the slack.

        Args:
          test: the linear score; the attack's own by default.

        Returns:
          Game, of dimension 1.
        """
        test = test or self.audit.attack.linear(self.knowledge)
        loaded = self.responses.certify.project(self.pair, test.weights, float(test.offset))
        identity = LinearTest(jnp.ones(1, jnp.float32), jnp.zeros((), jnp.float32))
        params = self._params(loaded, identity)
        # Every scalar is off by its error and half a step, the decoded total by half a unit in the last place.
        step, clients = float(params.aggregator.step), self.server.noise_terms + 1
        slack = clients * (loaded.error + step / 2 + 2.0**-24 * loaded.limit)
        shift = float(test.weights @ self.pair.difference)
        program = Program(loaded.draws, self.audit.aggregator, linear_score, 1)
        return Game(program, params, slack, nested=shift > 6 * slack)

    def _params(self, loaded: Loaded, knowledge) -> Params:
        aggregator = self.audit.aggregator.prepare(loaded.limit, self.server.noise_terms + 1)
        return Params(loaded.params, aggregator, knowledge)

    @property
    def statement(self) -> str:
        """The sentence that says what a bound is about, and what it is not."""
        return (
            f"Lower bound on ε of: fixed candidates x, x' ({self.pair.source}) + "
            f"{self.responses.certify.describe()['words']}; server knows {self.server.knows}; adjacency: "
            f"{self.pair.adjacency}; conditional on {self.responses.given}, these candidates and this attack. Not a "
            "statement about new clients, other models or record-level DP."
        )


@recipe
class Audit:
    """A recipe of the game.

    Attributes:
      population: who sends what.
      aggregator: what the protocol reveals.
      attack: what the server infers.
      server_knows: "fit_pool" (the server learned from clients other than the audited ones) or "certify_pool" (it
        knows every recorded update it audits: a stronger server, and a statement about this pool only).
    """

    population: Any
    aggregator: Any
    attack: Any
    server_knows: Knows = "fit_pool"

    def check(self) -> None:
        """Raise ValueError where a part is incomplete, or the parts do not fit together."""
        for part, verbs in _VERBS.items():
            player = getattr(self, part)
            for verb in verbs:
                if not hasattr(player, verb):
                    name = type(player).__name__
                    raise ValueError(f"{part} {name} has no {verb!r}; jaxaudit.types says what it must have")
        attack: Attack = self.attack
        aggregator: Aggregator = self.aggregator
        if attack.reads is not aggregator.view:
            raise ValueError(
                f"attack {attack.kind!r} reads {attack.reads.__name__}, but aggregator {aggregator.kind!r} reveals "
                f"{aggregator.view.__name__}; choose an attack that reads what is revealed"
            )

    def prepare(self, seed: int) -> Prepared:
        """All host-bound work, once: respond, moments, pair, calibrate.

        Args:
          seed: of the run, in [0, 2^32).

        Returns:
          Prepared.
        """
        self.check()
        population: Population = self.population
        responses = population.respond(seed, self.attack.broadcast())
        if self.server_knows not in responses.knows:
            raise ValueError(
                f"server_knows is {self.server_knows!r}, allowed are {', '.join(responses.knows)} for population "
                f"{population.kind!r}; leave it out"
            )
        if responses.certify.dim > MAX_DIM:
            raise ValueError(
                f"updates have dimension {responses.certify.dim:,}, allowed are up to {MAX_DIM:,} (covariances are "
                "dense); use a smaller model, or project the updates first"
            )
        truth = responses.certify.moments()
        known = truth if self.server_knows == "certify_pool" else responses.fit.moments()
        pair = responses.choose_pair(known)
        server = Server(pair, responses.certify.noise_terms, responses.knows[self.server_knows])
        knowledge = self.attack.calibrate(server, known)
        return Prepared(self, responses, pair, knowledge, known, truth, server)
