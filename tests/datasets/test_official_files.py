"""Official formats are read as they are published, and everything else is refused in one line."""

import gzip
import zipfile

import numpy as np
import pytest

from jaxaudit import datasets
from jaxaudit.datasets import files


def refusal(name, folder):
    with pytest.raises(ValueError) as caught:
        datasets.load(name, folder)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 900
    return message


@pytest.mark.parametrize("packed", [True, False])
def test_cifar_planes_become_channels_and_batches_keep_their_order(cifar, packed):
    folder, images, labels = cifar(packed)
    data = datasets.load("cifar10", folder)
    np.testing.assert_array_equal(np.concatenate([data.inputs, data.test_inputs]), images.astype(np.float32) / 255)
    assert data.labels.tolist() == labels[:15].tolist() and data.test_labels.tolist() == labels[15:].tolist()
    assert ("not the official file: cifar-10-binary.tar.gz" if packed else "unpacked, so not checked") in data.source


def test_emnist_is_stored_transposed_and_read_upright(images):
    folder, stored = images("emnist", "emnist-digits-")
    data = datasets.load("emnist/digits", folder)
    np.testing.assert_array_equal(data.inputs[..., 0], stored.transpose(0, 2, 1).astype(np.float32) / 255)
    assert "stored transposed, set upright here" in data.source


def test_emnist_is_read_from_its_official_archive_alike(images):
    folder, _ = images("emnist", "emnist-digits-")
    unpacked = datasets.load("emnist/digits", folder)
    with zipfile.ZipFile(folder / "gzip.zip", "w") as archive:
        for path in (folder / "emnist").iterdir():
            archive.write(path, f"gzip/{path.name}")
            path.unlink()
    assert datasets.load("emnist/digits", folder).sha256 == unpacked.sha256


@pytest.mark.parametrize("suffix", [".gz", ""])
def test_fashion_mnist_is_read_packed_or_not(images, suffix):
    folder, stored = images("fashion_mnist", suffix=suffix)
    data = datasets.load("fashion_mnist", folder)
    np.testing.assert_array_equal(data.inputs[..., 0], stored.astype(np.float32) / 255)
    assert data.labels.tolist() == [*range(10)] * 2


def test_files_may_lie_in_the_folder_itself_or_in_one_of_their_name(images):
    folder, _ = images("mnist")
    assert datasets.load("mnist", folder).sha256 == datasets.load("mnist", folder / "mnist").sha256


def test_environment_names_the_folder_and_the_argument_goes_before_it(images, monkeypatch, tmp_path):
    folder, _ = images("mnist")
    monkeypatch.setenv("JAXAUDIT_DATA_DIR", str(folder))
    assert len(datasets.load("mnist").labels) == 20
    assert str(tmp_path / "empty") in refusal("mnist", tmp_path / "empty")
    monkeypatch.delenv("JAXAUDIT_DATA_DIR")
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    assert len(datasets.load("mnist").labels) == 20


def test_a_file_that_is_not_the_official_one_is_read_and_named(images):
    source = datasets.load("mnist", images("mnist")[0]).source
    assert "20 handwritten digits" in source
    assert "(MNIST, not the official file: train-images-idx3-ubyte.gz has SHA-256 " in source
    assert source.endswith("… and 3 more)")


def test_official_content_is_known_however_it_is_packed(copied):
    folder = copied("mnist")
    for path in (folder / "mnist").glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert datasets.load("mnist", folder).source.endswith("(MNIST, official files)")


def test_mnist_is_not_taken_for_fashion_mnist(real):
    assert "holds the files of mnist" in refusal("fashion_mnist", real("mnist") / "mnist")


@pytest.mark.parametrize(
    ("file", "array", "says"),
    [
        ("train-labels-idx1-ubyte", np.arange(19) % 10, "holds 19 labels, train-images-idx3-ubyte 20 images"),
        ("t10k-labels-idx1-ubyte", np.arange(10) + 1, "holds label 10 in record 9, allowed are 0 to 9"),
        ("train-images-idx3-ubyte", np.zeros((20, 28, 27)), "holds records of [28, 27], expected [28, 28]"),
        ("train-images-idx3-ubyte", np.zeros(20), "is no IDX file of unsigned bytes with 3 axes"),
        ("train-labels-idx1-ubyte", np.zeros(0), "0 records"),
    ],
)
def test_idx_files_that_do_not_fit_are_refused(images, write_idx, file, array, says):
    folder, _ = images("mnist")
    write_idx(folder / "mnist", {f"{file}.gz": array})
    message = refusal("mnist", folder)
    assert message.startswith(f"file {folder / 'mnist' / file}.gz: ") and says in message
    assert "official file" in message


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-40],
        lambda content: content[:60] + bytes([content[60] ^ 255]) + content[61:],
        lambda content: b"\x1f\x8bnot gzip",
        lambda content: content + b"more",
        lambda content: b"<html>404</html>",
        lambda content: b"",
        lambda content: gzip.compress(gzip.decompress(content)[:-1]),
        lambda content: gzip.compress(gzip.decompress(content) + b"\0"),
    ],
    ids=["cut", "flipped", "no gzip", "longer", "html", "empty", "content cut", "content longer"],
)
def test_damaged_idx_files_are_refused(images, damage):
    folder, _ = images("mnist")
    path = folder / "mnist" / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    message = refusal("mnist", folder)
    assert message.startswith(f"file {path}: ") and message.endswith("; put the official file in its place")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (bytes(3072), "holds 3,072 bytes, expected records of 3,073"),
        (b"\x0a" + bytes(3072), "holds label 10 in record 0"),
        (b"", "holds 0 bytes"),
    ],
)
def test_cifar_batches_that_do_not_fit_are_refused(cifar, content, says):
    folder, _, _ = cifar(packed=False)
    path = folder / "cifar-10-batches-bin" / "data_batch_2.bin"
    path.write_bytes(content)
    message = refusal("cifar10", folder)
    assert message.startswith(f"file {path}: ") and says in message


@pytest.mark.parametrize("keep", [0, 20, 10_000])
def test_damaged_archives_are_refused(cifar, keep):
    folder, _, _ = cifar(packed=True)
    path = folder / "cifar-10-binary.tar.gz"
    path.write_bytes(path.read_bytes()[:keep])
    assert refusal("cifar10", folder).startswith(f"file {path}: ")


def test_the_pickled_version_of_cifar_is_not_looked_at(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    assert "cifar-10-binary.tar.gz" in refusal("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("39, State-gov", "39, Astronaut", "line 1 has workclass 'Astronaut', expected one of 9 known values"),
        ("39, State-gov", "39.5, State-gov", "line 1 has age '39.5', expected a whole number"),
        ("39, State-gov, 77516", "39, State-gov, -1", "line 1 has fnlwgt '-1', expected a whole number"),
        ("Never-married, Adm-clerical", "Never-married", "line 1 has 14 fields, expected 15"),
        ("United-States, <=50K", "United-States, rich", "line 1 has label 'rich', expected one of"),
        ("White, Male, 2174", "?, Male, 2174", "line 1 has race '?', expected one of 5 known values"),
    ],
)
def test_adult_lines_that_do_not_fit_are_refused(cut, old, new, says):
    folder = cut("adult", 20)
    path = folder / "adult" / "adult.data"
    path.write_text(path.read_text().replace(old, new, 1))
    message = refusal("adult", folder)
    assert message.startswith(f"file {path}: ") and says in message


def test_adult_without_a_record_is_refused(cut):
    folder = cut("adult", 5)
    (folder / "adult" / "adult.test").write_text("|1x3 Cross validator\n\n")
    assert "adult.test: holds no records" in refusal("adult", folder)


def test_a_missing_data_set_says_where_it_looked_and_what_to_do(tmp_path):
    message = refusal("mnist", tmp_path)
    for part in (
        "dataset mnist: not found",
        str(tmp_path),
        "train-images-idx3-ubyte",
        "--data-dir DIR or JAXAUDIT_DATA_DIR",
        "`jaxaudit data mnist`",
        files.ORIGINS["mnist"].url,
    ):
        assert part in message


def test_a_data_set_of_which_a_file_is_missing_names_it(images):
    folder, _ = images("mnist")
    (folder / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    assert f"{folder / 'mnist'} lacks t10k-labels-idx1-ubyte" in refusal("mnist", folder)


def test_an_unknown_name_lists_those_that_are_known(tmp_path):
    assert "'svhn' is not known, allowed are adult, cifar10, digits" in refusal("svhn", tmp_path)
