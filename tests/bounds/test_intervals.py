"""Limits are judged by the tail at the limit and next to it, not by a root sought by another program.

The tail is a continued fraction in mpmath, checked here against the binomial sum; to 45 digits it agreed with
Gauss-Legendre quadrature at 148 random points up to 1e12 trials. What is claimed here of every count and significance
was also checked, once, on the whole grid (11 numbers of trials, 24 of errors, 12 significances) and at 5,500 random
points.
"""

from math import isqrt

import mpmath as mp
import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from jaxaudit import bounds

LIMITS = [bounds.clopper_pearson_lower, bounds.clopper_pearson_upper]
SIGNIFICANCES = st.floats(1e-30, 0.5)
LEVELS = (0.3, 1e-30, 0.05, 1e-8, 0.5, 1e-3, 1e-17, 0.9, 1e-12, 0.999, 0.7)


@st.composite
def observed(draw):
    trials = draw(st.integers(1, 10**9))
    return draw(st.integers(0, trials)), trials


def tail(errors, trials, rate):
    """P(Bin(trials, rate) <= errors) to 20 digits, for real counts too: DLMF 8.17.22 by Lentz's method."""
    with mp.workdps(80):
        a, b, x = mp.mpf(errors) + 1, mp.mpf(trials) - errors, mp.mpf(rate)
        if x == 1:
            return mp.mpf(0)
        above = x > (a + 1) / (a + b + 2)
        if above:
            a, b, x = b, a, 1 - x
        front = mp.exp(a * mp.log(x) + b * mp.log(1 - x) + mp.loggamma(a + b) - mp.loggamma(a) - mp.loggamma(b))
        c, d = mp.mpf(1), 1 / (1 - (a + b) * x / (a + 1))
        fraction, change, m = d / a, 0, 0
        while abs(change - 1) > 1e-20:
            m += 1
            even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
            odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
            for term in (even, odd):
                c, d = 1 + term / c, 1 / (1 + term * d)
                change = c * d
                fraction *= change
        return front * fraction if above else 1 - front * fraction


def assert_safe_and_tight(limit, errors, trials, significance):
    """The limit has at most its tail, but not 4e-11 further in: of the rate or, if that is less, of 1 - rate."""

    def chance(rate):
        if limit is bounds.clopper_pearson_upper:
            return tail(errors, trials, rate)
        return tail(mp.mpf(trials) - errors, trials, 1 - rate)

    with mp.workdps(80):
        found = mp.mpf(float(limit(errors, trials, significance)))
        # Above 1/2 the limit is the next float: a unit in its last place comes on top.
        slack = 4e-11 * min(found, 1 - found) + (mp.mpf(2) ** -53 if found > 0.5 else 0)
        inside = found - slack if limit is bounds.clopper_pearson_upper else found + slack
        assert chance(found) <= significance <= chance(inside), (errors, trials, significance)


@pytest.mark.parametrize("errors, trials, rate", [(0, 7, 0.3), (3, 10**9, 5e-9), (999, 10**6, 1.1e-3), (60, 90, 0.5)])
def test_both_oracles_of_the_tail_agree(errors, trials, rate):
    assert abs(tail(errors, trials, rate) / reference.binomial_cdf(errors, trials, rate) - 1) < 1e-19


@pytest.mark.parametrize("trials", [10**power for power in (0, 1, 2, 3, 4, 6, 8, 10, 12)])
def test_limits_are_safe_and_tight_at_every_count_and_significance(trials):
    few = [1, 2, 3, 10, 50, 100, 999, 1000, 1001, isqrt(trials), trials // 100, trials // 10]
    counts = {*few, trials // 2, *(trials - count for count in few)}
    for turn, errors in enumerate(sorted(count for count in counts if 0 < count < trials)):
        for offset, limit in enumerate(LIMITS):
            assert_safe_and_tight(limit, errors, trials, LEVELS[(turn + 7 * offset) % len(LEVELS)])
    for significance in LEVELS:
        assert_safe_and_tight(bounds.clopper_pearson_upper, 0, trials, significance)
        assert_safe_and_tight(bounds.clopper_pearson_lower, trials, trials, significance)


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("errors, trials", [(1, 2), (1, 3), (3, 1000), (2156, 256_750_354_214)])
def test_limits_are_safe_and_tight_at_every_significance(limit, errors, trials):
    """SciPy 1.14 has the last lower limit too high by 2."""
    for significance in LEVELS:
        assert_safe_and_tight(limit, errors, trials, significance)


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("errors, trials", [(0.25, 40), (2.5, 10**6), (7.75, 8), (999.5, 10**9), (39.875, 40)])
def test_limits_of_real_numbers_of_errors_are_safe_and_tight(limit, errors, trials):
    for significance in (0.4, 0.05, 1e-12):
        assert_safe_and_tight(limit, errors, trials, significance)


@pytest.mark.parametrize("significance", [0.05, 1e-12])
@pytest.mark.parametrize("trials", [10**4, 10**7, 10**10, 10**12])
def test_no_number_of_errors_stands_out(trials, significance):
    """Limits are smooth in the errors: SciPy 1.17 has a wrong inverse at 999 of 1e10, and nowhere around."""
    errors = np.arange(3000)
    assert np.all(np.diff(bounds.clopper_pearson_upper(errors, trials, significance), 2) < 0)
    assert np.all(np.diff(bounds.clopper_pearson_lower(errors[1:], trials, significance), 2) > 0)


@pytest.mark.parametrize("errors, trials, significance", [(3, 10**9, 1e-6), (50, 10**3, 0.05), (30, 10**12, 1e-12)])
def test_limits_agree_with_the_root_of_the_binomial_sum(errors, trials, significance):
    lower, upper = (mp.mpf(float(limit(errors, trials, significance))) for limit in LIMITS)
    assert 0 <= upper / reference.clopper_pearson_upper(errors, trials, significance) - 1 <= 4e-11
    assert 0 <= 1 - lower / reference.clopper_pearson_lower(errors, trials, significance) <= 4e-11


def test_limits_are_sure_where_all_or_none_erred():
    assert np.all(bounds.clopper_pearson_upper([1, 10**12], [1, 10**12], 1e-30) == 1)
    assert np.all(bounds.clopper_pearson_lower(0, [1, 10**12], 1e-30) == 0)


@pytest.mark.parametrize("limit", LIMITS)
def test_limits_of_many_are_the_limits_of_each_in_float64(limit):
    errors = np.arange(9000, dtype=np.float32)[:, None] * [1, 100]
    many = limit(errors, np.float32(900_000), np.linspace(0.01, 0.99, 9000)[:, None])
    assert many.shape == (9000, 2) and many.dtype == np.float64
    for i in (0, 1, 4095, 4096, 8999):
        each = [limit(int(count), 900_000, np.linspace(0.01, 0.99, 9000)[i]) for count in errors[i]]
        assert list(many[i]) == each and all(one.dtype == np.float64 and one.shape == () for one in each)


@pytest.mark.parametrize("errors, trials", [(3, 40), (20, 40), (977, 1000)])
def test_limits_agree_with_scipy_binomtest(errors, trials):
    exact = binomtest(errors, trials).proportion_ci(0.9, method="exact")  # two-sided: 5 % for each limit
    assert [float(limit(errors, trials, 0.05)) for limit in LIMITS] == pytest.approx(list(exact), rel=1e-10)


@given(st.integers(1, 10**12), SIGNIFICANCES)
def test_limit_without_errors_has_its_closed_form(trials, significance):
    closed_form = -np.expm1(np.log(significance) / trials)
    assert float(bounds.clopper_pearson_upper(0, trials, significance)) == pytest.approx(closed_form, rel=4e-11)


@pytest.mark.parametrize("significance", [0.05, 1e-3])
def test_limits_fail_with_at_most_their_significance(significance):
    """Exactly, for fifty trials and a grid of rates: no sampling."""
    trials = 50
    errors = np.arange(trials + 1)
    lower, upper = (limit(errors, trials, significance) for limit in LIMITS)
    for rate in np.linspace(0, 1, 401):
        chances = binom.pmf(errors, trials, rate)
        assert chances[upper < rate].sum() <= significance
        assert chances[lower > rate].sum() <= significance


@pytest.mark.parametrize("limit", LIMITS)
@given(observed(), SIGNIFICANCES)
def test_limits_rise_with_the_errors(limit, observed, significance):
    errors, trials = observed
    assert limit(errors, trials, significance) <= limit(min(errors + 1, trials), trials, significance)


@given(observed(), SIGNIFICANCES, st.floats(0.01, 1))
def test_limits_widen_as_the_significance_falls(observed, significance, factor):
    assert bounds.clopper_pearson_upper(*observed, significance * factor) >= bounds.clopper_pearson_upper(
        *observed, significance
    )
    assert bounds.clopper_pearson_lower(*observed, significance * factor) <= bounds.clopper_pearson_lower(
        *observed, significance
    )


@given(observed(), SIGNIFICANCES)
def test_upper_limit_falls_with_trials_that_do_not_err(observed, significance):
    errors, trials = observed
    assert bounds.clopper_pearson_upper(errors, trials + 1, significance) <= bounds.clopper_pearson_upper(
        errors, trials, significance
    )


@given(observed(), SIGNIFICANCES)
def test_limits_enclose_the_observed_rate(observed, significance):
    lower, upper = (float(limit(*observed, significance)) for limit in LIMITS)
    assert 0 <= lower <= observed[0] / observed[1] <= upper <= 1


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize(
    "errors, trials, significance, message",
    [
        (0, 0, 0.05, "trials must be positive"),
        (0, np.nan, 0.05, "trials must be positive"),
        (0, np.inf, 0.05, "trials must be positive and below 2\\^63"),
        (-1, 10, 0.05, "errors must be in"),
        (11, 10, 0.05, "errors must be in"),
        (np.nan, 10, 0.05, "errors must be in"),
        (1, 10, 0.0, "significance must be in"),
        (1, 10, 1.0, "significance must be in"),
        (1, 10, np.nan, "significance must be in"),
    ],
)
def test_limits_refuse_what_is_no_observation(limit, errors, trials, significance, message):
    with pytest.raises(ValueError, match=message):
        limit(errors, trials, significance)
