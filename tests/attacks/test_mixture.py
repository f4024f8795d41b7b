"""Where nobody says how many sent, the sum may say it: a mixture over the number of the others."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import logsumexp

import jaxaudit as ja
from jaxaudit.attacks.mixture import MixtureLRT, mixture_score
from jaxaudit.covariance import Covariance
from jaxaudit.player import Player
from jaxaudit.types import Moments, Pair, Server, SumView, linear_score

ROUNDS, TERMS = 2, 6.0
MIXTURE, LINEAR = (f"{kind}, ridge 1e-09, full rank" for kind in ("mixture", "linear"))
ATTENDANCE = ((5, 0.3), (6, 0.4), (7, 0.3))
RNG = np.random.default_rng(0)

scored = jax.jit(mixture_score)


def server_of(dim, mean, attendance=ATTENDANCE, minimum=0, survivors="hidden"):
    """Two rounds of correlated noise, with others whose mean is so many times a random vector."""
    rng = np.random.default_rng(dim)
    mixes = rng.standard_normal((ROUNDS, dim, dim)) + 2 * np.eye(dim)
    means = mean * rng.standard_normal((ROUNDS, dim))
    pair = Pair("test", *rng.standard_normal((2, ROUNDS, dim)), "replace", "test")
    moments = [
        Moments(TERMS * centre, Covariance.of_matrix(mix @ mix.T), TERMS, 0, dim, 0.0)
        for centre, mix in zip(means, mixes)
    ]
    chain = ja.SecureSum(survivors=survivors, minimum=minimum).fitted(dim, 10, varying=True)
    return Server(pair, 9, "all", attendance, chain), moments


def options_of(server, moments):
    return MixtureLRT(ridge=1e-9).options(server, moments)


def as_played(knowledge):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), knowledge)


def view_of(total):
    return SumView(jnp.asarray(total, jnp.float32), jnp.full(ROUNDS, -1, jnp.int32))


def score_of(knowledge, total):
    return float(scored(as_played(knowledge), view_of(total)))


def log_mixture(server, moments, total, end, known=None):
    """Of w·z and u·z in float64, every density written out."""
    found = 0.0
    for one, difference, sent, z in zip(moments, server.pair.difference, end, total):
        sigma, each = one.covariance.dense(), one.mean / one.terms
        read = np.linalg.solve(sigma, np.stack([difference, each], axis=1)).T
        read = read[: min(2, len(each))]
        densities = [
            np.log(chance)
            + stats.multivariate_normal(
                read @ (number * each + sent), max(number, 0.5) / TERMS * read @ sigma @ read.T
            ).logpdf(read @ z)
            for number, chance in server.attendance
            if known is None or number == known
        ]
        found += logsumexp(densities)
    return found


# Known answers.


@given(seed=st.integers(0, 2**32 - 1), dim=st.sampled_from([1, 3]), mean=st.sampled_from([0.3, 2.0, 20.0]))
def test_the_score_is_the_ratio_of_the_two_mixtures(seed, dim, mean):
    server, moments = server_of(dim, mean)
    rng = np.random.default_rng(seed)
    number = rng.integers(5, 8, (ROUNDS, 1))
    centre = np.stack([one.mean / one.terms for one in moments])
    total = number * centre + server.pair.middle + 2 * rng.standard_normal((ROUNDS, dim))
    h0, h1 = (log_mixture(server, moments, total, end) for end in server.pair.both)
    assert score_of(options_of(server, moments)[MIXTURE], total) == pytest.approx(h1 - h0, rel=1e-4, abs=1e-3)


def test_the_linear_test_counts_the_number_as_noise():
    server, moments = server_of(3, 2.0)
    number, variance, total = 6.0, 0.6, RNG.standard_normal((ROUNDS, 3)) + 5
    expected = 0.0
    for one, difference, middle, z in zip(moments, server.pair.difference, server.pair.middle, total):
        each = one.mean / one.terms
        weights = np.linalg.solve(one.covariance.dense() + variance * np.outer(each, each), difference)
        expected += weights @ (z - middle - number * each)
    assert score_of(options_of(server, moments)[LINEAR], total) == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("dim", [1, 3])
def test_a_number_that_is_certain_makes_all_three_tests_one(dim):
    server, moments = server_of(dim, 2.0, attendance=((6, 1.0),))
    (plain,) = ja.GaussianLRT(ridge=1e-9).options(server, moments).values()
    for _ in range(3):
        total = RNG.standard_normal((ROUNDS, dim)) * 3
        view = view_of(total)._replace(survivors=jnp.full(ROUNDS, 7, jnp.int32))
        expected = float(linear_score(as_played(plain), view))
        for known in options_of(server, moments).values():
            assert score_of(known, total) == pytest.approx(expected, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("number", [5, 7])
def test_where_the_sum_says_how_many_sent_it_is_as_if_it_were_announced(number):
    server, moments = server_of(3, 100.0)
    centre = np.stack([one.mean / one.terms for one in moments])
    total = number * centre + server.pair.middle + RNG.standard_normal((ROUNDS, 3))
    h0, h1 = (log_mixture(server, moments, total, end, known=number) for end in server.pair.both)
    # Weights of 100 times a unit: float32 sums of 10^3 deviations.
    assert score_of(options_of(server, moments)[MIXTURE], total) == pytest.approx(h1 - h0, rel=1e-3, abs=5e-3)


# Properties.


def test_equal_candidates_score_nothing():
    server, moments = server_of(3, 2.0)
    server = replace(server, pair=replace(server.pair, h1=server.pair.h0))
    assert score_of(options_of(server, moments)[MIXTURE], RNG.standard_normal((ROUNDS, 3))) == 0


def test_a_mean_of_zero_says_nothing_about_the_number():
    """One statistic is left; its variance still grows with the number."""
    server, moments = server_of(3, 0.0)
    total = RNG.standard_normal((ROUNDS, 3)) * 2
    expected = 0.0
    for one, difference, middle, z in zip(moments, server.pair.difference, server.pair.middle, total):
        w = np.linalg.solve(one.covariance.dense(), difference)
        spread = [np.sqrt(number / TERMS * (w @ difference)) for number, _ in ATTENDANCE]
        chances = [chance for _, chance in ATTENDANCE]
        for sign in (1, -1):
            gap = w @ (z - middle) - sign * (w @ difference) / 2
            expected += sign * np.log(chances @ stats.norm.pdf(gap, scale=spread))
    assert score_of(options_of(server, moments)[MIXTURE], total) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_nobody_else_is_a_number_like_any_other():
    server, moments = server_of(3, 2.0, attendance=((0, 0.5), (9, 0.5)))
    assert np.isfinite(score_of(options_of(server, moments)[MIXTURE], server.pair.both[0]))


def test_an_aborted_round_adds_nothing_and_rounds_that_are_not_have_enough_clients():
    server, moments = server_of(3, 2.0, minimum=7)
    known = options_of(server, moments)[MIXTURE]
    np.testing.assert_array_equal(known.levels, [6, 7])
    np.testing.assert_allclose(np.exp(known.log_chance), [4 / 7, 3 / 7])
    total = RNG.standard_normal((ROUNDS, 3))
    alone = options_of(*server_of(3, 2.0, attendance=((6, 4 / 7), (7, 3 / 7))))[MIXTURE]
    alone = alone._replace(**{name: getattr(alone, name).copy() for name in ("directions", "each", "middle", "half")})
    for name in ("directions", "each", "middle", "half"):
        getattr(alone, name)[1] = 0.0
    assert score_of(known, total * [[1], [0]]) == pytest.approx(score_of(alone, total), rel=1e-5)


def test_every_option_has_one_shape_and_scores_are_strict_in_types(strict):
    server, moments = server_of(3, 2.0)
    options = MixtureLRT(ridge=[0.03, 1.0], rank=[0, 2]).options(server, moments)
    assert len(options) == 8 and list(options)[4:] == [
        name.replace("mixture", "linear") for name in list(options)[:4]
    ]
    assert len({str(jax.tree.map(np.shape, known)) for known in options.values()}) == 1
    score = jax.jit(mixture_score)(as_played(options["linear, ridge 1.0, rank 2"]), view_of(np.ones((ROUNDS, 3))))
    assert score.shape == () and score.dtype == jnp.float32


@pytest.mark.parametrize("minimum", [0, 5], ids=["plain", "channel"])
def test_announced_numbers_are_refused_in_one_line(minimum):
    server, moments = server_of(3, 2.0, minimum=minimum, survivors="announced")
    with pytest.raises(ValueError, match='use attack "gaussian_lrt"') as refused:
        MixtureLRT().options(server, moments)
    assert "\n" not in str(refused.value)


# The whole game.


def test_the_mixture_separates_better_where_each_client_moves_the_sum_far(tmp_path):
    """Of 9 others 3 in 10 drop out; each moves the sum by ten of its standard deviations."""
    rows = RNG.standard_normal((400, 2)) * 0.3 + [3.0, 0.5]
    np.save(tmp_path / "u.npy", rows.astype(np.float32))
    np.savez(tmp_path / "pair.npz", h0=[0, 0], h1=[1, 0])
    population = ja.Arrays(
        path=str(tmp_path / "u.npy"), clients=10, dropout=0.3, pair=str(tmp_path / "pair.npz"), fit_share=0.5
    )
    player, found = Player(tuple(jax.devices()[:1]), 0, lambda name, trials: lambda done: None), []
    for attack in (ja.GaussianLRT(), MixtureLRT()):
        audit = ja.Audit(population=population, aggregator=ja.SecureSum(survivors="hidden"), attack=attack)
        for scores in player.scores(audit.prepare(0).settings().game(), "certify", 16_384):
            spread = np.sqrt((scores.h0.var() + scores.h1.var()) / 2)
            found.append((scores.h1.mean() - scores.h0.mean()) / spread)
    gaussian, mixture, linear = found
    # Each separation is off by sqrt(2 / 16,384 + d² / 32,768) = 0.012, a difference of two by 0.018: with the true
    # differences, 0.6 and 0.7, a false alarm is 10 of these away, below 1e-20.
    assert mixture > linear + 0.4 and mixture > gaussian + 0.4
