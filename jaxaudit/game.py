"""One trial: the others send, the target sends what the bit decides, the aggregator reveals, the attack scores.

A program is static, its params are a pytree of arrays, and every trial is a pure function of both and of its ticket.
Games that differ only in numbers share one program, hence one compilation. There are two programs: `FoldProgram` adds
up whole updates and scores what the aggregator reveals; `SumProgram` adds up scores, where the attack is linear.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from .protocols import Aggregator, Draws, SumDraws
from .random import of_round
from .tally import disordered, first_key, ordered
from .types import ABSENT, Ticket


class Evaluation(NamedTuple):
    """One look of the server at a trial: which pair the target plays, and in how large a cohort.

    Attributes:
      pair: number of the loaded pair.
      seats: the seats, from the first, that are taken besides the target's.
    """

    pair: int
    seats: int


class Program(Protocol):
    """The static part of a game: what is traced, and nothing that is swept."""

    def width(self, params) -> int:
        """Trials to compute together."""

    def play(self, params, ticket: Ticket) -> jax.Array:
        """One paired trial, the same draw of the others once under each bit: keys of its scores, i32[2, columns]."""

    def decode(self, keys: np.ndarray) -> np.ndarray:
        """The scores that keys stand for, in units of the game's scale: f64."""


class FoldParams(NamedTuple):
    """The arrays of a game on whole updates: a pytree.

    Attributes:
      pool: what the draws look up.
      aggregator: parameters of the aggregator.
      knowledge: what the attack knows, for every evaluation.
    """

    pool: Any
    aggregator: Any
    knowledge: tuple[Any, ...]


@dataclass(frozen=True)
class FoldProgram:
    """The general game: the aggregator folds whole updates.

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

    def width(self, params: FoldParams) -> int:
        """Trials to compute together."""
        return self.draws.width(params.pool)

    def play(self, params: FoldParams, ticket: Ticket) -> jax.Array:
        """Keys of the scores: i32[2, columns]."""
        score = jax.vmap(self.score, in_axes=(None, 0))
        views = self.reveal(params, ticket)
        scores = [score(known, view).reshape(2, -1) for known, view in zip(params.knowledge, views)]
        return ordered(jnp.concatenate(scores, axis=1))

    def decode(self, keys: np.ndarray) -> np.ndarray:
        """The float32 scores."""
        return disordered(keys)

    def reveal(self, params: FoldParams, ticket: Ticket) -> list[Any]:
        """What the server sees in one trial: for every evaluation, views with a leading axis for the bit.

        The others' fold never sees the bit; only the target's seats are added per bit. So the bit cannot touch
        another seat, and both hypotheses share every other random word, by construction. Both bits go through the
        same operations, so that no rounding can depend on the bit. A smaller cohort is the running fold, looked at on
        the way.
        """
        others = self.draws.others(params.pool, ticket)
        in_round = jnp.arange(others.shape[0], dtype=jnp.uint32)
        fold = jax.vmap(partial(self._fold, params, ticket), in_axes=(0, 0, 0, None))
        if getattr(self.aggregator, "remembered", ()):
            fold = partial(self._fold_in_turn, params, ticket)
        crowd = jax.vmap(lambda _: self.aggregator.init(self.dim))(in_round)
        views, seated = [], 0
        for pair, seats in self.evaluations:
            if seats > seated:
                crowd, seated = fold(crowd, in_round, others[:, seated:seats], seated), seats

            def finish(bit, pair=pair, crowd=crowd, seated=seated):
                state = fold(crowd, in_round, self.draws.target(params.pool, ticket, pair, bit), seated)
                return jax.vmap(partial(self._reveal, params, ticket))(state, in_round)

            views.append(jax.vmap(finish)(jnp.arange(2)))
        return views

    def _reveal(self, params, ticket, state, in_round):
        return self.aggregator.reveal(params.aggregator, state, of_round(ticket, in_round))

    def _fold(self, params, ticket, state, in_round, occupants, first_seat):
        # The next occupant travels in the carry. Read where it is used, `occupants[index]` would be fused into the
        # update and repeated for every element of it, which keeps XLA:CPU from vectorising (three times slower).
        last = occupants.shape[0] - 1
        own = of_round(ticket, in_round)

        def add(index, carry):
            state, who = carry
            update = self.draws.update(params.pool, ticket, jnp.maximum(who, 0) if self.draws.absent else who)
            # The aggregator learns the seat, not its occupant: the target's seat has one number under both bits.
            more = self.aggregator.add(params.aggregator, state, own, first_seat + index, update)
            if self.draws.absent:
                more = jax.tree.map(lambda new, old: jnp.where(who == ABSENT, old, new), more, state)
            return more, occupants[jnp.minimum(index + 1, last)]

        return jax.lax.fori_loop(0, occupants.shape[0], add, (state, occupants[0]))[0]

    def _fold_in_turn(self, params, ticket, state, in_round, occupants, first_seat):
        """All rounds of a client before the next one, where clients carry something from round to round."""
        del in_round

        def add(index, state):
            who = occupants[:, index]
            updates = jax.vmap(lambda one: self.draws.update(params.pool, ticket, jnp.maximum(one, 0)))(who)
            own = params.aggregator, state, ticket, first_seat + index, updates, who != jnp.int32(ABSENT)
            return self.aggregator.add_in_turn(*own)

        return jax.lax.fori_loop(0, occupants.shape[1], add, state)


class SumParams(NamedTuple):
    """The arrays of a game on sums: a pytree.

    Attributes:
      pool: what the draws look up.
      ends: i32[2, columns], what the target adds under either bit, in steps.
    """

    pool: Any
    ends: jax.Array


@dataclass(frozen=True)
class SumProgram:
    """The game on the exact sum, one integer per update and column.

    Attributes:
      draws: sums of the others.
    """

    draws: SumDraws

    def width(self, params: SumParams) -> int:
        """Trials to compute together."""
        return self.draws.width(params.pool)

    def play(self, params: SumParams, ticket: Ticket) -> jax.Array:
        """Scores in steps: i32[2, columns]. The bit decides what is added to one and the same sum of the others."""
        return self.draws.others(params.pool, ticket)[None] + params.ends

    def decode(self, keys: np.ndarray) -> np.ndarray:
        """Steps as they are."""
        return np.asarray(keys, np.float64)


@dataclass(frozen=True)
class Game:
    """What runs in every trial, and how its scores are to be read.

    Attributes:
      program: static.
      params: arrays.
      order: i64[cells], the column of the scores that belongs to each cell of the audit.
      scale: f64[cells], a score is so many times what a key stands for.
      slack: f64[cells], the score of the exact total lies within so much of the one computed. Bounds count on the
        safe side of it: scores of H0 are raised by it, those of H1 lowered.
      nested: bool[cells], even so h0 <= h1 in every draw, so paired bounds apply.
      distance: f64[cells], separation of the two score laws in standard deviations, from the exact moments of the
        pool; infinite where the noise has no variance along the score, NaN where the score is not linear.
    """

    program: Program
    params: Any
    order: np.ndarray
    scale: np.ndarray
    slack: np.ndarray
    nested: np.ndarray
    distance: np.ndarray

    def scores(self, keys: np.ndarray) -> np.ndarray:
        """Scores of every cell on the safe side: f64[n, 2, cells] of keys i32[n, 2, columns]."""
        exact = self.program.decode(keys)[..., self.order] * self.scale
        return exact + self.slack * np.array([[1.0], [-1.0]])

    def design(self, cell: int, labelled: bool = False) -> str:
        """How the trials of a cell are made, in the words of `bounds.Counts`."""
        return "labelled" if labelled else "nested" if self.nested[cell] else "paired"

    def cuts(self, thresholds: np.ndarray, cell: int) -> np.ndarray:
        """The first keys that are errors under H0, and that are none under H1: i64[2, k] of f64[k]."""
        scale, slack, thresholds = self.scale[cell], self.slack[cell], np.asarray(thresholds, np.float64)
        # Ties are errors under both hypotheses; the arithmetic is that of `scores`.
        return np.stack(
            [
                first_key(lambda keys: self.program.decode(keys) * scale + slack >= thresholds, thresholds.shape),
                first_key(lambda keys: self.program.decode(keys) * scale - slack > thresholds, thresholds.shape),
            ]
        )
