"""The projected path against the general fold on the same trials: agreement first, then time side by side.

python benchmarks/paths.py [TRIALS]
"""

import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

import jaxaudit as ja
from jaxaudit.player import play_block
from jaxaudit.random import CERTIFY


def scores(game, trials):
    """Scores of the first trials, on one device, in the batches that the runner would use."""
    mesh = jax.make_mesh((1,), ("trials",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])
    width = game.program.draws.width(game.params.pool)
    starts = jnp.arange(-(-trials // width), dtype=jnp.uint32) * jnp.uint32(width)
    both = play_block(game.program, mesh, width, game.params, jnp.uint32(0), jnp.uint32(CERTIFY), starts)
    return [np.asarray(s).reshape(-1)[:trials] for s in both]


def timed(game, trials):
    began = time.perf_counter()
    scores(game, trials)
    return (time.perf_counter() - began) / trials


def main(trials=131_072):
    audit = ja.Audit(population=ja.Federated(), aggregator=ja.SecureSum(), attack=ja.GaussianLRT())
    prepared = audit.prepare(0)
    fold, projected = prepared.fold(), prepared.project()
    whole, short = scores(fold, trials), scores(projected, trials)
    worst = max(np.abs(a - b).max() for a, b in zip(whole, short)) / whole[0].std()
    assert worst < 1e-3, worst
    ratios, costs = [], []
    for _ in range(7):
        costs.append((timed(fold, trials), timed(projected, trials)))
        ratios.append(costs[-1][0] / costs[-1][1])
    machine = f"{jax.devices()[0].device_kind}, jax {jax.__version__}"
    print(f"dim {fold.program.dim}, 60 clients, {trials:,} trials, {machine}")
    print(f"largest difference of a score: {worst:.1e} of a standard deviation")
    for name, cost in zip(("general fold", "projected"), zip(*costs)):
        print(f"{name:<13} {1e6 * statistics.median(cost):8.3f} µs/trial (median of 7)")
    print(f"ratio         {statistics.median(ratios):8.1f} (median of 7, side by side)")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
