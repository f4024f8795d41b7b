"""The figures of a run. Each function draws one idea on given axes: `(ax, data) -> ax`."""

from itertools import cycle
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from . import recovery_plots
from .accounting.claims import assumed
from .bounds import gaussian_epsilon, gaussian_tradeoff, percent, roc_band
from .figures import CEILING, ENERGY, MEASURED, MUTED, PALETTE, PREDICTED, PROVED, STYLE, finish
from .runs import UNBOUNDED, Cell, Run

# Upper bounds are drawn up to so many times the highest lower one; farther ones would flatten it.
_FAR = 3
# Height of the privacy figure above what it shows, for its legend; of that of the cells, whose legend is beside it.
_ROOM, _MARGIN = 1.45, 1.25
_UPPER = {"color": PROVED, "ls": "-.", "lw": 1.6, "marker": "s", "mec": "white", "ms": 7}


def draw(run: Run, folder: Path, name: str | None = None) -> None:
    """All figures of a run, as PNG and PDF.

    Args:
      run: what is stored.
      folder: to write into.
      name: draw those of one cell, under its name; by default those of the headline, and those of the whole run.
    """
    cell, prefix = (run.headline, "") if name is None else (run.cell(name), f"{name.replace('/', '-')}-")
    with plt.rc_context(STYLE):
        for figure_name, axes in (("roc", roc), ("tradeoff", tradeoff_curve), ("privacy", privacy)):
            figure, ax = plt.subplots()
            axes(ax, cell)
            _finish(figure, run.summary, cell.summary["adjacency"], folder / f"{prefix}{figure_name}")
        if cell.trials:
            figure, ax = plt.subplots()
            scores(ax, cell)
            _finish(figure, run.summary, cell.summary["adjacency"], folder / f"{prefix}scores")
        if cell.spectrum:
            ratios = (2, 1) if "separation" in cell.spectrum else (1,)
            figure, panels = plt.subplots(len(ratios), sharex=True, height_ratios=ratios, squeeze=False)
            noise_spectrum(panels[:, 0], cell)
            _finish(figure, run.summary, cell.summary["adjacency"], folder / f"{prefix}spectrum")
        if len(run.cells) > 1 and name is None:
            figure, ax = plt.subplots(figsize=(8.0, 4.4))
            cells(ax, run)
            _finish(figure, run.summary, f"{len(run.cells)} cells", folder / "cells")
        if run.summary.get("recovery") and name is None:
            recovery_plots.draw(run, folder)


def roc(ax, cell: Cell):
    """Log-log ROC curve with its simultaneous band, chance, and the Gaussian prediction."""
    curve, distance = cell.tradeoff(), cell.summary["distance"]
    floor = 0.5 / cell.trials if cell.trials else 1e-12
    grid = np.geomspace(floor, 1, 800)
    _band(ax, cell, grid, *(limit.clip(floor, 1) for limit in roc_band(curve, grid)))
    seen = curve.fpr > 0
    ax.plot(curve.fpr[seen], 1 - curve.fnr[seen], color=MEASURED, lw=2.4, label=_label(cell))
    if distance is not None:
        ax.plot(grid, 1 - gaussian_tradeoff(grid, distance), color=PREDICTED, ls="--", label="Gaussian prediction")
    ax.plot(grid, grid, color=MUTED, ls=":", label="chance")
    ax.set(xscale="log", yscale="log", xlim=(floor, 1), ylim=(floor, 1.3))
    ax.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC of the attack on the secure sum")
    ax.legend(loc="lower right")
    return ax


def tradeoff_curve(ax, cell: Cell):
    """False negatives against false positives, with the line of perfect privacy."""
    curve, distance = cell.tradeoff(), cell.summary["distance"]
    grid = np.linspace(0, 1, 1001)
    lower, upper = roc_band(curve, grid)
    _band(ax, cell, grid, 1 - upper, 1 - lower)
    ax.plot([1, *curve.fpr, 0], [0, *curve.fnr, 1], color=MEASURED, lw=2.4, label=_label(cell))
    if distance is not None:
        fnr = gaussian_tradeoff(grid, distance)
        ax.plot(grid, fnr, color=PREDICTED, ls="--", label=f"Gaussian prediction, Δ = {distance:.2f}")
    ax.plot([0, 1], [1, 0], color=MUTED, ls=":", label="perfect privacy")
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ax.set(xlabel="false positive rate", ylabel="false negative rate", title="Trade-off between the two errors")
    ax.legend(loc="upper right")
    return ax


def privacy(ax, cell: Cell):
    """Epsilon against delta: certified, predicted, proved, and the most that so many trials could certify."""
    summary, distance = cell.summary, cell.summary["distance"]
    rows = [row for row in summary["bounds"] if row["delta"] > 0]
    deltas = np.geomspace(min([1e-6, *(row["delta"] for row in rows)]), 0.5, 200)
    certified, top = cell.privacy(deltas)
    if top is not None:
        ax.plot(deltas, top, color=CEILING, ls=":", label=f"ceiling of {cell.trials:,} trials")
    if distance is not None:
        predicted = [gaussian_epsilon(delta, distance) for delta in deltas]
        ax.plot(deltas, predicted, color=PREDICTED, ls="--", label="Gaussian prediction, no bound")
    level = percent(summary["confidence"])
    words = ("all δ at once ({})", "the table ({} by itself)") if cell.trials else ("computed", "the table")
    # An exact bound may be infinite, which is said by the table and not drawn. A bound of the table may be above all
    # that holds at all deltas at once.
    listed = [row[name] for row in rows for name in ("epsilon_lower", "epsilon_ceiling") if row[name] is not None]
    listed = [epsilon for epsilon in listed if epsilon < UNBOUNDED]
    highest = float(np.nanmax([*(certified if top is None else top), *listed, 1.0]))
    ax.plot(deltas, certified, color=MEASURED, lw=2.4, label=f"certified ≥, {words[0].format(level)}")
    ax.plot(
        [row["delta"] for row in rows],
        [row["epsilon_lower"] if row["epsilon_lower"] <= highest else np.nan for row in rows],
        "o",
        color=MEASURED,
        mec="white",
        ms=8,
        label=f"certified ≥, {words[1].format(level)}",
    )
    high = _proved(ax, rows, deltas[-1], highest, assumed([summary]))
    ax.set(xscale="log", xlim=(deltas[0], deltas[-1]), ylim=(0, _ROOM * high))
    ax.set(xlabel="δ", ylabel="ε (nats)", title="Privacy curve: the secure sum leaks at least this much")
    ax.legend(loc="upper right")
    return ax


def _proved(ax, rows, end, highest, broken):
    """Draw the upper bounds and return the highest epsilon to show: of theirs, or of what is drawn already."""
    proved = sorted((row["delta"], row["epsilon_upper"]) for row in rows if row["epsilon_upper"] is not None)
    if not proved:
        return highest
    high, label = _reach([epsilon for _, epsilon in proved], highest, _ROOM, broken)
    # What is proved at a delta holds at all larger ones, and nothing is proved between two by a straight line.
    where, height = zip(*proved, (end, proved[-1][1]))
    ax.plot(where, height, drawstyle="steps-post", markevery=slice(len(proved)), label=label, **_UPPER)
    return high


def _reach(upper, highest, room, broken):
    """Highest epsilon to show, and the label of upper bounds, with how many are above a figure `room` times it."""
    high = max([highest, *(epsilon for epsilon in upper if epsilon <= _FAR * highest)])
    above = sum(epsilon > room * high for epsilon in upper)
    name = "claimed ε, its assumption is broken" if broken else "proved upper bound"
    return high, name + f", {above} of {len(upper)} above the figure" * (above > 0)


def _label(cell):
    return "measured" if cell.trials else "computed"


def scores(ax, cell: Cell):
    """How the scores are distributed under either hypothesis, and where the planned thresholds lie."""
    counts, edges = cell.histogram, cell.histogram.thresholds
    middle, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    for name, inside, trials, color, style in (
        ("H0", -np.diff(counts.errors_h0), counts.trials_h0, MEASURED, "-"),
        ("H1", np.diff(counts.errors_h1), counts.trials_h1, PREDICTED, "--"),
    ):
        seen = inside > 0
        density = inside[seen] / trials / width[seen]
        ax.plot(middle[seen], density, color=color, ls=style, label=f"score under {name}")
    planned = cell.plan.thresholds
    planned = planned[(planned >= edges[0]) & (planned <= edges[-1])]
    ax.vlines(
        planned, 0, 1, transform=ax.get_xaxis_transform(), color=MUTED, ls=":", lw=1, label="planned thresholds"
    )
    ax.set(yscale="log", xlabel="score", ylabel="density", title="What the attack sees")
    ax.legend(loc="lower center")
    return ax


def _band(ax, cell, grid, lower, upper):
    label = f"{percent(cell.summary['confidence'])} band for the whole curve" if cell.trials else "certain limits"
    ax.fill_between(grid, lower, upper, color=MEASURED, alpha=0.25, lw=0, label=label)


def noise_spectrum(panels, cell: Cell):
    """Variance of the noise by direction, what the pair differs by in it, and where the attack finds its signal.

    The last is drawn on a second panel, of those whose score has a separation by direction.
    """
    upper, last = panels[0], panels[-1]
    variance, energy = cell.spectrum["variance"], cell.spectrum["energy"]
    index = np.arange(1, len(variance) + 1)
    floor = variance[0] * 1e-12
    shown = variance > floor
    upper.plot(index[shown], variance[shown], color=MEASURED, label="variance of the noise")
    seen = energy > floor
    upper.plot(index[seen], energy[seen], ".", color=ENERGY, ms=3, label="(difference of the candidates)²")
    upper.set(
        yscale="log", ylim=(floor, 30 * variance[0]), ylabel="per direction", title="Where the noise hides the pair"
    )
    if "separation" in cell.spectrum:
        separation = cell.spectrum["separation"]
        last.plot(index, separation / (cell.spectrum["shift"] or 1.0), color=PREDICTED)
        last.set(ylim=(0, 1.05), ylabel="share of shift")
    last.set(xlim=(0, len(variance) + 1), xlabel="direction of the noise, strongest first")
    upper.legend(loc="best")
    upper.figure.align_ylabels(panels)
    return panels


def cells(ax, run: Run):
    """Certified epsilon of every cell against the cohort size: a colour for each pair, hollow where censored."""
    rows = [(cell.summary, _nearest(cell.summary["bounds"])) for cell in run.cells]
    pairs, predicted = list(dict.fromkeys(summary["pair"] for summary, _ in rows)), False
    for pair, color, marker in zip(pairs, cycle(PALETTE), cycle("osD^vPX")):
        found = sorted(((s["clients"], row) for s, row in rows if s["pair"] == pair), key=lambda found: found[0])
        clients, bounds = [n for n, _ in found], [row for _, row in found]
        ax.plot(clients, [row["epsilon_lower"] for row in bounds], color=color, label=f"{pair}, certified ≥")
        for n, row in found:
            fill = "white" if row["censored"] else color
            ax.plot(n, row["epsilon_lower"], marker, color=color, mfc=fill, ms=6)
        if all(row["epsilon_predicted"] is not None for row in bounds):
            ax.plot(clients, [row["epsilon_predicted"] for row in bounds], color=color, ls="--", lw=1)
            predicted = True
        ax.plot(
            clients, np.array([row["epsilon_upper"] for row in bounds], float), **_UPPER | {"mec": color, "mew": 1.5}
        )
    if run.exact:
        top = max(row["epsilon_lower"] for _, row in rows) or 1
    else:
        top = max(row["epsilon_ceiling"] for _, row in rows)
        ax.axhline(top, color=CEILING, ls=":", label=f"ceiling of {run.summary['trials']:,} trials")
    if predicted:
        ax.plot([], [], color=MUTED, ls="--", lw=1, label="Gaussian prediction, no bound")
    upper = [row["epsilon_upper"] for _, row in rows if row["epsilon_upper"] is not None]
    if upper:
        top, label = _reach(upper, top, _MARGIN, assumed([summary for summary, _ in rows]))
        ax.plot([], [], label=label, **_UPPER)
    if any(row["censored"] for _, row in rows):
        ax.plot([], [], "o", color=MUTED, mfc="white", label="limited by the trials")
    sizes = sorted({summary["clients"] for summary, _ in rows})
    ax.set(xscale="log", xticks=sizes, xticklabels=[f"{n:,}" for n in sizes], ylim=(0, _MARGIN * top))
    ax.minorticks_off()
    ax.set(xlabel="clients in the cohort", ylabel=f"ε (nats) at δ = {rows[0][1]['delta']:g}")
    ax.set_title(f"Leakage by cohort, all cells at once ({percent(run.summary['confidence'])})")
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return ax


def _nearest(bounds):
    """The bound whose delta is nearest to 1e-3, where the field quotes epsilon."""
    return min(bounds, key=lambda row: abs(np.log10(max(row["delta"], 1e-300)) + 3))


def _trials(summary):
    return f"{summary['trials']:,} trials" if summary["trials"] else "exact law of the score"


def _finish(figure, summary, what: str, path: Path) -> None:
    """Say under every figure what it shows, then save it."""
    finish(figure, summary, f"{what}; {_trials(summary)}", path)
