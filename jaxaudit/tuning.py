"""Settings of an attack, chosen on pilot trials."""

from dataclasses import replace

import numpy as np

from .audit import Prepared
from .bounds import Scores
from .player import Player
from .protocols import Pool

# Enough for both tails of a fit, little beside a certifying run.
_PILOT_SHARE, _PILOT_RANGE = 0.05, (1000, 20_000)


def pilot_trials(trials: int) -> int:
    """Pilot trials for so many certifying ones."""
    return int(np.clip(_PILOT_SHARE * trials, *_PILOT_RANGE))


def tuned(player: Player, prepared: Prepared, stream: str, pilots: int, pool: Pool | None = None) -> Prepared:
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
