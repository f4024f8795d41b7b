"""What runs in every trial: clients send through their stages, residues are added, the server decodes the sum.

Only the sum of the residues and the number of those who sent are carried from client to client; pairwise masks cancel
exactly in that sum, so they are left out.
"""

import copy
import dataclasses
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..random import of_round
from ..types import ABSENT, SumView, Ticket
from .stage import Stage, lane

# Beside those of the clients: the words of whoever adds noise to the sum.
_SERVER = 2**26 - 1
# A sum of this many bits is never reduced.
WIDE = 64


class ChannelParams(NamedTuple):
    """Everything about a channel that may be swept: a pytree.

    Attributes:
      stages: what each stage looks up.
      step: f32[], what an integer step stands for where no stage says it.
      limit: f32[], larger entries are clipped before they are rounded to that step.
    """

    stages: tuple[Any, ...]
    step: jax.Array
    limit: jax.Array


class ChannelState(NamedTuple):
    """The running sum.

    Attributes:
      low: u32[size], modulo 2^32.
      high: i32[size], how often 2^32 went over; of one entry where sums are modular.
      survivors: i32[].
    """

    low: jax.Array
    high: jax.Array
    survivors: jax.Array


@dataclass(frozen=True)
class Channel:
    """A secure sum through a chain of stages: static, without any number that is swept.

    Attributes:
      stages: what a client does to its vector; their float fields are blank.
      size: entries of what a client sends.
      ring_bits: sums are modulo 2^ring_bits; `WIDE` for sums of 64 bits, which cannot wrap here.
      integers: a stage makes integers; else vectors are rounded to `ChannelParams.step` when they are sent.
      shifted: the integers of a client are not negative, and nor is their sum.
      announced: the server learns how many took part.
      minimum: rounds with fewer clients are aborted, and nothing is revealed.
      remembered: entries of what a client carries from round to round, for every stage; 0 where it forgets.
      ahead: so many stages were applied to the recorded updates once, before the trials.
    """

    stages: tuple[Stage, ...]
    size: int
    ring_bits: int
    integers: bool
    shifted: bool
    announced: bool
    minimum: int
    remembered: tuple[int, ...] = ()
    ahead: int = 0

    def started(self, ahead: int) -> "Channel":
        """The channel for vectors that the first stages were applied to."""
        return replace(self, ahead=ahead)

    def init(self, dim: int) -> ChannelState:
        """Nothing added yet."""
        del dim
        high = self.size if self.ring_bits == WIDE else 1
        return ChannelState(jnp.zeros(self.size, jnp.uint32), jnp.zeros(high, jnp.int32), jnp.zeros((), jnp.int32))

    def add(self, params: ChannelParams, state: ChannelState, ticket: Ticket, seat, update) -> ChannelState:
        """One more client."""
        return self._plus(params, state, self.encode(params, update, ticket, seat, self.ahead, len(self.stages)))

    def add_in_turn(self, params: ChannelParams, state: ChannelState, ticket: Ticket, seat, updates, here):
        """One more client, round after round, which carries into the next what it did not send.

        Args:
          params: as of `add`.
          state: with a leading axis of rounds.
          ticket: of the trial.
          seat: of the client, in all rounds.
          updates: f32[rounds, dim].
          here: bool[rounds], whether it sends.

        Returns:
          the state after it.
        """

        def one(memory, round_):
            state, number, vector, here = round_
            own, carried = of_round(ticket, number), list(memory)
            for place in range(self.ahead, len(self.stages)):
                numbers, words = params.stages[place], lane(own, seat, place)
                if self.remembered[place]:
                    vector, carried[place] = self.stages[place].encode_with_memory(
                        numbers, vector, memory[place], words
                    )
                else:
                    vector = self.stages[place].encode(numbers, vector, words)
            after = self._plus(params, state, vector), tuple(carried)
            state, memory = jax.tree.map(lambda new, old: jnp.where(here, new, old), after, (state, memory))
            return memory, state

        nothing = tuple(jnp.zeros(size, jnp.float32) for size in self.remembered)
        numbers = jnp.arange(updates.shape[0], dtype=jnp.uint32)
        return jax.lax.scan(one, nothing, (state, numbers, updates, here))[1]

    def _plus(self, params, state, vector):
        steps = self.steps(params, vector)
        low = state.low + steps.astype(jnp.uint32)
        high = state.high
        if self.ring_bits == WIDE:
            # A carry, and the sign: -1 is 2^64 - 1.
            high = high + (low < state.low).astype(jnp.int32) - (steps < 0).astype(jnp.int32)
        return ChannelState(low, high, state.survivors + jnp.int32(1))

    def encode(self, params: ChannelParams, vector, ticket: Ticket, seat, first: int, last: int) -> jax.Array:
        """What stages `first` to `last - 1` make of a vector."""
        for place in range(first, last):
            vector = self.stages[place].encode(params.stages[place], vector, lane(ticket, seat, place))
        return vector

    def steps(self, params: ChannelParams, vector) -> jax.Array:
        """The integers that a client sends: i32[size]."""
        if self.integers:
            return vector
        inside = jnp.clip(vector, -params.limit, params.limit)
        return jnp.rint(inside * (jnp.float32(1) / params.step)).astype(jnp.int32)

    def reveal(self, params: ChannelParams, state: ChannelState, ticket: Ticket) -> SumView:
        """What the server sees: the residues, and what it decodes them to."""
        ring = state.low
        if self.ring_bits < 32:
            ring = ring & jnp.uint32(2**self.ring_bits - 1)
        total = self.decode(params, self.lifted(state, ring), state.survivors)
        view = SumView(total, state.survivors, ring)
        for place, stage in enumerate(self.stages):
            if getattr(stage, "central", False):
                noisy = stage.disturb(params.stages[place], view.total, lane(ticket, jnp.uint32(_SERVER), place))
                # Who adds it keeps the residues: they are free of it.
                view = view._replace(total=noisy, ring=None)
        if self.minimum:
            met = state.survivors >= jnp.int32(self.minimum)
            view = jax.tree.map(lambda leaf: jnp.where(met, leaf, jnp.zeros_like(leaf)), view)
        return view if self.announced else view._replace(survivors=jnp.int32(ABSENT))

    def lifted(self, state: ChannelState, ring) -> jax.Array:
        """Whole numbers that the residues stand for: those of the least magnitude, or not negative if shifted.

        Returns:
          i32[size], modulo 2^32; f32[size] of a sum of 64 bits.
        """
        if self.ring_bits == WIDE:
            # By magnitude: -5 is -2^32 + (2^32 - 5), of which float32 would leave nothing.
            below = state.high < 0
            low = jnp.where(below, ~ring + jnp.uint32(1), ring)
            high = jnp.where(below, ~state.high + (ring == 0).astype(jnp.int32), state.high)
            size = high.astype(jnp.float32) * jnp.float32(2.0**32) + low.astype(jnp.float32)
            return jnp.where(below, -size, size)
        signed = jax.lax.bitcast_convert_type(ring, jnp.int32)
        if self.shifted or self.ring_bits == 32:
            return signed
        away = jnp.int32(32 - self.ring_bits)
        return jax.lax.shift_right_arithmetic(jax.lax.shift_left(signed, away), away)

    def decode(self, params: ChannelParams, total, survivors) -> jax.Array:
        """The sum of updates that a sum of integers stands for: f32[dim]."""
        if not self.integers:
            total = total.astype(jnp.float32) * params.step
        for stage, own in zip(self.stages[::-1], params.stages[::-1]):
            total = stage.decode(own, total, survivors)
        return total


def blank(stage: Stage) -> Stage:
    """A stage without its numbers, so that a sweep over them compiles once."""
    twin = copy.copy(stage)
    for field in dataclasses.fields(stage):
        if isinstance(getattr(stage, field.name), float):
            object.__setattr__(twin, field.name, 0.0)
    return twin
