"""The deterministic sandwich: what a pair truly leaks is at most what is proved, cell by cell, without sampling."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binom, norm
from views import delta, noise_law, roundings, view

from jaxaudit.accounting import (
    Mechanism,
    conditional_bound,
    delta_upper,
    epsilon_upper,
    rounded,
    sensitivity,
)

DELTAS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
ADJACENCIES = ("replacement", "zero-out")
ROUNDINGS = ("nearest", "stochastic", "conditional")
DEVIATION = {"gaussian": 1.1, "discrete_gaussian": 0.8, "skellam": 1.1, "binomial": 1.5**0.5}
INTEGER_NOISES = ("discrete_gaussian", "skellam", "binomial")
BETA = 0.5
CLIENTS = 6


def survivors(others):
    """Honest shares when each of the others drops out with probability 1/5, and the target never does."""
    return tuple((1 + k, float(binom.pmf(k, others, 0.8))) for k in range(others + 1))


# Sybils add no noise: they leave fewer shares, and fewer that can drop out.
SHARES = {
    "nobody drops out": ((CLIENTS, 1.0),),
    "any may drop out": survivors(CLIENTS - 1),
    "half must stay": ((CLIENTS // 2, 1.0),),
    "sybils": ((CLIENTS - 4, 1.0),),
    "sybils and dropout": survivors(CLIENTS - 5),
}


def directions(dim):
    """Unit vectors on one axis and, in more than one dimension, over all of them."""
    axis = np.eye(dim)[0]
    return [axis] if dim == 1 else [axis, np.full(dim, dim**-0.5)]


def pairs(adjacency, clip, rounding, dim):
    """Outcomes of rounding both vectors of the pairs that differ most."""
    bound = conditional_bound(clip, dim, BETA)
    for direction in directions(dim):
        vector = clip * direction
        other = -vector if adjacency == "replacement" else 0 * vector
        yield roundings(vector, rounding, bound), roundings(other, rounding, bound)


def proved(noise, adjacency, clip, rounding, shares, dim, rounds=1):
    norms = rounded(math.sqrt(dim) * clip, clip, clip, dim, rounding, BETA)
    reach = sensitivity(*norms, adjacency)
    return Mechanism(noise, *reach, dim, DEVIATION[noise], shares, rounds)


def true_delta(noise, pair, shares, epsilon):
    """Delta of a view in which the number of shares is public."""
    laws = [(weight, noise_law(noise, DEVIATION[noise], count)) for count, weight in shares]
    return sum(weight * delta(view(pair[0], law), view(pair[1], law), epsilon) for weight, law in laws)


@pytest.mark.parametrize("noise", INTEGER_NOISES)
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("dim", [1, 2])
def test_no_pair_leaks_more_than_is_proved(noise, rounding, dim):
    finite = 0
    for adjacency, clip, shares in itertools.product(ADJACENCIES, (0.4, 1.0, 2.3), SHARES.values()):
        mechanism = proved(noise, adjacency, clip, rounding, shares, dim)
        epsilons = [epsilon_upper(mechanism, d) for d in DELTAS]
        finite += np.isfinite(epsilons).sum()
        for pair in pairs(adjacency, clip, rounding, dim):
            for epsilon, allowed in zip(epsilons, DELTAS, strict=True):
                assert math.isinf(epsilon) or true_delta(noise, pair, shares, epsilon) <= allowed
    assert finite >= (60 if noise == "binomial" else 150)


@pytest.mark.parametrize("adjacency", ADJACENCIES)
def test_no_gaussian_pair_leaks_more_than_is_proved(adjacency):
    for clip, shares, allowed in itertools.product((0.5, 1.0, 4.0), SHARES.values(), DELTAS):
        reach = sensitivity(np.inf, clip, np.inf, adjacency)
        mechanism = Mechanism("gaussian", *reach, 50, DEVIATION["gaussian"], shares)
        epsilon = epsilon_upper(mechanism, allowed)
        true = 0.0
        for count, weight in shares:
            mu = reach[1] / (DEVIATION["gaussian"] * math.sqrt(count))
            true += weight * (norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu))
        assert true == pytest.approx(allowed, rel=1e-6)
        assert true <= allowed


@pytest.mark.parametrize("noise", INTEGER_NOISES)
def test_no_pair_leaks_more_in_three_dimensions(noise):
    shares = ((3, 1.0),)
    mechanism = proved(noise, "replacement", 1.7321, "nearest", shares, 3)
    for pair in pairs("replacement", 1.7321, "nearest", 3):
        for epsilon in (0.3, 1.0, 3.0):
            assert true_delta(noise, pair, shares, epsilon) <= delta_upper(mechanism, epsilon)


@pytest.mark.parametrize("noise", INTEGER_NOISES)
def test_rounds_compose_however_participation_is_correlated(noise):
    shares = SHARES["sybils and dropout"]
    mechanism = proved(noise, "zero-out", 1.0, "nearest", shares, 1, rounds=2)
    laws = {count: noise_law(noise, DEVIATION[noise], count) for count, _ in shares}
    weights = dict(shares)
    same = [(weights[m], m, m) for m in weights]
    fresh = [(weights[m] * weights[n], m, n) for m in weights for n in weights]
    for joint, epsilon in itertools.product((same, fresh), (0.0, 0.5, 2.0)):
        true = 0.0
        for weight, first, second in joint:
            hidden = np.multiply.outer(laws[first], laws[second])
            moved = np.multiply.outer(np.roll(laws[first], 1), np.roll(laws[second], 1))
            true += weight * delta(moved, hidden, epsilon)
        assert true <= delta_upper(mechanism, epsilon)


@pytest.mark.parametrize("noise", INTEGER_NOISES)
@pytest.mark.parametrize("shares", ["nobody drops out", "any may drop out"])
def test_one_dimension_is_exact(noise, shares):
    mechanism = proved(noise, "replacement", 2.0, "nearest", SHARES[shares], 1)
    pair = ([((2,), 1.0)], [((-2,), 1.0)])
    for epsilon in (0.0, 0.5, 1.0, 2.0):
        true = true_delta(noise, pair, SHARES[shares], epsilon)
        assert true <= delta_upper(mechanism, epsilon) <= true * (1 + 1e-6) + 1e-12


@pytest.mark.parametrize("noise", INTEGER_NOISES)
def test_two_dimensions_are_not_far_off(noise):
    # Strong noise: a step on each axis against some 4 deviations.
    shares = ((16, 1.0),)
    mechanism = Mechanism(noise, 2.0, math.sqrt(2), 1.0, 2, DEVIATION[noise], shares)
    pair = ([((1, 1), 1.0)], [((0, 0), 1.0)])
    for allowed in DELTAS:
        upper = epsilon_upper(mechanism, allowed)
        assert true_delta(noise, pair, shares, upper) <= allowed
        assert true_delta(noise, pair, shares, upper / 1.6) > allowed


def test_a_smaller_sensitivity_would_be_refuted():
    # The sandwich has teeth: forgetting the doubling, or the rounding, breaks it.
    pair = ([((2,), 1.0)], [((-2,), 1.0)])
    shares = SHARES["half must stay"]
    once = Mechanism("skellam", 2.0, 2.0, 2.0, 1, DEVIATION["skellam"], shares)
    unrounded = Mechanism("skellam", 3.0, 3.0, 3.0, 1, DEVIATION["skellam"], shares)
    for wrong in (once, unrounded):
        assert true_delta("skellam", pair, shares, epsilon_upper(wrong, 1e-4)) > 1e-4
