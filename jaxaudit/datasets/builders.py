"""Builders of tensorflow-datasets for the data sets of this package; the only importer of it.

They write array_record, and features of tensors, class labels and numbers: with these, and without `Image` or text,
tensorflow-datasets reads and writes without TensorFlow. Importing this file registers them, so that
`tfds.data_source("jaxaudit_mnist", download=False)` finds what `jaxaudit.datasets.fetch` has prepared.
"""

import contextlib
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from . import adult, files, raw

NETWORK_S = 3.0  # to wait for an answer from the official address


class Official(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A data set from its official files, in their order.

    The metadata of a prepared folder holds the SHA-256 of the recorded columns, by which damage is noticed, and
    the note about files that are not the official ones.
    """

    VERSION = tfds.core.Version(files.VERSION)
    dataset: ClassVar[str]
    table: raw.Table | None = None  # read from raw files that are there already

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{self.dataset} as jaxaudit reads it.",
            homepage=files.ORIGINS[self.dataset].url,
            features=tfds.features.FeaturesDict(_features(self.dataset)),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        table = self.table or raw.read(self.dataset, _download(self.dataset, dl_manager))
        self.info.metadata.update(sha256=table.sha256, note=table.note)
        return {"train": self._generate_examples(table.train), "test": self._generate_examples(table.test)}

    # tensorflow-datasets knows a generator of examples by this name only.
    def _generate_examples(self, split):
        for row, values in enumerate(zip(*split.values())):
            yield row, dict(zip(split, values))


class JaxauditMnist(Official):
    """MNIST."""

    dataset = "mnist"


class JaxauditFashionMnist(Official):
    """Fashion-MNIST."""

    dataset = "fashion_mnist"


class JaxauditEmnistDigits(Official):
    """EMNIST digits, upright."""

    dataset = "emnist/digits"


class JaxauditCifar10(Official):
    """CIFAR-10."""

    dataset = "cifar10"


class JaxauditAdult(Official):
    """UCI Adult."""

    dataset = "adult"


_BUILDERS = {builder.dataset: builder for builder in Official.__subclasses__()}


def prepare(name: str, folder: Path) -> Path:
    """Prepare the folder of a data set from raw files that are there, else from downloads with registered checksums.

    Returns:
      the prepared folder.

    Raises:
      ValueError: in one line; without a network before tensorflow-datasets is asked, which would try for minutes.
    """
    place = files.prepared_folder(name, folder)
    if place.exists():
        raise ValueError(f"dataset {name}: {place} is not complete; delete it and repeat")
    paths = files.find(name, folder)
    table = raw.read(name, paths) if paths else None
    if table is None:
        _reach(name, folder)
    try:
        with _quiet():
            builder = _BUILDERS[name](data_dir=folder, file_format="array_record")
            builder.table = table
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(
                    manual_dir=folder / name, try_download_gcs=False, force_checksums_validation=True
                )
            )
    except Exception as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ValueError(
            f"dataset {name}: could not be prepared in {folder} ({reason}); {files.by_hand(name)}"
        ) from error
    return place


def read(name: str, folder: Path) -> raw.Table:
    """Read a prepared folder.

    Raises:
      ValueError: in one line, where it is damaged.
    """
    try:
        with _quiet():
            builder = _BUILDERS[name](data_dir=folder, file_format="array_record")
            metadata = builder.info.metadata
            train, test = (_columns(name, builder.as_data_source(split)) for split in ("train", "test"))
            table = raw.Table(train, test, metadata["note"])
            if table.sha256 != metadata["sha256"]:
                raise ValueError("its records are not those that were written")
    except Exception as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        place = files.prepared_folder(name, folder)
        raise ValueError(
            f"dataset {name}: {place} is damaged ({reason}); delete it and prepare it again with "
            f"`jaxaudit data {name}`"
        ) from error
    return table


def _features(name):
    if name != "adult":
        return {
            "image": tfds.features.Tensor(shape=raw.SHAPES[name], dtype=np.uint8),
            "label": tfds.features.ClassLabel(num_classes=raw.CLASSES[name]),
        }
    values = {column: tfds.features.ClassLabel(names=names) for column, names in adult.VALUES.items()}
    numbers = {column: tfds.features.Scalar(np.int32) for column in adult.NUMBERS}
    features = values | numbers | {"label": tfds.features.ClassLabel(names=adult.LABELS)}
    return {column: features[column] for column in (*adult.COLUMNS, "label")}


def _columns(name, source, chunk=10_000):
    """Columns of a split as `raw` gives them; labels come back as 64-bit numbers."""
    kinds = {column: np.int32 if column in adult.NUMBERS else np.uint8 for column in _features(name)}
    parts = {column: [] for column in kinds}
    for start in range(0, len(source), chunk):
        records = source.__getitems__(range(start, min(start + chunk, len(source))))
        for column, kind in kinds.items():
            parts[column].append(np.asarray([record[column] for record in records]).astype(kind))
    return {column: np.concatenate(part) for column, part in parts.items()}


def _download(name, dl_manager):
    origin = files.ORIGINS[name]
    paths = {file: Path(path) for file, path in dl_manager.download(origin.downloads).items()}
    return {file: paths.get(file) or paths.get(f"{file}.gz") or paths[origin.archive] for file in origin.files}


def _reach(name, folder):
    """Raise ValueError unless the official address answers within `NETWORK_S`, name resolution and all."""
    url = next(iter(files.ORIGINS[name].downloads.values()))
    answers = []

    def ask():
        import requests  # as tensorflow-datasets asks: same proxies, same certificates

        try:
            status = requests.head(url, timeout=NETWORK_S, allow_redirects=True).status_code
            answers.append(f"it answers {status}" if status in (404, 410) or status >= 500 else "")
        except Exception as error:
            answers.append(f"no answer: {type(error).__name__}")

    # No timeout covers the resolution of names, so the question is asked by a thread that can be left behind.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(NETWORK_S)
    if reason := answers[0] if answers else f"no answer in {NETWORK_S:.0f} s":
        raise ValueError(
            f"dataset {name}: cannot be downloaded from {url} ({reason}), and its files are not in {folder} or "
            f"{folder / name}; with a network repeat `jaxaudit data {name}`, without one {files.by_hand(name)}"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what tensorflow-datasets prints from the user, and its ten retries, which take three minutes, to one."""
    from tensorflow_datasets.core.download import downloader
    from tensorflow_datasets.core.utils import tqdm_utils

    shown, retries = tqdm_utils._active, downloader.MAX_RETRIES
    tqdm_utils._active, downloader.MAX_RETRIES = False, 1
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tqdm_utils._active, downloader.MAX_RETRIES = shown, retries
