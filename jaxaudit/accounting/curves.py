"""Delta at an epsilon, for each number of shares that may be in the sum: the least of what several theorems prove."""

import math
from collections.abc import Callable, Iterator

import numpy as np
from scipy.special import ndtr

from ..bounds.theory import gaussian_delta
from . import binomial, discrete_gaussian, lattice, renyi, shifts, skellam

# f64: epsilon to deltas, one for each number of shares.
Curves = Callable[[float], np.ndarray]

# Steps of the longest table of a law; of one that has to be convolved.
_TABLE, _CONVOLVED = 2**17, 2**11
# Numbers of shares for which a law is tabulated; the others take what is proved of fewer shares.
_LAWS = 16
# Terms of all moments together, a second or two.
_TERMS = 5e7
# Smaller deltas may have been lost.
_UNDERFLOW = 1e-300
# Deltas at which the theorem on binomial noise is tried.
_DELTAS = np.logspace(-30, -1e-3, 2000)


def proof(
    noise: str, l1: float, l2: float, linf: float, dim: int, deviation: float, counts, weights, rounds: int
) -> Curves:
    """The least of all deltas that are proved.

    Args:
      noise: see `Mechanism`, like the norms, the deviation and the rounds; the norms are those of integers where the
        noise is.
      l1: norm of the shift.
      l2: the same, Euclidean.
      linf: the same, of one entry.
      dim: entries of the sum.
      deviation: of one share.
      counts: i64[k], ascending, different numbers of shares, >= 0.
      weights: f64[k], their probabilities; they decide for which counts a law is worth its table.
      rounds: how often the shift is seen, with fresh noise and always so many shares.

    Returns:
      Curves, whose deltas may exceed 1.
    """
    if l2 == 0:
        return lambda epsilon: np.zeros(len(counts))
    some = counts > 0
    if not (some.any() and deviation > 0 and math.isfinite(l2)):
        return lambda epsilon: np.ones(len(counts))
    shares, weights = counts[some], weights[some]
    # Entries that do not move have one law under both hypotheses and independent noise: they tell nothing.
    moving = int(min(dim, l1))
    if noise == "gaussian":
        parts = [_gaussian(l2, deviation, shares, rounds)]
    else:
        parts = [_theorem(noise, l1, l2, linf, moving, deviation, shares, rounds)]
        parts += _exact(noise, l2, int(linf), dim, deviation, shares, weights, rounds)
    # Without a share there is nothing to hide in.
    bare = np.ones(len(counts) - len(shares))
    return lambda epsilon: np.append(bare, np.minimum.reduce([part(epsilon) for part in parts]) + _UNDERFLOW)


def proved_by(noise: str, linf: float, dim: int, deviation: float, rounds: int) -> str:
    """Names of what `proof` takes the least of, in one line."""
    if noise == "gaussian":
        return "exact Gaussian: Theorem 8 of Balle & Wang (2018)"
    theorem = {"discrete_gaussian": discrete_gaussian, "skellam": skellam, "binomial": binomial}[noise].SOURCE
    if not (deviation > 0 and linf > 0 and _affordable(noise, linf, deviation, dim, rounds)):
        return theorem
    exact = "exact law in one dimension" if dim == rounds == 1 else "Rényi moments of a coordinate's exact law"
    return f"the least of: {theorem}; {exact}"


def _gaussian(l2, deviation, shares, rounds):
    distance = l2 * math.sqrt(rounds) / (deviation * np.sqrt(shares))
    # Delta is what a tail exceeds another by, and both are good to 12 digits or more.
    return lambda epsilon: gaussian_delta(epsilon, distance) + 1e-12 * ndtr(distance / 2 - epsilon / distance)


def _theorem(noise, l1, l2, linf, moving, deviation, shares, rounds):
    if noise == "binomial":
        # (ε, δ) of a round each: epsilons and deltas add up.
        each = binomial.epsilon(_DELTAS, _coins(deviation) * shares[:, None], l1, l2, linf, moving)
        return lambda epsilon: np.min(np.where(rounds * each <= epsilon, rounds * _DELTAS, 1.0), axis=1)
    orders = renyi.orders(l2 * math.sqrt(rounds) / (deviation * np.sqrt(shares)))
    if noise == "skellam":
        orders = np.maximum(np.ceil(orders), 2.0)
        divergence = skellam.divergence(orders, deviation**2 * shares, l1, l2)
    else:
        divergence = discrete_gaussian.divergence(orders, deviation, shares, l1, l2, moving)
    return lambda epsilon: renyi.delta(orders, rounds * divergence, epsilon) * (1 + 1e-9)


def _exact(noise, l2, shift, dim, deviation, shares, weights, rounds) -> Iterator[Curves]:
    """One curve for each tabulated law: 1 for counts that it does not serve."""
    most = _affordable(noise, shift, deviation, dim, rounds)
    served = {}
    for index in _representatives(shares, weights):
        if most:
            served.setdefault(int(min(shares[index], most)), index)
    for count, index in served.items():
        yield _at(index, len(shares), _one_law(_law(noise, deviation, count, shift), l2, shift, dim, rounds))


def _one_law(law, l2, shift, dim, rounds):
    if dim == rounds == 1:
        pair = shifts.privacy_loss(law, shift)
        return lambda epsilon: shifts.delta(pair, epsilon)
    spread = math.sqrt(np.sum(np.exp(law.log_pmf[1:]) * np.arange(1, len(law.log_pmf)) ** 2 * 2.0))
    orders = renyi.orders(l2 * math.sqrt(rounds) / spread)
    worst = shifts.per_square(law, shift, orders)
    squares = rounds * l2**2
    return lambda epsilon: float(renyi.delta(orders, squares * worst.divergence, epsilon)) + squares * worst.missing


def _at(index, size, curve):
    def curves(epsilon):
        deltas = np.ones(size)
        deltas[index] = curve(epsilon)
        return deltas

    return curves


def _law(noise, deviation, count, shift):
    if noise == "binomial":
        coins = _coins(deviation) * count
        return lattice.binomial(coins - coins % 2, shift)
    if noise == "skellam":
        return lattice.skellam(deviation**2 * count, shift)
    return lattice.discrete_gaussian(deviation, count, shift)


def _coins(deviation):
    """Fair coins of a share; one that is not whole is left out, for coins only add privacy."""
    return math.floor(4 * deviation**2 * (1 + 1e-9))


def _affordable(noise, shift, deviation, dim, rounds) -> int:
    """The largest number of shares whose law may be tabulated, 0 for none."""
    steps = _CONVOLVED if noise == "discrete_gaussian" and deviation < lattice.SMOOTH else _TABLE
    if not dim == rounds == 1:
        steps = min(steps, int(_TERMS / (2 * _LAWS * shift * renyi.COUNT)))
    if noise == "binomial" and _coins(deviation) < 1:
        return 0
    room = max(steps - shift - 90, 0) / (14 * deviation)
    return int(min(room**2, 2.0**40))


def _representatives(shares, weights):
    """Indices of the counts to tabulate: all, or some in geometric steps over those that matter."""
    if len(shares) <= _LAWS:
        return range(len(shares))
    # Below the first, all counts together weigh less than any delta that is asked for; nearly all are below the last.
    first = np.searchsorted(np.cumsum(weights), 1e-13)
    last = np.searchsorted(np.cumsum(weights), weights.sum() - 1e-2)
    return np.unique(np.searchsorted(shares, np.geomspace(shares[first], shares[max(last, first)], _LAWS)))
