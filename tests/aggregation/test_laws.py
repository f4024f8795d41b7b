"""Laws are exact, tables follow them to a known distance, and draws follow the tables."""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, chisquare

from jaxaudit.aggregation.laws import (
    IntegerLaw,
    Table,
    binomial,
    discrete_gaussian,
    draw,
    law_of,
    sample,
    skellam,
    table,
    total_variation,
)
from jaxaudit.random import Ticket, words

SIZE = 2**20
DIGITS = mp.workdps(40)
# One of every family, narrow and wide, and a law that is not symmetric.
LAWS = {
    "discrete_gaussian": discrete_gaussian(0.3),
    "wide_discrete_gaussian": discrete_gaussian(1e6),
    "skellam": skellam(2.5),
    "binomial": binomial(40),
    "sum": discrete_gaussian(0.3).sum_of(30),
    "skewed": IntegerLaw(-3, np.array([0.6, 0.0, 0.3, 0.1])),
}
every_law = pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)


def probabilities(law, values):
    """Of some values, 0 outside the support."""
    padded = np.concatenate([law.pmf, [0.0]])
    places = np.asarray(values) - law.low
    return padded[np.where((places >= 0) & (places < law.pmf.size), places, -1)]


def depths(variance):
    """The middle, and so many standard deviations away."""
    return sorted({0, 1, *(round(d * variance**0.5) for d in (1, 3, 6, 8))})


def pvalue(draws, law):
    """Of the chi-square test, tails merged until 50 draws are expected in every cell."""
    counts = np.bincount(draws - law.low, minlength=law.pmf.size)
    assert counts.size == law.pmf.size
    expected = law.pmf / law.pmf.sum() * draws.size
    starts = np.unique(np.searchsorted(np.cumsum(expected), np.arange(0, draws.size - 50, 50)))
    cells = [np.add.reduceat(of, starts) for of in (counts, expected)]
    heavy = cells[1] >= 50
    counts, expected = (np.append(of[heavy], of[~heavy].sum()) for of in cells)
    return chisquare(counts[expected > 0], expected[expected > 0]).pvalue


@pytest.mark.parametrize("variance", [0.01, 0.3, 1.0, 30.0, 1e4, 1e6])
@DIGITS
def test_discrete_gaussian_has_its_probabilities(variance):
    law, double = discrete_gaussian(variance), 2 * mp.mpf(variance)
    # The theta function's product series is slow in the middle; summed it needs 14 deviations.
    total = 1 + 2 * mp.fsum(mp.exp(-(x**2) / double) for x in range(1, int(14 * variance**0.5) + 9))
    exact = [mp.exp(-(k**2) / double) / total for k in depths(variance)]
    kept = [k <= law.reach for k in depths(variance)]
    np.testing.assert_allclose(probabilities(law, depths(variance)), np.float64(exact) * kept, rtol=1e-13)
    beyond = 2 * mp.fsum(mp.exp(-(x**2) / double) for x in range(law.reach + 1, law.reach + 200)) / total
    assert beyond < mp.mpf(2) ** -60


@pytest.mark.parametrize("variance", [0.01, 1.0, 30.0, 1e4, 6e4, 7e4, 1e6])
@DIGITS
def test_skellam_has_its_probabilities(variance):
    law, v = skellam(variance), mp.mpf(variance)
    # The characteristic function exp(v (cos t - 1)) at an odd number of equal steps around the circle, more than
    # twice the reach: what that aliases is beyond 40 digits, and so is what is left out.
    steps = 2 * law.reach + 2 * int(8 * variance**0.5) + 61
    angles = [2 * mp.pi * j / steps for j in range(steps // 2 + 1)]
    kernel = [(t, mp.exp(v * (mp.cos(t) - 1)) * (2 if t else 1)) for t in angles if v * t**2 < 800]
    exact = [mp.fsum(mp.cos(t * k) * weight for t, weight in kernel) / steps for k in depths(variance)]
    np.testing.assert_allclose(probabilities(law, depths(variance)), np.float64(exact), rtol=1e-12)


@pytest.mark.parametrize("trials", [2, 40, 40_000, 4_000_000])
@DIGITS
def test_binomial_has_its_probabilities(trials):
    law, values = binomial(trials), [k for k in depths(trials / 4) if k <= trials // 2]
    exact = [mp.binomial(trials, trials // 2 + k) / mp.mpf(2) ** trials for k in values]
    np.testing.assert_allclose(probabilities(law, values), np.float64(exact), rtol=1e-12)


@given(st.floats(0.01, 1e4))
def test_laws_are_centred_and_have_their_variances(variance):
    coins = 2 * int(np.ceil(2 * variance))
    for law, expected in ((skellam(variance), variance), (binomial(coins), coins / 4)):
        np.testing.assert_allclose(law.variance, expected, rtol=1e-12)
        assert abs(law.mean) < 1e-12 * law.deviation and law.reach == -law.low
    gauss = discrete_gaussian(variance)
    assert gauss.variance <= variance * (1 + 1e-12)
    if variance >= 1:
        np.testing.assert_allclose(gauss.variance, variance, rtol=1e-6)


def test_sums_known_answers():
    coins = IntegerLaw(3, np.array([0.75, 0.25])).sum_of(20)
    assert total_variation(coins, IntegerLaw(60, binom.pmf(range(21), 20, 0.25))) < 1e-15 * 20
    assert (coins.low, coins.pmf.size) == (60, 21)
    total = skellam(2.0).sum_of(50)
    assert (total.family, total.parameter) == ("skellam", 100.0)
    assert (binomial(6).sum_of(7).family, binomial(6).sum_of(7).parameter) == ("binomial", 42)
    assert LAWS["skewed"].sum_of(1) is LAWS["skewed"]


@pytest.mark.parametrize("n", [2, 10, 1000])
@pytest.mark.parametrize("law", [skellam(0.5), skellam(1e4), binomial(40)], ids=["narrow", "wide", "binomial"])
def test_convolution_agrees_with_closed_forms(law, n):
    convolved = IntegerLaw(law.low, law.pmf).sum_of(n)
    assert total_variation(convolved, law.sum_of(n)) < 1e-15 * n
    np.testing.assert_allclose(convolved.variance, n * law.variance, rtol=1e-10)


def test_sum_of_discrete_gaussians_is_their_direct_convolution_and_no_discrete_gaussian():
    law, direct = discrete_gaussian(0.3), np.ones(1)
    for _ in range(30):
        direct = np.convolve(direct, law.pmf)
    total = law.sum_of(30)
    np.testing.assert_allclose(
        probabilities(total, np.arange(-60, 61)), direct[direct.size // 2 + np.r_[-60:61]], atol=1e-15
    )
    assert total_variation(total, discrete_gaussian(9.0)) > 1e-3


@every_law
def test_table_has_the_law_that_it_says(law):
    follows, columns = law_of(table(law)), table(law).threshold.shape[0]
    atoms = np.float64(2**32 * columns) * follows.pmf
    np.testing.assert_array_equal(atoms, np.rint(atoms))
    assert sum(int(atom) for atom in atoms) == 2**32 * columns and atoms.min() >= 0
    assert total_variation(follows, law) < 2.0**-33
    assert not np.any((probabilities(follows, law.values) == 0) & (law.pmf * 2**32 * columns > 0.5))


@given(st.lists(st.floats(0, 1) | st.floats(0, 2**-30), min_size=1, max_size=300).filter(lambda w: sum(w) > 1e-3))
def test_any_law_has_a_table(weights):
    law = IntegerLaw(-7, np.array(weights) / np.sum(weights))
    follows, columns = law_of(table(law)), table(law).threshold.shape[0]
    assert sum(int(atom * 2**32 * columns) for atom in follows.pmf) == 2**32 * columns
    assert total_variation(follows, law) < 2.0**-33
    assert not np.any((probabilities(follows, law.values) == 0) & (law.pmf * 2**32 * columns > 0.5))


@partial(jax.jit, static_argnums=2)
def drawn(own: Table, ticket, size):
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        return draw(own, ticket, size)


def ticket(seed):
    return Ticket(jnp.uint32(seed), jnp.uint32(2), jnp.uint32(3))


def test_draw_reads_a_column_and_a_coin_from_its_words():
    own = table(LAWS["skellam"])
    pairs = np.asarray(words(ticket(4), 0, 2 * SIZE), np.uint64).reshape(SIZE, 2)
    column, coin = (pairs[:, 0] >> 24).astype(int), pairs[:, 1]
    expected = np.where(
        coin < np.asarray(own.threshold)[column], int(own.low) + column, np.asarray(own.alias)[column]
    )
    found = drawn(own, ticket(4), SIZE)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == jnp.int32


@every_law
def test_draws_follow_the_law(law):
    assert pvalue(np.asarray(drawn(table(law), ticket(5), SIZE)), law) > 1e-6  # false alarm 1e-6


def test_chi_square_of_draws_notices_another_law():
    """The parameter is off by 3 %: the test above would not pass by being blind."""
    draws = np.asarray(drawn(table(skellam(2.5 * 1.03)), ticket(5), SIZE))
    assert pvalue(draws[np.abs(draws) <= LAWS["skellam"].reach], LAWS["skellam"]) < 1e-6


@every_law
def test_host_samples_follow_the_law(law):
    assert pvalue(sample(law, np.random.default_rng(6), SIZE), law) > 1e-6  # false alarm 1e-6


@pytest.mark.parametrize("variance", [0.3, 400.0])
def test_opendp_samples_this_discrete_gaussian(variance):
    pytest.importorskip("opendp")
    # OpenDP cannot be seeded: another sample in every run, each with false alarm 1e-6.
    assert pvalue(sample(discrete_gaussian(variance), None, 50_000), discrete_gaussian(variance)) > 1e-6


def test_missing_opendp_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "opendp.prelude", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxaudit\[opendp\]'"):
        sample(discrete_gaussian(1.0), None, 1)


@pytest.mark.parametrize("make", [discrete_gaussian, skellam, lambda v: binomial(4 * int(v))])
def test_wide_laws_are_refused_in_one_line(make):
    with pytest.raises(ValueError, match=r"deviation 1e\+06 steps needs a table of .* larger step$"):
        make(1e12)
    with pytest.raises(ValueError, match=r"deviation 6e\+04 steps needs .* up to 1,048,576; use fewer bits.*step$"):
        table(make(3.6e9))


def test_impossible_parameters_are_refused():
    for make in (discrete_gaussian, skellam):
        for variance in (0.0, -1.0, float("nan")):
            with pytest.raises(ValueError, match="allowed are > 0"):
                make(variance)
    for trials in (0, -2, 3):
        with pytest.raises(ValueError, match="allowed are even numbers from 2"):
            binomial(trials)
    with pytest.raises(ValueError, match="allowed are 1 or more"):
        skellam(1.0).sum_of(0)
