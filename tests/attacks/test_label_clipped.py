"""Clipped updates: integrality gives back the length that the clip hid, and with it every count."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from jaxaudit.attacks.label_leakage.clipped import unclipped
from jaxaudit.attacks.label_leakage.decoding import head_gradients, label_counts
from jaxaudit.attacks.label_leakage.histograms import exact, nearest_histograms
from jaxaudit.models.objective import Objective

CLIENTS, BATCH = 50, 64
EMBEDDINGS = np.kron(np.eye(CLIENTS), np.ones((1, 2)))
WEIGHTS = tuple(float(0.5 + 1.5 * (c % 7) / 6) for c in range(10))


@partial(jax.jit, static_argnums=0)
def clipped_sum(objective, kernel, bias, embeddings, targets, norm):
    """The sum of clipped updates of the head, in float32; the clip takes kernel and bias together."""

    def update(embedding, target):
        def loss(parameters):
            features = jnp.tile(embedding, (BATCH, 1))
            logits = jnp.matmul(features, parameters[0], precision="highest") + parameters[1]
            return objective.of_logits(logits, target)

        gradient = jax.grad(loss)((kernel, bias))
        length = jnp.sqrt(sum(jnp.sum(each**2) for each in gradient))
        return jax.tree.map(lambda each: each * jnp.minimum(1.0, norm / length), gradient)

    return jax.tree.map(lambda each: each.sum(0), jax.vmap(update)(embeddings, targets))


def decoded(objective, classes, prediction, rounds=4, norm=0.1):
    """(directions, logits, true counts) of all clients of some rounds."""
    rng = np.random.default_rng(classes)
    kernel, bias = np.zeros((EMBEDDINGS.shape[1], classes)), np.zeros(classes)
    if prediction == "generic":
        kernel = rng.standard_normal(kernel.shape)
    if prediction == "one-hot":
        bias[0] = 60
    head = kernel.astype(np.float32), bias.astype(np.float32)
    directions, truths = [], []
    for _ in range(rounds):
        shares = rng.dirichlet(np.full(classes, 0.5), CLIENTS)
        targets = rng.multinomial(1, shares[:, None], size=(CLIENTS, BATCH))
        if objective.loss == "multilabel":
            targets = (rng.random((CLIENTS, BATCH, classes)) < shares[:, None]).astype(int)
        kernel_sum, bias_sum = clipped_sum(
            objective, *head, EMBEDDINGS.astype(np.float32), targets.astype(np.float32), np.float32(norm)
        )
        directions.append(head_gradients(kernel_sum, EMBEDDINGS, bias_sum))
        truths.append(targets.sum(1))
    logits = EMBEDDINGS @ head[0].astype(float) + head[1]
    return np.concatenate(directions), np.tile(logits, (rounds, 1)), np.concatenate(truths)


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("prediction", ["generic", "uniform"])
def test_clipped_counts_are_exact(prediction, classes):
    directions, logits, truth = decoded(Objective(), classes, prediction)
    sizes = truth.sum(-1)
    counts, residual = unclipped(directions, logits, sizes, Objective())
    assert exact(counts, truth).all() and residual.max() < 1e-2
    taken_as_whole = nearest_histograms(label_counts(directions, logits, sizes, Objective()), sizes)
    assert not exact(taken_as_whole, truth).any()


def test_one_hot_predictions_leave_only_multiples_in_doubt():
    directions, logits, truth = decoded(Objective(), 10, "one-hot", rounds=20)
    counts, residual = unclipped(directions, logits, truth.sum(-1), Objective())
    right = exact(counts, truth)
    # 0.9% of such histograms share a factor, or leave room for a multiple that is likelier; 31 of 1,000 clients are
    # in doubt with probability below 1e-7.
    assert right.mean() >= 0.97 and residual.max() < 1e-2
    # Where the search errs, the counts of the classes that are not predicted have the true ratios.
    found, true = counts[~right, 1:], truth[~right, 1:]
    np.testing.assert_array_equal(found * true.sum(-1, keepdims=True), true * found.sum(-1, keepdims=True))


@pytest.mark.parametrize(
    "options",
    [
        {"reduction": "sum"},
        {"smoothing": 0.1},
        {"class_weights": WEIGHTS},
        {"class_weights": WEIGHTS, "reduction": "sum"},
        {"loss": "multilabel"},
    ],
    ids=str,
)
def test_clip_hides_nothing_under_any_objective(options):
    objective = Objective(**options)
    directions, logits, truth = decoded(objective, 10, "generic", rounds=1)
    counts, _ = unclipped(directions, logits, np.full(CLIENTS, BATCH), objective)
    assert exact(counts, truth).all()


@given(st.floats(1e-6, 1e6))
def test_the_length_of_the_gradient_does_not_matter(length):
    logits = np.array([[0.3, -0.2, 1.1, 0.4, -0.9]])
    truth = np.array([[3, 0, 7, 1, 5]])
    prediction = np.exp(logits) / np.exp(logits).sum()
    counts, residual = unclipped(length * (prediction - truth / 16), logits, [16], Objective())
    np.testing.assert_array_equal(counts, truth)
    assert residual[0] < 1e-9


def test_residual_tells_a_direction_that_is_no_gradient():
    noise = np.random.default_rng(0).standard_normal((200, 10))
    noise -= noise.mean(-1, keepdims=True)
    counts, residual = unclipped(noise, np.zeros((200, 10)), np.full(200, BATCH), Objective())
    # At most 64 points of a ray are looked at, and 8 classes are free; all within 0.025 of integers has probability
    # 64 * 0.05^8 for a client, 5e-7 for all together.
    assert residual.min() > 0.025 and (counts.sum(-1) == BATCH).all()


def test_client_that_sent_nothing_gets_its_prediction():
    counts, residual = unclipped(np.zeros((2, 4)), np.zeros((2, 4)), [8, 6], Objective())
    np.testing.assert_array_equal(counts, [[2, 2, 2, 2], [2, 2, 1, 1]])
    np.testing.assert_allclose(residual, [0, 0.5])


def test_a_clip_only_shortens_which_tells_a_tie_from_half_a_batch_each():
    # Logits that are tied but for a bit of float32: nearly nothing along the ray fits half and half.
    rng = np.random.default_rng(5)
    truth = rng.multinomial(16, rng.dirichlet(np.full(10, 0.5), 400))
    logits = np.full((400, 10), -30.0)
    logits[:, 0], logits[:, 1] = 0.0, 1e-6
    directions = (softmax(logits, axis=1) - truth / 16) * rng.uniform(0.01, 1.0, (400, 1))
    sizes = np.full(400, 16)
    found = unclipped(directions, logits, sizes, Objective(), shortened=True)[0]
    right = (found == truth).all(axis=1)
    assert right.mean() > 0.9
    # Whoever is mistaken has counts that a shorter update would have, too: nothing can tell them apart.
    gradients = softmax(logits, axis=1) - found / 16
    implied = np.linalg.norm(directions, axis=1) / np.linalg.norm(gradients, axis=1)
    assert (implied[~right] <= 1.02).all()
    assert right.sum() > (unclipped(directions, logits, sizes, Objective())[0] == truth).all(axis=1).sum()
