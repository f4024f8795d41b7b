"""Run folders: written whole or not at all, checked when read."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .bounds import Counts, Event, Plan, Tradeoff
from .populations.files import read_arrays
from .runs import Cell, ExactCell, Run

SCHEMA = 6


def write(run: Run, folder: str | Path, draw: Callable[[Run, Path], None]) -> None:
    """Write a run folder: complete under its name, or not there.

    Args:
      run: to be stored.
      folder: must not exist, or be empty.
      draw: makes the figures of a run in a folder.

    Raises:
      ValueError: where the folder is in use.
    """
    check_free(folder)
    folder = Path(folder).resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        (partial / "recipe.toml").write_text(run.recipe, encoding="utf-8")
        np.savez_compressed(partial / "counts.npz", **_labelled(map(_counted, run.cells)))
        np.savez_compressed(partial / "spectrum.npz", **_labelled(cell.spectrum for cell in run.cells))
        if run.recovery:
            np.savez_compressed(partial / _RECOVERY, **run.recovery)
        sums = {name: _sha256(partial / name) for name in _files(bool(run.recovery))}
        cells = [cell.summary | {"plans": [asdict(plan) for plan in _plans(cell)]} for cell in run.cells]
        summary = json.loads(json.dumps(run.summary | {"cells": cells}))
        summary["sha256"] = sums | {"summary.json": _own_sha256(summary)}
        text = json.dumps(summary, indent=2, allow_nan=False, ensure_ascii=False)
        (partial / "summary.json").write_text(text + "\n", encoding="utf-8")
        draw(run, partial)
        partial.chmod(0o777 & ~_umask())
        os.replace(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def check_free(folder: str | Path) -> None:
    """Raise ValueError where a new run folder cannot be written."""
    folder = Path(folder)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ValueError(f"{folder} is in use; choose another --out, or move it away")
    if folder.resolve() == Path.cwd():
        raise ValueError(f"{folder} is the current folder, which cannot be replaced; choose another --out")
    above = next(parent for parent in folder.resolve().parents if parent.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise ValueError(f"{folder} cannot be written, {above} is no writable folder; choose another --out")


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
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        schema = summary["schema"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / 'summary.json'}: not a summary of jaxaudit ({error})") from error
    if schema != SCHEMA:
        remedy = "update jaxaudit" if isinstance(schema, int) and schema > SCHEMA else "run the recipe again"
        raise ValueError(f"{folder / 'summary.json'}: schema {schema}, this version reads {SCHEMA}; {remedy}")
    sums = summary.get("sha256")
    if not isinstance(sums, dict) or sums.get("summary.json") != _own_sha256(summary):
        raise ValueError(f"{folder / 'summary.json'}: changed since it was written; run the recipe again")
    for name in _files(_RECOVERY in sums):
        if not (folder / name).is_file() or _sha256(folder / name) != sums.get(name):
            raise ValueError(f"{folder / name}: missing or changed since it was written; run the recipe again")
    spectra, cells = read_arrays(folder / "spectrum.npz"), []
    for number, cell in enumerate(summary.pop("cells")):
        plans = [_plan(plan) for plan in cell.pop("plans")]
        spectrum = _own(spectra, _label(number))
        if not plans:
            arrays = _own(read_arrays(folder / "counts.npz"), _label(number))
            cells.append(ExactCell(cell, arrays.pop("thresholds"), Tradeoff(**arrays), spectrum))
            continue
        plan, *more = plans
        counts, histogram, *rest = (
            read_counts(folder / "counts.npz", _label(number) + name) for name in _COUNTED[: 2 + len(more)]
        )
        cells.append(Cell(cell, plan, counts, histogram, (*more, *rest) if more else None, spectrum))
    recovery = dict(read_arrays(folder / _RECOVERY)) if _RECOVERY in sums else {}
    return Run((folder / "recipe.toml").read_text(encoding="utf-8"), summary, tuple(cells), recovery)


_RECOVERY = "recovery.npz"


def _files(recovery: bool) -> tuple[str, ...]:
    """What a folder holds beside its summary and figures."""
    return ("recipe.toml", "counts.npz", "spectrum.npz", *[_RECOVERY] * recovery)


# What stands before the names of the arrays of a cell's counts.
_COUNTED = ("", "histogram/", "off-span/")


def _own(arrays, label):
    """The arrays of one cell, by their own names."""
    names = [name for name in arrays if name.rpartition("/")[0] == label.removesuffix("/")]
    return {name.removeprefix(label): arrays[name] for name in names}


def _counted(cell: Cell | ExactCell) -> dict[str, Any]:
    if isinstance(cell, ExactCell):
        return {"thresholds": cell.thresholds} | cell.curve._asdict()
    every = cell.counts, cell.histogram, *(cell.off_span or (None,))[1:]
    return {label + name: array for label, counts in zip(_COUNTED, every) for name, array in asdict(counts).items()}


def _plans(cell: Cell | ExactCell) -> list[Plan]:
    if isinstance(cell, ExactCell):
        return []
    return [cell.plan, *(cell.off_span or ())[:1]]


def _plan(plan: dict) -> Plan:
    events = tuple(Event(**event) for event in plan["events"])
    return Plan(plan["method"], events, tuple(plan["deltas"]), plan["stream"], tuple(plan["fitted_on"]))


def _label(number: int) -> str:
    """What stands before the names of a cell's arrays: nothing for the headline."""
    return f"{number}/" if number else ""


def _labelled(cells):
    return {_label(number) + name: array for number, arrays in enumerate(cells) for name, array in arrays.items()}


def read_counts(path: str | Path, label: str = "") -> Counts:
    """Counts from an .npz file, as `write` stores them.

    Args:
      path: of the file.
      label: before the names of the arrays.

    Returns:
      Counts.

    Raises:
      ValueError: in one line, where the file holds something else.
    """
    arrays = {name.removeprefix(label): array for name, array in read_arrays(path).items() if name.startswith(label)}
    try:
        for name in ("errors_h0", "errors_h1", "trials_h0", "trials_h1"):
            if arrays[name].dtype.kind not in "iu":
                raise ValueError(f"{name} must be whole numbers, got {arrays[name].dtype}")
        thresholds, trials = arrays["thresholds"], [int(arrays[name]) for name in ("trials_h0", "trials_h1")]
        if thresholds.ndim != 1 or not thresholds.size or not np.isfinite(thresholds).all() or min(trials) < 1:
            raise ValueError("allowed are one or more finite thresholds and a trial or more under each hypothesis")
        return Counts(
            thresholds=thresholds,
            errors_h0=arrays["errors_h0"],
            errors_h1=arrays["errors_h1"],
            trials_h0=trials[0],
            trials_h1=trials[1],
            stream=str(arrays["stream"]),
            design=str(arrays["design"]),
        )
    except KeyError as error:
        raise ValueError(f"{path}: holds no counts (array {error} is missing)") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: holds no counts ({error})") from error


def _own_sha256(summary):
    rest = {key: value for key, value in summary.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
