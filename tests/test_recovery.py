"""What an attack recovers, beside the truth: levels of noise in order, rounds of their own, and nobody made up."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import jaxaudit as ja
from jaxaudit import random, recovery
from jaxaudit.attacks.label_leakage.grading import graded
from jaxaudit.attacks.label_leakage.histograms import overlap
from jaxaudit.recovery import recover

NOISY = ja.Clip(norm=2.0), ja.Gaussian(deviation=0.04)
OWN = 0.02  # the noise multiplier: deviation over clip norm


def prepared_of(*stages, **fields):
    base = {"hidden": 128, "clients": 8, "batch_size": 16, "records": 32, "learning_rate": 1.0}
    return ja.Audit(
        population=ja.Deceived(**base | fields), aggregator=ja.SecureSum(stages=stages), attack=ja.LabelLeakage()
    ).prepare(0)


@pytest.fixture(scope="module")
def noisy():
    return prepared_of(*NOISY)


@pytest.fixture(scope="module")
def found(noisy):
    """Two rounds at every level of noise."""
    return recover(noisy, 0, clients=16)


def column(found, name):
    return [row[name] for row in found.summary["rows"]]


def test_levels_are_in_order_and_the_recipes_own_is_among_them(found):
    levels = column(found, "noise_multiplier")
    assert levels == sorted(set(levels)) and levels[0] == 0
    assert [level for level, own in zip(levels, column(found, "recipe")) if own] == [OWN]


def test_all_is_recovered_without_noise_and_the_less_the_more_there_is(found):
    """Overlap with the truth falls with every level; the last is hardly more than 1 / 10."""
    exact, shared = column(found, "exact"), column(found, "overlap")
    assert exact[0] == 1 and shared[0] == 1 and exact[-3:] == [0, 0, 0]
    assert all(more >= less for more, less in pairwise(exact))
    assert all(more >= less for more, less in pairwise(shared)) and shared[-1] < 0.3
    np.testing.assert_array_equal(found.arrays["found"], found.arrays["truth"])


def test_errors_grow_with_the_noise_multiplier(found):
    """Of the same rounds, noise and nothing else: ten times the noise is ten times the error."""
    errors = dict(zip(column(found, "noise_multiplier"), column(found, "largest_error")))
    assert errors[3.0] / errors[0.3] == pytest.approx(10, rel=1e-2)


def test_intervals_hold_the_rate_and_count_all_clients(found):
    for row in found.summary["rows"]:
        assert row["exact_lower"] <= row["exact"] <= row["exact_upper"]
        assert row["clients"] == 8 * row["rounds"]
    # That none of n fails has a probability of 2.5 % where the rate is 0.025^(1/n).
    first = found.summary["rows"][0]
    assert first["exact_lower"] == pytest.approx(0.025 ** (1 / first["clients"]))


def test_the_decoder_is_told_of_the_clip_only_where_noise_hides_it(found):
    told = column(found, "clip_known")
    assert told == [False] + [True] * (len(told) - 1)
    assert any("told by how much each update was clipped" in note for note in found.summary["notes"])


def test_rounds_are_those_of_the_seed_and_of_a_stream_of_their_own(noisy, found, monkeypatch):
    assert recover(noisy, 0, clients=16).summary == found.summary
    errors = column(found, "largest_error")
    assert column(recover(noisy, 1, clients=16), "largest_error") != errors
    assert len(set(random.STREAMS.values())) == len(random.STREAMS)
    monkeypatch.setattr(recovery, "STREAMS", random.STREAMS | {"recovery": random.CERTIFY})
    assert column(recover(noisy, 0, clients=16), "largest_error") != errors


def test_whoever_drops_out_has_no_truth_and_nothing_is_found():
    prepared = prepared_of(sends="head", dropout=0.5)
    found = recover(prepared, 0, clients=64)
    truth, (row,) = found.arrays["truth"], found.summary["rows"]
    gone = (truth == -1).all(axis=1)
    assert 0 < gone.sum() < 8 and not gone[0]
    np.testing.assert_array_equal(found.arrays["found"], truth)
    # Of 64 seats 8 are the target's, who always sends; of the others half is there, 28 ± 21 at 5.5 deviations.
    assert row["exact"] == 1 and row["rounds"] == 8 and 8 + 7 < row["clients"] < 8 + 49


def test_the_same_clients_without_any_noise_are_one_line(noisy):
    found = recover(prepared_of(), 0)
    (row,) = found.summary["rows"]
    assert (row["noise_multiplier"], row["exact"], row["clip_known"]) == (0.0, 1.0, False)
    assert found.summary["null"]["overlap"] < 0.9 and found.summary["null"]["exact"] < 1
    assert found.summary["classes"] == 10 and found.summary["batch"] == [16]


# The null: what is recovered is of this client and of no other.


def test_what_is_recovered_is_the_clients_own():
    """128 clients, each beside two others, between whom there is no order: of 128 comparisons 64 are won.

    Allowed are ± 31, 5.5 deviations; false alarm below 1e-6.
    """
    found = recover(prepared_of(clients=128, sends="head"), 0, clients=128)
    truth, order = found.arrays["truth"], np.random.default_rng(0).permutation(128)
    np.testing.assert_array_equal(found.arrays["found"], truth)
    found, truth = found.arrays["found"][order], truth[order]
    own, *others = (overlap(found, np.roll(truth, shift, axis=0)) for shift in (0, 1, 2))
    assert (own == 1).all() and np.mean([other.mean() for other in others]) < 0.6
    more = np.sum(others[0] > others[1]) + np.sum(others[0] == others[1]) / 2
    assert abs(more - 64) < 31


def test_the_guess_without_an_attack_is_the_pooled_histogram():
    """Pooled shares 3/4 and 1/4: of batches of 4 it guesses (3, 1), and 3, 2 and 4 labels of 4 are right."""
    truth = np.array([[4, 0], [2, 2], [3, 1], [-1, -1]])
    grades = graded(truth + 0.25, truth, truth)
    assert grades.null_overlap.tolist() == [0.75, 0.75, 1]
    assert grades.null_exact.tolist() == [False, False, True]
    assert grades.exact.all() and (grades.overlap == 1).all() and grades.largest_error == 0.25


# What else there is.


def test_an_attack_that_only_decides_recovers_nothing(noisy):
    assert recover(replace(noisy, responses=replace(noisy.responses, truth=None)), 0) is None
    honest = replace(noisy, audit=replace(noisy.audit, attack=ja.GaussianLRT()))
    assert recover(honest, 0) is None


def test_progress_counts_every_round(noisy):
    seen = []

    def progress(name, rounds):
        seen.append((name, rounds))
        return seen.append

    found = recover(noisy, 0, progress, clients=16)
    (name, planned), *done = seen
    assert name == "recovery" and sum(done) == planned == sum(column(found, "rounds"))


def test_a_clip_leaves_all_of_an_update_that_is_zero(noisy):
    quiet = recovery._with_noise(noisy, 0.0)
    pair = quiet.responses.truth.own
    nothing = replace(pair, h0=np.zeros_like(pair.h0))
    truth = quiet.responses.truth._replace(own=nothing)
    factors = recovery._clip_factors(replace(quiet, responses=replace(quiet.responses, truth=truth)))
    assert factors[-1] == 1 and np.all((factors > 0) & (factors <= 1.001))
