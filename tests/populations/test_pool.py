"""A finite pool: the moments are those of all its draws, and the draws have the law that the moments are of.

The oracle of the moments goes through every draw of a tiny pool. The statistical tests of this file have fixed seeds,
and a false-alarm rate of 1e-6 each.
"""

from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations, permutations, product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxaudit as ja
from jaxaudit import permutation, player
from jaxaudit import random as random_module
from jaxaudit.audit import Prepared
from jaxaudit.populations import seating as seating_module
from jaxaudit.populations.moments import affordable, exact_moments
from jaxaudit.populations.pool import PoolDraws, PoolParams, RecordedPool
from jaxaudit.populations.seating import seated
from jaxaudit.protocols import Column
from jaxaudit.random import Ticket
from jaxaudit.types import LinearTest, Pair

COHORTS = ("fixed", "with_replacement", "without_replacement")
FALSE_ALARM = 1e-6
UNEQUAL = (1, 3, 2, 1, 2)


@dataclass(frozen=True, eq=False)
class Recorded:
    """A source in memory."""

    matrix: np.ndarray
    sizes: np.ndarray
    key: None = None

    @property
    def dim(self):
        return self.matrix.shape[1]

    @property
    def edges(self):
        return np.concatenate([[0], np.cumsum(self.sizes)])

    def groups(self):
        """The updates of each client."""
        return [self.matrix[a:b].astype(np.float64) for a, b in zip(self.edges, self.edges[1:])]

    def freedom(self, groups):
        return min(int(self.edges[groups]) - groups, self.dim)

    def rows(self, first, last):
        return self.matrix[self.edges[first] : self.edges[last]]

    def project(self, weights):
        return self.matrix.astype(np.float64) @ weights.T, np.zeros(len(weights))


def recorded(sizes=UNEQUAL, dim=2, seed=0):
    """Updates of clients that differ in mean, in spread and in how many they sent."""
    rng = np.random.default_rng(seed)
    client = np.repeat(np.arange(len(sizes)), sizes)
    centre, spread = 3 * rng.standard_normal((len(sizes), dim)), rng.uniform(0.2, 2, (len(sizes), 1))
    rows = centre[client] + spread[client] * rng.standard_normal((len(client), dim))
    return Recorded(rows.astype(np.float32), np.array(sizes))


def pool_of(cohort, terms, *sources, **more):
    return RecordedPool(sources or (recorded(),), cohort, terms, "updates", None, **more)


def draws_of(groups, cohort, terms):
    """Every draw of a cohort, with its probability: (probability, rows [terms, dim])."""
    if cohort == "fixed":
        seatings = [range(terms)]
    elif cohort == "with_replacement":
        seatings = list(product(range(len(groups)), repeat=terms))
    else:
        seatings = list(permutations(range(len(groups)), terms))
    for sitting in seatings:
        chosen = list(product(*(groups[g] for g in sitting)))
        for rows in chosen:
            yield 1 / len(seatings) / len(chosen), np.array(rows)


def moments_of(groups, cohort, terms):
    """Mean and covariance of the sum, by going through all draws."""
    chances, sums = map(np.array, zip(*((chance, rows.sum(0)) for chance, rows in draws_of(groups, cohort, terms))))
    assert chances.sum() == pytest.approx(1, abs=1e-12)
    mean = chances @ sums
    return mean, (sums - mean).T @ ((sums - mean) * chances[:, None])


@pytest.mark.parametrize("terms", [1, 2, 3])
@pytest.mark.parametrize("cohort", COHORTS)
def test_moments_are_those_of_all_draws(cohort, terms):
    source = recorded()
    (found,) = pool_of(cohort, 3, source).moments(terms)
    mean, covariance = moments_of(source.groups(), cohort, terms)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(found.covariance.dense(), covariance, atol=1e-10)


def moments_of_those_who_came(groups, cohort, terms, dropout):
    """Mean of as many as are expected, and covariance of the sum about as many times the mean of one as came.

    By going through all who may sit, all who may stay away, and all that they may send: what a server that sees the
    number of survivors is uncertain about.
    """
    if cohort == "poisson":
        rate, everybody = terms / len(groups), range(len(groups))
        seatings = [
            (rate**k * (1 - rate) ** (len(groups) - k), sitting)
            for k in range(len(groups) + 1)
            for sitting in combinations(everybody, k)
        ]
    else:
        every = {
            "fixed": [tuple(range(terms))],
            "with_replacement": list(product(range(len(groups)), repeat=terms)),
            "without_replacement": list(permutations(range(len(groups)), terms)),
        }[cohort]
        seatings = [(1 / len(every), sitting) for sitting in every]
    one = np.mean([rows.mean(0) for rows in groups[: terms if cohort == "fixed" else None]], axis=0)
    covariance, total, came = np.zeros((groups[0].shape[1],) * 2), 0.0, 0.0
    for chance, sitting in seatings:
        for stay in product((0, 1), repeat=len(sitting)):
            present = [groups[g] for g, here in zip(sitting, stay) if here]
            share = chance * np.prod([1 - dropout if here else dropout for here in stay])
            for rows in product(*present):
                each = share / np.prod([len(rows) for rows in present])
                off = np.sum([row - one for row in rows], axis=0)
                covariance += each * np.multiply.outer(off, off)
                total, came = total + each, came + each * len(rows)
    assert total == pytest.approx(1, abs=1e-12)
    return came * one, covariance, came


@pytest.mark.parametrize("terms", [1, 2])
@pytest.mark.parametrize("dropout", [0.0, 0.25])
@pytest.mark.parametrize("cohort", [*COHORTS, "poisson"])
def test_moments_allow_for_how_many_took_part_and_no_more(cohort, dropout, terms):
    source = recorded((1, 3, 2, 1))
    pool = pool_of(cohort, 2, source, dropout=dropout)
    (found,) = pool.moments(terms)
    mean, covariance, came = moments_of_those_who_came(source.groups(), cohort, terms, dropout)
    assert found.terms == pytest.approx(came, rel=1e-12)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(found.covariance.dense(), covariance, atol=1e-10)
    one = column([0.3, -2.0], terms)
    weights = one.test.weights[0]
    assert pool.project([one]).deviation[0] ** 2 == pytest.approx(weights @ covariance @ weights, rel=1e-9)


@pytest.mark.parametrize(
    ("law", "words"),
    [
        ({"cohort": "poisson"}, "each takes part with probability 0.4 by a coin of its own, no dropouts"),
        (
            {"cohort": "fixed", "dropout": 0.25},
            "client dropping out with probability 0.25 (the target never does)",
        ),
    ],
    ids=["poisson", "dropout"],
)
def test_cohorts_of_a_random_size_say_so_and_are_no_trials_of_a_population(law, words):
    pool = pool_of(terms=2, **law)
    assert words in pool.describe(2)["words"]
    assert [sums.size for sums in pool.disjoint([column([1.0, 0.0], 2)])] == [0]


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (2, 2, 2, 2), (4, 1, 1)], ids=str)
@pytest.mark.parametrize("cohort", COHORTS)
def test_moments_are_those_of_all_draws_for_clients_of_one_update_too(cohort, sizes):
    source = recorded(sizes, seed=1)
    (found,) = pool_of(cohort, 2, source).moments(2)
    mean, covariance = moments_of(source.groups(), cohort, 2)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(found.covariance.dense(), covariance, atol=1e-10)


@pytest.mark.parametrize("cohort", COHORTS)
def test_wide_updates_have_the_moments_of_all_draws(cohort):
    """By their rows, which are float32: as exact as those."""
    source = recorded(dim=40)
    (found,) = pool_of(cohort, 2, source).moments(2)
    mean, covariance = moments_of(source.groups(), cohort, 2)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(found.covariance.dense(), covariance, atol=1e-6 * np.abs(covariance).max())
    assert len(found.covariance.variances) <= found.freedom < found.covariance.dim


@pytest.mark.parametrize("cohort", COHORTS)
def test_no_draw_shows_more_directions_than_freedom_says(cohort):
    for sizes in (UNEQUAL, (1, 1, 1, 1, 1), (3, 3, 3)):
        source = recorded(sizes, dim=40)
        (found,) = pool_of(cohort, 2, source).moments(2)
        rank = np.linalg.matrix_rank(moments_of(source.groups(), cohort, 2)[1], rtol=1e-9)
        assert rank <= found.freedom


def test_the_fourth_moment_is_that_of_the_centred_updates():
    # Where every client counts as much as another, it is the mean of the squared squared norm.
    source = recorded((2, 2, 2))
    rows = source.matrix.astype(np.float64)
    (found,) = pool_of("with_replacement", 1, source).moments(1)
    expected = np.mean(np.sum((rows - rows.mean(0)) ** 2, axis=1) ** 2)
    assert found.fourth == pytest.approx(expected, rel=1e-12) and found.samples == 6


@pytest.mark.parametrize("block", [1, 7, 2**25])
@pytest.mark.parametrize("cohort", COHORTS)
def test_moments_do_not_depend_on_how_much_is_read_at_once(cohort, block, monkeypatch):
    (whole,) = pool_of(cohort, 3).moments(3)
    monkeypatch.setattr("jaxaudit.populations.source._NUMBERS", block)
    (found,) = pool_of(cohort, 3).moments(3)
    np.testing.assert_allclose(found.mean, whole.mean, rtol=1e-13)
    np.testing.assert_allclose(found.covariance.dense(), whole.covariance.dense(), rtol=1e-12)
    assert found.fourth == pytest.approx(whole.fourth, rel=1e-12)


def column(weights, terms, rounds=1, dim=2):
    pair = Pair("x", np.zeros((rounds, dim), np.float32), np.ones((rounds, dim), np.float32), "", "")
    test = LinearTest(np.asarray(weights, np.float64).reshape(rounds, dim), np.zeros(rounds), np.zeros(rounds))
    return Column(pair, test, terms)


@pytest.mark.parametrize("cohort", COHORTS)
def test_the_variance_of_scalars_is_that_of_their_covariance(cohort):
    weights = [[1.0, 0.0], [0.3, -2.0], [1e6, 1.0]]
    columns = [column(w, terms) for w, terms in zip(weights, (3, 1, 2))]
    pool = pool_of(cohort, 3)
    expected = [pool.moments(c.noise_terms)[0].covariance.quadratic(c.test.weights[0]) for c in columns]
    np.testing.assert_allclose(pool.project(columns).deviation ** 2, expected, rtol=1e-9)


def test_rounds_add_their_variances():
    sources = recorded(seed=2), recorded((2, 2, 1, 2, 1), seed=3)
    pool = pool_of("without_replacement", 3, *sources)
    one = column([[1.0, 2.0], [-1.0, 0.5]], 3, rounds=2)
    first, second = pool.moments(3)
    expected = first.covariance.quadratic(one.test.weights[0]) + second.covariance.quadratic(one.test.weights[1])
    assert pool.project([one]).deviation[0] ** 2 == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("terms", [1, 2, 3])
def test_those_who_stand_in_tell_cohorts_of_any_size(terms):
    """Independent draws: the same law. Own clients: each of them as noisy as the simulated ones are on average."""
    source = recorded()
    (found,) = pool_of("with_replacement", 3, source, stands_in_for=3).moments(terms)
    (exact,) = pool_of("with_replacement", 3, source).moments(terms)
    np.testing.assert_allclose(found.mean, exact.mean, rtol=1e-12)
    np.testing.assert_allclose(found.covariance.dense(), exact.covariance.dense(), rtol=1e-10)
    (found,) = pool_of("fixed", 3, source, stands_in_for=3).moments(terms)
    within = [np.cov(rows.T, bias=True) if len(rows) > 1 else np.zeros((2, 2)) for rows in source.groups()]
    means = [rows.mean(0) for rows in source.groups()]
    np.testing.assert_allclose(found.covariance.dense(), terms * np.mean(within, axis=0), rtol=1e-10)
    np.testing.assert_allclose(found.mean, terms * np.mean(means, axis=0), rtol=1e-10)


def test_a_cohort_of_everybody_has_no_noise_and_says_so(tmp_path):
    """Drawn without replacement, all five of the pool have one sum, and nothing hides the target."""
    updates = np.random.default_rng(0).standard_normal((12, 3)).astype(np.float32)
    np.save(tmp_path / "u.npy", updates)
    population = ja.Arrays(path=str(tmp_path / "u.npy"), clients=6, cohort="without_replacement", fit_share=0.5)
    assert population.respond(0, None).certify.moments(5)[0].covariance.trace == 0
    with pytest.raises(ValueError, match=r"the others' sum has no variance: .*; record updates that vary"):
        ja.Audit(population=population, aggregator=ja.SecureSum(), attack=ja.GaussianLRT()).prepare(0)


def test_those_who_stand_in_know_how_many_clients_the_cohort_is_drawn_from(tmp_path):
    """The fit pool is smaller than the audited one, and the finite-population correction is the latter's."""
    np.save(tmp_path / "u.npy", np.random.default_rng(0).standard_normal((32, 3)).astype(np.float32))
    population = ja.Arrays(path=str(tmp_path / "u.npy"), clients=6, cohort="without_replacement", fit_share=0.2)
    fit, certify = (pool for pool in (population.respond(0, None).fit, population.respond(0, None).certify))
    rows, clients = fit.sources[0].rows(0, 6), len(certify.sources[0].sizes)
    assert (len(rows), clients) == (6, 24)
    expected = 5 * np.cov(rows.T.astype(float), bias=True) * (clients - 5) / (clients - 1)
    np.testing.assert_allclose(fit.moments(5)[0].covariance.dense(), expected, rtol=1e-6)


def test_what_is_affordable_is_said_before_it_is_computed():
    source = recorded()
    pool = pool_of("with_replacement", 3, source)
    assert pool.affordable(3) and affordable(source, pool._mixture(3))

    class Huge(Recorded):
        dim = 10**7

    huge = Huge(source.matrix, np.full(2000, 100))
    assert not pool_of("fixed", 1999, huge).affordable(1999)
    with pytest.raises(ValueError, match="do not fit in memory"):
        exact_moments(huge, pool_of("fixed", 1999, huge)._mixture(1999))


# From a file.


@pytest.fixture(scope="module")
def unequal_file(tmp_path_factory):
    """Seven clients with one to four updates each, in 2 dimensions, interleaved."""
    rng = np.random.default_rng(4)
    client = np.array([0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 1, 2, 3, 2])
    updates = (rng.standard_normal((7, 2))[client] * 4 + rng.standard_normal((16, 2))).astype(np.float32)
    path = tmp_path_factory.mktemp("unequal") / "u.npz"
    np.savez(path, updates=updates, client=client)
    return path, client, updates


@pytest.mark.parametrize("cohort", COHORTS)
def test_recorded_clients_of_unequal_size_have_the_moments_of_all_draws(cohort, unequal_file):
    path, client, updates = unequal_file
    pair = path.parent / "pair.npz"
    np.savez(pair, h0=np.zeros(2), h1=np.ones(2))
    population = ja.Arrays(path=str(path), clients=3, cohort=cohort, pair=str(pair), fit_share=0.4)
    pool = population.respond(5, None).certify
    order = pool.sources[0].order
    owners = client[order]
    names = list(dict.fromkeys(owners.tolist()))
    groups = [updates[client == name].astype(np.float64) for name in names]
    assert [len(rows) for rows in groups] == pool.sources[0].sizes.tolist() and len(set(map(len, groups))) > 1
    mean, covariance = moments_of(groups, cohort, 2)
    (found,) = pool.moments(2)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-10)
    np.testing.assert_allclose(found.covariance.dense(), covariance, atol=1e-10)


@pytest.mark.parametrize("cohort", COHORTS[1:])
def test_rows_without_clients_are_clients_of_their_own(cohort, unequal_file, tmp_path):
    _, _, updates = unequal_file
    np.save(tmp_path / "u.npy", updates)
    pool = ja.Arrays(path=str(tmp_path / "u.npy"), clients=3, cohort=cohort).respond(0, None).certify
    assert pool.sources[0].sizes.tolist() == [1] * 7 and pool.clients is None
    groups = [row[None].astype(np.float64) for row in pool.sources[0].rows(0, 7)]
    mean, covariance = moments_of(groups, cohort, 2)
    (found,) = pool.moments(2)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-10)
    np.testing.assert_allclose(found.covariance.dense(), covariance, atol=1e-10)


@pytest.mark.parametrize("pair", ["random", "zeroed", "worst"])
@pytest.mark.parametrize("known", [True, False], ids=["clients", "rows"])
def test_the_target_is_in_neither_pool_and_no_update_in_both(pair, known, pool_file, tmp_path):
    if not known:
        np.save(tmp_path / "u.npy", np.load(pool_file)["updates"])
        pool_file = tmp_path / "u.npy"
    responses = ja.Arrays(path=str(pool_file), clients=10, pair=pair).respond(3, None)
    (pair,) = responses.choose_pairs(responses.fit.moments(9))
    sets = [
        {row.tobytes() for row in pool.sources[0].rows(0, len(pool.sources[0].sizes))}
        for pool in (responses.fit, responses.certify)
    ]
    assert not sets[0] & sets[1]
    ends = {end.tobytes() for end in (*pair.h0, *pair.h1)}
    assert not ends & sets[1]
    assert pair.name == "worst" or not ends & sets[0]


# Draws.

TRIALS = 2**15


@partial(jax.jit, static_argnums=0)
def _drawn(draws, params):
    def one(trial):
        return draws.others(params, Ticket(jnp.uint32(7), jnp.uint32(2), trial))

    return jax.vmap(one)(jnp.arange(TRIALS, dtype=jnp.uint32))


def looked_up(cohort, sizes, seats):
    """Draws of one pair's pool and what they look up, from one list of sizes for each round."""
    first = np.concatenate([[0], np.cumsum(np.ravel(sizes))[:-1]]).reshape(np.shape(sizes))
    seating, groups = seated(cohort, seats, first, np.array(sizes), 0.0)
    rows = jnp.zeros((sum(map(sum, sizes)) + 2 * len(sizes), 1))
    return PoolDraws(seating, len(sizes), 1), PoolParams(rows, groups)


def drawn(cohort, sizes, seats):
    """Rows i64[trials, rounds, seats], and the client of every row."""
    owner = np.concatenate([np.repeat(np.arange(len(one)), one) for one in sizes])
    return np.asarray(_drawn(*looked_up(cohort, sizes, seats))), owner


def follows(counts, law):
    """Chi-square: the counts are draws from the law, at the false-alarm rate of this file."""
    counts, law = np.ravel(counts), np.ravel(law)
    assert not counts[law == 0].any()
    if np.sum(law > 0) == 1:
        return True
    return stats.chisquare(counts[law > 0], counts.sum() * law[law > 0] / law.sum()).pvalue > FALSE_ALARM


def independent(first, second):
    """Chi-square of independence, at the false-alarm rate of this file."""
    table = np.zeros((first.max() + 1, second.max() + 1))
    np.add.at(table, (first, second), 1)
    table = table[table.any(1)][:, table.any(0)]
    return stats.chi2_contingency(table).pvalue > FALSE_ALARM


SIZES = ((1, 3, 2, 4), (2, 1, 3, 1))


@pytest.mark.parametrize("every", [SIZES, ((3,) * 4, (3,) * 4)], ids=["unequal", "equal"])
def test_with_replacement_clients_are_uniform_and_their_updates_too(every):
    rows, _ = drawn("with_replacement", every, seats=3)
    for at, sizes in enumerate(every):
        start = sum(map(sum, every[:at]))
        for seat in range(3):
            counts = np.bincount(rows[:, at, seat] - start, minlength=sum(sizes))
            assert follows(counts, np.repeat(1 / np.array(sizes), sizes))


@pytest.mark.parametrize("cohort", ["with_replacement", "fixed"])
def test_seats_and_rounds_are_independent(cohort):
    rows, _ = drawn(cohort, SIZES, seats=3)
    flat = rows.reshape(TRIALS, -1)
    for first, second in ((0, 1), (1, 2), (0, 3), (1, 4), (2, 5), (0, 5), (2, 3)):
        if len(set(flat[:, first])) > 1 and len(set(flat[:, second])) > 1:
            assert independent(flat[:, first], flat[:, second]), (first, second)


@pytest.mark.parametrize("cohort", COHORTS[1:])
def test_who_is_chosen_says_nothing_about_which_update_is_sent(cohort):
    """Clients of equal size, so that the choice of the update can be compared: seat by seat and round by round."""
    rows, owner = drawn(cohort, ((3,) * 4, (3,) * 4), seats=3)
    who, which = owner[rows].reshape(TRIALS, -1), (rows % 3).reshape(TRIALS, -1)
    for first, second in product(range(6), range(6)):
        assert independent(who[:, first], which[:, second]), (first, second)
    for first, second in zip((0, 0, 1, 2), (1, 3, 4, 3)):
        assert independent(which[:, first], which[:, second])


def test_without_replacement_nobody_sits_twice_and_all_orders_are_equally_likely():
    rows, owner = drawn("without_replacement", ((2, 1, 1, 3, 1), (1, 1, 2, 1, 1)), seats=3)
    who = owner[rows]
    assert np.all(np.diff(np.sort(who, axis=2), axis=2) > 0)
    for at in range(2):
        counts = np.bincount(who[:, at] @ [25, 5, 1], minlength=125)
        orders = [25 * a + 5 * b + c for a, b, c in permutations(range(5), 3)]
        assert follows(counts[orders], np.ones(60)) and counts[orders].sum() == TRIALS


def test_without_replacement_counts_are_hypergeometric():
    # How many of the first 5 of 12 clients sit in 6 seats, and in the first 4 of them: a smaller cohort.
    rows, owner = drawn("without_replacement", ((1, 2) * 6,), seats=6)
    first = owner[rows[:, 0]] < 5
    for seats in (6, 4):
        law = stats.hypergeom(12, 5, seats).pmf(np.arange(seats + 1))
        assert follows(np.bincount(first[:, :seats].sum(1), minlength=seats + 1), law)


def test_without_replacement_rounds_are_drawn_apart():
    rows, owner = drawn("without_replacement", ((1,) * 5, (1,) * 5), seats=3)
    who = owner[rows]
    for first, second in product(range(3), range(3)):
        assert independent(who[:, 0, first], who[:, 1, second])


def test_fixed_seats_keep_their_client_and_draw_its_updates_uniformly():
    rows, owner = drawn("fixed", SIZES, seats=3)
    assert np.all(owner[rows] == np.arange(3))
    for at, sizes in enumerate(SIZES):
        for seat in range(3):
            start = sum(map(sum, SIZES[:at])) + sum(sizes[:seat])
            assert follows(np.bincount(rows[:, at, seat] - start, minlength=sizes[seat]), np.ones(sizes[seat]))


@pytest.mark.parametrize("cohort", COHORTS)
def test_rounds_draw_from_their_own_updates_and_nobody_draws_a_candidate(cohort):
    rows, _ = drawn(cohort, SIZES, seats=3)
    assert rows[:, 0].max() < 10 <= rows[:, 1].min() and rows[:, 1].max() < 17 and rows.min() >= 0


def test_the_target_plays_its_own_pair_in_every_round():
    draws, params = looked_up("with_replacement", ((1,) * 4, (1,) * 4), 3)
    draws, params = replace(draws, pairs=3), params._replace(rows=jnp.zeros((17 + 12, 1)))
    ticket = Ticket(*(jnp.uint32(0),) * 3)
    seats = [
        [draws.target(params, ticket, pair, jnp.int32(bit)).ravel().tolist() for bit in (0, 1)] for pair in range(3)
    ]
    assert seats == [[[17, 18], [19, 20]], [[21, 22], [23, 24]], [[25, 26], [27, 28]]]


def test_no_two_choices_share_a_word_and_none_is_the_aggregators():
    """At the limits of the recipes: updates, dropouts, clients and sizes of all rounds, the label, the aggregator."""
    rounds, seats, groups = 1000, 100_000, 1_000_000
    poisson, _ = seated("poisson", seats, np.arange(groups)[None], np.ones((1, groups), int), 0.0)
    assert seats < poisson.seats
    assert max(poisson.seats, permutation.rounds(2), 2 * permutation.rounds(2**31)) <= seating_module._WORDS
    kinds = [getattr(seating_module, name) for name in ("_UPDATE", "_DROPOUT", "_CLIENT", "_SIZE")]
    ends = [*kinds[1:], player._LABEL]
    assert kinds[0] == 0 and seating_module._WORDS % 2 == 0 and all(kind % 2 == 0 for kind in kinds)
    assert all(kind + rounds * seating_module._WORDS <= end for kind, end in zip(kinds, ends, strict=True))
    assert player._LABEL < 2**31 and rounds <= random_module.MAX_ROUNDS


@pytest.mark.parametrize("cohort", COHORTS)
def test_a_seat_draws_the_same_however_many_there_are(cohort):
    ticket = Ticket(jnp.uint32(0), jnp.uint32(2), jnp.uint32(7))
    few, many = (looked_up(cohort, ((4,) * 30, (4,) * 30), seats) for seats in (9, 30))
    few, many = (np.asarray(draws.others(params, ticket)) for draws, params in (few, many))
    np.testing.assert_array_equal(few, many[:, :9])
    assert not np.array_equal(many[0] % 4, many[1] % 4)


@pytest.mark.parametrize("cohort", COHORTS)
def test_the_bit_touches_the_target_only(cohort, pool_file):
    """With equal candidates both worlds are one; with others they differ by the candidates, to the last step."""
    population = ja.Arrays(path=str(pool_file), clients=[4, 10], cohort=cohort, pair=["random", "zeroed"])
    prepared = ja.Audit(population=population, aggregator=ja.SecureSum(), attack=ja.GaussianLRT()).prepare(1)

    def views(prepared: Prepared):
        game = prepared.fold()
        look = jax.jit(jax.vmap(lambda t: game.program.reveal(game.params, Ticket(jnp.uint32(0), jnp.uint32(2), t))))
        return game, look(jnp.arange(64, dtype=jnp.uint32))

    game, seen = views(prepared)
    step, cells = np.float64(game.params.aggregator.step), [prepared.cells[c] for c in np.argsort(game.order)]
    for view, cell in zip(seen, cells, strict=True):
        moved = (np.asarray(view.total[:, 1], np.float64) - np.asarray(view.total[:, 0], np.float64)) / step
        sent = np.rint(cell.pair.h1 / step) - np.rint(cell.pair.h0 / step)
        # The totals are integers of steps; decoded to float32 they have 24 bits of them.
        off = 2.0**-24 * (np.abs(view.total).max() / step) * 2
        np.testing.assert_allclose(moved, np.broadcast_to(sent, moved.shape), atol=off)
        np.testing.assert_array_equal(np.unique(view.survivors), cell.clients)
    twins = {id(cell.pair): replace(cell.pair, h1=cell.pair.h0) for cell in prepared.cells}
    same = [replace(cell, server=replace(cell.server, pair=twins[id(cell.pair)])) for cell in prepared.cells]
    for view in views(replace(prepared, cells=tuple(same)))[1]:
        np.testing.assert_array_equal(view.total[:, 0], view.total[:, 1])


def test_moments_of_a_cohort_do_not_depend_on_which_others_are_audited():
    """The finite-population correction is that of the cohort, not that of the largest."""
    fields = {"rounds": 0, "variants": 4, "cohort": "without_replacement", "pool_clients": 40}
    alone, beside = (
        ja.Federated(clients=clients, **fields).respond(0, None).fit.moments(7)[0] for clients in (8, (8, 39))
    )
    np.testing.assert_allclose(beside.covariance.trace, alone.covariance.trace, rtol=1e-9)


def test_clients_that_moved_the_model_before_are_no_fresh_population(tmp_path):
    rng = np.random.default_rng(0)
    recorded = {"updates": rng.standard_normal((60, 3)).astype(np.float32), "client": np.tile(np.arange(30), 2)}
    np.savez(tmp_path / "one.npz", **recorded)
    np.savez(tmp_path / "two.npz", **recorded, round=np.repeat([0, 1], 30))
    one, two = (
        ja.Arrays(path=str(tmp_path / name), clients=5, rounds=[0] if name == "one.npz" else [1]).respond(0, None)
        for name in ("one.npz", "two.npz")
    )
    assert "independent draws from one population" in one.fresh and not two.fresh
