"""Who sits where: every seat is what its words say, sums add up exactly those seats, and cohorts have their law.

The oracle computes the words of every seat in NumPy. The statistical tests of this file have fixed seeds, and raise a
false alarm with probability 1e-6 each.
"""

from functools import cache, lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxaudit as ja
from jaxaudit.game import FoldParams, FoldProgram, SumParams, SumProgram
from jaxaudit.permutation import permuted
from jaxaudit.populations.draws import PoolDraws, PoolParams, PoolSums, TableParams
from jaxaudit.populations.seating import seated
from jaxaudit.random import CERTIFY, Ticket, numbered

COHORTS = ("fixed", "with_replacement", "without_replacement", "poisson")
FALSE_ALARM = 1e-6
SEED = 11
ABSENT = -1

# Words by their address


def threefry(seed, stream, trial, block):
    """Threefry-2x32-20 by its definition, on NumPy arrays of 64 bits."""
    keys = [np.uint64(k) for k in (seed, stream, seed ^ stream ^ 0x1BD11BDA)]
    mask = np.uint64(2**32 - 1)
    x, y = (np.uint64(trial) + keys[0]) & mask, (np.asarray(block, np.uint64) + keys[1]) & mask
    for number in range(20):
        turn = np.uint64([13, 15, 26, 6, 17, 29, 16, 24][number % 8])
        x = (x + y) & mask
        y = ((y << turn | y >> (np.uint64(32) - turn)) & mask) ^ x
        if number % 4 == 3:
            group = number // 4 + 1
            x = (x + keys[group % 3]) & mask
            y = (y + keys[(group + 1) % 3] + np.uint64(group)) & mask
    return x, y


def word(stream, trial, place):
    """Words of a trial at the places of an array."""
    place = np.asarray(place, np.uint64)
    first, second = threefry(SEED, stream, trial, place // np.uint64(2))
    return np.where(place % np.uint64(2) == 0, first, second)


@lru_cache(None)
def shuffle(size):
    """All images of the permutation of a pool; its own tests are elsewhere."""
    return jax.jit(lambda ticket, first: permuted(ticket, first, jnp.arange(size), size))


def rows_by_hand(cohort, noise_terms, sizes, dropout, trial, seats):
    """The rows of a trial, seat by seat: i64[rounds, seats]. Client updates lie one after another, round by round."""
    edges = np.concatenate([[0], np.cumsum(np.ravel(sizes))])[:-1].reshape(np.shape(sizes))
    stream, low = CERTIFY + (trial >> 32) * 2**20, trial % 2**32
    found, seat, even = [], np.arange(seats), len(set(np.ravel(sizes))) == 1
    for in_round, (first, size) in enumerate(zip(edges, np.asarray(sizes))):
        start, clients = in_round * 2**18, len(size)
        own = word(stream, low, start + seat).astype(object)
        if cohort == "with_replacement" and even:
            rows = edges[in_round, 0] + (own * int(size.sum()) >> 32)
        else:
            if cohort == "fixed":
                who = seat
            elif cohort == "with_replacement":
                who = (word(stream, low, 2**30 + start + seat).astype(object) * clients >> 32).astype(int)
            else:
                ticket = Ticket(jnp.uint32(SEED), jnp.uint32(stream), jnp.uint32(low))
                who = np.asarray(shuffle(clients)(ticket, jnp.uint32(2**30 + start)))[:seats]
            rows = first[who] + (own * size[who].astype(object) >> 32)
        here = np.ones(seats, bool)
        if cohort == "poisson":
            law = stats.binom(clients, noise_terms / clients)
            drawn = int(word(stream, low, 2**30 + 2**29 + start))
            taken = next(k for k in range(clients + 1) if drawn < np.floor(law.cdf(k) * 2.0**32) or k == clients)
            here &= seat < taken
        if dropout:
            here &= word(stream, low, 2**29 + start + seat) >= round(dropout * 2**32)
        found.append(np.where(here, rows, ABSENT))
    return np.array(found, np.int64)


def test_the_words_by_hand_are_the_published_ones():
    """Random123, file kat_vectors, lines "threefry2x32 20"."""
    assert threefry(0, 0, 0, 0) == (0x6B200159, 0x99BA4EFE)
    assert threefry(0x13198A2E, 0x03707344, 0x243F6A88, 0x85A308D3) == (0xC4923A9C, 0x483DF7A0)


# Seats

TRIALS = [*range(13), 2**31, 2**32 - 1, 2**32, 2**33 + 5, 2**44 - 1]


def pool_of(cohort, noise_terms, sizes, dropout=0.0):
    """Seating and groups of clients whose updates lie one after another, round by round."""
    first = np.concatenate([[0], np.cumsum(np.ravel(sizes))])[:-1].reshape(np.shape(sizes))
    return seated(cohort, noise_terms, first, np.array(sizes), dropout)


@partial(jax.jit, static_argnums=(0, 1))
def look(seating, noise_terms, params, high, low):
    """Rows i32[trials, rounds, seats] and sums i32[trials, columns]."""

    def one(high, low):
        ticket = numbered(jnp.uint32(SEED), jnp.uint32(CERTIFY), high, low)
        return seating.rows(params.groups, ticket), PoolSums(seating, noise_terms).others(params, ticket)

    return jax.vmap(one)(high, low)


CLIENTS = 1000
SIZES = {
    "one update each": np.ones((1, CLIENTS), int),
    "three updates each": np.full((2, CLIENTS), 3),
    "uneven": np.random.default_rng(3).integers(1, 7, (3, CLIENTS)),
    "even in a round only": np.repeat([[2], [5]], CLIENTS, axis=1),
}
# Seats of the columns: odd, even, and the first again. All cohorts of a Poisson run have one rate.
TERMS, RATE = (9, 4, 9), (5, 5)
CASES = [
    ("fixed", "uneven", 0.3),
    ("fixed", "three updates each", 0.0),
    ("with_replacement", "one update each", 0.3),
    ("with_replacement", "three updates each", 0.0),
    ("with_replacement", "even in a round only", 0.3),
    ("with_replacement", "uneven", 0.0),
    ("without_replacement", "one update each", 0.0),
    ("without_replacement", "three updates each", 0.3),
    ("without_replacement", "uneven", 0.0),
    ("poisson", "three updates each", 0.3),
    ("poisson", "uneven", 0.0),
]


@cache
def looked_at(cohort, structure, dropout):
    """Rows by the package, sums by the package, and the table they were looked up in."""
    sizes, terms = SIZES[structure], RATE if cohort == "poisson" else TERMS
    seating, groups = pool_of(cohort, max(terms), sizes, dropout)
    table = np.random.default_rng(0).integers(-(2**24), 2**24, (sizes.sum(), len(terms)), dtype=np.int32)
    high, low = (
        jnp.array([part(t) for t in TRIALS], jnp.uint32) for part in (lambda t: t >> 32, lambda t: t % 2**32)
    )
    rows, sums = look(seating, terms, TableParams(jnp.asarray(table), groups), high, low)
    return seating, terms, np.asarray(rows), np.asarray(sums), table


cases = pytest.mark.parametrize(("cohort", "structure", "dropout"), CASES)


@cases
def test_the_rows_of_a_trial_are_those_of_its_words(cohort, structure, dropout):
    seating, terms, rows, _, _ = looked_at(cohort, structure, dropout)
    for trial, found in zip(TRIALS, rows):
        expected = rows_by_hand(cohort, max(terms), SIZES[structure], dropout, trial, seating.seats)
        np.testing.assert_array_equal(found, expected, err_msg=f"trial {trial}")


@cases
def test_sums_are_those_of_the_rows(cohort, structure, dropout):
    """To the bit, for every cohort size on the way, over all rounds; an empty seat adds nothing."""
    seating, terms, rows, sums, table = looked_at(cohort, structure, dropout)
    sent = np.where((rows == ABSENT)[..., None], 0, table.astype(np.int64)[rows])
    for column, size in enumerate(terms):
        expected = sent[:, :, : seating.of(size), column].sum(axis=(1, 2))
        np.testing.assert_array_equal(sums[:, column], expected)
    assert (rows == ABSENT).any() == seating.absent == (cohort == "poisson" or dropout > 0)


@pytest.mark.parametrize("terms", [(1,), (2,), (61, 60, 3, 11), (30,) * 17], ids=str)
def test_sums_are_those_of_the_rows_in_cohorts_of_every_size(terms):
    """The loop over pairs is unrolled in fours, and every size ends it elsewhere."""
    seating, groups = pool_of("with_replacement", max(terms), np.ones((1, 100), int))
    table = np.random.default_rng(1).integers(-(2**20), 2**20, (100, len(terms)), dtype=np.int32)
    trials = jnp.arange(16, dtype=jnp.uint32)
    rows, sums = look(seating, terms, TableParams(jnp.asarray(table), groups), trials * 0, trials)
    for column, size in enumerate(terms):
        expected = table[np.asarray(rows)[:, 0, :size], column].sum(axis=1)
        np.testing.assert_array_equal(np.asarray(sums)[:, column], expected)


@pytest.mark.parametrize(("cohort", "dropout"), [("with_replacement", 0.0), ("without_replacement", 0.3)])
def test_rounds_and_trials_have_seats_of_their_own(cohort, dropout):
    """Trials that differ in their high words, too: four of a thousand clients each, so no two alike by chance."""
    rows = looked_at(cohort, "three updates each", dropout)[2] % (3 * CLIENTS)
    assert len({tuple(one) for one in rows[:, :, :4].reshape(-1, 4)}) == 2 * len(TRIALS)


# Sums of structured pools

WIDTH = 8192


@partial(jax.jit, static_argnums=(0, 1))
def sums_of(sums, blocks, params):
    """Of trials 0, 1, ...: i32[trials, columns]."""

    def block(start):
        trials = start + jnp.arange(WIDTH, dtype=jnp.uint32)
        return jax.vmap(lambda t: sums.others(params, numbered(jnp.uint32(SEED), jnp.uint32(CERTIFY), 0 * t, t)))(
            trials
        )

    starts = jnp.arange(blocks, dtype=jnp.uint32) * jnp.uint32(WIDTH)
    return jax.lax.map(block, starts).reshape(blocks * WIDTH, -1)


def marked(size):
    """Pools of clients that count or not, arranged along and against the grid of the permutation: bool[size, 7]."""
    columns = int(np.ceil(np.sqrt(size)))
    row, column = np.divmod(np.arange(size), columns)
    pools = {
        "half": np.arange(size) < size // 2,
        "other half": np.arange(size) >= size // 2,
        "even": np.arange(size) % 2 == 0,
        "columns": column < columns // 2,
        "rows": row % 10 < 5,
        "diagonal": (row + column) % columns < columns // 2,
        "random": np.random.default_rng(0).random(size) < 0.3,
    }
    return np.stack(list(pools.values()), axis=1)


@cache
def counted(cohort, size, noise_terms, blocks, each=1, dropout=0.0):
    """How many of each marked pool take part in a trial: i64[trials, 7]. A client's updates all count alike."""
    seating, groups = pool_of(cohort, noise_terms, np.full((1, size), each), dropout)
    table = jnp.asarray(np.repeat(marked(size), each, axis=0), jnp.int32)
    return np.asarray(sums_of(PoolSums(seating, (noise_terms,) * 7), blocks, TableParams(table, groups)), np.int64)


def follows(found, law):
    """Chi-square of counts against a law on 0, 1, 2, ...; its ends are pooled to 20 expected trials or more."""
    expected = len(found) * law(np.arange(found.max() + 200))
    often = np.flatnonzero(expected >= 20)
    low, high = often[0], often[-1]
    observed = np.bincount(np.clip(found, low, high), minlength=high + 1)[low:]
    wanted = expected[low : high + 1].copy()
    wanted[0], wanted[-1] = expected[: low + 1].sum(), expected[high:].sum()
    return stats.chisquare(observed, wanted * (observed.sum() / wanted.sum())).pvalue > FALSE_ALARM


def independent(first, second):
    """Chi-square of independence; both take few values, each in many trials."""
    table = np.zeros((first.max() + 1, second.max() + 1))
    np.add.at(table, (first, second), 1)
    table = table[table.any(1)][:, table.any(0)]
    return stats.chi2_contingency(table).pvalue > FALSE_ALARM


# A square grid, and one that is too large for 16 bits and short in the last row.
@pytest.mark.parametrize(("size", "terms", "blocks"), [(10_000, 60, 40), (10_000, 1000, 8), (70_000, 60, 16)])
def test_without_replacement_counts_are_hypergeometric(size, terms, blocks):
    for pool, found in zip(marked(size).T, counted("without_replacement", size, terms, blocks).T):
        assert follows(found, stats.hypergeom(size, int(pool.sum()), terms).pmf)


@pytest.mark.parametrize(("size", "terms", "blocks"), [(10_000, 60, 40), (70_000, 1001, 4)])
def test_with_replacement_counts_are_binomial(size, terms, blocks):
    for pool, found in zip(marked(size).T, counted("with_replacement", size, terms, blocks).T):
        assert follows(found, stats.binom(terms, pool.mean()).pmf)


def test_poisson_counts_are_binomial_in_every_part_of_the_pool():
    """Each client has a coin of its own: so many of a pool take part as its coins show."""
    for pool, found in zip(marked(10_000).T, counted("poisson", 10_000, 60, 16).T):
        assert follows(found, stats.binom(int(pool.sum()), 60 / 10_000).pmf)


def test_poisson_counts_of_two_halves_are_independent():
    """A cohort of a fixed size would make them opposites."""
    one, other = np.clip(counted("poisson", 10_000, 60, 16)[:, :2].T // 4, 4, 10)
    assert independent(one, other)


@pytest.mark.parametrize("cohort", ["without_replacement", "with_replacement"])
def test_clients_of_several_updates_are_drawn_as_clients(cohort):
    size, terms = 1000, 60
    for pool, found in zip(marked(size).T, counted(cohort, size, terms, 16, each=3).T):
        ones = int(pool.sum())
        law = (
            stats.hypergeom(size, ones, terms) if cohort == "without_replacement" else stats.binom(terms, ones / size)
        )
        assert follows(found, law.pmf)


def test_dropout_thins_the_counts():
    """Who stays is a coin of each: of the marked who are drawn, so many stay as their coins show."""
    size, terms, stay = 1000, 60, 0.7
    for pool, found in zip(marked(size).T, counted("with_replacement", size, terms, 16, dropout=1 - stay).T):
        assert follows(found, stats.binom(terms, stay * pool.mean()).pmf)
    for pool, found in zip(marked(size).T, counted("without_replacement", size, terms, 16, dropout=1 - stay).T):
        assert follows(found, partial(thinned, stats.hypergeom(size, int(pool.sum()), terms), terms, stay))


def thinned(law, most, stay, count):
    """Probability of counts when each of a number that follows the law stays by a coin."""
    among = np.arange(most + 1)
    return stats.binom(among, stay).pmf(np.asarray(count)[:, None]) @ law.pmf(among)


# Small pools, where everything that can happen can be counted


@partial(jax.jit, static_argnums=(0, 1))
def rows_of(seating, trials, groups):
    """Of trials 0, 1, ...: i32[trials, rounds, seats]."""
    tickets = jnp.arange(trials, dtype=jnp.uint32)
    return jax.vmap(lambda t: seating.rows(groups, numbered(jnp.uint32(SEED), jnp.uint32(CERTIFY), 0 * t, t)))(
        tickets
    )


def drawn(cohort, noise_terms, sizes, dropout=0.0, trials=2**16):
    seating, groups = pool_of(cohort, noise_terms, sizes, dropout)
    return np.asarray(rows_of(seating, trials, groups))


def equally_likely(found, of):
    counts = np.bincount(found, minlength=of)
    return len(counts) == of and (of == 1 or stats.chisquare(counts).pvalue > FALSE_ALARM)


def members(rows, clients):
    """bool[trials, clients] of rows i32[trials, seats] of clients with one update each."""
    found = np.zeros((len(rows), clients + 1), bool)
    np.put_along_axis(found, np.where(rows == ABSENT, clients, rows), True, axis=1)
    return found[:, :clients]


def test_the_size_of_a_poisson_cohort_is_binomial():
    size = (drawn("poisson", 5, np.ones((1, 12), int))[:, 0] != ABSENT).sum(axis=1)
    assert follows(size, stats.binom(12, 5 / 12).pmf)


def test_a_poisson_cohort_of_everybody_is_everybody():
    rows = drawn("poisson", 6, np.ones((1, 6), int))[:, 0]
    np.testing.assert_array_equal(np.sort(rows, axis=1), np.broadcast_to(np.arange(6), rows.shape))


def test_every_poisson_cohort_is_as_likely_as_its_coins():
    """All 64 cohorts of six clients: each takes part with probability 1/3, whoever else does."""
    found = members(drawn("poisson", 2, np.ones((1, 6), int))[:, 0], 6)
    cohort = found @ (1 << np.arange(6))
    size = np.array([bin(one).count("1") for one in range(64)])
    expected = (1 / 3) ** size * (2 / 3) ** (6 - size) * len(found)
    assert stats.chisquare(np.bincount(cohort, minlength=64), expected).pvalue > FALSE_ALARM


def test_given_its_size_a_poisson_cohort_is_a_uniform_subset():
    """Of 12 clients: how often each takes part, and how often every two of them."""
    found = members(drawn("poisson", 5, np.ones((1, 12), int))[:, 0], 12)
    both = np.triu_indices(12, 1)
    for size in range(2, 10):
        some = found[found.sum(axis=1) == size].astype(np.int64)
        together = some.T @ some
        # Of n in a cohort, so Pearson's statistic of the clients is (N - n) / (N - 1) of a chi-square with N - 1.
        rate = size / 12
        pearson = np.sum((np.diag(together) - len(some) * rate) ** 2) / (len(some) * rate)
        assert stats.chi2(11).sf(pearson * 11 / (12 - size)) > FALSE_ALARM
        # The pairs one by one: a union bound.
        pair = size * (size - 1) / (12 * 11)
        assert all(stats.binomtest(int(n), len(some), pair).pvalue > FALSE_ALARM / 66 for n in together[both])


def test_every_subset_and_every_order_is_as_likely_without_replacement():
    rows = drawn("without_replacement", 3, np.ones((2, 5), int))
    for at in (0, 1):
        who = rows[:, at] - 5 * at
        order, counts = np.unique(who @ [25, 5, 1], return_counts=True)
        assert len(order) == 60 and stats.chisquare(counts).pvalue > FALSE_ALARM
    for first in range(3):
        for second in range(3):
            assert independent(rows[:, 0, first], rows[:, 1, second])


UNEVEN = np.array([[1, 4, 2, 5, 3], [3, 1, 2, 6, 2]])


def test_a_fixed_seat_draws_one_of_its_own_updates():
    """Stratified: client i sits on seat i in every round, and all of its updates are as likely."""
    rows, edges = drawn("fixed", 5, UNEVEN), np.concatenate([[0], np.cumsum(UNEVEN)])[:-1].reshape(2, 5)
    own = rows - edges
    assert np.all((own >= 0) & (own < UNEVEN))
    for at in np.ndindex(2, 5):
        assert equally_likely(own[:, *at], UNEVEN[at])
    several = [at for at in np.ndindex(2, 5) if UNEVEN[at] > 1]
    for number, first in enumerate(several):
        for second in several[number + 1 :]:
            assert independent(own[:, *first], own[:, *second]), (first, second)


@pytest.mark.parametrize("cohort", ["with_replacement", "without_replacement"])
def test_a_drawn_client_sends_one_of_its_own_updates(cohort):
    """Whatever the others have: clients are as likely, and so are the updates of each."""
    rows = drawn(cohort, 3, UNEVEN)
    owner, start = np.repeat(np.arange(10) % 5, UNEVEN.ravel()), np.concatenate([[0], np.cumsum(UNEVEN)])
    for at in range(2):
        # One seat of each trial: those of one trial may depend on each other.
        here = rows[:, at, 0]
        who = owner[here]
        assert equally_likely(who, 5)
        for client in range(5):
            own = here[who == client] - start[5 * at + client]
            assert equally_likely(own, UNEVEN[at, client])


# Dropout


def test_every_pattern_of_dropouts_is_as_likely_as_its_coins():
    here = drawn("fixed", 6, np.ones((1, 6), int), dropout=0.3)[:, 0] != ABSENT
    stayed = np.array([bin(one).count("1") for one in range(64)])
    expected = 0.7**stayed * 0.3 ** (6 - stayed) * len(here)
    assert stats.chisquare(np.bincount(here @ (1 << np.arange(6)), minlength=64), expected).pvalue > FALSE_ALARM


def test_dropouts_of_two_rounds_are_independent():
    here = (drawn("fixed", 5, np.ones((2, 5), int), dropout=0.3) != ABSENT).astype(int)
    for first in range(5):
        for second in range(5):
            assert independent(here[:, 0, first], here[:, 1, second])


@pytest.mark.parametrize("cohort", COHORTS[:3])
def test_who_drops_out_says_nothing_about_who_sits_where(cohort):
    """The same seats as without dropout, but for those that stay empty; and these are any of them."""
    stays, drops = (drawn(cohort, 3, UNEVEN, dropout) for dropout in (0.0, 0.4))
    here = drops != ABSENT
    np.testing.assert_array_equal(drops[here], stays[here])
    for at in np.ndindex(2, 3):
        assert stats.binomtest(int(here[:, *at].sum()), len(here), 0.6).pvalue > FALSE_ALARM
        for other in range(3):
            assert independent(here[:, *at].astype(int), stays[:, at[0], other])


@pytest.fixture(scope="module")
def lonely():
    """Two others, each of whom drops out 99 times of 100, and a target with two rounds: both games on one pool."""
    rng = np.random.default_rng(2)
    recorded, ends = rng.integers(-9, 10, (8, 3)), rng.integers(20, 50, (4, 3))
    seating, groups = pool_of("fixed", 2, np.full((2, 2), 2), dropout=0.99)
    pool = PoolParams(jnp.asarray(np.concatenate([recorded, ends]), jnp.float32), groups)
    aggregator = ja.SecureSum()
    fold = FoldProgram(PoolDraws(seating, 2, 1), aggregator, lambda known, view: view.total, 3, ((0, 2),))
    params = FoldParams(pool, aggregator.prepare(64.0, 3), (jnp.zeros(1),))
    weights = np.array([3, 5, 7])
    sums = SumProgram(PoolSums(seating, (2,)))
    added = np.array([[(ends[:2] @ weights).sum()], [(ends[2:] @ weights).sum()]])
    table = TableParams(jnp.asarray(recorded @ weights, jnp.int32)[:, None], groups)
    return fold, params, sums, SumParams(table, jnp.asarray(added, jnp.int32)), ends


def test_the_target_never_drops_out(lonely):
    """Where nobody else stays, the server sees the target alone, under both bits, in the fold and in the sum."""
    fold, params, sums, short, ends = lonely
    ticket = partial(numbered, jnp.uint32(SEED), jnp.uint32(CERTIFY), jnp.uint32(0))
    trials = jnp.arange(4096, dtype=jnp.uint32)
    ((total, survivors, _),) = jax.jit(jax.vmap(lambda t: fold.reveal(params, ticket(t))))(trials)
    keys = jax.jit(jax.vmap(lambda t: sums.play(short, ticket(t))))(trials)
    survivors = np.asarray(survivors)
    assert survivors.min() == 1 and survivors.max() > 1
    np.testing.assert_array_equal(survivors[:, 0], survivors[:, 1])
    for bit in (0, 1):
        for in_round in (0, 1):
            alone = survivors[:, bit, in_round] == 1
            sent = np.asarray(total)[alone, bit, in_round]
            np.testing.assert_array_equal(sent, np.broadcast_to(ends[2 * bit + in_round], sent.shape))
    nobody = (survivors[:, 0] == 1).all(axis=1)
    assert nobody.mean() > 0.9
    np.testing.assert_array_equal(np.asarray(keys)[nobody], np.broadcast_to(short.ends, (nobody.sum(), 2, 1)))
    np.testing.assert_array_equal(
        keys[:, 1] - keys[:, 0], np.full((4096, 1), int(short.ends[1, 0] - short.ends[0, 0]))
    )
