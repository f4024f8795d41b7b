"""Reading a user's arrays: .npy, .npz and .safetensors, memory-mapped where the format allows, never unpickled."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

SUFFIXES = (".npy", ".npz", ".safetensors")


def read_arrays(path: str | Path) -> Mapping[str, np.ndarray]:
    """The arrays of a file by name; a .npy file holds one, called "updates".

    Args:
      path: a .npy, .npz or .safetensors file.

    Returns:
      a mapping from name to array; .npy arrays are memory-mapped.

    Raises:
      ValueError: in one line, where the file is missing, of another kind, damaged, or would need unpickling.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"file {path}: got suffix {path.suffix!r}, allowed are {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise ValueError(f"file {path}: not found; give the path of an existing file")
    try:
        if path.suffix == ".npy":
            return {"updates": np.load(path, mmap_mode="r", allow_pickle=False)}
        if path.suffix == ".npz":
            # NumPy leaves the file open when it cannot read it; opened here, it is closed here.
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        with safe_open(path, framework="numpy") as tensors:
            return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118 - not a mapping
    except (ValueError, OSError, EOFError, KeyError, TypeError, zipfile.BadZipFile, SafetensorError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(
            f"file {path}: cannot be read as {path.suffix} ({reason}); write plain numeric arrays, without pickle"
        ) from error


def pick(arrays: Mapping[str, np.ndarray], name: str, path, ndim: int) -> np.ndarray:
    """One numeric array of a file, checked for its shape.

    Args:
      arrays: from `read_arrays`.
      name: of the array.
      path: of the file, for the message.
      ndim: number of axes it must have.

    Returns:
      the array as it is stored.

    Raises:
      ValueError: where it is missing, not of real numbers, or has another number of axes.
    """
    if name not in arrays:
        raise ValueError(f"file {path}: no array {name!r}, it holds {', '.join(sorted(arrays)) or 'nothing'}")
    array = arrays[name]
    if array.dtype.kind not in "fiu":
        raise ValueError(f"file {path}: array {name!r} has dtype {array.dtype}, allowed are real numbers")
    if array.ndim != ndim:
        raise ValueError(f"file {path}: array {name!r} has shape {array.shape}, allowed are {ndim} axes")
    return array


def refuse_non_finite(rows: np.ndarray, what: str, first: int = 0) -> None:
    """Raise ValueError naming the first row with a NaN or an infinity."""
    finite = np.isfinite(rows).reshape(len(rows), -1).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"{what}[{first + int(np.argmin(finite))}] holds NaN or infinity, allowed are finite numbers; "
            "drop or repair that update"
        )
