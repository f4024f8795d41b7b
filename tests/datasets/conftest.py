import gzip
import io
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from jaxaudit.datasets import files

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
MNIST = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
ADULT = ("adult.data", "adult.test")


@pytest.fixture
def real(monkeypatch):
    """Folder with the official files of a data set; the test is skipped where they are not."""
    folders = [Path(os.environ["JAXAUDIT_DATA_DIR"])] if "JAXAUDIT_DATA_DIR" in os.environ else []
    monkeypatch.delenv("JAXAUDIT_DATA_DIR", raising=False)

    def folder(name):
        wanted = {"mnist": [f"{file}.gz" for file in MNIST], "adult": ADULT}[name]
        for place in (*folders, SHARED):
            if all((place / name / file).is_file() for file in wanted):
                return place
        pytest.skip(f"no official files of {name} in {' or '.join(map(str, (*folders, SHARED)))}")

    return folder


@pytest.fixture
def cut(real, tmp_path):
    """The first records of the official MNIST or Adult, as files of the same form, in a folder of their own."""

    def folder(name, records):
        place, source = tmp_path / name, real(name) / name
        place.mkdir(exist_ok=True)
        if name == "adult":
            for file in ADULT:
                lines = (source / file).read_text().splitlines(keepends=True)
                (place / file).write_text("".join(lines[: records + 1]))
        else:
            for file in MNIST:
                content = gzip.decompress((source / f"{file}.gz").read_bytes())
                start, width = (16, 784) if "images" in file else (8, 1)
                header = content[:4] + records.to_bytes(4, "big") + content[8:start]
                (place / f"{file}.gz").write_bytes(gzip.compress(header + content[start : start + records * width]))
        return tmp_path

    return folder


@pytest.fixture
def write_idx():
    """Write u8 arrays as IDX files, packed where the name ends in .gz."""

    def write(folder, arrays):
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in arrays.items():
            content = bytes((0, 0, 8, array.ndim)) + b"".join(n.to_bytes(4, "big") for n in array.shape)
            content += array.astype(np.uint8).tobytes()
            (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)

    return write


@pytest.fixture
def images(write_idx, tmp_path):
    """A tiny data set of the MNIST family: 20 images to train on, 10 to test on; its folder and its images."""

    def folder(name, prefix="", suffix=".gz"):
        rng = np.random.default_rng(0)
        train, test = (rng.integers(0, 256, (count, 28, 28), np.uint8) for count in (20, 10))
        files = [prefix + (file.replace("t10k", "test") if prefix else file) + suffix for file in MNIST]
        write_idx(tmp_path / name, dict(zip(files, (train, np.arange(20) % 10, test, np.arange(10)))))
        return tmp_path, train

    return folder


@pytest.fixture
def copied(real, tmp_path):
    """A writable folder with the official files of a data set."""

    def folder(name):
        shutil.copytree(real(name) / name, tmp_path / name, copy_function=shutil.copyfile)
        return tmp_path

    return folder


@pytest.fixture
def cifar(tmp_path):
    """CIFAR-10 in its binary version, three records a batch, unpacked or as the tar.gz; images and labels."""

    def write(packed):
        rng = np.random.default_rng(0)
        images, labels = rng.integers(0, 256, (18, 32, 32, 3), np.uint8), np.arange(18, dtype=np.uint8) % 10
        rows = np.concatenate([labels[:, None], images.transpose(0, 3, 1, 2).reshape(18, -1)], 1)
        batches = {file: rows[3 * i : 3 * i + 3].tobytes() for i, file in enumerate(files.ORIGINS["cifar10"].files)}
        if packed:
            with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as archive:
                for file, content in {**batches, "batches.meta.txt": b"airplane\n"}.items():
                    member = tarfile.TarInfo(f"cifar-10-batches-bin/{file}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
        else:
            (tmp_path / "cifar-10-batches-bin").mkdir()
            for file, content in batches.items():
                (tmp_path / "cifar-10-batches-bin" / file).write_bytes(content)
        return tmp_path, images, labels

    return write
