from fractions import Fraction

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, multinomial, norm

from jaxaudit.bounds.anytime import epsilon_anytime, log_e_value, spending
from jaxaudit.bounds.conditional import epsilon_labelled, epsilon_paired

FIXED = {"labelled": epsilon_labelled, "nested": epsilon_paired}
EVERY_DESIGN = pytest.mark.parametrize("design", FIXED)
DIRECTIONS = ("forward", "reverse")
LEVEL = 0.05
DELTAS = st.one_of(st.just(0.0), st.floats(1e-12, 0.999))
SIGNIFICANCES = st.floats(1e-9, 0.5)


@st.composite
def observed(draw):
    """Any errors of any number of trials: (false positives, false negatives, trials)."""
    trials = draw(st.integers(1, 10**7))
    errors = draw(st.integers(0, trials))
    return errors, draw(st.integers(0, trials - errors)), trials


def boundary(design, epsilon, delta, q):
    """Chances of (success, failure) per trial where (epsilon, delta)-DP is tight and the rare event has chance q.

    For labelled trials these are chances given the hypothesis: of a trial under H1, and of one under H0.
    """
    p = np.exp(epsilon) * q + delta
    return (p, q) if design == "labelled" else (p - q, q)


def mixture(epsilon, successes, failures, trials, delta, design):
    """The logarithm of the wealth, trial by trial, to forty digits."""
    with mp.workdps(40):
        z, delta, total, mass = mp.exp(-mp.mpf(epsilon)), mp.mpf(delta), mp.mpf(0), mp.mpf(0)
        for j in range(40):
            rate = 8 / mp.mpf(1.5) ** j
            weight, theta = rate * mp.exp(-3 * rate / 4), 1 - mp.exp(-rate)
            ends = []
            for end in (z, mp.mpf(1)):
                lost = theta if design == "labelled" else theta * (1 - end)
                won = (1 + theta * end) ** successes * (1 - lost) ** failures
                ends.append(won / (1 + theta * delta * end) ** trials)
            total, mass = total + weight * min(ends), mass + weight
        return mp.log(total / mass)


@EVERY_DESIGN
@pytest.mark.parametrize("delta", [0.0, 1e-3, 0.3])
@pytest.mark.parametrize("epsilon", [0.0, 0.4, 5.0])
def test_e_value_is_its_mixture_to_1e_10_and_on_the_safe_side(design, delta, epsilon):
    for counts in ((0, 0, 0), (1, 0, 3), (9, 2, 20), (700, 40, 900), (10**6, 3, 10**6), (10**6, 10**4, 10**8)):
        exact = mixture(epsilon, *counts, delta, design)
        assert exact - 1e-10 * (1 + abs(exact)) <= float(log_e_value(epsilon, *counts, delta, design)) <= exact


@EVERY_DESIGN
def test_e_value_is_exact_to_1e_6_for_1e12_trials(design):
    """Where it matters: near the root, where huge terms cancel."""
    trials = 3 * 10**12
    for v, u in ((5 * 10**11, 4 * 10**11), (10**12 - 3, 0), (10**12, 10**6)):
        misses = trials - v - (u if design == "nested" else 0)
        bound = float(epsilon_anytime(u, misses, trials, 1e-9, LEVEL, design=design))
        exact = mixture(bound, v, u, trials, 1e-9, design)
        assert exact - 1e-6 <= float(log_e_value(bound, v, u, trials, 1e-9, design)) <= exact
        assert exact == pytest.approx(np.log(1 / LEVEL), abs=1e-3)  # 1e-11 in epsilon


@pytest.mark.parametrize("counts, epsilon", [((3, 1), 0.0), ((20, 0), 1.5), ((40, 11), 0.7), ((300, 70), 1.0)])
def test_without_delta_it_is_robbins_mixture_over_the_share_of_successes(counts, epsilon):
    """A likelihood ratio against π0 = e^ε/(1 + e^ε), averaged over Beta(1, 3/4) cut off below π0."""
    (v, u), top = counts, 1 / (1 + mp.exp(epsilon))

    def ratio(root):  # (1 - π) / (1 - π0) = root⁴, the chance of a failure against its least value under the claim
        return ((1 - top * root**4) / (1 - top)) ** v * root ** (4 * u) * 3 * root**2

    integral = float(mp.log(mp.quad(ratio, [0, 0.25, 0.5, 0.75, 1])))
    assert float(log_e_value(epsilon, v, u, v + u, 0.0)) == pytest.approx(integral, abs=0.01)
    assert integral > 0


@EVERY_DESIGN
@pytest.mark.parametrize("delta", [0.0, 0.02, 0.2])
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("trials", [1, 5, 12])
def test_mean_wealth_at_the_boundary_is_at_most_one(design, delta, epsilon, trials):
    """Exactly, over all outcomes of the trials. Without delta the boundary is the least favourable law: mean one."""
    success, failure = boundary(design, epsilon, delta, 0.08)
    counts = np.array([c for c in np.ndindex(*(trials + 1,) * 4) if sum(c) == trials])
    if design == "labelled":
        law = [success / 2, (1 - success) / 2, failure / 2, (1 - failure) / 2]
        successes, failures, paid = counts[:, 0], counts[:, 2], counts[:, 0] + counts[:, 1]
    else:
        law = [success, failure, 1 - success - failure, 0.0]
        successes, failures, paid = counts[:, 0], counts[:, 1], trials
    wealth = np.exp(log_e_value(epsilon, successes, failures, paid, delta, design))
    mean = np.sum(multinomial.pmf(counts, trials, law) * wealth)
    assert mean <= 1
    assert delta > 0 or mean == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("delta", [0.0, 0.02, 0.2])
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 2.0])
def test_mean_wealth_of_trials_in_turn_is_at_most_one(delta, epsilon):
    """Exactly, for seven independent trials of each hypothesis at the boundary."""
    success, failure = boundary("labelled", epsilon, delta, 0.08)
    v, u = np.ogrid[:8, :8]
    wealth = np.exp(log_e_value(epsilon, v, u, 7, delta))
    assert np.sum(binom.pmf(v, 7, success) * binom.pmf(u, 7, failure) * wealth) <= 1


def ever(law, epsilon, delta, design, trials=60):
    """The chance that the wealth is ever at least 1 / LEVEL, exactly, from the law of (successes, failures)."""
    chances, crossed = np.zeros((trials + 1, trials + 1)), 0.0
    chances[0, 0] = 1.0
    v, u = np.ogrid[: trials + 1, : trials + 1]
    for trial in range(1, trials + 1):
        moved = (1 - sum(law)) * chances
        moved[1:] += law[0] * chances[:-1]
        moved[:, 1:] += law[1] * chances[:, :-1]
        over = log_e_value(epsilon, v, u, trial, delta, design) >= -np.log(LEVEL)
        crossed += moved[over].sum()
        chances = np.where(over, 0.0, moved)
    return crossed


@pytest.mark.parametrize("design, delta", [("nested", 0.0), ("nested", 0.02), ("nested", 0.3), ("labelled", 0.0)])
def test_wealth_ever_refutes_a_true_claim_with_at_most_its_level(design, delta):
    """Exactly, over all paths of sixty trials at the boundary."""
    law = boundary(design, 1.0, delta, 0.1)
    assert 0.002 < ever(law if design == "nested" else (law[0] / 2, law[1] / 2), 1.0, delta, design) <= LEVEL


def test_wealth_that_does_not_pay_for_delta_is_caught():
    assert ever(boundary("nested", 1.0, 0.3, 0.1), 1.0, 0.0, "nested") > 4 * LEVEL


def condemned(failures, repetitions):
    """The judge: would a rule that fails at most one time in twenty fail this often? False alarms: 1e-4."""
    return binom.sf(failures - 1, repetitions, LEVEL) < 1e-4


def looks(rng, design, epsilon, delta, q, repetitions, number=150):
    """(successes, failures, trials that δ is paid for) at 150 looks from 300 to 300,000 trials, at the boundary."""
    success, failure = boundary(design, epsilon, delta, q)
    steps = np.diff(np.geomspace(300, 300_000, number).astype(int), prepend=0)
    shape = (repetitions, number)
    if design == "nested":
        found = rng.multinomial(np.broadcast_to(steps, shape), [success, failure, 1 - success - failure])
        parts = found[..., 0], found[..., 1], np.broadcast_to(steps, shape)
    else:
        h1 = rng.binomial(steps, 0.5, size=shape)
        parts = rng.binomial(h1, success), rng.binomial(steps - h1, failure), h1
    return tuple(np.cumsum(part, axis=1) for part in parts), np.cumsum(steps)


def as_errors(counts, total, design, direction):
    """The error counts and trials that give these successes and failures."""
    successes, failures, paid = counts
    misses = paid - successes - (failures if design == "nested" else 0)
    trials = (paid, paid) if design == "nested" else (total - paid, paid)
    return (failures, misses, trials) if direction == "forward" else (misses, failures, trials[::-1])


@pytest.mark.parametrize("delta, direction", [(0.0, "forward"), (2e-3, "reverse")])
@EVERY_DESIGN
def test_bound_at_any_of_150_looks_is_above_the_truth_in_at_most_one_of_twenty_runs(design, delta, direction):
    """At the boundary, 600 runs; the judge's false-alarm rate is 1e-4. In 4000 runs it was 3.7 to 4.0 %."""
    rng = np.random.default_rng(11)
    counts, totals = looks(rng, design, 1.0, delta, 0.01, repetitions=600)
    best = np.argmax(log_e_value(1.0, *counts, delta, design), axis=1)
    worst = tuple(np.take_along_axis(part, best[:, None], axis=1)[:, 0] for part in counts)
    errors = as_errors(worst, totals[best], design, direction)
    failures = np.sum(epsilon_anytime(*errors, delta, LEVEL, direction, design) > 1.0)
    assert not condemned(failures, 600)
    assert failures > 0


@EVERY_DESIGN
def test_bound_for_a_fixed_number_of_trials_looked_at_150_times_is_caught(design):
    """At the boundary it fails in 17 to 39 % of the runs."""
    counts, totals = looks(np.random.default_rng(12), design, 1.0, 2e-3, 0.01, repetitions=300)
    errors = as_errors(counts, totals, design, "forward")
    failures = np.sum((FIXED[design](*errors, 2e-3, LEVEL) > 1.0).any(axis=1))
    assert condemned(failures, 300)


@EVERY_DESIGN
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_bound_is_where_the_wealth_passes_the_inverse_of_the_significance(design, direction):
    counts, totals = looks(np.random.default_rng(13), design, 1.5, 2e-3, 0.01, repetitions=5, number=20)
    errors = as_errors(counts, totals, design, direction)
    for significance in (0.3, 0.05, 1e-6):
        bound = epsilon_anytime(*errors, 1e-3, significance, direction, design)
        for shift, passed in ((-1e-9, True), (1e-9, False)):
            wealth = log_e_value(np.maximum(bound + shift, 0), *counts, 1e-3, design)
            assert np.all(((wealth >= -np.log(significance)) == passed) | (bound == 0))


@EVERY_DESIGN
@pytest.mark.parametrize("mu", [1, 3])
@pytest.mark.parametrize("delta", [1e-5, 1e-3])
@pytest.mark.parametrize("draws", [10**4, 10**6, 10**8])
def test_holding_at_all_times_costs_at_most_0_35(design, mu, delta, draws):
    """Expected counts of normal scores, each bound at its best threshold."""
    thresholds = np.linspace(0, 7, 141)
    false_positives = np.round(draws * norm.sf(thresholds))
    false_negatives = np.minimum(np.round(draws * norm.cdf(thresholds - mu)), draws - false_positives)
    counts = false_positives, false_negatives, (draws, draws), delta, LEVEL
    assert FIXED[design](*counts).max() - epsilon_anytime(*counts, design=design).max() <= 0.35


@EVERY_DESIGN
@settings(max_examples=25)
@given(observed(), DELTAS, SIGNIFICANCES, st.sampled_from(DIRECTIONS))
def test_bounds_are_finite_and_below_what_no_failures_could_give(design, observed, delta, significance, direction):
    bound = epsilon_anytime(*observed, delta, significance, direction, design)
    assert 0 <= bound <= max(np.log(observed[2] / -np.log(significance)), 0)


@EVERY_DESIGN
@settings(max_examples=25)
@given(observed(), DELTAS, SIGNIFICANCES)
def test_exchanging_the_hypotheses_exchanges_the_directions(design, observed, delta, significance):
    false_positives, false_negatives, trials = observed
    reverse = epsilon_anytime(false_negatives, false_positives, trials, delta, significance, "reverse", design)
    assert reverse == epsilon_anytime(*observed, delta, significance, "forward", design)


@EVERY_DESIGN
@settings(max_examples=25)
@given(observed(), DELTAS, DELTAS, SIGNIFICANCES)
def test_bounds_fall_with_errors_and_delta(design, observed, delta, other, significance):
    (false_positives, false_negatives, trials), (small, large) = observed, sorted([delta, other])
    bound = epsilon_anytime(*observed, small, significance, design=design)
    assert epsilon_anytime(*observed, large, significance, design=design) <= bound
    for more in ((min(false_positives + 1, trials), false_negatives), (false_positives, false_negatives + 1)):
        assert epsilon_anytime(*np.minimum(more, trials), trials, small, significance, design=design) <= bound


@EVERY_DESIGN
@settings(max_examples=25)
@given(observed(), DELTAS, st.lists(st.floats(0, 12), min_size=2, max_size=8))
def test_wealth_falls_as_the_claim_weakens(design, observed, delta, claims):
    """So that a bound refutes every claim below it."""
    failures, missed, trials = observed
    wealth = log_e_value(np.sort(claims), trials - failures - missed, failures, trials, delta, design)
    assert np.all(np.diff(wealth) <= 1e-12 * np.abs(wealth[:-1]) + 1e-12)


def test_bounds_broadcast():
    errors, deltas = np.arange(0, 200, 50), np.array([[0.0], [1e-3], [0.1]])
    table = epsilon_anytime(errors, 100, 1000, deltas, 0.05)
    assert table.shape == (3, 4)
    assert table.tolist() == [[float(epsilon_anytime(e, 100, 1000, d, 0.05)) for e in errors] for d in deltas.ravel()]


@pytest.mark.parametrize("looks", [1, 2, 3, 10, 1000])
@pytest.mark.parametrize("significance", [0.05, 0.3, 1e-9])
@pytest.mark.parametrize("final", [0.5, 0.9, 0.999999])
def test_spending_spends_at_most_the_significance(looks, significance, final):
    shares = spending(significance, looks, final)
    assert shares.shape == (looks,) and np.all(shares > 0)
    assert sum(map(Fraction, shares)) <= Fraction(significance)
    assert shares.sum() <= significance
    assert shares.sum() == pytest.approx(significance)
    assert shares[-1] == pytest.approx(final * significance if looks > 1 else significance)
    assert np.all(np.diff(shares[:-1]) < 0)


@pytest.mark.parametrize(
    "refusing, arguments, message",
    [
        (epsilon_anytime, (1, 1, 10, 0.0, 0.05, "sideways"), "'forward' or 'reverse', got 'sideways'"),
        (epsilon_anytime, (1, 1, 10, 0.0, 0.05, "forward", "paired"), "'labelled' or 'nested', got 'paired'"),
        (epsilon_anytime, (1, -1, 10, 0.0, 0.05), "false_negatives must be in"),
        (epsilon_anytime, (np.nan, 1, 10, 0.0, 0.05), "false_positives must be in"),
        (epsilon_anytime, (1, 1, 10, 1.0, 0.05), "delta must be in"),
        (epsilon_anytime, (1, 1, 10, 0.0, np.nan), "significance must be in"),
        (epsilon_anytime, (1, 1, (10, 11), 0.0, 0.05, "forward", "nested"), "nested trials cannot be 10.0 of h0"),
        (epsilon_anytime, (1, 1, (400, 1000), 0.0, 0.05), "labelled trials cannot be 400.0 of h0 and 1000.0 of h1"),
        (log_e_value, (-0.1, 1, 1, 9, 0.0), "epsilon must be at least 0, got -0.1"),
        (log_e_value, (1.0, np.nan, 1, 9, 0.0), "successes must be at least 0"),
        (log_e_value, (1.0, 1, 1, 9, -1e-3), "delta must be in"),
        (log_e_value, (1.0, 1, 1, 9, 0.0, "paired"), "design must be 'labelled' or 'nested'"),
        (spending, (0.0, 3), "significance must be in"),
        (spending, (0.05, 2.5), "looks must be a whole number"),
        (spending, (0.05, 3, 1.0), "final must be in"),
    ],
)
def test_what_cannot_be_is_refused(refusing, arguments, message):
    with pytest.raises(ValueError, match=message):
        refusing(*arguments)
