"""What the trials are timed against: NumPy, PyTorch, a loop in C, and the pattern of the published script."""

import ctypes
import importlib.util
import subprocess
import time
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path

import numpy as np

_CHUNKS = (2**14, 2**16, 2**18)

Sums = Callable[[int], np.ndarray]


def numpy_sums(table: np.ndarray, terms: int) -> dict[str, Sums]:
    """Ways to sum draws with replacement in NumPy, by what they are; a function of trials gives their sums.

    The generator is PCG64 and indices are int64, which `take` needs; narrower ones were slower. Sums go along the
    terms of a trial, or across trials.
    """
    found = {}
    for chunk, dtype, across in product(_CHUNKS, (np.int32, np.float32), (False, True)):
        how = f"chunks of {chunk >> 10}k, {np.dtype(dtype).name}, {'across' if across else 'along'} trials"
        found[how] = _numpy_sums(table.astype(dtype), terms, chunk, across)
    return found


def _numpy_sums(table, terms, chunk, across):
    generator, each = np.random.Generator(np.random.PCG64(0)), max(1, chunk // terms)
    shape = (terms, each) if across else (each, terms)
    taken = np.empty(shape, table.dtype)

    def sums(trials):
        out = np.empty(-(-trials // each) * each, table.dtype)
        for first in range(0, trials, each):
            index = generator.integers(0, table.size, size=shape)
            # With mode="raise" NumPy would fill a buffer of its own and copy it.
            table.take(index, out=taken, mode="clip")
            taken.sum(axis=0 if across else 1, dtype=table.dtype, out=out[first : first + each])
        return out[:trials]

    return sums


def torch_sums(table: np.ndarray, terms: int) -> dict[str, Sums]:
    """The same in PyTorch on one thread; nothing where it is not installed."""
    if importlib.util.find_spec("torch") is None:
        return {}
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = {}
    for chunk, dtype, across in product(_CHUNKS, (torch.int32, torch.float32), (False, True)):
        kind = str(dtype).removeprefix("torch.")
        how = f"chunks of {chunk >> 10}k, {kind}, {'across' if across else 'along'} trials"
        found[how] = _torch_sums(torch, torch.tensor(table).to(dtype), terms, chunk, across)
    return found


def _torch_sums(torch, table, terms, chunk, across):
    each = max(1, chunk // terms)

    def sums(trials):
        out = torch.empty(-(-trials // each) * each, dtype=table.dtype)
        for first in range(0, trials, each):
            index = torch.randint(0, len(table), (each * terms,), dtype=torch.int32)
            found = table.index_select(0, index).view((terms, each) if across else (each, terms))
            torch.sum(found, 0 if across else 1, dtype=table.dtype, out=out[first : first + each])
        return out[:trials].numpy()

    return sums


def c_sums(table: np.ndarray, terms: int, seed: int, stream: int, folder: Path) -> dict[str, Sums]:
    """Plain loops in C over the same tickets; nothing where there is no compiler."""
    source, found = Path(__file__).with_name("threefry.c"), {}
    table = np.ascontiguousarray(table.ravel(), np.int32)
    # What `pair_of` asks for.
    assert table.size < 2**16 and terms % 2 == 0
    for name, flags in (("", []), (", 512-bit vectors", ["-mprefer-vector-width=512"])):
        library = folder / f"threefry-{len(flags)}.so"
        command = ["cc", "-O3", "-march=native", "-shared", "-fPIC", *flags, str(source), "-o", str(library)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        loaded = ctypes.CDLL(str(library))
        for loop in ("by_trial", "by_lane"):
            found[f"{loop}{name}"] = _c_sums(getattr(loaded, loop), table, terms, seed, stream)
    return found


def _c_sums(loop, table, terms, seed, stream):
    pointer = ctypes.c_void_p
    loop.argtypes = [ctypes.c_uint32] * 5 + [pointer, ctypes.c_uint32, pointer]
    loop.restype = None

    def sums(trials):
        assert trials % 256 == 0
        out = np.empty(trials, np.int32)
        loop(seed, stream, 0, trials, terms, table.ctypes.data, table.size, out.ctypes.data)
        return out

    return sums


def compiler() -> str:
    """Name and version of the C compiler, or that there is none."""
    try:
        return subprocess.run(["cc", "--version"], check=True, capture_output=True, text=True).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError):
        return "no C compiler"


def torch_version() -> str:
    """Version of PyTorch, or that there is none."""
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed"
    import torch

    return f"PyTorch {torch.__version__}"


def best(ways: Mapping[str, Sums], trials: int) -> tuple[str, Sums]:
    """The way with the least CPU time: name and function, each judged by its best of three turns."""
    took = dict.fromkeys(ways, np.inf)
    for _ in range(3):
        for name, sums in ways.items():
            began = time.process_time()
            sums(trials)
            took[name] = min(took[name], time.process_time() - began)
    name = min(took, key=took.get)
    return name, ways[name]


def published(totals: np.ndarray, mean: np.ndarray, precision: np.ndarray, pair: np.ndarray) -> np.ndarray:
    """Scores as the published script computes them: trial by trial, three quadratic forms of the whole sum.

    Its eigenvector product and this one are a product with a d × d matrix each.

    Args:
      totals: f64[n, dim], sums of the others.
      mean: f64[dim], of such a sum.
      precision: f64[dim, dim], inverse of its covariance.
      pair: f64[2, dim], the candidates.

    Returns:
      f64[n, 2], log-likelihood ratios under either bit.

    Reference:
      Ngo et al. (2024), arXiv:2403.17775, and the rule of the script released with it.
    """

    def log_likelihood(total):
        centred = total - mean
        return -0.5 * (centred @ precision @ centred)

    scores = []
    for total in totals:
        right = log_likelihood(total)
        wrong_h0 = log_likelihood(total + pair[0] - pair[1])
        wrong_h1 = log_likelihood(total + pair[1] - pair[0])
        scores.append((wrong_h0 - right, right - wrong_h1))
    return np.array(scores)
