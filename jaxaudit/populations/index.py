"""What recorded files hold, learnt from their headers and labels alone: whose updates, of which round and shapes."""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .files import SUFFIXES, file_sha256, read_arrays, read_headers

_IN_FOLDERS = SUFFIXES[1:]
# Formats that may well hold an update: passed over in silence, they would be missed by nobody.
_FOREIGN = (".npy", ".pt", ".pth")
_LEAST = {"client": 0, "round": 0, "cohort": 1}
_IN_NAMES = {label: re.compile(rf"(?<![a-z]){label}[-_]?(\d+)", re.IGNORECASE) for label in ("client", "round")}
_NAMED = 8


@dataclass(frozen=True)
class RecordedFile:
    """One file of updates.

    Attributes:
      path: of the file.
      count: updates in it.
      stacked: whether its arrays have a leading axis of updates.
      shapes: of the tensors of one update, in order of name.
      client: i64[count], or None where not recorded; so are `round` and `cohort`.
    """

    path: Path
    count: int
    stacked: bool
    shapes: Mapping[str, tuple[int, ...]]
    client: np.ndarray | None
    round: np.ndarray | None
    cohort: np.ndarray | None


def list_files(folder: Path) -> list[Path]:
    """The .npz and .safetensors files of a folder and its subfolders, in order of their paths; none hidden.

    Raises:
      ValueError: in one line, where there is none, or one of another format that may hold an update.
    """
    files = []
    for file in folder.rglob("*"):
        relative = file.relative_to(folder)
        if any(part.startswith(".") for part in relative.parts) or not file.is_file():
            continue
        if file.suffix in _FOREIGN:
            raise ValueError(
                f"file {file}: a folder of updates holds {' and '.join(_IN_FOLDERS)}; convert it, or move it away"
            )
        if file.suffix in _IN_FOLDERS:
            files.append((relative.as_posix(), file))
    if not files:
        raise ValueError(f"folder {folder}: holds no {' or '.join(_IN_FOLDERS)} file; record at least one")
    return [file for _, file in sorted(files)]


def path_sha256(path: str | Path) -> str:
    """Digest of a file, or of a folder: of the lines that `sha256sum` prints for its files, in order of path."""
    path = Path(path)
    if not path.is_dir():
        return file_sha256(path)
    lines = (f"{file_sha256(file)}  {file.relative_to(path).as_posix()}\n" for file in list_files(path))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def some(names) -> str:
    """Names for a message, the middle of a long list left out."""
    names = list(names)
    if len(names) > _NAMED:
        names[_NAMED // 2 : -1] = [f"… {len(names) - _NAMED // 2 - 1:,} more …"]
    return ", ".join(names) or "nothing"


def index_file(path: Path, folder: Path | None = None) -> RecordedFile:
    """One file, by the schema of `read_updates`.

    Args:
      path: a .npy, .npz or .safetensors file.
      folder: in which its path may name client and round; None for a file on its own, which holds many updates.

    Raises:
      ValueError: in one line, where the schema is not kept.
    """
    headers, metadata = read_headers(path)
    held = read_arrays(path, [label for label in _LEAST if label in headers])
    name = path.relative_to(folder).with_suffix("").as_posix() if folder else ""
    labels = {label: _label(label, path, held, metadata, name) for label in _LEAST}
    lengths = {label: len(array) for label, array in labels.items() if array is not None and array.ndim}
    matrix = "updates" in headers
    tensors = {k: headers[k] for k in sorted(headers) if (k == "updates" if matrix else k not in _LEAST)}
    if not tensors or not (matrix or lengths or folder):
        raise ValueError(
            f"file {path}: no array 'updates', it holds {some(map(repr, sorted(headers)))}; give a matrix `updates`, "
            "or tensors stacked by `client`, or a folder of single updates"
        )
    for tensor, header in tensors.items():
        if not header.real:
            remedy = "store float32" if header.dtype != "object" else "store plain numbers, without pickle"
            raise ValueError(
                f"file {path}: array {tensor!r} has dtype {header.dtype}, allowed are real numbers; {remedy}"
            )
    stacked = matrix or bool(lengths)
    if matrix:
        shape = tensors["updates"].shape
        if len(shape) != 2:
            remedy = "; name a single update as a flat vector otherwise, `vector`" if len(shape) == 1 else ""
            raise ValueError(f"file {path}: array 'updates' has shape {shape}, allowed are 2 axes{remedy}")
        if not math.prod(shape):
            raise ValueError(f"file {path}: updates has shape {shape}, allowed are one number or more")
    count = tensors["updates"].shape[0] if matrix else next(iter(lengths.values()), 1)
    for label, length in lengths.items():
        if length != count:
            raise ValueError(f"file {path}: {length} {label} numbers for {count} updates; give one for each")
        if not count:
            raise ValueError(f"file {path}: array {label!r} has shape (0,), allowed are one update or more")
    for tensor, header in tensors.items():
        if stacked and header.shape[:1] != (count,):
            raise ValueError(
                f"file {path}: {count} {next(iter(lengths))} numbers, but tensor {tensor!r} has shape "
                f"{header.shape}; stack the updates on the first axis, or give one number for one update"
            )
    return RecordedFile(
        path,
        count,
        stacked,
        {tensor: header.shape[stacked:] for tensor, header in tensors.items()},
        **{label: None if array is None else np.broadcast_to(array, (count,)) for label, array in labels.items()},
    )


def _label(label, path, arrays, metadata, name):
    """Integers of a file, 0-d or 1-d: in an array, else in the metadata, else in the name; None if nowhere."""
    least = _LEAST[label]
    wrong = f"file {path}: {label} must be integers in [{least}, 2^63)"
    if label in arrays:
        numbers = np.asarray(arrays[label])
        if numbers.dtype.kind not in "iu" or numbers.ndim > 1:
            raise ValueError(
                f"{wrong}, one for the file or one for each update, got {numbers.dtype} of shape {numbers.shape}"
            )
        low, high = (int(numbers.min()), int(numbers.max())) if numbers.size else (least, least)
    elif label in metadata:
        if not re.fullmatch(r"\s*[0-9]+\s*", metadata[label]):
            raise ValueError(f"{wrong}, its metadata say {metadata[label]!r}")
        numbers = low = high = int(metadata[label])
    else:
        said = sorted({int(number) for number in _IN_NAMES[label].findall(name)}) if label in _IN_NAMES else []
        if len(said) > 1:
            raise ValueError(f"file {path}: its path says {label} {said[0]} and {label} {said[1]}; keep one of them")
        if not said:
            return None
        numbers = low = high = said[0]
    if low < least or high >= 2**63:
        raise ValueError(f"{wrong}, got {low if low < least else high}")
    return np.array(numbers, np.int64)
