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
from matplotlib.lines import Line2D

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
    return table(
        header, [[r["model"], r["K"], r["C"], r["channel"], *recovered(r), r["design"]] for r in found["rows"]]
    )


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
    header = [
        "classes",
        "noise multiplier",
        "exact clients",
        "95 % interval",
        "overlap",
        "clip factors",
        "client-trials",
    ]
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
    header += [
        "decoding / gradients",
        "loop",
        "loop / chunks",
        "CPU: loop / chunks",
        "peak before, after",
        "exact clients",
    ]
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


def curves(axis, x, rows, classes, null):
    """Exact clients with their intervals, the overlap, and that of the guess."""
    colour, shares = COLOURS[classes], np.array([row["exact"] for row in rows])
    ends = [[row.get(name, row["exact"]) for row in rows] for name in ("exact_lower", "exact_upper")]
    look = {"ms": 4.5, "capsize": 2.5, "color": colour, "zorder": 3}
    axis.errorbar(x, shares, np.abs(shares - ends), fmt="o-", label=f"exact clients, {classes} classes", **look)
    axis.plot(x, [row["overlap"] for row in rows], "s--", ms=6, mfc="white", color=colour)
    axis.axhline(null, color=colour, ls=":", lw=1.2)


def noise_panel(axis, found):
    """Against the noise multiplier, for every number of classes."""
    for part in found["rows"]:
        rows = sorted(part["rows"], key=lambda row: row["noise_multiplier"])
        z = np.array([row["noise_multiplier"] for row in rows])
        curves(axis, z, rows, part["C"], part["null"]["overlap"])
    axis.set_xscale("symlog", linthresh=z[z > 0].min(), linscale=0.6)
    axis.set_xlim(-0.12 * z[z > 0].min(), 1.3 * z.max())
    axis.set(title="LeNet-BN, clipped, clip factors told", xlabel="noise multiplier")


def resnet_panel(axis, found):
    """Against the amplitude of one edited layer."""
    one = [row for row in found["rows"] if row["mode"] == "saturated"]
    curves(axis, [row["amplitude"] for row in one], one, 10, one[0]["null"]["overlap"])
    three = [row for row in found["rows"] if row["mode"] != "saturated"]
    exact, at = [row["exact"] for row in three], [row["amplitude"] for row in three]
    axis.plot(at, exact, "D", ms=10, mfc="none", color=ENERGY, label="exact clients, three layers edited")
    axis.set(title="ResNet-18, one layer edited", xscale="log", xlabel="amplitude |β| of the last normalisation")


PANELS = {"noise": noise_panel, "resnet": resnet_panel}


def figure(found, file):
    """The panels of what is there."""
    names, labelled = [name for name in PANELS if name in found], {}
    with plt.rc_context(STYLE):
        plots, axes = plt.subplots(1, len(names), figsize=(5.2 * len(names), 4.6), sharey=True, squeeze=False)
        for axis, name in zip(axes[0], names):
            PANELS[name](axis, found[name])
            axis.set_ylim(-0.03, 1.04)
            labelled |= {label: handle for handle, label in zip(*axis.get_legend_handles_labels())}
        axes[0, 0].set_ylabel("share")
        labelled["labels recovered (overlap)"] = Line2D([], [], color=CEILING, ls="--", marker="s", mfc="white")
        labelled["overlap of a guess from pooled labels"] = Line2D([], [], color=CEILING, ls=":")
        plots.legend(labelled.values(), labelled.keys(), loc="outside upper center", ncols=len(names) + 1)
        trials = {r["clients"] for name in names for part in found[name]["rows"] for r in part.get("rows", [part])}
        number = " to ".join(f"{count:,}" for count in sorted({min(trials), max(trials)}))
        what = f"95% intervals; {number} client-trials a point"
        first = found[names[0]]
        finish(plots, {"seed": first["seed"], "provenance": first | {"git": None}}, what, file.with_suffix(""))


SECTIONS = {
    "exact": (
        exact,
        "All clients, all labels",
        "No noise. Rings round to nearest; classes are digits, or digits and deciles of ink.",
    ),
    "rings": (
        rings,
        "Rings: rounded to nearest, exact if s · a > B",
        "The law bounds the error of a count by B / 2sa, whatever the number of clients and classes; B = 64, a = 1. "
        "Where it promises exact counts, this page is not written unless all of them are.",
    ),
    "resnet": (
        resnet,
        "ResNet-18: one edited layer, or three",
        "A skip connection goes around the last normalisation, so that its shift must be large beside what comes "
        "through. The decoder takes the mean embedding of the server's own records.",
    ),
    "steps": (
        steps,
        "Several local steps",
        "Five steps of SGD, decoded as if they were one, and by simulating the drift of each client.",
    ),
    "noise": (
        noise,
        "Noise on clipped updates",
        "Deviation of the noise on the sum, in units of the clip norm. Told: the decoder knows by how much each "
        "update was clipped, so that these rows are the most that it recovers; found: it does not.",
    ),
    "audit": (
        audit,
        "The label test as an audit",
        "Noise multiplier 1, δ = 1e-5, 95 % confidence an audit, each with a seed of its own. ± is one standard "
        "error: the noise of both bits is the same, so that only its deviation is estimated. Of the pair: the exact "
        "ε of two Gaussians that far apart, which one audit in twenty may exceed; proved: of the mechanism, for any "
        "pair of that adjacency.",
    ),
    "cost": (
        cost,
        "What a round costs",
        "Medians of wall time over turns of all parts, compilation apart; every configuration in a process of its "
        "own. Gradients: the head's part of every client's, through the whole network, as an audit computes them, in "
        "chunks of clients; loop: the same numbers in plain Python, client by client, by one compiled function. "
        "Peak: most memory held by the process before the clients' gradients, data set included, and after the "
        "round.",
    ),
}


def section(name, found):
    """Title, what it is, the command and the facts of the run, and the table; or that it was not measured."""
    make, title, about = SECTIONS[name]
    command = COMMAND + ("label_leakage_cost.py" if name == "cost" else f"label_leakage.py {name}")
    if name not in found:
        return ["", f"## {title}", "", f"Not measured here. `{command}`"]
    one = found[name]
    quick = " Small sizes, of which times say nothing." if one.get("quick") else ""
    facts = (
        f"seed {one['seed']}; {one.get('machine', one['device'] + ', jax ' + one['jax'])}; jaxaudit {one['jaxaudit']}"
    )
    return ["", f"## {title}", "", f"{about}{quick} `{command}` ({facts})", "", *make(one)]


def main():
    """Write the page and its figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="source", type=Path, default=Path("results/label-leakage"))
    parser.add_argument("--out", type=Path, default=Path("results/label-leakage.md"))
    given = parser.parse_args()
    files = {name: given.source / f"{name}.json" for name in SECTIONS}
    found = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
    text = [
        "# Labels that leak through secure aggregation",
        "",
        "Each client gets a model of its own that feeds its head one known vector, and the server decodes the label "
        "counts of all from the sum. Exact: all counts of a client's batch are right; overlap: share of its labels "
        "that are; largest error: of a count before it is rounded; `95 % ≥`: lower end of the 95 % Clopper-Pearson "
        "interval. The guess gives every client the histogram of all labels, scaled. A client-trial is one client in "
        "one round; rounds draw among the recorded batches of each client, so that some batches repeat. "
        "`python benchmarks/label_leakage_tables.py` makes this page of what the commands below measured.",
    ]
    if found.keys() & PANELS.keys():
        figure(found, given.out)
        text += ["", f"![recovery against noise, and of a ResNet-18 against the shift]({given.out.stem}.png)"]
    for name in SECTIONS:
        text += section(name, found)
    given.out.write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
