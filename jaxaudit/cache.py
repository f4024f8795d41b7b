"""What took long to compute is kept between runs: arrays in safetensors files, found by what they are a function of.

An entry is addressed by a digest of everything that decides its content: the recipe's numbers, the data, the seed,
the code of this package and the versions of the libraries. So it is never out of date, only unused, and the entries
that were unused longest make room for new ones. `JAXAUDIT_CACHE` names the folder, or is `off`.
"""

import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

_BUDGET_BYTES = 8 * 2**30


def key_of(**facts: Any) -> str:
    """Address of what is a function of these facts (JSON values) and of this installation."""
    text = json.dumps([facts, _installation()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def remembered(key: str | None, compute: Callable[[], Mapping[str, np.ndarray]]) -> Mapping[str, np.ndarray]:
    """The arrays under a key, computed and kept if they are not there.

    Args:
      key: from `key_of`; None computes without keeping.
      compute: makes the arrays, bit for bit the same in every call.

    Returns:
      arrays by name.
    """
    home = folder()
    if key is None or home is None:
        return compute()
    path, found = home / "arrays" / f"{key}.safetensors", None
    with suppress(OSError, SafetensorError):
        found = load_file(path)
    if found is not None:
        with suppress(OSError):
            path.touch()  # the time of last use decides what makes room
        return found
    arrays = {name: np.asarray(array, order="C") for name, array in compute().items()}
    with suppress(OSError):  # a full or read-only disk costs time, not results
        _keep(path, arrays)
    return arrays


def keep_compilations() -> None:
    """Let JAX keep what it compiles in the same folder, small kernels included."""
    home = folder()
    if home is None:
        return
    import jax  # not needed by those who only remember arrays

    jax.config.update("jax_compilation_cache_dir", str(home / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def folder() -> Path | None:
    """Where entries are kept; None if they are not."""
    named = os.environ.get("JAXAUDIT_CACHE", "")
    if named.lower() == "off":
        return None
    return Path(named or platformdirs.user_cache_dir("jaxaudit")).expanduser()


def _keep(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    if sum(array.nbytes for array in arrays.values()) > _BUDGET_BYTES // 4:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
    os.close(handle)
    try:
        save_file(dict(arrays), partial)
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
    entries = sorted(path.parent.glob("*.safetensors"), key=lambda entry: entry.stat().st_mtime, reverse=True)
    total = 0
    for entry in entries:
        total += entry.stat().st_size
        if total > _BUDGET_BYTES:
            entry.unlink(missing_ok=True)


def code_sha256() -> str:
    """Digest of this package's own code."""
    code = hashlib.sha256()
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        code.update(source.read_bytes())
    return code.hexdigest()


@cache
def _installation() -> list[str]:
    """The code and the libraries that results depend on, and the processor they ran on."""
    libraries = [f"{name} {version(name)}" for name in ("jax", "jaxlib", "numpy", "scipy", "flax", "optax")]
    import jax  # whoever computes what is worth keeping has imported it already

    return [code_sha256(), *libraries, platform.machine(), jax.devices()[0].device_kind]
