"""What an audit found: the evidence about every cell, and the bounds that follow from it."""

from dataclasses import dataclass

from .attacks.span import Verdict
from .audit import Cell, Prepared
from .bounds import Bound, Counts, Plan, epsilon_at
from .claimed import Claim
from .config import Recipe
from .recovery import Recovery
from .types import Moments, Range


@dataclass(frozen=True)
class Finding:
    """What was found about one cell: a pair in one cohort size.

    Attributes:
      cell: the pair, the cohort and the attack's knowledge.
      statement: the sentence that says what the bounds are about, and what they are not: printed with every one.
      deltas: for which bounds are certified together.
      whole: all planned trials were played; a part has no bounds before it is merged with the rest.
      confidence: that all bounds of this cell hold; with several cells their share of the run's.
      plan: what was fixed on the pilot trials.
      counts: errors on the certifying trials, at the plan's thresholds and along the whole curve.
      histogram: the same trials at equally spaced thresholds.
      distance: separation of the two score laws in standard deviations, what a Gaussian model predicts with; infinite
        where the pool's noise has no variance along the score, None for a score that is not linear.
      truth: moments of the audited pool round by round, None where they would take too long; the attack does not see
        them.
      verdict: of perfect distinguishability.
      off_span: plan and counts of the off-span score, which a server that knows the audited pool could use; a
        statement of its own, with its own confidence. None where the difference lies in the span.
      population: bounds on the population that the audited clients come from, a statement of its own; empty where
        they cannot be had.
      population_statement: the sentence that says what those are about, and what they assume.
      claim: what is proved of the mechanism, the upper bound; None where no noise is added by design.
    """

    cell: Cell
    statement: str
    deltas: tuple[float, ...]
    whole: bool
    confidence: float
    plan: Plan
    counts: Counts
    histogram: Counts
    distance: float | None
    truth: tuple[Moments, ...] | None
    verdict: Verdict
    off_span: tuple[Plan, Counts] | None
    population: tuple[Bound, ...]
    population_statement: str
    claim: Claim | None = None

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """The certified bounds at the planned deltas; they hold together."""
        return tuple(self.bound(delta) for delta in self.deltas)

    @property
    def off_span_bounds(self) -> tuple[Bound, ...]:
        """Those of the off-span score, a statement of its own; empty where there is none, and for a part of a run."""
        if not (self.off_span and self.whole):
            return ()
        return tuple(epsilon_at(*self.off_span, delta, self.confidence) for delta in self.deltas)

    def bound(self, delta: float, confidence: float | None = None) -> Bound:
        """A certified lower bound on epsilon.

        Args:
          delta: in [0, 1); one that was not planned for takes the best bound of a larger planned one.
          confidence: in (0, 1); that of the cell by default.

        Returns:
          Bound.

        Raises:
          ValueError: for a part of the planned trials.
        """
        if not self.whole:
            raise ValueError("a part of a run certifies nothing; merge it with the other parts")
        return epsilon_at(self.plan, self.counts, delta, self.confidence if confidence is None else confidence)


@dataclass(frozen=True)
class Result:
    """A finished audit.

    Attributes:
      recipe: the audit, and the trials, seed, deltas and confidence it was run with.
      prepared: pools, and the cells with the setting that each was certified with.
      part: the certifying trials that were played: a bound needs all of them.
      cells: what was found about each; all bounds of all cells hold together, and the first is the headline.
      fingerprint: of everything that decides the counts; parts of one run have the same.
      timing: seconds spent in `prepare_s` (of it `respond_s` on data and training, `calibrate_s` on moments, pairs
        and weights, the rest on projections and tuning), `compile_s` (the first block, tracing and compiling
        included), `trials_s` and `verdict_s`, and `trials_per_s`; `recovery_s` where something was recovered.
      recovery: what the attack reconstructed, beside the truth; None for one that only decides.
    """

    recipe: Recipe
    prepared: Prepared
    part: Range
    cells: tuple[Finding, ...]
    fingerprint: str
    timing: dict[str, float]
    recovery: Recovery | None = None

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
