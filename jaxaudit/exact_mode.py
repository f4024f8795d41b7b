"""An audit without sampling error: the law of a linear score of independent draws, computed instead of simulated.

Both error rates are certain at every threshold, so the best threshold may be searched for, and nothing is spent. What
is certain are the error rates of this attack on this pool; another attack may do better, so a bound is a lower bound.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np

from .audit import Cell, Prepared
from .bounds import Tradeoff, exact_curve
from .config import Recipe
from .player import Player, Progress
from .tuning import pilot_trials, tuned
from .types import Moments
from .verdicts import Verdict, truths, verdict


@dataclass(frozen=True)
class ExactFinding:
    """What was computed about one cell.

    Attributes:
      cell: the pair, the cohort and the attack's knowledge.
      statement: the sentence that says what the bounds are about, and what they are not.
      thresholds: f64[k], increasing.
      curve: certain limits of both error rates at each.
      distance: separation of the two score laws in standard deviations.
      truth: moments of the audited pool, None where they would take too long.
      verdict: of perfect distinguishability.
    """

    cell: Cell
    statement: str
    thresholds: np.ndarray
    curve: Tradeoff
    distance: float
    truth: tuple[Moments, ...] | None
    verdict: Verdict


@dataclass(frozen=True)
class ExactResult:
    """A finished audit.

    Attributes:
      recipe: the audit; of its plan only the deltas matter, and the trials that chose the attack's settings.
      prepared: pools, and the cells.
      cells: what was computed about each; the first is the headline.
      timing: seconds spent in `prepare_s`, `law_s` and `verdict_s`.
    """

    recipe: Recipe
    prepared: Prepared
    cells: tuple[ExactFinding, ...]
    timing: dict[str, float]


def run_exact(recipe: Recipe, *, progress: Callable[[str, int], Progress]) -> ExactResult:
    """Compute both error rates of every cell.

    Args:
      recipe: an audit whose score is linear and whose draws are independent.
      progress: called with the name and the length of each stage; returns a function of what was just done.

    Returns:
      ExactResult.

    Raises:
      ValueError: with the reason, where there is no such law.
    """
    began = time.perf_counter()
    prepared = recipe.audit.prepare(recipe.seed)
    if prepared.chain is not None and not prepared.linear:
        raise ValueError(
            "the exact law needs recorded updates, and stages that always make the same of them: leave --exact out, "
            "or take the other stages out"
        )
    if not prepared.linear:
        raise ValueError(
            f"the exact law needs a score that is linear in the updates; attack {recipe.audit.attack.kind!r} on "
            f"aggregator {recipe.audit.aggregator.kind!r} is not: leave --exact out"
        )
    certify = prepared.responses.certify
    player = Player(tuple(jax.local_devices()), recipe.seed, progress)
    prepared = tuned(player, prepared, "pilot", pilot_trials(recipe.trials))
    columns, distance = prepared.columns(), prepared.project().distance
    prepared_at = time.perf_counter()
    advance, found = progress("law", len(columns)), []
    for cell, column, (terms, error), apart in zip(prepared.cells, columns, certify.terms(columns), distance):
        ends = [np.vdot(column.test.weights, end) - column.test.offset.sum() for end in prepared.seen(cell.pair).both]
        found.append((cell, *exact_curve(terms, ends, error), float(apart)))
        advance(1)
    computed_at = time.perf_counter()
    moments = truths(prepared)
    cells = tuple(
        ExactFinding(
            cell=cell,
            statement=prepared.statement(cell),
            thresholds=thresholds,
            curve=curve,
            distance=apart,
            truth=moments[cell.clients],
            verdict=verdict(prepared, cell, moments[cell.clients]),
        )
        for cell, thresholds, curve, apart in found
    )
    timing = {
        "prepare_s": prepared_at - began,
        **prepared.timing,
        "law_s": computed_at - prepared_at,
        "verdict_s": time.perf_counter() - computed_at,
    }
    return ExactResult(recipe, prepared, cells, timing)
