"""Exact sums, and shrinkage that equals scikit-learn's."""

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf, oas

from jaxaudit.populations.moments import exact_moments, regularise

ROWS = np.random.default_rng(0).standard_normal((50, 20)) * np.arange(1, 21) + 1e4


def of_chunks(*chunks):
    return exact_moments([(chunks, 1)], dim=20, freedom=20)


def test_chunks_do_not_matter_even_far_from_the_origin():
    whole, cut = of_chunks(ROWS), of_chunks(ROWS[:7], ROWS[7:])
    np.testing.assert_allclose(whole.covariance, np.cov(ROWS.T, bias=True), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(whole.covariance, cut.covariance, rtol=1e-9, atol=1e-9)
    assert whole.fourth == pytest.approx(cut.fourth)


def test_seats_add_up():
    two = exact_moments([([ROWS[:25]], 3), ([ROWS[25:]], 1)], dim=20, freedom=20)
    expected = 3 * np.cov(ROWS[:25].T, bias=True) + np.cov(ROWS[25:].T, bias=True)
    np.testing.assert_allclose(two.covariance, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(two.mean, 3 * ROWS[:25].mean(0) + ROWS[25:].mean(0))


@pytest.mark.parametrize(("name", "reference"), [("ledoit_wolf", ledoit_wolf), ("oas", oas)])
def test_shrinkage_equals_scikit_learn(name, reference):
    np.testing.assert_allclose(regularise(of_chunks(ROWS), 1, name, 0.0), reference(ROWS)[0], rtol=1e-8, atol=1e-8)


def test_ridge_adds_its_share_of_the_mean_variance():
    moments = of_chunks(ROWS)
    added = regularise(moments, 1, "ridge", 0.5) - moments.covariance
    np.testing.assert_allclose(added, 0.5 * np.trace(moments.covariance) / 20 * np.eye(20), atol=1e-9)
