"""Clipping: no client's vector is longer than agreed."""

from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from ..random import Ticket
from ..schema import recipe
from .stage import Norms, Setting
from .vectors import euclidean_norm, norm_slack, refuse_integers


class ClipParams(NamedTuple):
    """What clipping looks up.

    Attributes:
      bound: f32[].
      target: f32[], the length that longer vectors get.
    """

    bound: jax.Array
    target: jax.Array


@recipe
class Clip:
    """A client shortens its vector, or limits its entries.

    Attributes:
      kind: "clip".
      norm: the largest that is let through, > 0, in units of the update.
      order: "l2" (the whole vector is scaled by min(1, norm / its length)) or "linf" (each entry is limited).
    """

    steady: ClassVar[bool] = True
    kind: Literal["clip"] = "clip"
    norm: float = Field(gt=0, le=1e30, description="the largest that is let through, in units of the update")
    order: Literal["l2", "linf"] = Field("l2", description="which norm: of the vector, or of each entry")

    def prepare(self, setting: Setting) -> ClipParams:
        """The bound; real vectors only."""
        refuse_integers(setting)
        # Shorter by more than a division and a product can be off on any device (2 + 1/2 ulp): see `after`.
        return ClipParams(np.float32(self.norm), np.float32(self.norm * (1 - 2.0**-21)))

    def after(self, setting: Setting) -> Setting:
        """Norms within the bound.

        Guarantee:
          The exact l2 norm of the float32 vector is at most bound · (1 + 2^-20), for up to 2^20 entries. The length
          is known to 14.5 · 2^-24 only, so a vector that looks short enough may be longer by that; one that is
          scaled aims at bound · (1 - 8 · 2^-24), and the scaling adds at most 5 · 2^-24 and the error of the length.
        """
        was, bound = setting.norms, float(np.float32(self.norm))
        if self.order == "linf":
            norms = Norms(was.l1, was.l2, min(was.linf, bound))
        else:
            # Scaling shortens every norm; the factor is rounded, but never above 1.
            norms = Norms(was.l1, min(was.l2, self.norm * (1 + norm_slack(setting.dim))), was.linf)
        return setting._replace(norms=norms.tightened(setting.dim))

    def words(self, setting: Setting) -> str:
        """Norm and bound."""
        del setting
        return f"clips its vector to {self.order} norm {self.norm:g}"

    def encode(self, params: ClipParams, vector, ticket: Ticket) -> jax.Array:
        """The clipped vector; nothing stays exactly nothing."""
        del ticket
        return self._factor(params, vector) * vector if self.order == "l2" else self._limited(params, vector)

    def expected(self, params: ClipParams, vector, variance) -> tuple[Any, Any]:
        """Exact about a fixed vector; of a random one, as if its length were that of its mean."""
        if self.order == "linf":
            return self._limited(params, vector), variance
        factor = self._factor(params, vector)
        return factor * vector, factor * factor * variance

    def decode(self, params: ClipParams, total, survivors) -> Any:
        """Nothing can be undone."""
        del params, survivors
        return total

    def decoded_variance(self, params: ClipParams, variance) -> Any:
        """The same."""
        del params
        return variance

    def _limited(self, params, vector):
        return jnp.clip(vector, -params.bound, params.bound)

    def _factor(self, params, vector):
        length = euclidean_norm(vector)
        return jnp.where(length > params.bound, params.target / length, jnp.float32(1))
