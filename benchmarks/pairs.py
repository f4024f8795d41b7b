"""Certified epsilon of the four pairs on the digits at 60 clients, for both kinds of server; a table for results/.

python benchmarks/pairs.py [TRIALS] [SEED]
"""

import sys
import time
from math import floor
from pathlib import Path

import jax

import jaxaudit as ja

DELTA, CLIENTS = 1e-3, 60
HEADER = "pair | server knows | Δ | predicted ε | certified ε ≥ | ceiling | verdict | off-span score ε ≥ | seconds"


def main(trials=1_000_000, seed=0):
    rows = [f"| {HEADER} |", "|" + " --- |" * (HEADER.count("|") + 1)]
    for pair in ("record", "zeroed", "random", "worst"):
        for knows in ("fit_pool", "certify_pool"):
            audit = ja.Audit(
                population=ja.Federated(clients=CLIENTS, pair=pair),
                aggregator=ja.SecureSum(),
                attack=ja.GaussianLRT(),
                server_knows=knows,
            )
            began = time.perf_counter()
            result = ja.run(audit, trials=trials, seed=seed, deltas=[DELTA])
            wall_s = time.perf_counter() - began
            found = result.headline
            (bound,), distance = found.bounds, found.distance
            off_span = found.off_span_bounds
            off = f"{floor(100 * off_span[0].epsilon) / 100:.2f}" if off_span else "–"
            cells = [
                pair,
                knows,
                f"{distance:.3f}",
                f"{ja.bounds.gaussian_epsilon(DELTA, distance):.2f}",
                f"{floor(100 * bound.epsilon) / 100:.2f}" + (" *" if bound.censored else ""),
                f"{bound.ceiling:.2f}",
                found.verdict.kind,
                off + (" *" if off_span and off_span[0].censored else ""),
                f"{wall_s:.1f}",
            ]
            rows.append("| " + " | ".join(cells) + " |")
            print(rows[-1], flush=True)
    machine = f"{jax.devices()[0].device_kind}, jax {jax.__version__}"
    note = f"δ = {DELTA:g}, {trials:,} trials, seed {seed}, 95 % confidence a row, {machine}."
    star = "`*`: no error of the rarer kind was seen; limited by the trials, not a measurement."
    text = f"{note} {star}\n\n" + "\n".join(rows) + "\n"
    Path(__file__).parent.parent.joinpath("results", "membership-pairs.md").write_text(text)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
