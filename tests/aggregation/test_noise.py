"""Noise has the law that its recipe says, wherever it is added, and is independent from client to client."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import chisquare, kstest

from jaxaudit.aggregation.laws import discrete_gaussian, law_of
from jaxaudit.aggregation.noise import Binomial, DiscreteGaussian, Gaussian, Skellam
from jaxaudit.aggregation.stage import UNBOUNDED, Norms, Setting, lane
from jaxaudit.random import Ticket
from jaxaudit.schema import explain

DIM, TRIALS, CLIENTS = 256, 512, 8
INTEGER = (DiscreteGaussian, Skellam, Binomial)
every_integer_noise = pytest.mark.parametrize("stage", INTEGER, ids=lambda stage: stage.kind)


def setting(step=0.25, clients=CLIENTS):
    return Setting(DIM, clients, Norms(1.0, 1.0, 1.0), ring_bits=32, step=step)


@partial(jax.jit, static_argnums=(0, 3))
def encodings(stage, params, vector, central=False):
    """Of every seat in every trial: [TRIALS, CLIENTS, DIM]."""
    encode = stage.disturb if central else stage.encode

    def one(trial, seat):
        return encode(params, vector, lane(Ticket(jnp.uint32(1), jnp.uint32(2), trial), seat, 3))

    trials, seats = jnp.arange(TRIALS, dtype=jnp.uint32), jnp.arange(CLIENTS, dtype=jnp.uint32)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        return jax.vmap(lambda trial: jax.vmap(lambda seat: one(trial, seat))(seats))(trials)


@pytest.fixture(scope="module")
def drawn():
    """Noise of deviation 1.5, or six steps, in the sum of eight clients, in their shares."""
    zeros = jnp.zeros(DIM, jnp.int32)
    stages = [stage(deviation=1.5) for stage in INTEGER]
    return {one.kind: np.asarray(encodings(one, one.prepare(setting()), zeros)) for one in stages}


@pytest.fixture(scope="module")
def normal():
    """Gaussian noise of deviation 1.5 in the sum of eight clients, in their shares."""
    stage = Gaussian(deviation=1.5, where="distributed")
    return np.asarray(encodings(stage, stage.prepare(setting(0.0)), jnp.zeros(DIM, jnp.float32)))


def pvalue(draws, law):
    """Of the chi-square test, with all values in one cell of which fewer than 50 are expected."""
    counts, expected = np.bincount(draws - law.low, minlength=law.pmf.size), law.pmf * draws.size
    common = expected >= 50
    counts, expected = (np.append(of[common], of[~common].sum()) for of in (counts, expected))
    return chisquare(counts, expected * counts.sum() / expected.sum()).pvalue


@every_integer_noise
def test_share_of_a_client_follows_its_law(stage, drawn):
    law = stage(deviation=1.5).client_law(setting())
    assert pvalue(drawn[stage.kind].reshape(-1), law) > 1e-6  # false alarm 1e-6


@every_integer_noise
def test_noise_of_all_clients_follows_the_law_of_the_sum(stage, drawn):
    total = stage(deviation=1.5).client_law(setting()).sum_of(CLIENTS)
    assert pvalue(drawn[stage.kind].sum(axis=1).reshape(-1), total) > 1e-6  # false alarm 1e-6
    np.testing.assert_allclose(total.deviation, 6.0, rtol=0.01)


@pytest.mark.parametrize("kind", [*(stage.kind for stage in INTEGER), "gaussian"])
def test_clients_trials_and_entries_are_independent(kind, drawn, normal):
    noise = (normal if kind == "gaussian" else drawn[kind]).astype(np.float64)
    neighbours = [np.moveaxis(noise, axis, 0) for axis in range(3)]
    for one in (value for values in neighbours for value in (values, np.abs(values) - np.abs(values).mean())):
        # Correlations of about 1e6 independent pairs are N(0, 1/n). Six of them, 5.3 deviations: false alarm 7e-7.
        products = one[:-1] * one[1:]
        assert abs(products.mean()) < 5.3 * one.var() / np.sqrt(products.size)


def test_gaussian_shares_are_normal(normal):
    # Kolmogorov-Smirnov on 1e6 of them; false alarm 4e-7.
    assert kstest(normal.reshape(-1), "norm", (0, 1.5 / np.sqrt(CLIENTS))).pvalue > 4e-7
    # The variance of n normal numbers has relative deviation √(2/n); five of them, false alarm 6e-7.
    total = normal.astype(np.float64).sum(axis=1)
    assert abs(total.var() / 1.5**2 - 1) < 5 * np.sqrt(2 / total.size)


def test_central_noise_is_on_the_decoded_sum_alone():
    stage, total = Gaussian(deviation=1.5), jnp.full(DIM, 10, jnp.float32)
    params = stage.prepare(setting())
    np.testing.assert_array_equal(encodings(stage, params, total)[0, 0], total)
    noisy = np.asarray(encodings(stage, params, total, True))
    assert kstest(noisy.reshape(-1), "norm", (10, 1.5)).pvalue > 1e-6  # false alarm 1e-6
    assert stage.central and stage.steady and stage.after(setting()) == setting()
    for where in ("distributed", "local"):
        elsewhere = Gaussian(deviation=1.5, where=where)
        assert not elsewhere.central and not elsewhere.steady
        np.testing.assert_array_equal(elsewhere.disturb(params, total, None), total)


@every_integer_noise
def test_noise_is_added_to_the_vector(stage, drawn):
    own, vector = stage(deviation=1.5), jnp.arange(DIM, dtype=jnp.int32)
    found = encodings(own, own.prepare(setting()), vector)
    np.testing.assert_array_equal(found, drawn[stage.kind] + np.asarray(vector))
    assert found.dtype == jnp.int32 and not own.steady and not own.central


@pytest.mark.parametrize("stage", [Gaussian, *INTEGER], ids=lambda stage: stage.kind)
def test_shares_known_answers(stage):
    step = 0.0 if stage is Gaussian else 0.25
    units = 1.0 if stage is Gaussian else 4.0
    # Coins come in pairs: 4 · 144 / 9 = 64 of them are exact.
    together, alone = stage(deviation=3.0, where="distributed"), stage(deviation=3.0, where="local")
    np.testing.assert_allclose(together.share(setting(step, 9)), units)
    np.testing.assert_allclose(alone.share(setting(step, 9)), 3 * units)
    assert together.after(setting(step)) == setting(step)._replace(norms=UNBOUNDED)


def test_central_share_is_all_of_the_noise():
    assert Gaussian(deviation=3.0).share(setting(0.25, 9)) == 3.0


@given(deviation=st.floats(1e-3, 1e3), clients=st.integers(1, 1000), where=st.sampled_from(["distributed", "local"]))
def test_coins_are_the_fewest_that_suffice(deviation, clients, where):
    stage, at = Binomial(deviation=deviation, where=where), setting(clients=clients)
    needed = (deviation / 0.25) ** 2 / (clients if where == "distributed" else 1)
    trials = stage.client_law(at).parameter
    assert trials % 2 == 0 and trials / 4 >= needed * (1 - 1e-12)
    assert trials == 2 or (trials - 2) / 4 < needed * (1 + 1e-12)
    np.testing.assert_allclose(stage.share(at), np.sqrt(trials) / 2)


def test_laws_of_shares_known_answers():
    at = setting(step=0.5, clients=4)
    assert DiscreteGaussian(deviation=3.0).client_law(at).parameter == 9.0
    assert Skellam(deviation=3.0, where="local").client_law(at).parameter == 36.0
    assert Binomial(deviation=3.0).client_law(at).parameter == 36


@every_integer_noise
def test_expected_variance_is_that_of_the_draws(stage):
    own = stage(deviation=0.2)
    params, mean = own.prepare(setting()), jnp.ones(DIM, jnp.float32)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        moved, variance = own.expected(params, mean, jnp.full(DIM, 2, jnp.float32))
    np.testing.assert_array_equal(moved, mean)
    np.testing.assert_allclose(variance, 2 + law_of(params.table).variance, rtol=1e-6)
    assert own.decode(params, mean, 3) is mean and own.decoded_variance(params, variance) is variance


def test_expected_variance_of_gaussian_noise():
    mean, variance = jnp.ones(DIM, jnp.float32), jnp.float32(2)
    for where, expected in (("central", 2.0), ("distributed", 2.5), ("local", 6.0)):
        stage = Gaussian(deviation=2.0, where=where)
        moved, found = stage.expected(stage.prepare(setting(0.0)), mean, variance)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert moved is mean


def test_narrow_discrete_gaussians_are_narrower_than_their_parameter():
    """What the audit would get wrong if it took deviation² for the variance."""
    own = DiscreteGaussian(deviation=0.125, where="local")
    _, variance = own.expected(own.prepare(setting()), jnp.zeros(DIM, jnp.float32), jnp.float32(0))
    np.testing.assert_allclose(variance, discrete_gaussian(0.25).variance, rtol=1e-6)
    assert variance < 0.9 * own.share(setting()) ** 2


@every_integer_noise
def test_integer_noise_on_real_vectors_is_refused(stage):
    with pytest.raises(
        ValueError, match=rf"^real vectors reach {stage.kind} noise.*; put it after a fixed_point stage$"
    ):
        stage(deviation=1.0).prepare(setting(step=0.0))


@pytest.mark.parametrize("where", ["distributed", "local"])
def test_real_noise_on_integers_is_refused(where):
    with pytest.raises(
        ValueError, match=f"^where is '{where}' after .*; put it before fixed_point, or use discrete_"
    ):
        Gaussian(deviation=1.0, where=where).prepare(setting(step=0.25))


@every_integer_noise
@pytest.mark.parametrize("deviation", [1e12, 1e5])
def test_noise_too_wide_for_a_table_is_refused(stage, deviation):
    with pytest.raises(ValueError, match=r"steps needs a table of .* use fewer bits, that is a larger step$"):
        stage(deviation=deviation, where="local").prepare(setting())


@pytest.mark.parametrize("stage", [Gaussian, *INTEGER], ids=lambda stage: stage.kind)
def test_negative_noise_is_refused(stage):
    with pytest.raises(ValidationError) as error:
        stage(deviation=-1.0)
    assert explain(error.value, stage).startswith(
        "deviation is -1.0, allowed are > 0 and ≤ 1,000,000,000,000 (standard"
    )
    with pytest.raises(ValidationError):
        stage(deviation=1.0, where="nowhere")


def test_words_say_what_is_simulated():
    assert DiscreteGaussian(deviation=0.5).words(setting(clients=8)) == (
        "adds its share of discrete Gaussian noise of deviation 0.5 on the sum of 8 clients"
    )
    assert Gaussian(deviation=2.0).words(setting()) == (
        "a trusted party adds Gaussian noise of deviation 2 to the decoded sum"
    )
