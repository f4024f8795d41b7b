"""Data that audits run on, as plain arrays, read from official files or from a prepared folder."""

import os
from hashlib import sha256
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np

from . import adult, files, raw

Name = Literal["digits", "mnist", "fashion_mnist", "emnist/digits", "cifar10", "adult"]

_WORDS = {
    "mnist": ("handwritten digits of 28×28 pixels", "MNIST", ""),
    "fashion_mnist": ("articles of clothing in 28×28 pixels", "Fashion-MNIST", ""),
    "emnist/digits": ("handwritten digits of 28×28 pixels", "EMNIST digits", "stored transposed, set upright here, "),
    "cifar10": ("colour photographs of 32×32 pixels", "CIFAR-10", ""),
    "adult": ("adults of the US census of 1994", "UCI Adult", ""),
}


class Dataset(NamedTuple):
    """A labelled data set.

    Attributes:
      inputs: f32[records, ...] of the training split; images are [records, height, width, channels] in [0, 1].
      labels: i32[records], in [0, classes).
      test_inputs: f32[m, ...] of the official test split; m is 0 where there is none.
      test_labels: i32[m].
      classes: number of classes.
      source: what it is and where it comes from.
    """

    inputs: np.ndarray
    labels: np.ndarray
    test_inputs: np.ndarray
    test_labels: np.ndarray
    classes: int
    source: str

    @property
    def sha256(self) -> str:
        """Digest of the bytes of all arrays."""
        digest = sha256()
        for array in (self.inputs, self.labels, self.test_inputs, self.test_labels):
            if array.size:
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def load(name: Name, data_dir: str | os.PathLike | None = None) -> Dataset:
    """Load a data set that is on this machine; nothing is downloaded, and nothing is unpickled.

    Args:
      name: one of `names()`; "digits" ships with scikit-learn.
      data_dir: the folder to look in, by default JAXAUDIT_DATA_DIR, else that of tensorflow-datasets. The official
        files are read directly, from `data_dir/name` or `data_dir` itself; without them, what `fetch` has prepared
        is read through tensorflow-datasets. Both give the same arrays.

    Raises:
      ValueError: in one line, where the data set is missing, or a file is damaged or of another shape.
    """
    _known(name)
    if name == "digits":
        return _digits()
    folder = files.root(data_dir)
    if paths := files.find(name, folder):
        return _dataset(name, raw.read(name, paths))
    if files.prepared(name, folder):
        return _dataset(name, _builders(name).read(name, folder))
    raise ValueError(files.missing(name, folder))


def fetch(name: Name, data_dir: str | os.PathLike | None = None) -> Path:
    """Make a data set ready: prepare its folder with tensorflow-datasets, downloading the files that are not there.

    Args:
      name: one of `names()`.
      data_dir: where official files are looked for and the prepared folder is written; the default is that of `load`.

    Returns:
      the folder with the prepared data set.

    Raises:
      ValueError: in one line; without a network within five seconds, with the other ways to get the files.
    """
    _known(name)
    if name == "digits":
        import sklearn

        return Path(sklearn.__file__).parent / "datasets" / "data"
    folder = files.root(data_dir)
    if files.prepared(name, folder):
        return files.prepared_folder(name, folder)
    return _builders(name).prepare(name, folder)


def names() -> list[str]:
    """Names that `load` accepts."""
    return sorted(get_args(Name))


def _known(name):
    if name not in get_args(Name):
        raise ValueError(f"dataset {name!r} is not known, allowed are {', '.join(names())}")


def _builders(name):
    try:
        from . import builders
    except ImportError as error:
        raise ValueError(
            f"dataset {name}: its prepared folder needs tensorflow-datasets ({error}); install it, or "
            f"{files.by_hand(name)}, which are read without it"
        ) from error
    return builders


def _dataset(name, table):
    if name == "adult":
        inputs, test_inputs = adult.encode(table.train, table.test)
    else:
        inputs, test_inputs = (
            np.divide(split["image"], 255, dtype=np.float32) for split in (table.train, table.test)
        )
    what, title, how = _WORDS[name]
    return Dataset(
        inputs=inputs,
        labels=table.train["label"].astype(np.int32),
        test_inputs=test_inputs,
        test_labels=table.test["label"].astype(np.int32),
        classes=raw.CLASSES[name],
        source=f"{len(inputs):,} {what}, and {len(test_inputs):,} to test on "
        f"({title}, {how}{table.note or 'official files'})",
    )


def _digits():
    from sklearn.datasets import load_digits  # half a second that other audits need not spend

    inputs, labels = load_digits(return_X_y=True)
    return Dataset(
        inputs=(inputs / 16).astype(np.float32).reshape(-1, 8, 8, 1),
        labels=labels.astype(np.int32),
        test_inputs=np.zeros((0, 8, 8, 1), np.float32),
        test_labels=np.zeros(0, np.int32),
        classes=10,
        source="1,797 handwritten digits of 8×8 pixels (UCI optdigits test set, shipped with scikit-learn)",
    )
