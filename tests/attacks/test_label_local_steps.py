"""Several local steps: labels decoded naively are wrong, and right once the drift of the clients is simulated."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.linalg import hadamard

from jaxaudit.attacks.label_leakage.decoding import head_gradients, label_counts
from jaxaudit.attacks.label_leakage.histograms import exact, nearest_counts, nearest_histograms, overlap
from jaxaudit.attacks.label_leakage.local_steps import corrected, simulated
from jaxaudit.models.objective import Objective

CLIENTS, BATCH, STEPS = 50, 64, 5
DISJOINT = 3 / np.sqrt(10) * np.kron(np.eye(CLIENTS), np.ones((1, 10)))
HADAMARD = 3 / np.sqrt(32) * (hadamard(64)[1 : CLIENTS + 1] + 1) / 2
WEIGHTS = tuple(float(0.5 + 1.5 * (c % 7) / 6) for c in range(10))


@partial(jax.jit, static_argnums=(0, 1, 2))
def summed_change(objective, momentum, scale_moves, learning_rate, kernel, bias, betas, inputs, targets):
    """Sum of the head's changes of clients that train a normalisation layer with γ = 0, ReLU and the head."""
    optimizer = optax.sgd(learning_rate, momentum=momentum or None)

    def loss(parameters, x, target):
        normal = (x - x.mean(0)) * jax.lax.rsqrt(x.var(0) + 1e-5)
        scale = parameters["scale"] if scale_moves else jnp.zeros_like(parameters["scale"])
        embedding = jax.nn.relu(scale * normal + parameters["beta"])
        logits = jnp.matmul(embedding, parameters["kernel"], precision="highest") + parameters["bias"]
        decay = sum(jnp.sum(each**2) for each in jax.tree.leaves(parameters)) * objective.weight_decay / 2
        return objective.of_logits(logits, target) + decay

    def train(beta, xs, ts):
        start = {"kernel": kernel, "bias": bias, "beta": beta, "scale": jnp.zeros_like(beta)}

        def step(carry, batch):
            parameters, state = carry
            update, state = optimizer.update(jax.grad(loss)(parameters, *batch), state)
            return (optax.apply_updates(parameters, update), state), None

        (end, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), (xs, ts))
        return end["kernel"] - kernel, end["bias"] - bias

    return jax.tree.map(lambda each: each.sum(0), jax.vmap(train)(betas, inputs, targets))


class Round:
    """What the server sees of some local steps, and the label counts behind it."""

    def __init__(
        self, objective, classes, learning_rate, *, momentum=0.0, fresh=False, betas=DISJOINT, scale_moves=True
    ):
        rng = np.random.default_rng(11)
        dim = betas.shape[1]
        self.head = [
            (rng.standard_normal((dim, classes)) / np.sqrt(dim)).astype(np.float32),
            np.zeros(classes, np.float32),
        ]
        shares = rng.dirichlet(np.full(classes, 0.5), CLIENTS)
        labels = rng.multinomial(1, shares[:, None, None], size=(CLIENTS, STEPS, BATCH))
        if objective.loss == "multilabel":
            labels = (rng.random(labels.shape) < shares[:, None, None]).astype(int)
        # Records look like their class, so that γ learns something.
        inputs = labels.astype(np.float32) @ (0.5 * rng.standard_normal((classes, dim), np.float32))
        inputs += rng.standard_normal(inputs.shape, np.float32) if scale_moves else 0
        if not fresh:
            labels[:], inputs[:] = labels[:, :1], inputs[:, :1]
        change, bias_change = summed_change(
            objective,
            momentum,
            scale_moves,
            np.float32(learning_rate),
            *self.head,
            betas.astype(np.float32),
            inputs,
            labels.astype(np.float32),
        )
        over = -1 / learning_rate
        self.observed = head_gradients(over * np.asarray(change, np.float64), betas)
        self.observed_with_bias = head_gradients(
            over * np.asarray(change, np.float64), betas, over * np.asarray(bias_change, np.float64)
        )
        self.truth = labels.sum(2).sum(1) if fresh else labels[:, 0].sum(1)
        self.sizes = np.full(CLIENTS, BATCH * (STEPS if fresh else 1))
        self.training = (*self.head, betas, "relu")
        self.settings = (STEPS, learning_rate, momentum, objective)
        self.objective = objective
        self.logits = betas @ self.head[0].astype(float) + self.head[1]

    def naive(self):
        _, _, momentum, _ = self.settings
        gradients = self.observed / sum(momentum**gap for last in range(STEPS) for gap in range(last + 1))
        return nearest_histograms(label_counts(gradients, self.logits, self.sizes, self.objective), self.sizes)

    def corrected(self):
        frequencies = corrected(self.observed, *self.training, *self.settings, sizes=np.full(CLIENTS, BATCH))
        nearest = nearest_counts if self.objective.loss == "multilabel" else nearest_histograms
        return nearest(frequencies * self.sizes[:, None], self.sizes)


def test_one_step_is_the_gradient_of_the_bias():
    frequencies = np.random.default_rng(0).dirichlet(np.ones(10), CLIENTS)
    kernel = np.random.default_rng(1).standard_normal((64, 10)) / 8
    found = simulated(kernel, np.zeros(10), HADAMARD, "relu", frequencies, 1, 0.1, 0.0, Objective())
    odds = np.exp(HADAMARD @ kernel)
    np.testing.assert_allclose(found, odds / odds.sum(-1, keepdims=True) - frequencies, atol=3e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_simulation_is_what_clients_with_a_fixed_scale_send(momentum):
    objective = Objective(smoothing=0.1, class_weights=WEIGHTS, weight_decay=0.01)
    seen = Round(objective, 10, 0.1, momentum=momentum, betas=HADAMARD, scale_moves=False)
    told = simulated(*seen.training, seen.truth / BATCH, *seen.settings, read_bias=True)
    np.testing.assert_allclose(told, seen.observed_with_bias, atol=1e-4)


# The table of the reference: (classes, learning rate, fresh batches, momentum), and whether the naive decoder fails
# for every client.
TABLE = [
    (10, 1e-3, False, 0.0, False),
    (10, 1e-1, False, 0.0, True),
    (10, 1e-1, False, 0.9, True),
    (10, 1e-2, True, 0.0, True),
    (100, 1e-1, True, 0.0, False),
]


@pytest.mark.parametrize("classes, learning_rate, fresh, momentum, fails", TABLE)
def test_corrected_counts_are_exact_where_naive_ones_fail(classes, learning_rate, fresh, momentum, fails):
    seen = Round(Objective(), classes, learning_rate, momentum=momentum, fresh=fresh)
    assert exact(seen.corrected(), seen.truth).all()
    if fails:
        assert not exact(seen.naive(), seen.truth).any()


def test_of_fresh_batches_with_long_steps_most_labels_are_found():
    seen = Round(Objective(), 10, 1e-1, fresh=True)
    found = overlap(seen.corrected(), seen.truth).mean()
    assert found > 0.98 and found > overlap(seen.naive(), seen.truth).mean() + 0.05


@pytest.mark.parametrize(
    "options, learning_rate",
    [
        ({"smoothing": 0.1, "class_weights": WEIGHTS, "weight_decay": 0.01}, 0.1),
        ({"class_weights": WEIGHTS, "reduction": "sum"}, 0.1 / BATCH),
        ({"loss": "multilabel", "smoothing": 0.1}, 0.1),
    ],
    ids=str,
)
def test_correction_is_exact_under_any_objective(options, learning_rate):
    seen = Round(Objective(**options), 10, learning_rate, scale_moves=False)
    assert exact(seen.corrected(), seen.truth).all()


def test_drift_of_overlapping_embeddings_is_corrected_for_all_clients_at_once():
    seen = Round(Objective(), 10, 0.1, betas=HADAMARD, scale_moves=False)
    assert exact(seen.corrected(), seen.truth).all()


def test_what_the_simulation_lacks_is_said():
    with pytest.raises(ValueError, match="sizes must be given"):
        simulated(np.eye(2), np.zeros(2), np.eye(2), "relu", np.eye(2), 1, 0.1, 0.0, Objective(reduction="sum"))
    with pytest.raises(ValueError, match="relu, relu6, none, got 'tanh'"):
        simulated(np.eye(2), np.zeros(2), np.eye(2), "tanh", np.eye(2), 1, 0.1, 0.0, Objective())
    with pytest.raises(ValueError, match="relu, relu6, none, got 'tanh'"):
        corrected(np.eye(2), np.eye(2), np.zeros(2), np.eye(2), "tanh", 1, 0.1, 0.0, Objective())
