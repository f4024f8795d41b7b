"""Run folders: written whole or not at all, checked when read."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .bounds import Counts, Event, Plan
from .populations.files import read_arrays

SCHEMA = 1


@dataclass(frozen=True)
class Run:
    """What a run folder holds.

    Attributes:
      recipe: the recipe as TOML.
      summary: the content of summary.json.
      plan: what the bounds were planned as.
      counts: errors at the plan's thresholds and along the whole curve.
      spectrum: arrays of the noise spectrum, for its figure.
    """

    recipe: str
    summary: dict[str, Any]
    plan: Plan
    counts: Counts
    spectrum: dict[str, np.ndarray]


def write(run: Run, folder: str | Path, draw: Callable[[Run, Path], None]) -> Run:
    """Write a run folder: complete under its name, or not there.

    Args:
      run: to be stored.
      folder: must not exist, or be empty.
      draw: makes the figures of a run in a folder.

    Returns:
      the run, its summary holding the checksums.

    Raises:
      ValueError: where the folder is in use.
    """
    folder = Path(folder)
    check_free(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        (partial / "recipe.toml").write_text(run.recipe)
        np.savez_compressed(partial / "counts.npz", **asdict(run.counts))
        np.savez_compressed(partial / "spectrum.npz", **run.spectrum)
        sums = {name: _sha256(partial / name) for name in ("recipe.toml", "counts.npz", "spectrum.npz")}
        run.summary["plan"] = asdict(run.plan)
        run.summary["sha256"] = sums
        text = json.dumps(run.summary, indent=2, allow_nan=False, ensure_ascii=False)
        (partial / "summary.json").write_text(text + "\n")
        draw(run, partial)
        partial.chmod(0o777 & ~_umask())
        os.replace(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return run


def check_free(folder: str | Path) -> None:
    """Raise ValueError where a new run folder cannot be written."""
    folder = Path(folder)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ValueError(f"{folder} is in use; choose another --out, or move it away")


def read(folder: str | Path) -> Run:
    """Read a run folder and check that it is what was written.

    Args:
      folder: of a run.

    Returns:
      Run.

    Raises:
      ValueError: in one line that names the file which is missing, foreign or changed.
    """
    folder = Path(folder)
    if not (folder / "summary.json").is_file():
        raise ValueError(f"{folder}: no run folder (it has no summary.json); give the folder that `run` wrote")
    try:
        summary = json.loads((folder / "summary.json").read_text())
        schema, sums, plan = summary["schema"], summary["sha256"], summary["plan"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / 'summary.json'}: not a summary of jaxaudit ({error})") from error
    if schema != SCHEMA:
        raise ValueError(f"{folder / 'summary.json'}: schema {schema}, this version reads {SCHEMA}; update jaxaudit")
    for name in ("recipe.toml", "counts.npz", "spectrum.npz"):
        if not (folder / name).is_file() or _sha256(folder / name) != sums.get(name):
            raise ValueError(f"{folder / name}: missing or changed since it was written; run the recipe again")
    return Run(
        recipe=(folder / "recipe.toml").read_text(),
        summary=summary,
        plan=Plan(
            method=plan["method"],
            events=tuple(Event(**event) for event in plan["events"]),
            deltas=tuple(plan["deltas"]),
            stream=plan["stream"],
        ),
        counts=read_counts(folder / "counts.npz"),
        spectrum=read_arrays(folder / "spectrum.npz"),
    )


def read_counts(path: str | Path) -> Counts:
    """Counts from an .npz file, as `write` stores them.

    Raises:
      ValueError: in one line, where the file holds something else.
    """
    arrays = read_arrays(path)
    try:
        return Counts(
            thresholds=arrays["thresholds"],
            errors_h0=arrays["errors_h0"],
            errors_h1=arrays["errors_h1"],
            trials_h0=int(arrays["trials_h0"]),
            trials_h1=int(arrays["trials_h1"]),
            stream=str(arrays["stream"]),
            nested=bool(arrays["nested"]),
        )
    except KeyError as error:
        raise ValueError(f"{path}: holds no counts (array {error} is missing)") from error


def _sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
