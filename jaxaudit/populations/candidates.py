"""The two candidates of a label audit: batches of real records that differ in their labels alone or throughout."""

import jax
import numpy as np

from ..types import Pair

NAMES = ("all_labels", "one_label", "presence", "zeroed")


def candidate_batches(
    name: str, pair: tuple[int, int], labels: np.ndarray, records: np.ndarray, size: int, key
) -> np.ndarray:
    """Record numbers of both candidates: i64[2, size].

    Records of a label are drawn at random; where there are fewer than a batch needs, they repeat in turn.

    Args:
      name: one of `NAMES`.
      pair: the two labels a and b.
      labels: i32[all records].
      records: i64[n], those that belong to clients.
      size: of the batch.
      key: PRNG key.

    Raises:
      ValueError: where a label has no records, or the pair asks for another batch size.
    """
    shuffled = records[np.asarray(jax.random.permutation(key, len(records)))]
    of = []
    for label in pair:
        own = shuffled[labels[shuffled] == label]
        if not len(own):
            raise ValueError(f"population.labels has {label}, of which clients have no record; choose another label")
        of.append(np.resize(own, size + 1))
    first, second = of
    if name == "one_label":
        if size % 2 == 0:
            raise ValueError(
                f"population.batch_size is {size}, allowed are odd sizes for pair one_label, whose other records are "
                f"half of one label and half of the other; set {size + 1}"
            )
        half = size // 2
        rest = np.concatenate([first[1 : half + 1], second[1 : half + 1]])
        return np.stack([np.append(rest, first[0]), np.append(rest, second[0])])
    if name == "presence":
        return np.stack([first[:size], np.append(first[: size - 1], second[0])])
    return np.stack([first[:size], second[:size]])


def label_pair(name: str, labels: tuple[int, int], h0: np.ndarray, h1: np.ndarray, repeats: bool = False) -> Pair:
    """The two updates f32[dim] as a pair, with its adjacency: zero-out only where one is zero throughout.

    Args:
      name: one of `NAMES`.
      labels: the two.
      h0, h1: the updates.
      repeats: some records are in a batch more than once.
    """
    a, b = labels
    if name == "zeroed":
        h0 = np.zeros_like(h1)
    told = {
        "all_labels": f"a batch of label {a} throughout, and one of label {b}",
        "one_label": f"a batch of labels {a} and {b}, half and half, with one more record of label {a}, and the same "
        f"with one of label {b} in its place",
        "presence": f"a batch of label {a} throughout, and the same with one record of label {b}",
        "zeroed": f"no update at all, and the target's on a batch of label {b} throughout",
    }[name]
    if not (h0.any() and h1.any()):
        adjacency = "zero-out of a client's update"
    elif name in ("one_label", "presence"):
        adjacency = "replacement of one record of the target's batch"
    else:
        adjacency = "replacement of a client's update"
    told += ", of fewer records, which repeat" * repeats
    source = told if name == "zeroed" else f"the target's update on {told}"
    return Pair(name, h0[None], h1[None], adjacency, source)
