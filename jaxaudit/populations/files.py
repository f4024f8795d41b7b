"""Reading a user's arrays: .npy, .npz and .safetensors, memory-mapped where the format allows, never unpickled."""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

SUFFIXES = (".npy", ".npz", ".safetensors")
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1"}
_DTYPES |= {"U8": "u1", "U16": "<u2", "U32": "<u4", "U64": "<u8"}


def read_arrays(path: str | Path) -> Mapping[str, np.ndarray]:
    """The arrays of a file by name; a .npy file holds one, called "updates".

    Args:
      path: a .npy, .npz or .safetensors file.

    Returns:
      a mapping from name to array; .npy and .safetensors are memory-mapped, .npz is read into memory.

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
            return _arrays({"updates": np.load(path, mmap_mode="r", allow_pickle=False)})
        if path.suffix == ".npz":
            # NumPy leaves the file open when it cannot read it; opened here, it is closed here.
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                return _arrays({name: archive[name] for name in archive.files})
        return _map_safetensors(path)
    except (*_DAMAGE, zipfile.BadZipFile, zlib.error, SafetensorError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(
            f"file {path}: cannot be read as {path.suffix} ({reason}); write plain numeric arrays, without pickle"
        ) from error


# Of the last two: an encrypted archive, and a compression that Python lacks.
_DAMAGE = (ValueError, OSError, EOFError, KeyError, TypeError, RuntimeError, NotImplementedError)


def _arrays(found):
    for name, array in found.items():
        if not isinstance(array, np.ndarray):
            raise ValueError(f"{name!r} is no array")
    return found


def _map_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Memory-mapped tensors: safetensors itself checks the file, and its header says where each tensor lies."""
    with safe_open(path, framework="numpy") as tensors:
        names = list(tensors.keys())
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    arrays = {}
    for name in names:
        dtype, shape, (start, _) = (header[name][key] for key in ("dtype", "shape", "data_offsets"))
        if dtype not in _DTYPES:
            raise ValueError(f"tensor {name!r} has dtype {dtype}, allowed are {', '.join(_DTYPES)}")
        arrays[name] = np.memmap(path, _DTYPES[dtype], "r", 8 + length + start, tuple(shape))
    return arrays


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


def file_sha256(path: str | Path) -> str:
    """Digest of a file's content, read a block at a time."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_non_finite(rows: np.ndarray, what: str, first: int = 0) -> None:
    """Raise ValueError naming the first row with a NaN or an infinity."""
    # What overflows float32, in which trials are summed, is infinite to them.
    finite = (np.abs(rows) <= np.finfo(np.float32).max).reshape(len(rows), -1).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"{what}[{first + int(np.argmin(finite))}] holds NaN or infinity, allowed are finite numbers; "
            "drop or repair that update"
        )
