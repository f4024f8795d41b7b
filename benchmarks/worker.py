"""A process on some cores or a card that plays what it is asked for: one line of JSON in, one out."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import games
import jax
import jax.numpy as jnp
import numpy as np
from measure import cores, digest, facts, pin

from jaxaudit import devices
from jaxaudit.types import Range

# Of the kernel that measures the limit of integer arithmetic.
CHAINS, STEPS = 8, 64


class Worker:
    """The parent's end of such a process.

    Attributes:
      process: the child.
    """

    def __init__(self, platform: str | None, on: Sequence[int]):
        everywhere = cores()
        environment = os.environ | ({"JAX_PLATFORMS": platform} if platform else {})
        # Affinity is inherited, and must be there before a thread pool asks for it.
        pin(on)
        self.process = subprocess.Popen(
            [sys.executable, __file__], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        pin(everywhere)

    def __call__(self, task: str, **arguments: Any) -> dict[str, Any]:
        """Ask for a task by name, and wait."""
        self.process.stdin.write(json.dumps([task, arguments]) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"a worker ended with status {self.process.wait()} at {task} {arguments}")
        return json.loads(answer)

    def close(self) -> None:
        """End it."""
        self.process.stdin.close()
        self.process.wait()


def machine():
    """What it runs on."""
    return {"facts": facts(), "backend": jax.default_backend(), "kind": jax.devices()[0].device_kind}


def count(pool, terms, trials):
    """Count at 200 thresholds on all devices; the first call for a game compiles."""
    game = _game(pool, terms)
    by = games.player(jax.device_count())
    return timed(lambda: digest(games.count(game, trials, by=by)))


def sums(terms, trials):
    """The sums alone, of whole batches on one device."""
    game = _game(10_000, terms)
    return timed(lambda: games.keys(game, trials).shape[0])


def against_law(trials):
    """Count trials of 60 clients, and compare with the exact law; what is not trials is apart."""
    game, terms, by = _game(10_000, 60), 60, games.player(jax.device_count())
    reach = 4 * np.sqrt(terms) * 1000 / np.sqrt(3)
    thresholds = np.linspace(-reach, reach, 200)
    play = partial(by.count, game, "certify", thresholds=[thresholds])
    first = timed(lambda: play(trials=Range(0, 10**6)) and None)
    before = _peak_mib()
    found = []
    took = timed(lambda: found.extend(play(trials=Range(0, trials))))

    values, reached = games.tails(np.asarray(game.params.pool.table), terms)
    end = int(game.params.ends[1, 0])
    # Errors are sums at or above the threshold, and sums that with the target's end are at or below it.
    h0 = reached[np.searchsorted(values, np.ceil(thresholds))]
    h1 = 1 - reached[np.searchsorted(values, np.floor(thresholds - end) + 1)]
    off = [
        (seen - trials * exact) / np.sqrt(trials * exact * (1 - exact))
        for seen, exact in ((found[0].errors_h0, h0), (found[0].errors_h1, h1))
    ]
    return took | {"first_s": first["wall_s"], "before_mib": before, "peak_mib": _peak_mib(), "z": np.abs(off).max()}


def limit(lanes):
    """Integer instructions of chains that do not wait for each other; the kernel agrees with NumPy."""
    start, total = np.arange(256, dtype=np.uint32), np.uint32(0)
    for chain in range(CHAINS):
        x = start + np.uint32(chain)
        for _ in range(STEPS):
            x = (x * np.uint32(0x9E3779B1) + np.uint32(0x85EBCA6B)) ^ np.uint32(0xC2B2AE35)
        total = total ^ x
    assert np.array_equal(_churned(len(start)), total)
    # A multiply-add is one instruction, and so is an exclusive or.
    took = timed(lambda: _churned(lanes).block_until_ready().size)
    return took | {"instructions": 2 * CHAINS * STEPS * lanes}


@partial(jax.jit, static_argnums=0)
def _churned(lanes):
    start = jnp.arange(lanes, dtype=jnp.uint32)
    total = jnp.zeros_like(start)
    for chain in range(CHAINS):
        x = start + jnp.uint32(chain)
        for _ in range(STEPS):
            x = (x * jnp.uint32(0x9E3779B1) + jnp.uint32(0x85EBCA6B)) ^ jnp.uint32(0xC2B2AE35)
        total = total ^ x
    return total


def timed(run):
    """Seconds on both clocks, and what it gave."""
    cpu, wall = time.process_time(), time.perf_counter()
    gave = run()
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "gave": gave}


@cache
def _game(pool, terms):
    return games.drawn("with_replacement", pool, terms)


def _peak_mib():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def main():
    # What a library prints goes elsewhere.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    devices.prepare(False)
    tasks = {task.__name__: task for task in (machine, count, sums, against_law, limit)}
    for line in sys.stdin:
        task, arguments = json.loads(line)
        answers.write(json.dumps(tasks[task](**arguments)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
