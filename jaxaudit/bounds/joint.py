r"""The epsilon that two independent Beta laws of error rates leave a given probability: one integral, any counts.

With T and F the rates of an event under the two hypotheses, each with a Beta law of its own, the bound is the epsilon
at which

    P(T ≤ e^ε F + δ) = ∫ P(T ≤ e^ε x + δ) f(x) dx = significance.

In the angle θ, x = sin² θ, a Beta density is nearly normal whatever its counts (the prior of Jeffreys is flat in θ),
so a hundred nodes of the double exponential rule serve one trial as well as 1e9, and none and all of them in error.

Reference:
  Zanella-Béguelin et al. (2022), arXiv:2206.05199, who take a two-dimensional quadrature.
"""

import numpy as np
from scipy.optimize import brentq
from scipy.special import betainc, betaincc, ndtri

# Nodes in (0, 1) and weights of the double exponential rule: accurate also where the integrand has an algebraic
# singularity at an end, as Beta laws without errors have.
_STEPS = np.linspace(-2.8, 2.8, 121)
_NODES = 1 / (1 + np.exp(-np.pi * np.sinh(_STEPS)))
_WEIGHTS = (_STEPS[1] - _STEPS[0]) * np.pi * np.cosh(_STEPS) * _NODES * _NODES[::-1]


def joint_quantile(tp, fn, fp, tn, delta, significance, both=False):
    r"""Epsilon at which P(T <= e^ε F + δ) is `significance`, for independent T ~ Beta(tp, fn) and F ~ Beta(fp, tn).

    Args:
      tp, fn: shapes of the law of the rate of the event where it is common, at least 1/2; broadcast.
      fp, tn: shapes of the law of its rate where it is rare, at least 1/2; broadcast.
      delta: in [0, 1); broadcasts.
      significance: in (0, 1); broadcasts.
      both: ask for all four inequalities of (ε, δ)-DP at once: the event and its complement, in both orders.

    Returns:
      f64, nats, at least 0, to 1e-4.

    Example:
      >>> round(float(joint_quantile(230.5, 9770.5, 13.5, 9987.5, 1e-5, 0.05)), 3)
      2.426
    """
    return _quantiles(tp, fn, fp, tn, delta, significance, both)


def _quantile(tp, fn, fp, tn, delta, significance, both):
    """`joint_quantile` of numbers."""
    tpr, fpr = tp / (tp + fn), fp / (fp + tn)
    # e^ε of the inequalities at the mean rates: those with T on the side of e^ε · F, and those with it on the other.
    odds = [(tpr - delta) / fpr, (1 - tpr - delta) / (1 - fpr)]
    if both:
        odds += [(1 - fpr - delta) / (1 - tpr), (fpr - delta) / tpr]
    best = int(np.argmax(odds)) if both else 0
    largest = max(odds[best], 1.0)
    slope = largest if best < 2 else 1 / largest  # dT / dF along the boundary that decides
    # Integrate over the law that is the narrower one across the boundary: seen from it the other is smooth.
    over_f = slope**2 * fpr * (1 - fpr) / (fp + tn + 1) < tpr * (1 - tpr) / (tp + fn + 1)
    laws = ((fp, tn), (tp, fn)) if over_f else ((tp, fn), (fp, tn))
    depth = 23 - np.log(significance)

    def excess(epsilon):
        mass = _mass(epsilon, *laws, over_f, delta, both, depth)
        return ndtri(np.clip(mass, 1e-300, 1 - 1e-16)) - ndtri(significance)

    if excess(0.0) >= 0:
        return 0.0
    high = max(1.0, np.log(largest))
    while excess(high) < 0:
        high *= 2
    return brentq(excess, 0.0, high, xtol=1e-8)


_quantiles = np.vectorize(_quantile, otypes=[np.float64])


def _mass(epsilon, narrow, wide, over_f, delta, both, depth):
    """Probability of the event at `epsilon`, integrated over the law `narrow`: that of F if `over_f`, else of T."""
    odds = np.exp(epsilon)
    a, b = wide
    if both:
        # The region of (ε, δ)-DP is its own mirror image in T = F: it does not matter which law is which. Its corners
        # are where two of the inequalities meet, and to either side of a corner only one of them binds.
        corner = (1 - delta) / (1 + odds)
        x, y, weights = _nodes(*narrow, [delta, corner], [delta, corner], depth)
        left, right = x < corner, y < corner
        upper, lower = np.empty_like(x), np.empty_like(x)
        upper[left] = betainc(a, b, np.minimum(odds * x[left] + delta, 1))
        upper[~left] = betaincc(b, a, np.maximum(y[~left] - delta, 0) / odds)
        lower[right] = betaincc(b, a, np.minimum(odds * y[right] + delta, 1))
        lower[~right] = betainc(a, b, np.maximum(x[~right] - delta, 0) / odds)
        return weights @ np.maximum(upper - lower, 0)
    if over_f:
        x, _, weights = _nodes(*narrow, [(1 - delta) / odds], [], depth)
        return weights @ betainc(a, b, np.minimum(odds * x + delta, 1))
    x, _, weights = _nodes(*narrow, [delta], [], depth)
    return weights @ betaincc(a, b, np.maximum(x - delta, 0) / odds)


def _nodes(a, b, kinks, other_kinks, depth):
    """Nodes x, 1 - x and their weights for Beta(a, b); the integrand has kinks at these values of x and of 1 - x.

    In the angle the log density is concave and its second derivative at most -2 (a + b - 1), so that beyond
    √(depth / (a + b - 1)) from its mode it has fallen by at least `depth`.
    """
    mode = np.arctan2(np.sqrt(a - 0.5), np.sqrt(b - 0.5))
    reach = np.sqrt(depth / max(a + b - 1, 1e-3))
    ends = np.clip([mode - reach, mode + reach], 0, np.pi / 2)
    inner = [*np.arcsin(np.sqrt(kinks)), *np.arccos(np.sqrt(other_kinks))]
    cuts = np.unique(np.clip([*ends, *inner], *ends))
    widths = np.diff(cuts)[:, None]
    angles = (cuts[:-1, None] + widths * _NODES).ravel()
    x, y = np.sin(angles) ** 2, np.cos(angles) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        # 0 · ln 0 is 0: a shape of 1/2 has a flat density at its end.
        log_density = np.nan_to_num((a - 0.5) * np.log(x) + (b - 0.5) * np.log(y), nan=0.0, neginf=-np.inf)
    weights = (widths * _WEIGHTS).ravel() * np.exp(log_density - log_density.max())
    weights /= weights.sum()
    heavy = weights > np.exp(-depth)
    return x[heavy], y[heavy], weights[heavy]
