"""From a recipe to bounds: prepare, tune and choose thresholds on pilot trials, certify on fresh ones."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from .attacks.span import Verdict, judge, not_judged
from .audit import Audit, Cell, Prepared
from .bounds import Bound, Counts, Event, Plan, Scores, certify, robust_pilot, roc_thresholds
from .config import Recipe, make_recipe
from .player import Player, Progress
from .types import LinearTest, Moments, Pool

# Enough for both tails of a fit, little beside a certifying run.
_PILOT_SHARE, _PILOT_RANGE = 0.05, (1000, 20_000)


@dataclass(frozen=True)
class Finding:
    """What was found about one cell: a pair in one cohort size.

    Attributes:
      cell: the pair, the cohort and the attack's knowledge.
      statement: the sentence that says what the bounds are about, and what they are not: printed with every one.
      deltas: for which bounds are certified together.
      confidence: that all bounds of this cell hold; with several cells their share of the run's.
      plan: what was fixed on the pilot trials.
      counts: errors on the certifying trials, at the plan's thresholds and along the whole curve.
      distance: separation of the two score laws in standard deviations, what a Gaussian model predicts with; infinite
        where the pool's noise has no variance along the score, None for a score that is not linear.
      truth: moments of the audited pool round by round, None where they would take too long; the attack does not see
        them.
      verdict: of perfect distinguishability.
      off_span: bounds of the off-span score, which a server that knows the audited pool could use; a statement of
        its own, with its own confidence. Empty where the difference lies in the span.
      population: bounds on the population that the audited clients come from, a statement of its own; empty where
        they cannot be had.
      population_statement: the sentence that says what those are about, and what they assume.
    """

    cell: Cell
    statement: str
    deltas: tuple[float, ...]
    confidence: float
    plan: Plan
    counts: Counts
    distance: float | None
    truth: tuple[Moments, ...] | None
    verdict: Verdict
    off_span: tuple[Bound, ...]
    population: tuple[Bound, ...]
    population_statement: str

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """The certified bounds at the planned deltas; they hold together."""
        return tuple(self.bound(delta) for delta in self.deltas)

    def bound(self, delta: float, confidence: float | None = None) -> Bound:
        """A certified lower bound on epsilon.

        Args:
          delta: in [0, 1); one that was not planned for takes the best bound of a larger planned one.
          confidence: in (0, 1); that of the cell by default.

        Returns:
          Bound.
        """
        return certify(self.plan, self.counts, delta, self.confidence if confidence is None else confidence)


@dataclass(frozen=True)
class Result:
    """A finished audit.

    Attributes:
      recipe: the audit, and the trials, seed, deltas and confidence it was run with.
      prepared: pools, and the cells with the setting that each was certified with.
      cells: what was found about each; all bounds of all cells hold together, and the first is the headline.
      timing: seconds spent in `prepare_s` (of it `respond_s` on data and training, `calibrate_s` on moments, pairs
        and weights, the rest on projections and tuning), `compile_s` (the first block, tracing and compiling
        included), `trials_s` and `verdict_s`, and `trials_per_s`.
    """

    recipe: Recipe
    prepared: Prepared
    cells: tuple[Finding, ...]
    timing: dict[str, float]

    @property
    def headline(self) -> Finding:
        """The first pair in the first cohort size."""
        return self.cells[0]

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """The headline's bounds."""
        return self.headline.bounds

    @property
    def statement(self) -> str:
        """The headline's sentence."""
        return self.headline.statement

    def bound(self, delta: float, confidence: float | None = None) -> Bound:
        """The headline's bound at one delta, as in `Finding.bound`."""
        return self.headline.bound(delta, confidence)


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
      confidence: in (0, 1), that all bounds of all cells hold; the cells share 1 - confidence equally.
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
    player = Player(tuple(devices or jax.local_devices()), recipe.seed, progress or (lambda name, trials: _silent))
    pilots = int(np.clip(_PILOT_SHARE * recipe.trials, *_PILOT_RANGE))
    started = time.perf_counter()
    untuned = recipe.audit.prepare(recipe.seed)
    prepared = _tuned(player, untuned, "pilot", pilots)
    game = prepared.game()
    prepared_s = time.perf_counter() - started

    confidence = 1 - (1 - recipe.confidence) / len(prepared.cells)
    pilot = player.scores(game, "pilot", pilots)
    plans = [_plan(scores, recipe.trials, recipe.deltas, confidence) for scores in pilot]
    thresholds = [np.unique([*plan.thresholds, *roc_thresholds(scores)]) for plan, scores in zip(plans, pilot)]
    began = time.perf_counter()
    counts = player.count(game, "certify", recipe.trials, thresholds)
    trials_s = time.perf_counter() - began

    began = time.perf_counter()
    truths = _truths(prepared)
    verdicts = [_verdict(prepared, cell, truths[cell.clients]) for cell in prepared.cells]
    judged_s = time.perf_counter() - began
    shared = replace(recipe, confidence=confidence)
    off_span = _certify_off_span(player, prepared, truths, verdicts, shared)
    population = _certify_population(player, untuned, pilots, shared)
    cells = [
        Finding(
            cell=cell,
            statement=prepared.statement(cell),
            deltas=recipe.deltas,
            confidence=confidence,
            plan=plans[number],
            counts=counts[number],
            distance=None if np.isnan(game.distance[number]) else float(game.distance[number]),
            truth=truths[cell.clients],
            verdict=verdicts[number],
            off_span=off_span[number],
            population=population[number],
            population_statement=prepared.population_statement(cell),
        )
        for number, cell in enumerate(prepared.cells)
    ]
    timing = {
        "prepare_s": prepared_s,
        **prepared.timing,
        "compile_s": player.first_block_s,
        "trials_s": trials_s,
        "verdict_s": judged_s,
        "trials_per_s": recipe.trials / trials_s,
    }
    return Result(recipe, prepared, tuple(cells), timing)


def _silent(done):
    pass


def _plan(pilot: Scores, trials, deltas, confidence):
    return robust_pilot(pilot, trials, deltas, "pc-cp" if pilot.nested else "union", confidence)


def _tuned(player: Player, prepared: Prepared, stream: str, pilots: int, pool: Pool | None = None) -> Prepared:
    """Every cell with the setting whose scores are farthest apart on pilot trials, in their standard deviations."""
    if all(len(cell.options) == 1 for cell in prepared.cells):
        return prepared
    every = prepared.settings()
    scores = iter(player.scores(every.project(pool=pool) if pool else every.game(), stream, pilots))
    cells = []
    for cell in prepared.cells:
        apart = {setting: _separation(next(scores)) for setting in cell.options}
        cells.append(replace(cell, setting=max(apart, key=apart.get)))
    return replace(prepared, cells=tuple(cells))


def _separation(scores: Scores) -> float:
    shift, spread = scores.h1.mean() - scores.h0.mean(), np.sqrt((scores.h0.var() + scores.h1.var()) / 2)
    return shift / spread if spread > 0 else np.copysign(np.inf, shift) if shift else 0.0


def _truths(prepared: Prepared) -> dict[int, Any]:
    """Moments of the audited pool for every cohort size, where they can be had in half a minute."""
    pool = prepared.responses.certify
    sizes = {cell.clients for cell in prepared.cells}
    return {size: pool.moments(size - 1) if pool.affordable(size - 1) else None for size in sizes}


def _verdict(prepared: Prepared, cell: Cell, truth) -> Verdict:
    structural = prepared.responses.structural(cell.pair)
    return not_judged(cell.pair) if truth is None else judge(truth, cell.pair, structural)


def _certify_off_span(player, prepared, truths, verdicts, recipe) -> list[tuple[Bound, ...]]:
    """The scores that read the part of the difference no noise reaches; their thresholds need no pilot."""
    found: list[tuple[Bound, ...]] = [()] * len(verdicts)
    seen = [n for n, verdict in enumerate(verdicts) if verdict.kind in ("structural", "for this pool")]
    if not seen or not prepared.linear:
        return found
    tests = []
    for cell, verdict in ((prepared.cells[n], verdicts[n]) for n in seen):
        direction = verdict.off_span / np.linalg.norm(verdict.off_span)
        means = np.stack([one.mean for one in truths[cell.clients]])
        tests.append(LinearTest(direction, np.einsum("rd,rd->r", direction, means + cell.pair.middle)))
    game = replace(prepared, cells=tuple(prepared.cells[n] for n in seen)).project(tests)
    plans = []
    for nested in game.nested:
        if nested:
            method, events = "pc-cp", tuple(Event(0.0, "forward", delta) for delta in recipe.deltas)
        else:
            method, events = "union", (Event(0.0, "forward"),)
        plans.append(Plan(method, events, recipe.deltas, stream="fixed in advance"))
    counts = player.count(game, "off-span", recipe.trials, [plan.thresholds for plan in plans])
    for n, plan, counted in zip(seen, plans, counts):
        found[n] = tuple(certify(plan, counted, delta, recipe.confidence) for delta in recipe.deltas)
    return found


def _certify_population(player, prepared, pilots, recipe) -> list[tuple[Bound, ...]]:
    """Cohorts of audited clients that share no client, as the only trials of the population's mechanism.

    Everything else comes from the fit pool: weights, settings and thresholds. A server that knows the audited pool
    has no such row, because its weights were fitted on these very clients.
    """
    nothing: list[tuple[Bound, ...]] = [()] * len(prepared.cells)
    if not prepared.responses.fresh or not prepared.linear or prepared.audit.server_knows != "fit_pool":
        return nothing
    fit = prepared.responses.fit
    tuned = _tuned(player, prepared, "fit", pilots, fit)
    columns, learned, audited = tuned.columns(), tuned.project(pool=fit), tuned.project()
    pilot, found = player.scores(learned, "fit", pilots), []
    for number, (column, sums) in enumerate(zip(columns, prepared.responses.certify.disjoint(columns))):
        if not len(sums):
            found.append(())
            continue
        slack, nested = audited.slack[number], bool(learned.nested[number] and audited.nested[number])
        h0, h1 = (sums + np.vdot(column.test.weights, end) - column.test.offset.sum() for end in column.pair.both)
        plan = _plan(replace(pilot[number], nested=nested), len(sums), recipe.deltas, recipe.confidence)
        counts = Scores(h0 + slack, h1 - slack, "disjoint cohorts", nested).count(plan.thresholds)
        found.append(tuple(certify(plan, counts, delta, recipe.confidence) for delta in recipe.deltas))
    return found
