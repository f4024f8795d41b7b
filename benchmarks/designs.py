"""Pairs or labelled trials: certified ε against seconds, on sums of scores and on sums of whole updates.

python benchmarks/designs.py [--quick] [--out results/designs.md]

The default audit, prepared once and played with several seeds. Each way chooses its thresholds for δ = 1e-3 alone and
for a curve of 20 δ; pairs are counted once, for the paired conditional bound and for the union.
"""

import time
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from measure import Page, facts, options

import jaxaudit as ja
from jaxaudit import bounds
from jaxaudit.devices import prepare
from jaxaudit.player import Player
from jaxaudit.tuning import pilot_trials
from jaxaudit.types import Range

GOALS = {"δ = 1e-3 alone": (1e-3,), "mean over 20 δ": tuple(np.geomspace(1e-5, 1e-1, 20).tolist())}


class Way(NamedTuple):
    """A design of the trials and a method.

    Attributes:
      words: what it is called.
      method: of the bound; None leaves it to the pilot, as a run does.
      labelled: each trial counts under one hypothesis.
    """

    words: str
    method: str | None
    labelled: bool


CHOSEN, PAIRED, UNION, LABELLED = (
    Way("pairs, the pilot's choice", None, False),
    Way("pairs, PC-CP", "pc-cp", False),
    Way("pairs, union", "union", False),
    Way("labelled, CC-CP", "cc-cp", True),
)


class Path(NamedTuple):
    """A form of the game.

    Attributes:
      words: what is summed.
      game: to play.
      ways: that are sound for it; the first is the default.
      sizes: trials.
    """

    words: str
    game: object
    ways: tuple[Way, ...]
    sizes: tuple[int, ...]


class Found(NamedTuple):
    """Of one path and way, by size.

    Attributes:
      seconds: f64[sizes], median: pilot and counts.
      epsilon: goal to f64[sizes, 2], mean and standard error.
    """

    seconds: np.ndarray
    epsilon: dict[str, np.ndarray]


def paths(quick):
    """Both forms of the default audit, after a look that they score alike."""
    prepared = ja.Audit(population=ja.Federated(), aggregator=ja.SecureSum(), attack=ja.GaussianLRT()).prepare(0)
    projected, general = prepared.project(), prepared.fold()
    fast, slow = (_player(0).scores(game, "certify", 256)[0] for game in (projected, general))
    assert max(np.abs(slow.h0 - fast.h0).max(), np.abs(slow.h1 - fast.h1).max()) < 1e-3 * fast.h0.std()
    least, most = (4, 5) if quick else (4, 8)
    sizes = tuple(10**power for power in range(least, most + 1))
    return (
        Path("projected: sums of scores", projected, (CHOSEN, PAIRED, UNION, LABELLED), sizes),
        Path("general: sums of whole updates", general, (UNION, LABELLED), sizes[: 2 if quick else 3]),
    )


def _player(seed):
    return Player(tuple(jax.local_devices()), seed, lambda name, trials: lambda done: None)


def played(path, trials, seed):
    """Seconds and, for every goal, the mean bound of each way: {way: (seconds, {goal: ε})}."""
    player, plans, found = _player(seed), {}, {}
    began = time.perf_counter()
    (pilot,) = player.scores(path.game, "pilot", pilot_trials(trials))
    pilot_s = time.perf_counter() - began
    for way in path.ways:
        own, each = (replace(pilot, design="labelled"), trials // 2) if way.labelled else (pilot, trials)
        choose = partial(bounds.robust_pilot, method=way.method) if way.method else bounds.best_plan
        plans[way] = {goal: choose(own, each, deltas) for goal, deltas in GOALS.items()}
    for labelled in (False, True):
        ways = [way for way in path.ways if way.labelled == labelled]
        thresholds = np.unique(np.concatenate([p.thresholds for way in ways for p in plans[way].values()]))
        # Programs are compiled for each number of thresholds.
        player.count(path.game, "pilot", Range(0, 1), [thresholds], labelled)
        began = time.perf_counter()
        (counts,) = player.count(path.game, "certify", Range(0, trials), [thresholds], labelled)
        seconds = pilot_s + time.perf_counter() - began
        for way in ways:
            found[way] = seconds, {goal: _mean(plan, counts, GOALS[goal]) for goal, plan in plans[way].items()}
    return found


def _mean(plan, counts, deltas):
    return np.mean([bound.epsilon for bound in bounds.privacy_curve(plan, counts.only(plan.thresholds), deltas)])


def measured(path, runs):
    """Found of every way."""
    # The first game is compiled, and is not counted.
    played(path, path.sizes[0], runs)
    every = [[played(path, trials, seed) for seed in range(runs)] for trials in path.sizes]
    found = {}
    for way in path.ways:
        seconds = np.array([np.median([one[way][0] for one in size]) for size in every])
        epsilon = {}
        for goal in GOALS:
            each = np.array([[one[way][1][goal] for one in size] for size in every])
            epsilon[goal] = np.stack([each.mean(axis=1), each.std(axis=1, ddof=1) / np.sqrt(runs)], axis=1)
        found[way] = Found(seconds, epsilon)
    return found


def tables(page, path, found):
    """What was found, and how long each way takes to the same ε."""
    page.say(f"## {path.words.capitalize()}", "")
    designs = {way.labelled: found[way].seconds for way in path.ways}
    columns = [*(f"s, {'labelled' if labelled else 'pairs'}" for labelled in designs)]
    columns += [f"{way.words}, {goal}" for goal in GOALS for way in path.ways]
    rows = []
    for number, trials in enumerate(path.sizes):
        means = [found[way].epsilon[goal][number] for goal in GOALS for way in path.ways]
        seconds = (f"{each[number]:.3g}" for each in designs.values())
        rows.append((f"{trials:,}", *seconds, *(f"{mean:.3f} ± {error:.3f}" for mean, error in means)))
    page.table(f"trials | {' | '.join(columns)}", rows)
    page.table(
        f"seconds to the same ε | {' | '.join(way.words for way in path.ways)} | shortest",
        (_seconds_to(path, found, goal) for goal in GOALS),
    )


def _seconds_to(path, found, goal):
    reached = {way: np.maximum.accumulate(found[way].epsilon[goal][:, 0]) for way in path.ways}
    # What every way has reached, interpolated between sizes.
    common = min(means[-1] for means in reached.values())
    needed = {way: np.exp(np.interp(common, reached[way], np.log(found[way].seconds))) for way in path.ways}
    shortest = min(needed, key=needed.get)
    note = "the default" if shortest == path.ways[0] else f"the default is {path.ways[0].words}"
    return (
        f"{goal}: ε = {common:.3f}",
        *(f"{seconds:.3g}" for seconds in needed.values()),
        f"{shortest.words} ({note})",
    )


def figure(path, every):
    """Certified ε against seconds, a panel for each form of the game."""
    import matplotlib.pyplot as plt

    from jaxaudit.plots import ENERGY, MEASURED, PALETTE, STYLE

    colors, markers = (
        {PAIRED: ENERGY, UNION: PALETTE[3], LABELLED: MEASURED},
        {PAIRED: "D", UNION: "s", LABELLED: "o"},
    )
    with plt.rc_context(STYLE):
        drawn, panels = plt.subplots(1, 2, figsize=(8.4, 3.9), sharex=True, sharey=True)
        for ax, (words, found) in zip(panels, every.items()):
            # The pilot's choice would hide what it chose.
            for way, one in ((way, found[way]) for way in colors if way in found):
                for goal, style in zip(GOALS, ("-", "--")):
                    how = {"color": colors[way], "marker": markers[way], "ms": 4.5, "ls": style}
                    ax.plot(one.seconds, one.epsilon[goal][:, 0], label=f"{way.words}, {goal}", **how)
            ax.set(xscale="log", xlabel="seconds of pilot and trials", title=words.capitalize())
            ax.xaxis.set_major_formatter("{x:g}")
            ax.xaxis.set_minor_formatter("")
        panels[0].set(ylabel="certified ε ≥ (nats)")
        drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        for suffix in (".png", ".pdf"):
            drawn.savefig(path.with_suffix(suffix))


def main():
    chosen = options("Certified ε against seconds: pairs or labelled trials.")
    prepare(distributed=False)
    runs, page = 2 if chosen.quick else 10, Page("Pairs or labelled trials")
    page.say(
        f"{facts()}{'; small sizes, which say little' * chosen.quick}.",
        "",
        "The default audit (digits, softmax, dim 650, 60 clients, pair record), prepared once: mean ± standard error "
        f"of the bounds of {runs} seeds at 95 % confidence, and the median of the wall seconds of pilot and trials, "
        "compiled before. The bounds of a curve hold together. A labelled trial counts under one hypothesis, a pair "
        "under both. The first way of a table is the default.",
        "",
    )
    every = {}
    for path in paths(chosen.quick):
        every[path.words] = measured(path, runs)
        tables(page, path, every[path.words])
    if chosen.out:
        figure(chosen.out, every)
        page.say(f"![certified ε against seconds]({chosen.out.with_suffix('.png').name})", "")
    page.write(chosen)


if __name__ == "__main__":
    main()
