"""The published script's three quadratic forms a sample, against one sum of scalars: a section of throughput.py."""

import time
from functools import partial

import games
import numpy as np
import rivals
from measure import at_least, side_by_side

from jaxaudit.types import Range

TERMS, UPDATES, FEW = 60, 4000, 128
TARGETS = {650: 500, 2000: 4000}


def section(page, effort):
    """The pattern, and the cost of a trial against the dimension."""
    page.say(
        "## The published script's pattern",
        "",
        f"{TERMS} clients drawn from {UPDATES:,} updates. The script's rule evaluates three quadratic forms of the "
        "summed vector for each sample (that vector is given to it); ours draws the sample, sums it and counts it at "
        "200 thresholds. Both score the same samples, and count the same errors at every threshold.",
        "",
    )
    page.table(
        "dim | errors of both at the middle threshold | script µs | ours µs | times faster",
        (_compared(dim, samples, effort) for dim, samples in effort.samples.items()),
    )
    page.say(f"Against the dimension, {FEW} updates; the projection happens once and is apart:", "")
    page.table("dim | projection s | ns per trial | times that of the first", _flat(effort))


def _compared(dim, samples, effort):
    rng, scale = np.random.default_rng(1), np.geomspace(1, 0.01, dim)
    updates = (rng.standard_normal((UPDATES, dim)) * scale).astype(np.float32)
    pair = (rng.standard_normal((2, dim)) * scale * np.sqrt(234 / dim)).astype(np.float32)
    exact, ends = updates.astype(np.float64), pair.astype(np.float64)
    mean, precision = exact.mean(axis=0), np.linalg.inv(TERMS * np.cov(exact.T, bias=True))
    test = games.linear(precision @ (ends[1] - ends[0]), mean, pair)
    game = games.prepared(updates, (TERMS,), pair, test).project()
    reach = 3 * game.distance[0] + game.distance[0] ** 2 / 2
    thresholds, by = np.linspace(-reach, reach, 201), games.player()

    rows = games.seats(game.program.draws.seating, game.params.pool.groups, samples)[:, 0]
    totals = np.stack([exact[own].sum(axis=0) for own in rows])
    script = partial(rivals.published, totals, TERMS * mean, precision, ends)
    ours = partial(_counted, by, game, thresholds)
    scores, counts = script(), ours(samples)
    assert np.array_equal((scores[:, :1] >= thresholds).sum(axis=0), counts.errors_h0)
    assert np.array_equal((scores[:, 1:] <= thresholds).sum(axis=0), counts.errors_h1)

    runs = {"script": lambda: len(script()), "ours": lambda: ours(effort.draws // TERMS).trials_h0}
    costs = side_by_side(runs, effort.turns)
    return (
        f"{dim:,}",
        f"{counts.errors_h0[100]} / {counts.errors_h1[100]} of {samples:,}",
        f"{costs['script'].cpu_ns / 1e3:,.0f}",
        f"{costs['ours'].cpu_ns / 1e3:.3f}",
        at_least(costs["script"].over(costs["ours"]), TARGETS[dim]),
    )


def _counted(by, game, thresholds, trials):
    (counts,) = by.count(game, "certify", Range(0, trials), [thresholds])
    return counts


def _flat(effort):
    runs, projection, by = {}, {}, games.player()
    for dim in effort.dims:
        rng = np.random.default_rng(2)
        updates, pair = (rng.standard_normal((size, dim), dtype=np.float32) for size in (FEW, 2))
        weights, mean = rng.standard_normal(dim) / np.sqrt(dim), updates.mean(axis=0, dtype=np.float64)
        test = games.linear(weights, mean, pair)
        ready = games.prepared(updates, (TERMS,), pair, test)
        began = time.process_time()
        game = ready.project()
        projection[dim] = time.process_time() - began

        rows = games.seats(game.program.draws.seating, game.params.pool.groups, 500)[:, 0]
        others = (updates.astype(np.float64) @ weights - test.each)[rows].sum(axis=1)
        exact = others[:, None] + pair.astype(np.float64) @ weights - test.offset
        (scores,) = by.scores(game, "certify", 500)
        # Scores are on the safe side of the exact ones, and at most twice the slack away.
        over = np.stack([scores.h0 - exact[:, 0], exact[:, 1] - scores.h1])
        assert (over >= -1e-9).all() and (over <= 2 * game.slack[0] + 1e-9).all()

        thresholds = 4 * np.sqrt(TERMS) * np.linspace(-1, 1, 200)
        count = partial(_counted, by, game, thresholds, effort.draws // TERMS)
        runs[dim] = lambda count=count: count().trials_h0
    costs = side_by_side(runs, effort.turns)
    first = costs[effort.dims[0]]
    for dim, cost in costs.items():
        yield f"{dim:,}", f"{projection[dim]:.3f}", f"{cost.cpu_ns:.1f}", f"{cost.over(first):.2f}"
