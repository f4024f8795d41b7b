"""Decoding of labels: the sum of blind clients' gradients holds every label count, whatever the objective."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import hadamard
from scipy.special import erf
from scipy.stats import beta

from jaxaudit.attacks.label_leakage.batch_sizes import batch_size_of, present
from jaxaudit.attacks.label_leakage.decoding import head_gradients, label_counts, without_decay
from jaxaudit.attacks.label_leakage.histograms import (
    exact,
    largest_remainder,
    nearest_counts,
    nearest_histograms,
    onto_simplex,
    overlap,
    pooled_guess,
)
from jaxaudit.attacks.label_leakage.local_steps import simulated
from jaxaudit.models.objective import Objective

CLIENTS, BATCH = 50, 64
DISJOINT = np.kron(np.eye(CLIENTS), np.ones((1, 2)))
HADAMARD = (hadamard(64)[1 : CLIENTS + 1] + 1.0) / 2
UNEVEN = tuple(float(0.5 + 1.5 * (c % 7) / 6) for c in range(100))
VARIANTS = {
    "mean": {},
    "sum": {"reduction": "sum"},
    "smoothed": {"smoothing": 0.1},
    "smoothed sum": {"smoothing": 0.1, "reduction": "sum"},
    "weighted": {"class_weights": UNEVEN, "smoothing": 0.1},
    "weighted sum": {"class_weights": UNEVEN, "smoothing": 0.1, "reduction": "sum"},
    "decayed": {"weight_decay": 0.1},
    "multilabel": {"loss": "multilabel", "smoothing": 0.1},
    "multilabel sum": {"loss": "multilabel", "smoothing": 0.1, "reduction": "sum"},
}


@partial(jax.jit, static_argnums=0)
def gradients_of(objective, kernel, bias, embeddings, targets):
    """Every client's gradients of the head, in float32."""

    def loss(parameters, embedding, target):
        features = jnp.tile(embedding, (target.shape[0], 1))
        logits = jnp.matmul(features, parameters[0], precision="highest") + parameters[1]
        decay = sum(jnp.sum(each**2) for each in parameters) * objective.weight_decay / 2
        return objective.of_logits(logits, target) + decay

    return jax.vmap(jax.grad(loss), (None, 0, 0))((kernel, bias), embeddings, targets)


def one_round(objective, classes, embeddings=DISJOINT, arrived=None, seed=0):
    """(sum of the kernel's gradients, of the bias's, head, logits, true counts)."""
    rng = np.random.default_rng(seed)
    clients, dim = embeddings.shape
    kernel = (rng.standard_normal((dim, classes)) / np.sqrt(dim)).astype(np.float32)
    bias = rng.standard_normal(classes).astype(np.float32)
    shares = rng.dirichlet(np.full(classes, 0.5), clients)
    targets = rng.multinomial(1, shares[:, None], size=(clients, BATCH))
    if objective.loss == "multilabel":
        targets = (rng.random((clients, BATCH, classes)) < shares[:, None]).astype(int)
    arrived = np.ones(clients) if arrived is None else arrived
    gradients = gradients_of(objective, kernel, bias, embeddings.astype(np.float32), targets.astype(np.float32))
    # Secure aggregation adds integers, so the sum is exact.
    kernel_sum, bias_sum = (np.tensordot(arrived, np.asarray(each, np.float64), 1) for each in gradients)
    return kernel_sum, bias_sum, (kernel, bias), embeddings @ kernel.astype(float) + bias, targets.sum(1)


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("variant", VARIANTS)
def test_counts_of_every_client_are_exact(variant, classes):
    options = dict(VARIANTS[variant])
    if "class_weights" in options:
        options["class_weights"] = UNEVEN[:classes]
    objective = Objective(**options)
    kernel_sum, _, (kernel, _), logits, truth = one_round(objective, classes)
    kernel_sum = without_decay(kernel_sum, kernel, objective.weight_decay, CLIENTS)
    sizes = np.full(CLIENTS, BATCH)
    counts = label_counts(head_gradients(kernel_sum, DISJOINT), logits, sizes, objective)
    assert np.abs(counts - truth).max() < 1e-3
    nearest = nearest_counts if objective.loss == "multilabel" else nearest_histograms
    assert exact(nearest(counts, sizes), truth).all()


def test_bias_column_carries_one_client_more_than_dimensions():
    embeddings = np.vstack([np.eye(CLIENTS - 1), np.zeros(CLIENTS - 1)])
    kernel_sum, bias_sum, _, logits, truth = one_round(Objective(), 10, embeddings)
    counts = label_counts(
        head_gradients(kernel_sum, embeddings, bias_sum), logits, np.full(CLIENTS, BATCH), Objective()
    )
    assert np.abs(counts - truth).max() < 1e-3
    with pytest.raises(ValueError, match="of 50 clients have rank 49"):
        head_gradients(kernel_sum, embeddings)


def test_a_batch_of_sums_decodes_as_each_of_them():
    rng = np.random.default_rng(0)
    gradients = rng.standard_normal((3, 2, CLIENTS, 4))
    found = head_gradients(HADAMARD.T @ gradients, HADAMARD, gradients.sum(-2))
    np.testing.assert_allclose(found, gradients, atol=1e-12)


def test_weight_decay_is_counted_once_for_every_survivor():
    plain = without_decay(np.full((2, 3), 10.0), np.array([1.0, 2.0, 3.0]), 0.5, np.array([4, 2]))
    np.testing.assert_allclose(plain, [[8, 6, 4], [9, 8, 7]])


def test_class_weights_of_a_multilabel_loss_are_refused():
    weighted = Objective(loss="multilabel", class_weights=(1.0, 2.0))
    with pytest.raises(ValueError, match="occur together"):
        label_counts(np.zeros((1, 2)), np.zeros((1, 2)), [4], weighted)
    with pytest.raises(ValueError, match="occur together"):
        simulated(np.eye(2), np.zeros(2), np.eye(2), "none", np.eye(2), 1, 0.1, 0.0, weighted)


@pytest.mark.parametrize("embeddings", [DISJOINT, HADAMARD], ids=["disjoint", "hadamard"])
def test_dropouts_decode_to_nothing_and_survivors_exactly(embeddings):
    arrived = np.random.default_rng(3).permutation(CLIENTS) >= 15
    kernel_sum, _, _, logits, truth = one_round(Objective(), 10, embeddings, arrived)
    gradients = head_gradients(kernel_sum, embeddings)
    assert np.abs(gradients[~arrived]).max() < 1e-7
    np.testing.assert_array_equal(present(gradients), arrived)
    found = nearest_histograms(label_counts(gradients, logits, [BATCH] * CLIENTS, Objective()), BATCH)
    assert exact(found, truth)[arrived].all()


@pytest.mark.parametrize("variant", ["mean", "weighted", "sum", "weighted sum"])
def test_unknown_batch_size_is_found_up_to_the_common_factor_of_the_counts(variant):
    clients, classes = 200, 10
    options = dict(VARIANTS[variant])
    if "class_weights" in options:
        options["class_weights"] = UNEVEN[:classes]
    objective = Objective(**options)
    rng = np.random.default_rng(5)
    sizes = rng.integers(16, 129, clients)
    truth = rng.multinomial(sizes, rng.dirichlet(np.full(classes, 0.5), clients))
    logits = rng.standard_normal((clients, classes)).astype(np.float32)

    @jax.jit
    @jax.vmap
    def gradient(logits, counts):  # all records of a class at once, as often as it has them
        each = jax.vmap(jax.grad(Objective(smoothing=objective.smoothing).of_logits), (None, 0))(
            logits[None], jnp.eye(classes)[:, None]
        )[:, 0]
        weights = counts * jnp.asarray(objective.class_weights or (1.0,) * classes)
        return weights @ each / (weights.sum() if objective.reduction == "mean" else 1)

    gradients = gradient(logits, truth.astype(np.float32))
    factor = np.gcd.reduce(truth, axis=1) if objective.reduction == "mean" else 1
    found = batch_size_of(gradients, logits, objective)
    np.testing.assert_array_equal(found, sizes // factor)
    assert (found == sizes).mean() >= 0.98
    counts = nearest_histograms(label_counts(gradients, logits, found, objective), found)
    np.testing.assert_array_equal(counts * (sizes // found)[:, None], truth)


def test_no_batch_size_fits_noise():
    noise = np.random.default_rng(0).standard_normal((20, 10))
    assert not batch_size_of(noise - noise.mean(-1, keepdims=True), np.zeros((20, 10)), Objective(), largest=64).any()


def test_noise_law_of_plain_rounding_holds():
    rng = np.random.default_rng(7)
    rounds, classes, sigma, width = 200, 10, 1e-2, 10
    embeddings = np.kron(np.eye(CLIENTS), np.ones((1, width)))
    truth = rng.multinomial(BATCH, rng.dirichlet(np.full(classes, 0.5), (rounds, CLIENTS)))
    clean = embeddings.T @ (1 / classes - truth / BATCH)
    gradients = head_gradients(clean + sigma * rng.standard_normal(clean.shape), embeddings)
    counts = label_counts(gradients, np.zeros((CLIENTS, classes)), [BATCH] * CLIENTS, Objective())
    plain = exact(np.rint(counts), truth)
    # Supports are disjoint, so all errors are independent with this standard deviation and the rate is the product.
    deviation = BATCH * sigma / np.sqrt(width)
    trials, hits = plain.size, plain.sum()
    law = erf(0.5 / (np.sqrt(2) * deviation)) ** classes
    # Clopper-Pearson at false-alarm rate 1e-6.
    assert beta.ppf(5e-7, hits, trials - hits + 1) <= law <= beta.ppf(1 - 5e-7, hits + 1, trials - hits)
    simplex = exact(nearest_histograms(counts, BATCH), truth)
    assert (simplex >= plain).all() and simplex.mean() > 0.97
    # With the sum repaired first: the reference's approximation, whose classes are not independent.
    centred = counts - (counts.sum(-1, keepdims=True) - BATCH) / classes
    repaired = erf(0.5 / (np.sqrt(2 * (1 - 1 / classes)) * deviation)) ** (classes - 1)
    assert abs(exact(np.rint(centred), truth).mean() - repaired) < 0.05


histograms = st.lists(st.integers(0, 9), min_size=2, max_size=12).filter(any).map(np.array)


@given(histograms, st.integers(0, 2**32 - 1))
def test_histogram_is_exact_where_errors_of_classes_differ_by_less_than_one(truth, seed):
    rng = np.random.default_rng(seed)
    errors = 10 * rng.standard_normal() + rng.uniform(0, 0.999, len(truth))
    np.testing.assert_array_equal(nearest_histograms(truth + errors, truth.sum()), truth)


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=12), st.integers(0, 60))
def test_projection_is_the_nearest_point_of_the_simplex(counts, size):
    counts = np.array(counts)
    point = onto_simplex(counts, size)
    assert (point >= 0).all() and abs(point.sum() - size) < 1e-9
    # The nearest point of a convex set sees every other point, so every corner, at an angle of 90° or more.
    corners = size * np.eye(len(counts))
    assert ((corners - point) @ (counts - point)).max() <= 1e-9 * (1 + np.abs(counts).max()) * (1 + size)


def test_projection_and_rounding_work_row_by_row():
    np.testing.assert_allclose(onto_simplex([[3, 2, -1], [0.5, 0.5, 0]], [4, 4]), [[2.5, 1.5, 0], [1.5, 1.5, 1]])
    np.testing.assert_array_equal(largest_remainder([[1.4, 0.5, 2.1], [0.5, 0.5, 3]], 4), [[1, 1, 2], [1, 0, 3]])
    np.testing.assert_array_equal(nearest_counts([[-0.7, 0.6, 9.0]], [4]), [[0, 1, 4]])
    with pytest.raises(ValueError, match="onto_simplex"):
        largest_remainder([1.0, 1.0], 7)


def test_scores_of_hand_counted_histograms():
    found, truth = [[2, 1, 1], [4, 0, 0], [0, 0, 4]], [[2, 1, 1], [3, 1, 0], [4, 0, 0]]
    assert exact(found, truth).tolist() == [True, False, False]
    assert overlap(found, truth).tolist() == [1.0, 0.75, 0.0]


def test_pooled_guess_is_the_same_share_for_everyone():
    guess = pooled_guess([6, 3, 3], 3, [4, 4, 2])
    assert guess.tolist() == [[2, 1, 1], [2, 1, 1], [1, 1, 0]]
