"""The official formats: IDX of the MNIST family, and the binary version of CIFAR-10; Adult has a file of its own."""

from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np

from . import adult, files

CLASSES = {"mnist": 10, "fashion_mnist": 10, "emnist/digits": 10, "cifar10": 10, "adult": 2}
SHAPES = {"mnist": (28, 28, 1), "fashion_mnist": (28, 28, 1), "emnist/digits": (28, 28, 1), "cifar10": (32, 32, 3)}


class Table(NamedTuple):
    """A data set as it is recorded, before it is scaled or encoded.

    Attributes:
      train: columns of the training split by name, one entry a record, in the order of the official files. Images
        have u8 "image" of [n, h, w, channels], upright, and u8 "label"; for Adult see `adult`.
      test: the same of the official test split.
      note: "" for the official files, else what is to be said about others.
    """

    train: dict[str, np.ndarray]
    test: dict[str, np.ndarray]
    note: str = ""

    @property
    def sha256(self) -> str:
        """Digest of all columns, by which a prepared copy is known to be whole."""
        digest = sha256()
        for split in (self.train, self.test):
            for column in split:
                digest.update(f"{column} {split[column].dtype} {split[column].shape} ".encode())
                digest.update(np.ascontiguousarray(split[column]).data)
        return digest.hexdigest()


def read(name: str, paths: dict[str, Path]) -> Table:
    """Read the official files of a data set.

    Args:
      name: of the data set.
      paths: where each of its files lies, from `files.find`.

    Raises:
      ValueError: in one line naming the file, what is wrong with it, and the remedy.
    """
    contents, note = files.contents(name, paths)
    if name == "adult":
        splits = [_parsed(adult.parse, paths[file], contents[file]) for file in files.ORIGINS[name].files]
    elif name == "cifar10":
        batches = [_parsed(cifar_batch, paths[file], contents[file]) for file in files.ORIGINS[name].files]
        splits = [{key: np.concatenate([batch[key] for batch in batches[:-1]]) for key in batches[0]}, batches[-1]]
    else:
        splits = [
            _idx_split(name, paths, contents, *files.ORIGINS[name].files[first : first + 2]) for first in (0, 2)
        ]
    return Table(*splits, note)


def idx(content: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """An IDX file of bytes: two zeros, 8 for unsigned bytes, the number of axes, their big-endian lengths, the data.

    Args:
      content: of the file, unpacked.
      shape: of one record, as the data set has it.

    Returns:
      u8[records, *shape].

    Raises:
      ValueError: where the header or the length is another.

    Reference:
      LeCun, Cortes & Burges, "The MNIST database of handwritten digits", section "file formats".
    """
    start = 4 + 4 * (1 + len(shape))
    if len(content) < start or content[:4] != bytes((0, 0, 8, 1 + len(shape))):
        raise ValueError(f"is no IDX file of unsigned bytes with {1 + len(shape)} axes")
    records, *found = (int(length) for length in np.frombuffer(content[4:start], ">u4"))
    if tuple(found) != shape:
        raise ValueError(f"holds records of {found}, expected {list(shape)}")
    size = records * int(np.prod(shape, dtype=np.int64))
    if records < 1 or len(content) != start + size:
        raise ValueError(
            f"holds {len(content) - start:,} bytes of data, its header says {size:,} ({records:,} records)"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(records, *shape)


def cifar_batch(content: bytes) -> dict[str, np.ndarray]:
    """A batch of CIFAR-10's binary version: records of a label and 1,024 bytes each of red, green and blue.

    Returns:
      columns "image" u8[records, 32, 32, 3] and "label" u8[records].

    Raises:
      ValueError: where the length is no multiple of a record's, or a label is no class.

    Reference:
      Krizhevsky (2009), https://www.cs.toronto.edu/~kriz/cifar.html, "Binary version".
    """
    if not content or len(content) % 3073:
        raise ValueError(f"holds {len(content):,} bytes, expected records of 3,073")
    records = np.frombuffer(content, np.uint8).reshape(-1, 3073)
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return {"image": np.ascontiguousarray(images), "label": _classes(records[:, 0].copy(), CLASSES["cifar10"])}


def _idx_split(name, paths, contents, images_file, labels_file):
    images = _parsed(idx, paths[images_file], contents[images_file], SHAPES[name][:2])
    labels = _parsed(idx, paths[labels_file], contents[labels_file], ())
    with files.damage_named(paths[labels_file]):
        _classes(labels, CLASSES[name])
        if len(labels) != len(images):
            raise ValueError(f"{labels_file} holds {len(labels):,} labels, {images_file} {len(images):,} images")
    if name == "emnist/digits":
        # EMNIST was written column by column: each image comes mirrored along its diagonal.
        images = np.ascontiguousarray(images.transpose(0, 2, 1))
    return {"image": images[..., np.newaxis], "label": labels}


def _classes(labels, classes):
    if labels.max() >= classes:
        row = int(np.argmax(labels >= classes))
        raise ValueError(f"holds label {labels[row]} in record {row}, allowed are 0 to {classes - 1}")
    return labels


def _parsed(parse, path, content, *arguments):
    with files.damage_named(path):
        return parse(content, *arguments)
