"""What the guarantees rest on, checked on the machine at hand."""

import hashlib
import importlib.util
import platform
from collections.abc import Iterator
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np

from .aggregation import FixedPoint, Skellam
from .aggregation.fitting import fit
from .bounds import clopper_pearson_upper
from .populations.draws import PoolSums, TableParams
from .populations.seating import seated
from .random import index_below, numbered, threefry2x32


def examine() -> Iterator[tuple[str, str, bool]]:
    """Checks as (what, found, good).

    The first lines are facts; the rest are known answers, computed on the default device.
    """
    yield "Python", platform.python_version(), True
    for name in ("jaxaudit", "jax", "jaxlib", "flax", "optax", "numpy", "scipy"):
        yield name, version(name), True
    devices = jax.devices()
    yield "devices", f"{len(devices)} × {devices[0].platform} ({devices[0].device_kind})", True

    word = threefry2x32(*(tuple(jnp.uint32(x) for x in pair) for pair in _THREEFRY[:2]))
    found = tuple(int(x) for x in word)
    yield "Threefry-2x32 against its published vector", " ".join(f"{x:08x}" for x in found), found == _THREEFRY[2]

    words = np.arange(0, 2**32, 2**20 + 7, dtype=np.uint64)
    exact = words * np.uint64(1_000_003) >> np.uint64(32)
    equal = bool((np.asarray(index_below(jnp.asarray(words, jnp.uint32), jnp.uint32(1_000_003))) == exact).all())
    yield "index map against 64-bit integers", "equal" if equal else "different", equal

    limit = float(clopper_pearson_upper(3, 10**9, 1e-6))
    yield "Clopper-Pearson limit at 3 in 1e9, 1e-6", f"{limit:.6e}", abs(limit / _LIMIT - 1) < 1e-7

    total = float(jnp.sum(jnp.full(4096, 0.1, jnp.float32)))
    yield "float32 sums on the device", f"{total:.4f}", abs(total - 409.6) < 0.1

    product = jnp.dot(jnp.full(8, 1 + 2**-12, jnp.float32), jnp.ones(8, jnp.float32), precision="highest")
    yield "products keep float32 (no TF32)", f"{float(product):.6f}", float(product) == 8 * (1 + 2**-12)

    digest = _trials()
    yield "256 trials of known draws, bit for bit", digest, digest == _TRIALS

    digest = _residues()
    yield "sums modulo 2^8 of rounded updates with noise, bit for bit", digest, digest == _RESIDUES

    datasets = importlib.util.find_spec("tensorflow_datasets") is not None
    yield "tensorflow-datasets (imported when needed)", "installed" if datasets else "not installed", True


def _trials() -> str:
    """Digest of sums over cohorts drawn in every way: equal wherever counts are equal to the bit."""
    found = hashlib.sha256()
    sizes = np.arange(1200)[None] % 3 + 1
    first = (np.cumsum(sizes) - sizes).reshape(sizes.shape)
    scalars = (np.arange(2 * sizes.sum(), dtype=np.uint32) * np.uint32(2654435761) >> np.uint32(8)).astype(np.int32)
    for cohort in ("fixed", "with_replacement", "without_replacement", "poisson"):
        seating, groups = seated(cohort, 19, first, sizes, dropout=0.1)
        params = TableParams(jnp.asarray(scalars.reshape(-1, 2)), groups)
        draws = PoolSums(seating, (7, 19) if cohort != "poisson" else (19, 19))

        def others(low, draws=draws, params=params):
            return draws.others(params, numbered(jnp.uint32(1), jnp.uint32(2), jnp.uint32(3), low))

        found.update(np.asarray(jax.jit(jax.vmap(others))(jnp.arange(256, dtype=jnp.uint32))).tobytes())
    return found.hexdigest()[:16]


def _residues() -> str:
    """Digest of residues of 64 trials: clipped, rounded by coins, with noise from a table, beyond the ring."""
    steps = FixedPoint(step=2.0**-7, rounding="stochastic"), Skellam(deviation=0.05)
    chain = fit(steps, 8, 64, 20, wrap=True, announced=True, minimum=0, varying=False, rounds=1)
    updates = jnp.asarray(np.linspace(-0.5, 0.5, 20 * 64).reshape(20, 64), jnp.float32)
    params, channel = chain.params(1.0), chain.channel

    def residues(low):
        ticket = numbered(jnp.uint32(1), jnp.uint32(2), jnp.uint32(3), low)
        state = channel.init(64)
        for seat in range(20):
            state = channel.add(params, state, ticket, jnp.uint32(seat), updates[seat])
        return channel.reveal(params, state, ticket).ring

    found = np.asarray(jax.jit(jax.vmap(residues))(jnp.arange(64, dtype=jnp.uint32)))
    return hashlib.sha256(found.tobytes()).hexdigest()[:16]


_THREEFRY = ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0))
# mpmath, 40 digits: the p with P(Bin(1e9, p) <= 3) = 1e-6.
_LIMIT = 2.13504567673768161e-8
# What every platform and version so far has drawn.
_TRIALS = "a9d49ce8406647e9"
_RESIDUES = "9726bad6fb033479"
