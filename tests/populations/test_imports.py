"""Imported updates: every format gives the same rows, only what is asked for is read, and what is odd is refused."""

import hashlib
import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from jaxaudit.populations import files as files_module
from jaxaudit.populations import imports
from jaxaudit.populations.imports import Layer, read_updates
from jaxaudit.populations.index import path_sha256

RNG = np.random.default_rng(7)
# A small CNN, in the order of the model; row-major and in order of name, an update has 9 + 1 + 24 + 3 = 37 numbers.
SHAPES = {"features.weight": (1, 1, 3, 3), "features.bias": (1,), "dense/kernel": (8, 3), "dense/bias": (3,)}
NAMES = sorted(SHAPES)


def state_dict(rng=RNG, dtype=np.float32):
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in SHAPES.items()}


def flat(state, names=NAMES):
    return np.concatenate([state[name].astype(np.float32).ravel() for name in names])


def write(path, arrays, metadata=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        save_file({name: np.asarray(array) for name, array in arrays.items()}, path, metadata)
    return path


def everything(updates):
    return updates.rows(np.arange(len(updates)))


@pytest.fixture
def folder(tmp_path):
    """Six single updates: rounds 0 and 1 of clients 0, 1, 2, half of them .npz; with the states, in order of file."""
    states = []
    for client in range(3):
        for round in range(2):
            states.append(state_dict())
            suffix = ".npz" if client % 2 else ".safetensors"
            write(tmp_path / "recorded" / f"client-{client}_round-{round}{suffix}", states[-1])
    return tmp_path / "recorded", states


def test_rows_are_the_ravelled_tensors_in_order_of_name(folder):
    updates = read_updates(folder[0])
    np.testing.assert_array_equal(everything(updates), [flat(state) for state in folder[1]])
    assert updates.layers == (
        Layer("dense/bias", (3,), 0, 3),
        Layer("dense/kernel", (8, 3), 3, 27),
        Layer("features.bias", (1,), 27, 28),
        Layer("features.weight", (1, 1, 3, 3), 28, 37),
    )
    assert everything(updates).dtype == np.float32 and len(updates) == 6 and updates.dim == 37


def test_names_of_files_say_client_and_round(folder):
    updates = read_updates(folder[0])
    np.testing.assert_array_equal(updates.client, [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(updates.round, [0, 1, 0, 1, 0, 1])
    assert updates.source == "recorded" and updates.cohort == {}


@pytest.mark.parametrize(
    ("layers", "names", "words"),
    [
        (("dense/*",), NAMES[:2], "dense/bias (3), dense/kernel (8×3), each row-major, in order of name: 27 of 37"),
        (("features.weight",), NAMES[3:], "features.weight (1×1×3×3), row-major: 9 of 37"),
        (("*.weight", "dense/kernel"), [NAMES[1], NAMES[3]], "33 of 37"),
        ("features.bias", NAMES[2:3], "features.bias (1), row-major: 1 of 37"),
        ((), NAMES, "all 37 numbers of an update"),
    ],
)
def test_layers_are_selected_by_pattern_and_named_in_words(folder, layers, names, words):
    updates = read_updates(folder[0], layers)
    np.testing.assert_array_equal(everything(updates), [flat(state, names) for state in folder[1]])
    assert words in updates.flattening and [layer.name for layer in updates.layers] == names


def test_words_stay_short_for_many_layers(tmp_path):
    write(tmp_path / "client-0.npz", {f"layer{number:02}": np.zeros(2) for number in range(50)})
    words = read_updates(tmp_path).flattening
    assert "layer03 (2), … 45 more …, layer49 (2), each" in words and "all 100 numbers" in words


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_one_file_of_stacked_tensors_is_the_folder_of_its_updates(folder, tmp_path, suffix):
    stacked = {name: np.stack([state[name] for state in folder[1]]) for name in SHAPES}
    labels = {"client": np.repeat(np.arange(3), 2), "round": np.tile(np.arange(2, dtype=np.int32), 3)}
    one, many = read_updates(write(tmp_path / f"all{suffix}", stacked | labels)), read_updates(folder[0])
    np.testing.assert_array_equal(everything(one), everything(many))
    np.testing.assert_array_equal(one.client, many.client)
    np.testing.assert_array_equal(one.round, many.round)
    assert one.layers == many.layers and one.flattening == many.flattening


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
def test_a_matrix_is_its_rows(tmp_path, suffix):
    matrix, path = RNG.standard_normal((6, 5)), tmp_path / f"u{suffix}"
    np.save(path, matrix) if suffix == ".npy" else write(path, {"updates": matrix})
    updates = read_updates(path)
    np.testing.assert_array_equal(updates.rows([5, 0, 0]), matrix[[5, 0, 0]].astype(np.float32))
    assert updates.client is None and not updates.round.any() and updates.layers == (Layer("updates", (5,), 0, 5),)
    assert updates.flattening == "rows of `updates`, as recorded: all 5 numbers of an update"
    assert updates.sha256 == {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_large_formats_stay_on_disk(tmp_path, suffix, monkeypatch):
    path, read = tmp_path / f"u{suffix}", []
    np.save(path, np.zeros((6, 5))) if suffix == ".npy" else write(path, {"updates": np.zeros((6, 5))})
    updates = read_updates(path)
    whole = imports.read_arrays
    monkeypatch.setattr(imports, "read_arrays", lambda *args: read.append(whole(*args)) or read[-1])
    updates.rows([1])
    assert isinstance(read[0]["updates"], np.memmap)


def test_only_files_that_are_asked_for_are_opened(folder):
    updates = read_updates(folder[0])
    for file in folder[0].glob("client-[02]*"):
        file.unlink()
    np.testing.assert_array_equal(updates.rows([3, 2]), [flat(folder[1][3]), flat(folder[1][2])])
    with pytest.raises(ValueError, match=r"client-2_round-0\.safetensors: not found"):
        updates.rows([3, 4])


def test_a_file_is_read_once_for_the_rows_asked_together(tmp_path, monkeypatch):
    for number in range(3):
        write(tmp_path / f"{number}.npz", {"updates": np.full((4, 2), number)})
    updates, opened, whole = read_updates(tmp_path), [], imports.read_arrays
    monkeypatch.setattr(imports, "read_arrays", lambda path, names: opened.append(path.name) or whole(path, names))
    np.testing.assert_array_equal(updates.rows([11, 0, 8, 3, 1, 9])[:, 0], [2, 0, 2, 0, 0, 2])
    updates.rows([10])
    assert opened == ["0.npz", "2.npz"]


def test_the_index_reads_no_tensor(folder, monkeypatch):
    loaded, whole = [], files_module.np.lib.npyio.NpzFile.__getitem__
    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", lambda self, key: loaded.append(key) or whole(self, key))
    updates = read_updates(folder[0], ["dense/bias"])
    assert not loaded
    everything(updates)
    assert loaded == ["dense/bias"] * 2


def test_bfloat16_is_widened_exactly(tmp_path):
    states = [state_dict(dtype=jnp.bfloat16) for _ in range(3)]
    for number, state in enumerate(states):
        write(tmp_path / f"client{number}.safetensors", state)
    np.testing.assert_array_equal(everything(read_updates(tmp_path)), [flat(state) for state in states])


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.uint32, np.int64, ">f4"])
def test_real_numbers_are_read_as_float32(tmp_path, dtype):
    matrix = np.array([[1.5, 2], [0, 100]]).astype(dtype)
    np.save(tmp_path / "u.npy", matrix)
    rows = everything(read_updates(tmp_path / "u.npy"))
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, matrix.astype(np.float32))


@pytest.mark.parametrize(
    ("name", "arrays", "metadata"),
    [
        ("x.npz", {"client": np.int64(17), "round": np.uint8(3)}, None),
        ("x.safetensors", {"client": np.int64(17), "round": np.int32(3)}, None),
        ("x.safetensors", {}, {"client": "17", "round": " 3 "}),
        ("client-17_round-3.npz", {}, None),
        ("client_17_round_3.npz", {}, None),
        ("Client17-Round03.npz", {}, None),
        ("round_3/client-0017.safetensors", {}, None),
        ("background9_client17_round3.npz", {}, None),
        ("client-1_round-1.npz", {"client": np.int64(17), "round": np.int64(3)}, None),
        ("client-1_round-3.safetensors", {"client": np.int64(17)}, {"client": "5"}),
    ],
)
def test_client_and_round_are_found_where_they_are_said(tmp_path, name, arrays, metadata):
    write(tmp_path / name, {"vector": np.arange(4.0), **arrays}, metadata)
    updates = read_updates(tmp_path)
    assert (updates.client.tolist(), updates.round.tolist()) == ([17], [3])
    np.testing.assert_array_equal(everything(updates), [np.arange(4)])


def test_one_label_of_a_file_counts_for_all_its_rows(tmp_path):
    write(tmp_path / "client-4.npz", {"updates": np.zeros((3, 2)), "round": np.array([5, 6, 7])})
    updates = read_updates(tmp_path)
    assert (updates.client.tolist(), updates.round.tolist()) == ([4, 4, 4], [5, 6, 7])


def test_names_of_single_files_say_nothing(tmp_path):
    assert read_updates(write(tmp_path / "client100.npz", {"updates": np.zeros((3, 2))})).client is None


def test_one_client_may_have_several_updates_of_a_round(tmp_path):
    for variant in "ab":
        write(tmp_path / f"client-1_round-2_{variant}.npz", {"vector": np.zeros(2)})
    assert read_updates(tmp_path).client.tolist() == [1, 1]


def test_cohort_sizes_are_told_by_round(tmp_path):
    write(tmp_path / "a.npz", {"updates": np.zeros((3, 2)), "round": np.array([0, 0, 1]), "cohort": np.int64(50)})
    write(tmp_path / "b.npz", {"updates": np.zeros((2, 2)), "round": np.array([1, 2]), "cohort": np.array([50, 60])})
    write(tmp_path / "c.safetensors", {"updates": np.zeros((1, 2))}, {"round": "3", "cohort": "70"})
    write(tmp_path / "d.npz", {"updates": np.zeros((1, 2)), "round": np.int64(4)})
    assert read_updates(tmp_path).cohort == {0: 50, 1: 50, 2: 60, 3: 70}


def test_other_files_are_passed_over(folder):
    before = everything(read_updates(folder[0]))
    (folder[0] / "README.txt").write_text("six updates")
    write(folder[0] / ".cache" / "client-9.npz", {"other": np.zeros(1)})
    write(folder[0] / "._client-0.npz", {"other": np.zeros(1)})
    np.testing.assert_array_equal(everything(read_updates(folder[0])), before)


def test_digest_of_a_folder_is_that_of_its_sha256sums(tmp_path):
    write(tmp_path / "b" / "client-1.npz", {"vector": np.zeros(2)})
    write(tmp_path / "a.safetensors", {"vector": np.zeros(2)}, {"client": "2"})
    names = ["a.safetensors", "b/client-1.npz"]
    lines = [f"{hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    assert read_updates(tmp_path).sha256 == {tmp_path.name: hashlib.sha256("".join(lines).encode()).hexdigest()}
    (tmp_path / "b" / "client-1.npz").rename(tmp_path / "b" / "client-3.npz")
    assert path_sha256(tmp_path) != hashlib.sha256("".join(lines).encode()).hexdigest()


NAME = st.text(st.sampled_from("abz./_1"), min_size=1, max_size=6).filter(lambda name: name.strip("./"))
SHAPE = st.lists(st.integers(0, 3), max_size=3).map(tuple)


@given(
    shapes=st.dictionaries(NAME, SHAPE, min_size=1, max_size=4).filter(lambda s: sum(map(math.prod, s.values()))),
    stacks=st.lists(st.sampled_from([None, 1, 3]), min_size=1, max_size=4),
    data=st.data(),
)
def test_rows_are_independent_of_how_the_updates_lie_in_files(tmp_path_factory, shapes, stacks, data):
    folder, rng, expected = tmp_path_factory.mktemp("updates"), np.random.default_rng(0), []
    for number, stack in enumerate(stacks):
        # In their own order in the file, which must not matter.
        names = data.draw(st.permutations(sorted(shapes)))
        lead = () if stack is None else (stack,)
        arrays = {name: rng.standard_normal((*lead, *shapes[name])).astype(np.float32) for name in names}
        labels = {"client": np.int64(number) if stack is None else np.full(stack, number)}
        write(folder / f"{number}{data.draw(st.sampled_from(['.npz', '.safetensors']))}", arrays | labels)
        expected.append(np.concatenate([arrays[n].reshape(stack or 1, -1) for n in sorted(shapes)], axis=1))
    expected, updates = np.concatenate(expected), read_updates(folder)
    picked = data.draw(st.lists(st.integers(0, len(expected) - 1), max_size=6))
    np.testing.assert_array_equal(updates.rows(np.array(picked, int)), expected[picked])
    for layer in updates.layers:
        assert layer.shape == shapes[layer.name] and layer.stop - layer.start == math.prod(layer.shape)


def with_one(label, value):
    return lambda p: write(p / "a.npz", {"vector": np.zeros(2), label: value})


def two(first, second, names=("client-1.npz", "client-2.npz")):
    def make(folder):
        for name, arrays in zip(names, (first, second), strict=True):
            write(folder / name, arrays)

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: (p / "notes.txt").write_text("none"), r"folder .*: holds no \.npz or \.safetensors file"),
        (lambda p: np.save(p / "u.npy", np.zeros((2, 2))), r"u\.npy: a folder of updates holds .* convert it"),
        (
            two({"w": np.zeros(2)}, {"w": np.zeros(3)}),
            r"client-2\.npz: 'w' of one update has shape \(3,\), but \(2,\)",
        ),
        (two({"w": np.zeros(2)}, {"v": np.zeros(2)}), r"client-1\.npz: no tensor 'v', which .*client-2\.npz holds"),
        (two({"w": np.zeros(2)}, {"updates": np.zeros((1, 2))}), "no tensor 'updates'"),
        (two({"w": np.zeros(2)}, {"w": np.zeros(2)}, ("client-1.npz", "z.npz")), r"z\.npz: does not say its client"),
        (two({"w": np.zeros(2)}, {"w": np.zeros(2)}, ("round-1.npz", "z.npz")), r"z\.npz: does not say its round"),
        (lambda p: write(p / "client-1_client-2.npz", {"w": np.zeros(1)}), "its path says client 1 and client 2"),
        (with_one("client", np.float32(1)), r"client must be integers in \[0, 2\^63\), one .* got float32"),
        (with_one("client", np.int64(-3)), r"client must be integers in \[0, 2\^63\), got -3"),
        (with_one("client", np.uint64(2**64 - 1)), r"got 18446744073709551615"),
        (with_one("round", np.zeros((2, 2), int)), r"got int64 of shape \(2, 2\)"),
        (with_one("client", np.zeros(0, int)), r"array 'client' has shape \(0,\)"),
        (with_one("client", np.arange(3)), r"3 client numbers, but tensor 'vector' has shape \(2,\); stack"),
        (with_one("cohort", np.int64(0)), r"cohort must be integers in \[1, 2\^63\), got 0"),
        (lambda p: write(p / "a.safetensors", {"w": np.zeros(1)}, {"client": "x1"}), "its metadata say 'x1'"),
        (lambda p: write(p / "a.safetensors", {"w": np.zeros(1)}, {"client": "-1"}), "its metadata say '-1'"),
        (lambda p: write(p / "a.safetensors", {"w": np.zeros(1, bool)}), "'w' has dtype BOOL, allowed are real"),
        (lambda p: write(p / "a.npz", {"w": np.zeros(1, complex)}), "'w' has dtype complex128, allowed are real"),
        (lambda p: write(p / "a.npz", {"w": np.array([{}])}), "'w' has dtype object.*without pickle"),
        (lambda p: write(p / "a.npz", {"client": np.int64(1)}), "no array 'updates', it holds 'client'"),
        (lambda p: write(p / "a.npz", {"w": np.zeros((0, 3))}), "the layers w hold no number"),
        (
            lambda p: write(p / "a.npz", {"updates": np.zeros(3)}),
            r"updates' has shape \(3,\), allowed are 2 axes; name",
        ),
        (lambda p: write(p / "a.npz", {"updates": np.zeros((0, 3))}), "allowed are one number or more"),
        (
            lambda p: write(p / "a.npz", {"updates": np.zeros((2, 3)), "client": np.arange(3)}),
            "3 client numbers for 2 updates",
        ),
        (
            lambda p: write(p / "a.npz", {"w": np.zeros((2, 3)), "client": np.arange(2), "round": np.arange(3)}),
            "3 round numbers for 2 updates",
        ),
        (
            two({"w": np.zeros(1), "cohort": np.int64(5)}, {"w": np.zeros(1), "cohort": np.int64(6)}),
            r"client-2\.npz: the cohort of round 0 is 6, elsewhere 5",
        ),
        (
            two({"w": np.zeros(1), "cohort": np.int64(1)}, {"w": np.zeros(1)}),
            "2 clients have updates of round 0, but its cohort is 1",
        ),
    ],
)
def test_odd_folders_are_refused_in_one_line(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        read_updates(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"file or folder .*none: not found"):
        read_updates(tmp_path / "none")


def test_a_single_update_alone_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no array 'updates', it holds 'w'; .* folder of single updates"):
        read_updates(write(tmp_path / "client-1.npz", {"w": np.zeros(3)}))


def test_a_pattern_that_matches_nothing_is_refused_with_the_names(folder):
    with pytest.raises(ValueError, match=r"no tensor matches the layer 'conv', it holds dense/bias, dense/kernel, "):
        read_updates(folder[0], ["dense/*", "conv"])


def test_brackets_in_a_name_are_plain(tmp_path):
    write(tmp_path / "a.npz", {"layers[0]": np.ones(2), "layers0": np.zeros(2)})
    assert everything(read_updates(tmp_path, ["layers[0]"])).tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e39])
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_numbers_beyond_float32_are_refused_where_they_lie(tmp_path, bad, suffix):
    tensors = {"b": np.zeros((5, 2)), "w": np.zeros((5, 3)), "client": np.arange(5)}
    tensors["w"][3, 1] = bad
    updates = read_updates(write(tmp_path / f"u{suffix}", tensors))
    assert not updates.rows([0, 1, 2, 4]).any()
    with pytest.raises(ValueError, match=rf"u\{suffix}: 'w' of update\[3\] holds NaN or infinity, allowed"):
        updates.rows([4, 3, 0])


def test_rows_outside_are_refused(folder):
    for index in (-1, 6):
        with pytest.raises(IndexError, match=r"\[0, 6\)"):
            read_updates(folder[0]).rows([index])


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_damage_is_named_when_indexed_and_when_read(folder, suffix):
    file = next(folder[0].glob(f"*{suffix}"))
    updates, content = read_updates(folder[0]), file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    for read in (lambda: read_updates(folder[0]), lambda: everything(updates)):
        with pytest.raises(ValueError, match=rf"{file.name}: cannot be read as \{suffix}"):
            read()


def test_files_that_change_in_use_are_refused(folder):
    updates = read_updates(folder[0])
    write(folder[0] / "client-1_round-0.npz", state_dict() | {"dense/bias": np.zeros(4)})
    with pytest.raises(ValueError, match=r"client-1_round-0\.npz: 'dense/bias' changed while it was in use"):
        updates.rows([2])
