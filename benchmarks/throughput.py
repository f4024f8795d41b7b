"""What a trial costs on one core, beside NumPy, PyTorch, a loop in C and the published script: agreement first.

python benchmarks/throughput.py [--quick] [--out results/throughput.md]

Ratios are medians over turns in which the rivals run one after the other, of the process's CPU time; on a quiet core
wall time equals it. PyTorch is timed where it is installed, C where there is a compiler.
"""

import os
import sys
import tempfile
from functools import partial
from pathlib import Path

import games
import jax
import jax.numpy as jnp
import kinds
import numpy as np
import pattern
import rivals
from measure import FULL, QUICK, Page, at_least, at_most, cores, facts, options, pin, side_by_side

from jaxaudit.player import tally_block
from jaxaudit.random import CERTIFY
from jaxaudit.tally import cuts_of

POOL, TARGETS = 10_000, {60: 2.4, 1000: 2.1}


def one_core(page, effort):
    """The kernel against NumPy, PyTorch and C."""
    page.say(
        f"## Draws with replacement from {POOL:,} scores",
        "",
        "Nanoseconds per draw. `sums` makes the trials, `counted` makes them and counts at 200 thresholds. Of each "
        "rival several ways were tried, and the fastest is timed; it makes sums alone. C uses the same tickets and "
        "equals ours bit for bit; the others have the exact law of the sum (tails to 1e-2, |z| < 5). "
        f"{rivals.compiler()}; {rivals.torch_version()}.",
        "",
    )
    columns = "clients | | CPU ns | wall ns | 10⁶ trials/s | times `sums` | times `counted` | how"
    page.table(columns, (row for terms in TARGETS for row in _rivals(terms, effort)))


def _rivals(terms, effort):
    game, draws = games.drawn("with_replacement", POOL, terms), effort.draws
    table, trials = np.asarray(game.params.pool.table)[:, 0], games.whole_batches(game, draws // terms)
    first_s = games.agree(game, draws, terms)
    sums = np.asarray(games.keys(game, trials))[:, 0, 0]
    games.agree_with_law(sums, table, terms)
    runs = {"sums": games.sums_of(game, draws, terms), "counted": games.counts_of(game, draws, terms)}
    how = {"sums": f"first call {first_s:.2f} s, compilation included"}
    tried, fewer = games.whole_batches(game, 2**22 // terms), games.whole_batches(game, trials // 4)
    with tempfile.TemporaryDirectory() as folder:
        ways = rivals.c_sums(table, terms, 0, CERTIFY, Path(folder))
        for made in ways.values():
            assert np.array_equal(made(trials), sums)
        if ways:
            how["C"], made = rivals.best(ways, tried)
            runs["C"] = partial(_draws, made, trials, terms)
        for name, ways in (
            ("NumPy", rivals.numpy_sums(table, terms)),
            ("PyTorch", rivals.torch_sums(table, terms)),
        ):
            for made in ways.values():
                games.agree_with_law(made(2**15), table, terms)
            if ways:
                how[name], made = rivals.best(ways, tried)
                runs[name] = partial(_draws, made, fewer, terms)
        costs = side_by_side(runs, effort.turns)
    how["counted"] = f"first call {costs['counted'].first_s:.2f} s, compilation included"
    for name, cost in costs.items():
        over = cost.over(costs["sums"])
        shown = f"{over:.2f}"
        if name in ("NumPy", "PyTorch"):
            shown = at_least(over, TARGETS[terms] if name == "NumPy" else 2.1)
        if name == "C":
            shown += f"; `sums` take {at_most(costs['sums'].over(cost), 1.7)} times as long"
        rate = 1e3 / terms / cost.wall_ns
        ns = f"{cost.cpu_ns:.2f}", f"{cost.wall_ns:.2f}", f"{rate:.3g}"
        yield terms, name, *ns, shown, f"{cost.over(costs['counted']):.2f}", how[name]


def _draws(sums, trials, terms):
    return len(sums(trials)) * terms


def general(page, effort):
    """Whole updates, beside what the memory can do."""
    rng, terms = np.random.default_rng(4), 59
    source = np.ones(2**27, np.float32)
    target, runs, bytes_of = np.empty_like(source), {}, {}
    runs["copy"] = lambda: np.copyto(target, source) or source.nbytes
    for dim in (650, 7850):
        updates, pair = (rng.standard_normal((size, dim), dtype=np.float32) for size in (effort.pool, 2))
        weights = (pair[1] - pair[0]).astype(np.float64) / terms
        test = games.linear(weights, updates.mean(axis=0, dtype=np.float64), pair)
        ready = games.prepared(updates, (terms,), pair, test)
        fold = ready.fold()
        (slow,), (fast,) = (games.player().scores(game, "certify", 256) for game in (fold, ready.project()))
        assert max(np.abs(slow.h0 - fast.h0).max(), np.abs(slow.h1 - fast.h1).max()) < 1e-3 * slow.h0.std()
        runs[dim] = games.sums_of(fold, effort.draws // dim, 1)
        # The others, and the target under either bit.
        bytes_of[dim] = (terms + 2) * dim * 4
    costs = side_by_side(runs, effort.turns)
    copy = costs["copy"].cpu
    page.say(
        "## General path",
        "",
        f"Whole updates of 60 clients from a pool of {effort.pool:,}, folded in fixed point and scored. Copying "
        f"{source.nbytes >> 20} MiB reads {1e-9 / np.median(copy):.2f} GB/s on this core, and writes as much. Scores "
        "differ from those of the projected path by less than 1e-3 standard deviations.",
        "",
    )
    rows = []
    for dim, size in bytes_of.items():
        rate, share = 1 / np.median(costs[dim].cpu), np.median(size * copy / costs[dim].cpu)
        rows.append((f"{dim:,}", f"{rate:,.0f}", f"{rate * size / 1e9:.2f}", f"{share:.2f}"))
    page.table("dim | trials/s | gathered GB/s | gathered / copied", rows)


def counting(page, effort):
    """The tally on the device against NumPy on the host."""
    game = games.drawn("with_replacement", POOL, 60)
    scores = games.keys(game, effort.draws // 60)
    page.say(
        "## Counting",
        "",
        f"Nanoseconds per score, {scores.size:,} of them; all three count the same.",
        "",
    )
    page.table(
        "thresholds | tally | `np.searchsorted`, `np.bincount` | `np.sort`, `np.searchsorted`",
        (_counted(game, scores, number, effort) for number in (20, 200, 2000)),
    )


def _counted(game, scores, number, effort):
    where, named = games.block(game, effort.draws // 60)
    host = np.asarray(scores)[:, :, 0].T.copy()
    cuts = np.unique(np.rint(host.std() * np.linspace(-4, 4, number)).astype(np.int32))
    table, limits = cuts_of([[cuts.astype(np.int64)]] * 2), jnp.array([0, len(scores)], jnp.uint32)

    def tally():
        return np.asarray(tally_block(*where, False, table, scores, *named, limits))[0, :, 0]

    def searched():
        gaps = (np.searchsorted(cuts, own, "right") for own in host)
        return np.stack([np.bincount(own, minlength=len(cuts) + 1) for own in gaps])

    def ordered():
        below = np.stack([np.searchsorted(np.sort(own), cuts, "left") for own in host])
        return np.diff(below, axis=1, prepend=0, append=host.shape[1])

    # Gap 0 belongs to the scores that are none.
    found, ways = tally()[:, 1 : len(cuts) + 2], (tally, searched, ordered)
    assert np.array_equal(found, searched()) and np.array_equal(found, ordered())
    costs = side_by_side({way: lambda way=way: len(way()) * host.shape[1] for way in ways}, effort.turns)
    return number, *(f"{costs[way].cpu_ns:.2f}" for way in ways)


def main():
    chosen = options("What a trial costs on one core.")
    if hasattr(os, "sched_setaffinity") and len(cores()) > 1:
        # Thread pools ask for the number of cores when they are made, some at import: so begin again on one.
        pin(cores()[-1:])
        os.execv(sys.executable, sys.orig_argv)
    effort = QUICK if chosen.quick else FULL
    page = Page("What a trial costs on one core")
    page.say(f"{facts()}; {effort.turns} turns{', small sizes, of which times say little' * chosen.quick}.", "")
    for section in (one_core, pattern.section, kinds.section, general, counting):
        section(page, effort)
        jax.clear_caches()
    page.write(chosen)


if __name__ == "__main__":
    main()
