"""Several processes that share one run: each plays its own trials, and counts are added at the end.

JAX finds its peers by itself under SLURM, Open MPI and on cloud TPU pods and Kubernetes; elsewhere the coordinator's
address and the number of processes come from its environment variables. Before the counts only digests are exchanged,
of what must be the same everywhere.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np

from .bounds import Counts
from .types import Range


@dataclass(frozen=True)
class Hosts:
    """The processes of a run.

    Attributes:
      index: which of them this is.
      count: how many there are.
    """

    index: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """This process speaks for all: it shows progress and writes the results."""
        return self.index == 0

    def share(self, trials: Range) -> Range:
        """The part of a range that this process plays: contiguous, equal up to one trial."""
        edges = [trials.first + trials.count * number // self.count for number in (self.index, self.index + 1)]
        return Range(edges[0], edges[1] - edges[0])

    def add(self, counts: Sequence[Counts]) -> list[Counts]:
        """The sum of all processes' counts; every process must call this, and all get the same."""
        if self.count == 1:
            return list(counts)
        own = [np.array([*c.errors_h0, *c.errors_h1, c.trials_h0, c.trials_h1]) for c in counts]
        totals = iter(np.split(_gathered(np.concatenate(own)).sum(axis=0), np.cumsum([len(o) for o in own])[:-1]))
        added = []
        for one, total in zip(counts, totals):
            size = one.thresholds.size
            h0, h1, trials = total[:size], total[size : 2 * size], total[2 * size :]
            added.append(replace(one, errors_h0=h0, errors_h1=h1, trials_h0=trials[0], trials_h1=trials[1]))
        return added

    def agree(self, answer: str, complaint: str) -> None:
        """Raise ValueError with the complaint where not all processes give the same answer; every one must ask."""
        if self.count > 1:
            word = int(hashlib.sha256(answer.encode()).hexdigest()[:15], 16)
            if len(np.unique(_gathered(np.array([word])))) > 1:
                raise ValueError(f"the {self.count} processes {complaint}")


ALONE = Hosts()


def connect() -> Hosts:
    """Join the other processes of this run. Call it before anything else of JAX.

    Returns:
      Hosts.

    Raises:
      ValueError: where no other processes are found.
    """
    named = {
        "coordinator_address": os.environ.get("JAX_COORDINATOR_ADDRESS"),
        "num_processes": os.environ.get("JAX_NUM_PROCESSES"),
        "process_id": os.environ.get("JAX_PROCESS_ID"),
    }
    try:
        numbers = {name: value if name[0] == "c" else int(value) for name, value in named.items() if value}
        jax.distributed.initialize(**numbers)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"--distributed finds no other processes ({error}); start under SLURM, Open MPI or Kubernetes, or set "
            "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        ) from error
    return Hosts(jax.process_index(), jax.process_count())


def _gathered(numbers: np.ndarray) -> np.ndarray:
    """i64[processes, n] of i64[n]: in halves, because arrays on devices have 32 bits."""
    from jax.experimental import multihost_utils

    halves = np.stack([numbers >> 30, numbers & (2**30 - 1)]).astype(np.int32)
    try:
        gathered = np.asarray(multihost_utils.process_allgather(halves))
    except RuntimeError as error:
        raise ValueError("another process of this run ended, or cannot be reached; what it said tells why") from error
    high, low = np.moveaxis(gathered, 1, 0).astype(np.int64)
    return (high << 30) + low
