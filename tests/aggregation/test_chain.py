"""What the server and the accountant must know about a chain of stages, before any trial."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxaudit as ja
from jaxaudit import player
from jaxaudit.aggregation import chain as chains
from jaxaudit.aggregation.channel import WIDE
from jaxaudit.aggregation.fitting import fit
from jaxaudit.random import CERTIFY

pytestmark = pytest.mark.usefixtures("strict")
DIM = 5
CLIP, ROTATE, WEIGHT, TOP = ja.Clip(norm=1.0), ja.Rotate(), ja.Weight(factor=0.3), ja.TopK(k=2)
REMEMBERS, RANDOM = ja.TopK(k=2, error_feedback=True), ja.RandomK(k=2)
NEAREST = ja.FixedPoint(bits=12, clip_range=1.0)
COINS = ja.FixedPoint(bits=12, clip_range=1.0, rounding="stochastic")
SHIFTED = ja.FixedPoint(bits=12, clip_range=1.0, shifted=True)
OPEN = ja.FixedPoint(step=0.01)
SKELLAM, LOCAL = ja.Skellam(deviation=0.02), ja.DiscreteGaussian(deviation=0.02, where="local")
CENTRAL, SHARED = ja.Gaussian(deviation=0.5), ja.Gaussian(deviation=0.5, where="distributed")
# Different shapes of decoding: whole numbers or real ones, more entries than an update has, shifts.
DECODINGS = {
    "rotated": (CLIP, ROTATE, WEIGHT, NEAREST),
    "weighted": (WEIGHT, TOP, NEAREST, SKELLAM),
    "shifted": (SHIFTED,),
    "real": (ROTATE, WEIGHT, SHARED),
    "clipped": (CLIP,),
}


def fitted(*stages, clients=10, ring_bits=32, dim=DIM, **facts):
    facts = {"wrap": False, "announced": True, "minimum": 0, "varying": False, "rounds": 1} | facts
    return fit(stages, ring_bits, dim, clients, **facts)


def decoded(chain, total, survivors):
    """A sum as the stages decode it, last first, in float64."""
    for link in reversed(chain.links):
        total = link.stage.decode(jax.tree.map(np.asarray, link.params), total, survivors)
    return total


# What does not fit


@pytest.mark.parametrize(
    ("stages", "facts", "words"),
    [
        (
            (CLIP, ja.FixedPoint(bits=8, clip_range=1.0)),
            {"ring_bits": 10, "clients": 30},
            r"stages\.1 \(fixed_point\): the clip range of 30 clients overflows a ring of 10 bits, allowed are up to "
            r"4 clients; use more ring_bits",
        ),
        ((SHIFTED,), {"announced": False}, 'aggregator.survivors is "hidden", but a shifted encoding cannot be'),
        (
            (NEAREST, ja.Gaussian(deviation=1.0, where="local")),
            {},
            r"aggregator\.stages\.1 \(gaussian\): where is 'local' after a fixed_point stage, allowed is 'central'",
        ),
        (
            (CLIP, SKELLAM),
            {},
            r"stages\.1 \(skellam\): real vectors reach skellam noise, allowed are int",
        ),
        ((NEAREST, CLIP), {}, r"aggregator\.stages\.1 \(clip\): .* allowed are real"),
        ((ja.TopK(k=6),), {}, r"aggregator\.stages\.0 \(top_k\): k is 6, allowed are 1 to 5"),
        (
            (OPEN,),
            {"ring_bits": WIDE},
            r"stages\.0 \(fixed_point\): clip_range is 0 and integers may pass",
        ),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(stages, facts, words):
    with pytest.raises(ValueError, match=words) as caught:
        fitted(*stages, **facts)
    assert "\n" not in str(caught.value)


def test_the_largest_safe_cohort_fits_and_one_more_does_not():
    stages = (CLIP, ja.FixedPoint(bits=8, clip_range=1.0))
    assert not fitted(*stages, ring_bits=10, clients=4).may_wrap
    with pytest.raises(ValueError, match="allowed are up to 4 clients"):
        fitted(*stages, ring_bits=10, clients=5)
    assert fitted(*stages, ring_bits=10, clients=5, wrap=True).clients == 5


@settings(max_examples=10)
@given(st.integers(1, 5000), st.integers(8, 32))
def test_without_bits_a_step_fills_the_ring(clients, ring_bits):
    if 2 ** (ring_bits - 1) <= clients:
        with pytest.raises(ValueError, match="use more ring_bits"):
            fitted(ja.FixedPoint(clip_range=1.0), clients=clients, ring_bits=ring_bits)
        return
    steps = fitted(ja.FixedPoint(clip_range=1.0), clients=clients, ring_bits=ring_bits).last.norms.linf
    assert clients * steps <= 2 ** (ring_bits - 1) - 1 < clients * (steps + 1)


# What the server makes of a sum


@pytest.mark.parametrize("name", DECODINGS)
@settings(max_examples=5)
@given(st.integers(0, 2**32 - 1))
def test_scores_are_the_adjoint_of_decoding(name, seed):
    chain, rng = fitted(*DECODINGS[name]), np.random.default_rng(seed)
    weights = rng.standard_normal((3, DIM))
    total = rng.standard_normal(chain.last.dim) * 1e6
    left, right = chain.scores(weights) @ total, weights @ decoded(chain, total, 0)
    np.testing.assert_allclose(left, right, rtol=1e-12, atol=1e-12 * np.abs(right).max())


@pytest.mark.parametrize("name", [name for name in DECODINGS if name != "real"])
def test_what_arrives_is_what_was_sent_and_decoded(name):
    chain = fitted(*DECODINGS[name])
    rows = np.random.default_rng(0).standard_normal((20, DIM)).astype(np.float32)
    rows[0] = 0
    sent = chain.sent(rows)
    assert sent.dtype == (np.int32 if chain.last.step else np.float32)
    np.testing.assert_allclose(
        chain.arrived(rows), [decoded(chain, one.astype(np.float64), 1) for one in sent], rtol=1e-7, atol=1e-9
    )
    assert not chain.arrived(rows)[0].any()


def test_what_arrives_of_coins_is_right_on_average():
    """Unbiased: the mean of a stochastic rounding is the vector, and its variance at most a quarter of a step²."""
    chain = fitted(COINS, SKELLAM)
    rows = np.random.default_rng(1).uniform(-1, 1, (50, DIM)).astype(np.float32)
    mean, variance = chain.spread(rows)
    np.testing.assert_allclose(mean, rows, atol=1e-6)
    up = rows / np.float64(np.float32(chain.last.step)) % 1
    np.testing.assert_allclose(variance, chain.last.step**2 * (up * (1 - up)).mean(0), rtol=1e-3)


@pytest.mark.parametrize(
    ("stages", "gain"),
    [((CLIP,), 1.0), ((ROTATE,), 1.0), ((ROTATE, WEIGHT), 1 / 0.3), ((ROTATE, NEAREST), 1 / 2047)],
)
def test_gain_is_the_length_that_decoding_gives(stages, gain):
    chain = fitted(*stages)
    assert chain.gain == pytest.approx(gain, rel=1e-6)
    basis = np.array([decoded(chain, one, 0) for one in np.eye(chain.last.dim)])
    assert np.linalg.norm(basis, 2) == pytest.approx(gain, rel=1e-6)


def test_norms_are_those_before_the_noise_that_comes_last():
    assert fitted(CLIP, SHARED).norms.l2 == pytest.approx(1.0, rel=1e-5)
    assert fitted(ja.FixedPoint(bits=5, clip_range=1.0), SKELLAM).norms.linf == 15
    # Noise before a rounding is rounded with the vector: nothing bounds it but the clip range.
    assert fitted(CLIP, SHARED, OPEN, wrap=True).norms.linf == np.inf
    assert fitted(CLIP, SHARED, ja.FixedPoint(bits=5, clip_range=1.0)).norms.linf == 15
    assert fitted(CLIP, REMEMBERS, rounds=2).norms.l2 == np.inf


# Which stages always make the same, which sums are linear, and which may wrap


@pytest.mark.parametrize(
    ("stages", "rounds", "ahead"),
    [
        ((), 1, 0),
        ((CLIP, ROTATE, NEAREST), 1, 3),
        ((CLIP, ROTATE, NEAREST, SKELLAM), 1, 3),
        ((CLIP, ROTATE, COINS, SKELLAM), 1, 2),
        ((CLIP, CENTRAL, NEAREST), 1, 3),
        ((CLIP, SHARED, NEAREST), 1, 1),
        ((RANDOM, CLIP), 1, 0),
        ((CLIP, REMEMBERS, NEAREST), 1, 3),
        ((CLIP, REMEMBERS, NEAREST), 2, 1),
    ],
)
def test_stages_ahead_are_those_before_the_first_coin_or_memory(stages, rounds, ahead):
    assert fitted(*stages, rounds=rounds).ahead == ahead


@pytest.mark.parametrize(
    ("linear", "stages", "facts"),
    [
        (True, (CLIP, TOP), {}),
        (True, (CLIP, ROTATE, NEAREST), {"varying": True}),
        (True, (CLIP, NEAREST, SKELLAM), {}),
        (True, (CLIP, NEAREST, SKELLAM, CENTRAL), {}),
        (True, (CLIP, SHARED), {}),
        (True, (CLIP, CENTRAL), {"varying": True}),
        (False, (CLIP, NEAREST, SKELLAM), {"varying": True}),
        (False, (CLIP, NEAREST, LOCAL), {"varying": True}),
        (False, (CLIP, COINS), {}),
        (False, (CLIP, RANDOM), {}),
        (False, (CLIP, SHARED, NEAREST), {}),
        (False, (CLIP, SHARED, ROTATE), {}),
        (False, (SHIFTED,), {}),
        (False, (CLIP, NEAREST), {"announced": False}),
        (False, (CLIP, NEAREST), {"minimum": 2}),
        (False, (CLIP, REMEMBERS), {"rounds": 2}),
        (False, (CLIP, OPEN, SKELLAM), {"ring_bits": 11, "wrap": True}),
    ],
)
def test_sums_are_linear_where_all_that_is_random_is_added(linear, stages, facts):
    assert fitted(*stages, **facts).linear is linear


@pytest.mark.parametrize(
    ("wraps", "stages", "facts"),
    [
        (False, (CLIP,), {}),
        (False, (NEAREST,), {"ring_bits": WIDE, "clients": 10_000}),
        # 2^11 - 1 steps each way: 16 of them are within 2^15 - 1, 17 are not.
        (False, (NEAREST,), {"ring_bits": 16, "clients": 16}),
        (True, (NEAREST,), {"ring_bits": 16, "clients": 17, "wrap": True}),
        # The clip stage leaves a tenth of them.
        (False, (ja.Clip(norm=0.1, order="linf"), NEAREST), {"ring_bits": 16, "clients": 17, "wrap": True}),
        (True, (OPEN,), {"wrap": True}),
        (False, (CLIP, OPEN), {"wrap": True}),
        # Noise counts, too: a ring that integers fill has no room for it.
        (True, (NEAREST, SKELLAM), {"ring_bits": 16, "clients": 16}),
        (True, (ja.FixedPoint(clip_range=1.0), SKELLAM), {"ring_bits": 20}),
    ],
)
def test_sums_may_wrap_where_all_clients_at_their_bounds_would(wraps, stages, facts):
    assert fitted(*stages, **facts).may_wrap is wraps


@pytest.mark.parametrize(("clients", "wraps"), [(1023, False), (1024, True)])
def test_shifted_sums_may_wrap_from_where_they_do(clients, wraps):
    """1,024 clients with 2^22 each: 2^32 is 0."""
    stages = ja.flower_secaggplus(examples=1000).stages
    assert fitted(*stages, clients=clients, wrap=True).may_wrap is wraps


def test_noise_below_a_shifted_zero_may_wrap():
    """A client at the lower end sends 0, and noise takes the sum of 16 bits below it: 65,535 is not -1."""
    stage = ja.FixedPoint(bits=6, clip_range=1.0, shifted=True)
    assert fitted(stage, SKELLAM, ring_bits=16).may_wrap


def test_a_ring_holds_sums_that_no_stage_makes_integers_of():
    """Without fixed point sums have 31 bits: a smaller ring would cut them, so it is refused or not used."""
    try:
        chain = fitted(CLIP, ring_bits=8)
    except ValueError as error:
        assert "ring_bits" in str(error)
        return
    ticket = ja.Ticket(*[jnp.uint32(0)] * 3)
    update = jnp.full(DIM, 0.25, jnp.float32)
    state = chain.channel.add(chain.params(1.0), chain.channel.init(DIM), ticket, jnp.uint32(0), update)
    np.testing.assert_allclose(chain.channel.reveal(chain.params(1.0), state, ticket).total, update, atol=1e-6)


# One program for all numbers


def sweep(bound, step, deviation, rounding="stochastic", beta=0.5):
    encoding = ja.FixedPoint(step=step, clip_range=30.0, rounding=rounding, beta=beta)
    return ja.Clip(norm=bound), encoding, ja.Skellam(deviation=deviation), ja.Gaussian(deviation=deviation)


def test_channels_that_differ_in_numbers_are_one_program():
    one, other = (
        fitted(*sweep(*numbers)).channel for numbers in ((1.0, 0.1, 0.5), (2.0, 0.3, 0.7, "stochastic", 0.1))
    )
    assert one == other and hash(one) == hash(other)
    assert fitted(CLIP, NEAREST).channel != fitted(CLIP, COINS).channel
    assert fitted(CLIP).channel != fitted(ja.Clip(norm=1.0, order="linf")).channel
    assert fitted(CLIP, NEAREST).channel != fitted(CLIP, NEAREST, ring_bits=31).channel


def test_a_sweep_over_numbers_encodes_with_one_program():
    rows = np.ones((4, DIM), np.float32)

    def programs(*numbers):
        chain = fitted(*sweep(*numbers))
        chain.sent(rows), chain.spread(rows)
        return chains._encoded._cache_size(), chains._expected._cache_size()

    assert programs(1.0, 0.1, 0.5) == programs(2.0, 0.3, 0.7)


def test_a_sweep_over_numbers_plays_one_program():
    mesh = jax.make_mesh((1,), ("trials",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])

    def programs(*numbers):
        aggregator = ja.SecureSum(stages=sweep(*numbers))
        population = ja.Synthetic(law="known", dim=DIM, clients=3)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            audit = ja.Audit(population=population, aggregator=aggregator, attack=ja.GaussianLRT())
            game = audit.prepare(0).fold()
        width = game.program.width(game.params)
        words = jnp.uint32(0), jnp.uint32(CERTIFY), jnp.uint32(0), jnp.uint32(0), jnp.uint32(1)
        player.play_block(game.program, mesh, width, 1, game.params, *words)
        return player._compiled(player._play, jax.default_backend())._cache_size()

    assert programs(1.0, 0.1, 0.5) == programs(2.0, 0.3, 0.7)
