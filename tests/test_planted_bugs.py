"""Bugs planted in a channel with noise contradict what is proved of the channel without them; correct ones do not.

The claim is always the accountant's, of the correct system. `benchmarks/channel_bugs.py` tells how many trials each
bug takes; here every run plans at least three times as many.
"""

import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.special import ndtr

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

import channel_bugs as planted

from jaxaudit.accounting.claims import LEVEL
from jaxaudit.bounds.theory import gaussian_epsilon
from jaxaudit.player import Player
from jaxaudit.types import Range

pytestmark = pytest.mark.usefixtures("strict")

SEED = 20
BUGS = planted.bugs()
TRIALS = {
    "halved, gaussian": 10**4,
    "halved, skellam": 10**4,
    "halved, skellam, 16": 3 * 10**4,
    "halved, discrete, 16": 3 * 10**4,
    "no clip": 10**4,
    "no clip, just": 10**6,
    "noise first, 10": 10**4,
    "share missing, gaussian, 3": 3 * 10**5,
    "share missing, skellam, 3": 3 * 10**5,
    "rounded last, 100": 3 * 10**4,
    "rounded first": 10**5,
}


@pytest.fixture(scope="module")
def player():
    return Player(jax.local_devices()[:1], SEED, lambda name, trials: lambda done: None)


# What is planted


@pytest.mark.parametrize("kind", ["gaussian", "skellam", "discrete"])
def test_the_claims_of_the_correct_systems_are_tight(kind):
    """A Gaussian mechanism with μ = 1 is what they are: exactly, or but for the grid, which only adds a little."""
    claimed = planted.proved(planted.correct()[kind])
    exact = [gaussian_epsilon(delta, 1.0) for delta, _ in claimed]
    np.testing.assert_allclose([epsilon for _, epsilon in claimed], exact, rtol=1e-5 if kind == "gaussian" else 1e-3)


@pytest.mark.parametrize("name", ["gaussian", "skellam"])
def test_the_share_of_one_client_is_what_is_missing(player, name):
    """The sum of two shares of three is what hides ±1. False-alarm rate: 1e-7, by more than five deviations."""
    clients, trials = 3, 10**5
    game = BUGS[f"share missing, {name}, {clients}"]
    (counts,) = player.count(game.plant(game.claimed), "certify", Range(0, trials), [np.array([0.0])])
    # On a grid the middle itself is an error under both hypotheses.
    reach = 1 if name == "gaussian" else 1 - planted.COARSE / 2
    expected = ndtr(-reach / (2 * np.sqrt((clients - 1) / clients)))
    deviation = np.sqrt(expected * (1 - expected) / trials)
    assert abs(counts.errors_h0[0] / trials - expected) < 5.5 * deviation
    assert abs(counts.errors_h1[0] / trials - expected) < 5.5 * deviation


def test_a_channel_in_which_nobody_forgets_is_the_correct_one(player):
    one = planted.audit((planted.CLIP, planted.gaussian()), 3, dim=1)
    correct, forgetful = one.prepare(0).fold(), planted.one_share_missing(one)
    nobody = replace(forgetful.program, aggregator=replace(forgetful.program.aggregator, silent=3))
    scores = [
        player.scores(game, "pilot", 64)[0] for game in (correct, replace(forgetful, program=nobody), forgetful)
    ]
    assert (scores[0].h0 == scores[1].h0).all() and (scores[0].h1 == scores[1].h1).all()
    assert (scores[0].h0 != scores[2].h0).all()


# The verdicts


@pytest.mark.parametrize(("name", "trials"), TRIALS.items(), ids=list(TRIALS))
def test_a_planted_bug_contradicts_the_claim(name, trials):
    bug = BUGS[name]
    assert planted.p_value(bug.plant(bug.claimed), planted.proved(bug.claimed), SEED, trials) <= LEVEL


@pytest.mark.parametrize("kind", ["gaussian", "skellam", "discrete"])
def test_a_correct_system_is_not_accused_and_a_bold_claim_is(kind):
    """The claim is tight: a tenth less is refuted by the same trials. False-alarm rate: 1e-6, by the level."""
    one, trials = planted.correct()[kind], 10**6
    game, claimed = one.prepare(0).game(), planted.proved(one)
    assert planted.p_value(game, claimed, SEED, trials) > LEVEL
    assert planted.p_value(game, [(delta, 0.9 * epsilon) for delta, epsilon in claimed], SEED, trials) <= LEVEL


def test_an_accountant_who_knows_the_bug_is_not_contradicted():
    """The same trials against the claim that counts half of the noise. False-alarm rate: 1e-6, by the level."""
    halved = planted.audit((planted.CLIP, planted.gaussian(scale=0.5)))
    game, trials = halved.prepare(0).game(), TRIALS["halved, gaussian"]
    assert planted.p_value(game, planted.proved(planted.clipped_first(1.0)), SEED, trials) <= LEVEL
    assert planted.p_value(game, planted.proved(halved), SEED, trials) > LEVEL
