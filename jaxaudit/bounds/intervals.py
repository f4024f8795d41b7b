"""Clopper-Pearson limits for binomial rates, in float64, safe in the far tail.

Why not `jax.scipy`, `beta.ppf(1 - a)` or `bdtri`: float32 `betainc` is wrong by more than half at a million
trials, `1 - a` cancels below a = 1e-16, and `bdtri` is off by 1e-3 and worse at a billion trials. The two
functions below agree with 40-digit references to 1e-8, and are widened by that much.
"""

import numpy as np
from scipy.special import betainc, betaincc, betainccinv, betaincinv

# SciPy's inverse incomplete beta functions are accurate to 9e-9 or better for up to 1e12 trials; the limits
# are moved outwards by more than that, so that the remaining error is on the safe side.
_SAFETY = 2e-8


def clopper_pearson_upper(errors, trials, significance):
    r"""Upper confidence limit for a binomial rate.

    Args:
      errors: observed errors, in [0, trials]; broadcasts. Integers for a certificate; real numbers are accepted
        so that expected counts can be planned with.
      trials: number of independent trials, positive.
      significance: allowed probability that the limit is too low, in (0, 1).

    Returns:
      f64, the rate p at which `errors` or fewer of `trials` has probability `significance`; 1 if all erred.

    Guarantee:
      For independent trials, P(rate > limit) <= significance, whatever the rate.

    Example:
      >>> float(clopper_pearson_upper(0, 100, 0.05))  # the "rule of three": about 3 / 100
      0.0295...

    Reference:
      Clopper & Pearson (1934), Biometrika 26; checked against R `binom.test(0, 100, alternative="less")`.
    """
    errors, trials, significance = _checked(errors, trials, significance)
    inside = (errors > 0) & (errors < trials)
    with np.errstate(divide="ignore"):
        none = -np.expm1(np.log(significance) / trials)
    shapes = np.where(inside, errors + 1, 2), np.where(inside, trials - errors, 1)
    some = _inverted(betainccinv, betaincc, *shapes, significance, 1 + _SAFETY)
    return np.where(errors == 0, np.minimum(none * (1 + _SAFETY), 1.0), np.where(inside, some, 1.0))


def clopper_pearson_lower(errors, trials, significance):
    """Lower confidence limit for a binomial rate; the mirror image of `clopper_pearson_upper`.

    Args:
      errors: observed errors, in [0, trials]; broadcasts.
      trials: number of independent trials, positive.
      significance: allowed probability that the limit is too high, in (0, 1).

    Returns:
      f64, the rate p at which `errors` or more of `trials` has probability `significance`; 0 without errors.

    Guarantee:
      For independent trials, P(rate < limit) <= significance, whatever the rate.

    Example:
      >>> float(clopper_pearson_lower(100, 100, 0.05))
      0.9704...

    Reference:
      Clopper & Pearson (1934), Biometrika 26.
    """
    errors, trials, significance = _checked(errors, trials, significance)
    inside = (errors > 0) & (errors < trials)
    shapes = np.where(inside, errors, 1), np.where(inside, trials - errors + 1, 1)
    some = _inverted(betaincinv, betainc, *shapes, significance, 1 - _SAFETY)
    every = np.exp(np.log(significance) / trials)
    return np.where(errors == trials, every * (1 - _SAFETY), np.where(inside, some, 0.0))


def _inverted(inverse, tail, a, b, significance, factor):
    """`factor` times the rate at which `tail` is `significance`: by SciPy's inverse, or by bisection where that errs.

    It does: with one shape exactly 1000 and the other 1e7 or more SciPy 1.17 is far off (999 errors of 1e10 gave an
    upper limit 9 % below the observed rate), so no inverse is believed before its tail has been looked at.
    """
    a, b, significance = np.broadcast_arrays(a, b, significance)
    rate = np.array(np.minimum(inverse(a, b, significance) * factor, 1.0))
    reached = tail(a, b, rate)
    wrong = ~((reached <= significance) & (reached >= significance / 2))
    if wrong.any():
        a, b, wanted = a[wrong], b[wrong], significance[wrong]
        low, high = np.full(a.shape, -700.0), np.zeros(a.shape)
        rising = tail is betainc
        for _ in range(100):
            middle = (low + high) / 2
            below = (tail(a, b, np.exp(middle)) < wanted) == rising
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        rate[wrong] = np.minimum(np.exp(low if rising else high) * factor, 1.0)
    return rate


def _checked(errors, trials, significance):
    errors, trials, significance = (np.asarray(x, np.float64) for x in (errors, trials, significance))
    if np.any(~(trials > 0)):
        raise ValueError(f"trials must be positive, got {trials}")
    if np.any(~((errors >= 0) & (errors <= trials))):
        raise ValueError(f"errors must be in [0, trials], got {errors} of {trials}")
    if np.any(~((significance > 0) & (significance < 1))):
        raise ValueError(f"significance must be in (0, 1), got {significance}")
    return errors, trials, significance
