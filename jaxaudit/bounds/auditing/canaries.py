"""Scores of canaries that were held in and held out, and everything that `auditing` counts of them."""

from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from ..bands import equal_level_limit
from ..intervals import clopper_pearson_upper
from .hull import corners, roc_hull


class Canaries:
    """Scores of canaries held in (H1) and held out (H0); higher scores speak for "in".

    Attributes:
      h0: f64[n0], scores of held-out canaries.
      h1: f64[n1], scores of held-in canaries.

    Raises:
      ValueError: where one of the arrays is empty, not one-dimensional or not finite.
    """

    def __init__(self, in_canary_scores: ArrayLike, out_canary_scores: ArrayLike):
        self.h1 = _checked(in_canary_scores, "in_canary_scores")
        self.h0 = _checked(out_canary_scores, "out_canary_scores")
        self._bands = {}

    @cached_property
    def ordered(self):
        """Both arrays sorted, (h0, h1)."""
        return np.sort(self.h0), np.sort(self.h1)

    @cached_property
    def hull(self):
        """Vertices of the upper hull of the receiver operating curve."""
        return roc_hull(*self.ordered)

    @cached_property
    def corner_errors(self):
        """(false positives, false negatives) at every threshold that can be the best."""
        curve = corners(*self.ordered)
        return self.h0.size - curve.true_negatives, curve.false_negatives

    def errors_at(self, threshold):
        """(false positives, false negatives) of the event {score >= threshold}."""
        if np.isnan(threshold):
            raise ValueError(f"threshold must be a number, got {threshold}")
        return np.count_nonzero(self.h0 >= threshold), np.count_nonzero(self.h1 < threshold)

    def limits(self, false_positives, false_negatives, significance, limit=clopper_pearson_upper, share=0.5):
        """Upper limits of both error rates, at `share` of the significance and at the rest of it."""
        return (
            limit(false_positives, self.h0.size, share * significance),
            limit(false_negatives, self.h1.size, (1 - share) * significance),
        )

    def band(self, significance, share):
        """Limits at the corners of the curve that hold at all of them; remembered, because they serve every delta."""
        asked = significance, share
        if asked not in self._bands:
            self._bands = {asked: self.limits(*self.corner_errors, significance, equal_level_limit, share)}
        return self._bands[asked]

    def best_threshold(self, significance, delta, one_sided):
        """The vertex of the hull with the largest bound on these scores, which it does not certify."""
        limits = self.limits(self.h0.size - self.hull.true_negatives, self.hull.false_negatives, significance)
        forward, *reverse = log_ratios(*limits, delta, one_sided)
        # Where no vertex shows anything it is the last one, infinity, as in jax_privacy.
        best = np.argmax(forward) if np.any(forward > -np.inf) else -1
        if reverse and np.max(reverse) > max(forward[best], 0.0):
            best = np.argmax(reverse)
        return self.hull.thresholds[best]

    def parts(self, share, seed):
        """A random share of the scores of both hypotheses, and the rest."""
        if not 0 < share < 1:
            raise ValueError(f"threshold_estimation_frac must be in (0, 1), got {share}")
        rng = np.random.default_rng(seed)
        (in_1, in_2), (out_1, out_2) = (
            np.split(scores[rng.permutation(scores.size)], [int(scores.size * share)])
            for scores in (self.h1, self.h0)
        )
        return Canaries(in_1, out_1), Canaries(in_2, out_2)

    def accuracy(self, prevalence, significance=None):
        """Largest accuracy of a threshold, as observed or its upper limit; see `ScoreAuditor.max_accuracy`."""
        false_positives, false_negatives = self.corner_errors
        trials = self.h1.size, self.h0.size
        right = trials[0] - false_negatives, trials[1] - false_positives
        weights = prevalence, 1 - prevalence
        observed = sum(w * correct / number for w, correct, number in zip(weights, right, trials))
        if significance is None:
            return float(observed.max())

        def limit(which):
            uppers = (clopper_pearson_upper(c[which], n, significance / 2) for c, n in zip(right, trials))
            return np.max(sum(w * upper for w, upper in zip(weights, uppers)))

        # No limit is above its rate by more than Hoeffding's inequality has it: most thresholds are out of the race.
        room = np.sqrt(-np.log(significance / 2) / 2) * sum(w / np.sqrt(n) for w, n in zip(weights, trials)) + 1e-7
        return float(limit(observed + room >= limit([np.argmax(observed)])))

    def correct(self, guesses):
        """Held-in canaries among those with the highest scores; of equal scores those held out come first.

        Args:
          guesses: how many are guessed to be "in", int[k], in [1, n0 + n1].
        """
        h0, h1 = self.ordered
        lowest = np.sort(np.concatenate([h0, h1]), kind="stable")[-guesses]
        above = h1.size - np.searchsorted(h1, lowest, side="right")
        return np.maximum(above, guesses - (h0.size - np.searchsorted(h0, lowest, side="left")))


def log_ratios(fpr, fnr, delta, one_sided):
    """ln((1 - δ - FNR) / FPR) and, unless one-sided, ln((1 - δ - FPR) / FNR): f64[sides, ...], -inf for nothing."""
    sides = [(fnr, fpr)] if one_sided else [(fnr, fpr), (fpr, fnr)]
    with np.errstate(divide="ignore"):
        return np.array([np.log(np.maximum(1 - common - delta, 0.0)) - np.log(rare) for common, rare in sides])


def numbers_of_guesses(canaries, significance):
    """Half of the canaries, a quarter, and so on to the fewest guesses that could refute anything at all.

    A finer grid costs more than it finds: each number of guesses is paid for, most dearly where δ is.

    Example:
      >>> numbers_of_guesses(1000, 0.05)
      array([500, 250, 125,  62,  31,  15])
    """
    numbers = canaries // 2 ** np.arange(1, int(canaries).bit_length())
    # All guesses are correct by chance with probability 2^-guesses.
    fewest = np.log2(numbers.size / significance)
    return numbers[numbers >= min(fewest, numbers[0])]


def _checked(scores, name):
    scores = np.asarray(scores, np.float64)
    if scores.size == 0:
        raise ValueError(f"{name} must be non-empty.")
    if scores.ndim != 1:
        raise ValueError(f"{name} must be 1-dimensional, got {scores.ndim}.")
    if not np.isfinite(scores).all():
        raise ValueError(
            f"{name} must be finite, got {np.count_nonzero(~np.isfinite(scores))} that are not; a canary without a "
            "score counts as an error: give it the lowest score if it was held in and the highest if it was held out"
        )
    return scores
