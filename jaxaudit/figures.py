"""What all figures share: colours, style, and the line under each that says where it comes from.

Colours are those of Okabe and Ito, which survive colour blindness; line styles tell them apart in grey.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

MEASURED, PREDICTED, CEILING, ENERGY, MUTED = "#0072B2", "#D55E00", "#666666", "#009E73", "#999999"
PROVED = "#CC79A7"
PALETTE = (MEASURED, PREDICTED, ENERGY, PROVED, "#E69F00", "#56B4E9")
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


def finish(figure, summary: dict, what: str, path: Path) -> None:
    """Say under a figure what it shows and where that comes from, then save it as PNG and PDF and close it.

    Args:
      figure: with its axes drawn.
      summary: of the run.
      what: the figure shows, and of how many trials.
      path: of the files, without their suffix.
    """
    provenance = summary["provenance"]
    commit, dirty, _ = (provenance["git"] or "").partition("-dirty")
    commit = f", commit {commit[:8]}{dirty}" if commit else ""
    figure.supxlabel(
        f"{what}, seed {summary['seed']}, {provenance['device']}, jaxaudit {provenance['jaxaudit']}{commit}",
        fontsize=6.2,
        color=CEILING,
    )
    for suffix in (".png", ".pdf"):
        figure.savefig(path.with_name(path.name + suffix))
    plt.close(figure)
