"""Secure aggregation as an ideal functionality: the server sees the sum of what clients encode, and how many sent."""

from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field, field_validator

from ..fixed_point import fixed_step
from ..schema import as_tuple, recipe
from ..types import SumView, Ticket
from .chain import Chain
from .channel import WIDE
from .fitting import fit
from .stage import MAX_STAGES


class ExactStep(NamedTuple):
    """How updates are rounded where no stage says it.

    Attributes:
      step: f32[] or f32[dim], powers of two.
      limit: f32[] or f32[dim], larger entries are clipped to it.
    """

    step: np.ndarray
    limit: np.ndarray


class SumState(NamedTuple):
    """The running sum.

    Attributes:
      total: i32[dim], in steps.
      survivors: i32[].
    """

    total: jax.Array
    survivors: jax.Array


@recipe
class SecureSum:
    """The ideal functionality of secure aggregation: what the protocol computes, without its masks.

    As in the protocol, updates are integers when they are summed. Without stages they are in fixed point, with the
    finest power-of-two step for which 31 bits cannot overflow. This is not a detail. A float32 sum depends on its
    order, so one and the same total would look different under the two hypotheses, and an audit would certify
    rounding errors. An integer sum is a function of what is summed, on every device and in any order.

    Attributes:
      kind: "secure_sum".
      stages: what a client does to its update before it is summed, in this order.
      ring_bits: sums are modulo 2^ring_bits, 1 to 32; 64 for sums that cannot wrap.
      wrap: sums may leave the ring, as those of a deployed modular sum do; else a clip range that could overflow it
        is refused.
      survivors: "announced" (the server learns how many sent) or "hidden".
      minimum: a round with fewer clients is aborted and reveals nothing; 0 aborts none.
      claim: what the upper bound assumes of the noise: "survivors" (only those who sent added their share) or
        "everyone" (nobody dropped out, which trials may contradict).
    """

    view: ClassVar[type] = SumView
    linear: ClassVar[bool] = True
    words: ClassVar[str] = (
        "the ideal functionality of secure aggregation (updates in 31-bit fixed point, summed exactly)"
    )
    kind: Literal["secure_sum"] = "secure_sum"
    stages: tuple[Any, ...] = Field((), description="what a client does to its update, up to 16")
    ring_bits: int = Field(32, ge=1, le=WIDE, description="sums are modulo 2^ring_bits, 1 to 32, or 64")
    wrap: bool = Field(False, description="sums may leave the ring")
    survivors: Literal["announced", "hidden"] = "announced"
    minimum: int = Field(0, ge=0, description="clients below which a round is aborted")
    claim: Literal["survivors", "everyone"] = "survivors"

    @field_validator("stages", mode="before")
    @classmethod
    def _list(cls, value):
        return as_tuple(value)

    @field_validator("stages")
    @classmethod
    def _are_stages(cls, value):
        if len(value) > MAX_STAGES:
            raise ValueError(f"stages is a list of {len(value)}, allowed are up to {MAX_STAGES}; leave some out")
        for place, stage in enumerate(value):
            if isinstance(stage, type) or not (hasattr(stage, "encode") and hasattr(stage, "after")):
                raise ValueError(f"stages.{place} is {stage!r}, allowed are stages such as Clip(norm=1.0)")
        return value

    @field_validator("ring_bits")
    @classmethod
    def _words(cls, value):
        if 32 < value < WIDE:
            raise ValueError(f"ring_bits is {value}, allowed are 1 to 32, or 64 for sums that cannot wrap")
        return value

    def fitted(self, dim: int, clients: int, varying: bool, rounds: int = 1, most: int = 0) -> Chain | None:
        """The channel for a cohort, None for the plain sum.

        Args:
          dim: entries of an update.
          clients: of the largest cohort, the target included.
          varying: clients may be absent.
          rounds: audited together.
          most: clients that may take part, if more than `clients`, as in a Poisson cohort.

        Returns:
          Chain, or None where there are no stages and every number of survivors is announced.

        Raises:
          ValueError: where the stages do not fit.
        """
        if not self.stages and self.survivors == "announced" and not self.minimum and self.ring_bits == 32:
            return None
        facts = {"wrap": self.wrap, "announced": self.survivors == "announced", "minimum": self.minimum}
        facts |= {"varying": varying, "rounds": rounds, "most": most}
        return fit(self.stages, self.ring_bits, dim, clients, **facts)

    def prepare(self, limit: Any, clients: int) -> ExactStep:
        """The step for a sum of `clients` updates within ±`limit`, a number or f64[dim]."""
        limit = np.asarray(limit, np.float64)
        return ExactStep(fixed_step(clients * limit).astype(np.float32), limit.astype(np.float32))

    def init(self, dim: int) -> SumState:
        """Nothing added yet."""
        return SumState(jnp.zeros(dim, jnp.int32), jnp.zeros((), jnp.int32))

    def add(self, params: ExactStep, state: SumState, ticket: Ticket, seat, update) -> SumState:
        """One more client, encoded."""
        del ticket, seat
        inside = jnp.clip(update, -params.limit, params.limit)
        steps = jnp.rint(inside * (jnp.float32(1) / params.step)).astype(jnp.int32)
        return SumState(state.total + steps, state.survivors + jnp.int32(1))

    def reveal(self, params: ExactStep, state: SumState, ticket: Ticket) -> SumView:
        """The sum, decoded."""
        del ticket
        ring = state.total.astype(jnp.uint32)
        return SumView(state.total.astype(jnp.float32) * params.step, state.survivors, ring)
