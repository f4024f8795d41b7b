"""Residues are read around what the server expects: nothing is lost where sums leave the ring."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxaudit as ja
from jaxaudit.aggregation.channel import ChannelState
from jaxaudit.aggregation.clip import Clip
from jaxaudit.aggregation.encoding import FixedPoint
from jaxaudit.aggregation.noise import Gaussian
from jaxaudit.aggregation.rotate import Rotate
from jaxaudit.aggregation.weight import Weight
from jaxaudit.attacks.wrapped import WrappedLRT, wrapped_score
from jaxaudit.covariance import Covariance
from jaxaudit.player import Player
from jaxaudit.types import Moments, Pair, Server, SumView, linear_score

STEP, DIM, ROUNDS = 0.25, 3, 2
WRAPPED = "wrapped, independent coordinates"
RNG = np.random.default_rng(0)
MIX = RNG.standard_normal((ROUNDS, DIM, DIM)) + 2 * np.eye(DIM)
MEANS = RNG.standard_normal((ROUNDS, DIM))
ENDS = RNG.standard_normal((2, ROUNDS, DIM))


def chain_of(*before, bits=8, announced=True, **more):
    return fitted((*before, FixedPoint(step=STEP, **more)), bits, announced)


def fitted(stages, bits=8, announced=True):
    survivors = "announced" if announced else "hidden"
    return ja.SecureSum(stages=stages, ring_bits=bits, wrap=True, survivors=survivors).fitted(DIM, 10, varying=True)


def server_of(chain, mean=10.0, attendance=((5, 0.5), (7, 0.5)), scale=1.0):
    pair = Pair("test", ENDS[0] * scale, ENDS[1] * scale, "replace", "test")
    moments = [
        Moments(6 * mean * centre, Covariance.of_matrix(scale**2 * mix @ mix.T), 6.0, 0, DIM, 0.0)
        for centre, mix in zip(MEANS, MIX)
    ]
    return Server(pair, 9, "all", attendance, chain), moments


def options_of(chain, ridge=0.03, **facts):
    return WrappedLRT(ridge=ridge).options(*server_of(chain, **facts))


def as_played(knowledge):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), knowledge)


scored = jax.jit(wrapped_score)


def view_of(ring, survivors):
    ring = jnp.asarray(ring, jnp.uint32)
    return SumView(jnp.zeros((ROUNDS, DIM), jnp.float32), jnp.asarray(survivors, jnp.int32), ring)


def distances(ring, centre, size):
    """In float64: from the nearest whole number to the centre, within half a ring, then from the centre itself."""
    whole = np.rint(centre)
    return (ring - whole + size / 2) % size - size / 2 - (centre - whole)


def log_density(x, deviation, size, copies):
    k = np.arange(-copies, copies + 1)[:, None, None]
    return np.logaddexp.reduce(-0.5 * ((x + k * size) / deviation) ** 2, axis=0)


# Known answers.


@given(seed=st.integers(0, 2**32 - 1), hidden=st.booleans(), bits=st.sampled_from([4, 8, 31, 32]))
def test_both_tests_are_their_formulas(seed, hidden, bits):
    rng = np.random.default_rng(seed)
    server, moments = server_of(chain_of(bits=bits, announced=not hidden))
    size, ring = 2.0**bits, rng.integers(0, 2**bits, (ROUNDS, DIM))
    survivors = np.array([6, 8])
    others = np.full(2, 6.0) if hidden else survivors - 1.0
    centre = (server.pair.middle + others[:, None] * 10.0 * MEANS) / STEP
    d, half = distances(ring, centre, size), server.pair.difference / 2 / STEP
    covariance = [mix @ mix.T + 0.03 * np.trace(mix @ mix.T) / DIM * np.eye(DIM) for mix in MIX]
    lifted = sum(d[r] * STEP @ np.linalg.solve(covariance[r], server.pair.difference[r]) for r in range(ROUNDS))
    # The number of others, 5 or 7, has variance 1; where it is hidden, it moves the sum.
    deviation = np.sqrt([c.diagonal() + hidden * (10.0 * mean) ** 2 for c, mean in zip(covariance, MEANS)]) / STEP
    view = view_of(ring, [-1, -1] if hidden else survivors)
    found = {
        name: float(scored(as_played(known), view)) for name, known in WrappedLRT().options(server, moments).items()
    }
    assert list(found) == ["lifted, ridge 0.03, full rank", WRAPPED]
    assert found["lifted, ridge 0.03, full rank"] == pytest.approx(lifted, rel=1e-4, abs=1e-4)
    brute = log_density(d - half, deviation, size, 200) - log_density(d + half, deviation, size, 200)
    # Entries wider than half a ring have their first harmonic only, of amplitude 2 exp(-π² / 2) = 1.4 % or less.
    assert found[WRAPPED] == pytest.approx(brute.sum(), rel=1e-4, abs=1e-4 if (deviation < size / 2).all() else 2e-3)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4, 0.5, 0.6, 0.8, 1.5])
def test_wrapped_entries_have_the_ratio_of_all_their_wraps(share):
    """From narrow entries to uniform ones: within 3 % of the largest ratio, where the ratio is small itself."""
    size = 256.0
    known = options_of(chain_of())[WRAPPED]
    deviation = np.full_like(known.deviation, share * size)
    own = np.minimum(deviation, size / 2)
    gain = np.exp(-2 * np.pi**2 * (deviation**2 - own**2) / size**2)
    known = known._replace(deviation=own, gain=gain, half=np.full_like(own, 20.0), start=0 * known.start)
    known = as_played(known._replace(start_part=0 * own, each=0 * known.each, each_part=0 * own))
    for residue in (0, 3, 64, 127, 128, 200):
        ring = np.full((ROUNDS, DIM), residue)
        d = distances(ring, 0 * own, size)
        brute = np.sum(log_density(d - 20, deviation, size, 60) - log_density(d + 20, deviation, size, 60))
        largest = own.size * 4 * np.exp(-2 * np.pi**2 * share**2)
        assert float(scored(known, view_of(ring, [6, 6]))) == pytest.approx(
            brute, rel=1e-4, abs=1e-5 + 0.03 * largest
        )


def test_in_a_wide_ring_wrapped_independent_entries_are_the_linear_test():
    """Log-likelihood ratios are linear where no copy of the ring is near."""
    chain = chain_of(bits=24)
    server, moments = server_of(chain)
    moments = [one._replace(covariance=Covariance.diagonal(np.array([3.0, 5.0, 8.0]))) for one in moments]
    lifted, wrapped = WrappedLRT().options(server, moments).values()
    for _ in range(5):
        view = view_of(RNG.integers(0, 400, (ROUNDS, DIM)), [6, 8])
        assert float(scored(as_played(wrapped), view)) == pytest.approx(
            float(scored(as_played(lifted), view)), rel=1e-4, abs=1e-3
        )


@pytest.mark.parametrize("before", [(), (Rotate(seed=3),), (Weight(factor=0.5), Rotate(seed=1))], ids=len)
def test_where_nothing_wraps_the_lifted_test_is_the_linear_test_of_the_decoded_sum(before):
    chain = chain_of(*before, bits=20)
    server, moments = server_of(chain)
    (linear,) = ja.GaussianLRT().options(server, moments).values()
    lifted, _ = WrappedLRT().options(server, moments).values()
    for _ in range(5):
        sums = RNG.integers(-900, 900, (ROUNDS, chain.last.dim))
        survivors = RNG.integers(5, 9, ROUNDS)
        views = [
            chain.channel.reveal(
                chain.params(1.0),
                ChannelState(jnp.asarray(row % 2**32, jnp.uint32), jnp.zeros(1), jnp.int32(n)),
                None,
            )
            for row, n in zip(sums, survivors)
        ]
        view = jax.tree.map(lambda *one: jnp.stack(one), *views)
        assert float(scored(as_played(lifted), view)) == pytest.approx(
            float(linear_score(as_played(linear), view)), rel=1e-4, abs=1e-3
        )


def test_rotated_entries_have_the_mean_of_the_variances_where_clients_send():
    """Padding has noise as well, where every direction has it."""
    chain = chain_of(Rotate(seed=3))
    server, moments = server_of(chain)
    moments = [one._replace(covariance=one.covariance.lifted(2.0)) for one in moments]
    wrapped = WrappedLRT(ridge=1e-9).options(server, moments)[WRAPPED]
    for one, deviation in zip(moments, wrapped.deviation):
        there = chain.scores(np.eye(DIM)) / STEP**2
        # What decoding does not reach is orthogonal to it, and has the variance that is everywhere.
        whole = there.T @ one.covariance.dense() @ there + (np.eye(4) - there.T @ there * STEP**2) * 2.0 / STEP**2
        np.testing.assert_allclose(deviation**2, np.trace(whole) / 4, rtol=1e-6)


def test_large_sums_are_read_to_a_part_of_a_step():
    """Expectations of 10^10 steps, far beyond float32, in a ring of 2^32: every step counts."""
    server, moments = server_of(chain_of(bits=32), mean=4e8)
    lifted, _ = WrappedLRT().options(server, moments).values()
    centre = (server.pair.middle + np.array([[5], [7]]) * 4e8 * MEANS) / STEP
    near = np.rint(centre).astype(np.int64)
    base = distances(near % 2**32, centre, 2.0**32)
    assert np.abs(base).max() <= 0.5 and np.abs(centre).max() > 2**32
    for moved in (0, 1, -7):
        found = float(scored(as_played(lifted), view_of((near + moved) % 2**32, [6, 8])))
        assert found == pytest.approx(np.vdot(lifted.weights, base + moved), rel=1e-3, abs=1e-3)


# Properties.


@given(turns=st.integers(-3, 3), shift=st.integers(0, 255))
def test_moving_sum_and_expectation_together_changes_nothing(turns, shift):
    """Around the ring or along it: scores know distances only."""
    chain = chain_of()
    server, moments = server_of(chain)
    moved = server.pair.both + STEP * (shift + 256 * turns)
    other = replace(server, pair=replace(server.pair, h0=moved[0], h1=moved[1]))
    ring = np.array([[1, 100, 200], [60, 250, 3]])
    for one, two in zip(
        WrappedLRT().options(server, moments).values(), WrappedLRT().options(other, moments).values()
    ):
        before = float(scored(as_played(one), view_of(ring, [6, 8])))
        after = float(scored(as_played(two), view_of((ring + shift) % 256, [6, 8])))
        # A ten millionth of a step decides where half a ring away begins, which no residue of these is.
        assert after == pytest.approx(before, rel=1e-4, abs=1e-4)


def test_equal_candidates_score_nothing():
    server, moments = server_of(chain_of())
    server = replace(server, pair=replace(server.pair, h1=server.pair.h0))
    view = view_of(RNG.integers(0, 256, (ROUNDS, DIM)), [6, 8])
    assert [float(scored(as_played(known), view)) for known in WrappedLRT().options(server, moments).values()] == [
        0,
        0,
    ]


def test_candidates_a_ring_apart_cannot_be_told_by_wrapped_entries():
    server, moments = server_of(chain_of())
    server = replace(server, pair=replace(server.pair, h1=server.pair.h0 + 256 * STEP))
    known = as_played(WrappedLRT().options(server, moments)[WRAPPED])
    assert float(scored(known, view_of(RNG.integers(0, 256, (ROUNDS, DIM)), [6, 8]))) == pytest.approx(0, abs=1e-4)


def test_an_aborted_round_adds_nothing():
    for known in map(as_played, options_of(chain_of()).values()):
        ring = np.array([[1, 2, 3], [0, 0, 0]])
        alone = known._replace(weights=known.weights.at[1].set(0), gain=known.gain.at[1].set(0))
        assert float(scored(known, view_of(ring, [6, 0]))) == float(scored(alone, view_of(ring, [6, 6]))) != 0


def test_every_option_has_one_shape_and_scores_are_strict_in_types(strict):
    options = WrappedLRT(ridge=[0.03, 1.0], rank=[0, 2]).options(*server_of(chain_of(Rotate(seed=1))))
    assert len(options) == 5
    shapes = {str(jax.tree.map(np.shape, known)) for known in options.values()}
    view = SumView(
        jnp.zeros((ROUNDS, DIM), jnp.float32), jnp.array([6, 8], jnp.int32), jnp.zeros((ROUNDS, 4), jnp.uint32)
    )
    score = jax.jit(wrapped_score)(as_played(options[WRAPPED]), view)
    assert len(shapes) == 1 and score.shape == () and score.dtype == jnp.float32


@pytest.mark.parametrize(
    ("chain", "remedy"),
    [
        (None, "ring_bits up to 32"),
        (fitted((Clip(norm=1.0),), bits=32), "fixed_point"),
        (chain_of(bits=64, clip_range=9.0), "ring_bits up to 32"),
        (chain_of(clip_range=3.0, shifted=True), "shifted = false"),
        (fitted((FixedPoint(step=1.0), Gaussian(deviation=1.0))), "centrally"),
    ],
    ids=["plain", "real", "wide", "shifted", "central"],
)
def test_sums_without_such_residues_are_refused_in_one_line(chain, remedy):
    with pytest.raises(ValueError, match=remedy) as refused:
        options_of(chain)
    assert "\n" not in str(refused.value) and "gaussian_lrt" in str(refused.value)


# The whole game.


@pytest.fixture(scope="module")
def separation(tmp_path_factory):
    """Of every pair under every setting, on the same 16,384 trials: a ring of 64 steps, sums that vary by 15."""
    path = str(tmp_path_factory.mktemp("pair") / "far.npz")
    np.savez(path, h0=[2.8, 1, 0, 0, 0, 0, 0, 0], h1=[4.4, -1, 0, 0, 0, 0, 0, 0])

    def of(attack):
        population = ja.Synthetic(law="gaussian", dim=8, clients=10, pair=["antipodal", path])
        stages = (Clip(norm=12.0), FixedPoint(step=0.2, clip_range=6.0))
        aggregator = ja.SecureSum(stages=stages, ring_bits=6, wrap=True)
        prepared = ja.Audit(population=population, aggregator=aggregator, attack=attack).prepare(0).settings()
        player = Player(tuple(jax.devices()[:1]), 0, lambda name, trials: lambda done: None)
        found = []
        for scores in player.scores(prepared.game(), "certify", 16_384):
            spread = np.sqrt((scores.h0.var() + scores.h1.var()) / 2)
            found.append((scores.h1.mean() - scores.h0.mean()) / spread)
        return found

    # Candidates on either side of zero, then candidates of which one is near the end of the ring.
    return {"naive": of(ja.GaussianLRT()), "lifted": (own := of(WrappedLRT()))[::2], "wrapped": own[1::2]}


# Each separation is off by sqrt(2 / 16,384 + d² / 32,768) = 0.013 or less, a difference of two by 0.018: with the
# true differences, 0.23 or more, a false alarm is 7 of these away, below 1e-11.


def test_lifting_around_the_expected_sum_separates_better_where_sums_are_far_from_zero(separation):
    assert separation["lifted"][1] > separation["naive"][1] + 0.1
    # Around zero both lift alike.
    assert separation["lifted"][0] == pytest.approx(separation["naive"][0], abs=1e-4)


def test_the_wrapped_test_separates_better_where_the_noise_itself_wraps(separation):
    for naive, wrapped in zip(separation["naive"], separation["wrapped"]):
        assert wrapped > naive + 0.1
