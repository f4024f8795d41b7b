"""The tables and the figure of what `label_leakage.py` and `label_leakage_cost.py` measured.

python benchmarks/label_leakage_tables.py [--from DIR] [--out results/label-leakage.md]
"""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from channel_tables import high, low, table
from label_leakage_cost import SHARE

from jaxaudit.figures import CEILING, ENERGY, MEASURED, PREDICTED, STYLE, finish

COMMAND = "JAXAUDIT_DATA_DIR=DIR python benchmarks/"
COLOURS = {10: MEASURED, 100: PREDICTED}
# What every row of recovery has, and how it is shown.
RECOVERED = ["exact clients", "95 % ≥", "overlap", "largest error", "guess: overlap", "client-trials"]


def recovered(row):
    """The cells of `RECOVERED`."""
    shares = [low(row[name]) for name in ("exact", "exact_lower", "overlap")]
    return [*shares, f"{row['largest_error']:.2g}", f"{row['null']['overlap']:.3f}", f"{row['clients']:,}"]


def exact(found):
    """All clients and all labels."""
    header = ["model", "clients", "classes", "channel or training", *RECOVERED, "embeddings"]
    return table(header, [[r["model"], r["K"], r["C"], r["channel"], *recovered(r), r["design"]] for r in found["rows"]])


def rings(found):
    """Largest errors beside the law."""
    rows = []
    for row in found["rows"]:
        assert row["law"] >= 0.5 or row["exact"] == 1, row
        promised = "yes" if row["law"] < 0.5 else "no"
        rows.append([row["K"], row["C"], row["bits"], row["scale"], f"{row['law']:.3f}", promised, *recovered(row)])
    return table(["clients", "classes", "bits", "scale s", "B / 2sa", "exact by the law", *RECOVERED], rows)


def resnet(found):
    """One edited layer at growing amplitudes, and three."""
    rows = [[r["mode"], f"{r['amplitude']:g}", f"{r['spread']:.2g}", *recovered(r)] for r in found["rows"]]
    return table(["mode", "amplitude of β", "spread of the embedding", *RECOVERED], rows)


def steps(found):
    """Decoders of several local steps."""
    rows = [
        [f"{r['rate']:g}", "fresh" if r["fresh"] else "same in each step", r["decoder"], *recovered(r)]
        for r in found["rows"]
    ]
    return table(["learning rate", "batches", "decoder", *RECOVERED], rows)


def noise(found):
    """Recovery by the noise multiplier; last, the guess that needs no attack."""
    header = ["classes", "noise multiplier", "exact clients", "95 % interval", "overlap", "clip factors", "client-trials"]
    rows = []
    for part in found["rows"]:
        for row in sorted(part["rows"], key=lambda row: row["noise_multiplier"]):
            interval = f"{low(row['exact_lower'])} to {high(row['exact_upper'])}"
            told = "told" if row["clip_known"] else "found"
            shown = [low(row["exact"]), interval, low(row["overlap"]), told, f"{row['clients']:,}"]
            rows.append([part["C"], f"{row['noise_multiplier']:g}", *shown])
        null = part["null"]
        rows.append([part["C"], "guess from pooled labels", low(null["exact"]), "–", low(null["overlap"]), "–", "–"])
    return table(header, rows)


def audit(found):
    """Separations and bounds of the label tests."""
    header = ["test", "adjacency", "μ, measured", "μ, predicted", "certified ε ≥, median", "smallest to largest"]
    header += ["above ε of the pair", "ε of the pair", "proved ε ≤", "audits × trials"]
    rows = []
    for row in found["rows"]:
        certified, off = np.array(row["certified"]), row["mu"] / np.sqrt(2 * row["trials_mu"])
        rows.append(
            [
                row["test"],
                row["adjacency"],
                f"{row['mu']:.3f} ± {off:.3f}",
                f"{row['predicted']:.3f}",
                low(np.median(certified)),
                f"{low(certified.min())} to {low(certified.max())}",
                f"{np.sum(certified > row['analytic'])} of {len(certified)}",
                f"{row['analytic']:.3f}",
                high(row["proved"]),
                f"{len(certified)} × {row['trials']:,}",
            ]
        )
    return table(header, rows)


def cost(found):
    """Seconds of every part of a round, and peak memory."""
    header = ["model", "clients × batch", "crafting: first, again", "compiling", "gradients", "sum", "decoding"]
    header += ["decoding / gradients", "loop", "loop / chunks", "CPU: loop / chunks", "peak before, after", "exact clients"]
    rows = []
    for row in found["rows"]:
        parts, share, over = row["parts"], row["decoding_over_gradients"]["wall"], row["loop_over_chunks"]
        seconds = [f"{parts[name]['wall_s']:.3g} s" for name in ("gradients", "sum", "decoding")]
        rows.append(
            [
                f"{row['model']}, {row['dim']:,} numbers sent",
                f"{row['clients']:,} × {row['batch_size']}",
                f"{parts['crafting']['first_s']:.3g} s, {parts['crafting']['wall_s']:.3g} s",
                f"{parts['gradients']['compile_s']:.3g} s",
                *seconds,
                f"{100 * share:.2g} % {'(met)' if share < SHARE else '(missed)'}",
                f"{parts['loop']['wall_s']:.3g} s",
                f"{over['wall']:.2f}",
                f"{over['cpu']:.2f}",
                f"{row['peak_mib']['before']:,.0f}, {row['peak_mib']['round']:,.0f} MiB",
                f"{row['exact']:,} of {row['clients']:,}",
            ]
        )
    return table(header, rows)


def noise_panel(axis, found):
    """Exact clients and overlap against the noise multiplier, with the null of every number of classes."""
    smallest = min(row["noise_multiplier"] for part in found["rows"] for row in part["rows"] if row["noise_multiplier"])
    for part in found["rows"]:
        colour, rows = COLOURS[part["C"]], sorted(part["rows"], key=lambda row: row["noise_multiplier"])
        names = "noise_multiplier", "exact", "overlap", "exact_lower", "exact_upper"
        z, share, overlap, least, most = (np.array([row[name] for row in rows]) for name in names)
        label = f"{part['C']} classes"
        axis.errorbar(z, share, np.abs([share - least, most - share]), fmt="o-", ms=4.5, color=colour, capsize=2.5, label=label)
        axis.plot(z, overlap, "s--", ms=5, mfc="none", color=colour)
        axis.axhline(part["null"]["overlap"], color=colour, ls=":", lw=1.2)
    axis.set_xscale("symlog", linthresh=smallest, linscale=0.6)
    axis.set_xlim(-0.12 * smallest, None)
    axis.set(title="Recovery against noise", xlabel="noise multiplier", ylabel="share")


def resnet_panel(axis, found):
    """ResNet-18 with one edited layer, against the amplitude."""
    one = [row for row in found["rows"] if row["mode"] == "saturated"]
    beta, share, overlap, least = (np.array([row[name] for row in one]) for name in ("amplitude", "exact", "overlap", "exact_lower"))
    axis.errorbar(beta, share, [share - least, 0 * share], fmt="o-", ms=4.5, color=MEASURED, capsize=2.5, label="one layer edited")
    axis.plot(beta, overlap, "s--", ms=5, mfc="none", color=MEASURED)
    for row in found["rows"]:
        if row["mode"] != "saturated":
            axis.plot(row["amplitude"], row["exact"], "D", ms=9, mfc="none", color=ENERGY, label="three layers edited")
    axis.axhline(one[0]["null"]["overlap"], color=MEASURED, ls=":", lw=1.2)
    axis.set(title="ResNet-18", xscale="log", xlabel="amplitude |β| of the last normalisation")


def figure(found, file):
    """The panels of what is there."""
    panels = {name: panel for name, panel in (("noise", noise_panel), ("resnet", resnet_panel)) if name in found}
    with plt.rc_context(STYLE):
        plots, axes = plt.subplots(1, len(panels), figsize=(5.2 * len(panels), 4.2), sharey=True, squeeze=False)
        for axis, (name, panel) in zip(axes[0], panels.items()):
            panel(axis, found[name])
            axis.plot([], [], "s--", mfc="none", color=CEILING, label="labels recovered (overlap)")
            axis.plot([], [], ":", color=CEILING, label="overlap of a guess from pooled labels")
            axis.set_ylim(-0.03, 1.04)
            axis.legend(loc="best")
        trials = {row["clients"] for name in panels for part in found[name]["rows"] for row in part.get("rows", [part])}
        what = f"Solid: exact clients with 95% intervals; {min(trials):,} to {max(trials):,} client-trials a point"
        first = found[next(iter(panels))]
        finish(plots, {"seed": first["seed"], "provenance": first | {"git": None}}, what, file.with_suffix(""))


RECOVER = {name: f"label_leakage.py {name}" for name in ("exact", "rings", "resnet", "steps", "noise", "audit")}
SCRIPTS = RECOVER | {"cost": "label_leakage_cost.py"}
TABLES = {"exact": exact, "rings": rings, "resnet": resnet, "steps": steps, "noise": noise, "audit": audit, "cost": cost}
TITLES = {
    "exact": "All clients, all labels",
    "rings": "Rings: rounded to nearest, exact if s · a > B",
    "resnet": "ResNet-18: one edited layer, or three",
    "steps": "Several local steps",
    "noise": "Noise on clipped updates",
    "audit": "The label test as an audit",
    "cost": "What a round costs",
}
ABOUT = {}
