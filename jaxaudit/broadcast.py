"""What a malicious server sends instead of one model for all: where it starts from, and what its clients get."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

# Names of a leaf of a model's parameters, from the outside in.
Path = tuple[str, ...]


class Published(NamedTuple):
    """All that a server knows before it makes up its models: no client's data is among it.

    Attributes:
      training: how clients train, a `models.LocalTraining`; the flax model is part of it.
      params: the model's parameters, a pytree.
      index: the same tree, every leaf holding the places of its numbers in a client's update; leaves that are not
        sent are missing.
      probe: f32[n, ...], records of the server's own.
      clients: in the cohort; the target is number 0.
      sizes: i64[clients], records in a batch.
      steps: local steps.
      fresh: every step has a batch of its own.
      classes: that labels are told apart by.
      labels: the two labels that the audit is about.
    """

    training: Any
    params: Any
    index: Any
    probe: np.ndarray
    clients: int
    sizes: np.ndarray
    steps: int
    fresh: bool
    classes: int
    labels: tuple[int, int]


class Sent(NamedTuple):
    """What the clients get.

    Attributes:
      common: parameters that all of them get, a pytree.
      own: parameters that every client gets of its own, in place of those: f32[clients, ...] by path.
      facts: what the attack remembers of them.
      words: what differs from the published model, in words.
      exclusive: i64[n], places in an update where the models leave nothing but zeros for anybody but the target;
        empty where that cannot be said.
    """

    common: Any
    own: Mapping[Path, np.ndarray]
    facts: Any
    words: str
    exclusive: np.ndarray


# What a malicious attack's `broadcast` returns.
Craft = Callable[[Published], Sent]
