"""A user's own updates: every format reads the same, pools are disjoint, and bad files are refused in one line."""

import numpy as np
import pytest
from safetensors.numpy import save_file

import jaxaudit as ja
from jaxaudit.populations import imports
from jaxaudit.populations.moments import regularise
from jaxaudit.types import Pair

RNG = np.random.default_rng(7)
UPDATES = RNG.standard_normal((60, 5)).astype(np.float32)


def responded(path, seed=0, **fields):
    return ja.Arrays(path=str(path), clients=4, **fields).respond(seed, None)


def rows_of(*pools):
    """Which rows of the file the pools draw from."""
    return np.concatenate([source.order for pool in pools for source in pool.sources])


def test_every_format_gives_the_same_pool(tmp_path):
    np.save(tmp_path / "u.npy", UPDATES)
    np.savez(tmp_path / "u.npz", updates=UPDATES)
    save_file({"updates": UPDATES}, tmp_path / "u.safetensors")
    suffixes = (".npy", ".npz", ".safetensors")
    moments = [responded(tmp_path / f"u{suffix}").certify.moments(3)[0] for suffix in suffixes]
    for other in moments[1:]:
        np.testing.assert_array_equal(moments[0].mean, other.mean)
        np.testing.assert_array_equal(moments[0].covariance.dense(), other.covariance.dense())


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_large_formats_stay_on_disk(tmp_path, suffix, monkeypatch):
    read, whole = [], imports.read_arrays
    monkeypatch.setattr(imports, "read_arrays", lambda *args: read.append(whole(*args)) or read[-1])
    np.save(tmp_path / "u.npy", UPDATES)
    save_file({"updates": UPDATES, "client": np.repeat(np.arange(12), 5)}, tmp_path / "u.safetensors")
    responded(tmp_path / f"u{suffix}").certify.moments(3)
    assert read and all(isinstance(arrays["updates"], np.memmap) for arrays in read)


def test_moments_are_those_of_independent_draws_from_the_pool(tmp_path):
    np.save(tmp_path / "u.npy", UPDATES)
    pool = responded(tmp_path / "u.npy").certify
    rows, (moments,) = UPDATES[rows_of(pool)].astype(np.float64), pool.moments(3)
    np.testing.assert_allclose(moments.mean, 3 * rows.mean(0), atol=1e-12)
    np.testing.assert_allclose(moments.covariance.dense(), 3 * np.cov(rows.T, bias=True), atol=1e-12)


@pytest.mark.parametrize("known", [True, False])
def test_target_fit_and_certify_are_disjoint(tmp_path, known):
    client = np.repeat(np.arange(12), 5)
    np.savez(tmp_path / "u.npz", updates=UPDATES, **({"client": client} if known else {}))
    responses = responded(tmp_path / "u.npz")
    fit, certify = (rows_of(pool) for pool in (responses.fit, responses.certify))
    target = np.setdiff1d(np.arange(60), np.concatenate([fit, certify]))
    assert not set(fit) & set(certify) and len(target) == (5 if known else 2)
    if known:
        assert not set(client[fit]) & set(client[certify]) and len(set(client[target])) == 1


def test_pairs_are_what_they_say(tmp_path):
    np.savez(tmp_path / "u.npz", updates=UPDATES)
    np.savez(tmp_path / "pair.npz", h0=np.zeros(5), h1=np.arange(5.0))
    chosen = {}
    for pair in ("random", "zeroed", "worst", str(tmp_path / "pair.npz")):
        responses = responded(tmp_path / "u.npz", pair=pair)
        (chosen[pair],) = responses.choose_pairs(responses.fit.moments(3))
        assert chosen[pair].name == pair and chosen[pair].h0.shape == chosen[pair].h1.shape == (1, 5)
    fit, target = rows_of(responses.fit), set(map(bytes, UPDATES[_target(responses)]))
    assert {bytes(chosen["random"].h0), bytes(chosen["random"].h1)} == target
    assert not chosen["zeroed"].h0.any() and bytes(chosen["zeroed"].h1) in target
    assert bytes(chosen["worst"].h0) in set(map(bytes, UPDATES[fit]))
    np.testing.assert_array_equal(chosen[str(tmp_path / "pair.npz")].h1, [np.arange(5)])
    assert all(isinstance(pair, Pair) and pair.adjacency for pair in chosen.values())


def test_worst_pair_is_the_farthest_by_brute_force(tmp_path):
    np.savez(tmp_path / "u.npz", updates=UPDATES)
    responses = responded(tmp_path / "u.npz", pair="worst")
    (moments,) = responses.fit.moments(3)
    (pair,) = responses.choose_pairs([moments])
    slope, ridge = regularise(moments, "oas", 1e-6)
    inverse = np.linalg.inv(slope * moments.covariance.dense() + ridge * np.eye(5))
    rows = UPDATES[rows_of(responses.fit)].astype(np.float64)
    longest = max((a - b) @ inverse @ (a - b) for a in rows for b in rows)
    (difference,) = pair.difference
    assert difference @ inverse @ difference == pytest.approx(longest)


def _target(responses):
    return np.setdiff1d(np.arange(60), rows_of(responses.fit, responses.certify))


def _object_array(path):
    np.savez(path, updates=np.array([{"a": 1}], dtype=object))


def _truncated(path):
    np.savez(path, updates=UPDATES)
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "not found"),
        (_object_array, "without pickle"),
        (_truncated, "cannot be read as .npz"),
        (lambda p: np.savez(p, other=UPDATES), "no array 'updates', it holds 'other'"),
        (lambda p: np.savez(p, updates=UPDATES[0]), r"shape \(5,\), allowed are 2 axes"),
        (lambda p: np.savez(p, updates=UPDATES.astype(str)), "allowed are real numbers"),
        (
            lambda p: np.savez(p, updates=np.where(UPDATES[41, 2] == UPDATES, np.nan, UPDATES)),
            r"updates\[41\] holds NaN",
        ),
        (lambda p: np.savez(p, updates=UPDATES, client=np.arange(3)), "3 client numbers for 60 updates"),
        (lambda p: np.savez(p, updates=UPDATES[:6]), "holds only 2 of 6 updates; allowed are cohorts up to 3"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, make, message):
    make(tmp_path / "u.npz")
    with pytest.raises(ValueError, match=message) as caught:
        responded(tmp_path / "u.npz")
    assert "\n" not in str(caught.value)


def test_other_formats_are_refused_with_those_that_are_read(tmp_path):
    (tmp_path / "u.csv").write_text("1,2\n")
    with pytest.raises(ValueError, match=r"u\.csv: got suffix '\.csv', allowed are \.npy, \.npz, \.safetensors"):
        responded(tmp_path / "u.csv")


def test_damaged_safetensors_are_refused(tmp_path):
    (tmp_path / "u.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(ValueError, match=r"cannot be read as \.safetensors"):
        responded(tmp_path / "u.safetensors")


@pytest.mark.parametrize(
    ("h1", "message"),
    [(np.zeros(4), r"'h1' has shape \(4,\), allowed is \(5,\)"), (np.full(5, np.inf), "h1.* holds NaN or infinity")],
)
def test_bad_pairs_are_refused(tmp_path, h1, message):
    np.savez(tmp_path / "u.npz", updates=UPDATES)
    np.savez(tmp_path / "pair.npz", h0=np.zeros(5), h1=h1)
    with pytest.raises(ValueError, match=message):
        responded(tmp_path / "u.npz", pair=str(tmp_path / "pair.npz"))
