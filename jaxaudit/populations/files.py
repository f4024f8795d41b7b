"""Reading a user's arrays: .npy, .npz and .safetensors, memory-mapped where the format allows, never unpickled."""

import hashlib
import json
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

try:
    from lzma import LZMAError
except ImportError:  # some Pythons are built without it, and then refuse such archives themselves
    LZMAError = zipfile.BadZipFile

SUFFIXES = (".npy", ".npz", ".safetensors")
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1"}
_DTYPES |= {"U8": "u1", "U16": "<u2", "U32": "<u4", "U64": "<u8", "BF16": jnp.bfloat16}


class Header(NamedTuple):
    """What a file says of one array before its numbers are read: dtype as text, shape, whether of real numbers."""

    dtype: str
    shape: tuple[int, ...]
    real: bool


def read_arrays(path: str | Path, names: Collection[str] | None = None) -> Mapping[str, np.ndarray]:
    """The arrays of a file by name; a .npy file holds one, called "updates".

    Args:
      path: a .npy, .npz or .safetensors file.
      names: those to read; what the file lacks is left out. None: all.

    Returns:
      a mapping from name to array; .npy and .safetensors are memory-mapped, .npz is read into memory.

    Raises:
      ValueError: in one line, where the file is missing, of another kind, damaged, or would need unpickling.
    """
    path = Path(path)
    with _reading(path):
        if path.suffix == ".npy":
            return _arrays({"updates": np.load(path, mmap_mode="r", allow_pickle=False)})
        if path.suffix == ".npz":
            # NumPy leaves the file open when it cannot read it; opened here, it is closed here.
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                return _arrays({name: archive[name] for name in archive.files if names is None or name in names})
        return _map_safetensors(path, names)


def read_headers(path: str | Path) -> tuple[dict[str, Header], Mapping[str, str]]:
    """What a file holds, without reading its numbers.

    Args:
      path: a .npy, .npz or .safetensors file.

    Returns:
      the headers by name of the array, and the metadata of a .safetensors file (empty for the others).

    Raises:
      ValueError: in one line, where the file is missing, of another kind, or damaged where its headers lie.
    """
    path = Path(path)
    with _reading(path):
        if path.suffix == ".npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            return {"updates": Header(str(array.dtype), array.shape, _is_real(array.dtype))}, {}
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                members = archive.namelist()
                return {name.removesuffix(".npy"): _npy_header(archive, name) for name in members}, {}
        entries, metadata, _ = _safetensors_header(path)
        return {
            name: Header(entry["dtype"], tuple(entry["shape"]), entry["dtype"] in _DTYPES)
            for name, entry in entries.items()
        }, metadata


# The fourth line: an encrypted archive, a compression that Python lacks, a shape that no memory holds.
_DAMAGE = (
    *(ValueError, OSError, EOFError, KeyError, TypeError),
    *(zipfile.BadZipFile, zlib.error, LZMAError, struct.error, SafetensorError),
    *(SyntaxError, tokenize.TokenError),
    *(RuntimeError, NotImplementedError, MemoryError),
)


@contextmanager
def _reading(path: Path):
    """Every way in which a file cannot be read, as one line."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"file {path}: got suffix {path.suffix!r}, allowed are {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise ValueError(f"file {path}: not found; give the path of an existing file")
    try:
        yield
    except _DAMAGE as error:
        reason = str(error).split("\n")[0]
        if "pickle" in reason:  # NumPy would advise to load it unsafely
            reason = "it holds Python objects, or is damaged"
        raise ValueError(
            f"file {path}: cannot be read as {path.suffix} ({reason}); write plain numeric arrays, without pickle"
        ) from error


def _arrays(found):
    for name, array in found.items():
        if not isinstance(array, np.ndarray):
            raise ValueError(f"{name!r} is no array")
    return found


def _is_real(dtype):
    # NumPy knows bfloat16 as an extension, of kind "V" like raw bytes.
    return dtype.kind in "fiu" or dtype == jnp.bfloat16


def _npy_header(archive: zipfile.ZipFile, name: str) -> Header:
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{name!r} has .npy version {version}, allowed are (1, 0) and (2, 0)")
        plain = version == (1, 0)
        read = np.lib.format.read_array_header_1_0 if plain else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    return Header(str(dtype), shape, _is_real(dtype))


def _safetensors_header(path: Path) -> tuple[dict[str, dict], Mapping[str, str], int]:
    """Entries by tensor, metadata, and where the data begin; safetensors itself checks the file."""
    with safe_open(path, framework="numpy") as tensors:
        names = list(tensors.keys())
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return {name: header[name] for name in names}, header.get("__metadata__") or {}, 8 + length


def _map_safetensors(path: Path, names: Collection[str] | None) -> dict[str, np.ndarray]:
    """Memory-mapped tensors: one map of the file, of which each tensor is a view."""
    entries, _, begin = _safetensors_header(path)
    data, arrays = np.memmap(path, "u1", "r"), {}
    for name, entry in entries.items():
        if names is not None and name not in names:
            continue
        if entry["dtype"] not in _DTYPES:
            raise ValueError(f"tensor {name!r} has dtype {entry['dtype']}, allowed are {', '.join(_DTYPES)}")
        start, stop = entry["data_offsets"]
        arrays[name] = data[begin + start : begin + stop].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
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
    if not _is_real(array.dtype):
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
