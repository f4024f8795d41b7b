"""Play a prepared game many times and turn what the attack saw into counts and bounds.

Trials are computed in micro-batches of one fixed width, whatever the block or the number of devices: a vectorised
product of another width may differ in its last bits. Blocks of micro-batches are spread over a one-axis mesh with no
communication; the statistics happen on the host, in float64.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from .attacks.span import Spectrum, Verdict, judge, spectrum
from .audit import Audit, Game, Params, Prepared, Program, play
from .bounds import Bound, Counts, Event, Plan, Scores, certify, robust_pilot, roc_thresholds
from .config import Recipe, make_recipe
from .random import STREAMS, Ticket
from .types import LinearTest

# Enough for both tails of a fit, little beside a certifying run.
_PILOT_SHARE, _PILOT_RANGE = 0.05, (1000, 20_000)
# Trials that one device computes between two looks of the host.
_LAUNCH = 32_768

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Result:
    """A finished audit.

    Attributes:
      recipe: the audit, and the trials, seed, deltas and confidence it was run with.
      prepared: pools, pair and knowledge.
      plan: what was fixed on the pilot trials.
      counts: errors on the certifying trials, at the plan's thresholds and along the whole curve.
      noise: spectrum of the audited pool's noise.
      verdict: of perfect distinguishability.
      off_span: bounds of the off-span score, which a server that knows the audited pool could use; a statement of
        its own, with its own confidence. Empty where the difference lies in the span.
      timing: seconds spent in `prepare_s`, `compile_s` (the first block, tracing and compiling included) and
        `trials_s`, and `trials_per_s`.
    """

    recipe: Recipe
    prepared: Prepared
    plan: Plan
    counts: Counts
    noise: Spectrum
    verdict: Verdict
    off_span: tuple[Bound, ...]
    timing: dict[str, float]

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """The certified bounds at the planned deltas; they hold together."""
        return tuple(self.bound(delta) for delta in self.recipe.deltas)

    @property
    def statement(self) -> str:
        """The sentence that says what the bounds are about, and what they are not: to be printed with every one."""
        return self.prepared.statement

    def bound(self, delta: float, confidence: float | None = None) -> Bound:
        """A certified lower bound on epsilon.

        Args:
          delta: in [0, 1); one that was not planned for takes the best bound of a larger planned one.
          confidence: in (0, 1); that of the run by default.

        Returns:
          Bound.
        """
        return certify(self.plan, self.counts, delta, self.recipe.confidence if confidence is None else confidence)


def run(
    audit: Audit,
    *,
    trials: int = 1_000_000,
    seed: int = 0,
    deltas: Sequence[float] = (1e-2, 1e-3, 1e-4, 1e-5),
    confidence: float = 0.95,
    devices=None,
    progress: Callable[[str, int], Progress] | None = None,
) -> Result:
    """Audit: prepare, choose thresholds on pilot trials, certify on fresh ones.

    Args:
      audit: the recipe of the game.
      trials: certifying trials, 1,000 to 4,000,000,000, each played under both hypotheses. Plan them in advance:
        stopping when the result pleases voids the confidence.
      seed: in [0, 2^32); with the recipe it determines every number of the result.
      deltas: in [0, 1); the bounds at all of them hold together.
      confidence: in (0, 1).
      devices: JAX devices to spread over, all local ones by default; the result does not depend on them.
      progress: called with the name and the trials of each stage; returns a function of the trials just done.

    Returns:
      Result.

    Raises:
      ValueError: for a value outside its range, or parts that do not fit together.
    """
    recipe = make_recipe(audit, trials=trials, seed=seed, deltas=deltas, confidence=confidence)
    return run_recipe(recipe, devices=devices, progress=progress)


def run_recipe(recipe: Recipe, *, devices=None, progress: Callable[[str, int], Progress] | None = None) -> Result:
    """`run`, from a recipe that holds the trials, seed, deltas and confidence already."""
    player = _Player(tuple(devices or jax.local_devices()), recipe.seed, progress or (lambda name, trials: _silent))
    started = time.perf_counter()
    prepared = recipe.audit.prepare(recipe.seed)
    game = prepared.game()
    prepared_s = time.perf_counter() - started

    pilot = player.scores(game, "pilot", int(np.clip(_PILOT_SHARE * recipe.trials, *_PILOT_RANGE)))
    method = "pc-cp" if game.nested else "union"
    plan = robust_pilot(pilot, recipe.trials, recipe.deltas, method, recipe.confidence)
    thresholds = np.unique(np.concatenate([plan.thresholds, roc_thresholds(pilot)]))
    began = time.perf_counter()
    counts = player.count(game, "certify", recipe.trials, thresholds)
    trials_s = time.perf_counter() - began

    noise = spectrum(prepared.truth)
    verdict = judge(noise, prepared.truth, prepared.pair, prepared.responses.structural(prepared.pair))
    off_span = _certify_off_span(player, prepared, verdict, recipe)
    timing = {
        "prepare_s": prepared_s,
        "compile_s": player.first_block_s,
        "trials_s": trials_s,
        "trials_per_s": recipe.trials / trials_s,
    }
    return Result(recipe, prepared, plan, counts, noise, verdict, off_span, timing)


def _silent(done):
    pass


def _certify_off_span(player, prepared, verdict, recipe):
    """The score that reads the part of the difference no noise reaches; its threshold needs no pilot."""
    if verdict.kind not in ("structural", "for this pool") or not prepared.linear:
        return ()
    direction = verdict.off_span / np.linalg.norm(verdict.off_span)
    game = prepared.project(LinearTest(direction, direction @ (prepared.truth.mean + prepared.pair.middle)))
    if game.nested:
        method, events = "pc-cp", tuple(Event(0.0, "forward", delta) for delta in recipe.deltas)
    else:
        method, events = "union", (Event(0.0, "forward"),)
    plan = Plan(method, events, recipe.deltas, stream="fixed in advance")
    counts = player.count(game, "off-span", recipe.trials, plan.thresholds)
    return tuple(certify(plan, counts, delta, recipe.confidence) for delta in recipe.deltas)


class _Player:
    """Plays games on the devices of one run, with its seed, and reports progress."""

    def __init__(self, devices, seed, progress):
        self.mesh = jax.make_mesh((len(devices),), ("trials",), (jax.sharding.AxisType.Auto,), devices=devices)
        self.seed, self.progress, self.first_block_s = seed, progress, 0.0

    def scores(self, game: Game, stream: str, trials: int) -> Scores:
        """All scores of a small run."""
        blocks = list(self._blocks(game, stream, trials))
        h0, h1 = (np.concatenate([block[bit] for block in blocks]) for bit in (0, 1))
        return Scores(h0, h1, f"{self.seed}/{stream}", game.nested)

    def count(self, game: Game, stream: str, trials: int, thresholds) -> Counts:
        """Errors at fixed thresholds, a block at a time."""
        total = None
        for h0, h1 in self._blocks(game, stream, trials):
            block = Scores(h0, h1, f"{self.seed}/{stream}", game.nested).count(thresholds)
            total = block if total is None else total + block
        return total

    def _blocks(self, game: Game, stream: str, trials: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        width = game.program.draws.width(game.params.pool)
        batches = self.mesh.size * max(1, _LAUNCH // width)
        step = width * batches
        advance = self.progress(stream, trials)

        def launch(first):
            starts = jnp.asarray(first + width * np.arange(batches), jnp.uint32)
            return play_block(
                game.program,
                self.mesh,
                width,
                game.params,
                jnp.uint32(self.seed),
                jnp.uint32(STREAMS[stream]),
                starts,
            )

        began = time.perf_counter()
        ahead = launch(0)
        for first in range(0, trials, step):
            # Dispatch is asynchronous: the device computes the next block while the host counts this one.
            block, ahead = ahead, launch(first + step) if first + step < trials else None
            h0, h1 = (np.asarray(scores, np.float64).reshape(-1)[: trials - first] for scores in block)
            if not self.first_block_s:
                self.first_block_s = time.perf_counter() - began
            # On the safe side of what arithmetic left open: an error that might have been one is one.
            yield h0 + game.slack, h1 - game.slack
            advance(len(h0))


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
      (h0, h1), f32[batches, width].
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
