"""What a finite pool does to an audit: the server fitted on the audited pool, or on a disjoint one of the same size.

python benchmarks/finite_pool.py [TRIALS]

Vectors uniform on the unit sphere in d = 650, sums of n = 1,000 of them, antipodal candidates. In the population
Δ = 2 √(d / n) = 1.61 and ε(1e-3) = 5.73. Fitting the weights on the pool that is audited inflates Δ by about
1 / √(1 - d / P); a disjoint pool removes that (and costs power: the weights are noisy). Drawing without replacement
from a finite pool inflates it by √((P - 1) / (P - n)) for either server, because that sum really varies less: a
statement about the pool, not about the population.
"""

import sys
import tempfile
from pathlib import Path

import jax
import numpy as np

import jaxaudit as ja
from jaxaudit.bounds import gaussian_epsilon

DIM, TERMS, DELTA = 650, 1000, 1e-3
POOLS = (1300, 2000, 5000, 10_000)
HEADER = (
    "P | draws | server knows | expected inflation of Δ | Δ | Gaussian ε | certified ε ≥ | population ε ≥ "
    "(disjoint cohorts)"
)


def recorded(folder, pool, seed=0):
    """Two pools of P recorded vectors, two rows for the target, and antipodal candidates."""
    vectors = np.random.default_rng(seed).standard_normal((2 * pool + 2, DIM))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.save(folder / f"sphere-{pool}.npy", vectors.astype(np.float32))
    point = np.eye(DIM, dtype=np.float32)[0]
    np.savez(folder / "antipodal.npz", h0=-point, h1=point)
    return str(folder / f"sphere-{pool}.npy"), str(folder / "antipodal.npz")


def population(found):
    """Its bound and its trials; a server that knows the audited pool has none."""
    if not found.population:
        return "–"
    (bound,) = found.population
    return f"{np.floor(100 * bound.epsilon) / 100:.2f} ({bound.trials})"


def main(trials=200_000):
    truth = 2 * np.sqrt(DIM / TERMS)
    rows = [f"| {HEADER} |", "|" + " --- |" * (HEADER.count("|") + 1)]
    with tempfile.TemporaryDirectory() as folder:
        for pool in POOLS:
            path, pair = recorded(Path(folder), pool)
            for cohort in ("with_replacement", "without_replacement"):
                for knows in ("certify_pool", "fit_pool"):
                    audit = ja.Audit(
                        population=ja.Arrays(path=path, pair=pair, clients=TERMS + 1, cohort=cohort),
                        aggregator=ja.SecureSum(),
                        attack=ja.GaussianLRT(ridge=1e-9),
                        server_knows=knows,
                    )
                    found = ja.run(audit, trials=trials, deltas=[DELTA]).headline
                    finite = np.sqrt((pool - 1) / (pool - TERMS)) if cohort == "without_replacement" else 1.0
                    inflation = finite / (np.sqrt(1 - DIM / pool) if knows == "certify_pool" else 1.0)
                    cells = [
                        f"{pool:,}",
                        cohort.replace("_", " "),
                        knows.replace("_", " "),
                        f"{inflation:.2f}",
                        f"{found.distance:.2f}",
                        f"{gaussian_epsilon(DELTA, found.distance):.1f}",
                        f"{np.floor(100 * found.bounds[0].epsilon) / 100:.2f}" + "*" * found.bounds[0].censored,
                        population(found),
                    ]
                    rows.append("| " + " | ".join(cells) + " |")
                    print(rows[-1], flush=True)
    head = (
        f"Sphere, d = {DIM}, n = {TERMS:,} noise terms, antipodal candidates: in the population Δ = {truth:.2f}, "
        f"ε({DELTA:g}) = {gaussian_epsilon(DELTA, truth):.2f}. δ = {DELTA:g}, {trials:,} trials, seed 0, 95 % "
        f"confidence a row, {jax.devices()[0].device_kind}, jax {jax.__version__}. `*`: limited by the trials.\n\n"
    )
    Path(__file__).parent.parent.joinpath("results", "finite-pool.md").write_text(head + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
