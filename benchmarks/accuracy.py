"""Test accuracy of the models under our federated averaging, beside scikit-learn on the same data; for results/.

JAXAUDIT_DATA_DIR=FOLDER python benchmarks/accuracy.py [SEED]
"""

import sys
import time
import warnings
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import jax
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from jaxaudit import datasets, models
from jaxaudit.populations.partition import deal

HEADER = "data | model | parameters | clients × rounds × steps × batch | accuracy | seconds | beside | its accuracy"
HIDDEN = 128
PUBLISHED = {
    "mnist": "LeCun et al. (1998), Proc. IEEE 86, table of results: linear classifier 88.0 % (91.6 % with deslanted "
    "digits), two-layer network of 300 hidden units 95.3 %, LeNet-1 98.3 %, LeNet-5 99.05 %",
    "adult": "adult.names: C4.5 84.46 %, NBTree 85.90 %, naive Bayes 83.88 %, nearest neighbours (3) 79.65 % (after "
    "removal of records with unknown values)",
}


@dataclass(frozen=True)
class Epoch:
    """Mini-batches of a client, no record twice: static sizes, no arrays."""

    steps: int
    size: int

    def __call__(self, key, records):
        """Record numbers i32[steps, size]."""
        return jax.random.permutation(key, records)[: self.steps * self.size].reshape(self.steps, self.size)


@dataclass(frozen=True)
class Setting:
    """One row: what is trained, how, and what stands beside it."""

    data: str
    model: models.Name
    clients: int
    rounds: int
    batch_size: int
    learning_rate: float
    reference: LogisticRegression | MLPClassifier | None = None


def settings(seed):
    logistic = LogisticRegression(max_iter=100)
    network = MLPClassifier((HIDDEN,), max_iter=10, random_state=seed)
    return [
        Setting("digits", "softmax", 10, 60, 16, 0.5, LogisticRegression(max_iter=1000)),
        Setting("adult", "softmax", 100, 40, 32, 0.1, logistic),
        Setting("adult", "mlp", 100, 40, 32, 0.05, network),
        Setting("mnist", "softmax", 100, 60, 32, 0.2, logistic),
        Setting("mnist", "mlp", 100, 60, 32, 0.15, network),
        Setting("mnist", "cnn", 20, 10, 32, 0.05),
    ]


def load(name, key):
    """The data set; every fifth record is tested on where there is no official test split."""
    data = datasets.load(name)
    if len(data.test_labels):
        return data
    order = np.asarray(jax.random.permutation(key, len(data.labels)))
    test, train = order[::5], np.delete(order, np.s_[::5])
    return data._replace(
        inputs=data.inputs[train],
        labels=data.labels[train],
        test_inputs=data.inputs[test],
        test_labels=data.labels[test],
    )


def train(setting, data, keys):
    """Every client passes once over its records in a round. Returns (parameters, epoch, test accuracy, seconds)."""
    began = time.perf_counter()
    model = models.build(setting.model, data.classes, HIDDEN)
    training = models.LocalTraining(model, setting.learning_rate, momentum=0.9)
    theta, unravel = training.init(keys[0], data.inputs[:1])
    records = deal(data.labels, setting.clients, "iid", 1.0, keys[1])
    epoch = Epoch(records.shape[1] // setting.batch_size, setting.batch_size)
    thetas = models.average(training, unravel, theta, data.inputs, data.labels, records, epoch, keys[2])
    theta = next(islice(thetas, setting.rounds, None))
    accuracy = training.accuracy(unravel, theta, data.test_inputs, data.test_labels)
    return theta.size, epoch, accuracy, time.perf_counter() - began


def beside(reference, data):
    """Name and test accuracy of the reference; what does not converge in its iterations is taken as it is."""
    if reference is None:
        return "–", "–"
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        reference.fit(data.inputs.reshape(len(data.inputs), -1), data.labels)
    accuracy = reference.score(data.test_inputs.reshape(len(data.test_inputs), -1), data.test_labels)
    kind = f"scikit-learn {type(reference).__name__}, {reference.max_iter} iterations at most"
    return f"{kind}, {time.perf_counter() - began:.0f} s", f"{100 * accuracy:.2f} %"


def main(seed=0):
    rows = [f"| {HEADER} |", "|" + " --- |" * (HEADER.count("|") + 1)]
    for setting in settings(seed):
        keys = jax.random.split(jax.random.key(seed), 4)
        data = load(setting.data, keys[3])
        dim, epoch, accuracy, wall_s = train(setting, data, keys)
        name, its = beside(setting.reference, data)
        cells = [
            f"{setting.data} ({len(data.labels):,} / {len(data.test_labels):,})",
            setting.model,
            f"{dim:,}",
            f"{setting.clients} × {setting.rounds} × {epoch.steps} × {epoch.size}",
            f"{100 * accuracy:.2f} %",
            f"{wall_s:.0f}",
            name,
            its,
        ]
        rows.append("| " + " | ".join(cells) + " |")
        print(rows[-1], flush=True)
    machine = f"{jax.devices()[0].device_kind}, jax {jax.__version__}"
    how = (
        f"Trained and tested on as many records as stand in brackets, dealt at random; one pass over a client's "
        f"records in every round, SGD with momentum 0.9, seed {seed}, {machine}. Published, for comparison: "
        + "; ".join(PUBLISHED.values())
    )
    text = f"{how}.\n\n" + "\n".join(rows) + "\n"
    Path(__file__).parent.parent.joinpath("results", "accuracy.md").write_text(text)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
