"""The projected path against the general fold on the same trials: agreement first, then time side by side.

python benchmarks/paths.py [TRIALS]
"""

import statistics
import sys
import time

import jax
import numpy as np

import jaxaudit as ja
from jaxaudit.player import Player
from jaxaudit.types import Range

THRESHOLDS = [np.linspace(-20, 20, 401)]


def timed(player, game, trials):
    began = time.perf_counter()
    player.count(game, "certify", Range(0, trials), THRESHOLDS)
    return (time.perf_counter() - began) / trials


def main(trials=131_072):
    audit = ja.Audit(population=ja.Federated(), aggregator=ja.SecureSum(), attack=ja.GaussianLRT())
    prepared = audit.prepare(0)
    fold, projected = prepared.fold(), prepared.project()
    player = Player(jax.devices()[:1], 0, lambda name, trials: lambda done: None)
    (whole,), (short,) = (player.scores(game, "certify", 8192) for game in (fold, projected))
    worst = max(np.abs(a - b).max() for a, b in ((whole.h0, short.h0), (whole.h1, short.h1))) / whole.h0.std()
    assert worst < 1e-3, worst
    for game in (fold, projected):
        timed(player, game, 8192)
    ratios, costs = [], []
    for _ in range(7):
        # The projected path gets so many more that both take a while.
        costs.append((timed(player, fold, trials), timed(player, projected, 64 * trials)))
        ratios.append(costs[-1][0] / costs[-1][1])
    machine = f"{jax.devices()[0].device_kind}, jax {jax.__version__}"
    print(f"dim {fold.program.dim}, 60 clients, {trials:,} and {64 * trials:,} trials, one device, {machine}")
    print(f"largest difference of a score: {worst:.1e} of a standard deviation")
    for name, cost in zip(("general fold", "projected"), zip(*costs)):
        print(f"{name:<13} {1e6 * statistics.median(cost):8.3f} µs/trial (median of 7)")
    print(f"ratio         {statistics.median(ratios):8.1f} (median of 7, side by side)")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
