import mpmath as mp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import bootstrap as scipy_bootstrap
from scipy.stats import chi2, norm

from jaxaudit.bounds.bootstrap import bootstrap
from jaxaudit.bounds.estimates import (
    ESTIMATES,
    ONE_RUN_ESTIMATES,
    epsilon_gdp,
    epsilon_jeffreys,
    epsilon_joint_beta,
    epsilon_melded,
    epsilon_one_run_fdp,
    epsilon_raw_counts,
)
from jaxaudit.bounds.samples import Scores

EVERY_ESTIMATE = pytest.mark.parametrize("estimate", [e.function for e in ESTIMATES.values()], ids=ESTIMATES)
JOINT = pytest.mark.parametrize("estimate", [epsilon_joint_beta, epsilon_melded])
FEW = settings(max_examples=15)
DELTAS = st.sampled_from([0.0, 1e-5, 1e-3, 0.1])
SIGNIFICANCES = st.sampled_from([0.5, 0.05, 1e-4])


@st.composite
def observed(draw):
    """Any errors of any number of trials: (false positives, false negatives, trials)."""
    trials = draw(st.integers(1, 10**9))
    return draw(st.integers(0, trials)), draw(st.integers(0, trials)), trials


def test_no_estimate_is_called_certified():
    for name, (function, kind, assumption) in (ESTIMATES | ONE_RUN_ESTIMATES).items():
        assert kind in ("bayesian", "conjectured", "parametric", "estimate"), name
        assert callable(function) and assumption


@pytest.mark.parametrize(
    "fn, fp, tp, tn, delta, published",
    [
        # privacy-estimates 0.1.0.post1: compute_eps_lo(AttackResults(fn, fp, tn, tp), delta, 0.05, "jeffreys")
        (20, 5, 980, 995, 0.0, 4.486152549499447),
        (20, 5, 980, 995, 0.1, 4.377335834689328),
        (300, 2, 700, 998, 0.001, 4.650976778058124),
        (977, 3, 23, 997, 0.0, 0.6328900760361974),
        (0, 0, 100, 100, 0.1, 3.565880603716347),
    ],
)
def test_jeffreys_is_that_of_privacy_estimates(fn, fp, tp, tn, delta, published):
    assert epsilon_jeffreys(fp, fn, (fp + tn, fn + tp), delta, 0.05) == pytest.approx(published, abs=1e-9)


@pytest.mark.parametrize("significance, failing", [(0.1, np.exp(-1.92)), (0.05, np.exp(-2.51))])
def test_jeffreys_fails_more_often_than_it_says(significance, failing):
    """Exactly: H1 always shows the event and H0 a little more rarely than the bound without errors has it."""
    trials = 10**6
    claimed = float(epsilon_jeffreys(0, 0, trials, 0.0, significance))
    rate = np.exp(-claimed) * (1 + 1e-9)
    assert claimed > -np.log(rate)  # no false positives, and the bound is above the true epsilon
    chance = (1 - rate) ** trials
    assert chance == pytest.approx(failing, rel=5e-3)
    assert chance > 1.4 * significance


def posterior_mass(tp, fn, fp, tn, delta, epsilon):
    """P(T <= e^ε F + δ) for independent T ~ Beta(tp, fn) and F ~ Beta(fp, tn)."""
    with mp.workdps(20):
        odds, norming = mp.exp(epsilon), mp.beta(fp, tn)

        def integrand(x):
            inside = mp.betainc(tp, fn, 0, min(odds * x + delta, mp.mpf(1)), regularized=True)
            return mp.exp((fp - 1) * mp.log(x) + (tn - 1) * mp.log(1 - x)) / norming * inside

        mean = mp.mpf(fp) / (fp + tn)
        spread = mp.sqrt(mean * (1 - mean) / (fp + tn + 1))
        cuts = [mean + step * spread for step in (-12, -4, 0, 4, 12, 30)] + [(1 - delta) / odds]
        return float(mp.quad(integrand, [0, *sorted(cut for cut in cuts if 0 < cut < 1), 1]))


@pytest.mark.parametrize(
    "errors, trials, delta, significance",
    [((0, 0), 100, 0.0, 0.05), ((3, 100), 200, 0.1, 0.05), ((0, 30), 1000, 1e-3, 0.01), ((12, 25), 40, 0.0, 0.4)],
)
def test_joint_bounds_have_their_probability(errors, trials, delta, significance):
    """Within 2e-5 of the epsilon that twenty digits give, for either law of the rates."""
    (fp, fn), (tn, tp) = errors, (trials - errors[0], trials - errors[1])
    for estimate, shapes in (
        (epsilon_joint_beta, (tp + 0.5, fn + 0.5, fp + 0.5, tn + 0.5)),
        (epsilon_melded, (tp, fn + 1, fp + 1, tn)),
    ):
        found = float(estimate(*errors, trials, delta, significance))
        assert posterior_mass(*shapes, delta, found - 2e-5) < significance
        assert posterior_mass(*shapes, delta, found + 2e-5) > significance


@pytest.mark.parametrize("trials", [10**4, 10**6, 10**9])
@pytest.mark.parametrize("significance", [0.05, 1e-6])
def test_joint_bound_without_errors_has_its_closed_form(trials, significance):
    """Then T is 1, and twice the trials times F is chi-square with one degree of freedom, up to 1 / trials."""
    expected = np.log(2 * trials / chi2.isf(significance, 1))
    found = epsilon_joint_beta(0, 0, trials, 0.0, significance)
    assert found == pytest.approx(expected, abs=20 / trials + 1e-6)


def test_melded_bound_of_power_laws_has_its_closed_form():
    """T = U^(1/n) and F = V^(1/m): ln T and ln F are exponential, and P(T > e^ε F) = e^(-mε) n / (n + m)."""
    n, m = 1000, 10
    expected = -np.log(0.95 * (n + m) / n) / m
    assert epsilon_melded(m - 1, 0, (m, n), 0.0, 0.05) == pytest.approx(expected, abs=1e-7)


@JOINT
@pytest.mark.parametrize("errors", [(10**3, 9 * 10**8), (10**8, 10**8), (10**7, 5)])
def test_joint_bounds_of_very_many_trials_are_normal(errors, estimate):
    """With many errors of each kind ln(T / F) is normal, up to 1 / errors."""
    trials = 10**9
    tpr, fpr = 1 - errors[1] / trials, errors[0] / trials
    deviation = np.sqrt((1 - tpr) / (trials * tpr) + (1 - fpr) / (trials * fpr))
    expected = np.log(tpr / fpr) + norm.ppf(0.05) * deviation
    assert estimate(*errors, trials, 0.0, 0.05) == pytest.approx(expected, abs=2 * deviation**2 + 1e-7)


@pytest.mark.parametrize(
    "fn, fp, tp, tn, delta, published",
    [
        # privacy-estimates 0.1.0.post1: compute_eps_lo(AttackResults(fn, fp, tn, tp), delta, 0.05, "joint-beta"),
        # which takes 2 to 50 s each and stops within 1e-2.
        (20, 5, 980, 995, 0.0, 4.605464190520982),
        (10, 10, 190, 190, 0.1, 2.5649170839416087),
        (100, 40, 900, 960, 0.001, 2.865575210243175),
        (300, 2, 700, 998, 0.0, 4.841635830784933),
        (977, 3, 23, 997, 0.001, 1.0606769547544486),
        (977, 3, 23, 997, 0.1, 0.0),
        (1, 0, 49, 50, 0.1, 3.5135661241866085),
        (0, 0, 100, 100, 0.0, 4.8948732565405875),
    ],
)
def test_joint_bound_in_both_directions_is_that_of_privacy_estimates(fn, fp, tp, tn, delta, published):
    found = epsilon_joint_beta(fp, fn, (fp + tn, fn + tp), delta, 0.05, "both")
    assert found == pytest.approx(published, abs=4e-3)


@FEW
@given(observed(), DELTAS, SIGNIFICANCES)
def test_joint_bound_in_both_directions_is_above_either(observed, delta, significance):
    """More inequalities must hold, so their probability is smaller at every epsilon."""
    both, *either = (
        epsilon_joint_beta(*observed, delta, significance, direction) for direction in ("both", "forward", "reverse")
    )
    assert both >= max(either) - 1e-4


@pytest.mark.parametrize("trials", [100, 10**6])
def test_gdp_without_errors_has_its_closed_form(trials):
    distance = -2 * norm.ppf(-np.expm1(np.log(0.025) / trials))
    expected = reference.gaussian_epsilon(1e-5, distance)
    assert epsilon_gdp(0, 0, trials, 1e-5, 0.05) == pytest.approx(expected, rel=1e-6)


def test_gdp_claims_too_much_of_randomised_response():
    """One bit told with odds e : 1 has ε = 1 at every delta; from the expected counts gdp makes it more than 5."""
    trials, truth = 10**8, 1 / (1 + np.exp(-1))
    wrong = round(trials * (1 - truth))
    assert reference.randomised_response_epsilon(1e-5, 1.0) < 1
    assert epsilon_gdp(wrong, wrong, trials, 1e-5, 0.05) == pytest.approx(5.6, abs=0.1)


def test_raw_counts_are_the_observed_ratio():
    assert epsilon_raw_counts(20, 500, 1000, 0.1) == pytest.approx(np.log((0.5 - 0.1) / 0.02))
    assert epsilon_raw_counts(20, 500, (1000, 2000), 0.0, direction="reverse") == pytest.approx(np.log(0.98 / 0.25))


def test_raw_counts_without_errors_are_infinite_and_without_the_event_zero():
    assert epsilon_raw_counts(0, 500, 1000, 0.1) == np.inf
    assert epsilon_raw_counts([0, 5, 1000], [1000, 1000, 0], 1000, 0.0).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "correct, guesses, canaries, delta, published",
    [
        # jax_privacy 2.0.0: auditing._epsilon_one_run_fdp(0, canaries, guesses, correct, 0.05, delta)
        (60, 80, 100, 1e-5, 1.4026424558555992),
        (900, 1000, 2000, 1e-5, 3.3975465476997906),
        (900, 1000, 20_000, 1e-3, 1.8126041906384558),
        (30, 30, 30, 1e-5, 5.709798242073036),
        (6000, 10_000, 20_000, 1e-5, 0.5539571647168042),
        (50, 100, 100, 1e-5, 0.0),
    ],
)
def test_one_run_fdp_is_that_of_jax_privacy(correct, guesses, canaries, delta, published):
    assert epsilon_one_run_fdp(correct, guesses, canaries, delta, 0.05) == pytest.approx(published, abs=3e-6)


def test_one_run_fdp_of_two_right_guesses_has_its_closed_form():
    """At α = 0.4, r = 0.4, h = Φ(Φ⁻¹(0.4) - μ), r = 0.4 + h, h = Φ(Φ⁻¹(r) - μ), and r + h > 1 refutes μ."""

    def excess(distance):
        right = 0.4 + norm.cdf(norm.ppf(0.4) - distance)
        return right + norm.cdf(norm.ppf(right) - distance) - 1

    expected = reference.gaussian_epsilon(1e-3, brentq(excess, 0, 5))
    assert epsilon_one_run_fdp(2, 2, 2, 1e-3, 0.4) == pytest.approx(expected, abs=1e-6)
    assert epsilon_one_run_fdp(1, 1, 1, 1e-3, 0.05) == 0


def test_one_run_fdp_at_delta_zero_is_nothing_or_everything():
    assert epsilon_one_run_fdp(90, 100, 100, 0.0, 0.05) == np.inf
    assert epsilon_one_run_fdp(0, 0, 100, 0.0, 0.05) == 0


@pytest.mark.parametrize("numbers", [(5, 4, 10), (4, 11, 10), (-1, 4, 10), (0, 0, 0)])
def test_one_run_fdp_refuses_what_cannot_have_been_guessed(numbers):
    with pytest.raises(ValueError, match="0 <= correct <= guesses <= canaries"):
        epsilon_one_run_fdp(*numbers, 1e-5, 0.05)


@EVERY_ESTIMATE
@FEW
@given(observed(), DELTAS, SIGNIFICANCES)
def test_exchanging_the_hypotheses_exchanges_the_directions(estimate, observed, delta, significance):
    false_positives, false_negatives, trials = observed
    forward = estimate(false_positives, false_negatives, (trials, 2 * trials), delta, significance, "forward")
    assert forward == estimate(false_negatives, false_positives, (2 * trials, trials), delta, significance, "reverse")


@EVERY_ESTIMATE
@FEW
@given(observed(), DELTAS, DELTAS, SIGNIFICANCES)
def test_estimates_fall_with_delta_and_with_every_error(estimate, observed, delta, other, significance):
    false_positives, false_negatives, trials = observed
    small, large = sorted([delta, other])
    found = estimate(*observed, small, significance)
    assert found >= 0
    assert estimate(*observed, large, significance) <= found + 1e-7
    assert estimate(min(false_positives + 1, trials), false_negatives, trials, small, significance) <= found + 1e-7
    assert estimate(false_positives, min(false_negatives + 1, trials), trials, small, significance) <= found + 1e-7


@EVERY_ESTIMATE
def test_estimates_broadcast(estimate):
    errors, deltas = np.array([0, 50, 100]), np.array([[1e-3], [0.1]])
    table = estimate(errors, 100, 1000, deltas, 0.05)
    assert table.dtype == np.float64
    assert table.tolist() == [[float(estimate(e, 100, 1000, d, 0.05)) for e in errors] for d in deltas.ravel()]


@EVERY_ESTIMATE
@pytest.mark.parametrize(
    "arguments, message",
    [
        ((11, 0, 10, 0.0, 0.05), "false_positives must be in"),
        ((0, -1, 10, 0.0, 0.05), "false_negatives must be in"),
        ((0, 0, (10, 0), 0.0, 0.05), "trials must be positive"),
        ((1, 1, 10, 1.0, 0.05), "delta must be in"),
        ((1, 1, 10, 0.0, 0.05, "sideways"), "direction must be 'forward' or 'reverse', got 'sideways'"),
    ],
)
def test_estimates_refuse_what_is_no_observation(estimate, arguments, message):
    with pytest.raises(ValueError, match=message):
        estimate(*arguments)


@pytest.mark.parametrize("name", ["jeffreys", "joint-beta", "melded", "gdp"])
@pytest.mark.parametrize("significance", [0.0, 1.0, np.nan])
def test_estimates_refuse_a_significance_that_is_none(name, significance):
    with pytest.raises(ValueError, match="significance must be in"):
        ESTIMATES[name].function(1, 1, 10, 0.0, significance)


def difference(scores):
    return scores.h1.mean() - scores.h0.mean()


@pytest.mark.parametrize(
    "corrections, published",
    [
        # jax_privacy 2.0.0, mean_difference a function of the auditor:
        # auditing.CanaryScoreAuditor(h1, h0)._bootstrap(mean_difference, auditing.BootstrapParams(
        #     num_samples=200, quantiles=(.05, .5, .95), bias_correction=..., acceleration=..., seed=7))
        ((False, False), [-38.60919825053276, -13.836683314185386, 7.563724352443955]),
        ((True, False), [-39.50882499311496, -15.518659719747498, 6.3881522331350995]),
        ((True, True), [-39.544980458442915, -15.51877406946662, 6.366403855937614]),
    ],
)
def test_bootstrap_is_that_of_jax_privacy(corrections, published):
    scores = Scores(np.arange(40.0) ** 1.5, np.arange(30.0) ** 1.5 + 20, "s", "independent")
    found = bootstrap(scores, difference, 200, (0.05, 0.5, 0.95), 7, *corrections)
    np.testing.assert_allclose(found, published, rtol=1e-12)


@pytest.mark.parametrize("paired", [False, True])
def test_bootstrap_agrees_with_scipy(paired):
    """Skewed scores, both BCa at 4,000 resamples: quantiles are within four Monte-Carlo errors, false alarm 1e-4."""
    rng = np.random.default_rng(0)
    h0 = rng.exponential(size=60)
    h1 = 0.8 * h0 + rng.exponential(size=60)
    scores = Scores(h0, h1, "s", "paired" if paired else "independent")
    ours = bootstrap(scores, difference, 4000, (0.05, 0.95), 1, acceleration=True)
    theirs = scipy_bootstrap(
        (h1, h0), lambda h1, h0, axis: h1.mean(axis) - h0.mean(axis), paired=paired, confidence_level=0.9,
        n_resamples=4000, method="BCa", random_state=np.random.default_rng(2),
    )  # fmt: skip
    deviation = theirs.bootstrap_distribution.std()
    # A 5 % quantile of 4,000 normal values has standard error 0.033 deviations.
    np.testing.assert_allclose(ours, list(theirs.confidence_interval), atol=4 * np.sqrt(2) * 0.033 * deviation)


def test_bootstrap_keeps_pairs_together():
    h0 = np.random.default_rng(0).normal(size=50)
    nested = Scores(h0, h0 + 3.0, "s", "nested")
    np.testing.assert_allclose(bootstrap(nested, difference, 50, seed=0), 3.0)


def test_bootstrap_draws_trials_that_failed():
    scores = Scores(np.arange(30.0), np.arange(40.0), "s", "independent", failed=(10, 20))
    assert bootstrap(scores, lambda drawn: sum(drawn.trials), 20, (0.1, 0.9), 0).tolist() == [100, 100]
    low, high = bootstrap(scores, lambda drawn: drawn.failed[1], 2000, (0.05, 0.95), 0, bias_correction=False)
    # Bin(60, 1/3): 20 ± 1.645 · 3.65.
    assert (low, high) == (14, 26)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"quantiles": (0.5, 1.0)}, "quantiles must be in"),
        ({"quantiles": ()}, "quantiles must be in"),
        ({"samples": 0}, "samples must be positive"),
        ({"bias_correction": False, "acceleration": True}, "acceleration needs bias_correction"),
        ({"samples": 1, "acceleration": True}, "acceleration is not defined where trials failed"),
    ],
)
def test_bootstrap_refuses_what_it_cannot_give(arguments, message):
    failed = Scores(np.arange(3.0), np.arange(3.0), "s", failed=(0, 1))
    with pytest.raises(ValueError, match=message):
        bootstrap(failed, difference, **arguments)
