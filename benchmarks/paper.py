"""The published experiment over five initial models: certified ε against clients, privacy and trade-off curves.

python benchmarks/paper.py adult|digits [TRIALS] [MODELS]      needs --data-dir as JAXAUDIT_DATA_DIR

Every run (model, initial or trained, partition) is a run folder of its own under runs/, kept and not repeated, and
all its bounds hold together with 95 % confidence. What varies between models is shown as a range, which is no
confidence interval: it speaks about five models, not about the certificate of any of them.
"""

import csv
import math
import sys
from pathlib import Path

import jax
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

import jaxaudit as ja
from jaxaudit import config, plots, store
from jaxaudit.bounds import gaussian_epsilon, roc_band, tradeoff
from jaxaudit.runner import run_recipe

HERE = Path(__file__).parent.parent
STATES = {"initial": 0, "trained": 30}
PARTITIONS = ("iid", "dirichlet")
DELTA = 1e-3
# Pairs and cohorts of the curves; in smaller ones the worst pair is seen in every trial.
CURVES = {"record": 200, "worst": 2000}


def folders(name, trials, models):
    """Run what is missing; yields (state, partition, model, stored run)."""
    for partition in PARTITIONS:
        for state, rounds in STATES.items():
            for seed in range(models):
                changed = {"population.rounds": rounds, "population.partition": partition}
                recipe = config.load(f"paper-{name}", changed | {"seed": seed, "trials": trials})
                folder = HERE / "runs" / f"paper-{name}-{trials}" / f"{partition}-{state}-{seed}"
                if not (folder / "summary.json").is_file():
                    ja.save(run_recipe(recipe), folder)
                    print(folder.name, flush=True)
                run = store.read(folder)
                if run.summary["digest"] != config.digest(recipe):
                    raise SystemExit(f"{folder} holds another run; move it away")
                yield state, partition, seed, run


def table(path, runs):
    """One row per run and cell."""
    rows = []
    for state, partition, seed, run in runs:
        for cell in run.cells:
            for bound in cell.summary["bounds"]:
                rows.append(
                    {
                        "model": state,
                        "partition": partition,
                        "seed": seed,
                        "pair": cell.summary["pair"],
                        "clients": cell.summary["clients"],
                        "delta": bound["delta"],
                        "epsilon_lower": math.floor(1e4 * bound["epsilon_lower"]) / 1e4,
                        "epsilon_ceiling": round(bound["epsilon_ceiling"], 4),
                        "epsilon_predicted": bound["epsilon_predicted"],
                        "censored": bound["censored"],
                        "distance": cell.summary["distance"],
                        "verdict": cell.summary["verdict_kind"],
                        "setting": cell.summary["setting"],
                        "test_accuracy": run.summary["metrics"]["test_accuracy"],
                    }
                )
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return rows


def summarise(path, name, rows, trials, models):
    """Median over models and their range, a row per state, partition, pair and cohort."""
    head = (
        f"{name}, softmax, δ = {DELTA:g}, {trials:,} trials a run, {models} initial models (seeds from 0), "
        f"{jax.devices()[0].device_kind}, jax {jax.__version__}. "
        "Certified ε ≥: the median over the models, in brackets the smallest and largest; each holds in its own "
        "run, where 95 % confidence covers all 20 cells and both deltas. `*`: in at least one model no error of the "
        "rarer kind was seen, so the value is limited by the trials. Predicted: the median of the Gaussian model, no "
        "bound.\n\n"
    )
    sizes = sorted({row["clients"] for row in rows})
    lines = [
        f"| model | partition | pair | {' | '.join(f'n = {n:,}' for n in sizes)} |",
        "| --- " * (3 + len(sizes)) + "|",
    ]
    for partition in PARTITIONS:
        for state in STATES:
            for pair in dict.fromkeys(row["pair"] for row in rows):
                cells = []
                for n in sizes:
                    found = select(rows, model=state, partition=partition, pair=pair, clients=n, delta=DELTA)
                    values = np.array([row["epsilon_lower"] for row in found])
                    predicted = np.median([_or_infinite(row["epsilon_predicted"]) for row in found])
                    star = "*" if any(row["censored"] for row in found) else ""
                    low, middle, high = (
                        np.floor(100 * v) / 100 for v in (values.min(), np.median(values), values.max())
                    )
                    cells.append(f"{middle:.2f}{star} ({low:.2f}–{high:.2f}), pred. {predicted:.2f}")
                lines.append(f"| {state} | {partition} | {pair} | {' | '.join(cells)} |")
    path.write_text(f"# {name}\n\n{head}" + "\n".join([*lines, "", *claims(rows)]) + "\n", encoding="utf-8")


def claims(rows):
    """How often the published qualitative claims hold, counted over runs."""
    falls, steps, larger, compared, both, ceiling = 0, 0, 0, 0, 0, 0
    cell = {tuple(row[k] for k in ("model", "partition", "seed", "pair", "clients", "delta")): row for row in rows}
    sizes = sorted({row["clients"] for row in rows})
    for (*run, pair, clients, delta), row in cell.items():
        ceiling += row["censored"]
        if clients != sizes[0]:
            before = cell[*run, pair, sizes[sizes.index(clients) - 1], delta]
            if not before["censored"]:
                steps += 1
                falls += row["epsilon_lower"] < before["epsilon_lower"]
        if pair == "worst":
            random = cell[*run, "random", clients, delta]
            if row["censored"] and random["censored"]:
                both += 1
                continue
            compared += 1
            larger += row["epsilon_lower"] >= random["epsilon_lower"]
    one = [row["epsilon_lower"] for row in rows if row["clients"] == sizes[-1] and row["delta"] == DELTA]
    return [
        f"- **ε falls with n**: in {falls:,} of {steps:,} steps from one cohort size to the next larger (steps that "
        "start at a censored value are left out).",
        f"- **worst ≥ random**: in {larger:,} of {compared:,} cells; in {both:,} more both are limited by the "
        "trials.",
        f"- **One round suffices**: every number here is of a single round; at n = {sizes[-1]:,}, ε(1e-3) ≥ "
        f"{min(one):.2f} to {max(one):.2f} over all runs and pairs.",
        f"- {ceiling:,} of {len(rows):,} bounds are limited by the trials (`censored` in cells.csv): no measurements "
        "of ε.",
    ]


def _or_infinite(predicted):
    """A prediction; none is stored where it is infinite."""
    return np.inf if predicted is None else predicted


def select(rows, **wanted):
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def against_clients(path, name, rows, trials):
    """Certified ε against the cohort size: median and range over models, in four panels."""
    with plt.rc_context(plots.STYLE):
        figure, axes = plt.subplots(2, 2, figsize=(9, 7), sharex=True, sharey=True)
        pairs = list(dict.fromkeys(row["pair"] for row in rows))
        for ax, (partition, state) in zip(axes.flat, [(p, s) for p in PARTITIONS for s in STATES]):
            for pair, color, marker, shift in zip(pairs, plots.PALETTE, "osD^", (0.94, 0.98, 1.02, 1.06)):
                found = select(rows, model=state, partition=partition, pair=pair, delta=DELTA)
                sizes = np.array(sorted({row["clients"] for row in found}))
                values = [[row["epsilon_lower"] for row in found if row["clients"] == n] for n in sizes]
                middle, low, high = (np.array([f(v) for v in values]) for f in (np.median, np.min, np.max))
                ax.errorbar(
                    sizes * shift,
                    middle,
                    (middle - low, high - middle),
                    color=color,
                    marker=marker,
                    capsize=3,
                    label=pair,
                )
            ceiling = found[0]["epsilon_ceiling"]
            ax.axhline(ceiling, color=plots.CEILING, ls=":", label=f"ceiling of {trials:,} trials")
            ax.set(xscale="log", yscale="log", ylim=(0.01, 20), title=f"{state} model, {partition} clients")
            ax.set_xticks(sizes, [f"{n:,}" for n in sizes])
            ax.minorticks_off()
            ax.set_yticks([0.01, 0.1, 1, 10], ["0.01", "0.1", "1", "10"])
        for ax in axes[1]:
            ax.set_xlabel("clients in the cohort")
        figure.supylabel(f"certified ε ≥ (nats) at δ = {DELTA:g}")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5)
        figure.suptitle(
            f"{name}: marks are medians over models, bars their range (no confidence interval)", fontsize=10
        )
        _save(figure, path)


def curves(path, name, runs, pair, clients):
    """Privacy and trade-off curves of one pair in the trained model on iid clients, a line per model."""
    with plt.rc_context(plots.STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2))
        deltas, grid = np.geomspace(1e-5, 0.3, 60), np.geomspace(1e-5, 1, 400)
        chosen = [run for state, partition, _, run in runs if (state, partition) == ("trained", "iid")]
        for number, (run, color) in enumerate(zip(chosen, plots.PALETTE)):
            cell = run.cell(f"{pair}-{clients}")
            confidence = cell.summary["confidence"]
            certified, top = cell.privacy(deltas)
            left.plot(deltas, certified, color=color, label=f"model {number}, certified ≥")
            predicted = [gaussian_epsilon(delta, cell.summary["distance"]) for delta in deltas]
            left.plot(deltas, predicted, color=color, ls="--", lw=0.9)
            curve = tradeoff(cell.counts, confidence)
            low, high = roc_band(curve, grid)
            right.fill_between(grid, 1 - high, 1 - low, color=color, alpha=0.2, lw=0)
            right.plot([1, *curve.fpr, 0], [0, *curve.fnr, 1], color=color, label=f"model {number}")
        left.plot([], [], color=plots.MUTED, ls="--", lw=0.9, label="Gaussian predictions")
        left.plot(deltas, top, color=plots.CEILING, ls=":", label="ceiling")
        left.set(xscale="log", xlabel="δ", ylabel="ε (nats)", ylim=(0, 1.3 * top.max()), title="Privacy curves")
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
        right.plot([0, 1], [1, 0], color=plots.MUTED, ls=":", label="perfect privacy")
        right.set(xlim=(0, 1), ylim=(0, 1), xlabel="false positive rate", ylabel="false negative rate")
        right.set(title="Trade-off curves, bands are confidence", aspect="equal")
        right.legend([right.lines[-1]], ["perfect privacy"], loc="upper right")
        figure.suptitle(f"{name}, pair {pair}, {clients:,} iid clients, trained: one line per model", fontsize=10)
        _save(figure, path)


def _save(figure, path):
    for suffix in (".png", ".pdf"):
        figure.savefig(path.with_suffix(suffix))
    plt.close(figure)


def main(name, trials=200_000, models=5):
    runs = list(folders(name, trials, models))
    out = HERE / "results" / f"paper-{name}"
    out.mkdir(parents=True, exist_ok=True)
    rows = table(out / "cells.csv", runs)
    title = {"adult": "Adult", "digits": "MNIST"}[name]
    summarise(out / "README.md", title, rows, trials, models)
    against_clients(out / "clients", title, rows, trials)
    for pair, clients in CURVES.items():
        curves(out / f"curves-{pair}", title, runs, pair, clients)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
