"""Updates recorded by others: one file or a folder of files, indexed once and read a few rows at a time."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .files import read_arrays, refuse_non_finite
from .index import RecordedFile, index_file, list_files, path_sha256, some


class Layer(NamedTuple):
    """One named tensor of an update: its shape, and its place [start, stop) in the row."""

    name: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class Updates:
    """Recorded updates, in order of the paths of their files and of the rows in each; the numbers stay on disk.

    Attributes:
      source: name of the file or folder, without its path.
      client: i64[updates], the client of each, or None where the clients are not recorded.
      round: i64[updates], the round of each; 0 where the rounds are not recorded.
      cohort: clients that took part in a round, by round; empty where not recorded.
      layers: the selected tensors, and where each lies in a row.
      flattening: how an update became a row, in words.
      sha256: digest of the content, under `source`.
    """

    source: str
    client: np.ndarray | None
    round: np.ndarray
    cohort: Mapping[int, int]
    layers: tuple[Layer, ...]
    flattening: str
    sha256: Mapping[str, str]
    _files: tuple[RecordedFile, ...] = field(repr=False)
    _starts: np.ndarray = field(repr=False)
    _last: dict = field(default_factory=dict, repr=False)

    def __len__(self):
        return len(self.round)

    @property
    def dim(self) -> int:
        """Numbers in a row."""
        return self.layers[-1].stop

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """Some updates, each selected tensor flattened in row-major order.

        Only the files that hold them are opened. Of an .npz file the selected arrays are read whole, and kept until
        another file is opened; so ask for the rows of a file together.

        Args:
          indices: i64[rows] in [0, len(self)), in any order.

        Returns:
          f32[rows, dim].

        Raises:
          IndexError: where there is no such update.
          ValueError: in one line, where a number is not finite in float32, or a file can no longer be read.
        """
        indices = np.asarray(indices, np.int64)
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(f"indices must be in [0, {len(self)}), got {indices.min()} to {indices.max()}")
        number = np.searchsorted(self._starts, indices, "right") - 1
        inside = indices - self._starts[number]
        order = np.argsort(number, kind="stable")
        rows = np.empty((len(indices), self.dim), np.float32)
        # What overflows float32 becomes infinite, and is refused below.
        with np.errstate(over="ignore"):
            for places in np.split(order, np.flatnonzero(np.diff(number[order])) + 1) if len(order) else ():
                file, arrays = self._open(int(number[places[0]]))
                for layer in self.layers:
                    tensor = arrays[layer.name]
                    part = tensor[inside[places]] if file.stacked else tensor[None]
                    rows[places, layer.start : layer.stop] = part.reshape(len(part), -1)
        finite = np.isfinite(rows)
        if not finite.all():
            place = int(np.argmin(finite.all(axis=1)))
            name = next(layer.name for layer in self.layers if np.argmin(finite[place]) < layer.stop)
            what = name if name == "updates" else f"{name!r} of update"
            path = self._files[number[place]].path
            refuse_non_finite(rows[place : place + 1], f"file {path}: {what}", int(inside[place]))
        return rows

    def _open(self, number):
        file = self._files[number]
        if number not in self._last:
            self._last.clear()
            arrays = read_arrays(file.path, {layer.name for layer in self.layers})
            lead = (file.count,) if file.stacked else ()
            for layer in self.layers:
                if layer.name not in arrays or arrays[layer.name].shape != (*lead, *layer.shape):
                    raise ValueError(f"file {file.path}: {layer.name!r} changed while it was in use; start again")
            self._last[number] = arrays
        return file, self._last[number]


def read_updates(path: str | Path, layers: Sequence[str] = ()) -> Updates:
    """Index recorded updates.

    A file (.npz or .safetensors) is one of

    (a) a matrix: `updates`, real[updates, dim]; a .npy file is such a matrix alone, and further arrays are ignored;
    (b) one update, of one client in one round: named tensors of any shape (`conv1.weight`, `dense/kernel`, `vector`),
        only in a folder;
    (c) many updates as named tensors: each has a leading axis of updates, and `client` or `round` has that axis too.

    Beside them, each one integer for the whole file, or integer[updates]:

    - `client`: from 0. Without it the clients are unknown.
    - `round`: from 0. Without it every update is of round 0.
    - `cohort`: how many clients took part in that round, whether recorded here or not.

    An integer for the whole file is a 0-d array; or in .safetensors metadata; or, for `client` and `round`, in the
    file's path below the folder (`client-17_round-3.npz`, `round_3/client17.npz`). The first of these that is there
    counts. A folder is searched with its subfolders, in order of the paths; hidden files and other formats are
    skipped, but .npy, .pt and .pth are refused. One client may have several updates in a round.

    Args:
      path: a .npy, .npz or .safetensors file, or a folder of .npz and .safetensors files.
      layers: names of tensors, or patterns such as "conv1.*"; none: all.

    Returns:
      the index. Tensors lie in a row in order of name: .safetensors does not keep the order of the model.

    Raises:
      ValueError: in one line, where a file is missing, damaged, not of real numbers, or unlike the others.
    """
    path = Path(path)
    folder = path.is_dir()
    if not folder and not path.exists():
        raise ValueError(f"file or folder {path}: not found; give the path of an existing one")
    files = tuple(index_file(file, path) for file in list_files(path)) if folder else (index_file(path),)
    for file in files[1:]:
        _require_alike(file, files[0])
    counts = [file.count for file in files]
    client, rounds = (_gather(files, label) for label in ("client", "round"))
    rounds = np.zeros(sum(counts), np.int64) if rounds is None else rounds
    chosen = _select(files[0], (layers,) if isinstance(layers, str) else layers)
    source = path.resolve().name
    return Updates(
        source=source,
        client=client,
        round=rounds,
        cohort=_cohorts(files, client, rounds, path),
        layers=chosen,
        flattening=_describe(chosen, sum(map(math.prod, files[0].shapes.values()))),
        sha256={source: path_sha256(path)},
        _files=files,
        _starts=np.cumsum([0, *counts]),
    )


def _require_alike(file, first):
    for name in sorted(file.shapes.keys() ^ first.shapes.keys()):
        has, lacks = (file, first) if name in file.shapes else (first, file)
        raise ValueError(
            f"file {lacks.path}: no tensor {name!r}, which {has.path} holds; all files have the same names"
        )
    for name, shape in file.shapes.items():
        if shape != first.shapes[name]:
            raise ValueError(
                f"file {file.path}: {name!r} of one update has shape {shape}, but {first.shapes[name]} in "
                f"{first.path}; all files have the same shapes"
            )


def _gather(files, label):
    """One label of all updates; None where no file has it."""
    found = [getattr(file, label) for file in files]
    missing = [file.path for file, numbers in zip(files, found, strict=True) if numbers is None]
    if len(missing) == len(files):
        return None
    if missing:
        raise ValueError(
            f"file {missing[0]}: does not say its {label}, but other files do; record it in every file or in none"
        )
    return np.concatenate(found)


def _select(first, patterns):
    for pattern in patterns:
        if not any(_matches(name, pattern) for name in first.shapes):
            raise ValueError(
                f"file {first.path}: no tensor matches the layer {pattern!r}, it holds {some(first.shapes)}"
            )
    chosen, start = [], 0
    for name, shape in first.shapes.items():
        if not patterns or any(_matches(name, pattern) for pattern in patterns):
            chosen.append(Layer(name, shape, start, start + math.prod(shape)))
            start = chosen[-1].stop
    if not start:
        raise ValueError(f"file {first.path}: the layers {some(first.shapes)} hold no number; select others")
    return tuple(chosen)


def _matches(name, pattern):
    # A name counts as itself too: brackets, as in "layers[0]", are a set of characters to fnmatch.
    return name == pattern or fnmatchcase(name, pattern)


def _describe(layers, total):
    dim = layers[-1].stop
    share = f"all {total:,}" if dim == total else f"{dim:,} of {total:,}"
    if [layer.name for layer in layers] == ["updates"]:
        return f"rows of `updates`, as recorded: {share} numbers of an update"
    named = [f"{layer.name} ({'×'.join(map(str, layer.shape)) or 'scalar'})" for layer in layers]
    order = ", row-major" if len(named) == 1 else ", each row-major, in order of name"
    return f"{some(named)}{order}: {share} numbers of an update"


def _cohorts(files, client, rounds, path):
    sizes, start = {}, 0
    for file in files:
        span, start = rounds[start : start + file.count], start + file.count
        if file.cohort is None:
            continue
        for number, size in np.unique(np.stack([span, file.cohort]), axis=1).T.tolist():
            if sizes.setdefault(number, size) != size:
                raise ValueError(
                    f"file {file.path}: the cohort of round {number} is {size}, elsewhere {sizes[number]}; "
                    "a round has one cohort size"
                )
    if client is not None and sizes:
        seen = np.unique(np.stack([rounds, client]), axis=1)[0]
        for number, clients in zip(*(part.tolist() for part in np.unique(seen, return_counts=True)), strict=True):
            if clients > sizes.get(number, clients):
                raise ValueError(
                    f"{path}: {clients} clients have updates of round {number}, but its cohort is {sizes[number]}; "
                    "`cohort` counts all clients of the round"
                )
    return sizes
