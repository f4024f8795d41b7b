"""Every test sees eight devices, so that nothing works only because there is one, and no cache of a user's."""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAXAUDIT_CACHE"] = "off"

import jax
import numpy as np
import pytest
from hypothesis import settings

import jaxaudit as ja

settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("repeatable")


@pytest.fixture
def strict():
    """Implicit promotion of dtypes or ranks is an error in our kernels (flax and optax need the usual rules)."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture(scope="session")
def small():
    """A quick federated audit whose shapes many tests share: 8 clients, digits, 16 recorded batches of each."""
    return ja.Audit(
        population=ja.Federated(clients=8, variants=16, rounds=1),
        aggregator=ja.SecureSum(),
        attack=ja.GaussianLRT(),
    )


@pytest.fixture(scope="session")
def prepared(small):
    """The small audit after its host work."""
    return small.prepare(seed=0)


@pytest.fixture(scope="session")
def pool_file(tmp_path_factory):
    """Recorded updates of 40 clients, 10 each, in 12 dimensions: correlated, with known clients."""
    rng = np.random.default_rng(1)
    mix = rng.standard_normal((12, 12))
    updates = (rng.standard_normal((400, 12)) @ mix).astype(np.float32)
    path = tmp_path_factory.mktemp("updates") / "pool.npz"
    np.savez(path, updates=updates, client=np.repeat(np.arange(40), 10))
    return path
