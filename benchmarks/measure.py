"""What the speed benchmarks share: two clocks side by side, tables, and the facts of the machine."""

import argparse
import hashlib
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Effort(NamedTuple):
    """How much is played.

    Attributes:
      draws: of a run, in all its trials.
      turns: of which the median is taken.
      samples: of the published pattern, by dimension.
      dims: over which the cost of a trial is flat.
      pool: updates of the general path.
    """

    draws: int
    turns: int
    samples: Mapping[int, int]
    dims: tuple[int, ...]
    pool: int


FULL = Effort(2**26, 7, {650: 2000, 2000: 200}, (650, 7850, 100_000, 1_000_000), 10_000)
QUICK = Effort(2**21, 2, {650: 200, 2000: 30}, (650, 7850, 100_000), 1000)


class Cost(NamedTuple):
    """What a unit of work took, repeat by repeat.

    Attributes:
      cpu: f64[repeats], seconds of all threads of this process.
      wall: f64[repeats], seconds.
      first_s: seconds of the call before the first repeat, compilation included.
    """

    cpu: np.ndarray
    wall: np.ndarray
    first_s: float

    @property
    def cpu_ns(self) -> float:
        """Median, nanoseconds."""
        return 1e9 * float(np.median(self.cpu))

    @property
    def wall_ns(self) -> float:
        """Median, nanoseconds."""
        return 1e9 * float(np.median(self.wall))

    def over(self, other: "Cost") -> float:
        """Median of the ratios of CPU time, each of two runs that were made one after the other."""
        return float(np.median(self.cpu / other.cpu))


def side_by_side(runs: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, Cost]:
    """Time several functions in turns, so that a busy machine slows all of them alike.

    Args:
      runs: name to a function that does its work to the end and returns how many units that was.
      repeats: turns, after one that is not counted.

    Returns:
      Cost of a unit, by name.
    """
    first, found = {}, {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            cpu, wall = time.process_time(), time.perf_counter()
            units = run()
            took = time.process_time() - cpu, time.perf_counter() - wall
            if turn:
                found[name].append(np.array(took) / units)
            else:
                first[name] = took[1]
    return {name: Cost(*np.array(each).T, first[name]) for name, each in found.items()}


def options(description: str, *more: tuple[str, dict]) -> argparse.Namespace:
    """Options of a script, `--out` and `--quick` among them."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, help="write the tables to this file as well")
    parser.add_argument("--quick", action="store_true", help="small sizes: whether all agree, not how fast they are")
    for name, how in more:
        parser.add_argument(name, **how)
    return parser.parse_args()


def cores() -> list[int]:
    """Cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def pin(chosen: Iterable[int]) -> None:
    """Use these cores only, and so will the processes started from now on; nothing where the system cannot."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, chosen)


def facts() -> str:
    """Processor, cores, device, and versions; neither a date nor a name of the machine."""
    import jax

    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    where = f"{models[0] if models else platform.machine()}, {len(cores())} of {os.cpu_count()} cores"
    versions = f"Python {platform.python_version()}, jax {jax.__version__}, NumPy {np.__version__}"
    return f"{where}; {jax.device_count()} × {jax.devices()[0].device_kind}; {versions}"


class Page:
    """Prints as it is filled, and is written whole at the end."""

    def __init__(self, title: str):
        self.lines: list[str] = []
        self.say(f"# {title}", "")

    def say(self, *lines: str) -> None:
        """Some lines of text."""
        self.lines += lines
        print(*lines, sep="\n", flush=True)

    def table(self, columns: str, rows) -> None:
        """A table, row by row as they come; columns and cells are divided by "|"."""
        self.say(f"| {columns} |", "| --- " * (columns.count("|") + 1) + "|")
        for row in rows:
            self.say(f"| {' | '.join(map(str, row))} |")
        self.say("")

    def write(self, chosen: argparse.Namespace, *more: str) -> None:
        """Save where `--out` says, if it does, with the command that makes it again."""
        if chosen.out is None:
            return
        shown = chosen.out.name if chosen.out.is_absolute() else chosen.out.as_posix()
        options = ["--quick"] * chosen.quick + [*more, "--out", shown]
        command = f"python benchmarks/{Path(sys.argv[0]).name} {' '.join(options)}"
        head, *rest = self.lines
        chosen.out.write_text("\n".join([head, "", f"`{command}`", *rest]).rstrip() + "\n", encoding="utf-8")


def at_least(value: float, target: float) -> str:
    """A ratio and its target."""
    return f"{value:,.2f} (≥ {target:,g}: {'met' if value >= target else 'missed'})"


def at_most(value: float, target: float) -> str:
    """A ratio or a cost and its target."""
    return f"{value:,.2f} (≤ {target:,g}: {'met' if value <= target else 'missed'})"


def digest(counts) -> str:
    """Short name of some `Counts`: of every error, at every threshold, and of the trials."""
    found = hashlib.sha256()
    for one in counts:
        for numbers in (one.errors_h0, one.errors_h1, [one.trials_h0, one.trials_h1]):
            found.update(np.asarray(numbers, "<i8").tobytes())
    return found.hexdigest()[:16]
