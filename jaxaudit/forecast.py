"""What a recipe is expected to certify and to cost, before any certifying trial is played."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

from .audit import Prepared
from .bounds import best_method, ceiling, gaussian_epsilon, histogram_edges, roc_thresholds
from .bounds.planning import expected_epsilon, leading_significance, trials_needed
from .config import MAX_TRIALS, MIN_TRIALS, Recipe, to_mapping
from .game import Game
from .player import Player, Progress
from .tuning import pilot_trials, tuned
from .types import Range

# Seconds of play that a speed is taken from, and the trials to begin with.
_TIMED_S, _FIRST = 1.0, 1024


@dataclass(frozen=True)
class Ready:
    """A recipe that could be run.

    Attributes:
      recipe: with its plan.
      prepared: pools and cells, with the settings that a run would choose.
      game: what is played.
      thresholds: of each cell, f64[k]: about as many as a run counts at.
      prepare_s: seconds that this took; a run needs them, too.
    """

    recipe: Recipe
    prepared: Prepared
    game: Game
    thresholds: tuple[np.ndarray, ...]
    prepare_s: float


class Expected(NamedTuple):
    """A number of trials and what it is expected to show.

    Attributes:
      cell: name.
      predicted: epsilon of a Gaussian model.
      tightness: expected part of it.
      planned: these are the recipe's own trials.
      trials: certifying trials; None where more would be needed than can be had, and so is the rest.
      epsilon: expected certified bound.
      ceiling: the most that these trials could certify.
    """

    cell: str
    predicted: float
    tightness: float
    planned: bool
    trials: int | None
    epsilon: float | None
    ceiling: float | None


def prepare(recipe: Recipe, progress: Callable[[str, int], Progress]) -> Ready:
    """Everything that a run does before its certifying trials.

    Args:
      recipe: the audit and its plan.
      progress: called with the name and the trials of each stage; returns a function of the trials just done.

    Returns:
      Ready.
    """
    began = time.perf_counter()
    player = Player(tuple(jax.local_devices()), recipe.seed, progress)
    prepared = tuned(player, recipe.audit.prepare(recipe.seed), "pilot", pilot_trials(recipe.trials))
    game = prepared.game()
    pilot = player.scores(game, "pilot", pilot_trials(MIN_TRIALS))
    thresholds = tuple(np.union1d(roc_thresholds(scores), histogram_edges(scores)) for scores in pilot)
    return Ready(recipe, prepared, game, thresholds, time.perf_counter() - began)


def words(ready: Ready, name: str | None = None) -> str:
    """What is audited, as the title of its run says it: attack, population, and the pair where there is one cell."""
    asked = to_mapping(ready.recipe)
    cells = [cell for cell in ready.prepared.cells if name in (None, cell.name)]
    pair = f", pair {cells[0].pair.name}" if len(cells) == 1 and cells[0].pair.name else ""
    return f"{asked['attack']['kind']} on {asked['population']['kind']} updates{pair}"


def trials_per_second(ready: Ready) -> float:
    """Speed of counting on this machine, from about a second of pilot trials after everything is compiled."""
    player = Player(tuple(jax.local_devices()), ready.recipe.seed, lambda name, trials: lambda done: None)

    def seconds(trials):
        began = time.perf_counter()
        labelled = ready.recipe.design == "labelled"
        player.count(ready.game, "pilot", Range(0, trials), ready.thresholds, labelled)
        return time.perf_counter() - began

    trials = _FIRST
    seconds(trials)
    while (took := seconds(trials)) < _TIMED_S:
        trials *= 2
    return trials / took


def expect(ready: Ready, delta: float, tightness: Sequence[float], name: str | None = None) -> list[Expected]:
    """What a run of every cell needs and shows, if its scores are Gaussian.

    Args:
      ready: from `prepare`.
      delta: in (0, 1).
      tightness: wanted parts of the predicted epsilon, in (0, 1).
      name: of one cell; all by default.

    Returns:
      list of Expected: for every cell one for each tightness, and then that of the recipe's own trials.

    Raises:
      ValueError: in one line, where a Gaussian model predicts no finite epsilon above 0.
    """
    names = [cell.name for cell in ready.prepared.cells]
    if name is not None and name not in names:
        raise ValueError(f"cell is {name!r}, allowed are {', '.join(names)}")
    return [row for cell in names if name in (None, cell) for row in _of_cell(ready, cell, delta, tightness)]


def _of_cell(ready, cell, delta, tightness):
    names = [cell.name for cell in ready.prepared.cells]
    number, labelled = names.index(cell), ready.recipe.design == "labelled"
    method = best_method(ready.game.design(number, labelled))
    significance = leading_significance(ready.recipe.confidence, len(names))
    distance = float(ready.game.distance[number])
    predicted = _predicted(cell, distance, delta)

    def shown(trials):
        each = trials // 2 if labelled else trials
        epsilon = expected_epsilon(distance, each, delta, method, significance)
        return trials, epsilon, ceiling(each, delta, significance, method)

    for part in tightness:
        each = trials_needed(distance, delta, 1 - part, method, significance)
        trials = max(_rounded_up(2 * each if labelled else each), MIN_TRIALS) if each else MAX_TRIALS + 1
        found = shown(trials) if trials <= MAX_TRIALS else (None, None, None)
        yield Expected(cell, predicted, part, False, *found)
    planned = shown(ready.recipe.trials)
    yield Expected(cell, predicted, planned[1] / predicted, True, *planned)


def _predicted(name: str, distance: float, delta: float) -> float:
    if math.isnan(distance):
        raise ValueError(
            f"the score of {name} is no sum of one number for each update, so no theory predicts it; `jaxaudit run` "
            "with few trials shows what to expect"
        )
    if math.isinf(distance):
        raise ValueError(
            f"the noise does not reach the score of {name}: no finite epsilon is predicted, and every bound will be "
            "at the ceiling of its trials"
        )
    predicted = gaussian_epsilon(delta, distance)
    if predicted == 0:
        raise ValueError(f"{name} is predicted to have epsilon 0 at --delta {delta:g}; plan for a smaller delta")
    return predicted


def _rounded_up(trials: int) -> int:
    """To two digits."""
    unit = 10 ** max(len(str(trials)) - 2, 0)
    return -(-trials // unit) * unit
