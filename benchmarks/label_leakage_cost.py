"""What label leakage costs the server and the simulation: seconds of every part of a round, and peak memory.

JAXAUDIT_DATA_DIR=DIR python benchmarks/label_leakage_cost.py [--quick] [--out DIR]

Each configuration is played in a process of its own, so that the peak is its own. The parts take turns with a plain
Python loop over the clients, which differentiates the loss of each under a parameter tree of its own by one function
that is compiled once. The numbers go to DIR/cost.json; `label_leakage_tables.py` makes the table of them.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from measure import at_most, facts, side_by_side

import jaxaudit as ja
from jaxaudit.attacks.label_leakage import attack
from jaxaudit.attacks.label_leakage.solving import Told, solved
from jaxaudit.devices import prepare
from jaxaudit.populations import deceived
from jaxaudit.populations.answers import personal
from jaxaudit.random import STREAMS, numbered

SEED, TURNS = 0, 3
# Decoding is to take less than this share of the clients' gradients.
SHARE = 0.05
DIGITS = {"dataset": "mnist", "variants": 1, "sends": "head"}
LENET = DIGITS | {"model": "lenet_bn", "batch_size": 64, "records": 128}
RUNS = {
    "lenet_bn, 50": LENET | {"clients": 50, "hidden": 512},
    "lenet_bn, 500": LENET | {"clients": 500, "hidden": 512},
    "lenet_bn, 1000": LENET | {"clients": 1000, "hidden": 1024},
    "resnet18, 50": DIGITS | {"model": "resnet18", "clients": 50, "batch_size": 8, "records": 16},
}
QUICK = {"lenet_bn, 8": LENET | {"dataset": "digits", "clients": 8, "hidden": 64}}


def peak():
    """Most memory that this process has held so far, MiB."""
    # Linux carries the parent's figure over: the parent imports what the child does, and loads no data.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


class Watched:
    """A function, the seconds of its first call, and the memory before it.

    Attributes:
      again: the same call once more.
      first_s: seconds, compilation included.
      before_mib: peak before the call.
    """

    def __init__(self, function):
        self.function, self.again = function, None

    def __call__(self, *arguments):
        """Call it."""
        if self.again:
            return self.function(*arguments)
        self.again, self.before_mib, began = partial(self.function, *arguments), peak(), time.perf_counter()
        result = self.function(*arguments)
        self.first_s = time.perf_counter() - began
        return result


@partial(jax.jit, static_argnums=0)
def gradient(training, params, inputs, labels):
    """The head's part of the gradient on one batch, flat."""

    def loss(head):
        logits = training.logits({"params": params | {"head": head}}, inputs)
        return training.objective.of_logits(logits, labels)

    return ravel_pytree(jax.grad(loss)(params["head"]))[0]


def looped(training, sent, take, inputs, labels, who, batches):
    """The same updates, client by client."""
    rows = []
    for client, batch in zip(who, batches[:, 0].astype(np.int32)):
        params = personal(sent.common, {path: jnp.asarray(leaf[client]) for path, leaf in sent.own.items()})
        rows.append(np.asarray(gradient(training, params, inputs[batch], labels[batch])))
    return -training.learning_rate * np.stack(rows)


def round_of(prepared):
    """A function that plays one round in which the target sends what it sends unasked: f64[dim], what is revealed."""
    (cell,), own = prepared.cells, prepared.responses.truth.own
    game = replace(prepared, cells=(replace(cell, server=replace(cell.server, pair=own)),)).fold()
    reveal, words = jax.jit(game.program.reveal), (SEED, STREAMS["recovery"], 0, 0)
    return lambda: np.asarray(reveal(game.params, numbered(*map(jnp.uint32, words)))[0].total[0, 0], np.float64)


def measured(population, turns):
    """One configuration, in this process: a row of the JSON, and the machine in words."""
    prepare(distributed=False)
    attack.craft, deceived.answers = crafting, gradients = Watched(attack.craft), Watched(deceived.answers)
    prepared = ja.Audit(
        population=ja.Deceived(**population), aggregator=ja.SecureSum(), attack=ja.LabelLeakage()
    ).prepare(SEED)
    truth, played = prepared.responses.truth, round_of(prepared)
    began = time.perf_counter()
    total = played()
    sum_first_s = time.perf_counter() - began
    clients = len(truth.of_rows) + 1
    decode = partial(solved, prepared.responses.sent.facts, total, Told(np.ones(clients, bool)), True, True)
    exact = int((decode().found == np.concatenate([truth.of_target[None], truth.of_rows])).all(axis=1).sum())
    memory = {"before": gradients.before_mib, "round": peak()}

    loop = partial(looped, *gradients.again.args)
    difference = np.abs(loop() - gradients.again()).max() / np.abs(gradients.again()).max()
    assert difference < 1e-4, f"the loop and the chunks are apart by {difference:.2g} of the largest entry"
    parts = {
        "crafting": crafting.again,
        "gradients": gradients.again,
        "loop": loop,
        "sum": played,
        "decoding": decode,
    }
    # One call is one unit of work.
    costs = side_by_side({name: lambda run=run: len([run()]) for name, run in parts.items()}, turns)
    medians = {
        name: {"wall_s": float(np.median(cost.wall)), "cpu_s": float(np.median(cost.cpu))}
        for name, cost in costs.items()
    }
    for name, first_s in (("crafting", crafting.first_s), ("gradients", gradients.first_s), ("sum", sum_first_s)):
        medians[name] |= {"first_s": first_s, "compile_s": max(0.0, first_s - medians[name]["wall_s"])}
    over = costs["loop"].over(costs["gradients"]), np.median(costs["loop"].wall / costs["gradients"].wall)
    share = costs["decoding"].over(costs["gradients"]), np.median(costs["decoding"].wall / costs["gradients"].wall)
    row = population | {
        "turns": turns,
        "exact": exact,
        "dim": len(total),
        "difference": float(difference),
        "parts": medians,
        "loop_over_chunks": {"cpu": float(over[0]), "wall": float(over[1])},
        "decoding_over_gradients": {"cpu": float(share[0]), "wall": float(share[1])},
        "peak_mib": memory,
    }
    return {"row": row, "machine": facts(), "device": jax.devices()[0].platform}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes: whether all agree, not how fast they are")
    parser.add_argument("--out", type=Path, default=Path("results/label-leakage"))
    parser.add_argument("--only", metavar="NAME", help="play one configuration here, and print its JSON")
    chosen = parser.parse_args()
    runs, turns = (QUICK, 2) if chosen.quick else (RUNS, TURNS)
    if chosen.only:
        print(json.dumps(measured(runs[chosen.only], turns)))
        return
    chosen.out.mkdir(parents=True, exist_ok=True)
    rows, own = [], ["--quick"] * chosen.quick
    for name in runs:
        command = [sys.executable, __file__, *own, "--only", name]
        environment = os.environ | {"JAXAUDIT_CACHE": "off"}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        rows.append(found["row"])
        told = {"seed": SEED, "device": found["device"], "machine": found["machine"], "jax": jax.__version__}
        told |= {"jaxaudit": version("jaxaudit"), "quick": chosen.quick, "rows": rows}
        (chosen.out / "cost.json").write_text(json.dumps(told, indent=1) + "\n")
        seconds = ", ".join(f"{part} {cost['wall_s']:.3g} s" for part, cost in found["row"]["parts"].items())
        ratio, share = (found["row"][of]["wall"] for of in ("loop_over_chunks", "decoding_over_gradients"))
        print(f"{name} clients: {seconds}; loop / chunks {ratio:.2f}; decoding {at_most(share, SHARE)}")


if __name__ == "__main__":
    main()
