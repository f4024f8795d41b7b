r"""What a certificate is expected to show before a trial is played, and how many trials it would need to show more.

The scores are taken to be Gaussian, N(0, 1) against N(distance, 1), and the errors to be as many as expected. That is
a plan and no bound: scores with heavier tails than a normal law certify another epsilon, at other thresholds.
"""

import numpy as np
from scipy.special import ndtr
from scipy.stats import binom

from .methods import certificate, failure_probability
from .pilot import LEAD_SHARE
from .records import Method
from .theory import gaussian_epsilon

MOST_TRIALS = 10**13
# Thresholds in standard deviations from the middle between the two laws. Rare errors are above it, and 8 above it
# there are none in MOST_TRIALS.
_PLACES = np.linspace(-1.0, 8.0, 91)
# Around the best of them, where the mean is taken.
_NEAR = np.linspace(-0.15, 0.15, 11)
# Of a number of trials.
_PRECISION = 1e-3


def expected_epsilon(distance: float, trials: int, delta: float, method: Method, significance: float) -> float:
    """The certified bound to expect at the best threshold.

    Args:
      distance: separation of the two score laws in standard deviations, >= 0.
      trials: trials under each hypothesis, in [1, 1e13].
      delta: in [0, 1).
      method: one of `bounds.METHODS`.
      significance: failure probability of the one test that is made, in (0, 1).

    Returns:
      float, nats: the largest mean of the bound over a grid of thresholds.

    Raises:
      ValueError: for a value outside its range.

    Example:
      >>> round(expected_epsilon(1.0, 10_000, 1e-5, "union", 0.05), 3)
      2.212
    """
    _check(distance, method, significance)
    if not 1 <= trials <= MOST_TRIALS:
        raise ValueError(f"trials must be in [1, {MOST_TRIALS:.0e}], got {trials}")
    planned, each = certificate(method), (int(trials), int(trials))

    def errors(places):
        return each[0] * ndtr(-places), each[1] * ndtr(places - distance)

    places = distance / 2 + _PLACES
    roughly = planned.fixed(*errors(places), each, delta, significance)
    common = np.flatnonzero(roughly == roughly.max())
    places = places[common[common.size // 2]] + _NEAR
    # The bound is convex in the number of the rarer errors, so its mean is above the bound at their mean: by 0.02
    # where there are thirteen, by 0.07 where there is one. The other error varies too little to matter.
    rare, misses = (count[:, None] for count in errors(places))
    seen, chance = _likely(rare, each[0])
    # Less than one trial in the event certifies nothing, and a band has no limit for it.
    bounds = planned.bound(seen, np.minimum(misses, each[1] - 1), each, delta, significance)
    return float(np.max(np.sum(bounds * chance, axis=1)))


def trials_needed(distance: float, delta: float, within: float, method: Method, significance: float) -> int | None:
    """The fewest trials that are expected to certify all but a part of what a Gaussian model predicts.

    Args:
      distance: separation of the two score laws in standard deviations, > 0.
      delta: in (0, 1); at 0 the prediction is infinite.
      within: part of the predicted epsilon that may be left, in (0, 1).
      method: one of `bounds.METHODS`.
      significance: failure probability of the one test that is made, in (0, 1).

    Returns:
      int, trials under each hypothesis, up to 0.1 %; None where 1e13 are too few.

    Raises:
      ValueError: for a value outside its range, or where the model predicts nothing to certify.

    Example:
      >>> f"{trials_needed(1.0, 1e-5, 0.2, 'union', 0.05):.1e}"
      '1.7e+06'
    """
    _check(distance, method, significance)
    if not 0 < within < 1:
        raise ValueError(f"within must be in (0, 1), got {within}")
    wanted = (1 - within) * gaussian_epsilon(delta, distance)
    if not 0 < wanted < np.inf:
        raise ValueError(
            f"the Gaussian model predicts epsilon {wanted:g} at delta {delta:g}, allowed are finite predictions "
            "above 0; choose another delta"
        )

    def enough(trials):
        return expected_epsilon(distance, trials, delta, method, significance) >= wanted

    if not enough(MOST_TRIALS):
        return None
    low, high = 1, MOST_TRIALS
    while high - low > max(1, _PRECISION * low):
        middle = int(np.sqrt(float(low) * high))
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def leading_significance(confidence: float, cells: int = 1) -> float:
    """Failure probability that `robust_pilot` gives the test it expects most of, of Gaussian scores at one delta.

    Args:
      confidence: of all cells, in (0, 1).
      cells: that share 1 - confidence equally.

    Returns:
      float in (0, 1).

    Example:
      >>> round(leading_significance(0.95), 4)
      0.0425
    """
    return LEAD_SHARE * failure_probability(confidence) / cells


def _likely(mean, trials):
    """Numbers of errors within seven standard deviations of their means, evenly spaced, and their chances."""
    spread = np.sqrt(mean) + 1
    step = np.maximum(np.floor(spread / 4), 1)
    seen = np.clip(np.floor(mean) + step * np.arange(-42, 71), 0, trials)
    chance = np.where(np.diff(seen, axis=1, prepend=-1) > 0, binom.pmf(seen, trials, mean / trials), 0.0)
    return seen, chance / chance.sum(axis=1, keepdims=True)


def _check(distance, method, significance):
    if not 0 <= distance < np.inf:
        raise ValueError(f"distance must be finite and >= 0, got {distance}")
    certificate(method)
    if not 0 < significance < 1:
        raise ValueError(f"significance must be in (0, 1), got {significance}")
