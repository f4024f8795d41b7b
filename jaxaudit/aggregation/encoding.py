"""Fixed point: real vectors become vectors of integer steps, the only thing that secure aggregation can add."""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from ..accounting.rounding import conditional_bound, integer_norms, rounded
from ..random import Ticket, words
from ..schema import recipe
from .grid import Grid, grid_of
from .stage import UNBOUNDED, Norms, Setting
from .vectors import euclidean_norm, norm_slack, rounded_down

# A conditional rounding is refused with probability at most beta, and in practice far more rarely.
_ATTEMPTS = 128
# Between an entry and its number of steps lie two float32 roundings, unless the step is a power of two.
_PRODUCT = 1 + 2.0**-20


class FixedPointParams(NamedTuple):
    """What the encoding looks up.

    Attributes:
      step: f32[], in units of the update.
      inverse: f32[], steps in a unit.
      cap: f32[], the largest magnitude before rounding, in steps; infinite without a clip range.
      shift: i32[], what is added to make integers non-negative.
      bound: f32[], the l2 norm in steps at which a conditional rounding is accepted.
    """

    step: jax.Array
    inverse: jax.Array
    cap: jax.Array
    shift: jax.Array
    bound: jax.Array


@recipe
class FixedPoint:
    """A client clips its entries, divides them by a step, and rounds them to integers.

    The step is `step`, or 2 · clip_range / levels, or that of 2^bits - 2 levels (the integers of so many bits without
    the lowest). With none of them it fills the ring: the finest step with which no sum of the cohort can wrap.

    Attributes:
      kind: "fixed_point".
      bits: of one client's integers, 2 to 32; 0 where something else says the step.
      clip_range: larger entries are clipped to it, in units of the update. With 0 it is where the stages before end,
        as after a clip; with 0 and `step` nothing is clipped, and integers wrap in the ring (the modular clipping of
        distributed DP).
      rounding: "nearest" (half to even), "stochastic" (up with the probability that makes it right on average) or
        "conditional" (stochastic, repeated until the l2 norm is within a bound; right on average but for a bias that
        beta limits).
      beta: probability of a refusal for which the bound of conditional rounding is made, in (0, 1).
      levels: steps between the ends of the clip range, 2 to 2^32 - 1; 0 where something else says the step.
      step: in units of the update; 0 where something else says it.
      shifted: integers are made non-negative: zero is encoded as half of the levels, at most 2^24 of them.

    Reference:
      Kairouz, Liu & Steinke (2021), arXiv:2102.06387, section 4 (conditional rounding).
    """

    kind: Literal["fixed_point"] = "fixed_point"
    bits: int = Field(0, ge=0, le=32, description="of one client's integers, 0 to fill the ring")
    clip_range: float = Field(0.0, ge=0, le=1e30, description="larger entries are clipped to it")
    rounding: Literal["nearest", "stochastic", "conditional"] = "nearest"
    beta: float = Field(math.exp(-0.5), gt=0, lt=1, description="probability of a refusal in conditional rounding")
    levels: int = Field(0, ge=0, le=2**32 - 1, description="steps between the ends of the clip range")
    step: float = Field(0.0, ge=0, le=1e30, description="what an integer stands for")
    shifted: bool = Field(False, description="integers are made non-negative")

    @property
    def steady(self) -> bool:
        """Rounding to nearest tosses no coins."""
        return self.rounding == "nearest"

    def prepare(self, setting: Setting) -> FixedPointParams:
        """The grid, and the bound of conditional rounding.

        Raises:
          ValueError: where fields contradict each other, integers do not fit the ring, or a norm is missing.
        """
        grid = self._grid(setting)
        bound = np.inf
        if self.rounding == "conditional":
            l2 = self._before(setting, grid).l2
            if not np.isfinite(l2):
                raise ValueError(
                    'rounding is "conditional" and nothing bounds the l2 norm, allowed are clipped vectors; put '
                    'a clip stage before it, or use rounding = "stochastic"'
                )
            # The norm of a rounded vector is computed with this error: accepted vectors are within the bound itself.
            bound = conditional_bound(l2, setting.dim, self.beta) * (1 - norm_slack(setting.dim))
        return FixedPointParams(
            step=np.float32(grid.step),
            inverse=np.float32(1 / grid.step),
            cap=rounded_down(grid.cap),
            shift=np.int32(grid.top if self.shifted else 0),
            bound=rounded_down(bound),
        )

    def after(self, setting: Setting) -> Setting:
        """Integer vectors, their norms in steps; with `shifted`, those of the vectors before the shift.

        The shift is the same for everyone, so only differences from it tell clients apart.
        """
        grid = self._grid(setting)
        before = self._before(setting, grid)
        norms = UNBOUNDED
        if np.isfinite(before.linf):
            l1, l2, linf = rounded(*before, setting.dim, self.rounding, self.beta)
            top = float(grid.top or np.inf)
            l1, l2, linf = integer_norms(l1, l2, min(linf, top), setting.dim)
            # Again: these leave room for float32, but the end of the clip range is an integer that nothing passes.
            norms = Norms(min(l1, setting.dim * top), l2, min(linf, top))
        return setting._replace(norms=norms, step=grid.step)

    def largest_cohort(self, setting: Setting) -> int | None:
        """So many clients have sums that cannot wrap; None where no sum can, or where nothing is clipped."""
        return self._grid(setting).largest_cohort(setting.ring_bits, self.shifted)

    def words(self, setting: Setting) -> str:
        """Rounding, step and range."""
        grid = self._grid(setting)
        ends = f"clipped to ±{grid.top:,} steps" if grid.top else "not clipped"
        shifted = ", shifted to be non-negative" * self.shifted
        return f"rounds it ({self.rounding}) to integer steps of {grid.step:.4g}, {ends}{shifted}"

    def encode(self, params: FixedPointParams, vector, ticket: Ticket) -> jax.Array:
        """The integers: i32[dim], modulo 2^32 where nothing is clipped.

        Guarantee:
          Nothing is encoded as exactly nothing (or the shift): its rounding has no coin to toss.
        """
        magnitude = _magnitude(params, vector)
        if self.rounding == "nearest":
            whole = jnp.rint(magnitude)
        elif self.rounding == "stochastic":
            whole = _tossed(magnitude, ticket, jnp.uint32(0))
        else:
            whole = _conditional(magnitude, params.bound, ticket)
        # Exact: a float32 beyond 2^24 is an integer, and this takes away a multiple of 2^32 from it.
        whole = whole - jnp.float32(2.0**32) * jnp.floor(whole * jnp.float32(2.0**-32))
        steps = jax.lax.bitcast_convert_type(whole.astype(jnp.uint32), jnp.int32)
        return jnp.where(vector < jnp.float32(0), -steps, steps) + params.shift

    def expected(self, params: FixedPointParams, vector, variance) -> tuple[Any, Any]:
        """Mean and variance of the integers.

        Exact for rounding to nearest (integers that float32 cannot hold do not come out of float32, and shifts have
        24 bits) and for stochastic rounding of a fixed vector. Rounding a random vector is treated as rounding its
        mean, conditional rounding as stochastic. No sum is taken modulo anything.
        """
        magnitude = _magnitude(params, vector)
        variance = variance * params.inverse * params.inverse
        if self.rounding == "nearest":
            magnitude = jnp.rint(magnitude)
        else:
            part = magnitude - jnp.floor(magnitude)
            variance = variance + part * (jnp.float32(1) - part)
        mean = jnp.where(vector < jnp.float32(0), -magnitude, magnitude)
        return mean + params.shift.astype(jnp.float32), variance

    def decode(self, params: FixedPointParams, total, survivors) -> Any:
        """The sum in units of the update, in the precision of `total`; f32 (NumPy: f64) if these are integers.

        Integers of 32 bits have their shifts taken away modulo 2^32, so without the rounding that float32 needs for
        sums beyond 2^24.
        """
        library, whole, real = (jnp, jnp.int32, jnp.float32)
        if isinstance(total, np.ndarray):
            library, whole, real = (np, np.int64, np.float64)
        if library.issubdtype(total.dtype, library.integer):
            total = total.astype(whole)
        if self.shifted:
            total = total - library.asarray(survivors, total.dtype) * params.shift.astype(total.dtype)
        if library.issubdtype(total.dtype, library.integer):
            total = total.astype(real)
        return total * params.step.astype(total.dtype)

    def decoded_variance(self, params: FixedPointParams, variance) -> Any:
        """Times the square of the step."""
        return variance * params.step * params.step

    def _grid(self, setting) -> Grid:
        return grid_of(self, setting)

    def _before(self, setting, grid) -> Norms:
        """Norms in steps before rounding."""
        product = 1.0 if math.frexp(grid.step)[0] == 0.5 else _PRODUCT
        norms = Norms(*(one / grid.step * product for one in setting.norms))
        return norms._replace(linf=min(norms.linf, grid.cap)).tightened(setting.dim)


def _magnitude(params, vector):
    """Steps without their sign: rounded symmetrically, for below zero y - floor(y) is not exact in float32."""
    return jnp.minimum(jnp.abs(vector) * params.inverse, params.cap)


def _tossed(magnitude, ticket, first):
    """Stochastic rounding: up with the probability of the fraction, to 32 bits; the sign is put back later.

    Rounding down with the probability of what is missing to the next integer, as Flower does it, is the same law.
    """
    whole = jnp.floor(magnitude)
    # The fraction of a float32 is exact here, and has bits down to 2^-24 unless it is below 1/2.
    threshold = ((magnitude - whole) * jnp.float32(2.0**32)).astype(jnp.uint32)
    up = words(ticket, first, magnitude.shape[0]) < threshold
    return whole + up.astype(jnp.float32)


def _conditional(magnitude, bound, ticket):
    """Stochastic rounding, repeated until the norm is within the bound."""
    each = magnitude.shape[0] + magnitude.shape[0] % 2
    downward = jnp.floor(magnitude)

    def again(state):
        attempt, _, met = state
        return ~met & (attempt < jnp.uint32(_ATTEMPTS))

    def toss(state):
        attempt, _, _ = state
        whole = _tossed(magnitude, ticket, attempt * jnp.uint32(each))
        return attempt + jnp.uint32(1), whole, euclidean_norm(whole) <= bound

    _, whole, met = jax.lax.while_loop(again, toss, (jnp.uint32(0), downward, jnp.zeros((), bool)))
    # So many refusals do not happen (0.61^128 = 4e-28); if they did, rounding towards zero keeps the norm's bound.
    return jnp.where(met, whole, downward)
