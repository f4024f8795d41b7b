"""What a user waits for: `jaxaudit run` cold and warm, with its parts.

python benchmarks/commands.py [--out results/commands.md]

Cold has an empty cache folder (no compilations, no trained models, no eigenvectors), warm has what the cold run left.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = {
    "cold, 10,000 trials": ["--trials", "10000", "--seed", "1"],
    "warm, 10,000 trials": ["--trials", "10000", "--seed", "1"],
    "warm, 100,000,000 trials": ["--trials", "100000000", "--seed", "1"],
    "warm, exact": ["--exact", "--seed", "1"],
}
PARTS = ("respond_s", "calibrate_s", "compile_s", "trials_s", "law_s", "verdict_s")


def timed(arguments, cache, out):
    """Wall seconds, and the timing of the summary."""
    environment = os.environ | {"JAXAUDIT_CACHE": cache}
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "jaxaudit", "run", *arguments, "--out", out],
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wall = time.perf_counter() - began
    return wall, json.loads((out / "summary.json").read_text())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    rows, parser = [], parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, arguments) in enumerate(RUNS.items()):
            wall, summary = timed(arguments, f"{folder}/cache", Path(folder) / str(number))
            timing = summary["timing"]
            parts = [timing.get(part, 0.0) for part in PARTS]
            # The first block is part of the trials; what is tuned and projected is the rest of preparation.
            rest = timing["prepare_s"] - timing["respond_s"] - timing["calibrate_s"]
            other = wall - timing["prepare_s"] - sum(parts[3:])
            rows.append((name, wall, *parts[:2], rest, *parts[2:], other, timing.get("trials_per_s", 0.0)))
    provenance = summary["provenance"]
    head = ("run", "wall", "data and training", "moments, weights", "projection, tuning", "first block", "trials")
    head += ("law", "verdict", "imports, pilot, figures", "trials/s")
    lines = [
        f"Default recipe; {provenance['devices']} × {provenance['device']}, jax {provenance['jax']}, Python "
        f"{provenance['python']}. Seconds; the first block (compilation included) is part of the pilot.",
        "",
        "| " + " | ".join(head) + " |",
        "| " + " | ".join(["---"] * len(head)) + " |",
    ]
    for name, *seconds, rate in rows:
        lines.append(f"| {name} | " + " | ".join(f"{s:.1f}" for s in seconds) + f" | {rate:,.0f} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if parser.out:
        parser.out.write_text(f"# What a user waits for\n\n`python benchmarks/commands.py`\n\n{text}")


if __name__ == "__main__":
    main()
