"""A covariance by its eigenpairs is the dense matrix, however it was made and whatever the scale.

The oracle is NumPy on the dense matrix; SciPy's `cdist` for distances.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist

from jaxaudit.covariance import Covariance, coordinate_pairs, row_pairs

# (slope, ridge relative to the largest variance, rank)
SETTINGS = [(1.0, 1e-3, 0), (0.7, 1e-6, 0), (1.0, 0.1, 2), (0.3, 1e-2, 1), (1.0, 1e-3, 99), (0.0, 2.0, 0)]


def factor(rows, dim, rank=None, dead=(), seed=0):
    """f32[rows, dim] of some rank, with coordinates that do not vary."""
    rng = np.random.default_rng(seed)
    rank = min(rows, dim) if rank is None else rank
    made = rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, dim))
    made[:, list(dead)] = 0.0
    return made.astype(np.float32)


def dense_of(rows):
    return rows.T.astype(np.float64) @ rows


def made(kind):
    """A covariance made in one of three ways, and the matrix it stands for."""
    if kind.startswith("rows"):
        rows = {"rows": factor(5, 9), "rows, rank 2": factor(6, 9, rank=2), "rows, dead": factor(5, 9, dead=(0, 4))}
        return Covariance.of_rows(rows[kind]), dense_of(rows[kind])
    if kind.startswith("matrix"):
        rows = {
            "matrix": factor(20, 9),
            "matrix, rank 3": factor(20, 9, rank=3),
            "matrix, dead": factor(20, 9, dead=(8,)),
        }
        return Covariance.of_matrix(dense_of(rows[kind])), dense_of(rows[kind])
    variances = {"diagonal": np.arange(9.0) + 1, "diagonal, dead": np.array([3.0, 0, 1, 0, 7, 2, 2, 5, 0])}[kind]
    return Covariance.diagonal(variances), np.diag(variances)


KINDS = [
    *("rows", "rows, rank 2", "rows, dead"),
    *("matrix", "matrix, rank 3", "matrix, dead"),
    *("diagonal", "diagonal, dead"),
]


@pytest.fixture(params=KINDS)
def pair(request):
    return made(request.param)


def strongest(matrix, rank):
    """The matrix without all but its strongest directions; all of them for rank 0."""
    variances, vectors = np.linalg.eigh(matrix)
    kept = vectors[:, ::-1][:, : rank or None]
    return (kept * variances[::-1][: rank or None]) @ kept.T


def test_it_is_the_dense_matrix(pair):
    covariance, matrix = pair
    np.testing.assert_allclose(covariance.dense(), matrix, atol=1e-12 * np.abs(matrix).max())
    assert covariance.dim == len(matrix)


def test_trace_square_and_quadratic_are_those_of_the_matrix(pair):
    covariance, matrix = pair
    vector = np.random.default_rng(1).standard_normal(len(matrix))
    np.testing.assert_allclose(covariance.trace, np.trace(matrix), rtol=1e-12)
    np.testing.assert_allclose(covariance.square, np.sum(matrix**2), rtol=1e-12)
    np.testing.assert_allclose(covariance.quadratic(vector), vector @ matrix @ vector, rtol=1e-11)
    np.testing.assert_allclose(
        covariance.scaled(2.5).dense(), 2.5 * covariance.dense(), atol=1e-13 * np.abs(matrix).max()
    )


def test_variances_fall_and_directions_are_orthonormal(pair):
    covariance, _ = pair
    rank = len(covariance.variances)
    directions = covariance.directions.back(np.eye(rank))
    assert np.all(np.diff(covariance.variances) <= 0) and np.all(covariance.variances >= 0)
    np.testing.assert_allclose(directions @ directions.T, np.eye(rank), atol=1e-9)
    np.testing.assert_allclose(covariance.directions.along(directions), np.eye(rank), atol=1e-9)


def test_numerical_rank_is_that_of_the_matrix():
    ranks = {kind: int(np.sum(made(kind)[0].variances > 0)) for kind in KINDS}
    # Float32 rows of "rank 2" hold their own rounding in the other directions, at 1e-14 of the largest variance.
    ranks["rows, rank 2"] = int(np.sum(made("rows, rank 2")[0].variances > 1e-10 * made("rows, rank 2")[1].max()))
    ranks["matrix, rank 3"] = int(
        np.sum(made("matrix, rank 3")[0].variances > 1e-10 * made("matrix, rank 3")[1].max())
    )
    assert list(ranks.values()) == [5, 2, 5, 9, 3, 8, 9, 6]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_solve_is_that_of_the_dense_matrix(pair, setting):
    covariance, matrix = pair
    slope, ridge, rank = setting
    ridge *= covariance.variances[0]
    vectors = np.random.default_rng(2).standard_normal((3, len(matrix)))
    # Ties among the variances of a diagonal leave the choice of the strongest open; here there are none at the cut.
    whole = slope * strongest(matrix, rank) + ridge * np.eye(len(matrix))
    expected = np.linalg.solve(whole, vectors.T).T
    np.testing.assert_allclose(
        covariance.solve(vectors, slope, ridge, rank), expected, rtol=0, atol=1e-8 * np.abs(expected).max()
    )


def test_many_settings_at_once_are_each_of_them_alone(pair):
    covariance, matrix = pair
    vectors = np.random.default_rng(3).standard_normal((2, len(matrix)))
    settings = [(slope, ridge * covariance.variances[0], rank) for slope, ridge, rank in SETTINGS]
    for together, setting in zip(covariance.solve_each(vectors, settings), settings, strict=True):
        np.testing.assert_allclose(together, covariance.solve(vectors, *setting), rtol=1e-12)


@pytest.mark.parametrize("ridge", [1e-4, 0.3])
def test_distances_are_those_of_mahalanobis(pair, ridge):
    covariance, matrix = pair
    ridge *= covariance.variances[0]
    vectors = np.random.default_rng(4).standard_normal((7, len(matrix))).astype(np.float32)
    inverse = np.linalg.inv(0.8 * matrix + ridge * np.eye(len(matrix)))
    expected = cdist(vectors.astype(float), vectors.astype(float), "mahalanobis", VI=inverse) ** 2
    found = covariance.distances(vectors, 0.8, ridge)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * expected.max())


@pytest.mark.parametrize("rank", [0, 1, 2, 5])
def test_residual_is_what_projection_onto_the_strongest_directions_leaves(pair, rank):
    covariance, matrix = pair
    rank = min(rank, len(covariance.variances))
    vector = np.random.default_rng(5).standard_normal(len(matrix))
    _, vectors = np.linalg.eigh(matrix)
    span = vectors[:, ::-1][:, :rank]
    expected = vector - span @ (span.T @ vector)
    np.testing.assert_allclose(covariance.residual(vector, rank), expected, atol=1e-9)


def test_a_vector_of_the_span_leaves_no_residual(pair):
    covariance, _ = pair
    kept = covariance.variances > 1e-10 * covariance.variances[0]
    vector = covariance.directions.back(np.random.default_rng(6).standard_normal((1, len(kept))) * kept)[0]
    assert np.linalg.norm(covariance.residual(vector, int(kept.sum()))) <= 1e-12 * np.linalg.norm(vector)


def test_wide_float32_rows_are_inverted_as_a_direct_solve_would():
    # 40 updates of 10,000 numbers, as of a large model: more than one slice of columns.
    rows = factor(40, 10_000, seed=7) / np.float32(np.sqrt(40))
    covariance = Covariance.of_rows(rows)
    vectors = np.random.default_rng(8).standard_normal((2, 10_000))
    whole = rows.astype(np.float64)
    for ridge in (1e-6, 1e-2, 1.0):
        ridge *= covariance.trace / 10_000
        # (RᵀR + ρI)⁻¹ x = (x - Rᵀ(RRᵀ + ρI)⁻¹R x) / ρ: the direct solve, without eigenpairs.
        inner = np.linalg.solve(whole @ whole.T + ridge * np.eye(40), whole @ vectors.T)
        expected = (vectors - (whole.T @ inner).T) / ridge
        found = covariance.solve(vectors, 1.0, ridge)
        assert np.linalg.norm(found - expected) <= 1e-8 * np.linalg.norm(expected)
        # Backwards stable: the matrix times the solution is the vector, up to rounding of the largest product.
        back = (whole.T @ (whole @ found.T)).T + ridge * found
        assert np.linalg.norm(back - vectors) <= 1e-13 * covariance.variances[0] * np.linalg.norm(found)


def test_rows_and_matrix_of_the_same_noise_are_one_operator():
    rows = factor(30, 60, seed=9)
    by_rows, by_matrix = Covariance.of_rows(rows), Covariance.of_matrix(dense_of(rows))
    vectors = np.random.default_rng(10).standard_normal((4, 60))
    # A matrix that is nearly singular may keep what rounding makes of its empty directions.
    np.testing.assert_allclose(by_rows.variances, by_matrix.variances[:30], rtol=1e-9)
    assert np.all(by_matrix.variances[30:] <= 1e-13 * by_matrix.variances[0])
    for rank in (0, 3):
        ridge = 1e-3 * by_rows.trace / 60
        left, right = (one.solve(vectors, 1.0, ridge, rank) for one in (by_rows, by_matrix))
        np.testing.assert_allclose(left, right, atol=1e-9 * np.abs(left).max())


def test_known_eigenpairs_are_taken_as_they_are():
    rows = factor(5, 9)
    again = Covariance.of_rows(rows, **row_pairs(rows))
    np.testing.assert_array_equal(again.dense(), Covariance.of_rows(rows).dense())
    matrix = dense_of(factor(20, 9))
    again = Covariance.of_coordinates(9, **coordinate_pairs(matrix))
    np.testing.assert_array_equal(again.dense(), Covariance.of_matrix(matrix).dense())


@pytest.mark.parametrize("exponent", [-12, -6, 6, 12])
@pytest.mark.parametrize("kind", ["rows", "rows, dead", "matrix", "matrix, dead"])
def test_scale_changes_nothing(kind, exponent):
    # A power of two near the power of ten: rows scale without rounding, so only the eigensolver is looked at.
    scale = 2.0 ** round(exponent * np.log2(10))
    if kind.startswith("rows"):
        rows = factor(5, 9, dead=(0, 4) if "dead" in kind else ())
        plain, scaled = Covariance.of_rows(rows), Covariance.of_rows(rows * np.float32(scale))
    else:
        matrix = made(kind)[1]
        plain, scaled = Covariance.of_matrix(matrix), Covariance.of_matrix(matrix * scale**2)
    assert len(plain.variances) == len(scaled.variances)
    np.testing.assert_allclose(scaled.variances, plain.variances * scale**2, rtol=1e-9)
    vectors = np.random.default_rng(11).standard_normal((2, 9))
    ridge = 1e-3 * plain.trace / 9
    expected = plain.solve(vectors, 1.0, ridge)
    found = scaled.solve(vectors * scale, 1.0, ridge * scale**2) * scale
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-9 * np.abs(expected).max())
    np.testing.assert_allclose(
        scaled.residual(vectors[0] * scale, 3) / scale, plain.residual(vectors[0], 3), atol=1e-9
    )


@pytest.mark.parametrize("make", [Covariance.of_rows, Covariance.of_matrix, lambda m: Covariance.diagonal(m[0])])
def test_no_noise_is_a_covariance_too(make):
    nothing = make(np.zeros((4, 4), np.float32))
    vector = np.arange(1.0, 5.0)
    assert nothing.trace == nothing.square == nothing.quadratic(vector) == 0
    np.testing.assert_array_equal(nothing.solve(vector[None], 1.0, 2.0)[0], vector / 2)
    np.testing.assert_array_equal(nothing.dense(), np.zeros((4, 4)))
    np.testing.assert_array_equal(nothing.residual(vector, 0), vector)


numbers = st.floats(-10, 10, width=32).map(lambda x: float(np.float32(round(x, 3))))
rows_of_any_kind = st.tuples(st.integers(1, 6), st.integers(1, 8)).flatmap(
    lambda s: arrays(np.float32, s, elements=numbers)
)


@given(rows=rows_of_any_kind, ridge=st.floats(1e-3, 1e3), slope=st.floats(0, 4))
def test_any_rows_give_the_dense_operator(rows, ridge, slope):
    """Zero rows, repeated rows, more rows than numbers: all of them are some positive semi-definite matrix."""
    matrix = dense_of(rows)
    vectors = np.random.default_rng(0).standard_normal((2, rows.shape[1]))
    expected = np.linalg.solve(slope * matrix + ridge * np.eye(len(matrix)), vectors.T).T
    for covariance in (Covariance.of_rows(rows), Covariance.of_matrix(matrix)):
        np.testing.assert_allclose(covariance.dense(), matrix, atol=1e-10 * (1 + matrix.max()))
        np.testing.assert_allclose(covariance.solve(vectors, slope, ridge), expected, atol=1e-7 / ridge)


@given(rows=rows_of_any_kind, ridge=st.floats(1e-2, 1e2))
def test_distances_are_symmetric_zero_on_the_diagonal_and_positive(rows, ridge):
    found = Covariance.of_rows(rows).distances(rows, 1.0, ridge)
    size = 1e-12 * (1 + np.abs(rows).max() ** 2) * rows.shape[1] / ridge
    assert np.abs(np.diag(found)).max() <= size and found.min() >= -size
    np.testing.assert_allclose(found, found.T, atol=size)
