import math
from bisect import bisect_right
from fractions import Fraction
from itertools import accumulate, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from jaxaudit.bounds.exact import Tails, Term, exact_curve, exact_epsilon, exact_tails
from jaxaudit.bounds.tradeoff import Tradeoff

FLOATING = 1e-12  # what the other side of a comparison may itself be wrong by


def coin(probability, times, low=0.0, high=1.0):
    return Term(np.array([low, high]), np.array([1 - probability, probability]), times)


def uniform(values, times=1):
    return Term(np.asarray(values, np.float64), np.full(len(values), 1 / len(values)), times)


def law(terms):
    """Exact law of the sum in rational arithmetic: {value: probability}."""
    total = {Fraction(0): Fraction(1)}
    for values, probabilities, times in terms:
        mass = sum(Fraction(float(p)) for p in probabilities)
        atoms = [(Fraction(float(v)), Fraction(float(p)) / mass) for v, p in zip(values, probabilities)]
        for _ in range(times):
            following = {}
            for (at, weight), (value, p) in product(total.items(), atoms):
                following[at + value] = following.get(at + value, 0) + weight * p
            total = following
    return total


def truth(terms, at):
    """(P(S >= t), P(S > t), P(S <= t), P(S < t)) as fractions, for each threshold."""
    atoms, at = law(terms), [Fraction(float(t)) for t in at]
    return [
        [sum(p for value, p in atoms.items() if holds(value, t)) for t in at]
        for holds in (Fraction.__ge__, Fraction.__gt__, Fraction.__le__, Fraction.__lt__)
    ]


def assert_bracket(tails, ge, le):
    """Fractions compare exactly with floats: no tolerance."""
    for lower, upper, exact in ((tails.ge_lower, tails.ge_upper, ge), (tails.le_lower, tails.le_upper, le)):
        assert all(Fraction(float(a)) <= p <= Fraction(float(b)) for a, p, b in zip(lower, exact, upper))


def width(lower, upper):
    return (upper - lower) / np.maximum(upper, 1e-300)


@pytest.mark.parametrize(("trials", "p"), [(1, 0.3), (100, 0.5), (1000, 0.1), (999, 0.7)])
def test_binomial_tails_agree_with_scipy_down_to_1e_30(trials, p):
    at = np.arange(trials + 1.0)
    tails = exact_tails([coin(p, trials)], at)
    for lower, upper, exact in (
        (tails.ge_lower, tails.ge_upper, binom.sf(at - 1, trials, p)),
        (tails.le_lower, tails.le_upper, binom.cdf(at, trials, p)),
    ):
        seen = exact > 1e-30
        assert np.all(lower <= exact * (1 + FLOATING) + 1e-300) and np.all(exact <= upper * (1 + FLOATING))
        assert np.all(width(lower, upper)[seen] < 1e-6)


def test_different_terms_with_dropout_agree_with_rational_convolution():
    rng = np.random.default_rng(1)
    # Multiples of 1/8 leave a lattice of few atoms; every client drops out, and adds 0, with its own probability.
    terms = []
    for _ in range(40):
        drop = rng.integers(1, 200) / 1024
        values = np.concatenate([[0.0], rng.choice(np.arange(-16, 17) / 8, 4, replace=False)])
        terms.append(Term(values, np.array([drop, *[(1 - drop) / 4] * 4]), 1))
    at = np.arange(-70, 70, 2) + 1 / 16
    ge, _, le, _ = truth(terms, at)
    assert min(float(p) for p in ge if p) < 1e-20
    tails = exact_tails(terms, at)
    assert_bracket(tails, ge, le)
    deep = np.array([float(p) for p in ge]) > 1e-30
    assert width(tails.ge_lower, tails.ge_upper)[deep].max() < 1e-4


@pytest.mark.parametrize("times", [60, 200])
def test_tails_at_1e_30_agree_with_the_rational_law_of_values_off_every_lattice(times):
    # Three incommensurable values: the law is trinomial, summed here over counts in integers.
    term = Term(np.array([math.sqrt(2), -math.pi / 3, 0.1]), np.array([1, 2, 5]) / 8, times)
    a, b, c = (Fraction(float(value)) for value in term.values)
    atoms = sorted(
        (
            i * a + j * b + (times - i - j) * c,
            math.comb(times, i) * math.comb(times - i, j) * 2**j * 5 ** (times - i - j),
        )
        for i in range(times + 1)
        for j in range(times + 1 - i)
    )
    values, below = [value for value, _ in atoms], [0, *accumulate(count for _, count in atoms)]

    def gap(level):
        """Number of atoms below the widest gap near where the lower tail is `level`."""
        near = bisect_right(below, int(level * 8**times))
        return max(range(max(near - 8, 1), min(near + 8, len(values))), key=lambda i: values[i] - values[i - 1])

    levels = [Fraction(1, 10**k) for k in (1, 3, 5, 10, 20, 25, 30)]
    cuts = [gap(level) for level in (*levels, *(1 - level for level in levels))]
    at = [float((values[i - 1] + values[i]) / 2) for i in cuts]
    le = [Fraction(below[i], 8**times) for i in cuts]
    tails = exact_tails([term], at)
    assert_bracket(tails, [1 - p for p in le], le)
    assert width(tails.le_lower, tails.le_upper)[: len(levels)].max() < 0.01
    assert width(tails.ge_lower, tails.ge_upper)[len(levels) :].max() < 0.01


NUMBERS = st.one_of(
    st.integers(-3, 3).map(float), *(st.floats(-top, top).map(lambda x: x + 1e-20) for top in (1e-12, 10, 1e9))
)


@st.composite
def small_laws(draw):
    terms = []
    for _ in range(draw(st.integers(1, 3))):
        size = draw(st.integers(1, 4))
        values = draw(st.lists(NUMBERS, min_size=size, max_size=size))
        weights = np.array(draw(st.lists(st.integers(0, 1000), min_size=size, max_size=size)), np.float64)
        weights[0] += 1
        terms.append(Term(np.array(values), weights / weights.sum(), draw(st.integers(1, 3))))
    return terms


@given(small_laws(), st.lists(NUMBERS, min_size=1, max_size=4))
def test_limits_enclose_the_rational_law(terms, at):
    atoms = sorted(law(terms))
    at = np.array([*at, *(float(atoms[i * (len(atoms) - 1) // 3]) for i in range(4)), float(atoms[0]) - 1])
    ge, _, le, _ = truth(terms, at)
    assert_bracket(exact_tails(terms, at), ge, le)


@given(small_laws(), st.floats(0, 2), st.integers(0, 2**16))
def test_error_covers_every_law_within_it(terms, error, seed):
    rng = np.random.default_rng(seed)
    # A little inside, so that rounding of the moved value cannot leave the interval.
    moved = [
        term._replace(values=term.values + 0.99 * error * rng.uniform(-1, 1, term.values.size)) for term in terms
    ]
    near = [np.abs(a.values - b.values).max() <= error for a, b in zip(terms, moved)]
    atoms = sorted(law(moved))
    at = np.array([float(atoms[i * (len(atoms) - 1) // 3]) for i in range(4)])
    ge, _, le, _ = truth(moved, at)
    if all(near):
        assert_bracket(exact_tails(terms, at, error), ge, le)


def test_error_moves_the_thresholds_by_its_multiple():
    terms, at = [uniform(np.linspace(-1, 1, 7), 20)], np.linspace(-12, 12, 25)
    wide, plain = exact_tails(terms, at, error=1 / 32), exact_tails(terms, at)
    inner, outer = exact_tails(terms, at + 20 / 32), exact_tails(terms, at - 20 / 32)
    np.testing.assert_array_equal(wide.ge_lower, inner.ge_lower)
    np.testing.assert_allclose(wide.ge_upper, outer.ge_upper, rtol=1e-9)
    assert np.all(wide.ge_lower <= plain.ge_lower) and np.all(wide.ge_upper >= plain.ge_upper)
    assert np.all(wide.le_lower <= plain.le_lower) and np.all(wide.le_upper >= plain.le_upper)


@pytest.mark.parametrize("scale", [2.0**-60, 2.0**-20, 2.0**30, 2.0**60])
def test_limits_do_not_depend_on_the_unit(scale):
    rng = np.random.default_rng(2)
    terms, at = [uniform(rng.normal(size=5), 3) for _ in range(4)], np.linspace(-20, 20, 41)
    scaled = exact_tails([term._replace(values=scale * term.values) for term in terms], scale * at)
    np.testing.assert_allclose(scaled, exact_tails(terms, at), rtol=1e-9, atol=1e-299)


@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e9])
def test_limits_are_tight_for_values_of_any_size(unit):
    rng = np.random.default_rng(3)
    values = rng.standard_t(3, size=(6, 5)) * unit
    terms, at = [uniform(v) for v in values], np.linspace(-4, 4, 9) * unit
    tails = exact_tails(terms, at)
    ge, _, le, _ = truth(terms, at)
    assert_bracket(tails, ge, le)
    inside = np.array([p > 0 for p in ge])
    np.testing.assert_allclose(tails.ge_lower[inside], tails.ge_upper[inside], rtol=0.02)


@pytest.mark.parametrize(("outlier", "tolerance"), [(1e3, 0.01), (1e6, np.inf)])
def test_a_rare_outlier_leaves_a_bracket(outlier, tolerance):
    # So rare and far that one period must hold mostly nothing: at 1e6 the limits are true and say little.
    rare = Term(np.array([-1.0, 1.0, outlier]), np.array([0.5, 0.5 - 2**-20, 2**-20]), 12)
    terms = [rare, uniform([-1e-12, 1e-12])]
    at = np.array([-11.5, -3.5, 0.5, 5.5, outlier / 2, outlier + 4.5, 2 * outlier - 0.5])
    tails = exact_tails(terms, at)
    ge, _, le, _ = truth(terms, at)
    assert_bracket(tails, ge, le)
    assert width(tails.ge_lower, tails.ge_upper).max() < tolerance


def test_constants_shift_the_law_exactly():
    noise, at = coin(0.5, 30), np.arange(31.0)
    fixed = [Term(np.array([0.1]), np.array([1.0]), 999), Term(np.array([7.0, 7.0, 3.0]), np.array([0.5, 0.5, 0]), 2)]
    shift = 999 * Fraction(0.1) + 14
    # The shifted threshold is rounded: half a unit away from atoms it does not matter.
    shifted = np.array([float(Fraction(t) - Fraction(1, 2) + shift) for t in at])
    np.testing.assert_allclose(exact_tails([noise, *fixed], shifted), exact_tails([noise], at - 0.5), rtol=1e-9)


def test_a_sum_of_constants_is_known_exactly():
    tails = exact_tails([Term(np.array([0.25]), np.array([1.0]), 4)], [1 - 1e-15, 1.0, 1 + 1e-15])
    np.testing.assert_array_equal(tails, [[1, 1, 0], [1, 1, 0], [0, 1, 1], [0, 1, 1]])


def test_nothing_lies_beyond_the_support():
    tails = exact_tails([uniform([-0.1, 0.3, 0.7], 50)], [-5.1, 35.1])
    np.testing.assert_array_equal(tails, [[1, 0], [1, 0], [0, 1], [0, 1]])


def test_monte_carlo_agrees():
    rng = np.random.default_rng(4)
    terms, draws = [uniform(rng.standard_t(3, size=64)) for _ in range(59)], 1_000_000
    sums = np.zeros(draws)
    for term in terms:
        sums += term.values[rng.integers(0, 64, draws)]
    at = np.array([-60.0, -30.0, -10.0, 0.0, 10.0, 30.0, 60.0])
    tails = exact_tails(terms, at)
    # 14 two-sided tests at four standard errors: false alarm below 14 * 6.4e-5 = 9e-4.
    for lower, upper, count in (
        (tails.ge_lower, tails.ge_upper, (sums[:, None] >= at).sum(axis=0)),
        (tails.le_lower, tails.le_upper, (sums[:, None] <= at).sum(axis=0)),
    ):
        assert np.all(width(lower, upper) < 0.02)
        assert np.all(count >= draws * lower - 4 * np.sqrt(draws * lower))
        assert np.all(count <= draws * upper + 4 * np.sqrt(draws * upper) + 1)


def test_curve_holds_the_rational_rates_and_reaches_1e_30():
    terms, ends = [coin(0.5, 120)], (-2.0, 2.5)
    thresholds, curve = exact_curve(terms, ends)
    assert np.all(np.diff(thresholds) > 0) and 500 < thresholds.size < 1500
    at = thresholds[::10]
    fpr, fnr = truth(terms, at - ends[0])[0], truth(terms, at - ends[1])[2]
    part = Tradeoff(*(rate[::10] for rate in curve))
    assert_bracket(Tails(part.fpr_lower, part.fpr_upper, part.fnr_lower, part.fnr_upper), fpr, fnr)
    assert np.all(np.diff(curve.fpr_upper) <= 0) and np.all(np.diff(curve.fnr_lower) >= 0)
    for lower, rate, upper in (
        (curve.fpr_lower, curve.fpr, curve.fpr_upper),
        (curve.fnr_lower, curve.fnr, curve.fnr_upper),
    ):
        assert np.all(lower <= rate * (1 + FLOATING)) and np.all(rate <= upper * (1 + FLOATING))
        assert np.sum((rate > 1e-30) & (rate < 1e-25)) > 10
        assert width(lower, upper)[upper > 1e-30].max() < 1e-6


def test_error_of_the_curve_covers_the_ends_too():
    terms, ends, error = [uniform([-1.0, 0.5, 1.25], 5)], (0.0, 2.0), 2.0**-6
    thresholds, curve = exact_curve(terms, ends, error)
    shifted = [terms[0]._replace(values=terms[0].values + error)]
    fpr = truth(shifted, thresholds - error)[0]
    fnr = truth(shifted, thresholds - 2.0 - error)[2]
    assert_bracket(Tails(curve.fpr_lower, curve.fpr_upper, curve.fnr_lower, curve.fnr_upper), fpr, fnr)


def test_epsilon_is_infinite_below_the_mass_of_an_impossible_event():
    # Scores {0, 1} and {1, 2}: {score >= 3/2} has mass 1/4 under H1 and none under H0; {score < 1/2} 3/4 and none.
    _, curve = exact_curve([coin(0.25, 1)], (0.0, 1.0))
    assert exact_epsilon(curve, 0.2)[0] == exact_epsilon(curve, 0.7)[0] == math.inf
    assert exact_epsilon(curve, 0.7)[2] == "reverse"
    assert exact_epsilon(curve, 0.76)[0] == 0.0


def test_epsilon_of_a_two_point_mechanism_is_its_log_odds():
    # A bit, reported truly with probability 3/4: score 1 against 0 plus the same noise {0: 3/4, 1: 1/8, -1: 1/8}
    # gives P(score >= 1/2) = 7/8 under H1 and 1/8 under H0, and at no threshold more than the cut-off mass 1/8.
    noise = Term(np.array([-1.0, 0.0, 1.0]), np.array([0.125, 0.75, 0.125]), 1)
    _, curve = exact_curve([noise], (0.0, 1.0))
    assert exact_epsilon(curve, 0.125)[0] == pytest.approx(math.log(6), rel=1e-9)


@pytest.mark.parametrize("delta", [0.0, 1e-6, 1e-3, 0.1])
def test_epsilon_is_the_best_of_all_threshold_events_and_never_more(delta):
    # Geometric-like noise, cut at 60: log-odds 0.3 for a shift by one, and mass beyond the cut.
    values = np.arange(-60.0, 61.0)
    mass = np.exp(-0.3 * np.abs(values))
    terms, ends = [Term(values, mass / mass.sum(), 1)], (0.0, 1.0)
    atoms = law(terms)
    best = 0.0
    for cut in np.arange(-61.5, 63.0):
        p0 = sum(p for v, p in atoms.items() if v > cut)
        p1 = sum(p for v, p in atoms.items() if v + 1 > cut)
        for power, scarce in ((p1, p0), (1 - p0, 1 - p1)):
            if power > delta:
                best = max(best, math.log((power - Fraction(delta)) / scarce) if scarce else math.inf)
    _, curve = exact_curve(terms, ends)
    epsilon, index, direction = exact_epsilon(curve, delta)
    assert epsilon <= best and (best == math.inf or epsilon == pytest.approx(best, rel=1e-6, abs=1e-9))
    if 0 < epsilon < math.inf:
        rare = curve.fpr_upper if direction == "forward" else curve.fnr_upper
        common = curve.fnr_upper if direction == "forward" else curve.fpr_upper
        assert epsilon == pytest.approx(math.log((1 - common[index] - delta) / rare[index]))


@given(small_laws(), st.floats(-3, 3), st.floats(0, 0.9))
def test_epsilon_is_nothing_where_both_ends_agree(terms, end, delta):
    _, curve = exact_curve(terms, (end, end))
    assert exact_epsilon(curve, delta)[0] == 0.0


def test_epsilon_is_infinite_where_the_supports_do_not_meet():
    _, curve = exact_curve([uniform([0.0, 0.3, 0.4], 3)], (0.0, 1.2000001))
    assert exact_epsilon(curve, 0.5)[0] == math.inf


def test_no_power_is_made_of_rounding():
    # 1 - 0.1 - delta is 8.3e-17, in float64 1.1e-16: beside a rate of 1e-20 that would make 0.29 nats of nothing.
    common, rare, delta = 0.1, 1e-20, np.nextafter(0.9, 0)
    curve = Tradeoff(*(np.array([rate]) for rate in (rare, common, rare, rare, common, common)))
    power = 1 - Fraction(common) - Fraction(float(delta))
    assert exact_epsilon(curve, delta)[0] <= math.log(power / Fraction(rare))


GOOD = coin(0.5, 3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: exact_tails([], [0.0]), "terms is empty"),
        (lambda: exact_tails([GOOD._replace(values=np.zeros(3))], [0.0]), "term 0 has values of shape"),
        (lambda: exact_tails([GOOD, GOOD._replace(values=np.array([0, np.nan]))], [0.0]), "term 1 has values up to"),
        (lambda: exact_tails([GOOD._replace(probabilities=np.array([0.5, 0.6]))], [0.0]), "sum to 1"),
        (lambda: exact_tails([GOOD._replace(probabilities=np.array([-0.5, 1.5]))], [0.0]), ">= 0"),
        (lambda: exact_tails([GOOD._replace(times=0)], [0.0]), "times of term 0"),
        (lambda: exact_tails([GOOD._replace(values=np.array([0, 1e-200]))], [0.0]), "rescale"),
        (lambda: exact_tails([GOOD], [np.nan]), "thresholds"),
        (lambda: exact_tails([GOOD], [0.0], error=-1.0), "error must be"),
        (lambda: exact_tails([GOOD], [0.0], size=1), "size must be"),
        (lambda: exact_curve([GOOD], (0.0, np.inf)), "ends must be"),
        (lambda: exact_epsilon(exact_curve([GOOD], (0.0, 1.0))[1], 1.0), "delta must be"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, words):
    with pytest.raises(ValueError, match=words) as refusal:
        call()
    assert "\n" not in str(refusal.value)
