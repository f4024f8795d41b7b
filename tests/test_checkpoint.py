"""What a killed run goes on from: whole or not there, refused where it is not this run's, and equal to the bit."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from jaxaudit import checkpoint
from jaxaudit.checkpoint import Checkpoint, discard
from jaxaudit.types import Range

PART = Range(500, 4000)
GAPS = np.arange(24).reshape(2, 3, 4) * 10**12  # beyond 32 bits, and beyond what float64 holds of a sum of them
LIMIT_S = 120


@pytest.fixture
def kept(tmp_path):
    return Checkpoint(tmp_path / "run.partial", "this run")


def write(kept, done=1000, gaps=GAPS, part=PART):
    """Keep something, as a count does that comes to its end or is interrupted."""
    with kept.of("certify", part) as (_, keep):
        keep(done, gaps)


def file_of(kept):
    (path,) = kept.folder.iterdir()
    return path


def begun(kept, part=PART):
    with kept.of("certify", part) as (found, _):
        return found


def test_what_was_kept_is_found_again(kept):
    assert begun(kept) is None
    write(kept)
    done, gaps = begun(kept)
    assert done == 1000 and gaps.dtype == np.int64
    np.testing.assert_array_equal(gaps, GAPS)


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(Checkpoint(None, "this run"))
    assert begun(Checkpoint(None, "this run")) is None and not list(tmp_path.iterdir())


def test_a_count_that_kept_nothing_writes_nothing(kept):
    assert begun(kept) is None and not kept.folder.exists()


def test_streams_and_ranges_are_kept_apart(kept):
    write(kept)
    assert begun(kept, Range(500, 4001)) is None and begun(kept, Range(501, 4000)) is None
    with kept.of("off-span", PART) as (found, _):
        assert found is None
    assert begun(kept)[0] == 1000


def test_the_latest_is_kept_when_the_count_is_interrupted(kept):
    with pytest.raises(KeyboardInterrupt), kept.of("certify", PART) as (_, keep):
        for done in (1000, 2000, 3000):
            keep(done, GAPS + done)
        raise KeyboardInterrupt
    done, gaps = begun(kept)
    assert done == 3000
    np.testing.assert_array_equal(gaps, GAPS + 3000)


def test_it_is_written_every_few_seconds_and_not_after_every_block(kept, monkeypatch):
    clock = iter([0.0, 1.0, 4.9, 5.1, 5.1, 5.2, 10.3, 10.3])  # one look at the beginning, one or two for every block
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: next(clock))
    seen = []
    with kept.of("certify", PART) as (_, keep):
        for done in (100, 200, 300, 400, 500):
            keep(done, GAPS)
            seen.append(json.loads(file_of(kept).read_text())["done"] if kept.folder.exists() else None)
    assert seen == [None, None, 300, 300, 500]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_file_before_it(kept, failing, monkeypatch):
    write(kept)
    before = file_of(kept).read_bytes()

    def fail(*_):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, failing, fail)
        with pytest.raises(OSError, match="no space left"):
            write(kept, done=2000)
    assert file_of(kept).read_bytes() == before and begun(kept)[0] == 1000


def swapped(text, old, new):
    assert old in text
    return text.replace(old, new)


DAMAGE = {
    "truncated": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "more trials": lambda text: swapped(text, '"done": 1000', '"done": 1001'),
    "more errors": lambda text: swapped(text, "1000000000000,", "1000000000001,"),
    "another shape": lambda text: swapped(text, "[2, 3, 4]", "[3, 2, 4]"),
    "no digest": lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "sha256"}),
    "a list": lambda text: "[]",
    "a number": lambda text: "7",
    "no text": lambda text: "\udcff",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_that_is_not_as_it_was_written_is_refused(kept, damage):
    write(kept)
    path = file_of(kept)
    path.write_bytes(DAMAGE[damage](path.read_text()).encode(errors="surrogateescape"))
    with pytest.raises(ValueError) as refused:
        begun(kept)
    assert str(refused.value) == f"{path} is not whole; delete {kept.folder} to begin again"


def test_more_trials_than_there_are_is_refused(kept):
    """Written so, not edited: of a range with fewer trials under the same name."""
    write(kept, done=4001)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(kept.folder))}\S+ is not whole; delete "):
        begun(kept)


def test_the_file_of_another_run_is_refused(kept):
    write(kept)
    path = file_of(kept)
    with pytest.raises(ValueError) as refused:
        begun(Checkpoint(kept.folder, "another run"))
    assert str(refused.value).startswith(f"{path} was kept by another run: ")
    assert str(refused.value).endswith(f"delete {kept.folder} to begin again") and "\n" not in str(refused.value)
    assert begun(kept)[0] == 1000


# Processes that are killed

# `python -m jaxaudit` on one core, which keeps what is done ten times a second: long enough to be killed anywhere.
OFTEN = """
import os, sys
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
from jaxaudit import checkpoint
from jaxaudit.__main__ import main
checkpoint._EVERY_S = 0.1
sys.exit(main())
"""
TRIALS = 10_000_000


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with a small pool, and a home for what is compiled."""
    folder = tmp_path_factory.mktemp("desk")
    np.save(folder / "u.npy", np.random.default_rng(0).standard_normal((400, 4)).astype(np.float32))
    return folder


def start(desk, out, *more, script=("-c", OFTEN)):
    package = Path(checkpoint.__file__).parents[1]
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment |= {"JAXAUDIT_CACHE": str(desk / "cache"), "PYTHONPATH": str(package)}
    fields = ("population.kind=arrays", "population.path=u.npy", "population.clients=20")
    sets = [argument for field in fields for argument in ("--set", field)]
    command = [sys.executable, *script, "run", *sets, "--delta=0.01", f"--trials={TRIALS}", f"--out={out}", *more]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=desk, env=environment, **pipes)


def finish(process):
    try:
        out, err = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return SimpleNamespace(code=process.returncode, out=out, err=err)


def done(partial):
    """Trials done so far, by what is kept."""
    return max((json.loads(path.read_text())["done"] for path in partial.glob("certify-*.json")), default=0)


def end(process, partial, how, beyond=0):
    """End a process when it has kept more than so many trials: what it left, and how it ended."""
    until = time.monotonic() + LIMIT_S
    while process.poll() is None and not done(partial) > beyond and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(how)
    answer = finish(process)
    return SimpleNamespace(**vars(answer), done=done(partial), files={path.name for path in partial.glob("[!.]*")})


def summary(folder):
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def killed(desk):
    """One run, killed, told to end, asked for with another plan, and then left alone; and one never interrupted."""
    out, partial = desk / "run", desk / "run.partial"
    story = SimpleNamespace(out=out, partial=partial)
    story.killed = end(start(desk, out), partial, signal.SIGKILL)
    story.out_after_kill = out.exists()
    story.told = end(start(desk, out), partial, signal.SIGTERM, beyond=story.killed.done)
    story.other = finish(start(desk, out, "--confidence=0.9"))
    story.done_before_the_end = done(partial)
    story.finished = finish(start(desk, out))
    story.left = sorted(path.name for path in desk.iterdir())
    story.whole = finish(start(desk, desk / "whole", script=("-m", "jaxaudit")))
    return story


def test_a_killed_run_leaves_what_it_had_done_and_no_run_folder(killed):
    assert killed.killed.code == -signal.SIGKILL
    assert 0 < killed.killed.done < TRIALS and not killed.out_after_kill


def test_a_run_that_is_told_to_end_says_how_it_goes_on(killed):
    assert killed.told.code == 130 and killed.told.out == ""
    expected = f"jaxaudit: interrupted; what is done is kept in {killed.partial}, the same command goes on\n"
    assert killed.told.err == expected


def test_a_run_goes_on_where_it_was(killed):
    """What was done is not played again."""
    assert killed.killed.done < killed.told.done < TRIALS
    assert killed.told.files == {f"certify-0-{TRIALS}.json"}
    timing = summary(killed.out)["timing"]
    assert round(timing["trials_per_s"] * timing["trials_s"]) == TRIALS - killed.told.done


def test_another_plan_does_not_go_on_with_these_counts(killed):
    assert killed.other.code == 2 and killed.other.out == ""
    (line,) = killed.other.err.splitlines()
    assert f"certify-0-{TRIALS}.json was kept by another run" in line
    assert line.endswith(f"delete {killed.partial} to begin again")
    assert killed.done_before_the_end == killed.told.done


def test_an_interrupted_run_ends_with_the_counts_of_one_that_was_not(killed):
    assert killed.finished.code == killed.whole.code == 0, killed.finished.err + killed.whole.err
    with np.load(killed.out / "counts.npz") as one, np.load(killed.out.with_name("whole") / "counts.npz") as other:
        assert one.files == other.files and "histogram/errors_h0" in one.files
        for name in one.files:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)
        assert one["trials_h0"] == TRIALS


def test_it_certifies_the_same(killed):
    one, other = summary(killed.out), summary(killed.out.with_name("whole"))
    for name in ("bounds", "cells", "range", "digest", "fingerprint"):
        assert one[name] == other[name], name
    assert one["bounds"][0]["epsilon_lower"] > 0


def test_after_success_nothing_is_kept(killed):
    assert killed.left == ["cache", "run", "u.npy"]


def test_what_is_kept_of_one_range_is_not_taken_for_another(kept):
    """A copy under another range's name: the trials inside are told by the file, not by its name."""
    write(kept)
    (path,) = kept.folder.glob("*.json")
    first, count = (int(number) for number in path.stem.split("-")[-2:])
    path.rename(path.with_name(f"certify-{first + count}-{count}.json"))
    with pytest.raises(ValueError, match="is not whole; delete"), kept.of("certify", Range(first + count, count)):
        pass


def test_discarding_removes_what_was_kept_and_nothing_else(kept):
    write(kept)
    (kept.folder / "summary.json").write_text("a run folder of somebody's")
    discard(kept.folder)
    assert [path.name for path in kept.folder.iterdir()] == ["summary.json"]
    (kept.folder / "summary.json").unlink()
    discard(kept.folder)
    assert not kept.folder.exists()
