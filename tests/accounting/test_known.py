import mpmath as mp
import numpy as np
import pytest
from scipy import special, stats
from scipy.special import logsumexp
from views import noise_law

from jaxaudit import bounds
from jaxaudit.accounting import (
    Mechanism,
    binomial,
    delta_upper,
    discrete_gaussian,
    epsilon_upper,
    lattice,
    renyi,
    sensitivity,
    shifts,
    skellam,
    source,
)

ONE = ((1, 1.0),)
ORDERS = np.array([1.5, 2.0, 3.0, 8.0, 40.0])


def mechanism(noise, l2, deviation, *, dim=1, shares=ONE, rounds=1, linf=None, l1=np.inf):
    return Mechanism(noise, l1, l2, l2 if linf is None else linf, dim, deviation, shares, rounds)


@pytest.mark.parametrize("delta, distance, epsilon", [(1e-5, 1.0, 4.3772), (1e-5, 0.5, 1.9931), (1e-3, 4.0, 19.6241)])
def test_gaussian_epsilon_has_its_published_values(delta, distance, epsilon):
    gaussian = mechanism("gaussian", distance, 1.0, dim=10)
    assert epsilon_upper(gaussian, delta) == pytest.approx(epsilon, abs=6e-5)
    assert epsilon_upper(gaussian, delta) >= bounds.gaussian_epsilon(delta, distance)


def test_gaussian_agrees_with_dp_accounting():
    dp_accounting = pytest.importorskip("dp_accounting")
    shared = mechanism("gaussian", 3.0, 2.0, dim=7, shares=((9, 1.0),), rounds=4)
    peer = dp_accounting.get_epsilon_gaussian(2.0 * 3 / (3.0 * 2), 1e-6)
    assert epsilon_upper(shared, 1e-6) == pytest.approx(peer, rel=1e-8)


def test_moments_become_deltas_as_in_dp_accounting():
    peer = pytest.importorskip("dp_accounting.rdp.rdp_privacy_accountant")
    for epsilon in (0.1, 1.0, 6.0):
        divergences = ORDERS * 0.3
        expected = min(peer.compute_delta([a], [r], epsilon)[0] for a, r in zip(ORDERS, divergences, strict=True))
        if epsilon > 0.5:  # below, the peer's bound of total variation is the better one
            assert renyi.delta(ORDERS, divergences, epsilon) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("rho", [0.005, 0.5, 8.0])
def test_one_discrete_gaussian_is_concentrated(rho):
    # zCDP of rho = D² / 2σ²; the dimension is too high, and the shift too large, for exact laws.
    dp_accounting = pytest.importorskip("dp_accounting")
    accountant = dp_accounting.rdp.RdpAccountant(1 + np.logspace(-2, 4, 4000))
    accountant.compose(dp_accounting.ZCDpEvent(rho))
    one = mechanism("discrete_gaussian", 10**6, 10**6 / np.sqrt(2 * rho), dim=10**6)
    assert epsilon_upper(one, 1e-6) == pytest.approx(accountant.get_epsilon(1e-6), rel=5e-3)
    assert epsilon_upper(one, 1e-6) >= bounds.gaussian_epsilon(1e-6, np.sqrt(2 * rho))


@pytest.mark.parametrize("noise", ["discrete_gaussian", "skellam", "binomial"])
def test_integer_noise_becomes_gaussian(noise):
    for deviation, tolerance in [(10.0, 0.03), (100.0, 1e-3), (1000.0, 1e-4)]:
        wide = mechanism(noise, deviation, deviation)
        assert epsilon_upper(wide, 1e-5) == pytest.approx(4.37718, rel=tolerance)


def test_skellam_theorem_becomes_concentrated():
    # The theorem's excess over α D² / 2μ is at most 3 l1 / 2μ.
    wide = mechanism("skellam", 10**6, 10**6, dim=1000, linf=np.inf)
    flat = mechanism("discrete_gaussian", 10**6, 10**6, dim=1000, linf=np.inf)
    assert source(wide) == skellam.SOURCE
    assert epsilon_upper(wide, 1e-5) == pytest.approx(epsilon_upper(flat, 1e-5), rel=1e-2)


def test_skellam_theorem_by_hand():
    # α = 4, l1 = 3, l2 = sqrt(3): 12/2μ + min{39/4μ², 9/2μ}
    claimed = skellam.divergence(np.array([[4.0], [4.0]]), [2.0, 10.0], 3.0, 3**0.5)
    np.testing.assert_allclose(claimed[:, 0], [3 + 2.25, 0.6 + 0.0975], rtol=1e-12)


def test_discrete_gaussian_theorem_by_hand():
    # α = 2, l1 = 2, l2 = sqrt(2): the least of 2/σ², 2/mσ² + 2 τ, 2/mσ² + 4 τ / σ sqrt(m) + 2 τ², ...
    tau = 10 * np.exp(-(np.pi**2) * 0.64)
    claimed = discrete_gaussian.divergence(np.full((2, 1), 2.0), 0.8, [1, 2], 2.0, 2**0.5, 2)[:, 0]
    assert claimed[0] == pytest.approx(2 / 0.64, rel=1e-12)
    assert claimed[1] == pytest.approx(1 / 0.64 + 2 * tau * min(1, 1 / 0.8 * 2**0.5 + tau), rel=1e-12)


def test_binomial_theorem_has_a_known_value():
    # N = 2000 fair coins, delta = 1e-6, all sensitivities 1: the worked example of a public implementation.
    known = binomial.epsilon(np.array([1e-6]), np.array([[2000]]), 1.0, 1.0, 1.0, 1)
    assert 0.6375 < known[0, 0] < 0.6376


def test_binomial_theorem_holds_in_one_dimension_and_would_not_above_one():
    deltas = np.logspace(-10, -1.5, 30)
    for coins, shift in [(2000, 1), (10_000, 4), (40_000, 12), (10**6, 100)]:
        pair = shifts.privacy_loss(lattice.binomial(coins, shift), shift)
        claimed = binomial.epsilon(deltas, np.array([[coins]]), shift, shift, shift, 1)[0]
        finite = np.isfinite(claimed)
        assert finite.any() and np.all(claimed[finite] <= 1)
        assert all(shifts.delta(pair, e) <= d for e, d in zip(claimed[finite], deltas[finite], strict=True))
    # At 20 deviations the theorem's formula gives ε = 250.1 for δ = 1e-8.
    pair = shifts.privacy_loss(lattice.binomial(10_000, 1000), 1000)
    assert shifts.delta(pair, 250.1) > 1e-3


@pytest.mark.parametrize("parameter", [0.5, 0.7, 1.0])
def test_shares_differ_from_one_discrete_gaussian_by_at_most_tau(parameter):
    with mp.workdps(40):
        share = {x: mp.exp(-mp.mpf(x * x) / (2 * mp.mpf(parameter) ** 2)) for x in range(-20, 21)}
        total = dict(share)
        for shares in range(2, 7):
            total = {x: mp.fsum(p * share.get(x - y, 0) for y, p in total.items()) for x in range(-20, 21)}
            one = {x: mp.exp(-mp.mpf(x * x) / (2 * shares * mp.mpf(parameter) ** 2)) for x in range(-60, 61)}
            scale = mp.fsum(one.values()) / mp.fsum(share.values()) ** shares
            ratio = [float(mp.log(total[x] * scale / one[x])) for x in range(-5, 6)]
            tau = discrete_gaussian.nonexactness(parameter, shares)
            assert max(np.abs(ratio)) <= tau
            assert max(ratio) - min(ratio) <= tau


def test_fewer_shares_than_two_or_too_narrow_ones_have_their_own_tau():
    assert discrete_gaussian.nonexactness(3.0, 1) == 0
    np.testing.assert_array_equal(discrete_gaussian.nonexactness(0.4, np.array([1, 2])), [0, np.inf])
    tau = 10 * sum(np.exp(-2 * np.pi**2 * 0.64 * k / (k + 1)) for k in (1, 2, 3))
    assert discrete_gaussian.nonexactness(0.8, 4) == pytest.approx(tau, rel=1e-12)


@pytest.mark.parametrize("variance", [0.01, 1.0, 37.0, 1e3])
def test_skellam_law_has_relative_accuracy(variance):
    law = lattice.skellam(variance, 40)
    for x in (0, 1, 7, law.core // 2, law.core, law.core + 40):
        with mp.workdps(30):
            exact = mp.log(mp.besseli(x, variance)) - variance
        assert law.log_pmf[x] == pytest.approx(float(exact), abs=law.error)
    wide = lattice.skellam(1e6, 1)
    exact = np.log(special.ive(np.arange(14_000), 1e6))
    np.testing.assert_allclose(wide.log_pmf[:14_000], exact, atol=wide.error, rtol=0)


@pytest.mark.parametrize("trials", [2, 40, 10_000, 10**6])
def test_binomial_law_has_relative_accuracy(trials):
    law = lattice.binomial(trials, 5)
    for x in {0, 1, law.core // 2, law.core}:
        with mp.workdps(30):
            exact = mp.log(mp.binomial(trials, trials // 2 + x)) - trials * mp.log(2)
        assert law.log_pmf[x] == pytest.approx(float(exact), abs=max(law.error, 1e-13))


@pytest.mark.parametrize("parameter, shares", [(0.4, 7), (0.6, 30), (1.1, 12), (2.5, 3)])
def test_summed_discrete_gaussian_law_has_relative_accuracy(parameter, shares):
    law = lattice.discrete_gaussian(parameter, shares, 10)
    direct = noise_law("discrete_gaussian", parameter, shares)[60:]
    near = direct > 1e-200
    np.testing.assert_allclose(law.log_pmf[: len(direct)][near], np.log(direct[near]), atol=1e-9)
    assert law.error < 1e-9


@pytest.mark.parametrize("noise, deviation", [("skellam", 0.5), ("skellam", 2.0), ("discrete_gaussian", 0.6)])
def test_published_divergences_hold_for_exact_laws(noise, deviation):
    orders = np.arange(2.0, 12.0)
    for shares, shift in [(1, 1), (3, 2), (10, 5)]:
        law = noise_law(noise, deviation, shares)
        moved = np.roll(law, shift)
        part = (law > 1e-200) & (moved > 1e-200)
        exact = logsumexp(
            orders[:, None] * np.log(moved[part]) + (1 - orders[:, None]) * np.log(law[part]), axis=1
        ) / (orders - 1)
        if noise == "skellam":
            claimed = skellam.divergence(orders[None], [shares * deviation**2], shift, shift)[0]
        else:
            claimed = discrete_gaussian.divergence(orders[None], deviation, [shares], shift, shift, 1)[0]
        assert np.all(exact <= claimed * (1 + 1e-12))


def test_shares_are_public_so_that_deltas_average():
    mixed = mechanism("gaussian", 1.0, 0.5, shares=((4, 0.25), (9, 0.75)))
    expected = 0.25 * bounds.gaussian_delta(1.0, 1.0) + 0.75 * bounds.gaussian_delta(1.0, 2 / 3)
    assert delta_upper(mixed, 1.0) == pytest.approx(float(expected), rel=1e-8)


@pytest.mark.parametrize("noise", ["gaussian", "discrete_gaussian", "skellam", "binomial"])
def test_nothing_is_proved_without_noise(noise):
    bare = mechanism(noise, 1.0, 4.0, shares=((0, 1e-3), (100, 1 - 1e-3)))
    assert epsilon_upper(bare, 1e-3 * (1 - 1e-9)) == np.inf
    assert epsilon_upper(bare, 2e-3) < 1
    assert epsilon_upper(mechanism(noise, 1.0, 0.0), 0.5) == np.inf
    assert epsilon_upper(mechanism(noise, np.inf, 1.0), 0.5) == np.inf
    assert epsilon_upper(mechanism(noise, 0.0, 0.0), 0.0) == 0
    assert epsilon_upper(mechanism(noise, 1.0, 4.0), 0.0) == np.inf


def test_a_narrow_discrete_gaussian_is_no_worse_than_one_share():
    # Of σ < 1/2 nothing is proved about sums, and the dimension is too high for an exact law.
    narrow = mechanism("discrete_gaussian", 3000.0, 0.4, dim=10**6, shares=((50, 1.0),))
    single = mechanism("discrete_gaussian", 3.0, 0.4, dim=10**6, shares=((50, 1.0),), linf=np.inf)
    assert epsilon_upper(narrow, 1e-5) == np.inf
    assert epsilon_upper(single, 1e-5) <= bounds.gaussian_epsilon(1e-5, 3.0 / 0.4) * 1.1


def test_many_numbers_of_shares_cost_little_in_tightness():
    counts = np.arange(1, 201)
    weights = stats.binom.pmf(counts - 1, 199, 0.7)
    shares = tuple(zip(counts.tolist(), (weights / weights.sum()).tolist(), strict=True))
    for noise in ("skellam", "discrete_gaussian", "binomial"):
        rough = epsilon_upper(mechanism(noise, 4.0, 1.0, shares=shares), 1e-6)
        smooth = epsilon_upper(mechanism("gaussian", 4.0, 1.0, shares=shares), 1e-6)
        assert 0.97 * smooth < rough < 1.1 * smooth


def test_sensitivity_follows_the_adjacency():
    assert sensitivity(3.0, 2.0, 1.0, "replacement") == (6.0, 4.0, 2.0)
    assert sensitivity(3.0, 2.0, 1.0, "zero-out") == (3.0, 2.0, 1.0)


def test_sources_name_the_theorems():
    assert source(mechanism("gaussian", 1.0, 1.0)) == "exact Gaussian: Theorem 8 of Balle & Wang (2018)"
    assert source(mechanism("skellam", 2.0, 1.0)).endswith("exact law in one dimension")
    assert source(mechanism("skellam", 2.0, 1.0, dim=2)).endswith("Rényi moments of a coordinate's exact law")
    assert source(mechanism("binomial", 2000.0, 1e6, dim=10**6)) == binomial.SOURCE


@pytest.mark.parametrize(
    "change, words",
    [
        ({"noise": "laplace"}, "noise is 'laplace', allowed are gaussian"),
        ({"l2": -1.0}, "l2 is -1.0"),
        ({"deviation": np.nan}, "deviation is nan"),
        ({"dim": 0}, "dim is 0"),
        ({"shares": ((1, 0.5),)}, "add up to 1"),
        ({"shares": ((-1, 1.0),)}, "number >= 0"),
    ],
)
def test_wrong_mechanisms_are_refused(change, words):
    fields = {"noise": "gaussian", "l1": 1.0, "l2": 1.0, "linf": 1.0, "dim": 1, "deviation": 1.0, "shares": ONE}
    with pytest.raises(ValueError, match=words):
        Mechanism(**{**fields, **change})


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="epsilon is -1"):
        delta_upper(mechanism("gaussian", 1.0, 1.0), -1)
    with pytest.raises(ValueError, match=r"delta is 1.0, allowed is \[0, 1\)"):
        epsilon_upper(mechanism("gaussian", 1.0, 1.0), 1.0)
    with pytest.raises(ValueError, match="adjacency is 'add', allowed are"):
        sensitivity(1.0, 1.0, 1.0, "add")
