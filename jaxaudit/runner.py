"""From a recipe to bounds: prepare, tune and choose thresholds on pilot trials, certify on fresh ones."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from . import config
from .audit import Audit
from .bounds import Counts, Event, Plan, Scores, best_method, best_plan, histogram_edges, roc_thresholds
from .cache import code_sha256
from .checkpoint import Checkpoint
from .claimed import claim
from .config import Recipe, make_recipe
from .findings import Finding, Result
from .game import Game
from .hosts import ALONE, Hosts
from .player import Player, Progress
from .population_row import certify_population
from .recovery import recover
from .tuning import pilot_trials, tuned
from .types import Range
from .verdicts import off_span_test, truths, verdict


def run(
    audit: Audit,
    *,
    trials: int = 1_000_000,
    seed: int = 0,
    deltas: Sequence[float] = (1e-2, 1e-3, 1e-4, 1e-5),
    confidence: float = 0.95,
    design: str = "paired",
    devices=None,
    progress: Callable[[str, int], Progress] | None = None,
) -> Result:
    """Audit: prepare, choose thresholds on pilot trials, certify on fresh ones.

    Args:
      audit: the recipe of the game.
      trials: certifying trials, 1,000 to 1e13. Plan them in advance: stopping when the result pleases voids the
        confidence.
      seed: in [0, 2^32); with the recipe it determines every number of the result.
      deltas: in [0, 1); the bounds at all of them hold together.
      confidence: in (0, 1), that all bounds of all cells hold; the cells share 1 - confidence equally.
      design: "paired" (each trial is played under both hypotheses) or "labelled" (under one, by a fair coin).
      devices: JAX devices to spread over, all local ones by default; the result does not depend on them.
      progress: called with the name and the trials of each stage; returns a function of the trials just done.

    Returns:
      Result.

    Raises:
      ValueError: for a value outside its range, or parts that do not fit together.
    """
    recipe = make_recipe(audit, trials=trials, seed=seed, deltas=deltas, confidence=confidence, design=design)
    return run_recipe(recipe, devices=devices, progress=progress)


def run_recipe(
    recipe: Recipe,
    *,
    part: Range | None = None,
    keep: Path | None = None,
    hosts: Hosts = ALONE,
    devices=None,
    progress: Callable[[str, int], Progress] | None = None,
) -> Result:
    """`run`, from a recipe that holds the plan already.

    Args:
      recipe: the audit and its plan.
      part: the certifying trials to play, all by default; parts from elsewhere are merged before they certify.
      keep: folder for what a killed run goes on from; None keeps nothing.
      hosts: the processes that share the trials.
      devices: JAX devices to spread over, all local ones by default.
      progress: as for `run`.

    Returns:
      Result.
    """
    player = Player(tuple(devices or jax.local_devices()), recipe.seed, progress or (lambda name, trials: _silent))
    part = part or Range(0, recipe.trials)
    count = _Counting(player, recipe, part, keep, hosts)
    pilots = pilot_trials(recipe.trials)
    started = time.perf_counter()
    untuned = recipe.audit.prepare(recipe.seed)
    prepared = tuned(player, untuned, "pilot", pilots)
    game = prepared.game()
    prepared_s = time.perf_counter() - started

    confidence = 1 - (1 - recipe.confidence) / len(prepared.cells)
    began = time.perf_counter()
    recovered = recover(prepared, recipe.seed, player.progress)
    recovery_s = time.perf_counter() - began
    pilot = player.scores(game, "pilot", pilots)
    plans = [_plan(scores, recipe, confidence) for scores in pilot]
    curves = [np.unique([*plan.thresholds, *roc_thresholds(scores)]) for plan, scores in zip(plans, pilot)]
    edges = [histogram_edges(scores) for scores in pilot]
    began = time.perf_counter()
    counts = count(game, "certify", [np.union1d(*both) for both in zip(curves, edges)])
    trials_s, played = time.perf_counter() - began, player.played

    began = time.perf_counter()
    moments = truths(prepared)
    verdicts = [verdict(prepared, cell, moments[cell.clients]) for cell in prepared.cells]
    judged_s = time.perf_counter() - began
    off_span = _count_off_span(count, prepared, moments, verdicts)
    population = certify_population(player, untuned, recipe, confidence)
    cells = [
        Finding(
            cell=cell,
            statement=prepared.statement(cell),
            deltas=recipe.deltas,
            whole=part == Range(0, recipe.trials),
            confidence=confidence,
            plan=plans[number],
            counts=counts[number].only(curves[number]),
            histogram=counts[number].only(edges[number]),
            distance=None if np.isnan(game.distance[number]) else float(game.distance[number]),
            truth=moments[cell.clients],
            verdict=verdicts[number],
            off_span=off_span[number],
            population=population[number],
            population_statement=prepared.population_statement(cell),
            claim=claim(prepared, cell, recipe.deltas),
        )
        for number, cell in enumerate(prepared.cells)
    ]
    timing = {
        "prepare_s": prepared_s,
        **prepared.timing,
        "compile_s": player.first_block_s,
        "trials_s": trials_s,
        "verdict_s": judged_s,
        "trials_per_s": played / trials_s,
    }
    if recovered:
        timing["recovery_s"] = recovery_s
    fingerprint = hashlib.sha256("".join(count.fingerprints.values()).encode()).hexdigest()
    return Result(recipe, prepared, part, tuple(cells), fingerprint, timing, recovered)


def _silent(done):
    pass


class _Counting:
    """Counts the errors of a game on this run's trials: shared among hosts, kept on the way."""

    def __init__(self, player: Player, recipe: Recipe, part: Range, keep: Path | None, hosts: Hosts):
        self.player, self.recipe, self.part, self.keep, self.hosts = player, recipe, part, keep, hosts
        self.fingerprints: dict[str, str] = {}

    def __call__(self, game: Game, stream: str, thresholds: Sequence[np.ndarray]) -> list[Counts]:
        fingerprint = self.fingerprints[stream] = _fingerprint(self.recipe, game, thresholds)
        self.hosts.agree(
            fingerprint,
            f"prepared different {stream} trials; run them on machines of one kind, with the same versions and data",
        )
        own = self.hosts.share(self.part)
        with Checkpoint(self.keep, fingerprint).of(stream, own) as (begun, keep):
            labelled = self.recipe.design == "labelled"
            counts = self.player.count(game, stream, own, thresholds, labelled, begun, keep)
        return self.hosts.add(counts)


def _fingerprint(recipe: Recipe, game: Game, thresholds: Sequence[np.ndarray]) -> str:
    """Names everything that decides counts: the plan, the code, the arrays of the game, and the thresholds."""
    digest = hashlib.sha256(json.dumps([config.to_mapping(recipe), code_sha256()], sort_keys=True).encode())
    for array in (*jax.tree.leaves(game.params), game.order, game.scale, game.slack, game.nested, *thresholds):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _plan(pilot: Scores, recipe: Recipe, confidence: float) -> Plan:
    trials = recipe.trials
    if recipe.design == "labelled":
        trials, pilot = trials // 2, replace(pilot, design="labelled")
    return best_plan(pilot, trials, recipe.deltas, confidence)


def _count_off_span(count: _Counting, prepared, moments, verdicts) -> list[tuple[Plan, Counts] | None]:
    """The scores that read the part of the difference no noise reaches; their thresholds need no pilot."""
    found: list[tuple[Plan, Counts] | None] = [None] * len(verdicts)
    seen = [n for n, verdict in enumerate(verdicts) if verdict.kind in ("structural", "for this pool")]
    if not seen or not prepared.linear:
        return found
    cells = tuple(prepared.cells[n] for n in seen)
    tests = [
        off_span_test(prepared.seen(cell.pair), verdicts[n], moments[cell.clients]) for n, cell in zip(seen, cells)
    ]
    game = replace(prepared, cells=cells).project(tests)
    plans, deltas = [], count.recipe.deltas
    for number in range(len(cells)):
        method = best_method(game.design(number, count.recipe.design == "labelled"))
        events = (Event(0.0, "forward"),)
        if method != "union":
            events = tuple(Event(0.0, "forward", delta) for delta in deltas)
        plans.append(Plan(method, events, deltas, stream="fixed in advance"))
    counts = count(game, "off-span", [plan.thresholds for plan in plans])
    for n, *evidence in zip(seen, plans, counts):
        found[n] = tuple(evidence)
    return found
