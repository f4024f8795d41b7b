"""Which threshold a bound is for, and how an estimate is resampled: the options of `auditing`."""

from dataclasses import dataclass

import numpy as np


class ThresholdStrategy:
    """Where the event {score >= threshold} of a bound comes from."""


class Bonferroni(ThresholdStrategy):
    """All thresholds, every one of them paid for."""


@dataclass(frozen=True)
class Explicit(ThresholdStrategy):
    """One threshold that was fixed before the scores were seen.

    Attributes:
      threshold: in score units.
    """

    threshold: float


@dataclass(frozen=True)
class Split(ThresholdStrategy):
    """The best threshold of one part of the scores, tested on the rest.

    Attributes:
      threshold_estimation_frac: share of the scores that choose, in (0, 1).
      seed: of the split; None takes one from the operating system.
    """

    threshold_estimation_frac: float = 0.5
    seed: int | None = None


@dataclass(frozen=True)
class MultiSplit(ThresholdStrategy):
    """The median bound of many splits, each at half the significance.

    The median exceeds the truth only where half of the bounds do, and the mean share of bounds that do is at most
    half the significance: Markov's inequality.

    Attributes:
      num_samples: how many splits.
      threshold_estimation_frac: share of the scores that choose, in (0, 1).
      seed: of the splits; None takes one from the operating system.

    Reference:
      Meinshausen, Meier & Bühlmann (2009), arXiv:0811.2177, Theorem 3.1.
    """

    num_samples: int = 100
    threshold_estimation_frac: float = 0.5
    seed: int | None = None


@dataclass(frozen=True)
class BootstrapParams:
    """Bootstrap quantiles of an estimate; see `bounds.bootstrap`. They are no confidence limits of the true epsilon.

    Attributes:
      num_samples: how many resamples.
      quantiles: which, in (0, 1); any shape.
      bias_correction: correct for the share of resamples below the estimate.
      acceleration: correct for skewness, too; evaluates the estimate once for every score.
      seed: of the resampling; None takes one from the operating system.

    Raises:
      ValueError: for quantiles outside (0, 1), or an acceleration without bias correction.
    """

    num_samples: int = 1000
    quantiles: np.typing.ArrayLike = (0.025, 0.975)
    bias_correction: bool = True
    acceleration: bool = False
    seed: int | None = None

    def __post_init__(self):
        """Refuse what cannot be resampled."""
        quantiles = np.asarray(self.quantiles)
        if quantiles.size == 0:
            raise ValueError("quantiles cannot be empty")
        if not np.all((quantiles > 0) & (quantiles < 1)):
            raise ValueError(f"quantiles must be in (0, 1), got {self.quantiles}")
        if self.acceleration and not self.bias_correction:
            raise ValueError("acceleration needs bias_correction=True")

    @classmethod
    def confidence_interval(
        cls, num_samples: int = 1000, confidence: float = 0.95, seed: int | None = None
    ) -> "BootstrapParams":
        """The two quantiles with `confidence` between them.

        Example:
          >>> [round(q, 6) for q in BootstrapParams.confidence_interval(confidence=0.9).quantiles]
          [0.05, 0.95]
        """
        if not 0 < confidence < 1:
            raise ValueError(f"confidence must be in (0, 1), got {confidence}")
        tail = (1 - confidence) / 2
        return cls(num_samples=num_samples, quantiles=(tail, 1 - tail), seed=seed)
