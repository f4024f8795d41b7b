r"""How much a vector can grow when its entries are rounded to integers, in any of the three ways.

Reference:
  Kairouz, Liu & Steinke (2021), arXiv:2102.06387, Theorem 1 and Proposition 22: conditional randomised rounding.
"""

import math
from typing import Literal

Rounding = Literal["nearest", "stochastic", "conditional"]

# Encoders work in float32: a norm that they find to be within a bound may exceed it by this, relatively.
_SLACK = 2.0**-20


def conditional_bound(l2: float, dim: int, beta: float) -> float:
    """The norm up to which a stochastically rounded vector is accepted, and beyond which it is rounded again.

    Args:
      l2: largest norm before rounding, in integer steps, >= 0; may be infinite.
      dim: entries of the vector, >= 1.
      beta: in [0, 1): a rounding is refused at most this often; 0 never refuses.

    Returns:
      float, sqrt(min{(l2 + sqrt(d))^2, l2^2 + d/4 + sqrt(2 log(1/beta)) (l2 + sqrt(d)/2)}).

    Raises:
      ValueError: for an argument outside its range.

    Example:
      >>> conditional_bound(10.0, 400, 0.0)
      30.0
      >>> round(conditional_bound(10.0, 400, 0.5), 2)
      14.95

    Reference:
      Theorem 1 of the paper; agrees with `rounded_l2_norm_bound` of the authors' accountant.
    """
    _check(l2, dim)
    if not 0 <= beta < 1:
        raise ValueError(f"beta is {beta}, allowed is [0, 1); 0 never refuses a rounding")
    never = l2 + math.sqrt(dim)
    if beta == 0 or math.isinf(l2):
        return never
    deviation = math.sqrt(-2 * math.log(beta)) * (l2 + math.sqrt(dim) / 2)
    return min(never, math.sqrt(l2**2 + dim / 4 + deviation))


def rounded(
    l1: float, l2: float, linf: float, dim: int, rounding: Rounding, beta: float = 0.0
) -> tuple[float, float, float]:
    """Largest norms of a vector after its entries were rounded to integers.

    Args:
      l1: largest sum of magnitudes before rounding, in integer steps, >= 0; may be infinite.
      l2: the same, Euclidean.
      linf: the same, of one entry.
      dim: entries of the vector, >= 1.
      rounding: "nearest" (half to even), "stochastic" (up or down, unbiased) or "conditional" (stochastic, repeated
        until the norm is at most `conditional_bound`).
      beta: of conditional rounding, in [0, 1).

    Returns:
      (l1, l2, linf) of the integer vector, whatever the draws; larger by 2^-20 where float32 encoders need it.

    Raises:
      ValueError: for an argument outside its range.

    Guarantee:
      No vector within the given norms is rounded to one outside the returned ones. Nearest: an entry below 1/2
      becomes 0, so at most min(d, 4 l2², 2 l1) entries are not zero, and each of them grows by at most 1/2.
      Stochastic: every entry that is not zero may grow, by less than 1. What then holds for integers is in
      `integer_norms`.

    Example:
      >>> rounded(0.4, 0.4, 0.4, 100, "nearest")
      (0.0, 0.0, 0.0)
      >>> rounded(10.0, 10.0, 10.0, 1, "stochastic")
      (10.0, 10.0, 10.0)
    """
    for norm in (l1, l2, linf):
        _check(norm, dim)
    root = math.sqrt(dim)
    l2, linf = min(l2, l1, root * linf), min(linf, l2, l1)
    l1 = min(l1, root * l2)
    if rounding == "nearest":
        entries = int(min(dim, _floor(4 * l2 * l2), _floor(2 * l1)))
        return integer_norms(l1 + entries / 2, l2 + math.sqrt(entries) / 2, linf + 0.5, entries)
    # At a float32 error above an integer, rounding up reaches the next one.
    largest = math.ceil(linf) if math.isfinite(linf) else linf
    if rounding == "stochastic":
        return integer_norms(l1 + dim, l2 + root, largest, dim)
    if rounding == "conditional":
        return integer_norms(l1 + dim, conditional_bound(l2, dim, beta), largest, dim)
    raise ValueError(f"rounding is {rounding!r}, allowed are nearest, stochastic and conditional")


def integer_norms(l1: float, l2: float, linf: float, dim: int) -> tuple[float, float, float]:
    """The same norms, with what they say about each other for a vector of so many integers.

    Args:
      l1: largest sum of magnitudes of an integer vector, >= 0; may be infinite.
      l2: the same, Euclidean.
      linf: the same, of one entry.
      dim: entries that may differ from zero, >= 0.

    Returns:
      (l1, l2, linf), none larger than given but for the 2^-20 that float32 encoders need.

    Guarantee:
      It uses only that l2² <= l1 linf, l2² <= d linf², l1 <= l2² and l1 <= sqrt(d) l2, linf <= l2 <= l1, and that
      l1, l2² and linf are integers.

    Example:
      >>> integer_norms(100.0, 2.3, 100.0, 1000)
      (5.0, 2.23606797749979, 2.0)
    """
    linf = _floor(min(linf, l2, l1))
    if dim == 0 or linf == 0:
        return 0.0, 0.0, 0.0
    square = _floor(min(l2 * l2, dim * linf * linf, l1 * linf))
    l1 = _floor(min(l1, square, math.sqrt(dim * square)))
    l2 = math.sqrt(square)
    return l1, l2, min(linf, _floor(l2))


def _floor(value):
    """Largest integer that is not above the value by more than float32 could hide."""
    return float(math.floor(value * (1 + _SLACK))) if math.isfinite(value) else value


def _check(norm, dim):
    if not norm >= 0:
        raise ValueError(f"norm is {norm}, allowed are numbers >= 0 and infinity")
    if dim < 1:
        raise ValueError(f"dim is {dim}, allowed are integers from 1")
