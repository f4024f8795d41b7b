"""The grid of a fixed-point encoding: its step, its ends, and how many clients a ring can add."""

from typing import NamedTuple, Protocol

import numpy as np

from .stage import Setting
from .vectors import refuse_integers

# What a client's i32 holds, and what f32 holds next to a shift.
_LARGEST, _LARGEST_SHIFTED = 2**31 - 1, 2**24
# Sums in so many bits cannot wrap.
_WIDE = 64


class Fields(Protocol):
    """What says the grid: fields of `FixedPoint`."""

    bits: int
    clip_range: float
    levels: int
    step: float
    shifted: bool


class Grid(NamedTuple):
    """Where integers stand.

    Attributes:
      step: a float32, in units of the update.
      cap: the largest magnitude before rounding, in steps; infinite without a clip range.
      top: the largest magnitude after it; 0 without a clip range.
    """

    step: float
    cap: float
    top: int

    def largest_cohort(self, ring_bits: int, shifted: bool) -> int | None:
        """So many clients have sums that cannot wrap; None where no sum can, or where nothing is clipped."""
        if not self.top or ring_bits == _WIDE:
            return None
        return (2**ring_bits - 1) // (2 * self.top) if shifted else (2 ** (ring_bits - 1) - 1) // self.top


def grid_of(fields: Fields, setting: Setting) -> Grid:
    """The grid that a recipe's fields say.

    Args:
      fields: of `FixedPoint`.
      setting: ring and cohort.

    Returns:
      Grid.

    Raises:
      ValueError: in one line, where fields contradict each other, or one client's integers do not fit the ring.
    """
    refuse_integers(setting)
    said = [name for name in ("bits", "levels", "step") if getattr(fields, name)]
    if len(said) > 1:
        raise ValueError(f"{' and '.join(said)} are given, allowed is one of them; each says the step")
    reach = fields.clip_range
    if not (reach or fields.step) and np.isfinite(setting.norms.linf):
        reach = setting.norms.linf  # the end that the stages before have set
    if not reach:
        return _unclipped(fields, setting)
    if fields.step:
        step = _float32(fields.step)
        cap = reach / step
        # 0.3 / 0.1 is 3, although no float says so.
        cap = float(round(cap)) if abs(cap - round(cap)) <= 2.0**-22 * cap else cap
        top = int(np.ceil(cap))
    else:
        top = _levels(fields, setting) // 2
        # The ends of an odd number of levels lie between integers: the last integers are the ends then.
        levels = fields.levels or 2 * top
        step, cap = _float32(2 * reach / levels), float(top)
    largest = _LARGEST_SHIFTED // 2 if fields.shifted else _LARGEST
    if top > largest:
        raise ValueError(
            f"the clip range is {top:,} steps{', shifted' if fields.shifted else ''}, allowed are up to {largest:,}; "
            "use a larger step"
        )
    grid = Grid(step, cap, top)
    if grid.largest_cohort(setting.ring_bits, fields.shifted) == 0:
        raise ValueError(
            f"the integers of one client reach {top:,} steps, allowed are up to "
            f"{_capacity(setting.ring_bits, fields.shifted):,} in a ring of {setting.ring_bits} bits; use more "
            "ring_bits, or fewer bits or levels"
        )
    return grid


def _unclipped(fields, setting):
    if not fields.step:
        raise ValueError("clip_range is 0, allowed are > 0; give it, or a step for integers that wrap in the ring")
    if fields.shifted:
        raise ValueError("shifted is true and clip_range is 0, allowed are > 0; a shift needs an end to shift from")
    step = _float32(fields.step)
    if setting.ring_bits == _WIDE and not setting.norms.tightened(setting.dim).linf / step < _LARGEST / 2:
        raise ValueError(
            f"clip_range is 0 and integers may pass {_LARGEST // 2:,}, the largest allowed in sums that cannot wrap; "
            "give clip_range, put a clip stage before it, or use ring_bits = 32"
        )
    return Grid(step, np.inf, 0)


def _levels(fields, setting):
    """Levels within the clip range."""
    if fields.bits:
        if fields.bits > setting.ring_bits:
            raise ValueError(
                f"bits is {fields.bits}, allowed are 2 to ring_bits ({setting.ring_bits}); use fewer of them"
            )
        if fields.bits == 1:
            raise ValueError(
                "bits is 1, allowed are 2 to 32, or 0 to fill the ring; one bit has no level beside zero"
            )
        return 2**fields.bits - 2
    if fields.levels:
        if fields.levels == 1:
            raise ValueError("levels is 1, allowed are 2 or more; zero is one of them")
        if fields.shifted and fields.levels % 2:
            raise ValueError(
                f"levels is {fields.levels:,}, allowed are even numbers with shifted; zero is in the middle"
            )
        return fields.levels
    largest = _LARGEST_SHIFTED // 2 if fields.shifted else _LARGEST
    if setting.ring_bits == _WIDE:
        return 2 * largest
    capacity = _capacity(setting.ring_bits, fields.shifted)
    if capacity < setting.crowd:
        raise ValueError(
            f"ring_bits is {setting.ring_bits}, allowed are {capacity:,} clients with one level each side of zero, "
            f"there are {setting.crowd:,}; use more ring_bits"
        )
    return 2 * min(capacity // setting.crowd, largest)


def _capacity(ring_bits, shifted):
    """The largest magnitude before a shift that a ring holds."""
    return (2**ring_bits - 1) // 2 if shifted else 2 ** (ring_bits - 1) - 1


def _float32(step):
    """The step as it is used everywhere: a float32 whose inverse is one."""
    if not 2.0**-100 <= step <= 2.0**100:
        raise ValueError(f"the step is {step:g}, allowed are 2^-100 to 2^100; scale the clip range")
    return float(np.float32(step))
