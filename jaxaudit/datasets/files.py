"""The official files of each data set: their names, addresses and digests, where they lie, and their bytes."""

import gzip
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import file_digest, sha256
from importlib.resources import files as package_files
from pathlib import Path
from typing import NamedTuple

VARIABLE = "JAXAUDIT_DATA_DIR"
VERSION = "1.0.0"  # of the prepared folders
_IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_EMNIST = tuple("emnist-digits-" + file.replace("t10k", "test") for file in _IDX)


class Origin(NamedTuple):
    """Where a data set officially comes from.

    Attributes:
      url: address of the folder, or of the archive, that holds the files; it begins their rows in checksums.tsv.
      files: names of the files once unpacked, training before test.
      folder: name of the folder that the archive unpacks to; "" without an archive.
      inner: SHA-256 by name of what has no address of its own: files in the archive, and unpacked ones.
    """

    url: str
    files: tuple[str, ...]
    folder: str = ""
    inner: dict[str, str] = {}  # noqa: RUF012 (a NamedTuple's default, never written to)

    @property
    def archive(self) -> str:
        """File name of the archive; "" where the files are published one by one."""
        return self.url.rpartition("/")[2]

    @property
    def downloads(self) -> dict[str, str]:
        """Addresses of what is published, by file name."""
        return {name: url for url, _, name in _registered() if url.startswith(self.url)}

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 by file name, of every official file on record."""
        return {name: digest for url, digest, name in _registered() if url.startswith(self.url)} | self.inner


ORIGINS = {
    "mnist": Origin(
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        _IDX,
        inner={
            _IDX[0]: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            _IDX[1]: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            _IDX[2]: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            _IDX[3]: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
    ),
    "fashion_mnist": Origin("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/", _IDX),
    "emnist/digits": Origin(
        "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",
        _EMNIST,
        folder="gzip",
        inner={
            f"{_EMNIST[0]}.gz": "f7c95004d14d81af89522e67d8f0c781dfb3bd544181c81bfe1eb6b41c35b726",
            f"{_EMNIST[1]}.gz": "6638a6ff5fe2eefd9cca2471995b46c82986b8e4b2a70d2f5ce8e05d7edb319e",
            f"{_EMNIST[2]}.gz": "20ebe43509264f7639d37c835a3f0b009e90b29e00a099a03101abe1644a3f63",
            f"{_EMNIST[3]}.gz": "bad1834c45d5988e270b99d43b13edc3fd898f658ffbc2caf2846ef27f7b05b0",
        },
    ),
    # Of the three official versions the binary one: the "python version" would have to be unpickled.
    "cifar10": Origin(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"),
        folder="cifar-10-batches-bin",
    ),
    "adult": Origin("https://archive.ics.uci.edu/ml/machine-learning-databases/adult/", ("adult.data", "adult.test")),
}


def root(data_dir: str | os.PathLike | None = None) -> Path:
    """The folder that data sets lie in: the argument, else JAXAUDIT_DATA_DIR, else that of tensorflow-datasets."""
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(data_dir or os.environ.get(VARIABLE) or default).expanduser()


def find(name: str, folder: Path) -> dict[str, Path] | None:
    """Raw files of a data set, in `folder/name` or in `folder` itself.

    Returns:
      for every file of its origin, the path of the file, of its .gz, or of the archive that holds it; None unless
      all are in one place. MNIST and Fashion-MNIST name their files alike; the official files of the other are
      passed over.
    """
    for place in _places(name, folder):
        paths = _paths(name, place)
        if len(paths) == len(ORIGINS[name].files) and not _owner(name, paths):
            return paths
    return None


def missing(name: str, folder: Path) -> str:
    """One line for a data set whose raw files are not all there and which is not prepared either."""
    origin = ORIGINS[name]
    found = "nothing" if folder.is_dir() else "no such folder"
    for place in _places(name, folder):
        if paths := _paths(name, place):
            absent = [file for file in origin.files if file not in paths]
            found = (
                f"{place} lacks {', '.join(absent)}"
                if absent
                else f"{place} holds the files of {_owner(name, paths)}"
            )
            break
    archive = f", or {origin.archive}" if origin.archive else ""
    return (
        f"dataset {name}: not found in {folder} ({found}); looked there and in {folder / name} for "
        f"{', '.join(origin.files)} (each as it is or .gz){archive}; {by_hand(name)}, "
        f"or download them with `jaxaudit data {name}`"
    )


def by_hand(name: str) -> str:
    """The way to a data set that needs no tensorflow-datasets."""
    return f"put the files from {ORIGINS[name].url} into a folder and name it with --data-dir DIR or {VARIABLE}"


def prepared_folder(name: str, folder: Path) -> Path:
    """Where tensorflow-datasets keeps a data set of ours: never in a folder of its own data set of that name."""
    return folder / f"jaxaudit_{name.replace('/', '_')}" / VERSION


def prepared(name: str, folder: Path) -> bool:
    """Whether that folder is complete; it is written under another name, and renamed at the end."""
    return (prepared_folder(name, folder) / "dataset_info.json").is_file()


def contents(name: str, paths: dict[str, Path]) -> tuple[dict[str, bytes], str]:
    """Unpacked bytes of every raw file.

    Args:
      name: of the data set.
      paths: from `find`, or of downloaded files.

    Returns:
      bytes by file name, and a note: "" where all are the official files, else which are not, or cannot be checked
      because only the packed file has a digest on record.

    Raises:
      ValueError: in one line naming the file, where it is damaged or its archive lacks a member.
    """
    digests, unpacked, foreign, unchecked = ORIGINS[name].digests, {}, [], []
    for path in dict.fromkeys(paths.values()):
        wanted = [file for file, holder in paths.items() if holder == path]
        with damage_named(path):
            outer = _digest(path)
            for file, layers in _unpack(path, wanted):
                unpacked[file] = layers[-1]
                official = {digests.get(form) for form in (file, f"{file}.gz", ORIGINS[name].archive)}
                if outer in official or any(sha256(layer).hexdigest() in official for layer in layers):
                    continue
                # What is published packed often has no digest on record for the bare file.
                comparable = path.name != file or file in digests
                (foreign if comparable else unchecked).append(f"{path.name} has SHA-256 {outer[:16]}…")
            if lacking := [file for file in wanted if file not in unpacked]:
                raise ValueError(f"does not hold {lacking[0]}")
    return unpacked, "; ".join(
        f"{what}: {named[0]}" + (f" and {len(named) - 1} more" if len(named) > 1 else "")
        for what, named in (("not the official file", foreign), ("unpacked, so not checked", unchecked))
        if named
    )


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Every way in which a raw file can be unreadable, on one line with its name and the remedy."""
    try:
        yield
    except (ValueError, OSError, EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError, RuntimeError) as error:
        reason = (getattr(error, "strerror", None) or str(error) or type(error).__name__).split("\n")[0].rstrip(": ")
        raise ValueError(f"file {path}: {reason}; put the official file in its place") from error


@cache
def _registered():
    """Rows (address, SHA-256, file name) of checksums.tsv, which tensorflow-datasets reads too."""
    rows = package_files(__package__).joinpath("checksums.tsv").read_text().splitlines()
    return [(url, digest, name) for url, _, digest, name in (row.split("\t") for row in rows)]


def _places(name, folder):
    return dict.fromkeys((folder / name, folder / name.split("/")[0], folder))


def _paths(name, place):
    origin = ORIGINS[name]
    folders = [place / origin.folder, place] if origin.folder else [place]
    paths = {}
    for file in origin.files:
        forms = (folder / form for folder in folders for form in (file, f"{file}.gz"))
        if here := next((form for form in forms if form.is_file()), None):
            paths[file] = here
    if len(paths) < len(origin.files) and origin.archive and (place / origin.archive).is_file():
        return dict.fromkeys(origin.files, place / origin.archive)
    return paths


def _owner(name, paths):
    """Another data set with the same file names, one of whose official files is among these; else None."""
    rivals = [other for other in ORIGINS if other != name and ORIGINS[other].files == ORIGINS[name].files]
    for path in paths.values() if rivals else ():
        with damage_named(path):
            digest = _digest(path)
        for other in rivals:
            if digest in ORIGINS[other].digests.values():
                return other
    return None


def _digest(path):
    with open(path, "rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _unpack(path, wanted):
    """Pairs (file, its bytes at each depth of packing, the bare file last). Members are read, never extracted."""
    if len(wanted) == 1:
        yield wanted[0], _gunzip(path.read_bytes())
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            members = {member.rpartition("/")[2]: member for member in archive.namelist()}
            for file in wanted:
                if member := members.get(f"{file}.gz") or members.get(file):
                    yield file, _gunzip(archive.read(member))
    else:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile() and (file := member.name.rpartition("/")[2]) in wanted:
                    yield file, _gunzip(archive.extractfile(member).read())


def _gunzip(content):
    return [content, gzip.decompress(content)] if content.startswith(b"\x1f\x8b") else [content]
