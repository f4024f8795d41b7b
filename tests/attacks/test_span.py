"""Perfect distinguishability: three verdicts at any scale of the updates, and a certificate beside the words."""

from dataclasses import replace

import numpy as np
import pytest

import jaxaudit as ja
from jaxaudit.attacks.span import judge
from jaxaudit.bounds import epsilon_at
from jaxaudit.types import Pair

DIM = 40
SCALES = [1.0, 0.1, 0.01, 0.001]


def judged(tmp_path, updates, h0, h1, scale=1.0, clients=11):
    np.save(tmp_path / "u.npy", (scale * updates).astype(np.float32))
    np.savez(tmp_path / "pair.npz", h0=(scale * h0).astype(np.float32), h1=(scale * h1).astype(np.float32))
    audit = ja.Audit(
        population=ja.Arrays(path=str(tmp_path / "u.npy"), clients=clients, pair=str(tmp_path / "pair.npz")),
        aggregator=ja.SecureSum(),
        attack=ja.GaussianLRT(),
    )
    prepared = audit.prepare(0)
    truth = prepared.responses.certify.moments(clients - 1)
    return audit, judge(truth, prepared.cells[0].pair)


def low_rank(rank, size=400):
    rng = np.random.default_rng(rank)
    basis = np.linalg.qr(rng.standard_normal((DIM, DIM)))[0]
    return rng.standard_normal((size, rank)) @ basis[:, :rank].T, basis


@pytest.mark.parametrize("scale", SCALES)
def test_off_span_pair_is_perfectly_distinguishable_for_this_pool(tmp_path, scale):
    updates, basis = low_rank(15)
    h1 = updates[0] + 0.01 * np.linalg.norm(updates[0]) * basis[:, 30]
    _, verdict = judged(tmp_path, updates, updates[0], h1, scale)
    assert verdict.kind == "for this pool" and verdict.rank == 15
    assert "says nothing about new clients" in verdict.words


@pytest.mark.parametrize("scale", SCALES)
def test_pair_in_the_span_is_not(tmp_path, scale):
    updates, _ = low_rank(15)
    _, verdict = judged(tmp_path, updates, updates[0], updates[1], scale)
    assert verdict.kind == "in span" and not verdict.off_span.any()


@pytest.mark.parametrize("scale", SCALES)
def test_too_few_recordings_leave_it_undetermined(tmp_path, scale):
    updates, basis = low_rank(DIM, size=42)  # 20 certify: rank 19 of 40 is all that they can show
    _, verdict = judged(tmp_path, updates, np.zeros(DIM), 3 * basis[:, 7], scale)
    assert verdict.kind == "undetermined"


def test_recordings_fewer_than_dimensions_are_undetermined_even_with_duplicates(tmp_path):
    updates, basis = low_rank(DIM, size=42)
    updates[1::2] = updates[::2]
    _, verdict = judged(tmp_path, updates, np.zeros(DIM), 3 * basis[:, 7])
    assert verdict.kind == "undetermined"


def test_a_weak_direction_that_hides_the_pair_is_no_perfect_distinguisher(tmp_path):
    """One coordinate has 1e-7 of the others' noise, and the candidates differ there by less than that."""
    updates = np.random.default_rng(0).standard_normal((400, DIM))
    updates[:, 3] *= 1e-7
    h1 = np.zeros(DIM)
    h1[3] = 1e-7
    _, verdict = judged(tmp_path, updates, np.zeros(DIM), h1)
    assert verdict.kind == "in span"


def test_a_known_law_is_believed_however_uneven():
    population = ja.Synthetic(law="gaussian", dim=2, clients=5, spectrum=(1.0, 1e-14), pair="antipodal")
    responses = population.respond(0, None)
    h1 = np.float32([[0, 1e-7]])
    pair = Pair("test", np.zeros((1, 2), np.float32), h1, "replace", "test")
    assert judge(responses.certify.moments(4), pair, responses.structural(pair)).kind == "in span"


def test_held_out_and_in_pool_candidates_get_the_same_verdict_when_the_pool_is_large(tmp_path):
    updates, _ = low_rank(15, size=402)
    fresh = low_rank(15, size=500)[0][-2:]
    kinds = {judged(tmp_path, updates, *pair)[1].kind for pair in (updates[:2], fresh)}
    assert kinds == {"in span"}


def test_structural_verdict_comes_from_the_law():
    population = ja.Synthetic(law="gaussian", dim=3, clients=5, spectrum=(0.0, 1.0, 1.0))
    responses = population.respond(0, None)
    moments = responses.certify.moments(4)
    (pair,) = responses.choose_pairs(moments)
    moved = replace(pair, h1=pair.h0 + np.float32([1, 0, 0]))
    assert responses.structural(pair) is None
    verdict = judge(moments, moved, responses.structural(moved))
    assert verdict.kind == "structural" and "coordinate 0 of the sum has no variance" in verdict.words


@pytest.mark.parametrize("scale", [1.0, 0.001])
def test_off_span_score_is_certified_to_its_ceiling_on_fresh_trials(tmp_path, scale):
    updates, basis = low_rank(15)
    h1 = updates[0] + 0.05 * np.linalg.norm(updates[0]) * basis[:, 30]
    audit, _ = judged(tmp_path, updates, updates[0], h1, scale)
    finding = ja.run(audit, trials=5000, deltas=[1e-3]).headline
    bound = epsilon_at(*finding.off_span, 1e-3, finding.confidence)
    assert bound.epsilon == pytest.approx(bound.ceiling) and bound.trials == 5000
    assert bound.errors_h0 == bound.errors_h1 == 0 and bound.censored


def test_no_off_span_certificate_without_an_off_span_part(tmp_path):
    updates, _ = low_rank(15)
    audit, _ = judged(tmp_path, updates, updates[0], updates[1])
    assert ja.run(audit, trials=5000, deltas=[1e-3]).headline.off_span is None
