"""Data that audits run on, as plain arrays."""

from collections.abc import Callable
from hashlib import sha256
from typing import Literal, NamedTuple

import numpy as np

Name = Literal["digits"]


class Dataset(NamedTuple):
    """A labelled data set.

    Attributes:
      inputs: f32[records, ...], scaled to [0, 1].
      labels: i32[records].
      classes: number of classes.
      source: what it is and where it comes from.
    """

    inputs: np.ndarray
    labels: np.ndarray
    classes: int
    source: str

    @property
    def sha256(self):
        """Digest of inputs and labels."""
        return sha256(self.inputs.tobytes() + self.labels.tobytes()).hexdigest()


def load(name: Name) -> Dataset:
    """A data set by name; "digits" ships with scikit-learn and needs no download."""
    return _LOADERS[name]()


def names() -> list[str]:
    """Names that `load` accepts."""
    return sorted(_LOADERS)


def _digits():
    from sklearn.datasets import load_digits  # half a second that other audits need not spend

    inputs, labels = load_digits(return_X_y=True)
    return Dataset(
        inputs=(inputs / 16).astype(np.float32),
        labels=labels.astype(np.int32),
        classes=10,
        source="1,797 handwritten digits of 8×8 pixels (UCI optdigits test set, shipped with scikit-learn)",
    )


_LOADERS: dict[str, Callable[[], Dataset]] = {"digits": _digits}
