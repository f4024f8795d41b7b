"""Where the time of a d = 7,850 audit goes, and what remembered preparation saves on a second run.

python benchmarks/timeline.py [TRIALS]      needs MNIST (JAXAUDIT_DATA_DIR)

Softmax on MNIST, 60 clients, 1e6 trials. Each run is a command of its own; the first finds an empty cache, the second
asks for the same into another folder.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RECIPE = {
    "population.dataset": "mnist",
    "population.learning_rate": 0.5,
    "population.rounds": 30,
}


def main(trials=1_000_000):
    columns = (
        "run",
        "wall s",
        "data, training s",
        "moments, weights s",
        "projection s",
        "trials s (first block)",
        "verdict s",
        "ε ≥ at δ = 1e-3",
    )
    rows = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"JAXAUDIT_CACHE": str(Path(folder) / "cache")}
        for name in ("first, nothing remembered", "second, remembered"):
            out = Path(folder) / name.split(",")[0]
            command = [sys.executable, "-m", "jaxaudit", "run", "--trials", str(trials), "--out", str(out)]
            for field, value in RECIPE.items():
                command += ["--set", f"{field}={value}"]
            began = time.perf_counter()
            subprocess.run(command, env=environment, check=True, capture_output=True)
            wall_s = time.perf_counter() - began
            summary = json.loads((out / "summary.json").read_text())
            timing, bound = summary["timing"], next(b for b in summary["bounds"] if b["delta"] == 1e-3)
            star = " *" if bound["censored"] else ""
            rows.append(
                f"| {name} | {wall_s:.1f} | {timing['respond_s']:.1f} | {timing['calibrate_s']:.1f} | "
                f"{timing['prepare_s'] - timing['respond_s'] - timing['calibrate_s']:.1f} | {timing['trials_s']:.1f} "
                f"({timing['compile_s']:.1f}) | {timing['verdict_s']:.1f} | {bound['epsilon_lower']:.3f}{star} |"
            )
            print(rows[-1], flush=True)
    text = (
        f"Softmax on MNIST, d = 7,850, 60 clients, {trials:,} trials, cpu. The rest of the wall time is imports, the "
        "pilot and eight figure files; the verdict decomposes the audited pool's covariance.\n\n"
    )
    text += "\n".join(rows) + "\n"
    Path(__file__).parent.parent.joinpath("results", "timeline.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
