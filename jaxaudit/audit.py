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
    Moments,
    Pair,
    Population,
    Responses,
    Server,
    Ticket,
    linear_score,
)

Knows = Literal["fit_pool", "certify_pool"]
_KNOWS = {
    "fit_pool": "the two candidates, the model, the protocol, and a fit pool disjoint from the audited one",
    "certify_pool": "the two candidates, the model, the protocol, and every recorded update of the audited pool",
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
    views = reveal(program, params, ticket)
    return program.score(params.knowledge, views[0]), program.score(params.knowledge, views[1])


def reveal(program: Program, params: Params, ticket: Ticket) -> tuple[Any, Any]:
    """What the server sees in one trial, under bit 0 and under bit 1."""
    fold = jax.vmap(partial(_fold, program, params, ticket))
    others = program.draws.others(params.pool, ticket)
    start = jax.vmap(lambda _: program.aggregator.init(program.dim))(jnp.arange(others.shape[0]))
    crowd = fold(start, others)
    states = [fold(crowd, program.draws.target(params.pool, ticket, bit)) for bit in (0, 1)]
    finish = jax.vmap(lambda state: program.aggregator.reveal(params.aggregator, state, ticket))
    return finish(states[0]), finish(states[1])


def _fold(program, params, ticket, state, seats):
    # The next seat travels in the carry. Read where it is used, `seats[index]` would be fused into the update and
    # repeated for every element of it, which keeps XLA:CPU from vectorising (three times slower).
    last = seats.shape[0] - 1

    def add(index, carry):
        state, seat = carry
        update = program.draws.update(params.pool, ticket, seat)
        state = program.aggregator.add(params.aggregator, state, ticket, seat, update)
        return state, seats[jnp.minimum(index + 1, last)]

    return jax.lax.fori_loop(0, seats.shape[0], add, (state, seats[0]))[0]


@dataclass(frozen=True)
class Game:
    """What runs in every trial.

    Attributes:
      program: static.
      params: arrays.
      nested: the scores of a trial are ordered, h0 <= h1, in every draw, so paired bounds apply.
    """

    program: Program
    params: Params
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
    def distance(self) -> float | None:
        """Separation of the attack's two score laws in standard deviations: what a Gaussian model predicts with.

        From the exact moments of the audited pool, without a trial; infinite where the pool's noise has no variance
        along the score, None for a score that is not linear.
        """
        if not self.linear:
            return None
        weights = self.audit.attack.linear(self.knowledge).weights
        shift, variance = weights @ self.pair.difference, weights @ self.truth.covariance @ weights
        return float(abs(shift) / np.sqrt(variance)) if variance > 0 else float(np.inf)

    def fold(self) -> Game:
        """The general game, on whole updates."""
        draws, pool = self.responses.certify.load(self.pair)
        knowledge = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), self.knowledge)
        program = Program(draws, self.audit.aggregator, self.audit.attack.score, self.responses.certify.dim)
        return Game(program, Params(pool, None, knowledge), nested=False)

    def project(self, test: LinearTest | None = None) -> Game:
        """The same game with one scalar per update: a linear score of a sum is a sum of scores.

        Same tickets and same draws, at a cost per trial that does not depend on the dimension. The target's scalar
        is added last, and float addition is monotone, so h0 <= h1 holds in every draw: the game is nested.

        Args:
          test: the linear score; the attack's own by default.

        Returns:
          Game, of dimension 1.
        """
        test = test or self.audit.attack.linear(self.knowledge)
        draws, pool = self.responses.certify.project(self.pair, test.weights, float(test.offset))
        identity = LinearTest(jnp.ones(1, jnp.float32), jnp.zeros((), jnp.float32))
        program = Program(draws, self.audit.aggregator, linear_score, 1)
        ends = (self.pair.h0.astype(np.float64) @ test.weights, self.pair.h1.astype(np.float64) @ test.weights)
        # Far above float32 rounding, so that the order of the two candidates is beyond doubt on any device.
        nested = ends[1] - ends[0] > 1e-5 * (abs(ends[0]) + abs(ends[1]))
        return Game(program, Params(pool, None, identity), bool(nested))


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
        """Raise ValueError where the parts do not fit together."""
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
        truth = responses.certify.moments()
        known = truth if self.server_knows == "certify_pool" else responses.fit.moments()
        pair = responses.choose_pair(known)
        server = Server(pair, responses.certify.noise_terms, _KNOWS[self.server_knows])
        knowledge = self.attack.calibrate(server, known)
        return Prepared(self, responses, pair, knowledge, known, truth, server)
