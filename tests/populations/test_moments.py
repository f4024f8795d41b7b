"""Exact sums, and shrinkage that equals scikit-learn's."""

from dataclasses import dataclass

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf, oas

from jaxaudit.populations import source as source_module
from jaxaudit.populations.moments import Mixture, exact_moments, regularise

ROWS = np.random.default_rng(0).standard_normal((50, 20)) * np.arange(1, 21) + 1e4


@dataclass(frozen=True)
class Groups:
    """Recorded updates in memory, group by group."""

    groups: tuple[np.ndarray, ...]
    dim: int = 20
    key: None = None

    @property
    def sizes(self):
        return np.array([len(rows) for rows in self.groups])

    def freedom(self, groups):
        return self.dim

    def rows(self, first, last):
        return np.concatenate(self.groups[first:last])


# One draw from all rows: from a single client that recorded them all, or from clients that recorded one each.
ONE_DRAW = {
    "one client": (Groups((ROWS,)), Mixture(1, 1, 1.0, 0.0)),
    "many clients": (Groups(tuple(ROWS[:, None])), Mixture(50, 1, 1 / 50, 1 / 50)),
}
one_draw = pytest.mark.parametrize("source, mixture", ONE_DRAW.values(), ids=ONE_DRAW)


@one_draw
def test_blocks_do_not_matter_even_far_from_the_origin(source, mixture, monkeypatch):
    whole = exact_moments(source, mixture)
    monkeypatch.setattr(source_module, "_NUMBERS", 7 * source.dim)
    cut = exact_moments(source, mixture)
    np.testing.assert_allclose(whole.covariance.dense(), np.cov(ROWS.T, bias=True), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(whole.covariance.dense(), cut.covariance.dense(), rtol=1e-9, atol=1e-9)
    assert whole.fourth == pytest.approx(cut.fourth)


@pytest.mark.parametrize("block", [7, 1000])
def test_seats_add_up(block, monkeypatch):
    """Three seats for each of two clients, who recorded 20 and 30 updates."""
    monkeypatch.setattr(source_module, "_NUMBERS", block * 20)
    six = exact_moments(Groups((ROWS[:20], ROWS[20:])), Mixture(2, 6, 3.0, 0.0))
    expected = 3 * np.cov(ROWS[:20].T, bias=True) + 3 * np.cov(ROWS[20:].T, bias=True)
    np.testing.assert_allclose(six.covariance.dense(), expected, rtol=1e-9, atol=1e-9)
    assert (six.terms, six.samples) == (6, 50)
    np.testing.assert_allclose(six.mean, 3 * ROWS[:20].mean(0) + 3 * ROWS[20:].mean(0))


@pytest.mark.parametrize("block", [7, 1000])
def test_clients_are_drawn_before_their_updates(block, monkeypatch):
    """Three independent clients, each as likely as the other however many updates it recorded."""
    monkeypatch.setattr(source_module, "_NUMBERS", block * 20)
    three = exact_moments(Groups((ROWS[:20], ROWS[20:])), Mixture(2, 3, 3 / 2, 3 / 2))
    chance = np.repeat([1 / 40, 1 / 60], [20, 30])
    np.testing.assert_allclose(
        three.covariance.dense(), 3 * np.cov(ROWS.T, aweights=chance, bias=True), rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose(three.mean, 3 * chance @ ROWS)


@one_draw
@pytest.mark.parametrize(("name", "reference"), [("ledoit_wolf", ledoit_wolf), ("oas", oas)])
def test_shrinkage_equals_scikit_learn(source, mixture, name, reference):
    moments = exact_moments(source, mixture)
    slope, ridge = regularise(moments, name, 0.0)
    shrunk = slope * moments.covariance.dense() + ridge * np.eye(20)
    np.testing.assert_allclose(shrunk, reference(ROWS)[0], rtol=1e-8, atol=1e-8)


def test_ridge_adds_its_share_of_the_mean_variance():
    moments = exact_moments(*ONE_DRAW["many clients"])
    slope, ridge = regularise(moments, "ridge", 0.5)
    assert slope == 1
    assert ridge == pytest.approx(0.5 * np.trace(moments.covariance.dense()) / 20, rel=0, abs=1e-9)
