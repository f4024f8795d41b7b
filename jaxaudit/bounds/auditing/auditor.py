"""Privacy metrics from scores of canaries, under the names of `jax_privacy.auditing`."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from ..bootstrap import bootstrap
from ..epsilon import RARE_SHARE
from ..estimates import epsilon_one_run_fdp
from ..one_run import epsilon_one_run
from ..samples import Scores
from ..theory import gaussian_epsilon
from .canaries import Canaries, log_ratios, numbers_of_guesses
from .hull import area_under, largest_ratio, mirrored, tpr_at
from .strategies import Bonferroni, BootstrapParams, Explicit, MultiSplit, Split, ThresholdStrategy


class ScoreAuditor:
    """Privacy metrics from the scores of canaries that were held in and held out; higher scores speak for "in".

    Every bound and estimate is for the events {score >= threshold}. Held-in canaries are H1, held-out ones H0.

    Args:
      in_canary_scores: f64[n1], scores of held-in canaries, finite, at least one.
      out_canary_scores: f64[n0], scores of held-out canaries, likewise.

    Example:
      >>> auditor = ScoreAuditor(np.arange(100) + 9.5, np.arange(100))
      >>> round(float(auditor.tpr_at_given_fpr(0.01)), 2), auditor.attack_auroc()
      (0.11, 0.595)
    """

    def __init__(self, in_canary_scores: ArrayLike, out_canary_scores: ArrayLike):
        self._canaries = Canaries(in_canary_scores, out_canary_scores)

    def epsilon_clopper_pearson(
        self,
        significance: float,
        delta: float = 0,
        one_sided: bool = True,
        *,
        threshold_strategy: ThresholdStrategy = Bonferroni(),  # noqa: B008 - it has no state
    ) -> float:
        """Lower bound on epsilon from two Clopper-Pearson limits that share the significance.

        Args:
          significance: allowed failure probability in (0, 0.5).
          delta: in [0, 1].
          one_sided: only the events {score >= t}; if not, their complements, too.
          threshold_strategy: where the threshold comes from.

        Guarantee:
          For independent canaries, those held in of one law and those held out of one law, and for an explicit
          threshold that was fixed before, P(bound > true epsilon) <= significance; at several deltas and on both
          sides at once, but for `Split` and `MultiSplit`.

        Proof:
          All thresholds: see `bounds.epsilon_simultaneous`; both limits only rise with their errors, so the corners
          of the curve have the largest bound. One threshold: the union of its two limits.
        """
        _require("significance", significance, "in (0, 0.5)", 0 < significance < 0.5)
        _require("delta", delta, "in [0, 1]", 0 <= delta <= 1)

        def largest(limits):
            return float(log_ratios(*limits, delta, one_sided).max(initial=0.0))

        match threshold_strategy:
            case Bonferroni():
                return largest(self._canaries.band(significance, RARE_SHARE if one_sided else 0.5))
            case Explicit(threshold):
                return largest(self._canaries.limits(*self._canaries.errors_at(threshold), significance))
            case Split(share, seed):
                level, seeds = significance, [seed]
            case MultiSplit(number, share, seed):
                level = significance / 2
                seeds = np.random.default_rng(seed).integers(np.iinfo(np.int64).max, size=number)
            case _:
                raise ValueError(f"Unsupported threshold strategy: {threshold_strategy}")
        found = []
        for seed in seeds:
            choosing, testing = self._canaries.parts(share, seed)
            errors = testing.errors_at(choosing.best_threshold(level, delta, one_sided))
            found.append(largest(testing.limits(*errors, level)))
        return float(np.median(found))

    def epsilon_raw_counts(
        self,
        min_count: int = 50,
        delta: float = 0,
        one_sided: bool = True,
        *,
        bootstrap_params: BootstrapParams | None = None,
    ) -> float | np.ndarray:
        """Estimate of epsilon: the largest ln((TPR - delta) / FPR) with at least `min_count` false positives.

        No bound: the largest of many estimates errs upwards.

        Args:
          min_count: false positives (on the other side: false negatives) that a threshold needs, positive.
          delta: in [0, 1].
          one_sided: only TPR / FPR; if not, TNR / FNR, too.
          bootstrap_params: give quantiles of the estimate in its place.
        """
        _require("min_count", min_count, "positive", min_count >= 1)
        _require("delta", delta, "in [0, 1]", 0 <= delta <= 1)
        if bootstrap_params is not None:
            return self._bootstrap(lambda a: a.epsilon_raw_counts(min_count, delta, one_sided), bootstrap_params)
        sides = [self._canaries.hull] if one_sided else [self._canaries.hull, mirrored(self._canaries.hull)]
        return max(largest_ratio(side, min_count, delta) for side in sides)

    def tpr_at_given_fpr(
        self, fpr: ArrayLike, *, bootstrap_params: BootstrapParams | None = None
    ) -> np.ndarray | float:
        """Largest observed true positive rate at a false positive rate, between two thresholds by randomising.

        Args:
          fpr: in [0, 1], any shape; a scalar with `bootstrap_params`.
          bootstrap_params: give quantiles of the rate in its place.
        """
        fpr = np.asarray(fpr)
        _require("fpr", fpr, "in [0, 1]", np.all((fpr >= 0) & (fpr <= 1)))
        if bootstrap_params is None:
            return tpr_at(fpr, self._canaries.hull)
        _require("fpr", fpr, "a scalar for bootstrap", fpr.ndim == 0)
        return self._bootstrap(lambda a: a.tpr_at_given_fpr(fpr), bootstrap_params)

    def attack_auroc(self, *, bootstrap_params: BootstrapParams | None = None) -> float | np.ndarray:
        """Area under the hull of the receiver operating curve: at least 1/2, and biased upwards.

        `bootstrap_params` gives quantiles of the area in its place.
        """
        if bootstrap_params is not None:
            return self._bootstrap(ScoreAuditor.attack_auroc, bootstrap_params)
        return area_under(self._canaries.hull)

    def max_accuracy(self, *, prevalence: float | None = None, significance: float | None = None) -> float:
        """Largest accuracy of a threshold, or an upper limit for the true one of the best threshold.

        Args:
          prevalence: share of positives in [0, 1]; by default the share of held-in canaries.
          significance: allowed probability in (0, 1) that the limit is too low; None gives the observed accuracy.

        Guarantee:
          With a significance, and independent canaries, P(some threshold has a larger true accuracy) <= significance.

        Proof:
          Let t be the best threshold. Its two Clopper-Pearson limits hold together with probability at least
          1 - significance, and the largest sum of limits over all thresholds is at least the sum at t.
        """
        if prevalence is None:
            prevalence = self._canaries.h1.size / (self._canaries.h0.size + self._canaries.h1.size)
        _require("prevalence", prevalence, "in [0, 1]", 0 <= prevalence <= 1)
        _require("significance", significance, "in (0, 1)", significance is None or 0 < significance < 1)
        return self._canaries.accuracy(prevalence, significance)

    def epsilon_from_gdp(self, significance: float, delta: float, eps_tol: float = 1e-6) -> float:
        """Epsilon of the Gaussian trade-off curve that the scores refute: "parametric".

        Args:
          significance: allowed probability in (0, 0.5) that the distance of the Gaussians is below its limit.
          delta: in (0, 1].
          eps_tol: of the result, positive; it is always finer than 1e-9.

        Guarantee:
          If the trade-off curve of the mechanism is Gaussian, P(result > true epsilon) <= significance. Of any other
          mechanism it says nothing: it reads 12 for Laplace noise of ε = 3.

        Reference:
          Nasr et al. (2023), arXiv:2302.07956; see `bounds.epsilon_gdp`.
        """
        _require("significance", significance, "in (0, 0.5)", 0 < significance < 0.5)
        _require("delta", delta, "in (0, 1]", 0 < delta <= 1)
        _require("eps_tol", eps_tol, "positive", eps_tol > 0)
        fpr, fnr = self._canaries.band(significance, 0.5)
        some = np.maximum(fpr, fnr) < 1 - delta
        distance = np.max(-ndtri(fpr[some]) - ndtri(fnr[some]), initial=0.0)
        return gaussian_epsilon(delta, distance) if distance > 0 else 0.0

    def epsilon_one_run(
        self,
        significance: float,
        delta: float,
        one_sided: bool = True,
        *,
        threshold_strategy: ThresholdStrategy = Bonferroni(),  # noqa: B008 - it has no state
    ) -> float:
        """Lower bound on epsilon from canaries of a single run, which may depend on each other.

        The canaries with the highest scores are guessed to be "in".

        Args:
          significance: allowed failure probability in (0, 1).
          delta: in (0, 1].
          one_sided: True; nothing is guessed to be "out".
          threshold_strategy: `Bonferroni` for the best of about log2(canaries) numbers of guesses, or `Explicit`.

        Guarantee:
          If every canary was put in by a fair coin of its own, P(bound > true epsilon) <= significance; with
          `Explicit`, if the number of scores at or above the threshold was fixed before the run, as it is at the
          r-th largest of all scores, r fixed before.

        Proof:
          All thresholds: the numbers of guesses are fixed by the number of canaries and the significance, and each
          has its share of it. Canaries of equal score are guessed in an order that puts those held out first, which
          makes no more guesses correct than an order that knows no coin. One threshold: see `bounds.epsilon_one_run`.
        """
        return self._one_run(epsilon_one_run, significance, delta, one_sided, threshold_strategy)

    def epsilon_one_run_fdp(
        self,
        significance: float,
        delta: float,
        one_sided: bool = True,
        *,
        threshold_strategy: ThresholdStrategy = Bonferroni(),  # noqa: B008 - it has no state
    ) -> float:
        """Epsilon of the Gaussian trade-off curve that a single run refutes: "parametric".

        Args:
          significance, delta, one_sided, threshold_strategy: as in `epsilon_one_run`.

        Guarantee:
          As that of `epsilon_one_run`, if the trade-off curve of the mechanism is Gaussian.

        Reference:
          Mahloujifar, Melis & Chaudhuri (2024), arXiv:2410.22235; see `bounds.epsilon_one_run_fdp`.
        """
        return self._one_run(_EPSILON_ONE_RUN_FDP, significance, delta, one_sided, threshold_strategy)

    def _one_run(self, bound, significance, delta, one_sided, strategy):
        _require("significance", significance, "in (0, 1)", 0 < significance < 1)
        _require("delta", delta, "in (0, 1]", 0 < delta <= 1)
        _require("one_sided", one_sided, "True", one_sided)
        canaries = self._canaries.h0.size + self._canaries.h1.size
        match strategy:
            case Bonferroni():
                guesses = numbers_of_guesses(canaries, significance)
                correct = self._canaries.correct(guesses)
            case Explicit(threshold):
                wrong, missed = self._canaries.errors_at(threshold)
                correct = np.array([self._canaries.h1.size - missed])
                guesses = correct + wrong
            case Split() | MultiSplit():
                raise ValueError(
                    f"{type(strategy).__name__} is not proved for one run, whose number of guesses must be fixed "
                    "before: use Bonferroni(), or Explicit with the r-th largest of all scores, r fixed before"
                )
            case _:
                raise ValueError(f"Unsupported threshold strategy: {strategy}")
        if delta == 1:
            return 0.0
        return float(np.max(bound(correct, guesses, canaries, delta, significance / guesses.size)))

    def _bootstrap(self, estimate, params):
        return bootstrap(
            Scores(self._canaries.h0, self._canaries.h1, "canaries", "independent"),
            lambda drawn: estimate(ScoreAuditor(drawn.h1, drawn.h0)),
            params.num_samples,
            params.quantiles,
            params.seed,
            params.bias_correction,
            params.acceleration,
        )


_EPSILON_ONE_RUN_FDP = np.vectorize(epsilon_one_run_fdp, otypes=[np.float64])


def _require(name, value, allowed, holds):
    if not holds:
        raise ValueError(f"{name} must be {allowed}, got {value}.")
