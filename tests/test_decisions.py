"""Many decisions of a round: refused unless they are proved independent, and then of the law of real whole rounds."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ndtr

import jaxaudit as ja
from jaxaudit.bounds.theory import gaussian_epsilon
from jaxaudit.claimed import claim
from jaxaudit.player import Player
from jaxaudit.random import CERTIFY
from jaxaudit.types import Range, Ticket

CLIENTS, DEVIATION = 8, 1.0
NOISY = ja.Clip(norm=1.0), ja.Gaussian(deviation=DEVIATION)
EVERYONE = {"decisions": "all", "preset": "tie", "edits": "norm_and_bias"}


def audit(*stages, attack=None, population=None, **aggregator):
    fields = {"hidden": 128, "clients": CLIENTS, "batch_size": 16, "records": 32, "learning_rate": 1.0}
    return ja.Audit(
        population=ja.Deceived(**fields | (population or {})),
        aggregator=ja.SecureSum(stages=stages, **aggregator),
        attack=ja.LabelLeakage(**attack or {"decisions": "all"}),
    )


@pytest.fixture(scope="module")
def prepared():
    """Every client is a target whose two labels have even odds; clipped to 1, noise of deviation 1 on the sum."""
    return audit(*NOISY, attack=EVERYONE).prepare(0)


@pytest.fixture(scope="module")
def decisions(prepared):
    """Every client's candidates f64[clients, 2, dim], what they are decoded to f64[clients, 2], and how to decode."""
    facts, attack = prepared.responses.sent.facts, prepared.audit.attack
    pairs = prepared.responses.everyone()
    seen = [prepared.seen(pair) for pair in pairs]
    weights = [attack.test(facts, pair, client).weights[0] for client, pair in enumerate(seen)]
    weights = np.stack([own / np.linalg.norm(own) for own in weights])
    ends = np.stack([pair.both[:, 0] @ own for pair, own in zip(seen, weights)])
    return np.stack([pair.both[:, 0] for pair in pairs]), ends, weights


@pytest.fixture(scope="module")
def rounds(prepared, decisions):
    """2,000 real rounds: every client tosses a coin and clips its candidate, and the whole sum gets noise.

    Returns coins bool[rounds, clients] and statistics f64[rounds, clients], 0 in the middle of the candidates.
    """
    candidates, ends, weights = decisions
    channel, numbers = prepared.chain.channel, prepared.chain.params(np.abs(candidates).max())
    coins = np.random.default_rng(0).random((2000, CLIENTS)) < 0.5
    both = jnp.asarray(candidates, jnp.float32)

    @jax.jit
    def play(trials, coins):
        def one(trial, coins):
            ticket, state = Ticket(jnp.uint32(5), jnp.uint32(CERTIFY), trial), channel.init(both.shape[2])
            for client in range(CLIENTS):
                own = both[client, coins[client].astype(jnp.int32)]
                state = channel.add(numbers, state, ticket, jnp.uint32(client), own)
            return jnp.matmul(weights.astype(np.float32), channel.reveal(numbers, state, ticket).total)

        return jax.lax.map(lambda of: one(*of), (trials, coins), batch_size=50)

    totals = np.asarray(play(jnp.arange(2000, dtype=jnp.uint32), jnp.asarray(coins)), np.float64)
    return coins, totals - ends.mean(axis=1)


# The law.


def player(seed=0):
    return Player(jax.local_devices()[:1], seed, lambda name, planned: lambda done: None)


@pytest.fixture(scope="module")
def scores(prepared):
    """Scores of the game, f64[rounds, clients] under both bits: trial t is about client t mod clients."""
    (found,) = player().scores(prepared.game(), "pilot", 16_000)
    return found.h0.reshape(-1, CLIENTS), found.h1.reshape(-1, CLIENTS)


def test_a_decision_has_the_law_of_whole_rounds(rounds, scores):
    """Mean and deviation of every client's statistic under both bits, against 2,000 real rounds with whole vectors.

    32 comparisons within 5.5 standard errors each: false alarm below 2e-6.
    """
    coins, found = rounds
    for bit, of_game in enumerate(scores):
        for client in range(CLIENTS):
            real, game = found[coins[:, client] == bit, client], of_game[:, client]
            sizes = 1 / len(real) + 1 / len(game)
            assert abs(real.mean() - game.mean()) < 5.5 * np.sqrt(sizes)
            assert abs(real.std() - game.std()) < 5.5 * np.sqrt(sizes / 2)


def test_a_decision_is_that_of_the_game_about_one_client(prepared, decisions):
    """The same separation, in deviations, as where client 0 alone decides: 2 S / σ but for what other layers take."""
    _, ends, _ = decisions
    one = replace(prepared, audit=replace(prepared.audit, attack=ja.LabelLeakage(**EVERYONE | {"decisions": "one"})))
    shifts = (ends[:, 1] - ends[:, 0]) / DEVIATION
    assert one.game().distance[0] == pytest.approx(shifts[0], rel=1e-4)
    assert prepared.game().distance[0] == pytest.approx(shifts.mean(), rel=1e-4)
    assert shifts.min() > 1.98 and shifts.max() <= 2 * (1 + 1e-5)


def dispersion(noise):
    """Variance of the number of false positives in a round, over that of as many independent ones."""
    wrong = noise > 0.995
    chances = wrong.mean(axis=0)
    return wrong.sum(axis=1).var() / (chances * (1 - chances)).sum()


def test_errors_of_a_round_vary_like_independent_ones(rounds, decisions):
    """Over 2,000 rounds the ratio is 1 ± 0.032; 5.5 standard errors are allowed, false alarm below 1e-6.

    Noise of which half is common to all clients has the same error rates, and is caught.
    """
    (coins, found), (_, ends, _) = rounds, decisions
    noise = found - np.where(coins, 1, -1) * (ends[:, 1] - ends[:, 0]) / 2
    limit = 5.5 * np.sqrt(2 / len(noise))
    assert abs(dispersion(noise) - 1) < limit
    common = np.random.default_rng(1).standard_normal((len(noise), 1))
    assert dispersion((noise + DEVIATION * common) / np.sqrt(2)) > 1 + 4 * limit


def test_error_rates_are_those_of_the_gaussian_law(rounds, scores):
    """Φ(-1) at the middle, in real rounds and in the game; 5.5 standard errors, false alarm below 1e-6."""
    coins, found = rounds
    for wrong in ((found > 0) != coins, scores[0] > 0, scores[1] < 0):
        rate = ndtr(-0.995)
        assert abs(wrong.mean() - rate) < 5.5 * np.sqrt(rate * (1 - rate) / wrong.size)


def test_trials_about_a_client_and_a_round_have_noise_of_their_own(scores):
    h0, h1 = scores
    shift = np.broadcast_to(np.median(h1 - h0, axis=0), h0.shape)
    np.testing.assert_allclose(h1 - h0, shift, atol=1e-6)
    assert len(np.unique(h0 - h0.mean(axis=0))) == h0.size


# What is certified.


def test_the_statement_is_about_the_largest_epsilon_and_claims_agree(prepared):
    (cell,) = prepared.cells
    assert prepared.statement(cell).startswith("Lower bound on the largest ε of 8 mechanisms, one for each client")
    epsilon = gaussian_epsilon(1e-3, 2 / DEVIATION)
    assert claim(prepared, cell, (1e-3,)).epsilons[0] == pytest.approx(epsilon, rel=1e-4)


def test_trials_of_many_laws_are_not_called_nested(prepared):
    """The bounds for nested trials are for one law; 1,000 trials of eight clients are 125 of each."""
    game = prepared.game()
    assert game.design(0) == "paired"
    counts = player().count(game, "certify", Range(0, 1000), [np.array([0.0])])[0]
    assert counts.trials_h0 == counts.trials_h1 == 1000
    assert player(1).count(game, "certify", Range(0, 1000), [np.array([0.0])])[0].errors_h0 != counts.errors_h0


# What is refused.

COINS = ja.FixedPoint(step=2.0**-10, clip_range=1.0)


def refusal(prepared):
    """The one line that the game of decisions is refused with."""
    with pytest.raises(ValueError) as refused:
        prepared.game()
    message = str(refused.value)
    assert 'set attack.decisions = "one"' in message and "\n" not in message
    return message


@pytest.mark.parametrize(
    "stages, words",
    [
        ((), "no noise is added"),
        ((ja.Clip(norm=1.0),), "no noise is added"),
        ((ja.Clip(norm=1.0), COINS, ja.Gaussian(deviation=1.0)), "there is a fixed_point stage"),
        ((ja.Rotate(), *NOISY), "there is a rotate stage"),
        ((ja.Clip(norm=1.0), COINS, ja.DiscreteGaussian(deviation=4.0)), "there is a fixed_point stage"),
        ((ja.Clip(norm=1.0), ja.TopK(k=9), ja.Gaussian(deviation=1.0)), "there is a top_k stage"),
        ((ja.Gaussian(deviation=1.0, where="distributed"), ja.Clip(norm=1.0)), "a stage follows the clients' noise"),
    ],
    ids=["plain", "clip", "fixed point", "rotated", "discrete", "selected", "noise first"],
)
def test_channels_that_correlate_decisions_are_refused(stages, words, prepared):
    bare = replace(prepared.responses, certify=prepared.responses.certify.pool)
    assert words in refusal(replace(prepared, chain=audit(*stages).chain(bare)))


@pytest.mark.parametrize("protocol", [{"survivors": "hidden"}, {"minimum": 4}, None], ids=str)
def test_rounds_that_are_not_all_alike_are_refused(protocol, prepared):
    """Survivors that are not told, rounds that may be aborted, and dropouts."""
    bare, (cell,) = replace(prepared.responses, certify=prepared.responses.certify.pool), prepared.cells
    if protocol:
        assert refusal(replace(prepared, chain=audit(*NOISY, **protocol).chain(bare)))
    else:
        server = replace(cell.server, attendance=((6, 0.5), (7, 0.5)))
        found = refusal(replace(prepared, cells=(replace(cell, server=server),)))
        assert "who takes part is not the same in every round" in found


def test_clients_that_send_what_another_decision_reads_are_refused(prepared):
    """One entry of one candidate of one client is enough."""
    pairs = list(prepared.responses.everyone())
    more = pairs[1].h1.copy()
    more[0, prepared.responses.sent.exclusive[0]] = 1e-3
    pairs[1] = replace(pairs[1], h1=more)
    leaky = replace(prepared, responses=replace(prepared.responses, everyone=lambda: tuple(pairs)))
    assert "an update of one client has entries that another's statistic reads" in refusal(leaky)


def test_weight_decay_in_the_entries_of_others_is_refused():
    """What a clip leaves of it depends on the bit of the client that sends it."""
    decaying = audit(*NOISY, attack=EVERYONE, population={"weight_decay": 0.01}).prepare(0)
    assert "an update of one client has entries that another's statistic reads" in refusal(decaying)


def test_several_pairs_are_refused():
    several = audit(*NOISY, attack=EVERYONE, population={"pair": ("all_labels", "presence")}).prepare(0)
    with pytest.raises(ValueError, match="for several pairs or cohort sizes; name one pair"):
        several.game()


def test_models_that_share_channels_are_refused():
    with pytest.raises(ValueError, match='decisions is "all", allowed is "one" unless design = disjoint'):
        ja.LabelLeakage(decisions="all", design="hadamard")
