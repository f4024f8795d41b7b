"""Plain secure aggregation: the server sees the sum, and how many took part."""

from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from ..schema import recipe
from ..types import SumView, Ticket


class SumState(NamedTuple):
    """The running sum.

    Attributes:
      total: f32[dim].
      survivors: i32[].
    """

    total: jax.Array
    survivors: jax.Array


@recipe
class SecureSum:
    """The ideal functionality of secure aggregation, over the reals.

    Pairwise masks cancel in the sum, so they are left out; encodings into a ring are stages of later versions.

    Attributes:
      kind: "secure_sum".
    """

    view: ClassVar[type] = SumView
    linear: ClassVar[bool] = True
    words: ClassVar[str] = (
        "the ideal functionality of secure aggregation (an exact real sum, no rounding, no dropouts)"
    )
    kind: Literal["secure_sum"] = "secure_sum"

    def init(self, dim: int) -> SumState:
        """Nothing added yet."""
        return SumState(jnp.zeros(dim, jnp.float32), jnp.zeros((), jnp.int32))

    def add(self, params, state: SumState, ticket: Ticket, seat, update) -> SumState:
        """One more client."""
        del params, ticket, seat
        return SumState(state.total + update, state.survivors + 1)

    def reveal(self, params, state: SumState, ticket: Ticket) -> SumView:
        """The sum itself."""
        del params, ticket
        return SumView(state.total, state.survivors)
