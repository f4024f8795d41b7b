"""What is kept of a finished audit: its cells, with their counts and curves, and what is told of the whole."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from .bounds import Counts, Plan, Tradeoff, declared, exact_epsilon, privacy_curve, tradeoff
from .types import Range

# Stands for an infinite epsilon, which JSON has no number for; finite ones are below log 1e300 = 691.
UNBOUNDED = 700.0


@dataclass(frozen=True)
class Cell:
    """What is kept of one cell: a pair in one cohort size.

    Attributes:
      summary: its part of summary.json.
      plan: what its bounds were planned as.
      counts: errors at the plan's thresholds and along the whole curve.
      histogram: the same trials at equally spaced thresholds.
      off_span: plan and counts of the off-span score, None where there is none.
      spectrum: arrays of the noise spectrum, for its figure; empty where it was not looked at.
    """

    summary: dict[str, Any]
    plan: Plan
    counts: Counts
    histogram: Counts
    off_span: tuple[Plan, Counts] | None
    spectrum: dict[str, np.ndarray]

    @property
    def trials(self) -> int:
        """Trials under the hypothesis that has fewer."""
        return min(self.counts.trials_h0, self.counts.trials_h1)

    def tradeoff(self) -> Tradeoff:
        """Both error rates along the curve, with limits that hold at once."""
        return tradeoff(self.counts, self.summary["confidence"])

    def privacy(self, deltas: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Certified epsilon at every delta at once, and the most that the trials could certify."""
        everywhere = declared(self.counts.thresholds, deltas, "band")
        curve = privacy_curve(everywhere, self.counts, deltas, self.summary["confidence"])
        return np.array([bound.epsilon for bound in curve]), np.array([bound.ceiling for bound in curve])


@dataclass(frozen=True)
class ExactCell:
    """What is kept of one cell whose law was computed.

    Attributes:
      summary: its part of summary.json.
      thresholds: f64[k], increasing.
      curve: certain limits of both error rates at each.
      spectrum: arrays of the noise spectrum.
    """

    summary: dict[str, Any]
    thresholds: np.ndarray
    curve: Tradeoff
    spectrum: dict[str, np.ndarray]
    trials: ClassVar[None] = None

    def tradeoff(self) -> Tradeoff:
        """Both error rates, with limits that are certain."""
        return self.curve

    def privacy(self, deltas: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Certain epsilon at every delta, NaN where it is infinite; there is no ceiling."""
        found = np.array([exact_epsilon(self.curve, delta)[0] for delta in deltas])
        return np.where(np.isfinite(found), found, np.nan), None


@dataclass(frozen=True)
class Run:
    """What a run folder holds.

    Attributes:
      recipe: the recipe as TOML.
      summary: the content of summary.json but for its cells.
      cells: all cells; the first is the headline, whose figures stand at the top of the summary, too.
      recovery: one round of an attack on private content: `truth` and what it `found`, i64[clients, classes], a truth
        of -1 where a client dropped out, and perhaps `names` of the classes; empty where an attack recovers nothing.
    """

    recipe: str
    summary: dict[str, Any]
    cells: tuple[Cell, ...] | tuple[ExactCell, ...]
    recovery: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def headline(self) -> Cell | ExactCell:
        """The first cell."""
        return self.cells[0]

    @property
    def exact(self) -> bool:
        """Error rates were computed, not sampled."""
        return isinstance(self.headline, ExactCell)

    @property
    def part(self) -> Range:
        """The certifying trials that were played."""
        return Range(*self.summary["range"])

    @property
    def whole(self) -> bool:
        """All planned trials were played, or none are needed."""
        return self.exact or self.part == Range(0, self.summary["trials"])

    def cell(self, name: str) -> Cell | ExactCell:
        """One cell by its name.

        Raises:
          ValueError: where there is none of that name.
        """
        names = [cell.summary["name"] for cell in self.cells]
        if name not in names:
            raise ValueError(f"cell is {name!r}, allowed are {', '.join(names)}")
        return self.cells[names.index(name)]
