"""Sparsification: a client sends few entries of its vector and zeros elsewhere, or remembers the rest for later."""

from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from ..random import Ticket, words
from ..schema import recipe
from .stage import UNBOUNDED, Norms, Setting
from .vectors import refuse_integers


class RandomKParams(NamedTuple):
    """What random sparsification looks up.

    Attributes:
      scale: f32[], what kept entries are multiplied by.
      share: f32[], the probability that an entry is kept.
    """

    scale: jax.Array
    share: jax.Array


@recipe
class TopK:
    """A client keeps its `k` entries of largest magnitude; of equal ones, those with the lower index.

    Attributes:
      kind: "top_k".
      k: entries kept, 1 or more.
      error_feedback: what was not sent is added to the client's next vector.

    Reference:
      Aji & Heafield (2017), arXiv:1704.05021; error feedback: Stich, Cordonnier & Jaggi (2018), arXiv:1809.07599.
    """

    steady: ClassVar[bool] = True
    kind: Literal["top_k"] = "top_k"
    k: int = Field(ge=1, description="entries kept")
    error_feedback: bool = Field(False, description="what was not sent is added to the next vector")

    def prepare(self, setting: Setting) -> tuple:
        """Nothing to look up."""
        _check(self.k, setting)
        return ()

    def after(self, setting: Setting) -> Setting:
        """No norm grows, and the vector is one of so few dimensions; what memory adds has no bound."""
        norms = UNBOUNDED if self.error_feedback else setting.norms.tightened(self.k)
        return setting._replace(norms=norms)

    def words(self, setting: Setting) -> str:
        """How many of how many."""
        memory = ", and remembers the others" * self.error_feedback
        return f"keeps its {self.k:,} largest of {setting.dim:,} entries{memory}"

    def encode(self, params: tuple, vector, ticket: Ticket) -> jax.Array:
        """The entries kept, zeros elsewhere; with error feedback, as in a client's first round."""
        del params, ticket
        return jnp.where(self._kept(vector), vector, jnp.float32(0))

    def encode_with_memory(self, params: tuple, vector, memory, ticket: Ticket) -> tuple[jax.Array, jax.Array]:
        """What is sent of a vector and of what was not sent before.

        Args:
          params: from `prepare`.
          vector: f32[dim].
          memory: f32[dim], zeros in the first round.
          ticket: as of `encode`.

        Returns:
          (sent f32[dim], memory f32[dim]); their sum is that of vector and memory.
        """
        whole = vector + memory
        sent = self.encode(params, whole, ticket)
        return sent, whole - sent

    def expected(self, params: tuple, vector, variance) -> tuple[Any, Any]:
        """Exact about a fixed vector; of a random one, as if the entries kept were those of its mean."""
        del params
        kept = self._kept(vector)
        return jnp.where(kept, vector, jnp.float32(0)), jnp.where(kept, variance, jnp.float32(0))

    def decode(self, params: tuple, total, survivors) -> Any:
        """Nothing can be undone."""
        del params, survivors
        return total

    def decoded_variance(self, params: tuple, variance) -> Any:
        """The same."""
        del params
        return variance

    def _kept(self, vector):
        return _largest(jnp.abs(vector), self.k)


@recipe
class RandomK:
    """A client keeps `k` entries drawn without replacement, by its own coins.

    Attributes:
      kind: "random_k".
      k: entries kept, 1 or more.
      error_feedback: what was not sent is added to the client's next vector.
      scaled: kept entries are multiplied by dim / k, so that the vector is right on average; not with error feedback,
        which sends the rest later.

    Reference:
      Konečný et al. (2016), arXiv:1610.05492 (random mask); error feedback: Stich, Cordonnier & Jaggi (2018).
    """

    steady: ClassVar[bool] = False
    kind: Literal["random_k"] = "random_k"
    k: int = Field(ge=1, description="entries kept")
    error_feedback: bool = Field(False, description="what was not sent is added to the next vector")
    scaled: bool = Field(True, description="kept entries are multiplied by dim / k, not with error feedback")

    def prepare(self, setting: Setting) -> RandomKParams:
        """Scale and share."""
        _check(self.k, setting)
        return RandomKParams(np.float32(self._scale(setting)), np.float32(self.k / setting.dim))

    def after(self, setting: Setting) -> Setting:
        """Norms times the scale, of a vector of so few dimensions; what memory adds has no bound."""
        if self.error_feedback:
            return setting._replace(norms=UNBOUNDED)
        scale = self._scale(setting)
        # A product with 1 is exact, another one has a rounded factor and is rounded.
        scale *= 1.0 if scale == 1.0 else 1 + 2.0**-20
        return setting._replace(norms=Norms(*(scale * one for one in setting.norms)).tightened(self.k))

    def words(self, setting: Setting) -> str:
        """How many of how many."""
        memory = ", and remembers the others" * self.error_feedback
        scale = self._scale(setting)
        times = "" if scale == 1 else f", times {scale:g}"
        return f"keeps {self.k:,} randomly drawn of {setting.dim:,} entries{times}{memory}"

    def encode(self, params: RandomKParams, vector, ticket: Ticket) -> jax.Array:
        """The entries kept and scaled, zeros elsewhere; with error feedback, as in a client's first round.

        Guarantee:
          Exactly k entries are kept. Without ties among the words every set of k has the same probability; ties,
          which have probability below dim^2 · 2^-33, favour lower indices.
        """
        # Smallest words, and of equal ones the lower index: ~word turns smallest into largest.
        kept = _largest(~words(ticket, 0, vector.shape[0]), self.k)
        return jnp.where(kept, vector * params.scale, jnp.float32(0))

    def encode_with_memory(
        self, params: RandomKParams, vector, memory, ticket: Ticket
    ) -> tuple[jax.Array, jax.Array]:
        """What is sent of a vector and of what was not sent before: as that of `TopK`."""
        whole = vector + memory
        sent = self.encode(params, whole, ticket)
        return sent, whole - sent

    def expected(self, params: RandomKParams, vector, variance) -> tuple[Any, Any]:
        """Exact for each entry; that exactly k are kept, which makes them dependent, is left out."""
        share, scale = params.share, params.scale
        spread = share * variance + share * (jnp.float32(1) - share) * vector * vector
        return share * scale * vector, scale * scale * spread

    def decode(self, params: RandomKParams, total, survivors) -> Any:
        """Nothing can be undone."""
        del params, survivors
        return total

    def decoded_variance(self, params: RandomKParams, variance) -> Any:
        """The same."""
        del params
        return variance

    def _scale(self, setting):
        return setting.dim / self.k if self.scaled and not self.error_feedback else 1.0


def _check(k: int, setting: Setting):
    refuse_integers(setting)
    if k > setting.dim:
        raise ValueError(f"k is {k:,}, allowed are 1 to {setting.dim:,} (entries of a vector); keep fewer")


def _largest(keys, k: int):
    """Which k keys are largest, of equal ones those with the lower index: bool[dim]."""
    _, kept = jax.lax.top_k(keys, k)
    nothing = jnp.zeros(keys.shape, bool)
    return nothing.at[kept].set(True, mode="promise_in_bounds", unique_indices=True)
