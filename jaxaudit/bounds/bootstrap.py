"""How much a statistic of scores would vary from sample to sample: bootstrap quantiles.

They describe the estimate. They are no confidence limits for the true epsilon: the scores of a finite sample say
nothing about the events that it did not reach, and resampling cannot add them.

Why not `scipy.stats.bootstrap`: its bias correction always comes with an acceleration, which evaluates the statistic
once for every score, and it knows two-sided intervals only. The draws here are those of `jax_privacy.auditing`.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy.special import ndtr, ndtri

from .samples import Scores


def bootstrap(
    scores: Scores,
    statistic: Callable[[Scores], float],
    samples: int = 1000,
    quantiles=(0.025, 0.975),
    seed: int | None = None,
    bias_correction: bool = True,
    acceleration: bool = False,
) -> np.ndarray:
    """Quantiles of a statistic under resampling of the trials: percentile, bias-corrected (BC) or BCa.

    Trials of the designs "paired" and "nested" are resampled jointly: h0[i] and h1[i] stay together. All others are
    resampled apart, and so are pairs of which some failed.

    Args:
      scores: of both hypotheses; trials that failed are resampled, too.
      statistic: function of Scores, finite; it sees `samples` resamples.
      samples: number of resamples, positive.
      quantiles: in (0, 1), any shape.
      seed: of the resampling; None takes one from the operating system.
      bias_correction: correct for the share of resamples below the statistic of the scores themselves.
      acceleration: correct for skewness as well (BCa); evaluates the statistic once for every score.

    Returns:
      f64, shape of `quantiles`.

    Raises:
      ValueError: for quantiles outside (0, 1), no resamples, or an acceleration without bias correction.

    Example:
      >>> ten = Scores(h0=np.arange(10), h1=np.arange(10) + 5.0, stream="s", design="independent")
      >>> bootstrap(ten, lambda drawn: drawn.h1.mean() - drawn.h0.mean(), seed=0)
      array([2.5..., 7.5...])

    Reference:
      Efron (1987), Journal of the American Statistical Association 82, 171-185.
    """
    quantiles = np.asarray(quantiles, np.float64)
    if not quantiles.size or np.any(~((quantiles > 0) & (quantiles < 1))):
        raise ValueError(f"quantiles must be in (0, 1), at least one, got {quantiles}")
    if samples < 1:
        raise ValueError(f"samples must be positive, got {samples}")
    if acceleration and not bias_correction:
        raise ValueError("acceleration needs bias_correction=True")
    seeds = np.random.default_rng(seed).integers(np.iinfo(np.int64).max, size=samples)
    values = np.array([statistic(_resampled(scores, np.random.default_rng(one))) for one in seeds])
    if not bias_correction:
        return np.quantile(values, quantiles)
    whole = statistic(scores)
    # One resample is added on each side, so that the correction stays finite.
    bias = ndtri((np.sum(values < whole) + 1) / (samples + 2))
    shifted = bias + ndtri(quantiles)
    skew = _acceleration(scores, statistic) if acceleration else 0.0
    return np.quantile(values, ndtr(bias + shifted / (1 - skew * shifted)))


def _resampled(scores, rng):
    """As many trials, drawn with replacement; those past the end of an array are trials that failed."""
    trials_h0, trials_h1 = scores.trials
    h1 = rng.integers(trials_h1, size=trials_h1)
    h0 = h1 if _together(scores) else rng.integers(trials_h0, size=trials_h0)
    kept = [drawn[drawn < values.size] for drawn, values in ((h0, scores.h0), (h1, scores.h1))]
    return replace(
        scores, h0=scores.h0[kept[0]], h1=scores.h1[kept[1]], failed=(h0.size - kept[0].size, h1.size - kept[1].size)
    )


def _together(scores):
    """Whether h0[i] and h1[i] may share a draw. Where trials failed it is not known which belong together."""
    return scores.design in ("paired", "nested") and scores.h0.size == scores.h1.size and not any(scores.failed)


def _acceleration(scores, statistic):
    """A sixth of the skewness of the jackknife, which leaves out every score once, or every pair of scores."""
    if any(scores.failed):
        raise ValueError("acceleration is not defined where trials failed: use acceleration=False")
    if _together(scores):
        left = ({"h0": np.delete(scores.h0, i), "h1": np.delete(scores.h1, i)} for i in range(scores.h0.size))
    else:
        left = (
            {name: np.delete(getattr(scores, name), i)}
            for name, size in (("h1", scores.h1.size), ("h0", scores.h0.size))
            for i in range(size)
        )
    values = np.array([statistic(replace(scores, **arrays)) for arrays in left])
    moved = values.mean() - values
    spread = np.sum(moved**2)
    return np.sum(moved**3) / (6 * spread**1.5) if spread > 0 else 0.0
