"""Plain secure aggregation: the server sees the sum, and how many took part."""

from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..fixed_point import fixed_step
from ..schema import recipe
from ..types import SumView, Ticket


class FixedPoint(NamedTuple):
    """How updates are encoded before they are summed.

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

    As in the protocol, updates are integers when they are summed: fixed point, with the finest power-of-two step for
    which 31 bits cannot overflow. This is not a detail. A float32 sum depends on its order, so one and the same total
    would look different under the two hypotheses, and an audit would certify rounding errors. An integer sum is a
    function of what is summed, on every device and in any order.

    Attributes:
      kind: "secure_sum".
    """

    view: ClassVar[type] = SumView
    linear: ClassVar[bool] = True
    words: ClassVar[str] = (
        "the ideal functionality of secure aggregation (updates in 31-bit fixed point, summed exactly)"
    )
    kind: Literal["secure_sum"] = "secure_sum"

    def prepare(self, limit: Any, clients: int) -> FixedPoint:
        """The step for a sum of `clients` updates within ±`limit`, a number or f64[dim]."""
        limit = np.asarray(limit, np.float64)
        return FixedPoint(fixed_step(clients * limit).astype(np.float32), limit.astype(np.float32))

    def init(self, dim: int) -> SumState:
        """Nothing added yet."""
        return SumState(jnp.zeros(dim, jnp.int32), jnp.zeros((), jnp.int32))

    def add(self, params: FixedPoint, state: SumState, ticket: Ticket, seat, update) -> SumState:
        """One more client, encoded."""
        del ticket, seat
        inside = jnp.clip(update, -params.limit, params.limit)
        steps = jnp.rint(inside * (jnp.float32(1) / params.step)).astype(jnp.int32)
        return SumState(state.total + steps, state.survivors + jnp.int32(1))

    def reveal(self, params: FixedPoint, state: SumState, ticket: Ticket) -> SumView:
        """The sum, decoded."""
        del ticket
        return SumView(state.total.astype(jnp.float32) * params.step, state.survivors)
