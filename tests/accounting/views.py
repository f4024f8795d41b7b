"""What a server sees of one client's vector under integer noise: slow, obvious, and sharing no code with accounting.

A law on Z^d is an array of probabilities whose middle entry belongs to 0.
"""

import itertools
from functools import cache, reduce

import numpy as np
from scipy import stats

REACH = 60
STEPS = np.arange(-REACH, REACH + 1)


@cache
def one_share(noise, deviation):
    """Probabilities of one share of the noise, at `STEPS`."""
    if noise == "discrete_gaussian":
        weights = np.exp(-(STEPS**2) / (2 * deviation**2))
        return weights / weights.sum()
    if noise == "skellam":
        ones = stats.poisson.pmf(np.arange(REACH + 1), deviation**2 / 2)
        return np.convolve(ones, ones[::-1])
    coins = round(4 * deviation**2)
    assert coins % 2 == 0
    return stats.binom.pmf(STEPS + coins // 2, coins, 0.5)


@cache
def noise_law(noise, deviation, shares):
    """Probabilities of the sum of so many shares."""
    start = (STEPS == 0).astype(float)
    share = one_share(noise, deviation)
    return reduce(lambda law, _: np.convolve(law, share, "same"), range(shares), start)


def roundings(vector, rounding, bound=np.inf):
    """(integer vector, probability) of every outcome."""
    if rounding == "nearest":
        return [(tuple(int(x) for x in np.rint(vector)), 1.0)]
    low = np.floor(vector)
    up = vector - low
    outcomes = []
    for raised in itertools.product((0, 1), repeat=len(vector)):
        chance = np.prod(np.where(raised, up, 1 - up))
        if chance > 0:
            outcomes.append((tuple(int(x) for x in low + raised), float(chance)))
    if rounding == "conditional":
        outcomes = [(r, p) for r, p in outcomes if np.linalg.norm(r) <= bound * (1 + 1e-12)]
    total = sum(p for _, p in outcomes)
    return [(r, p / total) for r, p in outcomes]


def view(outcomes, law):
    """Law of a rounded vector plus independent noise in every coordinate."""
    dim = len(outcomes[0][0])
    total = np.zeros((len(STEPS),) * dim)
    for vector, chance in outcomes:
        shifted = [np.roll(law, k) for k in vector]
        total += chance * reduce(np.multiply.outer, shifted)
    return total


def delta(p, q, epsilon):
    """Hockey-stick divergence, the larger of both directions."""
    growth = np.exp(epsilon)
    return max(np.maximum(p - growth * q, 0).sum(), np.maximum(q - growth * p, 0).sum())
