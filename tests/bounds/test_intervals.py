import mpmath as mp
import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import betainc, betaincc
from scipy.stats import binom, binomtest

from jaxaudit import bounds

LIMITS = [bounds.clopper_pearson_lower, bounds.clopper_pearson_upper]
SIGNIFICANCES = st.floats(1e-12, 0.5)


@st.composite
def observed(draw):
    trials = draw(st.integers(1, 10**9))
    return draw(st.integers(0, trials)), trials


@pytest.mark.parametrize("significance", [0.05, 1e-4, 1e-12])
@pytest.mark.parametrize("trials", [10**3, 10**6, 10**9, 10**12])
def test_limits_are_exact_to_1e_7_and_on_the_safe_side(trials, significance):
    for errors in (0, 1, 3, 50, trials - 1, trials):
        upper = mp.mpf(float(bounds.clopper_pearson_upper(errors, trials, significance)))
        lower = mp.mpf(float(bounds.clopper_pearson_lower(errors, trials, significance)))
        exact_upper = reference.clopper_pearson_upper(errors, trials, significance)
        exact_lower = reference.clopper_pearson_lower(errors, trials, significance)
        assert exact_upper <= upper <= exact_upper * (1 + 1e-7)
        assert exact_lower * (1 - 1e-7) <= lower <= exact_lower


@pytest.mark.parametrize("significance", [0.05, 1e-4, 1e-12])
@pytest.mark.parametrize("trials", [10**4, 10**7, 10**9, 10**10, 10**12])
def test_limits_have_their_tail_at_every_small_number_of_errors_or_successes(trials, significance):
    """SciPy's inverse of the tail is wrong at single points (999 of 1e10 errors in 1.17); the tail is right."""
    few = np.arange(1, 3000)
    errors = np.concatenate([few, trials - few])
    upper = bounds.clopper_pearson_upper(errors, trials, significance)
    assert np.all(betaincc(errors + 1, trials - errors, upper) <= significance)
    assert np.all(betaincc(errors + 1, trials - errors, upper * (1 - 1e-7)) >= significance)
    lower = bounds.clopper_pearson_lower(errors, trials, significance)
    assert np.all(betainc(errors, trials - errors + 1, lower) <= significance)
    assert np.all(betainc(errors, trials - errors + 1, np.minimum(lower * (1 + 1e-7), 1)) >= significance)


@pytest.mark.parametrize("errors, trials", [(3, 40), (20, 40), (977, 1000)])
def test_limits_agree_with_scipy_binomtest(errors, trials):
    exact = binomtest(errors, trials).proportion_ci(0.9, method="exact")  # two-sided: 5 % for each limit
    assert [float(limit(errors, trials, 0.05)) for limit in LIMITS] == pytest.approx(list(exact), rel=1e-7)


@given(st.integers(1, 10**12), SIGNIFICANCES)
def test_limit_without_errors_has_its_closed_form(trials, significance):
    closed_form = -np.expm1(np.log(significance) / trials)
    assert float(bounds.clopper_pearson_upper(0, trials, significance)) == pytest.approx(closed_form, rel=1e-7)


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
