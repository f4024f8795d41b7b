import numpy as np
import pytest
import reference
from hypothesis import assume, given
from hypothesis import strategies as st

from jaxaudit import bounds

# Sphere model: dim, noise terms, distance, ε(1e-3), ε(1e-5), δ(ε = 1), balanced error.
SPHERE = [
    (650, 60, 6.5828, 41.19, 48.97, 0.9984, 4.98e-4),
    (650, 1000, 1.6125, 5.730, 7.691, 0.3648, 0.210),
    (650, 10_000, 0.5099, 1.384, 2.037, 7.72e-3, 0.399),
    (2000, 60, 11.547, 101.5, 115.1, 1.0000, 3.9e-9),
    (2000, 1000, 2.8284, 12.07, 15.46, 0.7508, 0.0786),
    (7850, 60, 22.8765, 331.4, 358.3, 1.0000, 1.3e-30),
    (7850, 1000, 5.6036, 32.22, 38.86, 0.9917, 2.54e-3),
    (7850, 10_000, 1.7720, 6.473, 8.621, 0.4264, 0.188),
    (7850, 100_000, 0.5604, 1.551, 2.264, 0.0133, 0.390),
]
DISTANCES = st.floats(0.05, 30)
EXPONENTS = st.floats(-12, -0.5)


@pytest.mark.parametrize(
    "delta, distance, epsilon",
    [
        (1e-3, 0.5, 1.35228),
        (1e-3, 1.0, 3.13867),
        (1e-3, 2.0, 7.58128),
        (1e-3, 3.0, 13.08818),
        (1e-3, 4.0, 19.62412),
        (1e-5, 0.5, 1.9931),
        (1e-5, 1.0, 4.3772),
        (1e-5, 2.0, 9.9973),
        (1e-5, 3.0, 16.6755),
    ],
)
def test_gaussian_epsilon_has_its_published_values(delta, distance, epsilon):
    digits = 5 if delta == 1e-3 else 4
    assert round(bounds.gaussian_epsilon(delta, distance), digits) == epsilon


@pytest.mark.parametrize("delta", [0.1, 1e-5, 1e-9, 1e-12])
@pytest.mark.parametrize("distance", [0.1, 1.0, 5.0, 25.0])
def test_gaussian_epsilon_agrees_with_sixty_digits(delta, distance):
    expected = reference.gaussian_epsilon(delta, distance)
    assert bounds.gaussian_epsilon(delta, distance) == pytest.approx(expected, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("dim, terms, distance, epsilon3, epsilon5, delta, error", SPHERE)
def test_sphere_model_has_its_published_values(dim, terms, distance, epsilon3, epsilon5, delta, error):
    exact = float(bounds.sphere_distance(dim, terms))
    assert exact == pytest.approx(distance, rel=1e-4)
    assert bounds.gaussian_epsilon(1e-3, exact) == pytest.approx(epsilon3, rel=1e-3)
    assert bounds.gaussian_epsilon(1e-5, exact) == pytest.approx(epsilon5, rel=1e-3)
    assert bounds.gaussian_delta(1.0, exact) == pytest.approx(delta, rel=5e-3)
    assert bounds.balanced_error(exact) == pytest.approx(error, rel=2e-2)


def test_opposite_corners_are_three_times_as_far_as_antipodes_in_square():
    assert bounds.cube_distance(650, 60) ** 2 == pytest.approx(3 * bounds.sphere_distance(650, 60) ** 2)


@given(DISTANCES, EXPONENTS)
def test_gaussian_epsilon_inverts_gaussian_delta(distance, exponent):
    delta = 10**exponent
    epsilon = bounds.gaussian_epsilon(delta, distance)
    assume(epsilon > 0)
    assert bounds.gaussian_delta(epsilon, distance) == pytest.approx(delta, rel=1e-6)


@given(DISTANCES, EXPONENTS)
def test_gaussian_distance_inverts_gaussian_epsilon(distance, exponent):
    delta = 10**exponent
    epsilon = bounds.gaussian_epsilon(delta, distance)
    assume(epsilon > 0)
    assert bounds.gaussian_distance(epsilon, delta) == pytest.approx(distance, rel=1e-6)


@given(st.floats(0, 8), st.floats(0.1, 5))
def test_gaussian_delta_is_the_largest_gap_of_the_tradeoff(epsilon, distance):
    """δ(ε) = max over FPR of 1 - FNR - e^ε FPR, reached where the likelihood ratio is e^ε."""
    best = bounds.balanced_error(2 * (epsilon / distance + distance / 2))
    fpr = np.append(np.linspace(0, 1, 1001), best)
    gaps = 1 - bounds.gaussian_tradeoff(fpr, distance) - np.exp(epsilon) * fpr
    assert gaps.max() == pytest.approx(float(bounds.gaussian_delta(epsilon, distance)), abs=1e-10)


@given(st.floats(1e-6, 1 - 1e-6), st.floats(0, 6))
def test_gaussian_tradeoff_is_its_own_inverse(fpr, distance):
    fnr = bounds.gaussian_tradeoff(fpr, distance)
    assume(1e-9 < fnr < 1 - 1e-9)
    assert bounds.gaussian_tradeoff(fnr, distance) == pytest.approx(fpr, rel=1e-5)


@given(st.floats(0, 30))
def test_balanced_error_is_where_the_tradeoff_meets_its_diagonal(distance):
    error = float(bounds.balanced_error(distance))
    assert bounds.gaussian_tradeoff(error, distance) == pytest.approx(error)


@pytest.mark.parametrize("epsilon, delta, per_dim", [(1.0, 1e-3, 26.5), (8.0, 1e-5, 1.441)])
def test_clients_needed_grow_with_the_dimension_as_published(epsilon, delta, per_dim):
    assert bounds.clients_needed(epsilon, delta, dim=10**6) / 10**6 == pytest.approx(per_dim, rel=1e-3)


@pytest.mark.parametrize("law, distance", [("sphere", bounds.sphere_distance), ("cube", bounds.cube_distance)])
def test_one_client_fewer_than_needed_is_too_few(law, distance):
    needed = bounds.clients_needed(2.0, 1e-4, dim=650, law=law)
    enough, too_few = (bounds.gaussian_epsilon(1e-4, distance(650, clients)) for clients in (needed, needed - 1))
    assert enough <= 2.0 < too_few


def test_nothing_overflows_at_a_distance_of_a_thousand():
    # ε ≈ Δ²/2 + Δ z, z the δ-quantile; the next term is below one part in a thousand of Δ.
    epsilon = bounds.gaussian_epsilon(1e-3, 1000.0)
    assert epsilon == pytest.approx(1000**2 / 2 + 1000 * 3.0902, abs=2.0)
    assert bounds.gaussian_delta(epsilon, 1000.0) == pytest.approx(1e-3, rel=1e-6)


def test_equal_laws_have_no_epsilon_and_separate_ones_no_finite_epsilon():
    assert bounds.gaussian_epsilon(0.0, 0.0) == 0
    assert bounds.gaussian_epsilon(1e-3, 0.0) == 0
    assert bounds.gaussian_epsilon(0.0, 1.0) == np.inf
    assert bounds.gaussian_epsilon(1e-3, np.inf) == np.inf


@pytest.mark.parametrize(
    "function, arguments, message",
    [
        (bounds.gaussian_delta, (1.0, -1.0), "distance must be >= 0"),
        (bounds.gaussian_delta, (1.0, np.nan), "distance must be >= 0"),
        (bounds.gaussian_epsilon, (1.0, 1.0), "delta must be in"),
        (bounds.gaussian_epsilon, (1e-3, -1.0), "distance must be >= 0"),
        (bounds.gaussian_distance, (-1.0, 1e-3), "epsilon must be >= 0"),
        (bounds.gaussian_distance, (1.0, 0.0), "delta must be in"),
        (bounds.clients_needed, (1.0, 1e-3, 10, "torus"), "law must be one of"),
    ],
)
def test_theory_refuses_what_has_no_meaning(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)
