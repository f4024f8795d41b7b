"""The simulator against the exact law of its score: tails from 1e-1 to 1e-5 in 1e8 trials.

python benchmarks/oracle.py [TRIALS] [--out results/oracle.md]

Three answers that share nothing but the projected scalars: counts of simulated trials, the certain bracket of exact
mode, and a plain convolution by FFT whose lattice keeps every seat's mean (narrower than the bracket, but no bound).
A tail that differs from the last by more than four standard errors fails the run, which happens to a correct
simulator once in 500 runs of 30 tails; so does one that the bracket does not contain.
"""

import argparse
import math
import time
from pathlib import Path

import jax
import numpy as np
from scipy.fft import irfft, rfft

import jaxaudit as ja
from jaxaudit.bounds import exact_tails
from jaxaudit.devices import prepare as prepare_devices
from jaxaudit.player import Player
from jaxaudit.types import Range

RATES = [10.0**-k for k in (1, 2, 3, 4, 5)]
AUDITS = {
    "59 clients, each one of its own 64 updates": {},
    "the same, 10 % dropouts": {"dropout": 0.1},
    "59 of 59 clients with replacement": {"cohort": "with_replacement", "pool_clients": 60},
}


def convolved(terms, at, cells=2**21):
    """P(S >= t) and P(S <= t) of a sum of independent terms, as f64[2, k]: every value is split between two cells."""
    low = sum(times * values.min() for values, _, times in terms)
    high = sum(times * values.max() for values, _, times in terms)
    step, product = (high - low) / (cells - 2 * len(terms) - 2), np.ones(cells // 2 + 1, complex)
    for values, probabilities, times in terms:
        place = (values - values.min()) / step
        cell = np.floor(place).astype(int)
        upper = place - cell
        law = np.bincount(cell, probabilities * (1 - upper), cells)
        law += np.bincount(cell + 1, probabilities * upper, cells)
        product *= rfft(law) ** times
    mass, position = irfft(product, cells), low + step * np.arange(cells)
    above = np.concatenate([np.cumsum(mass[::-1])[::-1], [0.0]])
    first = np.searchsorted(position, at)
    # The mass of a cell is spread over it, so a threshold within a cell takes a share of it.
    ge = above[first] + (position[first] - at) / step * mass[first] - mass[first] / 2
    return np.stack([ge, 1 - ge])


def tails(population, trials):
    """Rows of (side, exact rate, width of its bracket, simulated rate, z, inside), and the seconds of the methods."""
    prepared = ja.Audit(population=population, aggregator=ja.SecureSum(), attack=ja.GaussianLRT()).prepare(0)
    game, columns = prepared.project(), prepared.columns()
    ((terms, error),) = prepared.responses.certify.terms(columns)
    end = np.vdot(columns[0].test.weights, columns[0].pair.both[0]) - columns[0].test.offset.sum()
    player = Player(tuple(jax.local_devices()), 0, lambda name, trials: lambda done: None)
    (pilot,) = player.scores(game, "pilot", 1_000_000)
    at = {"above": np.quantile(pilot.h0, [1 - rate for rate in RATES]), "below": np.quantile(pilot.h0, RATES)}
    began = time.perf_counter()
    (counts,) = player.count(game, "certify", Range(0, trials), [np.unique(np.concatenate(list(at.values())))])
    simulated_s, began = time.perf_counter() - began, time.perf_counter()
    rows = []
    for side, thresholds in at.items():
        limits = exact_tails(terms, thresholds - end, 2 * error)
        low, high = limits[:2] if side == "above" else limits[2:]
        exact = convolved(terms, thresholds - end)[int(side == "below")]
        for number, threshold in enumerate(thresholds):
            errors = counts.at(threshold)[0]
            rate = (errors if side == "above" else trials - errors) / trials
            deviation = math.sqrt(exact[number] * (1 - exact[number]) / trials)
            inside = low[number] - 4 * deviation <= rate <= high[number] + 4 * deviation
            width, z = high[number] / low[number] - 1, (rate - exact[number]) / deviation
            rows.append(
                (side, exact[number], width, rate, z, inside and low[number] <= exact[number] <= high[number])
            )
    return rows, simulated_s, time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("trials", type=int, nargs="?", default=100_000_000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    prepare_devices(distributed=False)
    lines = [
        f"Default recipe (digits, softmax, dim 650, pair record); {arguments.trials:,} trials of seed 0; "
        f"{jax.devices()[0].device_kind}, jax {jax.__version__}. z: standard errors of the simulated rate from the "
        "exact one.",
        "",
        "| others | tail | exact rate | width of the bracket | simulated rate | z |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    worst = 0.0
    for name, changed in AUDITS.items():
        rows, simulated_s, exact_s = tails(ja.Federated(**changed), arguments.trials)
        for side, exact, width, rate, z, inside in rows:
            assert inside, (name, side, exact, rate)
            lines.append(f"| {name} | {side} | {exact:.4e} | {width:.1e} | {rate:.4e} | {z:+.2f} |")
            worst = max(worst, abs(z))
        print(f"{name}: simulated in {simulated_s:.1f} s, computed in {exact_s:.1f} s", flush=True)
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.out:
        arguments.out.write_text(f"# The simulator and the exact law\n\n`python benchmarks/oracle.py`\n\n{text}")
    assert worst <= 4, worst


if __name__ == "__main__":
    main()
