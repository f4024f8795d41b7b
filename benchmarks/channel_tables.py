"""The tables and the figure of what `channel.py` measured.

python benchmarks/channel_tables.py [--from DIR] [--out results/channel.md]
"""

import argparse
import json
from math import ceil, floor, inf
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt

COMMAND = "JAXAUDIT_DATA_DIR=DIR python benchmarks/channel.py; python benchmarks/channel_tables.py"
# Okabe and Ito's colours, told apart by everyone.
COLOURS = {"discrete Gaussian": "#0072B2", "Skellam": "#D55E00", "Gaussian": "#009E73"}
MARKERS = {"discrete Gaussian": "o", "Skellam": "s", "Gaussian": "^"}


def low(value, digits=3):
    """Never rounded up."""
    return f"{floor(value * 10**digits) / 10**digits:.{digits}f}"


def high(value, digits=3):
    """Never rounded down."""
    return "–" if value is None or value == inf else f"{ceil(value * 10**digits) / 10**digits:.{digits}f}"


def table(header, rows):
    """Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(map(str, line)) + " |" for line in lines]


def membership(found):
    """Every channel of one data set, or of the worst-case pair."""
    header = ["channel", "noise multiplier", "certified ε ≥", "ceiling", "predicted", "proved ε ≤", "ratio", "trials"]
    rows = []
    for row in found["rows"]:
        lower, upper = row["lower"], row["upper"]
        assert upper is None or lower <= upper, row
        rows.append(
            [
                row["channel"],
                "–" if row["multiplier"] is None else f"{row['multiplier']:g}",
                low(lower) + " *" * row["censored"],
                low(row["ceiling"], 2),
                "–" if row["predicted"] is None else f"{row['predicted']:.3f}",
                high(upper),
                "–" if upper is None else f"{floor(100 * lower / upper) / 100:.2f}",
                f"{row['trials']:,}" + (" general" if not row["projected"] else ""),
            ]
        )
    return table(header, rows)


def summary(found):
    """Certified and proved epsilon of every channel, side by side: what the README shows."""
    names, cells = [name for name in TITLES if name != "tests"], {}
    for name in names:
        for row in found[name]["rows"]:
            proved = "" if row["upper"] is None else f", ≤ {high(row['upper'])}"
            cells.setdefault((row["channel"], row["multiplier"]), {})[name] = f"≥ {low(row['lower'])}{proved}"
    rows = [
        [channel, "–" if z is None else f"{z:g}", *(own.get(name, "–") for name in names)]
        for (channel, z), own in cells.items()
    ]
    return table(["channel", "noise multiplier", "digits", "MNIST", "worst-case pair"], rows)


def tests(found):
    """Tests that follow the channel beside the linear score."""
    rows = [
        [row["channel"], row["test"], low(row["lower"]), f"{row['auc']:.3f}", row["setting"]] for row in found["rows"]
    ]
    return table(["channel", "test", "certified ε ≥", "AUC", "setting, chosen on pilot trials"], rows)


def figure(found, file):
    """Lower and upper bounds against the noise multiplier."""
    parts = [(name, title) for name, title in TITLES.items() if name in found and name != "tests"]
    plots, axes = plt.subplots(1, len(parts), figsize=(3.6 * len(parts), 3.4), sharey=True, layout="constrained")
    for axis, (name, title) in zip([axes] if len(parts) == 1 else axes, parts):
        for noise, colour in COLOURS.items():
            rows = [row for row in found[name]["rows"] if row["channel"] == noise]
            if rows:
                x = [row["multiplier"] for row in rows]
                axis.plot(x, [row["upper"] for row in rows], "--", color=colour, lw=1.2)
                lower, filled = [row["lower"] for row in rows], "none" if noise == "discrete Gaussian" else colour
                axis.plot(
                    x, lower, MARKERS[noise] + "-", color=colour, mfc=filled, ms=7 - len(noise) / 4, label=noise
                )
        plain = [row for row in found[name]["rows"] if row["channel"] == "plain sum"]
        if plain:
            axis.axhline(plain[0]["lower"], color="#555555", lw=1, ls=":", label="plain sum, no noise")
        axis.set(title=title, xlabel="noise multiplier (deviation / clip bound)")
        axis.set(xscale="log", yscale="log", xticks=[0.1, 1, 10], yticks=[0.1, 1, 10, 100])
        for side in (axis.xaxis, axis.yaxis):
            side.set_major_formatter("{x:g}")
        axis.grid(alpha=0.25)
        axis.legend(fontsize=7, title="solid: certified, dashed: proved", title_fontsize=7)
    (axes if len(parts) == 1 else axes[0]).set_ylabel("ε at δ = 0.001")
    for kind in ("png", "pdf"):
        plots.savefig(file.with_suffix(f".{kind}"), dpi=200)


TITLES = {
    "digits": "Digits (dim 650), one record",
    "mnist": "MNIST (dim 7,850), one record",
    "worst": "Worst-case pair (dim 64), others known",
    "tests": "Tests that follow the channel, beside the plain linear score, on the same trials",
}
ABOUT = {
    "digits": "Clip bound 0.5 where noise is added; 60 clients.",
    "mnist": "Clip bound 0.9 where noise is added; 60 clients.",
    "worst": "Opposite vectors of the clip bound's length, the other clients' updates known to the server: only the "
    "noise hides the target. Below a noise multiplier of 1 the trials are the limit, not the audit.",
    "tests": "Digits, 60 clients; one record for rings, the update or nothing for dropouts.",
}


def main():
    """Write results/channel.md and its figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--from", dest="source", type=Path, default=Path("results/channel"))
    parser.add_argument("--out", type=Path, default=Path("results/channel.md"))
    given = parser.parse_args()
    found = {name: json.loads((given.source / f"{name}.json").read_text()) for name in TITLES}
    machines = {one["machine"] for one in found.values()}
    text = [
        "# What encodings, dropouts and noise leave of a membership audit",
        "",
        f"δ = 0.001, seed 0, 95 % confidence a row; {'; '.join(sorted(machines))}; no GPU was measured. `{COMMAND}`",
        "",
        "Proved: an upper bound for the mechanism and the adjacency (replacement of a client's update), whatever the "
        "pair; certified: of the audited pair. `*`: no error of the rarer kind was seen. *general*: every client's "
        "encoding and noise is drawn, else the law of the noise of all clients is drawn at once.",
        "",
        "![lower and upper bounds against the noise multiplier](channel.png)",
        "",
        *summary(found),
    ]
    for name, title in TITLES.items():
        rows = tests(found[name]) if name == "tests" else membership(found[name])
        text += ["", f"## {title}", "", ABOUT[name], "", *rows]
        if name == "tests":
            text[-len(rows) - 2] += f" {found[name]['rows'][0]['trials']:,} trials each."
    given.out.write_text("\n".join(text) + "\n")
    figure(found, given.out)


if __name__ == "__main__":
    main()
