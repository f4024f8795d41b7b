"""The command line: what it writes, what it prints, and that every bad input is refused in one line."""

import gc
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from jaxaudit import config, datasets, plots, runner
from jaxaudit.__main__ import main

SMALL = ("--set=population.clients=8", "--set=population.variants=16", "--set=population.rounds=1", "--trials=2000")
DRAWN = ("roc", "tradeoff", "privacy", "scores", "spectrum")
FIGURES = {f"{name}{suffix}" for name in DRAWN for suffix in (".png", ".pdf")}
# Nothing to train, for what does not depend on the population.
LAW = ("--set=population.kind=synthetic", "--set=population.dim=12", "--set=population.clients=8", "--trials=2000")
ERRORS = {
    "thresholds": np.array([0.5]),
    "errors_h0": np.array([40]),
    "errors_h1": np.array([300]),
    "trials_h0": 2000,
    "trials_h1": 3000,
    "stream": "elsewhere",
    "design": "paired",
}


def ask(*arguments):
    """The command line in this process: exit code, stdout and stderr."""
    out, err = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["jaxaudit", *map(str, arguments)])
        try:
            code = main()
        except SystemExit as exit_:
            code = exit_.code
    return SimpleNamespace(code=code, out=out.getvalue(), err=err.getvalue(), words=" ".join(out.getvalue().split()))


def epsilon(answer):
    """The certified value of a table with one row."""
    assert answer.code == 0, answer.err
    (value,) = re.findall(r"≥ (\d+\.\d{3})", answer.out)
    return float(value)


def contents(folder=Path()):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture(autouse=True)
def desk(tmp_path, monkeypatch):
    """Where the user stands: an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small audit, asked for once: its folder, and what was said."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    answer = ask("run", *SMALL, "--out", folder)
    assert answer.code == 0, answer.err
    return SimpleNamespace(folder=folder, answer=answer)


@pytest.fixture(scope="module")
def summary(finished):
    return json.loads((finished.folder / "summary.json").read_text(encoding="utf-8"))


@pytest.fixture
def again(finished, desk, monkeypatch):
    """A copy of the finished run, on a machine that refuses to run another."""

    def refuse(*_, **__):
        raise AssertionError("a finished run was computed again")

    monkeypatch.setattr(runner, "run_recipe", refuse)
    return Path(shutil.copytree(finished.folder, desk / "small"))


# run


def test_a_run_succeeds(finished):
    assert finished.answer.code == 0


def test_a_run_into_a_pipe_is_silent_on_stderr(finished):
    assert finished.answer.err == ""


def test_a_run_writes_exactly_its_files(finished):
    written = {path.name for path in finished.folder.parent.rglob("*") if path.is_file()}
    assert written == {"recipe.toml", "summary.json", "counts.npz", "spectrum.npz"} | FIGURES


def test_a_run_leaves_nothing_beside_its_folder(finished):
    assert list(finished.folder.parent.iterdir()) == [finished.folder]


@pytest.mark.parametrize("suffix, magic", [(".png", b"\x89PNG\r\n\x1a\n"), (".pdf", b"%PDF-")])
def test_figures_are_what_their_names_say(finished, suffix, magic):
    heads = [path.read_bytes()[: len(magic)] for path in finished.folder.glob(f"*{suffix}")]
    assert heads == [magic] * len(DRAWN)


def test_a_run_prints_what_must_be_said(finished, summary):
    for name in ("statement", "verdict", "real", "simulated", "server_knows"):
        assert summary[name] in finished.answer.words


def test_a_run_prints_every_certified_bound(finished, summary):
    printed = [float(value) for value in re.findall(r"≥ (\d+\.\d{3})", finished.answer.out)]
    rows = summary["bounds"] + summary["off_span"]
    np.testing.assert_allclose(printed, [row["epsilon_lower"] for row in rows], rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "part, keys",
    [
        ((), {"schema", "recipe", "digest", "seed", "trials", "confidence", "design", "adjacency", "statement"}),
        ((), {"range", "fingerprint", "verdict", "auc", "metrics", "pool", "bounds", "timing", "provenance"}),
        (("pool",), {"updates", "clients", "replacement"}),
        (("bounds", 0), {"delta", "epsilon_lower", "epsilon_ceiling", "epsilon_predicted", "epsilon_upper"}),
        (("bounds", 0), {"method", "kind", "threshold", "direction", "fpr", "fnr", "errors_h0", "errors_h1"}),
        (("timing",), {"prepare_s", "compile_s", "trials_s", "trials_per_s"}),
        (("provenance",), {"jaxaudit", "jax", "device", "git", "data_sha256", "flags"}),
    ],
    ids=str,
)
def test_the_summary_holds_what_tools_rely_on(summary, part, keys):
    for key in part:
        summary = summary[key]
    assert keys - set(summary) == set()


def test_the_summary_is_strict_json(finished):
    odd = []
    json.loads((finished.folder / "summary.json").read_bytes(), parse_constant=odd.append)
    assert odd == []  # NaN and Infinity are no JSON


def test_the_summary_is_of_schema_6(summary):
    assert summary["schema"] == 6


def test_the_summary_says_which_trials_were_played(summary):
    assert summary["range"] == [0, 2000] and len(summary["fingerprint"]) == 64


def test_the_verdict_counts_the_updates_of_the_pool(summary):
    (counted,) = re.findall(r"([\d,]+) record", summary["verdict"])
    assert counted == f"{summary['pool']['updates']:,}"


def test_a_span_that_grows_with_every_recording_is_undetermined(summary):
    # claims.md, section 2: rank P - K, for the P updates of K clients whose means are taken off.
    (rank,) = re.findall(r"rank (\d+)", summary["verdict"])
    assert int(rank) == summary["pool"]["updates"] - summary["pool"]["clients"]
    assert summary["verdict_kind"] == "undetermined"


def test_the_stored_recipe_is_the_one_that_was_asked_for(finished, summary):
    asked = dict(config.parse_override(text.removeprefix("--set=").removeprefix("--")) for text in SMALL)
    stored = config.load(str(finished.folder / "recipe.toml"))
    assert stored == config.load("membership", asked) == config.from_mapping(summary["recipe"])


def test_asking_again_prints_the_same_without_computing(finished, again):
    answer = ask("run", *SMALL, "--out", again)
    assert answer.code == 0
    assert answer.out == finished.answer.out.replace(str(finished.folder), str(again))


def test_a_run_folder_is_named_after_recipe_and_digest(again, summary):
    shutil.copytree(again, f"runs/membership-{summary['digest']}")
    assert ask("run", *SMALL).code == 0


def test_a_stored_recipe_is_a_recipe(again):
    assert ask("run", again / "recipe.toml", "--out", again).code == 0


@pytest.mark.parametrize("other", ["--trials=3000", "--delta=1e-3", "--confidence=0.9", "--set=design=labelled"])
def test_going_on_after_a_look_is_refused(again, other):
    answer = ask("run", *SMALL, other, "--out", again)
    assert (answer.code, answer.out) == (2, "")
    assert "voids the confidence" in answer.err and "--seed" in answer.err and "jaxaudit bound" in answer.err


@pytest.mark.parametrize("other", ["--seed=1", "--set=attack.ridge=0.5"])
def test_the_folder_of_another_run_is_refused(again, other):
    before = contents()
    answer = ask("run", *SMALL, other, "--out", again)
    assert (answer.code, answer.err) == (2, f"jaxaudit: {again} holds another run; choose another --out\n")
    assert contents() == before


@pytest.mark.parametrize("what", ["counts.npz", "recipe.toml"])
def test_a_damaged_run_is_not_printed_again(again, what):
    (again / what).write_bytes((again / what).read_bytes()[:-1])
    answer = ask("run", *SMALL, "--out", again)
    assert (answer.code, answer.out) == (2, "") and what in answer.err


INTERRUPTED = """
import sys
from jaxaudit import runner
from jaxaudit.__main__ import main

def interrupt(recipe, *, keep, progress, **rest):
    keep.mkdir()
    progress("certify", 2000)(1000)
    raise KeyboardInterrupt

runner.run_recipe = interrupt
sys.argv = ["jaxaudit", "run", "--out", "run"]
sys.exit(main())
"""


def test_on_a_terminal_what_is_kept_is_said_after_the_bars_are_gone(tmp_path):
    """Said while they are drawn, it would be erased with them."""
    ours, theirs = os.openpty()
    process = subprocess.Popen([sys.executable, "-c", INTERRUPTED], cwd=tmp_path, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    with suppress(OSError):  # the end of a terminal
        while chunk := os.read(ours, 65536):
            said += chunk
    assert process.wait(timeout=60) == 130
    *_, last = said.split(b"\x1b[2K")
    assert b"1,000 of 2,000" in said
    assert b"interrupted; what is done is kept in run.partial, the same command goes on" in last


def test_a_device_without_memory_is_said_in_one_line(desk, monkeypatch):
    def exhausted(*_, **__):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1099511627776 bytes.")

    monkeypatch.setattr(runner, "run_recipe", exhausted)
    answer = ask("run", *SMALL)
    assert answer.code == 2 and answer.err.count("\n") == 1 and "too little memory; use a smaller" in answer.err


def test_an_interrupted_run_leaves_nothing_behind(desk, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run_recipe", interrupt)
    answer = ask("run", *SMALL)
    assert (answer.code, answer.out) == (130, "")
    assert "interrupted; nothing was written" in answer.err and contents() == {}


def test_an_interruption_while_drawing_leaves_only_what_the_same_command_goes_on_from(desk, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda self, path: Path(path).touch())
    with monkeypatch.context() as patch:
        patch.setattr(plots, "noise_spectrum", interrupt)
        answer = ask("run", *LAW, "--out", "law")
    assert answer.code == 130 and {path.parts[0] for path in contents()} == {"law.partial"}
    assert "what is done is kept in law.partial, the same command goes on" in answer.err
    again = ask("run", *LAW, "--out", "law")
    assert again.code == 0 and {path.parts[0] for path in contents()} == {"law"}


# Parts of a run


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A run in two parts, the same run at once, and what was said of each."""
    folder = tmp_path_factory.mktemp("parts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", lambda self, path: Path(path).touch())
        said = {
            "first": ask("run", *LAW, "--range=0:900", "--out", folder / "first"),
            "second": ask("run", *LAW, "--range=900:1100", "--out", folder / "second"),
            "whole": ask("run", *LAW, "--out", folder / "whole"),
            "merged": ask("merge", folder / "second", folder / "first", "--out", folder / "merged"),
        }
    assert {answer.code for answer in said.values()} == {0}, said
    return SimpleNamespace(folder=folder, **said)


def test_parts_of_a_run_become_the_run(parts):
    merged, whole = (json.loads((parts.folder / name / "summary.json").read_text()) for name in ("merged", "whole"))
    assert {name for name in whole if merged[name] != whole[name]} <= {"timing", "provenance", "sha256"}
    with np.load(parts.folder / "merged/counts.npz") as one, np.load(parts.folder / "whole/counts.npz") as other:
        assert one.files == other.files
        assert all(np.array_equal(one[name], other[name]) for name in one.files)


def test_a_part_of_a_run_says_that_it_certifies_nothing(parts):
    for answer, trials in ((parts.first, "0 to 899"), (parts.second, "900 to 1,999")):
        assert f"trials {trials} of 2,000. It certifies nothing by itself" in answer.words and "≥" not in answer.out
    assert not list(parts.folder.glob("first/*.p[nd][gf]")) and list(parts.folder.glob("merged/*.png"))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("bound", "first"), "first is a part of a run and certifies nothing by itself; merge all parts first"),
        (("assert", "first"), "first is a part of a run and certifies nothing by itself; merge all parts first"),
        (("merge", "first"), "trials 900 to 1,999 of 2,000 are missing; run them with --range 900:1100"),
        (("run", *LAW, "--range=0:901"), "first holds trials of another --range; choose another --out"),
        (("run", *LAW), "first holds trials of another --range; choose another --out"),
    ],
    ids=["bound", "assert", "merge", "another range", "all"],
)
def test_a_part_is_not_taken_for_the_run(parts, monkeypatch, command, words):
    monkeypatch.chdir(parts.folder)
    claim = ("--max-epsilon=1", "--delta=1e-3")
    out = {"bound": (), "assert": claim, "merge": ("--out", "half"), "run": ("--out", "first")}[command[0]]
    answer = ask(*command, *out)
    assert (answer.code, answer.out, answer.err) == (2, "", f"jaxaudit: {words}\n")


def test_a_part_has_a_folder_of_its_own(desk, monkeypatch):
    asked = []

    def refuse(recipe, **options):
        asked.append((options["part"], options["keep"].name))
        raise ValueError("not now")

    monkeypatch.setattr(runner, "run_recipe", refuse)
    for part in ((), ("--range=500:1500",)):
        assert ask("run", *LAW, *part).code == 2
    (whole, usual), (part, own) = asked
    assert whole is None and part == (500, 1500)
    assert own == usual.replace(".partial", "-500-1500.partial")


# report


def test_report_draws_deleted_figures_again(again):
    for name in FIGURES:
        (again / name).unlink()
    before = contents(again)
    assert ask("report", again).code == 0
    after = contents(again)
    assert {path.name for path in after if after[path] != before.get(path)} == FIGURES


def test_report_prints_what_the_run_printed(finished, again, monkeypatch):
    monkeypatch.setattr(plots, "draw", lambda run, folder, cell: None)
    assert ask("report", again).out == finished.answer.out.replace(str(finished.folder), str(again))


def test_an_error_of_the_system_is_told_in_one_line(again, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plots, "draw", full)
    answer = ask("report", again)
    assert (answer.code, answer.out, answer.err) == (2, "", "jaxaudit: [Errno 28] No space left on device\n")


# bound (the rest in test_cli_bounds.py)


@pytest.mark.parametrize("index", range(4))
def test_bound_agrees_with_the_table_of_its_run(finished, summary, index):
    row = summary["bounds"][index]
    value = epsilon(ask("bound", finished.folder, f"--delta={row['delta']!r}"))
    assert value == pytest.approx(row["epsilon_lower"], abs=1e-3)


# list, doctor, help


@pytest.mark.parametrize(
    "names",
    [config.built_in(), datasets.names(), *(list(config.kinds(part)) for part in config.PARTS)],
    ids=["recipes", "datasets", *config.PARTS],
)
def test_list_names_every_part(names):
    answer = ask("list")
    assert answer.code == 0 and set(names) <= set(re.findall(r"[\w/-]+", answer.out))


def test_doctor_finds_nothing_bad():
    answer = ask("doctor")
    assert answer.code == 0 and answer.out.count("ok ") > 10 and "BAD" not in answer.out


def test_doctor_fails_where_a_check_fails(monkeypatch):
    monkeypatch.setattr("jaxaudit.doctor.examine", lambda: iter([("sums", "409.7", False), ("devices", "1", True)]))
    answer = ask("doctor")
    assert answer.code == 1 and answer.out.count("BAD") == 1


@pytest.mark.parametrize(
    "arguments",
    [(), ("--help",), ("-h",), ("run", "-h"), ("merge", "-h"), ("bound", "-h"), ("assert", "-h"), ("plan", "-h")],
)
def test_help_is_no_error(arguments):
    answer = ask(*arguments)
    assert (answer.code, answer.err) == (0, "") and answer.out.startswith("Usage: ")


def test_help_does_not_import_jax():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "jaxaudit", "--help"], capture_output=True, text=True, check=True
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert done.stdout.startswith("Usage: ") and "jaxaudit.cli" in imported and "jax" not in imported


@pytest.mark.parametrize("modules", ["jaxaudit, jaxaudit.cli", "jaxaudit.bounds"])
def test_light_modules_do_not_import_jax(modules):
    probe = f"import sys, {modules}; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0


def test_a_process_exits_with_the_code_of_its_error():
    done = subprocess.run([sys.executable, "-m", "jaxaudit", "audit"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "jaxaudit: No such command 'audit'.\n")


# Bad input: exit code 2, one line on stderr, nothing on stdout, nothing written


def bad_files():
    """Files that no command accepts as they are."""
    h = np.arange(200.0)
    np.savez("good.npz", h0=h, h1=h + 1)
    np.savez("one.npz", h0=h)
    np.savez("few.npz", h0=h[:99], h1=h)
    np.savez("matrix.npz", h0=h[None], h1=h[None])
    np.savez("words.npz", h0=h.astype(str), h1=h)
    np.savez("complex.npz", h0=h * 1j, h1=h)
    np.savez("objects.npz", h0=h.astype(object), h1=h)
    np.savez("updates.npz", updates=np.eye(30))
    np.savez("wide.npz", updates=np.eye(30) * 1e300)
    np.savez("empty.npz", updates=np.zeros((30, 0)))
    np.savez("gap.npz", updates=np.full((30, 2), np.nan))
    np.savez("owners.npz", updates=np.eye(30), client=np.arange(3))
    np.savez("pair.npz", h0=np.ones(3), h1=np.zeros(3))
    np.savez("two_trials.npz", **ERRORS | {"trials_h0": np.array([1, 2])})
    np.savez(
        "no_counts.npz", **ERRORS | {name: ERRORS[name][:0] for name in ("thresholds", "errors_h0", "errors_h1")}
    )
    np.save("one.npy", h)
    for name in ("scores.pkl", "scores.csv"):
        Path(name).write_text("h0,h1\n1,2\n")
    # A number that is no finite one is no JSON, but Python reads it.
    counts = '{"jaxaudit": 1, "record": "counts", "thresholds": %s, "errors_h0": %s, "errors_h1": %s, '
    counts += '"trials_h0": 9, "trials_h1": 9, "stream": "mine", "design": "paired"}'
    Path("no_thresholds.json").write_text(counts % ("[]", "[]", "[]"))
    Path("infinite.json").write_text(counts % ("[Infinity]", "[1]", "[1]"))
    Path("run").mkdir()
    np.savez("run/counts.npz", **ERRORS)
    Path("run", "summary.json").write_text("{}")
    Path("list.json").write_text("[1, 2]")
    Path("plan.json").write_text('{"jaxaudit": 1, "record": "plan"}')
    Path("negative.json").write_text('{"FN": -1, "FP": 0, "TN": 5, "TP": 5}')
    Path("text.npz").write_text("h0,h1\n1,2\n")
    Path("nothing.npz").touch()
    Path("text.safetensors").write_text("h0,h1\n1,2\n")
    with zipfile.ZipFile("archive.npz", "w") as archive:
        archive.writestr("h0", "no array")
        archive.writestr("h1", "no array")
    np.savez_compressed("flipped.npz", h0=h, h1=h + 1)
    data = bytearray(Path("flipped.npz").read_bytes())
    data[60:100] = bytes(40)
    Path("flipped.npz").write_bytes(data)
    Path("halved.npz").write_bytes(Path("good.npz").read_bytes()[:1500])
    Path("arrays.toml").write_text('[population]\nkind = "arrays"\npath = "updates.npz"\nclients = 8\n')
    Path("table.toml").write_text("population = 3\n")
    Path("syntax.toml").write_text("trials = = 3\n")
    Path("latin.toml").write_bytes(b"# caf\xe9\n")
    Path("used").mkdir()
    Path("used", "notes.txt").write_text("mine")
    Path("foreign").mkdir()
    Path("foreign", "summary.json").write_text("{}")


BAD = """
run membershop
run absent.toml
run syntax.toml
run latin.toml
run table.toml
run table.toml --set population.clients=8
run one two
run --trials many
run --trials 999
run --trials 20000000000000
run --seed -1
run --seed 4294967296
run --delta 1
run --delta nan
run --confidence 1
run --confidence nan
run --set
run --set population.clients
run --set =8
run --set population.client=8
run --set population.clients=8.0
run --set population.clients=1
run --set population.learning_rate=inf
run --set population.pair=nearest
run --set population.kind=federate
run --set population.kind={a=1}
run --set population=3 --set population.clients=8
run --set attack.kind=absent_module.Attack
run --set attack.kind=.relative.Attack
run --set attack.kind=jaxaudit.SecureSum
run --set aggregator.kind=jaxaudit.GaussianLRT
run --set deltas=0.001
run --set design=coupled
run --set population.dropout=1
run --set population.cohort=poisson
run --set population.cohort=poisson --set population.pool_clients=100 --set population.clients=[8,9]
run --range 0:0
run --range 1000
run --range 0:1:2
run --range -5:100
run --range 999001:1000
run --range 0:1000001
run --range 0:1000 --exact
run --set server_knows=everything
run --set aggregator.stages=clip
run --set aggregator.stages=[{bound=1.0}]
run --set aggregator.stages=[{kind="clip",norm=0.0}]
run --set aggregator.stages=[{kind="absent.Stage"}]
run --set aggregator.stages.0.norm=1.0
run flower --set aggregator.stages.2.bits=8
run flower --set aggregator.stages.1.rounding=up
run flower --set aggregator.ring_bits=33
run --set cohort.clients=8
run --set population.clients=8 --set population.batch_size=1000
run --set population.clients=100000
run --out used
run --out good.npz
run --out good.npz/run
run --out .
run --out foreign
run --set population.kind=arrays
run arrays.toml --set population.path=absent.npz
run arrays.toml --set population.path=text.csv
run arrays.toml --set population.path=wide.npz
run arrays.toml --set population.path=empty.npz
run arrays.toml --set population.path=gap.npz
run arrays.toml --set population.path=owners.npz
run arrays.toml --set population.path=one.npz
run arrays.toml --set population.pair=absent.npz
run arrays.toml --set population.pair=pair.npz
run arrays.toml --set population.clients=40
bound
bound absent.npz
bound text.csv
bound used
bound foreign
bound one.npz
bound few.npz
bound matrix.npz
bound words.npz
bound complex.npz
bound objects.npz
bound text.npz
bound nothing.npz
bound flipped.npz
bound archive.npz
bound text.safetensors
bound two_trials.npz
bound no_thresholds.json
bound infinite.json
bound one.npy
bound scores.pkl
bound scores.csv
bound good.npz --delta 1e-3,1e-5
bound good.npz --confidence 2
bound good.npz --method pc-cp --design paired
bound gap.npz --failures
bound run/counts.npz
bound no_counts.npz
bound good.npz --delta 1
bound good.npz --delta nan
bound good.npz --delta -0.1
bound good.npz --confidence 0
bound good.npz --confidence nan
bound good.npz --seed -1
bound good.npz --design coupled
bound good.npz --method exact
bound good.npz --method pc-cp --design independent
bound good.npz --method cc-cp --design paired
bound one.npz --failures
bound list.json
bound plan.json
bound negative.json
bound absent.json
assert
assert good.npz
assert good.npz --max-epsilon 1
assert good.npz --delta 1e-3
assert good.npz --max-epsilon -1 --delta 1e-3
assert good.npz --max-epsilon nan --delta 1e-3
assert good.npz --max-epsilon inf --delta 1e-3
assert good.npz --max-epsilon 1 --delta 1
assert good.npz --max-epsilon 1 --delta nan
assert good.npz --max-epsilon 1 --delta 1e-3 --level 0
assert good.npz --max-epsilon 1 --delta 1e-3 --confidence 1
assert good.npz --max-epsilon 1 --delta 1e-3 --method pc-cp
assert used --max-epsilon 1 --delta 1e-3
assert absent --max-epsilon 1 --delta 1e-3
plan membershop
plan --delta 0
plan --delta 1
plan --within 0
plan --within 1
plan --within nan
plan --confidence 1
plan --set population.clients=1
merge
merge absent
merge absent --out merged
merge used --out merged
merge foreign --out merged
merge foreign --out used
report
report absent
report used
report foreign
report good.npz
audit
run --fast
""".strip().splitlines()


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_refused_in_one_line_and_writes_nothing(line):
    bad_files()
    before = contents()
    answer = ask(*line.split())
    assert (answer.code, answer.out) == (2, "")
    assert re.fullmatch(r"jaxaudit: [^\n]+\n", answer.err)
    assert contents() == before


@pytest.mark.parametrize(
    "words, told",
    [
        ("good.npz --delta=1e-3,1e-5", "'1e-3,1e-5' is not a valid float; repeat --delta for several"),
        ("good.npz --confidence=2", "--confidence is 2.0, allowed are numbers strictly between 0 and 1"),
        ("scores.csv", "file scores.csv: got suffix '.csv', allowed are .npz and .safetensors, and .json for counts"),
        ("one.npy", "file one.npy holds one array; write both with np.savez(FILE, h0=…, h1=…)"),
        ("one.npz", "file one.npz: no array 'h1', it holds h0; name them h0 (out) and h1 (in)"),
        ("no_thresholds.json", "file no_thresholds.json: counts at no threshold"),
        ("infinite.json", "file infinite.json: "),
        (
            "coins.npz --design=labelled",
            "file coins.npz: --design labelled means that every trial tossed a fair coin",
        ),
        ("run/counts.npz", "file run/counts.npz is a part of a run folder; give the folder, run"),
    ],
)
def test_a_refusal_says_what_is_allowed_and_what_to_do(words, told):
    bad_files()
    np.savez("coins.npz", h0=np.arange(1000.0), h1=np.arange(200.0))
    answer = ask("bound", *words.split())
    assert answer.code == 2 and told in answer.err


@pytest.mark.parametrize(
    "words, told",
    [
        (
            ['stages=[{kind="fixed_point",bits=8,clip_range=1.0}]', "ring_bits=10"],
            "aggregator.stages.0 (fixed_point): the clip range of 8 clients overflows a ring of 10 bits, allowed are "
            "up to 4 clients; ",
        ),
        (
            ['stages=[{kind="clip",norm=1.0},{kind="fixed_point",bits=12,clip_range=1.0}]', "ring_bits=10"],
            "aggregator.stages.1 (fixed_point): bits is 12, allowed are 2 to ring_bits (10); ",
        ),
        (['stages=[{kind="fixed_point",bits=40}]'], "aggregator.stages.0.bits is 40, allowed are ≥ 0 and ≤ 32 "),
        (['stages=[{kind="gaussian",deviation=-1.0}]'], "aggregator.stages.0.deviation is -1.0, allowed are > 0 "),
        (
            ['stages=[{kind="skellam",deviation=1.0},{kind="fixed_point",bits=8,clip_range=1.0}]'],
            "aggregator.stages.0 (skellam): ",
        ),
        (
            ['stages=[{kind="fixed_point",bits=8,levels=254,clip_range=1.0}]'],
            "aggregator.stages.0 (fixed_point): bits and levels are given, allowed is one of them; ",
        ),
        (['stages=[{kind="top_k",k=13}]'], "aggregator.stages.0 (top_k): k is 13, allowed are 1 to 12 "),
        (['stages=[{kind="random_k",k=13}]'], "aggregator.stages.0 (random_k): k is 13, allowed are 1 to 12 "),
    ],
    ids=[
        "overflow",
        "bits of the ring",
        "bits",
        "negative noise",
        "noise before fixed point",
        "two steps",
        "top k",
        "random k",
    ],
)
def test_stages_that_do_not_fit_are_refused_in_one_line(words, told):
    answer = ask("run", *LAW, *(f"--set=aggregator.{text}" for text in words))
    assert (answer.code, answer.out) == (2, "")
    assert re.fullmatch(r"jaxaudit: [^\n]+\n", answer.err) and answer.err.startswith(f"jaxaudit: {told}")
    assert not contents()


def test_an_impossible_dropout_is_refused_with_its_range():
    answer = ask("run", "--set=population.dropout=1.5")
    assert answer.code == 2
    assert answer.err.startswith("jaxaudit: population.dropout is 1.5, allowed are ≥ 0 and ≤ 0.99 ")


def test_a_defect_is_told_from_a_verdict(monkeypatch):
    def broken():
        raise KeyError("lost")

    monkeypatch.setattr("jaxaudit.doctor.examine", broken)
    answer = ask("doctor")
    assert answer.code == 70 and "Traceback" in answer.err and "KeyError: 'lost'" in answer.err


def test_a_truncated_archive_is_refused_and_closed():
    bad_files()
    answer = ask("bound", "halved.npz")
    gc.collect()  # a file left open becomes a ResourceWarning here, which is an error
    assert answer.code == 2 and "halved.npz: cannot be read" in answer.err


def test_a_part_beside_the_recipe_is_found_by_the_console_script(tmp_path):
    """A console script, unlike `python -m`, does not look into the current folder by itself."""
    (tmp_path / "beside.py").write_text(
        "import jaxaudit as ja\n\n@ja.recipe\nclass Mine(ja.GaussianLRT):\n    kind: str = 'mine'\n"
    )
    code = "import sys; sys.path.remove(''); from jaxaudit.__main__ import main; sys.exit(main())"
    words = ["run", *SMALL, "--set", "attack.kind=beside.Mine", "--set", "attack.ridge=0.5"]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    (summary,) = tmp_path.glob("runs/*/summary.json")
    attack = json.loads(summary.read_text())["recipe"]["attack"]
    assert attack == {"kind": "beside.Mine", "shrinkage": "ridge", "ridge": 0.5, "rank": 0}


def test_list_names_every_field_of_a_kind_with_default_and_range():
    answer = ask("list", "federated")
    assert answer.code == 0
    for word in ("population.clients", "60", "≥ 2 and ≤ 100,000", "cohort size", "population.partition", "dirichlet"):
        assert word in answer.words


def test_list_names_every_field_of_a_stage_by_its_path():
    answer = ask("list", "clip")
    assert answer.code == 0
    for word in ("aggregator.stages.N.norm", "> 0 and ≤ 1e+30", "aggregator.stages.N.order", '"l2"', "l2 linf"):
        assert word in answer.words


def test_list_refuses_a_kind_that_is_not_there():
    answer = ask("list", "nothing")
    assert (answer.code, answer.out) == (2, "")
    assert "kind is 'nothing', allowed are federated" in answer.err


def test_a_stored_run_of_other_data_is_not_printed_as_the_one_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ask("run", *SMALL, "--out=run").code == 0
    changed = datasets.load("digits")._replace(labels=datasets.load("digits").labels[::-1].copy())
    monkeypatch.setattr(datasets, "load", lambda name: changed)
    refused = ask("run", *SMALL, "--out=run")
    assert refused.code == 2 and "other data than the digits found now" in refused.err
