"""The four figures of a run. Each function draws one idea on given axes: `(ax, data) -> ax`.

Colours are those of Okabe and Ito, which survive colour blindness; line styles tell them apart in grey.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from .bounds import (
    Counts,
    Plan,
    certify,
    gaussian_epsilon,
    gaussian_tradeoff,
    tradeoff,
)
from .store import Run

MEASURED, PREDICTED, CEILING, ENERGY, MUTED = "#0072B2", "#D55E00", "#666666", "#009E73", "#999999"
STYLE = {
    "figure.figsize": (5.6, 4.4),
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "pdf.fonttype": 42,
}


def draw(run: Run, folder: Path) -> None:
    """All figures of a run, as PNG and PDF.

    Args:
      run: what is stored.
      folder: to write into.
    """
    summary = run.summary
    with plt.rc_context(STYLE):
        for name, axes in (("roc", roc), ("tradeoff", tradeoff_curve), ("privacy", privacy)):
            figure, ax = plt.subplots()
            axes(ax, run)
            _finish(figure, summary, folder / name)
        figure, panels = plt.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        noise_spectrum(panels, run)
        _finish(figure, summary, folder / "spectrum")


def roc(ax, run: Run):
    """Log-log ROC curve with its simultaneous band, chance, and the Gaussian prediction."""
    counts, confidence, distance = run.counts, run.summary["confidence"], run.summary["distance"]
    curve, trials = tradeoff(counts, confidence), counts.trials_h0
    floor = 0.5 / trials
    shown = curve.fpr > 0
    grid = np.geomspace(floor, 1, 400)
    ax.fill(
        np.concatenate([curve.fpr_upper, curve.fpr_lower[::-1]]).clip(floor, 1),
        np.concatenate([1 - curve.fnr_upper, (1 - curve.fnr_lower)[::-1]]).clip(floor, 1),
        color=MEASURED,
        alpha=0.25,
        lw=0,
        label=f"{confidence:.0%} band, all thresholds at once",
    )
    if distance is not None:
        ax.plot(grid, 1 - gaussian_tradeoff(grid, distance), color=PREDICTED, ls="--", label="Gaussian prediction")
    ax.plot(curve.fpr[shown], 1 - curve.fnr[shown], color=MEASURED, label="measured")
    ax.plot(grid, grid, color=MUTED, ls=":", label="chance")
    ax.set(xscale="log", yscale="log", xlim=(floor, 1), ylim=(floor, 1.3))
    ax.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC of the attack on the secure sum")
    ax.legend(loc="lower right")
    return ax


def tradeoff_curve(ax, run: Run):
    """False negatives against false positives, with the line of perfect privacy."""
    curve = tradeoff(run.counts, run.summary["confidence"])
    distance = run.summary["distance"]
    grid = np.linspace(0, 1, 400)
    ax.plot([0, 1], [1, 0], color=MUTED, ls=":", label="perfect privacy")
    ax.fill(
        np.concatenate([curve.fpr_lower, curve.fpr_upper[::-1]]),
        np.concatenate([curve.fnr_lower, curve.fnr_upper[::-1]]),
        color=MEASURED,
        alpha=0.25,
        lw=0,
        label=f"{run.summary['confidence']:.0%} band, all thresholds at once",
    )
    if distance is not None:
        ax.plot(
            grid, gaussian_tradeoff(grid, distance), color=PREDICTED, ls="--", label=f"Gaussian, Δ = {distance:.2f}"
        )
    ax.plot([1, *curve.fpr, 0], [0, *curve.fnr, 1], color=MEASURED, label="measured")
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ax.set(xlabel="false positive rate", ylabel="false negative rate", title="Trade-off between the two errors")
    ax.legend(loc="upper right")
    return ax


def privacy(ax, run: Run):
    """Epsilon against delta: certified, predicted, and the most that so many trials could certify."""
    summary, distance = run.summary, run.summary["distance"]
    deltas = np.geomspace(min(1e-6, *(d for d in run.plan.deltas if d > 0), 1e-6), 0.5, 60)
    union = union_plan(run.plan)
    certified = [certify(union, run.counts, delta, summary["confidence"]) for delta in deltas]
    ax.plot(deltas, [b.ceiling for b in certified], color=CEILING, ls=":", label=f"ceiling of {_short(run.counts)}")
    if distance is not None:
        predicted = [gaussian_epsilon(delta, distance) for delta in deltas]
        ax.plot(deltas, predicted, color=PREDICTED, ls="--", label="Gaussian prediction (no bound)")
    level = f"{summary['confidence']:.0%}"
    ax.plot(deltas, [b.epsilon for b in certified], color=MEASURED, label=f"certified ≥, every δ at once ({level})")
    rows = [row for row in summary["bounds"] if row["delta"] > 0]
    ax.plot(
        [row["delta"] for row in rows],
        [row["epsilon_lower"] for row in rows],
        "o",
        color=MEASURED,
        mec="white",
        ms=7,
        label=f"certified ≥, the table ({level}, by itself)",
    )
    top = max(b.ceiling for b in certified)
    ax.set(xscale="log", xlim=(deltas[0], deltas[-1]), ylim=(0, 1.35 * top))
    ax.set(xlabel="δ", ylabel="ε (nats)", title="Privacy curve: the secure sum leaks at least this much")
    ax.legend(loc="upper right")
    return ax


def noise_spectrum(panels, run: Run):
    """Variance of the noise by direction, what the pair differs by in it, and where the attack finds its signal."""
    upper, lower = panels
    variance, energy = run.spectrum["variance"], run.spectrum["energy"]
    index = np.arange(1, len(variance) + 1)
    floor = variance[0] * 1e-12
    shown = variance > floor
    upper.plot(index[shown], variance[shown], color=MEASURED, label="variance of the noise")
    seen = energy > floor
    upper.plot(index[seen], energy[seen], ".", color=ENERGY, ms=3, label="(difference of the candidates)²")
    upper.set(yscale="log", ylim=(floor, None), ylabel="per direction", title="Where the noise hides the pair")
    upper.legend(loc="upper right")
    if "separation" in run.spectrum:
        separation = run.spectrum["separation"]
        lower.plot(index, separation / separation[-1], color=PREDICTED)
    lower.set(ylim=(0, 1.05), xlim=(0, len(variance) + 1), ylabel="share of Δ² up to here")
    lower.set(xlabel="direction of the noise, from the strongest to the weakest")
    return panels


def union_plan(plan: Plan) -> Plan:
    """The same thresholds, tested by the union of two limits: one statement for every delta."""
    events = tuple(dict.fromkeys((event.threshold, event.direction) for event in plan.events))
    return Plan("union", tuple(type(plan.events[0])(*event) for event in events), plan.deltas, plan.stream)


def _short(counts: Counts) -> str:
    return f"{counts.trials_h0:,} trials"


def _finish(figure, summary, path: Path) -> None:
    """Say under every figure what it shows, then save it."""
    provenance = summary["provenance"]
    commit = f", commit {provenance['git'][:8]}" if provenance["git"] else ""
    figure.supxlabel(
        f"{summary['adjacency']}; {summary['trials']:,} trials, seed {summary['seed']}, {provenance['device']}, "
        f"jaxaudit {provenance['jaxaudit']}{commit}",
        fontsize=6.5,
        color=CEILING,
    )
    for suffix in (".png", ".pdf"):
        figure.savefig(path.with_suffix(suffix))
    plt.close(figure)
