"""Weighting: a client multiplies its vector by a public number, as for a weighted mean."""

from typing import Any, ClassVar, Literal, NamedTuple

import jax
import numpy as np
from pydantic import Field

from ..random import Ticket
from ..schema import recipe
from .stage import Norms, Setting
from .vectors import refuse_integers


class WeightParams(NamedTuple):
    """What weighting looks up.

    Attributes:
      factor: f32[].
    """

    factor: jax.Array


@recipe
class Weight:
    """Every client multiplies its vector by one and the same factor; the server divides the sum by it.

    Attributes:
      kind: "weight".
      factor: > 0.
    """

    steady: ClassVar[bool] = True
    kind: Literal["weight"] = "weight"
    factor: float = Field(gt=0, ge=1e-30, le=1e30, description="what a vector is multiplied by")

    def prepare(self, setting: Setting) -> WeightParams:
        """The factor; real vectors only."""
        refuse_integers(setting)
        return WeightParams(np.float32(self.factor))

    def after(self, setting: Setting) -> Setting:
        """Norms times the factor, and what a product in float32 may add."""
        return setting._replace(norms=Norms(*(one * self.factor * (1 + 2.0**-20) for one in setting.norms)))

    def words(self, setting: Setting) -> str:
        """The factor."""
        del setting
        return f"multiplies it by {self.factor:g}"

    def encode(self, params: WeightParams, vector, ticket: Ticket) -> jax.Array:
        """The multiple."""
        del ticket
        return vector * params.factor

    def expected(self, params: WeightParams, vector, variance) -> tuple[Any, Any]:
        """Exact."""
        return vector * params.factor, variance * params.factor * params.factor

    def decode(self, params: WeightParams, total, survivors) -> Any:
        """The sum of what was weighted."""
        del survivors
        return total / params.factor.astype(total.dtype)

    def decoded_variance(self, params: WeightParams, variance) -> Any:
        """Divided by the square of the factor."""
        return variance / params.factor**2
