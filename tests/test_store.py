"""A run folder is complete and as it was written, or refused; nothing in it is ever unpickled."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from jaxaudit import runs, store
from jaxaudit.bounds import Counts, Event, Plan, Tradeoff
from jaxaudit.populations.files import read_arrays

FILES = ("recipe.toml", "summary.json", "counts.npz", "spectrum.npz")
COUNTS = {
    "thresholds": np.array([-1.5, 0.25]),
    "errors_h0": np.array([900, 100]),
    "errors_h1": np.array([20, 300]),
    "trials_h0": 1000,
    "trials_h1": 1000,
    "stream": "7/certify",
    "design": "nested",
}


HISTOGRAM = {
    "thresholds": np.array([-2.0, 0.0, 2.0]),
    "errors_h0": np.array([950, 300, 1]),
    "errors_h1": np.array([2, 100, 800]),
}


class Trap:
    """An object whose unpickling creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def make_cell(**changes):
    fields = {
        "summary": {"name": "worst-8"},
        "plan": Plan(
            "pc-cp", (Event(-1.5, "reverse", 1e-3), Event(0.25, "forward", 0.0)), (1e-3, 0.0), stream="7/pilot"
        ),
        "counts": Counts(**COUNTS),
        "histogram": Counts(**COUNTS | HISTOGRAM),
        "off_span": None,
        "spectrum": {"variance": np.array([2.0, 1.0]), "energy": np.array([0.5, 0.0])},
    }
    return runs.Cell(**fields | changes)


def make_run(**changes):
    fields = {
        "recipe": "trials = 1000\n",
        "summary": {"schema": store.SCHEMA, "confidence": 0.95, "statement": "ε, x and x'"},
        "cells": (make_cell(),),
    }
    return runs.Run(**fields | changes)


def other_cell():
    """Differs from the first in everything."""
    numbers = {"thresholds": np.array([0.5]), "errors_h0": np.array([5]), "errors_h1": np.array([7])}
    counts = Counts(**COUNTS | numbers | {"stream": "8/certify", "design": "paired"})
    plan = Plan("union", (Event(0.5, "forward"),), (1e-2,), stream="8/pilot")
    off_span = Plan("pc-cp", (Event(0.0, "forward", 1e-2),), (1e-2,), stream="fixed in advance"), counts
    fields = {"summary": {"name": "record-9"}, "plan": plan, "counts": counts, "off_span": off_span}
    return make_cell(**fields, spectrum={"variance": np.array([3.0])})


def exact_cell(name):
    """A cell whose law was computed: rates and their certain limits, and neither plan nor counts."""
    curve = Tradeoff(*np.linspace(0.1, 0.9, 2 * len(Tradeoff._fields)).reshape(-1, 2))
    return runs.ExactCell({"name": name}, np.array([-0.5, 0.5]), curve, {"variance": np.array([3.0])})


def draw(run, folder):
    (folder / "figure.png").write_bytes(b"a figure")


def tree(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.fixture
def folder(tmp_path):
    """A run folder as it was written."""
    store.write(make_run(), tmp_path / "run", draw)
    return tmp_path / "run"


@pytest.fixture
def trapped(tmp_path):
    """Makes an array that leaves a file behind when it is unpickled, and names that file."""
    sprung = tmp_path / "sprung"
    array = np.empty(1, object)
    array[0] = Trap(sprung)
    return array, sprung


# Whole or not at all


@pytest.mark.parametrize(
    "cells",
    [
        (make_cell(),),
        (make_cell(), other_cell()),
        (make_cell(spectrum={}), other_cell(), *(make_cell(summary={"name": f"worst-{n}"}) for n in range(20))),
        (other_cell(), make_cell(), make_cell()),
        (exact_cell("worst-8"), exact_cell("worst-9")),
    ],
    ids=["one", "two", "many", "off-span first", "exact"],
)
def test_what_is_read_is_what_was_written(tmp_path, cells):
    written = make_run(cells=cells)
    store.write(written, tmp_path / "run", draw)
    found = asdict(store.read(tmp_path / "run"))
    assert set(found["summary"].pop("sha256")) == set(FILES)
    np.testing.assert_equal(found, asdict(written))


def test_a_plan_is_read_as_the_plan_it_was(folder):
    assert store.read(folder).headline.plan == make_cell().plan


def test_off_span_evidence_is_read_with_its_own_plan(tmp_path):
    store.write(make_run(cells=(make_cell(), other_cell())), tmp_path / "run", draw)
    first, second = store.read(tmp_path / "run").cells
    assert first.off_span is None and second.off_span[0] == other_cell().off_span[0] != second.plan


@pytest.mark.parametrize(("part", "whole"), [([0, 1000], True), ([0, 999], False), ([1, 999], False)], ids=str)
def test_a_run_is_whole_where_all_planned_trials_were_played(tmp_path, part, whole):
    summary = {"schema": store.SCHEMA, "trials": 1000, "range": part}
    store.write(make_run(summary=summary), tmp_path / "run", draw)
    found = store.read(tmp_path / "run")
    assert found.part == tuple(part) and found.whole == whole


def test_counts_are_read_in_their_own_types(folder):
    counts = store.read(folder).headline.counts
    types = tuple(type(getattr(counts, name)) for name in ("trials_h0", "trials_h1", "stream", "design"))
    assert types == (int, int, str, str)


def test_a_folder_holds_its_files_and_figures(folder):
    assert tree(folder) == {*FILES, "figure.png"}


def test_a_folder_has_the_usual_permissions(folder):
    (folder.parent / "usual").mkdir()
    assert folder.stat().st_mode == (folder.parent / "usual").stat().st_mode


def test_the_summary_is_readable_utf8(folder):
    assert "ε, x and x'" in (folder / "summary.json").read_bytes().decode()


@pytest.mark.parametrize("state", ["absent", "empty", "link"])
def test_an_absent_or_empty_folder_is_filled(tmp_path, state):
    if state == "empty":
        (tmp_path / "run").mkdir()
    if state == "link":
        (tmp_path / "scratch").mkdir()
        (tmp_path / "run").symlink_to(tmp_path / "scratch")
    store.write(make_run(), tmp_path / "run", draw)
    assert store.read(tmp_path / "run").recipe == make_run().recipe


@pytest.mark.parametrize("reason", [RuntimeError, KeyboardInterrupt, OSError])
def test_an_exception_while_drawing_leaves_nothing_behind(tmp_path, reason):
    def half(run, folder):
        draw(run, folder)
        raise reason("half way")

    with pytest.raises(reason, match="half way"):
        store.write(make_run(), tmp_path / "run", half)
    assert tree(tmp_path) == set()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_summary_that_is_no_json_is_refused_and_leaves_nothing_behind(tmp_path, value):
    with pytest.raises(ValueError, match="JSON"):
        store.write(make_run(summary={"schema": store.SCHEMA, "auc": value}), tmp_path / "run", draw)
    assert tree(tmp_path) == set()


@pytest.mark.parametrize("name", ["mine", "mine/notes.txt"], ids=["folder", "file"])
def test_what_is_in_use_is_refused_and_untouched(tmp_path, name):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"mine.* is in use; choose another --out"):
        store.write(make_run(), tmp_path / name, draw)
    assert tree(tmp_path) == {"mine", "mine/notes.txt"}
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["../file/run", "."])
def test_a_folder_that_cannot_be_written_is_refused_beforehand(tmp_path, monkeypatch, name):
    (tmp_path / "file").touch()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ValueError, match="--out"):
        store.check_free(name)


def test_a_run_is_written_in_utf8_whatever_the_locale(tmp_path, monkeypatch):
    # What `open` and `read_text` fall back to where no encoding is given, as under LC_ALL=C without UTF-8 mode.
    monkeypatch.setattr("io.text_encoding", lambda encoding, *_: encoding or "ascii")
    store.write(make_run(), tmp_path / "run", draw)
    assert store.read(tmp_path / "run").summary["statement"] == "ε, x and x'"


# Checked when read


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b"[]"),
    ],
    ids=["truncated", "emptied", "removed", "foreign"],
)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_and_refused(folder, name, damage):
    damage(folder / name)
    with pytest.raises(ValueError, match=name) as caught:
        store.read(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["recipe.toml", "counts.npz", "spectrum.npz"])
def test_a_single_changed_bit_is_named_and_refused(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(ValueError, match=f"{name}: missing or changed"):
        store.read(folder)


def test_a_summary_edited_by_hand_is_refused(folder):
    text = (folder / "summary.json").read_text(encoding="utf-8")
    (folder / "summary.json").write_text(text.replace("0.95", "0.99"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"summary\.json"):
        store.read(folder)


@pytest.mark.parametrize("field", ["cells", "sha256"])
@pytest.mark.parametrize("content", [[], {}, None], ids=str)
def test_a_summary_without_its_parts_is_named_and_refused(folder, field, content):
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    (folder / "summary.json").write_text(json.dumps(summary | {field: content}))
    with pytest.raises(ValueError, match=r"summary\.json|missing or changed"):
        store.read(folder)


@pytest.mark.parametrize("schema", [store.SCHEMA - 1, store.SCHEMA + 1])
def test_a_summary_of_another_schema_is_refused_with_the_remedy(folder, schema):
    (folder / "summary.json").write_text(json.dumps({"schema": schema}))
    remedy = "update jaxaudit" if schema > store.SCHEMA else "run the recipe again"
    message = f"schema {schema}, this version reads {store.SCHEMA}; {remedy}"
    with pytest.raises(ValueError, match=message):
        store.read(folder)


@pytest.mark.parametrize("content", [None, "a file"], ids=["absent", "file"])
def test_what_is_no_run_folder_is_refused(tmp_path, content):
    if content:
        (tmp_path / "run").write_text(content)
    with pytest.raises(ValueError, match="no run folder"):
        store.read(tmp_path / "run")


# Never unpickled


def test_the_trap_springs_when_it_is_unpickled(tmp_path, trapped):
    array, sprung = trapped
    np.save(tmp_path / "trap.npy", array)
    np.load(tmp_path / "trap.npy", allow_pickle=True)
    assert sprung.exists()


@pytest.mark.parametrize("name", ["trap.npz", "trap.npy"])
def test_a_users_pickle_is_refused_without_being_unpickled(tmp_path, trapped, name):
    array, sprung = trapped
    if name.endswith(".npz"):
        np.savez(tmp_path / name, h0=array)
    else:
        np.save(tmp_path / name, array)
    with pytest.raises(ValueError, match=f"{name}: cannot be read"):
        read_arrays(tmp_path / name)
    assert not sprung.exists()


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_pickled_counts_are_refused_without_being_unpickled(tmp_path, trapped, name):
    array, sprung = trapped
    np.savez(tmp_path / "counts.npz", **COUNTS | {name: array})
    with pytest.raises(ValueError, match=r"counts\.npz: cannot be read"):
        store.read_counts(tmp_path / "counts.npz")
    assert not sprung.exists()


def test_a_pickle_with_the_right_checksum_is_refused_without_being_unpickled(tmp_path, trapped):
    array, sprung = trapped
    store.write(make_run(cells=(make_cell(spectrum={"variance": array}),)), tmp_path / "run", draw)
    with pytest.raises(ValueError, match=r"spectrum\.npz: cannot be read"):
        store.read(tmp_path / "run")
    assert not sprung.exists()


# Counts from elsewhere


def test_counts_are_read_as_they_were_saved(tmp_path):
    np.savez(tmp_path / "counts.npz", **COUNTS)
    np.testing.assert_equal(asdict(store.read_counts(tmp_path / "counts.npz")), COUNTS)


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_counts_without_one_of_their_arrays_are_refused(tmp_path, name):
    np.savez(tmp_path / "counts.npz", **{key: value for key, value in COUNTS.items() if key != name})
    with pytest.raises(ValueError, match=rf"counts\.npz: holds no counts \(array '{name}' is missing\)"):
        store.read_counts(tmp_path / "counts.npz")


@pytest.mark.parametrize(
    "changes",
    [
        {"errors_h0": np.array([-1, 100])},
        {"errors_h0": np.array([900, 1001])},
        {"errors_h0": np.array([899.9, 99.9])},
        {"errors_h0": np.array(["many", "few"])},
        {"errors_h0": np.array([900])},
        {"errors_h0": np.array([np.nan, 100.0])},
        {name: COUNTS[name][None] for name in ("thresholds", "errors_h0", "errors_h1")},
        {name: COUNTS[name][:0] for name in ("thresholds", "errors_h0", "errors_h1")},
        {"thresholds": np.array([np.nan, 0.25])},
        {"trials_h0": np.array([1000, 1000])},
        {"trials_h0": 0, "errors_h0": np.array([0, 0])},
        {"trials_h1": 1000.5},
    ],
    ids=[
        *("negative", "too_many", "fractions", "words", "too_few", "nan_errors"),
        *("two_axes", "no_thresholds", "nan_threshold", "two_trials", "no_trials", "half_a_trial"),
    ],
)
def test_numbers_that_are_no_counts_are_refused_by_file(tmp_path, changes):
    np.savez(tmp_path / "counts.npz", **COUNTS | changes)
    with pytest.raises(ValueError, match=r"counts\.npz") as caught:
        store.read_counts(tmp_path / "counts.npz")
    assert "\n" not in str(caught.value)
