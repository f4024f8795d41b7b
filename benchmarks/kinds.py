"""What a draw costs under every law of a cohort, for many candidates, and for several sizes: throughput.py."""

import games
import jax
import numpy as np
from measure import at_most, side_by_side

POOL, SIZES, COLUMNS = 10_000, (59, 199, 599, 999), (1, 2, 4, 8, 16, 32, 64)


def section(page, effort):
    """Laws, columns, sizes."""
    page.say(
        "## Draw kinds",
        "",
        "Nanoseconds of CPU time per draw (with Poisson, per expected one): sums alone, and with counting at 200 "
        "thresholds. In every kind the sums equal NumPy's over the list of who sits where.",
        "",
    )
    page.table("draws | clients | sums | counted | times independent draws | … counted", _laws(effort))
    page.say("K candidates from the same draws, 60 clients, nanoseconds per candidate and draw:", "")
    page.table("K | sums | counted | first call of sums s", _columns(effort))
    page.say(_sizes(effort), "")


def _kinds():
    """Name, terms and game of every kind; the first two are what the others are measured against."""
    rng, replacing = np.random.default_rng(3), "with_replacement"
    uneven, few = rng.integers(30, 90, 60), rng.integers(5, 20, 1000)
    for terms in (60, 1000):
        yield "with replacement", terms, games.drawn(replacing, POOL, terms)
    for terms in (60, 1000):
        yield "without replacement", terms, games.drawn("without_replacement", POOL, terms)
    yield "Poisson", 60, games.drawn("poisson", POOL, 60)
    yield "with replacement, 10 % drop out", 60, games.drawn(replacing, POOL, 60, dropout=0.1)
    yield "without replacement, 10 % drop out", 60, games.drawn("without_replacement", POOL, 60, dropout=0.1)
    yield "fixed, 64 updates each", 60, games.drawn("fixed", 60, 60, each=64)
    yield "fixed, 30 to 89 updates each", 60, games.drawn("fixed", 60, 60, each=uneven)
    yield "with replacement, 5 to 19 updates each", 60, games.drawn(replacing, 1000, 60, each=few)


def _laws(effort):
    kinds, runs, draws = list(_kinds()), {}, effort.draws // 4
    for name, terms, game in kinds:
        games.agree(game, draws, terms)
        runs[name, terms, "sums"] = games.sums_of(game, draws, terms)
        runs[name, terms, "counted"] = games.counts_of(game, draws, terms)
    costs = side_by_side(runs, effort.turns)
    for name, terms, game in kinds:
        sums, counted = (
            (costs[name, terms, how], costs[name, terms, how].over(costs["with replacement", terms, how]))
            for how in ("sums", "counted")
        )
        target = name == "without replacement"
        yield (
            name,
            f"{terms:,} of {game.program.draws.seating.groups:,}",
            f"{sums[0].cpu_ns:.2f}",
            f"{counted[0].cpu_ns:.2f}",
            *(at_most(one[1], 3.3) if target else f"{one[1]:.2f}" for one in (sums, counted)),
        )


def _columns(effort):
    runs, first = {}, {}
    jax.clear_caches()  # the first was compiled above
    for columns in COLUMNS:
        game = games.drawn("with_replacement", POOL, 60, columns)
        draws = effort.draws // (4 + columns)
        first[columns] = games.agree(game, draws, 60)
        runs[columns, "sums"] = games.sums_of(game, draws, 60)
        # Thresholds are made into cuts for every column, once; so more trials.
        runs[columns, "counted"] = games.counts_of(game, 4 * draws, 60)
    costs = side_by_side(runs, effort.turns)
    for columns in COLUMNS:
        each = [costs[columns, how].cpu_ns / columns for how in ("sums", "counted")]
        shown = at_most(each[0], 0.3) if columns == 64 else f"{each[0]:.2f}"
        yield columns, shown, f"{each[1]:.2f}", f"{first[columns]:.2f}"


def _sizes(effort):
    draws, together = effort.draws // 4, games.drawn("with_replacement", POOL, SIZES, len(SIZES))
    games.agree(together, draws, max(SIZES))
    runs = {"together": games.sums_of(together, draws, max(SIZES))}
    for terms in SIZES:
        runs[terms] = games.sums_of(games.drawn("with_replacement", POOL, terms), draws, terms)
    costs = side_by_side(runs, effort.turns)
    one_pass = costs["together"].cpu * max(SIZES)
    apart = sum(costs[terms].cpu * terms for terms in SIZES)
    return (
        f"{len(SIZES)} cohort sizes ({', '.join(map(str, SIZES))} others) in one pass take "
        f"{1e6 * np.median(one_pass):.2f} µs a trial, one by one {1e6 * np.median(apart):.2f} µs: "
        f"{np.median(apart / one_pass):.2f} times as much."
    )
