"""What tensorflow-datasets keeps of a data set is what the official files say, or it is refused."""

import shutil
import sys
import threading
import time
from functools import partial
from hashlib import sha256
from http.server import HTTPServer, SimpleHTTPRequestHandler

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxaudit import datasets
from jaxaudit.datasets import builders, files, raw


def refusal(call):
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 900
    return message


def assert_prepared_alike(name, folder):
    """Prepare, take the raw files away, and read again."""
    official = datasets.load(name, folder)
    place = datasets.fetch(name, folder)
    for path in folder.iterdir():
        if path != place.parent:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    prepared = datasets.load(name, folder)
    for array, other in zip(official[:4], prepared[:4]):
        np.testing.assert_array_equal(array, other, strict=True)
    assert prepared.sha256 == official.sha256 and prepared.source == official.source


@pytest.mark.parametrize(("name", "records"), [("mnist", 300), ("adult", 300)])
def test_prepared_and_raw_give_the_same_data_set(cut, name, records):
    assert_prepared_alike(name, cut(name, records))


def test_emnist_is_upright_once_whichever_way_it_is_read(images):
    assert_prepared_alike("emnist/digits", images("emnist", "emnist-digits-")[0])


def test_cifar_is_prepared_from_its_archive(cifar):
    assert_prepared_alike("cifar10", cifar(packed=True)[0])


def test_preparing_and_reading_print_nothing(images, capfd):
    folder, _ = images("fashion_mnist")
    datasets.fetch("fashion_mnist", folder)
    shutil.rmtree(folder / "fashion_mnist")
    datasets.load("fashion_mnist", folder)
    assert capfd.readouterr() == ("", "")


def test_a_prepared_data_set_is_an_ordinary_one_of_tensorflow_datasets(images):
    folder, stored = images("mnist")
    datasets.fetch("mnist", folder)
    source = tfds.data_source("jaxaudit_mnist", split="train[10:15]", data_dir=folder, download=False)
    np.testing.assert_array_equal(np.stack([record["image"] for record in source])[..., 0], stored[10:15])


def test_fetching_again_changes_nothing(images):
    folder, _ = images("mnist")
    place = datasets.fetch("mnist", folder)
    written = {path: path.stat().st_mtime_ns for path in place.iterdir()}
    assert datasets.fetch("mnist", folder) == place
    assert written == {path: path.stat().st_mtime_ns for path in place.iterdir()}


def test_digits_need_no_fetching():
    assert (datasets.fetch("digits") / "digits.csv.gz").is_file()


def test_an_interrupted_preparation_is_not_mistaken_for_a_finished_one(images, monkeypatch):
    folder, _ = images("mnist")

    def stops(self, split):
        yield 0, {column: split[column][0] for column in split}
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(builders.Official, "_generate_examples", stops)
        assert "could not be prepared" in refusal(lambda: datasets.fetch("mnist", folder))
    # What is left behind by a process that was killed.
    (folder / "jaxaudit_mnist" / "incomplete.3F2A_1.0.0").mkdir(parents=True)
    hidden = (folder / "mnist").rename(folder / "elsewhere")
    assert "not found" in refusal(lambda: datasets.load("mnist", folder))
    hidden.rename(folder / "mnist")
    assert datasets.fetch("mnist", folder).is_dir()


def test_a_folder_that_is_not_complete_is_not_taken_for_prepared(images):
    folder, _ = images("mnist")
    place = datasets.fetch("mnist", folder)
    (place / "dataset_info.json").unlink()
    assert "is not complete; delete it" in refusal(lambda: datasets.fetch("mnist", folder))


@pytest.mark.parametrize("damage", ["cut", "gone", "changed", "swapped", "other"])
def test_a_damaged_folder_is_refused(images, write_idx, damage):
    folder, stored = images("mnist")
    place = datasets.fetch("mnist", folder)
    write_idx(folder / "mnist", {"train-images-idx3-ubyte.gz": 255 - stored})
    (folder / "mnist").rename(folder / "negative")
    train, test = (next(place.glob(f"*-{split}.array_record*")) for split in ("train", "test"))
    content = train.read_bytes()
    if damage == "cut":
        train.write_bytes(content[: len(content) // 2])
    elif damage == "gone":
        train.unlink()
    elif damage == "changed":
        middle = len(content) // 2
        train.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif damage == "swapped":
        train.write_bytes(test.read_bytes())
    else:
        train.write_bytes((datasets.fetch("mnist", folder / "negative") / train.name).read_bytes())
    message = refusal(lambda: datasets.load("mnist", folder))
    assert f"{place} is damaged" in message and "`jaxaudit data mnist`" in message


def test_without_tensorflow_datasets_the_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    monkeypatch.delitem(sys.modules, "jaxaudit.datasets.builders")
    monkeypatch.delattr(datasets, "builders")
    message = refusal(lambda: datasets.fetch("mnist", tmp_path))
    assert "needs tensorflow-datasets" in message and "--data-dir DIR" in message


def move_adult(monkeypatch, url, folder=None):
    """Let Adult come from another address, and its digests be those of the files in a folder."""
    monkeypatch.setitem(files.ORIGINS, "adult", files.ORIGINS["adult"]._replace(url=url))
    rows = []
    for file in files.ORIGINS["adult"].files:
        content = (folder / file).read_bytes() if folder else b""
        rows.append((f"{url}{file}", sha256(content).hexdigest(), file, len(content)))
    monkeypatch.setattr(files, "_registered", lambda: [row[:3] for row in rows])
    infos = {url: tfds.download.checksums.UrlInfo(size, digest, file) for url, digest, file, size in rows}
    monkeypatch.setattr(builders.JaxauditAdult, "url_infos", infos)


@pytest.fixture
def served(monkeypatch):
    """Serve a folder on this machine; its address, and the paths that were asked for."""
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    servers = []

    def serve(folder, status=None):
        class Handler(SimpleHTTPRequestHandler):
            asked = []  # noqa: RUF012

            def log_message(self, *_):
                pass

            def do_GET(self):
                self.asked.append(self.path)
                self.send_error(status) if status else super().do_GET()

        server = HTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/", Handler.asked

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_downloads_are_checked_and_prepared(cut, served, monkeypatch, tmp_path):
    source = cut("adult", 40) / "adult"
    url, asked = served(source)
    move_adult(monkeypatch, url, source)
    official = datasets.load("adult", source)
    datasets.fetch("adult", tmp_path / "new")
    assert sorted(asked) == ["/adult.data", "/adult.test"]
    assert datasets.load("adult", tmp_path / "new").sha256 == official.sha256
    assert "official files" in datasets.load("adult", tmp_path / "new").source


def test_a_download_with_another_digest_is_refused(cut, served, monkeypatch, tmp_path):
    source = cut("adult", 40) / "adult"
    url, _ = served(source)
    move_adult(monkeypatch, url, source)
    (source / "adult.test").write_text("something else")
    assert "wrong checksum" in refusal(lambda: datasets.fetch("adult", tmp_path / "new"))
    assert "not found" in refusal(lambda: datasets.load("adult", tmp_path / "new"))


def test_a_server_that_fails_is_not_asked_for_three_minutes(cut, served, monkeypatch, tmp_path):
    source = cut("adult", 40) / "adult"
    url, _ = served(source, status=503)
    move_adult(monkeypatch, url, source)
    start = time.perf_counter()
    assert "could not be prepared" in refusal(lambda: datasets.fetch("adult", tmp_path / "new"))
    assert time.perf_counter() - start < 5


def test_tensorflow_datasets_reads_our_checksums():
    for name, builder in builders._BUILDERS.items():
        origin = files.ORIGINS[name]
        assert origin.downloads
        for file, url in origin.downloads.items():
            assert builder.url_infos[url].checksum == origin.digests[file]
            assert builder.url_infos[url].filename == file
    assert set(builders._BUILDERS) == set(files.ORIGINS) == set(raw.CLASSES) == set(datasets.names()) - {"digits"}


def test_without_a_network_one_line_within_five_seconds(monkeypatch, tmp_path):
    move_adult(monkeypatch, "https://jaxaudit.invalid/")
    start = time.perf_counter()
    message = refusal(lambda: datasets.fetch("adult", tmp_path))
    assert time.perf_counter() - start < 5
    for part in ("dataset adult: cannot be downloaded from https://jaxaudit.invalid/", "no answer", str(tmp_path)):
        assert part in message
    assert "--data-dir DIR or JAXAUDIT_DATA_DIR" in message


def test_an_address_that_never_answers_is_given_up(monkeypatch, tmp_path):
    # Even the resolution of names may hang, which no timeout of a request covers.
    monkeypatch.setattr("requests.head", lambda *_, **__: time.sleep(20))
    assert builders.NETWORK_S < 5
    monkeypatch.setattr(builders, "NETWORK_S", 0.3)
    start = time.perf_counter()
    assert "no answer" in refusal(lambda: datasets.fetch("adult", tmp_path))
    assert time.perf_counter() - start < 2


def test_loading_what_is_missing_never_asks_the_network(monkeypatch, tmp_path):
    monkeypatch.setattr("socket.getaddrinfo", lambda *_: pytest.fail("asked the network"))
    start = time.perf_counter()
    for name in datasets.names():
        if name != "digits":
            refusal(lambda name=name: datasets.load(name, tmp_path))
    assert time.perf_counter() - start < 1
