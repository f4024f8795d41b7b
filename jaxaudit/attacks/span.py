"""Perfect distinguishability: does the candidates' difference leave the span of the noise?

Where it does, no noise can hide it, and a bound that sits on its ceiling is not a measurement but a symptom. The test
looks at the raw centred channel, never at a regularised covariance, with a tolerance relative to its largest
direction, so the verdict does not depend on the scale of the updates.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from ..types import Moments, Pair

Kind = Literal["structural", "for this pool", "undetermined", "in span"]

# Recorded updates are float32: their rounding spreads about 1e-7 of the largest standard deviation into directions
# that have none, and as much of an update's length into the difference of two. Ten times that is called zero.
_DIRECTION_TOLERANCE = 1e-6
_RESIDUAL_TOLERANCE = 1e-5
# "Perfectly" is said of shifts of at least so many standard deviations of whatever noise is left along them.
_CLEAR = 30.0

_WORDS = {
    "structural": "Perfectly distinguishable, proved from the mechanism: {why}.",
    "for this pool": "Perfectly distinguishable for this pool: {share:.2g} of the candidates' difference lies off "
    "the span of all {samples:,} recorded updates (rank {rank} of {dim}). This says nothing about new clients.",
    "undetermined": "Undetermined: {share:.2g} of the candidates' difference lies off the span of the recorded "
    "updates, but these {samples:,} recordings are too few to show the span of the noise in {dim} dimensions (rank "
    "{rank}).",
    "in span": "Not perfectly distinguishable by linear algebra: the candidates' difference lies in the span of the "
    "noise (rank {rank} of {dim}).",
}

_STRENGTH = list(_WORDS)
_NOT_JUDGED = (
    "Undetermined: whether linear algebra alone tells the candidates apart was not looked at, because {why}."
)


class Verdict(NamedTuple):
    """Whether the noise can hide the pair at all.

    Attributes:
      kind: "structural" (proved from the mechanism), "for this pool", "undetermined" (too few recordings, or too many
        to look at), or "in span".
      words: the same as a sentence.
      rank: directions in which the noise varies; 0 where it was not looked at.
      off_span: f64[rounds, dim], the part of the difference that the noise cannot reach; zero where there is none.
    """

    kind: Kind
    words: str
    rank: int
    off_span: np.ndarray


def judge(moments: Sequence[Moments], pair: Pair, structural: str | None = None) -> Verdict:
    """One of the verdicts of perfect distinguishability: of the audited rounds, the one that says most.

    Args:
      moments: of the certify pool, exact, round by round; the raw covariance, never a regularised one.
      pair: the candidates.
      structural: a proof in words that no noise can hide their difference, if the population has one.

    Returns:
      Verdict.
    """
    verdicts = [_of_round(one, pair, at, structural) for at, one in enumerate(moments)]
    return min(verdicts, key=lambda verdict: _STRENGTH.index(verdict.kind))


def not_judged(pair: Pair, why: str = "the recorded updates are too many and too large") -> Verdict:
    """For pools that are too large to look at, and for channels that are more than a sum."""
    return Verdict("undetermined", _NOT_JUDGED.format(why=why), 0, np.zeros(pair.h0.shape))


def _of_round(moments, pair, at, structural) -> Verdict:
    noise, difference = moments.covariance, pair.difference[at]
    spread = np.sqrt(np.maximum(noise.variances, 0))
    # A known law has the variances that it says; recorded float32 updates show rounding as variance.
    kept = spread > (_DIRECTION_TOLERANCE * spread[0] if moments.samples and len(spread) else 0.0)
    rank = noise.dim if noise.floor else int(kept.sum())
    residual = noise.residual(difference, rank)
    length = max(np.linalg.norm(difference), np.finfo(float).tiny)
    share = float(np.linalg.norm(residual) / length)
    hidden = np.sqrt(max(noise.quadratic(residual), 0.0)) * _CLEAR > residual @ residual
    # The difference of two nearly equal float32 updates carries their rounding, which is not its own size.
    rounding = 1e-6 * (np.linalg.norm(pair.h0[at]) + np.linalg.norm(pair.h1[at])) / length
    if share <= max(_RESIDUAL_TOLERANCE, rounding) or hidden:
        kind: Kind = "in span"
        residual = np.zeros_like(residual)
    elif structural:
        kind = "structural"
    elif moments.samples and moments.freedom < noise.dim:
        kind = "undetermined"
    else:
        kind = "for this pool"
    words = _WORDS[kind].format(why=structural, share=share, samples=moments.samples, rank=rank, dim=noise.dim)
    off_span = np.zeros(pair.h0.shape)
    off_span[at] = residual
    return Verdict(kind, words, rank, off_span)
