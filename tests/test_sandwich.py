"""Between the exact privacy of one pair and what is proved: no Monte Carlo, and laws that only this file has.

Where the server knows all other updates, the channel is one client's encoding and noise. Every law is enumerated in
one to three dimensions: the two candidates' integers with their probabilities, plus the noise of those who sent,
modulo the ring. The pair's exact ε(δ) lies below the claim, which is about all pairs.
"""

import math
import re
from dataclasses import replace
from functools import cache, partial
from itertools import product

import numpy as np
import pytest
from scipy.special import gammaln
from scipy.stats import norm

import jaxaudit as ja
from jaxaudit.claimed import claim

DELTAS = (1e-2, 1e-3, 1e-5)
# Shares are planned for five clients; a cohort of three is one with two colluders.
COHORTS = (5, 3)
DROPOUT = 0.3
NOISES = {"skellam": ja.Skellam, "discrete_gaussian": ja.DiscreteGaussian, "binomial": ja.Binomial}


# Laws, as arrays around zero: entry size // 2 is 0.


@cache
def share_of(kind, variance):
    """The law of one client's noise; what is cut off is below 1e-15."""
    if kind == "binomial":
        coins = 2 * max(1, math.ceil(2 * variance))
        return np.array([math.comb(coins, heads) / 2**coins for heads in range(coins + 1)])
    reach = math.ceil(9 * math.sqrt(variance) + 30)
    if kind == "discrete_gaussian":
        weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * variance))
        return weights / weights.sum()
    counts = np.arange(2 * reach + 1)
    poisson = np.exp(counts * math.log(variance / 2) - variance / 2 - gammaln(counts + 1))
    # The difference of two: all terms are positive, so small probabilities are as accurate as large ones.
    return np.convolve(poisson, poisson[::-1])


@cache
def noise_of(kind, variance, shares):
    law = share_of(kind, variance)
    for _ in range(shares - 1):
        law = np.convolve(law, share_of(kind, variance))
    return law


def roundings(steps, rounding, bound=math.inf):
    """Integers that a vector may become, and their probabilities: conditional rounding keeps those within a bound."""
    if rounding == "nearest":
        return [(tuple(round(one) for one in steps), 1.0)]
    ends = [((math.floor(one), 1 - one % 1), (math.floor(one) + 1, one % 1)) for one in steps]
    found = [(tuple(at for at, _ in each), math.prod(p for _, p in each)) for each in product(*ends)]
    kept = [(at, p) for at, p in found if p > 0 and sum(x * x for x in at) <= bound**2]
    return [(at, p / sum(p for _, p in kept)) for at, p in kept]


def received(encodings, noise, modulus):
    """The law of the residues: an array with as many axes as an encoding has entries."""
    middle, found = noise.size // 2, 0.0
    for at, chance in encodings:
        law = np.ones(())
        for entry in at:
            one = np.zeros(modulus)
            np.add.at(one, (entry + np.arange(noise.size) - middle) % modulus, noise)
            law = np.multiply.outer(law, one)
        found = found + chance * law
    return found


def hockey_stick(first, second, epsilon):
    """The larger delta of both directions."""
    return max(np.maximum(p - math.exp(epsilon) * q, 0).sum() for p, q in ((first, second), (second, first)))


def attendance(clients, dropout):
    """How many of the others send: a binomial law."""
    others, stay = clients - 1, 1 - dropout
    law = [(m, math.comb(others, m) * stay**m * dropout ** (others - m)) for m in range(others + 1)]
    return tuple(one for one in law if one[1] > 0)


# The claim


def prepared(*stages, dim=1, clients=COHORTS, pair=("antipodal", "zeroed"), law="known", **protocol):
    population = ja.Synthetic(law=law, dim=dim, clients=clients, pair=pair)
    return ja.Audit(
        population=population, aggregator=ja.SecureSum(stages=stages, **protocol), attack=ja.GaussianLRT()
    ).prepare(0)


def present(cell, dropout):
    return replace(cell, server=replace(cell.server, attendance=attendance(cell.clients, dropout)))


def upper(audit, cell, dropout=0.0):
    return claim(audit, present(cell, dropout), DELTAS).epsilons


def below(exact_delta, epsilons):
    """The exact delta at every proved epsilon is at most the delta it is proved for: ε(δ) lies below.

    What the tables cut off weighs less than 1e-13.
    """
    return all(exact_delta(epsilon) <= delta + 1e-13 for delta, epsilon in zip(DELTAS, epsilons) if epsilon < 700)


def clipped(cell, bound):
    """Both candidates, clipped in exact arithmetic."""
    return [end[0].astype(float) * min(1.0, bound / max(np.linalg.norm(end[0]), 1e-30)) for end in cell.pair.both]


def accepted(audit):
    """The l2 norm up to which integers are accepted, in steps."""
    return next(float(link.params.bound) for link in audit.chain.links if link.stage.kind == "fixed_point")


def assert_between(audit, cell, encodings, law, modulus, dropout):
    """Exact below proved, for integer noise with the law of so many shares."""
    laws = [
        (chance, *(received(one, law(others + 1), modulus) for one in encodings))
        for others, chance in attendance(cell.clients, dropout)
    ]

    def exact(epsilon):
        return sum(chance * hockey_stick(first, second, epsilon) for chance, first, second in laws)

    assert below(exact, upper(audit, cell, dropout)), (cell.name, dropout)


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("rounding", ["nearest", "stochastic", "conditional"])
@pytest.mark.parametrize("bound", [0.5, 1.0])
@pytest.mark.parametrize("deviation", [0.15, 0.6])
def test_a_claim_is_never_below_the_exact_law_of_one_entry(kind, rounding, bound, deviation):
    """Vectors of length 1 that are clipped or just not, in every adjacency, cohort and dropout."""
    step = 0.15
    encoding = ja.FixedPoint(step=step, rounding=rounding)
    audit = prepared(ja.Clip(norm=bound), encoding, NOISES[kind](deviation=deviation), wrap=True)
    variance = (deviation / np.float64(np.float32(step))) ** 2 / max(COHORTS)
    for cell in audit.cells:
        encodings = [roundings(end / step, rounding, accepted(audit)) for end in clipped(cell, bound)]
        if rounding != "conditional":
            means = [sum(p * at[0] for at, p in one) * step for one in encodings]
            np.testing.assert_allclose(audit.seen(cell.pair).both[:, 0, 0], means, atol=1e-5)
        for dropout in (0.0, DROPOUT):
            assert_between(audit, cell, encodings, lambda shares: noise_of(kind, variance, shares), 2**12, dropout)


def test_claims_in_one_entry_are_tight():
    """A whole number of steps at the clip bound, moved as far as the adjacency allows, is the worst pair there is."""
    audit = prepared(ja.Clip(norm=1.0), ja.FixedPoint(step=0.25), ja.Skellam(deviation=0.5))
    for cell, steps in zip(audit.cells[:2], ((-4, 4), (0, 4))):
        law = noise_of("skellam", 4 / 5, 5)
        first, second = (received([((one,), 1.0)], law, 2**12) for one in steps)
        for delta, epsilon in zip(DELTAS, upper(audit, cell)):
            assert hockey_stick(first, second, epsilon) <= delta < hockey_stick(first, second, epsilon - 1e-3)


@pytest.mark.parametrize("kind", NOISES)
def test_a_ring_that_wraps_is_no_less_private(kind):
    """Eight residues: the laws fold over, and the exact epsilon falls far below."""
    audit = prepared(ja.Clip(norm=1.0), ja.FixedPoint(step=0.25), NOISES[kind](deviation=0.5), wrap=True, ring_bits=3)
    for cell in audit.cells:
        encodings = [roundings(end / 0.25, "nearest") for end in clipped(cell, 1.0)]
        assert_between(audit, cell, encodings, lambda shares: noise_of(kind, 4 / 5, shares), 8, 0.0)


@pytest.mark.parametrize(
    ("dim", "rounding", "kind", "deviation", "ring_bits"),
    [
        (2, "stochastic", "skellam", 0.5, 7),
        (2, "conditional", "discrete_gaussian", 0.3, 7),
        (2, "nearest", "binomial", 1.0, 8),
        # Three entries are padded to four, so the ring has to be small.
        (3, "stochastic", "discrete_gaussian", 0.4, 5),
        (3, "conditional", "skellam", 0.4, 5),
    ],
)
def test_a_claim_is_never_below_the_exact_law_of_rotated_vectors(dim, rounding, kind, deviation, ring_bits):
    step, bound = 0.3, 0.8
    audit = prepared(
        ja.Rotate(),
        ja.Clip(norm=bound),
        ja.FixedPoint(step=step, rounding=rounding, beta=0.5),
        NOISES[kind](deviation=deviation),
        dim=dim,
        clients=3,
        ring_bits=ring_bits,
        wrap=True,
    )
    rotate = audit.chain.links[0].params
    size, variance = audit.chain.last.dim, (deviation / np.float64(np.float32(step))) ** 2 / 3
    matrix = np.array([[(-1) ** (i & j).bit_count() for j in range(dim)] for i in range(size)]) / math.sqrt(size)
    for cell in audit.cells:
        steps = [matrix @ (end * np.asarray(rotate.signs)) / step for end in clipped(cell, bound)]
        encodings = [roundings(one, rounding, accepted(audit)) for one in steps]
        # The bound refuses some corners of a conditional rounding, and never all.
        assert len(encodings[1]) > 1 or rounding == "nearest"
        for dropout in (0.0, DROPOUT):
            law = lambda shares: noise_of(kind, variance, shares)  # noqa: E731
            assert_between(audit, cell, encodings, law, 2**ring_bits, dropout)


# Normal noise


def normal_delta(encodings, deviation, epsilon):
    """Delta of two mixtures on a line: their likelihood ratio grows along it, so the best event is a half-line.

    The best threshold of a grid: what lies between two of them would only raise the exact value.
    """
    cut = np.linspace(-12, 12, 24_001) * deviation
    cut = np.concatenate([cut, *(cut + at[0] for one in encodings for at, _ in one)])
    above = [sum(p * norm.sf(cut, at[0], deviation) for at, p in one) for one in encodings]
    under = [sum(p * norm.cdf(cut, at[0], deviation) for at, p in one) for one in encodings]
    factor = math.exp(epsilon)
    return max(np.max(above[1] - factor * above[0]), np.max(under[0] - factor * under[1]), 0.0)


@pytest.mark.parametrize("bound", [0.5, 1.0])
@pytest.mark.parametrize("rounding", [None, "nearest", "stochastic", "conditional"])
def test_a_claim_of_central_noise_is_never_below_the_exact_one(rounding, bound):
    step, deviation = 0.3, 0.4
    grid = () if rounding is None else (ja.FixedPoint(step=step, rounding=rounding),)
    audit = prepared(ja.Clip(norm=bound), *grid, ja.Gaussian(deviation=deviation))
    for cell in audit.cells:
        ends = clipped(cell, bound)
        encodings = [[(tuple(end), 1.0)] for end in ends]
        if rounding is not None:
            bound_in_steps = accepted(audit)
            encodings = [
                [((at[0] * step,), p) for at, p in roundings(end / step, rounding, bound_in_steps)] for end in ends
            ]
        epsilons = upper(audit, cell)
        # Whoever sends, the noise is there.
        assert upper(audit, cell, DROPOUT) == epsilons
        assert below(partial(normal_delta, encodings, deviation), epsilons), cell.name
        if rounding is None:
            assert normal_delta(encodings, deviation, epsilons[0] - 1e-3) > DELTAS[0]


@pytest.mark.parametrize("where", ["distributed", "local"])
@pytest.mark.parametrize("dropout", [0.0, DROPOUT])
def test_a_claim_of_shares_of_normal_noise_is_never_below_the_exact_one(where, dropout):
    audit = prepared(ja.Clip(norm=0.5), ja.Gaussian(deviation=0.6, where=where))
    share = 0.6 / math.sqrt(max(COHORTS) if where == "distributed" else 1)
    for cell in audit.cells:
        ends = [[(tuple(end), 1.0)] for end in clipped(cell, 0.5)]

        law = attendance(cell.clients, dropout)

        def exact(epsilon, ends=ends, law=law):
            return sum(p * normal_delta(ends, share * math.sqrt(m + 1), epsilon) for m, p in law)

        assert below(exact, upper(audit, cell, dropout)), cell.name


@pytest.mark.parametrize("step", [0.25, 1.0])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_noise_that_is_rounded_afterwards_counts_for_its_sender_only(rounding, step):
    """Others who round their noise to steps far wider than it send nothing: no function of the noisy sum."""
    share = 0.6 / math.sqrt(max(COHORTS))
    stages = ja.Clip(norm=0.5), ja.Gaussian(deviation=0.6, where="distributed")
    audit = prepared(*stages, ja.FixedPoint(step=step, clip_range=step * 40, rounding=rounding))

    def rounded(mean):
        # From the nearer tail, so that small probabilities are accurate. A coin rounds up with the probability of the
        # fraction: second differences of E (u - X)₊ or of E (X - u)₊.
        at = np.arange(-40, 41)
        edges = (np.append(at - 0.5, 40.5) if rounding == "nearest" else np.arange(-41, 42)) * step
        z = (edges - mean) / share
        if rounding == "nearest":
            low, high = np.diff(norm.cdf(z)), -np.diff(norm.sf(z))
        else:
            low, high = (share / step * np.diff(norm.pdf(z) + y * norm.cdf(y), n=2) for y in (z, -z))
        return np.where(at * step < mean, low, high)

    for cell in audit.cells:
        others = rounded(0.0)
        for _ in range(cell.clients - 2):
            others = np.convolve(others, rounded(0.0))
        laws = [np.convolve(others, rounded(end[0])) for end in clipped(cell, 0.5)]
        np.testing.assert_allclose([law.sum() for law in laws], 1.0, atol=1e-12)
        assert below(partial(hockey_stick, *laws), upper(audit, cell)), cell.name


# What is assumed, and what is not proved


def test_a_claim_for_everyone_says_that_it_assumes_what_is_not_so():
    """With fewer shares than planned it is below the truth: an assumption of the claim is broken, and it says so."""
    stages = ja.Clip(norm=1.0), ja.FixedPoint(step=0.25), ja.Skellam(deviation=0.5)
    audit = prepared(*stages, claim="everyone", clients=5, pair="antipodal")
    (cell,) = audit.cells
    assert not claim(audit, cell, DELTAS).assumed
    found = claim(audit, present(cell, 0.5), DELTAS)
    assert found.assumed and found.epsilons == upper(audit, cell)
    law = [(p, noise_of("skellam", 4 / 5, m + 1)) for m, p in attendance(5, 0.5)]
    laws = [(p, *(received([((at,), 1.0)], noise, 2**12) for at in (-4, 4))) for p, noise in law]
    assert not below(lambda eps: sum(p * hockey_stick(*both, eps) for p, *both in laws), found.epsilons)
    survivors = prepared(*stages, clients=5, pair="antipodal")
    assert all(one > other for one, other in zip(upper(survivors, cell, 0.5), found.epsilons))


@pytest.mark.parametrize("noise", [ja.Skellam(deviation=0.5), ja.Gaussian(deviation=0.5)])
def test_rounds_that_are_aborted_reveal_nothing(noise):
    """Fewer than three senders: nothing under both hypotheses, and all other rounds are what they were."""
    stages = ja.Clip(norm=1.0), ja.FixedPoint(step=0.25), noise
    audit, plain = prepared(*stages, minimum=3), prepared(*stages)
    for cell in audit.cells:
        ends = [roundings(end / 0.25, "nearest") for end in clipped(cell, 1.0)]
        law = [(p, noise_of("skellam", 4 / 5, m + 1)) for m, p in attendance(cell.clients, DROPOUT) if m + 1 >= 3]
        laws = [(p, *(received(end, shares, 2**12) for end in ends)) for p, shares in law]
        epsilons = upper(audit, cell, DROPOUT)
        assert all(one <= other for one, other in zip(epsilons, upper(plain, cell, DROPOUT)))
        if noise.kind == "skellam":
            assert below(lambda eps, laws=laws: sum(p * hockey_stick(*two, eps) for p, *two in laws), epsilons)


def test_the_words_name_who_added_the_noise():
    audit = prepared(ja.Clip(norm=1.0), ja.FixedPoint(step=0.25), ja.Skellam(deviation=0.5))
    (cell, *_) = audit.cells
    assert "noise of those who sent" in claim(audit, present(cell, DROPOUT), DELTAS).words


def test_the_words_name_the_units_of_central_noise():
    """It is added to the decoded sum, whatever the clients' vectors were encoded as."""
    audit = prepared(ja.Clip(norm=1.0), ja.FixedPoint(step=0.25), ja.Gaussian(deviation=0.5))
    found = claim(audit, audit.cells[0], DELTAS).words
    assert "at most 2" in found and "in the update's units" in found


@pytest.mark.parametrize(
    ("stages", "protocol"),
    [
        ((ja.FixedPoint(step=0.25), ja.Skellam(deviation=0.5)), {"wrap": True}),
        ((ja.Gaussian(deviation=0.5),), {}),
        ((ja.Weight(factor=0.5), ja.Gaussian(deviation=0.5, where="local")), {}),
        (
            (ja.Clip(norm=1.0), ja.TopK(k=1, error_feedback=True), ja.Gaussian(deviation=0.5)),
            {},
        ),
        ((ja.Clip(norm=1.0), ja.FixedPoint(step=0.25), ja.Gaussian(deviation=0.5)), {"ring_bits": 4, "wrap": True}),
    ],
    ids=["no clip range", "no clip", "no clip, local", "memory after the clip", "central noise on a sum that wraps"],
)
def test_nothing_is_proved_where_nothing_bounds_a_client(stages, protocol):
    audit = prepared(*stages, **protocol)
    for cell in audit.cells:
        assert upper(audit, cell) == (math.inf,) * len(DELTAS)


@pytest.mark.parametrize(
    ("stages", "protocol"),
    [
        # A clip range is a clip; memory before the clip, and shares in a ring that wraps, are harmless.
        ((ja.FixedPoint(step=0.25, clip_range=1.0), ja.Skellam(deviation=0.5)), {}),
        ((ja.TopK(k=1, error_feedback=True), ja.Clip(norm=1.0), ja.Gaussian(deviation=0.5)), {}),
        ((ja.Clip(norm=1.0), ja.FixedPoint(step=0.25), ja.Skellam(deviation=0.5)), {"ring_bits": 4, "wrap": True}),
    ],
)
def test_something_is_proved_where_a_client_is_bounded_when_it_sends(stages, protocol):
    audit = prepared(*stages, **protocol)
    for cell in audit.cells:
        assert all(0 < one < math.inf for one in upper(audit, cell))


def test_without_noise_nothing_is_claimed():
    audit = prepared(ja.Clip(norm=1.0), ja.FixedPoint(step=0.25), law="gaussian")
    assert claim(audit, audit.cells[0], DELTAS) is None


def test_only_a_candidate_that_is_nothing_is_zeroed_out():
    """Replacement moves the sum by twice the norm, zeroing out by the norm; zero is encoded as exactly nothing."""
    for shifted in (False, True):
        encoding = ja.FixedPoint(levels=8, clip_range=1.0, rounding="stochastic", shifted=shifted)
        audit = prepared(encoding, ja.Skellam(deviation=0.5), clients=5)
        found = [re.search(r"at most (\S+) in l2", claim(audit, cell, DELTAS).words)[1] for cell in audit.cells]
        assert found == ["8", "4"]
