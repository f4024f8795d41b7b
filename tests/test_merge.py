"""Parts of a run become the run: exactly, and only where every planned trial is there once.

`merge` certifies only a gap-free range from trial 0 to the planned number: anything else would be a stopping rule, or
another sample than the one that was planned.
"""

import json
import re
import shutil
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from test_cli import ask

from jaxaudit import config, merge, plots, report, runner, store
from jaxaudit.types import Range

TRIALS = 9_001
# Of unequal parts, none of which ends with a batch.
PARTS = {"first": (0, 1_000), "middle": (1_000, 7_777), "last": (8_777, 224)}
PLAN = ("--delta=0.1", "--delta=0.01", "--confidence=0.9", "--seed=3")
# Another plan or law, each a run with a part of its own where the middle part should be.
OTHERS = {
    "seed": ("--seed=4",),
    "trials": ("--trials=9002",),
    "deltas": ("--delta=0.001",),
    "confidence": ("--confidence=0.95",),
    "design": ("--set=design=labelled",),
    "digest": ("--set=population.clients=9",),
}


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Updates that never move the last coordinate, and candidates that do: there is an off-span score, too."""
    folder = tmp_path_factory.mktemp("pool")
    rng = np.random.default_rng(0)
    updates = rng.standard_normal((400, 4)).astype(np.float32) * [1, 1, 1, 0]
    np.savez(folder / "u.npz", updates=updates.astype(np.float32))
    for name in "ab":
        np.savez(folder / f"{name}.npz", h0=rng.standard_normal(4), h1=rng.standard_normal(4))
    return folder


def play(pool, out, *more, part=None):
    """`run`, of two pairs in one cohort size."""
    pairs = ", ".join(f"'{pool / name}.npz'" for name in "ab")
    fields = ("kind=arrays", f"path='{pool / 'u.npz'}'", "clients=8", f"pair=[{pairs}]")
    sets = [argument for field in fields for argument in ("--set", f"population.{field}")]
    plan = (*more, *(own for own in PLAN if not any(own.split("=")[0] == one.split("=")[0] for one in more)))
    trials = () if any(one.startswith("--trials") for one in more) else (f"--trials={TRIALS}",)
    which = () if part is None else ("--range={}:{}".format(*part),)
    answer = ask("run", *sets, *plan, *trials, *which, "--out", out)
    assert answer.code == 0, answer.err
    return answer


@pytest.fixture(scope="module")
def runs(pool, tmp_path_factory):
    """The whole run, its parts, and parts of other runs."""
    home = tmp_path_factory.mktemp("runs")
    said = {"whole": play(pool, home / "whole")}
    for name, part in PARTS.items():
        said[name] = play(pool, home / name, part=part)
    for name, more in OTHERS.items():
        said[name] = play(pool, home / name, *more, part=PARTS["middle"])
    return SimpleNamespace(home=home, said=said)


@pytest.fixture
def parts(runs):
    return [runs.home / name for name in PARTS]


def summary(folder):
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def contents(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def refused(message, out, *folders):
    """One line, exit code 2, and nothing written; the same from Python."""
    before = contents(out.parent)
    answer = ask("merge", *folders, "--out", out)
    assert answer.code == 2 and answer.out == ""
    assert re.fullmatch(rf"jaxaudit: {message}\n", answer.err), answer.err
    assert contents(out.parent) == before and not out.exists()
    with pytest.raises(ValueError, match=message):
        merge.merge(folders)


# Exactly the run


@pytest.fixture(scope="module")
def merged(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("merged") / "run"
    answer = ask("merge", *(runs.home / name for name in ("last", "first", "middle")), "--out", out)
    assert answer.code == 0, answer.err
    return SimpleNamespace(out=out, answer=answer)


def test_merged_counts_are_those_of_the_run(merged, runs):
    """Errors along the curve, the histogram and the off-span score, of every cell."""
    with np.load(merged.out / "counts.npz") as one, np.load(runs.home / "whole" / "counts.npz") as other:
        assert one.files == other.files
        for name in ("errors_h0", "histogram/errors_h1", "off-span/errors_h0", "1/errors_h0", "1/off-span/trials_h1"):
            assert name in one.files
        for name in one.files:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)
        assert one["trials_h0"] == TRIALS


def test_merged_bounds_are_those_of_the_run(merged, runs):
    one, other = summary(merged.out), summary(runs.home / "whole")
    varying = {"timing", "provenance", "sha256"}
    assert {k: v for k, v in one.items() if k not in varying} == {k: v for k, v in other.items() if k not in varying}
    assert one["range"] == [0, TRIALS] and [row["delta"] for row in one["bounds"]] == [0.1, 0.01]
    assert min(row["epsilon_lower"] for row in one["bounds"] + one["off_span"]) > 0


def test_a_merged_run_looks_like_one(merged, runs):
    """Table, statement, figures; and the times of all parts."""
    names = {path.name for path in merged.out.iterdir()}
    assert names == {path.name for path in (runs.home / "whole").iterdir()} and "roc.png" in names
    kept = re.compile(r"^(?!Figures: ).*$", re.M)
    assert kept.findall(merged.answer.out) == kept.findall(runs.said["whole"].out)
    timings = [summary(runs.home / name)["timing"]["trials_s"] for name in PARTS]
    assert summary(merged.out)["timing"]["trials_s"] == pytest.approx(sum(timings), rel=1e-12)
    origins = summary(merged.out)["provenance"]["parts"]
    assert [origin["range"] for origin in origins] == [list(part) for part in PARTS.values()]


def test_a_merged_run_can_be_bounded_and_reported(merged, runs, monkeypatch):
    monkeypatch.setattr(plots, "draw", lambda *_: None)
    one, other = (ask("bound", folder, "--delta=0.01") for folder in (merged.out, runs.home / "whole"))
    assert one.code == 0, one.err
    assert one.out.replace(str(merged.out), "") == other.out.replace(str(runs.home / "whole"), "")
    assert ask("report", merged.out).out == merged.answer.out


def test_the_order_of_parts_does_not_matter(parts):
    orders = [merge.merge(order) for order in permutations(parts)]
    assert len(orders) == 6
    first = report.judged(orders[0])
    for other in orders[1:]:
        assert other.summary == first.summary and other.recipe == first.recipe
        for one, two in zip(first.cells, other.cells):
            assert one.summary == two.summary and one.plan == two.plan
            for counts in ("counts", "histogram"):
                np.testing.assert_array_equal(getattr(one, counts).errors_h0, getattr(two, counts).errors_h0)
                np.testing.assert_array_equal(getattr(one, counts).errors_h1, getattr(two, counts).errors_h1)


def test_a_whole_run_is_a_merge_of_itself(runs):
    whole = runs.home / "whole"
    assert merge.merge([whole]).summary["bounds"] == summary(whole)["bounds"]


# Only the run

MERGE = [
    ("gap", ("first", "last"), r"trials 1,000 to 8,776 are missing before \S+/last; run them with --range 1000:7777"),
    (
        "no beginning",
        ("middle", "last"),
        r"trials 0 to 999 are missing before \S+/middle; run them with --range 0:1000",
    ),
    ("no end", ("first", "middle"), r"trials 8,777 to 9,000 of 9,001 are missing; run them with --range 8777:224"),
    ("one part", ("first",), r"trials 1,000 to 9,000 of 9,001 are missing; run them with --range 1000:8001"),
    ("last alone", ("last",), r"trials 0 to 8,776 are missing before \S+/last; run them with --range 0:8777"),
    (
        "twice",
        ("first", "middle", "middle", "last"),
        r"\S+/middle and \S+/middle overlap: both hold trial 1,000; a trial counts once, leave one out",
    ),
    (
        "whole and part",
        ("whole", "middle"),
        r"\S+/whole and \S+/middle overlap: both hold trial 1,000; a trial counts once, leave one out",
    ),
    ("whole twice", ("whole", "whole"), r"\S+/whole and \S+/whole overlap: both hold trial 0; .*, leave one out"),
    ("part and whole", ("first", "whole"), r"\S+/(whole|first) and \S+/(whole|first) overlap: both hold trial 0; .*"),
]


@pytest.mark.parametrize(("names", "message"), [case[1:] for case in MERGE], ids=[case[0] for case in MERGE])
def test_only_all_trials_once_are_a_run(runs, tmp_path, names, message):
    refused(message, tmp_path / "out", *(runs.home / name for name in names))


def test_parts_that_overlap_by_one_trial_are_refused(runs, pool, tmp_path):
    play(pool, tmp_path / "late", part=(8_776, 225))
    message = r"\S+/middle and \S+/late overlap: both hold trial 8,776; a trial counts once, leave one out"
    refused(message, tmp_path / "out", runs.home / "first", runs.home / "middle", tmp_path / "late")


@pytest.mark.parametrize("other", OTHERS)
def test_a_part_of_another_run_is_refused(runs, tmp_path, other):
    """Whether it differs in its law, in its seed, or only in its plan."""
    name = {"seed": "digest"}.get(other, other)
    folders = [runs.home / one for one in ("first", other, "last")]
    message = rf"\S+/first and \S+/{other} are parts of different runs: {name} is .* and .*; merge parts of one run"
    refused(message, tmp_path / "out", *folders)
    if other == "trials":
        refused(r".* different runs: trials is 9001 and 9002; .*", tmp_path / "out", *folders)


def rewritten(folder, into, change):
    """A folder as if it had been written with another summary, digests included."""
    shutil.copytree(folder, into)
    found = summary(into)
    change(found)
    del found["sha256"]["summary.json"]
    found["sha256"]["summary.json"] = store._own_sha256(found)
    (into / "summary.json").write_text(json.dumps(found), encoding="utf-8")
    return into


def test_parts_that_were_prepared_differently_are_refused(runs, tmp_path):
    """The same recipe on another machine may give pilot scores, and so thresholds, that differ in their last bits."""
    other = rewritten(runs.home / "middle", tmp_path / "other", lambda found: found.update(fingerprint="0" * 64))
    message = r"\S+/first and \S+/other were prepared differently, although their recipe is the same: .*; run the .*"
    refused(message, tmp_path / "out", runs.home / "first", other, runs.home / "last")


def test_parts_with_other_thresholds_are_refused(runs, tmp_path):
    def moved(found):
        found["cells"][1]["plans"][0]["events"][0]["threshold"] += 1e-9

    other = rewritten(runs.home / "last", tmp_path / "other", moved)
    message = r"\S+/first and \S+/other were prepared differently, .*"
    refused(message, tmp_path / "out", runs.home / "first", runs.home / "middle", other)


def test_a_damaged_part_is_refused(runs, tmp_path):
    broken = Path(shutil.copytree(runs.home / "middle", tmp_path / "broken"))
    whole = (broken / "counts.npz").read_bytes()
    (broken / "counts.npz").write_bytes(whole[: len(whole) // 2])
    message = r"\S+/broken/counts.npz: missing or changed since it was written; run the recipe again"
    refused(message, tmp_path / "out", runs.home / "first", broken, runs.home / "last")


def test_an_edited_range_is_refused(runs, tmp_path):
    """The trials that a folder claims to hold are under its digest."""
    edited = Path(shutil.copytree(runs.home / "middle", tmp_path / "edited"))
    found = summary(edited)
    found["range"] = [0, TRIALS]
    (edited / "summary.json").write_text(json.dumps(found), encoding="utf-8")
    refused(r"\S+/summary.json: changed since it was written; run the recipe again", tmp_path / "out", edited)


def test_a_foreign_folder_is_refused(runs, tmp_path):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "counts.npz").write_bytes(b"")
    message = r"\S+/foreign: no run folder \(it has no summary.json\); give the folder that `run` wrote"
    refused(message, tmp_path / "out", runs.home / "first", tmp_path / "foreign")
    refused(r"\S+/nowhere: no run folder .*", tmp_path / "out", tmp_path / "nowhere")


def test_a_folder_in_use_is_not_written_over(runs, parts, tmp_path):
    (tmp_path / "notes").write_text("mine")
    answer = ask("merge", *parts, "--out", tmp_path)
    assert (
        answer.code == 2 and answer.err == f"jaxaudit: {tmp_path} is in use; choose another --out, or move it away\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


@pytest.mark.parametrize("arguments", [(), ("--out", "x"), ("somewhere",)], ids=str)
def test_merge_needs_parts_and_a_place(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = ask("merge", *arguments)
    assert answer.code == 2 and len(answer.err.splitlines()) == 1 and not list(tmp_path.iterdir())


# A part certifies nothing


@pytest.mark.parametrize("name", PARTS)
def test_a_part_has_no_bounds(runs, name):
    folder = runs.home / name
    found, stored = summary(folder), store.read(folder)
    assert found["range"] == list(PARTS[name]) and found["trials"] == TRIALS
    for cell in (found, *found["cells"]):
        assert cell["bounds"] == cell["off_span"] == []
    assert not stored.whole and stored.part == Range(*PARTS[name])
    assert stored.headline.counts.trials_h0 == PARTS[name][1]
    assert not list(folder.glob("*.p*"))


@pytest.mark.parametrize("name", PARTS)
def test_a_part_shows_no_bound(runs, name):
    assert "≥" not in runs.said[name].out and "certified" in runs.said["whole"].out
    answer = ask("report", runs.home / name)
    assert answer.code == 0 and "≥" not in answer.out
    assert not list((runs.home / name).glob("*.p*"))


def test_bounds_of_a_part_are_refused(runs):
    for cell in ((), ("--cell", "x-8")):
        answer = ask("bound", runs.home / "middle", *cell)
        assert answer.code == 2 and answer.out == ""
        expected = (
            rf"jaxaudit: {runs.home}/middle is a part of a run and certifies nothing .*; merge all parts first\n"
        )
        assert re.fullmatch(expected, answer.err)


def test_bounds_of_a_part_are_refused_in_python(pool):
    part = runner.run_recipe(
        config.load(
            "membership",
            {
                "population.kind": "arrays",
                "population.path": str(pool / "u.npz"),
                "population.clients": 8,
                "trials": 1001,
            },
        ),
        part=Range(1, 1000),
    )
    for read in (lambda: part.bounds, lambda: part.bound(0.01), lambda: part.headline.bounds):
        with pytest.raises(ValueError, match=r"^a part of a run certifies nothing; merge it with the other parts$"):
            read()


def test_all_but_one_trial_is_a_part(pool, tmp_path):
    """An early look, however late, has no bound."""
    play(pool, tmp_path / "early", part=(0, TRIALS - 1))
    assert summary(tmp_path / "early")["bounds"] == []


def test_all_trials_as_a_range_are_the_run(pool, runs, tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "draw", lambda *_: None)
    play(pool, tmp_path / "all", part=(0, TRIALS))
    assert summary(tmp_path / "all")["bounds"] == summary(runs.home / "whole")["bounds"]


# Ranges


@pytest.mark.parametrize(
    "text",
    ["", ":", "5", "0:", ":5", "0:0", "-1:5", "0:-5", "1.0:5", "0:1e3", "a:b", "0:9002", "9001:1", "9000:2", "0:5:5"],
)
def test_ranges_outside_the_planned_trials_are_refused(text, pool, tmp_path):
    answer = ask("run", f"--trials={TRIALS}", f"--range={text}", "--out", tmp_path / "out")
    assert answer.code == 2 and answer.out == "" and not list(tmp_path.iterdir())
    expected = (
        f"jaxaudit: --range is {text!r}, allowed is FIRST:COUNT within the 9,001 planned trials, such as 0:4500; "
        "--trials plans how many there are in all\n"
    )
    assert answer.err == expected


def test_a_stored_part_does_not_answer_for_another_range(pool, runs):
    """Asked again for the same range, it is printed; for another, or for all, it is in the way."""
    before = contents(runs.home / "middle")
    play(pool, runs.home / "middle", part=PARTS["middle"])
    for part in ((), ("--range=1000:7776",), ("--range=0:1000",)):
        found = summary(runs.home / "middle")["recipe"]
        pairs = json.dumps(found["population"]["pair"])
        sets = [f"--set=population.{field}" for field in ("kind=arrays", "clients=8", f"pair={pairs}")]
        where = f"--set=population.path='{found['population']['path']}'"
        answer = ask("run", *sets, where, *PLAN, f"--trials={TRIALS}", *part, "--out", runs.home / "middle")
        assert answer.code == 2
        assert answer.err == f"jaxaudit: {runs.home}/middle holds trials of another --range; choose another --out\n"
    assert contents(runs.home / "middle") == before
