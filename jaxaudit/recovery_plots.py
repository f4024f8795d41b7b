"""The figures of what an attack recovered: counts beside the truth, and recovery against noise."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import PatchCollection
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from .figures import ENERGY, MEASURED, MUTED, PREDICTED, finish
from .recovery_tables import batch_words, class_names
from .runs import Run

# Up to so many classes each has a tick; one with more classes than _WIDE has its panels one above the other.
_TICKS, _WIDE = 20, 40
_GONE = "#d9d9d9"
# Points: of lower rows an outline would leave nothing to see inside, so that wrong counts are filled.
_OUTLINED = 3.0
_WHOLE = {"integer": True, "steps": (1, 2, 5, 10)}


def draw(run: Run, folder: Path) -> None:
    """The figures of a recovery, as PNG and PDF, in the style that is set.

    Args:
      run: with `recovery` arrays and its words in the summary.
      folder: to write into.
    """
    told = run.summary["recovery"]
    what = f"{told['adversary']}; {told['clients']:,} clients, {batch_words(told['batch'])} each"
    clients, classes = run.recovery["truth"].shape
    shape, size = ((2, 1), (8.4, 7.6)) if classes > _WIDE else ((1, 2), (8.4, 6.0 if clients > 20 else 4.4))
    figure, panels = plt.subplots(*shape, figsize=size, sharex=True, sharey=True)
    picture(panels, run)
    finish(figure, run.summary, f"{what}\none round without noise", folder / "recovery")
    if len(told["rows"]) > 1:
        figure, ax = plt.subplots(figsize=(8.0, 4.4))
        against_noise(ax, run)
        trials = sorted({row["clients"] for row in told["rows"]})
        number = " to ".join(f"{count:,}" for count in dict.fromkeys((trials[0], trials[-1])))
        finish(figure, run.summary, f"{what}\n{number} client-trials a point", folder / "recovery-noise")


def picture(panels, run: Run):
    """Heat maps of the true and of the recovered counts of every client, on one scale; wrong counts are marked."""
    truth, found = run.recovery["truth"], run.recovery["found"]
    present = (truth >= 0).all(axis=1)
    wrong = np.argwhere((truth != found) & present[:, None])
    exact = int((truth == found)[present].all(axis=1).sum())
    gone = np.broadcast_to(~present[:, None], truth.shape)
    high = max(truth.max(), np.where(gone, 0, found).max(), 1)
    for ax, counts in zip(panels, (truth, found)):
        ax.grid(False)
        ax.set_facecolor(_GONE)
        image = ax.imshow(np.ma.array(counts, mask=gone), cmap="cividis", vmin=0, vmax=high, aspect="auto")
        image.set_interpolation("nearest")
    panels[0].set_title("true labels")
    panels[1].set_title(f"recovered: {exact:,} of {present.sum():,} clients exactly")
    cells = [Rectangle((number - 0.5, client - 0.5), 1, 1) for client, number in wrong]
    height = 72 * panels[1].get_position().height * panels[1].figure.get_figheight() / len(truth)
    look = {"fc": "none" if height > _OUTLINED else PREDICTED, "ec": PREDICTED, "lw": 1.2 * (height > _OUTLINED)}
    panels[1].add_collection(PatchCollection(cells, clip_on=False, **look))
    _ticks(panels, run)
    bar = panels[1].figure.colorbar(image, ax=list(panels), pad=0.02, aspect=40)
    bar.set_label("records")
    bar.locator = MaxNLocator(**_WHOLE)
    bar.update_ticks()
    marks = []
    if len(wrong):
        counts = present.sum() * truth.shape[1]
        marks.append(Patch(**look, label=f"wrong: {len(wrong):,} of {counts:,} counts"))
    if not present.all():
        marks.append(Patch(fc=_GONE, label=f"dropped out: {(~present).sum():,}"))
    if marks:
        panels[1].figure.legend(handles=marks, loc="outside upper right", ncols=len(marks))
    return panels


def _ticks(panels, run):
    classes, names = run.recovery["truth"].shape[1], class_names(run.recovery)
    for ax in panels:
        ax.yaxis.set_major_locator(MaxNLocator(**_WHOLE))
        if classes > _TICKS:
            ax.xaxis.set_major_locator(MaxNLocator(**_WHOLE))
        elif names:
            ax.set_xticks(range(classes), names, rotation=45, ha="right", rotation_mode="anchor")
        else:
            ax.set_xticks(range(classes))
        ax.label_outer()
    rows = {ax.get_subplotspec().rowspan.start for ax in panels}
    for ax in panels if len(rows) > 1 else panels[:1]:
        ax.set_ylabel("client")
    for ax in panels[1:] if len(rows) > 1 else panels:
        ax.set_xlabel("class")


def against_noise(ax, run: Run):
    """Shares of exact clients and of recovered labels against the noise, and the guess from pooled labels."""
    told = run.summary["recovery"]
    rows = sorted(told["rows"], key=lambda row: row["noise_multiplier"])
    names = "noise_multiplier", "exact", "overlap"
    noise, exact, overlap = (np.array([row[name] for row in rows]) for name in names)
    limits = np.array([(row["exact_lower"], row["exact_upper"]) for row in rows]).T
    far = np.abs(limits - exact)
    ax.errorbar(noise, exact, far, fmt="-", color=MEASURED, capsize=3, lw=2, label="exact clients, 95% interval each")
    ax.plot(noise, overlap, "--", color=ENERGY, label="labels recovered (overlap)")
    # The smaller marker lies on the larger one, for both shares are 1 without noise.
    for height, marker, color, size in ((overlap, "s", ENERGY, 8), (exact, "o", MEASURED, 4.5)):
        for x, y, row in zip(noise, height, rows):
            ax.plot(x, y, marker, color=color, mfc="white" if row["clip_known"] else color, ms=size, zorder=3)
    for name, color in (("exact", MEASURED), ("overlap", ENERGY)):
        ax.axhline(told["null"][name], color=color, ls=":", lw=1.2)
    ax.plot([], [], color=MUTED, ls=":", label="guess from the pooled labels")
    for own in {row["noise_multiplier"] for row in rows if row["recipe"]}:
        ax.axvline(own, color=MUTED, ls="-.", lw=1, zorder=0, label=f"noise of this recipe, {own:g}")
    if any(row["clip_known"] for row in rows):
        ax.plot([], [], "o", color=MUTED, mfc="white", label="clip factors told to the decoder")
    _scale(ax, noise)
    ax.set(ylim=(-0.03, 1.04), ylabel="share", title="Recovery of labels against noise")
    handles, labels = ax.get_legend_handles_labels()
    # Bars come last by themselves.
    ax.legend([handles[-1], *handles[:-1]], [labels[-1], *labels[:-1]], loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return ax


def _scale(ax, noise):
    """A logarithmic axis on which zero, where there is one, stands beside the smallest noise."""
    some = noise[noise > 0]
    ax.set_xlabel("noise multiplier")
    if not some.size:
        return
    if some.size == noise.size:
        ax.set_xscale("log")
        return
    ax.set_xscale("symlog", linthresh=some[0], linscale=0.6)
    ax.set_xlim(-0.12 * some[0], 1.3 * some[-1])
