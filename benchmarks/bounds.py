"""Certified ε from scores: how tight, how fast, and beside jax_privacy and privacy-estimates on the same numbers.

python benchmarks/bounds.py [--quick] [--out results/bounds.md]

The peers are measured where they are installed: pip install jax-privacy==2.0.0 privacy-estimates==0.1.0.post1.
First of all, bounds of both kinds of tool on 1,000 random sets of counts are compared, and must be equal.
"""

import importlib
import json
import resource
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy
import tightness
from measure import Page, at_most, cores, facts, options, pin, side_by_side
from tightness import CONFIDENCE, DELTA, FAILURE, PINNED, Cell, peer

from jaxaudit import bounds
from jaxaudit.bounds import auditing

DELTAS = tuple(np.geomspace(1e-6, 1e-1, 20).tolist())
# CPU seconds and MiB of a curve from so many scores under each hypothesis.
TARGETS = {10**6: (0.1, None), 10**7: (1.0, 512)}
TOOLS = {
    "union": "ours, union, pairs",
    "cc-cp": "ours, CC-CP, labelled",
    "auditing": "ours, `bounds.auditing`",
    "jax_privacy": "jax_privacy",
}


class Effort(NamedTuple):
    """How much is measured.

    Attributes:
      small, large: runs of the cells of 1e4 and of 1e6 scores.
      sizes, turns: of the clocks.
      points, runs: of the figure; powers of ten.
    """

    small: int
    large: int
    sizes: tuple[int, ...]
    turns: int
    points: tuple[float, ...]
    runs: int


FULL = Effort(300, 40, (10**6, 10**7), 5, tuple(np.arange(3, 9.1, 0.5)), 100)
QUICK = Effort(6, 1, (10**6,), 1, (3.0, 4.5, 6.0), 3)


def parity(page, sets=1000):
    """`bounds.auditing`, which has the interface of jax_privacy, and jax_privacy: one explicit threshold."""
    theirs, rng, worst = importlib.import_module("jax_privacy.auditing"), np.random.default_rng(0), 0.0
    for _ in range(sets):
        trials = np.exp(rng.uniform(0, np.log(1e5), 2)).astype(int)
        # Rates of all sizes, common errors as well as rare ones, and none.
        rates = np.exp(-rng.exponential(3, 2)) * (rng.random(2) < 0.9)
        wrong = (np.where(rng.random(2) < 0.3, 1 - rates, rates) * trials).astype(int)
        h0, h1 = 1.0 * (np.arange(trials[0]) < wrong[0]), 1.0 * (np.arange(trials[1]) >= wrong[1])
        asked = rng.choice([0.05, 1e-3]), rng.choice([0, 1e-5, 1e-3, 0.1]), bool(rng.random() < 0.5)
        one, other = (
            tool.CanaryScoreAuditor(h1, h0).epsilon_clopper_pearson(*asked, threshold_strategy=tool.Explicit(0.5))
            for tool in (auditing, theirs)
        )
        worst = max(worst, abs(one - other))
    assert worst <= 1e-9, worst
    page.say(
        "## Parity",
        "",
        f"One threshold, significance shared equally between the two rates: on {sets:,} random sets of counts "
        f"`Explicit` of jax_privacy and of `bounds.auditing` differ by at most {worst:.1e} in ε (≤ 1e-9).",
        "",
    )


def once(tool, size):
    """What a fresh process measures: CPU seconds of the first curve that it makes, and its largest memory."""
    design = "labelled" if tool == "cc-cp" else "paired"
    scores = Cell("standard_normal", 1, size).drawn(np.random.default_rng(0), design)
    # Importing a tool may take longer than what it is timed for.
    auditor = {"jax_privacy": "jax_privacy.auditing", "auditing": "jaxaudit.bounds.auditing"}.get(tool)
    module = auditor and importlib.import_module(auditor)
    # On a quiet core wall time equals it.
    began = time.process_time()
    if module:
        found = tightness.by_default(module, scores, DELTAS)
    else:
        pilot, rest = bounds.split(scores, 0)
        plan = bounds.robust_pilot(pilot, min(rest.trials), DELTAS, tool)
        counts = rest.count(plan.thresholds)
        found = [bound.epsilon for bound in bounds.privacy_curve(plan, counts, DELTAS, CONFIDENCE)]
    took, peak = time.process_time() - began, peak_mib()
    assert np.all(np.diff(found) <= 0) and np.all(np.array(found) <= [bounds.gaussian_epsilon(d, 1) for d in DELTAS])
    if not module:
        for threshold in plan.thresholds[::9]:
            assert counts.at(threshold) == (np.sum(rest.h0 >= threshold), np.sum(rest.h1 <= threshold))
    print(json.dumps([took, peak]))


def peak_mib():
    """Of this process; Linux counts that of the process which started it into `ru_maxrss`."""
    if Path("/proc/self/status").exists():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def speed(page, effort):
    """Fresh processes in turns, so that memory is their own and a busy machine slows all of them."""
    tools = [tool for tool in TOOLS if tool != "jax_privacy" or peer("jax-privacy")]
    page.say(
        "## Speed on one core",
        "",
        f"Bounds at {len(DELTAS)} δ that hold together, from scores in memory: split, pilot, counts, bounds; with "
        "the interface of jax_privacy: one auditor, its default, δ after δ. CPU time of the first curve that a fresh "
        f"process makes, the median of {effort.turns}; and the peak of the memory, in which Python, SciPy and the "
        "scores are counted. Counts equal those of a comparison score by score.",
        "",
    )
    page.table(
        "scores | | CPU s | times CC-CP | MiB", (row for size in effort.sizes for row in _timed(size, tools, effort))
    )
    if peer("privacy-estimates"):
        one_matrix(page, effort)


def _timed(size, tools, effort):
    found = {tool: [] for tool in tools}
    for _ in range(effort.turns):
        for tool in tools:
            command = [sys.executable, __file__, "--once", tool, str(size)]
            found[tool].append(json.loads(subprocess.run(command, stdout=-1, check=True, text=True).stdout))
    medians = {tool: np.median(each, axis=0) for tool, each in found.items()}
    for tool, (took, mib) in medians.items():
        seconds, most = TARGETS[size] if tool in bounds.METHODS else (None, None)
        yield (
            f"{size:,} + {size:,}",
            TOOLS[tool],
            at_most(took, seconds) if seconds else f"{took:.2f}",
            f"{took / medians['cc-cp'][0]:.1f}",
            at_most(mib, most) if most else f"{mib:,.0f}",
        )


def one_matrix(page, effort):
    """What privacy-estimates does: one confusion matrix, one δ."""
    from privacy_estimates import AttackResults, compute_eps_lo

    fp, fn, trials = 120, 7000, 10_000
    matrix = AttackResults(FN=fn, FP=fp, TN=trials - fp, TP=trials - fn)
    joint = bounds.ESTIMATES["joint-beta"].function
    page.say(
        f"privacy-estimates takes one confusion matrix and one δ: here {fp} and {fn:,} errors in {trials:,} trials "
        "of either kind, and δ = 1e-5. Its two limits share the significance equally, ours .8 to .2.",
        "",
    )
    rows = []
    for words, name, ours in (
        ("Clopper-Pearson", "beta", partial(bounds.epsilon_clopper_pearson, fp, fn, trials, DELTA, FAILURE)),
        ("joint posterior, not certified", "joint-beta", partial(joint, fp, fn, trials, DELTA, FAILURE, "both")),
    ):
        theirs = partial(compute_eps_lo, matrix, DELTA, FAILURE, name)
        costs = side_by_side({"ours": partial(_repeated, ours), "theirs": partial(_repeated, theirs)}, effort.turns)
        shown = (f"{1e-6 * costs[who].cpu_ns:.2f}" for who in ("ours", "theirs"))
        rows.append((words, f"{float(ours()):.4f}", f"{theirs():.4f}", *shown))
    page.table("| our ε | its ε | our ms | its ms", rows)


def _repeated(function, least_s=0.02):
    """Calls until so much time has passed; their number."""
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < least_s:
        function()
        calls += 1
    return calls


def main():
    how = {"nargs": 2, "metavar": ("TOOL", "SCORES"), "help": "measure and print one curve; for this script itself"}
    chosen = options("Certified ε from scores: tightness and speed.", ("--once", how))
    pin(cores()[-1:])
    if chosen.once:
        once(chosen.once[0], int(chosen.once[1]))
        return
    effort, page = QUICK if chosen.quick else FULL, Page("Certified ε from scores")
    there = ", ".join(f"{name} {PINNED[name]}" for name in PINNED if peer(name)) or "no peer installed"
    small = "; small sizes, which say little" * chosen.quick
    page.say(f"{facts()}, SciPy {scipy.__version__}; {there}{small}.", "")
    if peer("jax-privacy"):
        parity(page)
    if chosen.out:
        tightness.figure(chosen.out, effort.points, effort.runs)
        page.say(
            "## Against the number of scores",
            "",
            f"![certified ε against the number of scores]({chosen.out.with_suffix('.png').name})",
            "",
            f"Mean of {effort.runs} runs at each of {len(effort.points)} sizes: scores of N(0, 1) and of N(μ, 1), "
            f"{CONFIDENCE:.0%} confidence, robust pilot, counts drawn from their exact law; jax_privacy from scores, "
            "three runs or more of up to a million.",
            "",
        )
    tightness.section(page, effort.small, effort.large)
    speed(page, effort)
    page.write(chosen)


if __name__ == "__main__":
    main()
