"""Label leakage: exact recovery, rings, ResNets, several local steps, noise, and the audit; tables for results/.

JAXAUDIT_DATA_DIR=DIR python benchmarks/label_leakage.py [SECTION ...] [--out DIR]

SECTION: exact rings resnet steps noise audit; all of them by default. Every section keeps what it measured as JSON
in DIR (results/label-leakage by default); `label_leakage_tables.py` makes the tables and the figure of them.
"""

import argparse
import json
import time
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np

import jaxaudit as ja
from jaxaudit import datasets, runner
from jaxaudit.bounds import gaussian_epsilon
from jaxaudit.devices import prepare
from jaxaudit.player import Player
from jaxaudit.recovery import recover

SEED, RATE, BATCH = 0, 0.1, 64
HEAD = {"dataset": "mnist", "model": "lenet_bn", "hidden": 512, "batch_size": BATCH, "sends": "head"}


@contextmanager
def hundred_classes():
    """MNIST by digit and, within it, by decile of ink: real images with 100 labels of their own."""
    load = datasets.load

    def relabelled(name, data_dir=None):
        data = load(name, data_dir)
        ink = data.inputs.reshape(len(data.labels), -1).sum(1)
        labels = np.zeros_like(data.labels)
        for digit in range(data.classes):
            own = np.flatnonzero(data.labels == digit)
            order = own[np.argsort(ink[own], kind="stable")]
            labels[order] = 10 * digit + np.arange(len(own)) * 10 // len(own)
        return data._replace(labels=labels, classes=100, test_inputs=data.inputs[:0], test_labels=labels[:0])

    datasets.load = relabelled
    try:
        yield
    finally:
        datasets.load = load


@contextmanager
def classes(number):
    """The data set as it is, or with 100 classes."""
    if number == 10:
        yield
        return
    with hundred_classes():
        yield


def recovered(population, aggregator=None, attack=None, clients=1000):
    """Recovery without noise, as one row."""
    began = time.perf_counter()
    audit = ja.Audit(
        population=ja.Deceived(**population),
        aggregator=aggregator or ja.SecureSum(),
        attack=attack or ja.LabelLeakage(),
    )
    prepared = audit.prepare(SEED)
    found = recover(prepared, SEED, clients=clients).summary
    row = found["rows"][0]
    return {
        **{
            name: row[name]
            for name in ("clients", "rounds", "exact", "exact_lower", "exact_upper", "overlap", "largest_error")
        },
        "design": found["design"],
        "spread": found["spread"],
        "null": found["null"],
        "seconds": time.perf_counter() - began,
    }


def exact(keep):
    """All clients, all labels: cohorts, classes, architectures, designs."""
    cohorts = [(50, 10, "disjoint"), (50, 100, "disjoint"), (500, 10, "disjoint"), (500, 100, "disjoint")]
    for clients, number, design in [*cohorts, (50, 100, "hadamard"), (500, 100, "hadamard")]:
        variants = 20 if clients == 50 else 2
        population = HEAD | {"clients": clients, "variants": variants, "records": 128}
        for channel, aggregator in (
            ("float", None),
            ("16-bit ring", ja.SecureSum(stages=(ja.FixedPoint(clip_range=RATE),), ring_bits=16)),
        ):
            with classes(number):
                # Entries of a gradient are within the amplitude, and an update is RATE times as long.
                found = recovered(population, aggregator, ja.LabelLeakage(design=design, amplitude=1.0))
            keep({"model": "lenet_bn", "K": clients, "C": number, "channel": channel, **found})
    for model in ("vgg_bn", "preact_resnet", "mobilenet", "layernorm"):
        own = HEAD | {"model": model, "clients": 50, "variants": 2, "records": 128, "hidden": 128}
        design, amplitude = ("signed", 1.0) if model == "layernorm" else ("disjoint", 5.0)
        found = recovered(own, None, ja.LabelLeakage(design=design, amplitude=amplitude))
        keep({"model": model, "K": 50, "C": 10, "channel": "float", **found})
    # What the normal training of a deployment does to the decoder.
    for words, fields in {
        "sum reduction": {"reduction": "sum"},
        "label smoothing 0.1": {"smoothing": 0.1},
        "class weights 1 to 2.8": {"class_weights": tuple(np.round(1 + 0.2 * np.arange(10), 1).tolist())},
        "multi-label BCE": {"loss": "multilabel"},
        "weight decay 0.01": {"weight_decay": 0.01},
        "batches of 16, 32, 64, sizes unknown": {"batch_size": (16, 32, 64)},
        "30 % dropouts": {"dropout": 0.3},
    }.items():
        attack = ja.LabelLeakage(batch_sizes="unknown") if "batch_size" in fields else ja.LabelLeakage()
        found = recovered(HEAD | {"clients": 50, "variants": 8, "records": 128} | fields, None, attack, 400)
        keep({"model": "lenet_bn", "K": 50, "C": 10, "channel": words, **found})
    found = recovered(
        HEAD | {"clients": 50, "variants": 4, "records": 128, "model": "vgg_bn", "hidden": 512, "batch_size": 32},
        None,
        ja.LabelLeakage(mode="beta_only", amplitude=9.5),
    )
    keep({"model": "vgg_bn", "K": 50, "C": 10, "channel": "float, shift alone edited (scale untouched)", **found})
    packed = {"edits": "norm_and_bias", "preset": "one_hot", "per_direction": 3, "amplitude": 1.0}
    found = recovered(
        HEAD | {"clients": 150, "variants": 2, "records": 128, "hidden": 64}, None, ja.LabelLeakage(**packed)
    )
    keep({"model": "lenet_bn, 64 dimensions", "K": 150, "C": 10, "channel": "float, 3 clients a direction", **found})


def rings(keep):
    """The law of the ring: 0/a designs rounded to nearest are exact iff scale · a > B, whatever K and C."""
    for clients in (50, 500):
        for bits, scale in ((16, 33), (16, 40), (16, 63), (16, 65), (16, 163), (8, 65)):
            for number in (10, 100):
                population = HEAD | {"clients": clients, "variants": 4 if clients == 50 else 1, "records": 128}
                stage = ja.FixedPoint(clip_range=RATE, step=RATE / scale)
                aggregator = ja.SecureSum(stages=(stage,), ring_bits=bits, wrap=True)
                with classes(number):
                    found = recovered(population, aggregator, ja.LabelLeakage(amplitude=1.0), 400)
                keep({"K": clients, "C": number, "bits": bits, "scale": scale, "law": BATCH / (2 * scale), **found})


def resnet(keep):
    """ResNet-18 v1: the last normalisation layer alone at growing |β|, and all three that an exact model needs."""
    own = HEAD | {"model": "resnet18", "clients": 50, "records": 128}
    for amplitude in (1.0, 10.0, 100.0, 1e3):
        found = recovered(own, None, ja.LabelLeakage(mode="saturated", amplitude=amplitude))
        keep({"mode": "saturated", "amplitude": amplitude, **found})
    keep({"mode": "exact, three layers", "amplitude": 10.0, **recovered(own, None, ja.LabelLeakage())})


def steps(keep):
    """FedAvg: several local steps, decoded as if they were one, and with the drift simulated and corrected."""
    for rate in (1e-3, 1e-2, 1e-1):
        for fresh in (False, True):
            population = HEAD | {
                "clients": 50, "variants": 4, "records": 640 if fresh else 128, "local_steps": 5,
                "fresh_batches": fresh, "learning_rate": rate,
            }  # fmt: skip
            # Embeddings of length 3, as in the reference's table.
            attack = ja.LabelLeakage(amplitude=3 / np.sqrt(10))
            for decoder in ("naive", "corrected"):
                found = recovered(population, None, replace(attack, local_steps=decoder), 200)
                keep({"rate": rate, "fresh": fresh, "decoder": decoder, **found})


def noise(keep):
    """Recovery against the noise multiplier, clipped to 1, with what the decoder is told."""
    for number in (10, 100):
        population = HEAD | {"clients": 50, "variants": 20, "records": 128, "sends": "whole"}
        stages = ja.Clip(norm=1.0), ja.Gaussian(deviation=1.0)
        with classes(number):
            audit = ja.Audit(
                population=ja.Deceived(**population),
                aggregator=ja.SecureSum(stages=stages),
                attack=ja.LabelLeakage(),
            )
            found = recover(audit.prepare(SEED), SEED).summary
        keep({"C": number, "null": found["null"], "rows": found["rows"]})


def audit(keep):
    """The label test of every kind: separation measured and predicted, and what many audits certify."""
    stages = ja.Clip(norm=1.0), ja.Gaussian(deviation=1.0)
    digits = {"records": 128, "clients": 50}
    runner.recover = lambda *everything: None  # the other sections recover; here it would take most of the time
    for words, population, attack in (
        ("tie, all labels, norm only", {}, {"preset": "tie"}),
        ("tie, all labels, head's bias too", {}, {"preset": "tie", "edits": "norm_and_bias"}),
        ("tie, one label of 65", {"pair": "one_label", "batch_size": 65}, {"preset": "tie", "amplitude": 200.0}),
        ("one-hot, all labels: zero-out", {}, {"preset": "one_hot", "edits": "norm_and_bias"}),
        ("natural odds, all labels", {}, {}),
        ("tie, 50 decisions a round", {}, {"preset": "tie", "edits": "norm_and_bias", "decisions": "all"}),
    ):
        prepared = ja.Audit(
            population=ja.Deceived(**digits | population),
            aggregator=ja.SecureSum(stages=stages),
            attack=ja.LabelLeakage(**attack),
        ).prepare(SEED)
        game = prepared.game()
        player = Player(tuple(jax.local_devices()), SEED, lambda name, trials: lambda done: None)
        (scores,) = player.scores(game, "pilot", 200_000)
        spread = np.sqrt((scores.h0.var() + scores.h1.var()) / 2)
        # The noise is the same under both bits of a trial: its mean cancels in the difference.
        measured = float((scores.h1.mean() - scores.h0.mean()) / spread)
        cell = prepared.cells[0]
        certified = []
        for seed in range(20):
            result = ja.run(prepared.audit, trials=102_400, seed=seed, deltas=[1e-5])
            certified.append(result.bounds[0].epsilon)
        keep(
            {
                "test": words,
                "adjacency": cell.pair.adjacency,
                "trials_mu": 200_000,
                "mu": measured,
                "predicted": float(game.distance[0]),
                "analytic": gaussian_epsilon(1e-5, float(game.distance[0])),
                "proved": result.headline.claim.epsilons[0],
                "trials": 102_400,
                "certified": certified,
            }
        )


SECTIONS = {"exact": exact, "rings": rings, "resnet": resnet, "steps": steps, "noise": noise, "audit": audit}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", default=list(SECTIONS), metavar="SECTION")
    parser.add_argument("--out", type=Path, default=Path("results/label-leakage"))
    chosen = parser.parse_args()
    prepare(distributed=False)
    chosen.out.mkdir(parents=True, exist_ok=True)
    for name in chosen.sections:
        rows = []

        def keep(row, name=name, rows=rows):
            rows.append(row)
            print(name, {key: value for key, value in row.items() if key not in ("rows", "certified")}, flush=True)
            facts = {"seed": SEED, "device": jax.devices()[0].platform, "jax": jax.__version__}
            facts["jaxaudit"] = version("jaxaudit")
            (chosen.out / f"{name}.json").write_text(json.dumps(facts | {"rows": rows}, indent=1) + "\n")

        SECTIONS[name](keep)


if __name__ == "__main__":
    main()
