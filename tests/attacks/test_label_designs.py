"""Embedding designs: gain and condition in closed form, and how many clients they carry."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxaudit.attacks.label_leakage.designs import (
    capacity,
    condition,
    design,
    gain,
    require_conditioned,
    stealthy,
)

POWERS = [(2, 1), (8, 7), (64, 2), (64, 50), (64, 63), (512, 100), (512, 511)]
TRUNCATED = [48, 84, 100, 120, 320, 500]


@pytest.mark.parametrize(("dim", "clients"), POWERS)
def test_hadamard_rows_have_the_gain_and_condition_of_a_weighing_design(dim, clients):
    rows = design("hadamard", clients, dim)
    assert set(np.unique(rows)) == {0, 1}
    assert gain(rows) == pytest.approx(2 / np.sqrt(dim) * np.sqrt(clients / (clients + 1)), rel=1e-9)
    assert condition(rows) == pytest.approx(np.sqrt(1 + clients) if clients > 1 else 1, rel=1e-9)
    length = np.linalg.norm(rows, axis=1).mean()
    assert gain(rows) * length == pytest.approx(np.sqrt(2 * clients / (clients + 1)), rel=1e-9)


@pytest.mark.parametrize(("dim", "clients"), [*POWERS, (64, 64), (512, 512)])
def test_signed_rows_are_orthogonal(dim, clients):
    rows = design("signed", clients, dim)
    np.testing.assert_array_equal(rows @ rows.T, dim * np.eye(clients))
    assert gain(rows) == pytest.approx(1 / np.sqrt(dim), rel=1e-9)
    assert condition(rows) == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize(("dim", "clients"), [(8, 8), (64, 4), (500, 50), (512, 512), (100, 1)])
def test_disjoint_channels_have_the_gain_of_their_number(dim, clients):
    rows, width = design("disjoint", clients, dim), dim // clients
    np.testing.assert_array_equal(rows @ rows.T, width * np.eye(clients))
    assert gain(rows) == pytest.approx(1 / np.sqrt(width), rel=1e-9)
    assert condition(rows) == pytest.approx(1, rel=1e-9)
    assert gain(rows, bias=True) == pytest.approx(np.sqrt((1 - 1 / (width + clients)) / width), rel=1e-9)


@given(st.integers(1, 80), st.data())
def test_every_channel_has_one_owner_and_shares_are_even(dim, data):
    first = data.draw(st.integers(0, dim))
    clients = data.draw(st.integers(1, capacity("disjoint", dim, first=first)))
    rows = design("disjoint", clients, dim, first=first)
    widths = rows.sum(axis=1)
    assert rows.shape == (clients, dim)
    assert set(np.unique(rows)) <= {0, 1}
    np.testing.assert_array_equal(rows.sum(axis=0), 1)
    assert widths.min() >= 1
    assert widths[0] >= first
    assert widths[1:].max(initial=1) - widths[1:].min(initial=dim) <= 1
    np.testing.assert_array_equal(rows @ rows.T, np.diag(widths))


@given(st.integers(1, 6), st.integers(6, 9), st.integers(0, 2**32 - 1), st.booleans())
def test_gain_is_the_root_mean_diagonal_of_the_inverse(clients, dim, seed, bias):
    rows = np.random.default_rng(seed).standard_normal((clients, dim))
    read = np.hstack([rows, np.ones((clients, 1))]) if bias else rows
    inverse = np.linalg.inv(read @ read.T)
    assert gain(rows, bias=bias) == pytest.approx(np.sqrt(np.diag(inverse).mean()), rel=1e-6)
    assert condition(rows) == pytest.approx(np.linalg.cond(rows), rel=1e-9)


@pytest.mark.parametrize("dim", [5, 33, *TRUNCATED])
@pytest.mark.parametrize("name", ["hadamard", "signed"])
def test_truncated_designs_carry_as_many_clients_as_they_say(name, dim):
    bound = {"hadamard": 2, "signed": 1}[name] / np.sqrt(dim)
    most = capacity(name, dim)
    assert most == dim - (name == "hadamard")
    # At dimensions of hundreds a spectrum takes its time.
    for clients in (2, 3 * dim // 4, most) if dim < 200 else (dim // 4, most):
        rows = design(name, clients, dim)
        assert rows.shape == (clients, dim)
        assert set(np.unique(rows)) <= ({0, 1} if name == "hadamard" else {-1, 1})
        require_conditioned(rows)
        worse = 1.15 if clients <= 3 * dim // 4 else 1.9
        assert gain(rows) <= worse * bound * (np.sqrt(clients / (clients + 1)) if name == "hadamard" else 1)


@pytest.mark.parametrize("dim", [64, 512, *TRUNCATED])
def test_no_hadamard_row_is_all_ones(dim):
    assert not design("hadamard", dim - 1, dim).all(axis=1).any()


@pytest.mark.parametrize("dim", [16, 512])
def test_the_row_of_ones_would_spoil_the_condition(dim):
    rows = design("hadamard", dim - 1, dim)
    assert condition(np.vstack([np.ones(dim), rows])) == pytest.approx((dim + 4) / 2, rel=0.02)


def test_half_of_the_channels_win_for_bounded_entries_and_disjoint_ones_for_bounded_norms():
    alone, shared = design("disjoint", 511, 512), design("hadamard", 511, 512)
    assert gain(alone) / gain(shared) > 0.99 * np.sqrt(512) / 2
    lengths = [np.linalg.norm(rows, axis=1).mean() for rows in (alone, shared)]
    assert gain(shared) * lengths[1] > 1.41 * gain(alone) * lengths[0]


@pytest.mark.parametrize("name", ["disjoint", "hadamard", "signed"])
@pytest.mark.parametrize("dim", [1, 2, 48, 64])
def test_more_clients_than_a_design_carries_are_refused(name, dim):
    most = capacity(name, dim)
    if most:
        assert np.isfinite(condition(design(name, most, dim)))
    with pytest.raises(ValueError, match=rf"carries 1 to {most} clients on {dim} channels, asked are {most + 1};"):
        design(name, most + 1, dim)
    with pytest.raises(ValueError, match="asked are 0"):
        design(name, 0, dim)


def test_channels_kept_for_the_first_client_leave_fewer():
    assert capacity("disjoint", 64, first=16) == 49
    with pytest.raises(ValueError, match="carries 1 to 49 clients on 64 channels, asked are 50;"):
        design("disjoint", 50, 64, first=16)
    with pytest.raises(ValueError, match="first is 16 for design 'hadamard', allowed is 0"):
        design("hadamard", 5, 64, first=16)


def test_pixels_of_a_channel_add_no_rank():
    shifts = np.random.default_rng(0).uniform(size=(10, 6))
    with pytest.raises(ValueError, match="embeddings of 10 clients have rank 6, needed is 10;"):
        require_conditioned(np.repeat(shifts, 16, axis=1))
    require_conditioned(np.repeat(shifts[:5], 16, axis=1))


def test_dependent_embeddings_have_no_finite_gain():
    assert gain(np.ones((2, 3))) > 1e7
    assert gain(np.ones((4, 3))) == np.inf
    assert condition(np.ones((4, 3))) == np.inf


def test_embeddings_that_nearly_agree_are_refused():
    rows = np.array([[1.0, 1.0], [1.0, 1.001]])
    with pytest.raises(ValueError, match=r"embeddings of 2 clients have condition 4e\+03, allowed are up to 1000;"):
        require_conditioned(rows)
    require_conditioned(rows, largest=5e3)


@pytest.mark.parametrize("gamma", [0.0, 0.1, 1.0])
def test_stealthy_shifts_cut_off_ten_deviations(gamma):
    support = design("disjoint", 4, 16) > 0
    shifts = stealthy(support, 9.5, gamma)
    np.testing.assert_array_equal(shifts[support], 9.5)
    for deviation in (-10.0, 10.0):
        assert (np.maximum(gamma * deviation + shifts, 0)[~support] == 0).all()
