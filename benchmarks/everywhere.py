"""The same counts everywhere: devices, processes, batch widths, and versions of Python and JAX.

python benchmarks/everywhere.py [--quick] [--python PYTHON ...] [--out results/everywhere.md]

`--python` names the interpreters of other environments that hold the package's dependencies; the package itself is
always this one. Updates and weights are integers of a few bits, so that no step of the preparation rounds and every
version prepares the same numbers; what is compared then is the trials. The range crosses trial 2^32.
"""

import hashlib
import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CLIENTS, DIM, TERMS = 500, 16, (20, 61)
WIDTHS = (256, 1024, 8192, 65_536)


@dataclass(frozen=True)
class AtWidth:
    """A program whose batches have another width.

    Attributes:
      program: the program.
      trials: in a batch.
    """

    program: Any
    trials: int

    def width(self, params):
        """Trials to compute together."""
        return self.trials

    def play(self, params, ticket):
        """As the program does."""
        return self.program.play(params, ticket)

    def decode(self, keys):
        """As the program does."""
        return self.program.decode(keys)


def games_of():
    """Every kind of game, by name: projected and general, of all cohorts."""
    import games
    import numpy as np

    raw = np.random.PCG64(0).random_raw(CLIENTS * 4 * DIM + 3 * DIM)  # a bit generator is the same in every version
    small = ((raw >> np.uint64(58)).astype(np.float32) - 32).reshape(-1, DIM)
    updates, pair, weights = small[:-3], small[-3:-1], small[-1].astype(np.float64)
    sizes = 1 + np.arange(CLIENTS) % 4
    mean = np.rint(updates.mean(axis=0, dtype=np.float64))
    test = games.linear(weights, mean, pair)
    settings = {
        "with replacement": {},
        "without replacement": {"cohort": "without_replacement"},
        "own updates, dropout": {"sizes": sizes, "dropout": 0.125},
        "Poisson": {"cohort": "poisson", "dropout": 0.125},
    }
    for name, fields in settings.items():
        terms = TERMS[-1:] if name == "Poisson" else TERMS
        own = updates[: sizes.sum() if "sizes" in fields else CLIENTS]
        ready = games.prepared(own, terms, pair, test, **fields)
        yield f"{name}, projected", ready.project()
        yield f"{name}, general", ready.fold()


def child(task):
    """One environment: its counts on standard output."""
    from dataclasses import replace

    from jaxaudit import devices

    hosts = devices.prepare(task["processes"] > 1)
    import jax
    import numpy as np
    from measure import digest

    import jaxaudit
    from jaxaudit.player import Player
    from jaxaudit.types import Range

    assert Path(jaxaudit.__file__).is_relative_to(ROOT), jaxaudit.__file__
    assert jax.local_device_count() == task["devices"]
    player = Player(jax.local_devices(), 7, lambda name, trials: lambda done: None)
    half, found = task["trials"] // 2, {}
    part = hosts.share(Range(2**32 - half - 3, 2 * half))
    for name, game in games_of():
        prepared = hashlib.sha256()
        for leaf in (*jax.tree.leaves(game.params), game.scale, game.slack):
            prepared.update(np.asarray(leaf).tobytes())
        if task["width"]:
            game = replace(game, program=AtWidth(game.program, task["width"]))
        # Scores are halves of whole numbers, and the slack is less than a quarter.
        thresholds = [np.rint(np.linspace(-4, 4, 65) * 18**2 * np.sqrt(DIM * TERMS[-1])) + 0.25] * len(game.order)
        assert game.slack.max() < 0.25
        both = [player.count(game, "certify", part, thresholds, labelled) for labelled in (False, True)]
        counts = [one for each in both for one in hosts.add(each)]
        used = sum(0 < error < trials for c in counts for error, trials in zip(c.errors_h0, [c.trials_h0] * 65))
        assert used > 10, (name, used)
        found[name] = [prepared.hexdigest()[:16], digest(counts)]
    versions = [sys.version.split()[0], jax.__version__, np.__version__]
    print("\n" + json.dumps({"versions": versions, "found": found}), flush=True)


def played(python=sys.executable, devices=1, processes=1, width=0, trials=0):
    """What the processes of an environment found, which must be one and the same."""
    task = {"devices": devices, "processes": processes, "width": width, "trials": trials}
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment |= {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": str(processes)}
    command = [python, __file__, "--child", json.dumps(task)]
    running = [
        subprocess.Popen(command, env=environment | {"JAX_PROCESS_ID": str(n)}, stdout=subprocess.PIPE, text=True)
        for n in range(processes)
    ]
    answers = [one.communicate(timeout=600)[0].strip().splitlines() for one in running]
    assert not any(one.returncode for one in running), f"ended with {[one.returncode for one in running]}"
    found = [json.loads(lines[-1]) for lines in answers]
    assert all(one == found[0] for one in found), "processes of one run differ"
    return found[0]


def main():
    if sys.argv[1:2] == ["--child"]:
        child(json.loads(sys.argv[2]))
        return
    from measure import Page, facts, options

    chosen = options(
        "The same counts everywhere.",
        ("--python", {"action": "append", "default": [], "metavar": "PYTHON", "help": "another environment"}),
    )
    trials = 20_000 if chosen.quick else 300_000
    settings = [{"devices": 1}, {"devices": 8}, {"processes": 2}, {"devices": 4, "processes": 2}]
    settings += [{"width": width} for width in WIDTHS]
    settings += [{"python": other} | more for other in chosen.python for more in ({}, {"devices": 8})]
    page = Page("The same counts everywhere")
    page.say(
        f"{facts()}. {trials:,} trials across number 2^32, paired and labelled, at 65 thresholds, for cohorts of "
        f"{' and '.join(map(str, TERMS))} others of {CLIENTS:,} clients.",
        "",
    )
    answers = []

    def rows():
        for setting in settings:
            answers.append(played(trials=trials, **setting))
            found = hashlib.sha256(json.dumps(answers[-1]["found"], sort_keys=True).encode()).hexdigest()[:16]
            width = f"{setting['width']:,}" if "width" in setting else "own"
            yield *answers[-1]["versions"], setting.get("devices", 1), setting.get("processes", 1), width, found

    page.table("Python | jax | NumPy | devices of a process | processes | batch width | counts of all games", rows())
    first = answers[0]["found"]
    for setting, answer in zip(settings, answers):
        differ = [name for name in first if answer["found"][name] != first[name]]
        assert not differ, f"{setting} differs from one device in {differ}"
    for name, found in first.items():
        assert found[1] == first[name.replace("projected", "general")][1], f"{name} and general count differently"
    page.say(
        "All of them are the same, game by game, and the projected path counts what the general one does. So are the "
        "numbers of which the games are made:",
        "",
    )
    page.table("game | prepared | counts", ((name, *both) for name, both in first.items()))
    page.write(chosen, *["--python PYTHON"] * len(chosen.python))


if __name__ == "__main__":
    main()
