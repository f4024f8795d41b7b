"""Play a game many times on the devices at hand, and count.

Trials are computed in batches of one fixed width: a vectorised product of another width may differ in its last bits.
Batches are numbered from trial 0 and spread over a one-axis mesh with no communication, and a batch that a range
touches is computed whole, so a trial is the same in every range, block and mesh. Only counts leave the devices.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from .bounds import Counts, Scores
from .game import Game, Program
from .random import STREAMS, numbered, words
from .tally import Cuts, count, cuts_of
from .types import Range

# Keys that one device holds, and how long the host waits for them, between two looks.
_KEYS, _LOOK_S = {"cpu": 2**21, "gpu": 2**26, "tpu": 2**26}, 0.5
# The last word below those of the aggregator.
_LABEL = 2**31 - 2

Progress = Callable[[int], None]
Keep = Callable[[int, np.ndarray], None]


class Block(NamedTuple):
    """Consecutive batches, as many on every device but for the last.

    Attributes:
      batch: number of the first.
      each: batches on a device.
      low, high: the trials that count, relative to the first of these batches.
    """

    batch: int
    each: int
    low: int
    high: int


class Player:
    """Plays games on the devices of one process, with the seed of a run, and reports progress.

    Attributes:
      first_block_s: seconds until the first block was there, tracing and compiling included.
      played: trials counted so far.
    """

    def __init__(self, devices: Sequence[Any], seed: int, progress: Callable[[str, int], Progress]):
        self.mesh = jax.make_mesh((len(devices),), ("trials",), (jax.sharding.AxisType.Auto,), devices=devices)
        self.seed, self.progress, self.first_block_s, self.played = seed, progress, 0.0, 0

    def scores(self, game: Game, stream: str, trials: int) -> list[Scores]:
        """All scores of the first trials of a stream, cell by cell: for pilots and small runs."""
        advance, found = self.progress(stream, trials), []
        for block, keys in self._blocks(game, stream, Range(0, trials), lambda block, room, keys, named: keys):
            by_device = keys.reshape(self.mesh.size, -1, _width(game), *keys.shape[1:])
            in_order = by_device[:, : block.each].reshape(-1, *keys.shape[1:])
            found.append(game.scores(in_order[block.low : block.high]))
            advance(block.high - block.low)
        both = np.concatenate(found)
        return [
            Scores(both[:, 0, cell], both[:, 1, cell], f"{self.seed}/{stream}", game.design(cell))
            for cell in range(len(game.order))
        ]

    def count(
        self,
        game: Game,
        stream: str,
        trials: Range,
        thresholds: Sequence[np.ndarray],
        labelled: bool = False,
        begun: tuple[int, np.ndarray] | None = None,
        keep: Keep = lambda done, gaps: None,
    ) -> list[Counts]:
        """Errors at the fixed thresholds of each cell; memory does not depend on the number of trials.

        Args:
          game: what is played.
          stream: name of the stream.
          trials: which of its trials.
          thresholds: of each cell, f64[k].
          labelled: a trial counts under one of the hypotheses, by a fair coin of its own, and not under both.
          begun: trials that were done before, and their gaps, as `keep` was called with.
          keep: called after every block with the trials done so far and their gaps, i64[2, columns, gaps].

        Returns:
          Counts of every cell.

        Raises:
          ValueError: where a score is not finite.
        """
        cuts = [game.cuts(own, cell) for cell, own in enumerate(thresholds)]
        by_column = np.argsort(game.order)
        table = cuts_of([[np.unique(cuts[cell][bit]) for cell in by_column] for bit in (0, 1)])
        done, gaps = begun or (0, np.zeros((2, len(by_column), table.keys.shape[2] + 1), np.int64))
        advance, rest = self.progress(stream, trials.count), Range(trials.first + done, trials.count - done)
        advance(done)
        width = _width(game)

        def tally(block, room, keys, named):
            counted = jnp.array([block.low, block.high], jnp.uint32)
            return tally_block(self.mesh, width, room, labelled, table, keys, *named, counted)

        for block, found in self._blocks(game, stream, rest, tally):
            done, gaps = done + block.high - block.low, gaps + found.sum(axis=0, dtype=np.int64)
            self.played += block.high - block.low
            if gaps[:, :, 0].any():
                raise ValueError(
                    f"{gaps[:, :, 0].sum():,} scores of {stream} trials are not finite, allowed are finite numbers; "
                    "a trial that failed counts as an error: give it the score that errs (large under h0, small "
                    "under h1)"
                )
            keep(done, gaps)
            advance(block.high - block.low)
        return [
            self._counts(game, stream, cell, thresholds[cell], cuts[cell], gaps, labelled)
            for cell in range(len(cuts))
        ]

    def _counts(self, game, stream, cell, thresholds, cuts, gaps, labelled):
        below = []
        for bit in (0, 1):
            # Gap 0 belongs to the scores that are none, and the first cut begins gap 2.
            passed = np.concatenate([[0], np.cumsum(gaps[bit, game.order[cell]])])
            below.append((passed[np.searchsorted(np.unique(cuts[bit]), cuts[bit]) + 2], passed[-1]))
        (below_h0, trials_h0), (errors_h1, trials_h1) = below
        return Counts(
            thresholds=np.asarray(thresholds, np.float64),
            errors_h0=trials_h0 - below_h0,
            errors_h1=errors_h1,
            trials_h0=trials_h0,
            trials_h1=trials_h1,
            stream=f"{self.seed}/{stream}",
            design=game.design(cell, labelled),
        )

    def _blocks(
        self, game: Game, stream: str, trials: Range, look: Callable[..., Any]
    ) -> Iterator[tuple[Block, np.ndarray]]:
        """What `look` makes of the keys of each block, on the host."""
        width, size, ahead, began = _width(game), self.mesh.size, None, time.perf_counter()
        room = max(1, _KEYS[jax.default_backend()] // (2 * len(game.order) * width))
        batch, end, each = trials.first // width, -(-(trials.first + trials.count) // width), 1
        while batch < end or ahead:
            launched = None
            if batch < end:
                # No block crosses a multiple of 2^32, where the high part of the trial numbers changes.
                here = min(size * each, end - batch, 2**32 // width - batch % (2**32 // width))
                first = batch * width
                low, high = max(trials.first - first, 0), min(trials.first + trials.count - first, here * width)
                block = Block(batch, -(-here // size), low, high)
                named = jnp.uint32(self.seed), jnp.uint32(STREAMS[stream]), *_split(first), jnp.uint32(block.each)
                keys = play_block(game.program, self.mesh, width, room, game.params, *named)
                launched, batch = (block, look(block, room, keys, named)), batch + here
            if ahead:
                # Dispatch is asynchronous: the devices compute the next block while the host reads this one.
                yield ahead[0], np.asarray(ahead[1])
                took, began = time.perf_counter() - began, time.perf_counter()
                self.first_block_s = self.first_block_s or took
                each = (
                    min(room, 2 * each) if took < _LOOK_S / 2 else max(1, each // 2) if took > 2 * _LOOK_S else each
                )
            ahead = launched


def _width(game):
    width = game.program.width(game.params)
    if width < 1 or width & (width - 1):
        # Batches are aligned, so that none crosses a multiple of 2^32.
        name = type(game.program.draws).__name__
        raise ValueError(f"width of {name} is {width}, allowed are powers of two; round it in {name}.width")
    return width


def _split(number):
    """High and low part of a trial's number: two u32[]."""
    return jnp.uint32(number >> 32), jnp.uint32(number & 0xFFFFFFFF)


@cache
def _compiled(function, backend: str):
    # Threefry and the permutation are integer instructions on whole vectors: XLA's habit of 256 bits costs a third.
    options = {"xla_cpu_prefer_vector_width": 512} if backend == "cpu" else None
    return jax.jit(function, static_argnums=(0, 1, 2, 3), compiler_options=options)


def play_block(program: Program, mesh, width: int, room: int, params, seed, stream, high, low, each) -> jax.Array:
    """Keys of consecutive batches of trials.

    Args:
      program: static.
      mesh: one axis, "trials".
      width: trials in a batch, static.
      room: batches that one device has room for, static.
      params: arrays, replicated.
      seed, stream: u32[].
      high, low: u32[], the first trial; a multiple of `width`.
      each: u32[], batches to play on each device, at most `room`.

    Returns:
      i32[devices * room * width, 2, columns]; of every device's part only the first each * width are trials.
    """
    return _compiled(_play, jax.default_backend())(program, mesh, width, room, params, seed, stream, high, low, each)


def tally_block(
    mesh, width: int, room: int, labelled: bool, cuts: Cuts, keys, seed, stream, high, low, each, counted
):
    """How many keys of a block lie between any two cuts.

    Args:
      mesh, width, room: as above, static.
      labelled: static; in a labelled block a trial counts under the bit that its own coin shows.
      cuts: where keys are told apart.
      keys: from `play_block`, with the same arguments.
      seed, stream, high, low, each: as above.
      counted: u32[2], the trials that count: from the first of them to before the second, relative to the block.

    Returns:
      i32[devices, 2, columns, gaps].
    """
    run = _compiled(_tally, jax.default_backend())
    return run(mesh, width, room, labelled, cuts, keys, seed, stream, high, low, each, counted)


_ALIKE, _SPLIT = PartitionSpec(), PartitionSpec("trials")


def _play(program, mesh, width, room, params, seed, stream, high, low, each):
    def on_one_device(params, seed, stream, high, low, each):
        own = low + jax.lax.axis_index("trials").astype(jnp.uint32) * each * jnp.uint32(width)
        columns = jax.eval_shape(lambda: program.play(params, numbered(seed, stream, high, low))).shape[-1]

        def batch(number, keys):
            trials = own + number * jnp.uint32(width) + jnp.arange(width, dtype=jnp.uint32)
            played = jax.vmap(lambda trial: program.play(params, numbered(seed, stream, high, trial)))(trials)
            return jax.lax.dynamic_update_slice_in_dim(keys, played, number * jnp.uint32(width), axis=0)

        return jax.lax.fori_loop(jnp.uint32(0), each, batch, jnp.zeros((room * width, 2, columns), jnp.int32))

    spread = jax.shard_map(on_one_device, mesh=mesh, in_specs=(_ALIKE,) * 6, out_specs=_SPLIT, check_vma=False)
    return spread(params, seed, stream, high, low, each)


def _tally(mesh, width, room, labelled, cuts, keys, seed, stream, high, low, each, counted):
    def on_one_device(cuts, keys, seed, stream, high, low, each, counted):
        own = jax.lax.axis_index("trials").astype(jnp.uint32) * each * jnp.uint32(width)

        def batch(number, found):
            first = number * jnp.uint32(width)
            place = own + first + jnp.arange(width, dtype=jnp.uint32)
            taken = ((place >= counted[0]) & (place < counted[1]))[:, None] & jnp.ones((1, 2), bool)
            if labelled:
                label = jax.vmap(lambda at: words(numbered(seed, stream, high, low + at), _LABEL, 1)[0])(place)
                taken &= (label[:, None] & jnp.uint32(1)) == jnp.arange(2, dtype=jnp.uint32)[None]
            return found + count(cuts, jax.lax.dynamic_slice_in_dim(keys, first, width), taken)

        bits, columns, size = cuts.keys.shape
        return jax.lax.fori_loop(jnp.uint32(0), each, batch, jnp.zeros((bits, columns, size + 1), jnp.int32))[None]

    spread = jax.shard_map(
        on_one_device, mesh=mesh, in_specs=(_ALIKE, _SPLIT) + (_ALIKE,) * 6, out_specs=_SPLIT, check_vma=False
    )
    return spread(cuts, keys, seed, stream, high, low, each, counted)
