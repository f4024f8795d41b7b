"""What runs in every trial of a synthetic audit: fresh vectors of a known law, whole or by their products."""

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..random import Ticket, normals, words

Law = Literal["gaussian", "sphere", "cube", "student_t", "known"]


class FreshParams(NamedTuple):
    """What the draws look up.

    Attributes:
      scale: f32[dim], multiplies every coordinate of the standard law.
      ends: f32[2 * pairs, dim], what the candidates send: h0 and h1 of every pair.
    """

    scale: jax.Array
    ends: jax.Array


@dataclass(frozen=True)
class FreshDraws:
    """A new vector for every seat of every trial. Occupants are seat numbers; the last ones are the candidates."""

    absent: ClassVar[bool] = False
    law: Law
    noise_terms: int
    degrees: int

    def width(self, params: FreshParams) -> int:
        """A batch of fresh vectors that stays in the first-level cache through all the steps of their generation."""
        return _width(params.scale)

    def seats(self, noise_terms: int) -> int:
        """One for each of the others."""
        return noise_terms

    def others(self, params: FreshParams, ticket: Ticket) -> jax.Array:
        """Seats of the other clients: i32[1, noise_terms]."""
        del params, ticket
        return jnp.arange(self.noise_terms, dtype=jnp.int32)[None, :]

    def target(self, params: FreshParams, ticket: Ticket, pair: int, bit) -> jax.Array:
        """The candidate that the bit chooses: i32[1, 1]."""
        del params, ticket
        return jnp.full((1, 1), self.noise_terms + 2 * pair + bit, jnp.int32)

    def update(self, params: FreshParams, ticket: Ticket, who) -> jax.Array:
        """The seat's vector: f32[dim]."""
        fresh = params.scale * _standard(self.law, self.degrees, ticket, who, params.scale.shape[0])
        end = jnp.where(who == self.noise_terms, params.ends[0], params.ends[1])
        if params.ends.shape[0] > 2:
            end = params.ends[jnp.maximum(who - self.noise_terms, 0)]
        return jnp.where(who < self.noise_terms, fresh, end)


class ProductParams(NamedTuple):
    """What the sums look up.

    Attributes:
      scale: f32[dim], multiplies every coordinate of the standard law.
      weights: f32[columns, dim].
      each: f32[columns], what one of the others adds on average.
      limit: f32[columns], larger scalars are clipped to it.
      step: f32[columns], powers of two.
    """

    scale: jax.Array
    weights: jax.Array
    each: jax.Array
    limit: jax.Array
    step: jax.Array


@dataclass(frozen=True)
class FreshSums:
    """The same vectors, from the same words, each reduced to its products with the weights, in whole steps.

    The law is continuous, so rounding blurs a score but cannot tell two draws of one total apart.
    """

    law: Law
    noise_terms: tuple[int, ...]
    degrees: int

    def width(self, params: ProductParams) -> int:
        """As for whole vectors."""
        return _width(params.scale)

    def others(self, params: ProductParams, ticket: Ticket) -> jax.Array:
        """The others' sums in steps: i32[columns]."""

        def add(seat, total):
            fresh = params.scale * _standard(self.law, self.degrees, ticket, seat, params.scale.shape[0])
            scalars = jnp.stack([jnp.sum(fresh * one) for one in params.weights]) - params.each
            inside = jnp.clip(scalars, -params.limit, params.limit)
            return total + jnp.rint(inside * (jnp.float32(1) / params.step)).astype(jnp.int32)

        total = sums = jnp.zeros(len(self.noise_terms), jnp.int32)
        done, terms = 0, np.array(self.noise_terms)
        for size in np.unique(terms).tolist():
            total, done = jax.lax.fori_loop(done, size, add, total), size
            sums = jnp.where(jnp.asarray(terms == size), total, sums)
        return sums


def _width(scale):
    return int(np.clip(2.0 ** (11 - (scale.shape[0] - 1).bit_length()), 1, 1024))


def _standard(law, degrees, ticket, seat, dim):
    """A vector of the standard law from a seat's words: f32[dim]."""
    even = dim + dim % 2
    extra = degrees + degrees % 2 if law == "student_t" else 0
    first = seat.astype(jnp.uint32) * jnp.uint32(even + extra)
    if law == "known":
        return jnp.zeros(dim, jnp.float32)
    if law == "cube":
        word = words(ticket, first, dim)
        return (word.astype(jnp.float32) + jnp.float32(0.5)) * jnp.float32(2**-31) - jnp.float32(1)
    normal = normals(ticket, first, dim)
    if law == "sphere":
        return normal * jax.lax.rsqrt(jnp.sum(normal * normal))
    if law == "student_t":
        chi = normals(ticket, first + jnp.uint32(even), degrees)
        return normal / jnp.sqrt(jnp.mean(chi * chi))
    return normal
