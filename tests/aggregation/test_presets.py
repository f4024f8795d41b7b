"""Deployed stacks: their constants, and that their sums decode to sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxaudit.aggregation.presets import flower_secaggplus, tff_distributed_dp, tff_granularity, tff_sum
from jaxaudit.random import Ticket

DIM, CLIENTS = 12, 5
UPDATES = np.random.default_rng(0).uniform(-0.5, 0.5, (CLIENTS, DIM)).astype(np.float32)
TICKET = Ticket(jnp.uint32(1), jnp.uint32(2), jnp.uint32(3))
DDP = {"clip": 4.0, "noise_multiplier": 0.5, "clients": CLIENTS, "dim": DIM}


def revealed(aggregator, updates):
    """What the server sees of some updates."""
    chain = aggregator.fitted(DIM, CLIENTS, varying=False)
    params, channel = chain.params(10.0), chain.channel

    def add(state, seated):
        return channel.add(params, state, TICKET, *seated), None

    seats = jnp.arange(len(updates), dtype=jnp.uint32)
    state, _ = jax.lax.scan(add, channel.init(DIM), (seats, jnp.asarray(updates)))
    return channel.reveal(params, state, TICKET)


def test_flower_weights_clips_and_shifts():
    weight, encoding = flower_secaggplus(examples=500).stages
    assert weight.factor == 0.5 and (encoding.levels, encoding.clip_range) == (2**22, 8.0)
    assert encoding.shifted and encoding.rounding == "stochastic"
    # round(2^22 / 3) / 2^22
    assert flower_secaggplus(examples=1, max_weight=3).stages[0].factor == 1398101 / 2**22


def test_flower_does_not_wrap_below_1024_clients():
    assert flower_secaggplus(examples=1000).fitted(DIM, 1023, varying=False).may_wrap is False
    with pytest.raises(ValueError, match="overflows a ring of 32 bits, allowed are up to 1,023 clients"):
        flower_secaggplus(examples=1000).fitted(DIM, 1024, varying=False)


def test_flower_sends_half_of_the_levels_for_zero():
    view = revealed(flower_secaggplus(examples=500), np.zeros((CLIENTS, DIM), np.float32))
    np.testing.assert_array_equal(view.ring, np.full(DIM, CLIENTS * 2**21))
    np.testing.assert_array_equal(view.total, np.zeros(DIM))


def test_flower_sums_are_sums_up_to_a_step_of_each_client():
    view = revealed(flower_secaggplus(examples=500), UPDATES)
    exact = UPDATES.astype(np.float64).sum(axis=0)
    # Coins move a client's entry by less than a step, of twice the size after the weight is undone.
    np.testing.assert_allclose(view.total, exact, atol=2 * CLIENTS * 16 / 2**22)
    assert np.abs(np.asarray(view.total) - exact).max() > 0


def test_tff_sums_of_zeros_are_zero_and_singletons_are_exact_to_float32():
    zeros = revealed(tff_sum(1.0), np.zeros((CLIENTS, DIM), np.float32))
    np.testing.assert_array_equal(zeros.total, np.zeros(DIM))
    np.testing.assert_allclose(revealed(tff_sum(1.0), UPDATES[:1]).total, UPDATES[0], rtol=2**-22, atol=2**-32)
    ends = revealed(tff_sum(1.0), np.full((CLIENTS, DIM), 7.0, np.float32))
    np.testing.assert_allclose(ends.total, CLIENTS, rtol=2**-22)


def test_granularity_solves_its_equation():
    clip, noise, clients, dim, bits = 4.0, 0.5, 100, 4096, 16
    gamma = tff_granularity(clip=clip, noise_multiplier=noise, clients=clients, dim=dim, bits=bits)
    # The normal law leaves 1e-4 beyond this many standard deviations.
    deviations, local = 3.890591886413094, noise * clip / np.sqrt(clients)
    spread = np.sqrt((clip * clients) ** 2 / dim + (gamma**2 / 4 + local**2) * clients)
    np.testing.assert_allclose(2 * deviations * spread / gamma, 2.0**bits, rtol=1e-12)


def test_granularity_is_at_least_a_millionth():
    assert tff_granularity(clip=1e-3, noise_multiplier=0.0, clients=2, dim=4096, bits=22) == 1e-6


def test_distributed_dp_rotates_clips_rounds_and_adds_noise():
    for mechanism, beta, rounding in (("skellam", 0.0, "stochastic"), ("discrete_gaussian", 0.6, "conditional")):
        aggregator = tff_distributed_dp(**DDP, mechanism=mechanism, beta=beta)
        assert [stage.kind for stage in aggregator.stages] == ["rotate", "clip", "fixed_point", mechanism]
        _, clip, encoding, noise = aggregator.stages
        assert (clip.norm, clip.order, encoding.rounding, noise.deviation) == (4.0, "l2", rounding, 2.0)
        # The size of the rotated vector decides, not that of the update.
        assert encoding.step == tff_granularity(**DDP | {"dim": 16}, bits=16)
        assert aggregator.wrap and aggregator.ring_bits == 16


def test_distributed_dp_sums_are_sums_and_noise():
    quiet, noisy = (tff_distributed_dp(**DDP | {"noise_multiplier": noise}) for noise in (0.0, 0.5))
    exact = UPDATES.astype(np.float64).sum(axis=0)
    close = revealed(quiet, UPDATES).total
    # A rotated entry moves by less than a step for each client, and the rotation keeps lengths.
    step = quiet.stages[2].step
    assert len(quiet.stages) == 3 and np.linalg.norm(close - exact) < CLIENTS * 4 * step
    # 8 standard deviations of 12 normal numbers, and more than rounding alone: false alarm < 1e-12; seed fixed.
    error = revealed(noisy, UPDATES).total - exact
    assert 0.3 < np.linalg.norm(error) < 8 * 2.0 * np.sqrt(DIM)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: flower_secaggplus(examples=1001), r"^examples is 1,001, allowed are 1 to 1,000 .*$"),
        (lambda: tff_distributed_dp(**DDP, bits=23), r"^bits is 23, allowed are 1 to 22, .*$"),
        (lambda: tff_distributed_dp(**DDP, bits=2), r"^bits is 2, .* cannot hold .* 5 clients; use more bits$"),
        (lambda: tff_distributed_dp(**DDP, beta=1.0), r"^beta is 1.0, allowed is \[0, 1\); .*$"),
        (lambda: tff_distributed_dp(**DDP, mechanism="laplace"), r"^mechanism is 'laplace', allowed are .*$"),
        (lambda: tff_distributed_dp(**DDP | {"clip": 0.0}), r"^clip, .* are 0.0, .*, allowed are > 0, .*$"),
    ],
)
def test_errors_say_what_is_allowed_in_one_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()
