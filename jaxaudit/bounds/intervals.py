r"""Clopper-Pearson limits for binomial rates, in float64, safe in the far tail.

Why not `jax.scipy`, `beta.ppf(1 - a)`, `bdtri` or `betainccinv`: float32 `betainc` is wrong by more than half at a
million trials, `1 - a` cancels below a = 1e-16, `bdtri` is off by 1e-3 and worse at a billion trials, and the
inverses of SciPy 1.14 to 1.17 err by any factor at single points (at 999 errors of 1e10 in 1.17, at 2156 of 2.6e11 in
1.14) and by up to 2e-8 of the limit elsewhere.

So the tail of a beta variable is integrated here. With y = 1 - x and the odds r = x / y

    P(Beta(a, b) < x) = x^a y^b / B(a, b) · (1 + r) ∫₀¹ (1 - t)^(a-1) (1 + r t)^(b-1) dt.

The factor in front is a Kullback-Leibler divergence and three remainders of Stirling's formula, and nothing cancels.
The integrand is log-concave, and 24 nodes on the part of [0, 1] where it counts give 13 digits for all shapes alike.
The tail is log-concave in the log-odds of x, so that Newton's iteration in (log-odds, log-tail) arrives from
anywhere; Halley's, from a fair start, needs one or two tails, and the log-odds give x and y alike.

Up to 1e12 trials and for a significance from 1e-30 to 0.999 the rate and its complement agree with 40-digit
references to 1e-13. The smaller of the two is moved outwards by 2^-37 = 7e-12 of itself, and then rounded outwards to
36 bits: two machines whose logarithms differ in the last bit agree on the limit.
"""

import numpy as np
from scipy.special import gammaln, ndtri


def _rule(size):
    nodes, weights = np.polynomial.legendre.leggauss(size)
    return (1 + nodes) / 2, weights / 2


# The integrand is a polynomial for whole counts; with a real exponent it has a kink at t = 1 and at t = -1 / r, which
# eight partial integrations and more nodes smooth.
_WHOLE, _REAL = (0, *_rule(24)), (8, *_rule(64))
_FALL = 36.0  # integrate until the integrand has fallen by e^-36, a quarter of the last bit
_CLOSE = 1e-4  # of the log-tail: one more step of Halley's iteration leaves its cube
_HALF_LOG_TAU = 0.5 * np.log(2 * np.pi)
_SAFETY, _BITS = 2.0**-37, 36
_BLOCK = 4096  # limits at a time: 24 nodes each stay in the cache


def clopper_pearson_upper(errors, trials, significance):
    r"""Upper confidence limit for a binomial rate.

    Args:
      errors: observed errors, in [0, trials]; broadcasts. Integers for a certificate; real numbers are accepted
        so that expected counts can be planned with.
      trials: number of independent trials, positive and below 2^63.
      significance: allowed probability that the limit is too low, in (0, 1).

    Returns:
      f64, the rate p at which `errors` or fewer of `trials` has probability `significance`; 1 if all erred. Too high
      by at most 4e-11 of itself and, above 1/2, at most 4e-11 of its complement and one unit in the last place.

    Guarantee:
      For independent trials, P(rate > limit) <= significance, whatever the rate.

    Example:
      >>> float(clopper_pearson_upper(0, 100, 0.05))  # the "rule of three": about 3 / 100
      0.0295...

    Reference:
      Clopper & Pearson (1934), Biometrika 26; checked against R `binom.test(0, 100, alternative="less")`.
    """
    errors, trials, significance = _checked(errors, trials, significance)
    limit = _limit(errors, trials - errors, significance)
    above_half = 1 + limit
    return np.where(limit > 0, limit, above_half + 2.0**-53 * (above_half - 1 < limit))


def clopper_pearson_lower(errors, trials, significance):
    """Lower confidence limit for a binomial rate; the mirror image of `clopper_pearson_upper`.

    Args:
      errors: observed errors, in [0, trials]; broadcasts. Real numbers as for the upper limit.
      trials: number of independent trials, positive and below 2^63.
      significance: allowed probability that the limit is too high, in (0, 1).

    Returns:
      f64, the rate p at which `errors` or more of `trials` has probability `significance`; 0 without errors. Too low
      by no more than the upper limit is too high.

    Guarantee:
      For independent trials, P(rate < limit) <= significance, whatever the rate.

    Example:
      >>> float(clopper_pearson_lower(100, 100, 0.05))
      0.9704...

    Reference:
      Clopper & Pearson (1934), Biometrika 26.
    """
    errors, trials, significance = _checked(errors, trials, significance)
    limit = _limit(trials - errors, errors, significance)
    above_half = 1 - limit
    return np.where(limit > 0, above_half - 2.0**-53 * (1 - above_half < limit), 0 - limit)


def approximate_upper(errors, trials, significance):
    """The upper Clopper-Pearson limit to a percent or so, in closed form: for choosing thresholds, not for claims.

    Where most trials err, one minus the lower limit of those that do not: a percent of the rarer of the two.

    Reference:
      Wilson & Hilferty (1931) for the quantile of the gamma law; Bol'shev (1963) from the gamma to the beta law.
    """
    rest, deviate = trials - errors, ndtri(significance)
    upper = _approximate_quantile(errors + 1.0, rest, -deviate)
    lower = _approximate_quantile(np.maximum(rest, 1e-9), errors + 1.0, deviate)
    return np.where(2 * errors < trials, np.minimum(upper, 1.0), 1 - lower)


def _approximate_quantile(shape, other, deviate):
    """Of the beta law of these shapes, at a normal deviate."""
    gamma = shape * np.maximum(1 - 1 / (9 * shape) + deviate / (3 * np.sqrt(shape)), 0.0) ** 3
    return gamma / (other + (shape - 1 + gamma) / 2)


def _limit(errors, successes, significance):
    """The upper limit, rounded up, where it is at most 1/2; elsewhere minus its complement, rounded up likewise."""
    shape = np.broadcast(errors, successes, significance).shape
    if not shape:
        return _rounded(errors, successes, significance)
    table = np.empty((3, *shape))
    table[0], table[1], table[2] = errors, successes, significance
    table = table.reshape(3, -1)
    limit = np.empty(table.shape[1])
    for first in range(0, limit.size, _BLOCK):
        block = slice(first, first + _BLOCK)
        limit[block] = _rounded(*table[:, block])
    return limit.reshape(shape)


@np.errstate(all="ignore")
def _rounded(errors, successes, significance):
    odds = np.expm1(-np.log(significance) / (errors + successes))
    some = errors > 0
    if some.any():
        rule = _WHOLE
        if (errors % 1 + successes % 1).any():
            # With less than one expected success no tail is short for a significance above 1/2; 1/2 is safe.
            rule, significance = _REAL, np.where(successes < 1, np.minimum(significance, 0.5), significance)
        # P(Beta(errors + 1, successes) > rate) = significance. Above 1/2 the other tail is the short one.
        a, b, long = np.where(successes > 0, successes, 1), errors + 1, significance > 0.5
        if long.any():
            tail = np.where(long, 1 - significance, significance)
            inverse = _odds(np.where(long, b, a), np.where(long, a, b), tail, rule)
            found = np.where(long, inverse, 1 / inverse)
        else:
            found = 1 / _odds(a, b, significance, rule)
        odds = np.where(some, found, odds)
    rate = np.where(odds <= 1 - 2 * _SAFETY, (1 + _SAFETY) * odds, _SAFETY - 1) / (1 + odds)
    mantissa, exponent = np.frexp(rate)
    limit = np.ldexp(np.ceil(mantissa * 2.0**_BITS), exponent - _BITS)
    return limit * (successes > 0)


def _odds(a, b, tail, rule):
    """x / (1 - x) with P(Beta(a, b) < x) = tail <= 1/2."""
    n, few, odds = a + b, np.minimum(a, b), a / b
    constant = 0.5 * np.log(a * b / n) - _HALF_LOG_TAU + _stirling(n, a, b) - np.log(tail)
    # `shift` is the log-odds of x less those of the mean. Two starts: the normal one, Abramowitz & Stegun (1964)
    # 26.5.22, good for all but small shapes; and x^a / (a B(a, b)) >= tail with its first correction, good for
    # small ones and never above the root by more than that correction.
    z = ndtri(tail)
    spread, h_a, h_b = (z * z - 3) / 6, 0.5 / (a - 0.5), 0.5 / (b - 0.5)
    h = (h_a + h_b) / 2
    normal = 2 * ((h_b - h_a) * (spread + 5 / 6 - 2 / 3 * h) + z * np.sqrt(h * (1 + spread * h)))
    power = (np.log(a) - constant + n * np.log1p(-a / n)) / a
    power += np.minimum(n / (a + 1) * odds * np.exp(power), 0.5)
    shift = np.fmax(power, np.minimum(normal, 0))
    side = np.copysign(1.0, b - a)
    return odds * np.exp(_root((a, b, n, few, few / n, side, odds, constant), rule, shift))


def _root(shapes, rule, shift):
    """The shift at which the tail is the wanted one; entries that have arrived take no further part."""
    for _ in range(100):
        excess, step = _halley(*shapes, rule, shift)
        shift = shift - step
        far = ~(abs(excess) <= _CLOSE)
        if not far.any():
            return shift
        if not far.all():
            shift[far] = _root([shape[far] for shape in shapes], rule, shift[far])
            return shift
    raise ArithmeticError("a Clopper-Pearson limit did not converge; please report errors, trials and significance")


def _halley(a, b, n, few, share, side, odds, constant, rule, shift):
    """The log of the tail over the wanted one, and Halley's step towards the root, in log-odds."""
    lift, nodes, weights = rule
    # a ln(a / (n x)) + b ln(b / (n y)), told by the smaller shape: by the larger one it would cancel.
    nearer = side * shift
    divergence = n * np.log1p(share * np.expm1(nearer)) - few * nearer
    r = odds * np.exp(shift)
    c, d = a + (lift - 1), b - 1
    # ln(1 + u) - u <= -u² / (2 + 4 u / 3), hence the log of the integrand is at most
    # -slope t - bend t² / (2 + 4 r t / 3), which has fallen by _FALL at the root of a quadratic.
    rising = np.maximum(d, 0) * r
    slope, bend = np.maximum(c - rising, 0), np.maximum(c + rising * r, 1e-300)
    p, q = 2 / 3 * _FALL * r - slope, bend + 4 / 3 * r * slope
    length = np.minimum((p + np.sqrt(p * p + 2 * _FALL * q)) / q, 1)
    t = np.multiply.outer(nodes, length)
    inverse_hazard = weights @ np.exp(c * np.log1p(-t) + d * np.log1p(r * t)) * length * (1 + r)
    x = r / (1 + r)
    for i in reversed(range(lift)):
        inverse_hazard = (1 + x * (n + i) * inverse_hazard) / (a + i)
    excess = constant - divergence + np.log(inverse_hazard)
    # F' = 1 / inverse_hazard and F'' / F' = -(b x - a y + F'), whence Halley's step; at most 5/3 of Newton's.
    bent = 1 + 0.5 * excess * (1 + inverse_hazard * (n * x - a))
    return excess, excess * inverse_hazard / np.maximum(bent, 0.6)


def _stirling(n, a, b):
    """ln[B(a, b)^-1] less its leading term: the remainders of ln Γ(n) - ln Γ(a) - ln Γ(b) in Stirling's formula."""
    z = np.array([n, a, b])
    w = (1 / z) ** 2
    series = (1 / 12 - w * (1 / 360 - w * (1 / 1260 - w * (1 / 1680 - w / 1188)))) / z
    remainder = np.where(z < 16, gammaln(z) - (z - 0.5) * np.log(z) + z - _HALF_LOG_TAU, series)
    return remainder[0] - remainder[1] - remainder[2]


def _checked(errors, trials, significance):
    errors, trials, significance = (np.asarray(x, np.float64) for x in (errors, trials, significance))
    if not ((trials > 0) & (trials < 2.0**63)).all():
        raise ValueError(f"trials must be positive and below 2^63, got {trials}")
    if not ((errors >= 0) & (errors <= trials)).all():
        raise ValueError(f"errors must be in [0, trials], got {errors} of {trials}")
    if not ((significance > 0) & (significance < 1)).all():
        raise ValueError(f"significance must be in (0, 1), got {significance}")
    return errors, trials, significance
