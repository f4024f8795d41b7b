"""A model of a million parameters, from data that needs no download: time, memory, and the setting that pilots chose.

python benchmarks/large_dim.py [HIDDEN] [TRIALS]
"""

import os
import resource
import sys
import time
from pathlib import Path

import jax

import jaxaudit as ja
from jaxaudit.bounds import gaussian_epsilon


def main(hidden=13_334, trials=1_000_000):
    os.environ["JAXAUDIT_CACHE"] = "off"
    population = ja.Federated(
        model="mlp", hidden=hidden, learning_rate=0.05, rounds=10, fit_updates=2000, pair=["record", "zeroed"]
    )
    attack = ja.GaussianLRT(ridge=[0.001, 0.01, 0.1, 1.0], rank=[0, 100, 500])
    began = time.perf_counter()
    result = ja.run(
        ja.Audit(population=population, aggregator=ja.SecureSum(), attack=attack), trials=trials, deltas=[1e-3]
    )
    wall_s = time.perf_counter() - began
    fit = result.prepared.responses.fit.describe(population.clients - 1)
    lines = [
        f"MLP 64-{hidden:,}-10 on the digits, dim {result.prepared.responses.metrics['dim']:,.0f}, 60 clients, the "
        f"server learns from {fit['updates']:,} updates; {trials:,} trials, δ = 1e-3, seed 0, 95 % for both pairs "
        f"together, {jax.devices()[0].device_kind}, jax {jax.__version__}.",
        "",
        "| pair | setting | Δ | predicted ε | certified ε ≥ | ceiling | verdict |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for found in result.cells:
        (bound,) = found.bounds
        lines.append(
            f"| {found.cell.pair.name} | {found.cell.setting} | {found.distance:.3f} | "
            f"{gaussian_epsilon(1e-3, found.distance):.2f} | {ja.bounds.rounded_down(bound.epsilon)}"
            f"{' *' * bound.censored} | {bound.ceiling:.2f} | {found.verdict.kind} |"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    timing = ", ".join(f"{name} {value:.1f}" for name, value in result.timing.items() if name.endswith("_s"))
    lines += ["", f"{wall_s:.0f} s in all ({timing}); peak memory {peak:.1f} GiB. `*`: limited by the trials."]
    text = "\n".join(lines) + "\n"
    print(text)
    Path(__file__).parent.parent.joinpath("results", "large-dim.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
