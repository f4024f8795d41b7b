"""Play a game many times on the devices at hand.

Trials are computed in micro-batches of one fixed width, whatever the block or the number of devices: a vectorised
product of another width may differ in its last bits. Blocks of micro-batches are spread over a one-axis mesh with no
communication; the statistics happen on the host, in float64.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from .bounds import Counts, Scores
from .game import Game, Params, Program, play
from .random import STREAMS, Ticket

# Trials that one device computes between two looks of the host.
_LAUNCH = 32_768

Progress = Callable[[int], None]


class Player:
    """Plays games on the devices of one run, with its seed, and reports progress.

    Attributes:
      first_block_s: seconds until the first block was there, tracing and compiling included.
    """

    def __init__(self, devices: Sequence[Any], seed: int, progress: Callable[[str, int], Progress]):
        self.mesh = jax.make_mesh((len(devices),), ("trials",), (jax.sharding.AxisType.Auto,), devices=devices)
        self.seed, self.progress, self.first_block_s = seed, progress, 0.0

    def scores(self, game: Game, stream: str, trials: int) -> list[Scores]:
        """All scores of a small run, cell by cell."""
        blocks = list(self._blocks(game, stream, trials))
        h0, h1 = (np.concatenate([block[bit] for block in blocks]) for bit in (0, 1))
        return [self._scores(game, stream, h0, h1, cell) for cell in range(len(game.order))]

    def count(self, game: Game, stream: str, trials: int, thresholds: Sequence[np.ndarray]) -> list[Counts]:
        """Errors at the fixed thresholds of each cell, a block at a time."""
        totals = None
        for h0, h1 in self._blocks(game, stream, trials):
            counted = [self._scores(game, stream, h0, h1, cell).count(at) for cell, at in enumerate(thresholds)]
            totals = counted if totals is None else [total + block for total, block in zip(totals, counted)]
        return totals

    def _scores(self, game, stream, h0, h1, cell):
        return Scores(h0[:, cell], h1[:, cell], f"{self.seed}/{stream}", bool(game.nested[cell]))

    def _blocks(self, game: Game, stream: str, trials: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        width = game.program.draws.width(game.params.pool)
        batches = self.mesh.size * max(1, _LAUNCH // width)
        step = width * batches
        advance = self.progress(stream, trials)

        def launch(first):
            starts = jnp.asarray(first + width * np.arange(batches), jnp.uint32)
            named = jnp.uint32(self.seed), jnp.uint32(STREAMS[stream])
            return play_block(game.program, self.mesh, width, game.params, *named, starts)

        began = time.perf_counter()
        ahead = launch(0)
        for first in range(0, trials, step):
            # Dispatch is asynchronous: the device computes the next block while the host counts this one.
            block, ahead = ahead, launch(first + step) if first + step < trials else None
            h0, h1 = (_by_cell(scores, game)[: trials - first] for scores in block)
            if not self.first_block_s:
                self.first_block_s = time.perf_counter() - began
            # On the safe side of what arithmetic left open: an error that might have been one is one.
            yield h0 + game.slack, h1 - game.slack
            advance(len(h0))


def _by_cell(scores, game):
    """f64[trials, cells] of a block f32[batches, width, columns]."""
    scores = np.asarray(scores)
    return scores.reshape(-1, scores.shape[-1])[:, game.order].astype(np.float64)


@partial(jax.jit, static_argnums=(0, 1, 2))
def play_block(program: Program, mesh, width: int, params: Params, seed, stream, starts) -> Any:
    """Paired scores of whole micro-batches.

    Args:
      program: static.
      mesh: one axis, "trials".
      width: trials in a micro-batch.
      params: arrays, replicated.
      seed, stream: u32[].
      starts: u32[batches], the first trial of each micro-batch; a multiple of the mesh size.

    Returns:
      (h0, h1), f32[batches, width, columns].
    """

    def micro_batches(params, starts):
        def one(start):
            trials = start + jnp.arange(width, dtype=jnp.uint32)
            return jax.vmap(lambda trial: play(program, params, Ticket(seed, stream, trial)))(trials)

        return jax.lax.map(one, starts)

    split = PartitionSpec("trials")
    spread = jax.shard_map(
        micro_batches, mesh=mesh, in_specs=(PartitionSpec(), split), out_specs=split, check_vma=False
    )
    return spread(params, starts)
