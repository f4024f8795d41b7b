"""One trial: the others send, the target sends what the bit decides, the aggregator reveals, the attack scores.

A `Program` is static, `Params` is a pytree of arrays, and every trial is a pure function of both and of its ticket.
Games that differ only in numbers share one program, hence one compilation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .types import Aggregator, Draws, Ticket

# Streams have smaller numbers than this.
_STREAMS = 256


class Evaluation(NamedTuple):
    """One look of the server at a trial: which pair the target plays, and in how large a cohort.

    Attributes:
      pair: number of the loaded pair.
      noise_terms: the seats, from the first, that take part besides the target.
    """

    pair: int
    noise_terms: int


@dataclass(frozen=True)
class Program:
    """The static part of a game: what is traced, and nothing that is swept.

    Attributes:
      draws: who sits where and what they send.
      aggregator: the fold over the clients.
      score: a pure function of (knowledge, view), to one number or f32[n].
      dim: dimension of an update.
      evaluations: what is scored in every trial, smaller cohorts first; all share the draws.
    """

    draws: Draws
    aggregator: Aggregator
    score: Callable
    dim: int
    evaluations: tuple[Evaluation, ...]


class Params(NamedTuple):
    """The arrays of a game: a pytree.

    Attributes:
      pool: what the draws look up.
      aggregator: parameters of the aggregator.
      knowledge: what the attack knows, for every evaluation.
    """

    pool: Any
    aggregator: Any
    knowledge: tuple[Any, ...]


@dataclass(frozen=True)
class Game:
    """What runs in every trial, and how its scores are to be read.

    Attributes:
      program: static.
      params: arrays.
      order: i64[columns], the column of the scores that belongs to each cell of the audit.
      slack: f64[columns], the score of the exact total lies within so much of the one computed. Bounds count on the
        safe side of it: scores of H0 are raised by it, those of H1 lowered.
      nested: bool[columns], even so h0 <= h1 in every draw, so paired bounds apply.
      distance: f64[columns], separation of the two score laws in standard deviations, from the exact moments of the
        pool; infinite where the noise has no variance along the score, NaN where the score is not linear.
    """

    program: Program
    params: Params
    order: np.ndarray
    slack: np.ndarray
    nested: np.ndarray
    distance: np.ndarray


def play(program: Program, params: Params, ticket: Ticket) -> tuple[jax.Array, jax.Array]:
    """One paired trial: the same draw of the others, once under each bit.

    Args:
      program: static.
      params: arrays.
      ticket: names the trial.

    Returns:
      (scores under bit 0, scores under bit 1), f32[columns].
    """
    score = jax.vmap(program.score, in_axes=(None, 0))
    views = reveal(program, params, ticket)
    both = [score(known, view).reshape(2, -1) for known, view in zip(params.knowledge, views)]
    return tuple(jnp.concatenate([scores[bit] for scores in both]) for bit in (0, 1))


def reveal(program: Program, params: Params, ticket: Ticket) -> list[Any]:
    """What the server sees in one trial: for every evaluation, views with a leading axis for the bit.

    The others' fold never sees the bit; only the target's seats are added per bit. So the bit cannot touch another
    seat, and both hypotheses share every other random word, by construction. Both bits go through the same
    operations, so that no rounding can depend on the bit. A smaller cohort is the running fold, looked at on the way.
    """
    others = program.draws.others(params.pool, ticket)
    in_round = jnp.arange(others.shape[0], dtype=jnp.uint32)
    fold = jax.vmap(partial(_fold, program, params, ticket), in_axes=(0, 0, 0, None))
    crowd = jax.vmap(lambda _: program.aggregator.init(program.dim))(in_round)
    views, seated = [], 0
    for pair, seats in program.evaluations:
        if seats > seated:
            crowd, seated = fold(crowd, in_round, others[:, seated:seats], seated), seats

        def finish(bit, pair=pair, crowd=crowd, seated=seated):
            state = fold(crowd, in_round, program.draws.target(params.pool, ticket, pair, bit), seated)
            return jax.vmap(partial(_reveal, program, params, ticket))(state, in_round)

        views.append(jax.vmap(finish)(jnp.arange(2)))
    return views


def _reveal(program, params, ticket, state, in_round):
    return program.aggregator.reveal(params.aggregator, state, _of_round(ticket, in_round))


def _of_round(ticket, in_round):
    """The aggregator's ticket in one round: every round has words of its own."""
    return ticket._replace(stream=ticket.stream + in_round * jnp.uint32(_STREAMS))


def _fold(program, params, ticket, state, in_round, occupants, first_seat):
    # The next occupant travels in the carry. Read where it is used, `occupants[index]` would be fused into the update
    # and repeated for every element of it, which keeps XLA:CPU from vectorising (three times slower).
    last = occupants.shape[0] - 1
    own = _of_round(ticket, in_round)

    def add(index, carry):
        state, who = carry
        update = program.draws.update(params.pool, ticket, who)
        # The aggregator learns the seat, not its occupant: the target's seat has one number under both bits.
        state = program.aggregator.add(params.aggregator, state, own, first_seat + index, update)
        return state, occupants[jnp.minimum(index + 1, last)]

    return jax.lax.fori_loop(0, occupants.shape[0], add, (state, occupants[0]))[0]
