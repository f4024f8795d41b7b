"""What the published experiment left out: larger models, several rounds, drawn cohorts, and the population.

python benchmarks/depth.py [TRIALS]      needs Adult (JAXAUDIT_DATA_DIR)
"""

import sys
from pathlib import Path

import jax
import numpy as np

import jaxaudit as ja
from jaxaudit.bounds import gaussian_epsilon

DELTA, PAIRS = 1e-3, ("record", "zeroed", "random")
BASE = {"dataset": "adult", "batch_size": 4, "variants": 16, "rounds": 30, "pair": PAIRS}


def audit(trials, **fields):
    population = ja.Federated(**(BASE | fields))
    attack = ja.GaussianLRT(ridge=[0.01, 0.1, 1.0, 10.0])
    return ja.run(
        ja.Audit(population=population, aggregator=ja.SecureSum(), attack=attack), trials=trials, deltas=[DELTA]
    )


def cells(result):
    """Δ, prediction and certified bound of every pair."""
    texts = []
    for found in result.cells:
        (bound,) = found.bounds
        star = "*" if bound.censored else ""
        predicted = gaussian_epsilon(DELTA, found.distance)
        texts.append(f"{down(bound.epsilon)}{star} (Δ {found.distance:.2f}, pred. {predicted:.2f})")
    return texts


def down(epsilon):
    return f"{np.floor(100 * epsilon) / 100:.2f}"


def table(title, first, rows):
    columns = [first, *(f"{pair}: ε ≥" for pair in PAIRS)]
    lines = [f"## {title}", "", f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    for row in rows:
        lines.append(f"| {' | '.join(map(str, row))} |")
        print(lines[-1], flush=True)
    return [*lines, ""]


def dimensions(trials):
    for state, rounds in (("initial", 0), ("trained", 30)):
        for hidden in (2, 8, 32, 128):
            result = audit(trials, model="mlp", hidden=hidden, clients=200, rounds=rounds)
            metrics = result.prepared.responses.metrics
            name = f"{state}, d = {metrics['dim']:,.0f} (accuracy {metrics['test_accuracy']:.3f})"
            yield [name, *cells(result)]


def rounds_together(trials):
    for audited in (1, 2, 4, 8):
        yield [f"T = {audited}", *cells(audit(trials, clients=2000, audited_rounds=audited))]


def cohorts(trials):
    for cohort, pool_clients, variants in (
        ("fixed", 0, 16),
        ("with_replacement", 2000, 16),
        ("without_replacement", 2000, 16),
        ("without_replacement", 2000, 1),
    ):
        result = audit(trials, clients=200, cohort=cohort, pool_clients=pool_clients, variants=variants)
        name = cohort.replace("_", " ") + (f" from {pool_clients:,}" if pool_clients else "")
        yield [f"{name}, {variants} recorded update{'s' * (variants > 1)} each", *cells(result)]


def population(trials):
    """The pool's row and the population's, n = 20 of 4,000 clients with four records each."""
    result = audit(trials, clients=20, cohort="without_replacement", pool_clients=4000, variants=1)
    yield ["this pool, cohorts without replacement", *cells(result)]
    rows = [found.population[0] for found in result.cells]
    name = f"the population, {rows[0].trials} disjoint cohorts, ceiling {rows[0].ceiling:.2f}"
    yield [name, *(f"{down(row.epsilon)}{'*' * row.censored}" for row in rows)]


def main(trials=500_000):
    head = (
        f"Adult, δ = {DELTA:g}, {trials:,} trials, seed 0, 95 % for the three pairs of a row together, "
        f"{jax.devices()[0].device_kind}, jax {jax.__version__}. In brackets the separation Δ and the Gaussian "
        "prediction, no bound. `*`: limited by the trials."
    )
    lines = [head, ""]
    lines += table("ε rises with the dimension: MLP 108-h-2, n = 200", "model", dimensions(trials))
    lines += table(
        "Rounds add up: softmax, n = 2,000, the target in T rounds in a row", "rounds", rounds_together(trials)
    )
    lines += table(
        "Who is drawn: softmax, n = 200 (records dealt to 200 or to 2,001 clients: other targets)",
        "cohorts",
        cohorts(trials),
    )
    title = "This pool and the population: softmax, n = 20, batches of all four records"
    lines += table(f"{title} (a client has one update only)", "bound on", population(trials))
    Path(__file__).parent.parent.joinpath("results", "depth.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
