"""`bound`, `assert` and `plan`: what they claim, what they refuse, and that nothing uncertified looks certified."""

import json
import re
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file
from test_cli import ERRORS, LAW, ask, contents

from jaxaudit import bounds, claim_tables, cli_bounds, forecast, scores, store, tables
from jaxaudit.bounds import planning

SHIFT = 1.0
CONFUSION = '{"FN": 300, "FP": 40, "TN": 1960, "TP": 2700}'  # the errors of ERRORS, as privacy-estimates writes them


def certified(*arguments):
    """The bounds that `bound` certifies, as it writes them."""
    answer = ask("bound", *arguments, "--json")
    assert (answer.code, answer.err) == (0, "")
    return [bounds.from_json(line) for line in answer.out.splitlines()]


def epsilon(*arguments):
    """The one certified epsilon at delta 1e-3."""
    (bound,) = certified(*arguments, "--delta=1e-3")
    return bound.epsilon


@pytest.fixture(autouse=True)
def desk(tmp_path, monkeypatch):
    """Where the user stands: an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files of Gaussian scores at a known distance: independent, and paired in two ways; and counts."""
    folder = tmp_path_factory.mktemp("scores")
    rng = np.random.default_rng(5)
    h0, fresh = rng.standard_normal((2, 20_000))
    h0 = h0.astype(np.float32).astype(np.float64)
    np.savez(folder / "independent.npz", h0=h0, h1=fresh + SHIFT)
    np.savez(folder / "unequal.npz", h0=h0[:12_000], h1=fresh + SHIFT)
    np.savez(folder / "shifted.npz", h0=h0, h1=h0 + SHIFT)
    np.savez(folder / "spread.npz", h0=h0, h1=h0 + SHIFT * rng.uniform(0.5, 1.5, h0.size))
    np.savez(folder / "far_spread.npz", h0=h0 + 1e6, h1=h0 + 1e6 + SHIFT * rng.uniform(0.5, 1.5, h0.size))
    np.savez(folder / "apart.npz", h0=h0, h1=h0 + 100)
    np.savez(folder / "reversed.npz", h0=h0, h1=h0 - SHIFT)
    save_file({"h0": h0, "h1": fresh + SHIFT}, folder / "independent.safetensors")
    np.savez(folder / "counts.npz", **ERRORS)
    (folder / "counts.json").write_text(bounds.to_json(bounds.Counts(**ERRORS)))
    (folder / "confusion.json").write_text(CONFUSION)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory, pool_file):
    """Folders of runs without figures: one of two cells, and an exact one."""
    folder = tmp_path_factory.mktemp("runs")
    pool = ("--set=population.kind=arrays", f"--set=population.path={pool_file}", "--set=population.clients=10")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", lambda self, path: Path(path).touch())
        for arguments in (
            (*LAW, "--set=population.clients=[4, 8]", "--delta=1e-2", "--delta=1e-3", "--out", folder / "both"),
            (*pool, "--exact", "--out", folder / "exact"),
        ):
            answer = ask("run", *arguments)
            assert answer.code == 0, answer.err
    return folder


# bound: which certificate, and what it is worth


@pytest.mark.parametrize("name", ["independent", "shifted", "spread"])
@pytest.mark.parametrize("options", [(), ("--method=band",)], ids=str)
def test_a_bound_on_scores_is_positive_and_below_the_truth(files, name, options):
    # One seed; the bound exceeds the truth in at most 5 % of samples. A spread shift tells no more than the constant.
    assert 0 < epsilon(files / f"{name}.npz", *options) <= bounds.gaussian_epsilon(1e-3, SHIFT)


@pytest.mark.parametrize(
    "name, options, method, design",
    [
        ("independent", (), "union", "paired"),
        ("shifted", (), "union", "paired"),
        ("independent", ("--design=paired",), "union", "paired"),
        ("spread", ("--design=paired",), "union", "paired"),
        ("far_spread", ("--design=paired",), "union", "paired"),
        ("shifted", ("--design=paired",), "union", "paired"),  # what certifies must not choose the certificate
        ("shifted", ("--design=nested",), "pc-cp", "nested"),
        ("shifted", ("--design=nested", "--method=union"), "union", "nested"),
        ("shifted", ("--design=nested", "--method=pc-anytime"), "pc-anytime", "nested"),
        ("unequal", ("--design=independent",), "union", "independent"),
        ("unequal", ("--design=independent", "--method=cc-cp"), "cc-cp", "labelled"),
        ("independent", ("--design=independent",), "cc-cp", "labelled"),
        ("independent", ("--design=independent", "--method=union"), "union", "independent"),
        ("independent", ("--design=independent", "--method=band"), "band", "independent"),
        ("independent", ("--design=independent", "--method=cc-anytime"), "cc-anytime", "labelled"),
        ("independent", ("--design=labelled",), "cc-cp", "labelled"),
    ],
)
def test_the_certificate_is_the_best_that_is_sound(files, name, options, method, design):
    (bound,) = certified(files / f"{name}.npz", "--delta=1e-3", *options)
    assert (bound.method, bound.design, bound.kind) == (method, design, "certified")
    assert 0 < bound.epsilon <= bounds.gaussian_epsilon(1e-3, SHIFT)  # one seed, as above


def test_every_method_can_be_asked_for():
    (option,) = (option for option in cli_bounds.bound.params if option.name == "method")
    assert list(option.type.choices) == sorted(bounds.METHODS, key=option.type.choices.index)


@pytest.mark.parametrize("design", ["nested", "independent"])
def test_a_declared_design_certifies_more(files, design):
    """Where no errors are seen, so that neither chance nor the choice of a direction decides."""
    assert epsilon(files / "apart.npz") < epsilon(files / "apart.npz", f"--design={design}")


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("shifted", (), "(union of two Clopper-Pearson limits; no design is declared"),
        ("shifted", ("--design=nested",), "(paired conditional Clopper-Pearson; pairs of one draw"),
        ("spread", ("--design=paired",), "pairs that may share a draw, and nothing is assumed of how"),
        ("independent", ("--design=labelled",), "trials under the hypothesis that a fair coin of their own chose"),
        ("independent", ("--design=independent", "--seed=3"), "coins of seed 3 made labelled trials of two independ"),
        ("independent", ("--design=independent", "--method=union"), "two independent samples of fixed sizes"),
        ("shifted", ("--design=paired", "--seed=3"), "thresholds were chosen on other trials, split off by seed 3"),
        ("independent", ("--method=band",), "(limits of both error rates at all thresholds at once; no design"),
    ],
)
def test_the_sentence_says_how_trials_were_made(files, name, options, words):
    assert words in ask("bound", files / f"{name}.npz", *options).words


@pytest.mark.parametrize("name, options", [("shifted", ()), ("spread", ("--design=paired",))])
def test_a_paired_certificate_without_its_design_is_refused(files, name, options):
    answer = ask("bound", files / f"{name}.npz", "--method=pc-cp", *options)
    assert answer.code == 2 and "pc-cp needs --design nested" in answer.err and "--method union" in answer.err


@pytest.mark.parametrize("name", ["spread", "far_spread", "independent", "reversed"])
def test_a_nested_design_that_does_not_hold_is_refused(files, name):
    answer = ask("bound", files / f"{name}.npz", "--design=nested")
    assert (answer.code, answer.out) == (2, "") and answer.err.count("\n") == 1
    assert "but --design nested means the same number >= 0 in every trial; use --design paired" in answer.err


def test_scores_that_are_turned_round_are_named(files):
    """Of losses, say; h0 and h1 of one law give five standard errors once in three million seeds."""
    answer = ask("bound", files / "reversed.npz", "--json")
    assert answer.code == 0 and answer.err.count("\n") == 1
    assert "larger must speak for h1: negate the scores if they are losses" in answer.err
    with np.load(files / "independent.npz") as archive:
        np.savez("same.npz", h0=archive["h0"], h1=archive["h1"] - SHIFT)
    assert ask("bound", "same.npz").err == ""


def test_unequal_numbers_of_trials_are_both_named(files):
    assert re.search(r"unequal.npz: 11,\d{3} \+ 19,000 trials, 95%", ask("bound", files / "unequal.npz").words)


def test_a_labelled_certificate_of_pairs_is_refused(files):
    answer = ask("bound", files / "shifted.npz", "--method=cc-cp", "--design=paired")
    assert answer.code == 2 and "cc-cp needs --design labelled or independent" in answer.err


@pytest.mark.parametrize("scale, offset", [(2.0**-200, 0.0), (2.0**900, 0.0), (1.0, 2.0**30)])
@pytest.mark.parametrize("options", [(), ("--method=band",)], ids=str)
def test_the_unit_of_the_scores_does_not_matter(files, scale, offset, options):
    with np.load(files / "independent.npz") as archive:
        np.savez("mine.npz", **{name: archive[name] * scale + offset for name in ("h0", "h1")})
    assert epsilon("mine.npz", *options) == pytest.approx(epsilon(files / "independent.npz", *options), abs=0.1)


def test_unequal_lengths_are_certified_undeclared(files):
    assert 0 < epsilon(files / "unequal.npz") <= bounds.gaussian_epsilon(1e-3, SHIFT)


def test_unequal_lengths_are_refused_when_paired(files):
    answer = ask("bound", files / "unequal.npz", "--design=paired")
    assert answer.code == 2 and "one length, got 12000 and 20000" in answer.err


def test_formats_agree(files):
    assert epsilon(files / "independent.safetensors") == epsilon(files / "independent.npz")


# bound: deltas, tables, JSON


def test_four_deltas_hold_together_unless_others_are_asked_for(files):
    found = certified(files / "independent.npz")
    assert [bound.delta for bound in found] == [1e-2, 1e-3, 1e-4, 1e-5]
    assert [bound.epsilon for bound in found] == sorted(bound.epsilon for bound in found)
    (alone,) = certified(files / "independent.npz", "--delta=1e-3")
    assert found[1].epsilon <= alone.epsilon


@pytest.mark.parametrize("options", [(), ("--design=independent",)], ids=str)
def test_the_table_shows_what_json_says(files, options):
    found = certified(files / "independent.npz", *options)
    rows = [
        line.split() for line in ask("bound", files / "independent.npz", *options).out.splitlines() if "≥" in line
    ]
    expected = [
        [tables.delta_words(bound.delta), "≥", bounds.rounded_down(bound.epsilon), f"{bound.ceiling:.3f}"]
        for bound in found
    ]
    assert [row[:4] for row in rows] == expected


def test_rates_are_errors_by_their_own_trials(files):
    (row,) = (
        line.split() for line in ask("bound", files / "counts.npz", "--delta=0").out.splitlines() if "≥" in line
    )
    assert row[-5:] == ["0.02", "0.1", "40", "+", "300"]


def test_bound_explains_its_stars(files):
    answer = ask("bound", files / "apart.npz")
    assert re.search(r"\d\*", answer.out) and "* No error of the rarer kind" in answer.out


def test_bound_writes_nothing(files):
    ask("bound", files / "independent.npz")
    assert contents() == {}


@pytest.mark.parametrize("name", ["mine[red].npz", "mine :x:.npz", "[/mine].npz"])
def test_file_names_are_printed_as_they_are(files, name):
    Path(name).parent.mkdir(exist_ok=True)
    shutil.copy(files / "counts.npz", name)
    assert name in ask("bound", name).out
    assert name in ask("assert", name, "--max-epsilon=1", "--delta=0").out


# bound: counts


@pytest.mark.parametrize("name", ["counts.npz", "counts.json", "confusion.json"])
def test_counts_give_the_union_bound(files, name):
    limits = bounds.clopper_pearson_upper([40, 300], [2000, 3000], [0.8 * 0.05, 0.2 * 0.05])
    assert epsilon(files / name) == pytest.approx(np.log((1 - 1e-3 - limits[1]) / limits[0]), abs=1e-12)
    assert "thresholds were fixed beforehand" in ask("bound", files / name).words


@pytest.mark.parametrize(
    "options, words",
    [
        (("--design=nested",), "which know their design; leave --design out"),
        (("--method=pc-cp",), "pc-cp is not sound; use --method union"),
        (("--failures",), "leave --failures out"),
    ],
)
def test_counts_have_no_design_to_declare(files, options, words):
    answer = ask("bound", files / "counts.npz", *options)
    assert answer.code == 2 and words in answer.err


# bound: runs


def test_a_run_is_certified_at_its_own_deltas(runs):
    found = certified(runs / "both")
    stored = store.read(runs / "both").headline.summary["bounds"]
    assert [(bound.delta, bound.epsilon) for bound in found] == [
        (row["delta"], pytest.approx(row["epsilon_lower"], abs=1e-12)) for row in stored
    ]
    answer = ask("bound", runs / "both")
    assert "Lower bound on ε of: fixed candidates" in answer.words and "predicted" in answer.words


def test_a_cell_chosen_after_a_look_has_its_share_of_the_failure_probability(runs):
    answer = ask("bound", runs / "both", "--cell=antipodal-8", "--confidence=0.9")
    assert "both, antipodal-8: 2,000 trials, 95% confidence" in answer.words
    refused = ask("bound", runs / "both", "--cell=worst-8")
    assert refused.code == 2 and "allowed are antipodal-4, antipodal-8" in refused.err


@pytest.mark.parametrize(
    "options, words",
    [
        (("--design=paired",), "leave --design and --method out"),
        (("--method=union",), "leave --design and --method out"),
        (("--failures",), "leave --failures out"),
        (("--delta=0.1",), "allowed are up to 0.01, the largest that"),
    ],
)
def test_a_stored_plan_cannot_be_changed(runs, options, words):
    answer = ask("bound", runs / "both", *options)
    assert (answer.code, answer.out) == (2, "") and words in answer.err


# bound: failures


@pytest.mark.parametrize("names, value", [(["h0"], np.nan), (["h1"], np.nan), (["h0", "h1"], np.inf)])
@pytest.mark.parametrize("design", ["paired", "independent"])
def test_a_score_that_is_no_number_is_refused_by_its_index(files, names, value, design):
    failed(files / "shifted.npz", names, [17], value)
    answer = ask("bound", "mine.npz", f"--design={design}")
    assert answer.code == 2 and f"file mine.npz: {names[0]}[17] is {value}, allowed are finite" in answer.err
    assert "--failures counts such trials as errors" in answer.err


def failed(file, names, where, value=np.nan):
    """A copy of a file of scores, mine.npz, in which some are no numbers."""
    with np.load(file) as archive:
        arrays = dict(archive)
    for name in names:
        arrays[name][where] = value
    np.savez("mine.npz", **arrays)


@pytest.mark.parametrize("design, errors", [("paired", (20, 20)), ("independent", (20, 0))])
def test_failures_count_as_errors_where_that_is_asked(files, design, errors):
    failed(files / "apart.npz", ["h0"], slice(0, None, 1000))
    (bound,) = certified("mine.npz", "--failures", "--delta=1e-3", f"--design={design}", "--method=union")
    assert (bound.errors_h0, bound.errors_h1) == errors
    assert bound.trials == 20_000 - round(0.05 * (20_000 - 20)) if design == "paired" else 19_000
    answer = ask("bound", "mine.npz", "--failures", f"--design={design}")
    assert f"{errors[0]} + {errors[1]} trials without a score count as errors" in answer.words


@pytest.mark.parametrize("where, left", [(slice(None), 0), (slice(99, None), 99), (slice(0, -50), 50)])
def test_too_few_scores_beside_failures_are_refused_in_one_line(files, where, left):
    failed(files / "shifted.npz", ["h0"], where)
    answer = ask("bound", "mine.npz", "--failures")
    words = f"{left} trials with a score, allowed are 100 or more under each hypothesis"
    assert (answer.code, answer.err) == (2, f"jaxaudit: file mine.npz: {words}\n")


def test_independent_samples_with_failures_take_the_union(files):
    failed(files / "independent.npz", ["h0"], [5])
    assert certified("mine.npz", "--failures", "--delta=1e-3", "--design=independent")[0].method == "union"


@pytest.mark.parametrize("options", [(), ("--design=paired",), ("--design=nested",)], ids=str)
def test_no_draw_is_on_both_sides_of_the_split_after_failures(files, monkeypatch, options):
    """Left out one by one, failures would shift the two arrays against each other."""
    failed(files / "shifted.npz", ["h0"], slice(0, None, 1000))
    pilots = []

    def watch(pilot, *rest, **named):
        pilots.append(pilot)
        return bounds.best_plan(pilot, *rest, **named)

    monkeypatch.setattr(scores, "best_plan", watch)
    assert epsilon("mine.npz", "--failures", *options) > 0
    (pilot,) = pilots
    assert np.ptp(pilot.h1 - pilot.h0) < 1e-12


# bound: estimates


def test_estimates_are_printed_under_a_heading_of_their_own(files):
    answer = ask("bound", files / "independent.npz", "--estimates")
    above, below = answer.out.split("Not certified: estimates under assumptions")
    assert above == ask("bound", files / "independent.npz").out + "\n"
    assert "≥" not in below and below.count("≈") == 4 * len(bounds.ESTIMATES) and "≈" not in above
    for name, (_, kind, assumption) in bounds.ESTIMATES.items():
        assert all(words in " ".join(below.split()) for words in (name, kind, assumption))


def estimates_of(*arguments):
    """A bound and its estimates, as `bound` writes them."""
    answer = ask("bound", *arguments, "--estimates", "--json")
    bound, *estimates = answer.out.splitlines()
    return bounds.from_json(bound), [json.loads(line) for line in estimates]


def test_estimates_are_those_of_the_counts_at_the_threshold_of_the_bound(files):
    bound, estimates = estimates_of(files / "independent.npz", "--delta=1e-3")
    assert [one["method"] for one in estimates] == list(bounds.ESTIMATES)
    for one in estimates:
        estimate, kind, _ = bounds.ESTIMATES[one["method"]]
        known = estimate(bound.errors_h0, bound.errors_h1, 19_000, 1e-3, 0.05, bound.direction)
        assert one["epsilon"] == pytest.approx(float(known), rel=1e-9)
        assert one["kind"] == kind != "certified" and one["record"] == "estimate"
        assert one["confidence"] == (None if one["method"] == "raw-counts" else 0.95)


def test_an_infinite_estimate_is_said_to_be_infinite(files):
    assert "≈ ∞" in ask("bound", files / "apart.npz", "--estimates").out
    *_, raw = estimates_of(files / "apart.npz", "--delta=0")[1]
    assert (raw["method"], raw["epsilon"], raw["ceiling"]) == ("raw-counts", None, None)


def test_no_number_is_cut_off_on_a_narrow_terminal(files, monkeypatch):
    monkeypatch.setattr(cli_bounds, "page", lambda: Console(width=40))
    narrow = ask("bound", files / "independent.npz", "--estimates").out
    monkeypatch.setattr(cli_bounds, "page", lambda: Console(width=110))
    wide = ask("bound", files / "independent.npz", "--estimates").out
    assert "…" not in narrow and all(len(line) <= 40 for line in narrow.splitlines())
    numbers = re.compile(r"[≥≈] [\d.]+")
    assert sorted(numbers.findall(narrow)) == sorted(numbers.findall(wide))
    row = forecast.Expected("antipodal-200", 12.345, 0.9, True, 110_000_000, 11.234, 15.678)
    rows, console = [row, row._replace(cell="antipodal-400")], Console(width=80, file=StringIO())
    console.print(claim_tables.plan_table(rows, lambda trials: 50.0, "title"))
    assert all(words in console.file.getvalue() for words in ("antipodal-200", "12.345", "90%*", "110M", "15.678"))


# assert


def test_a_false_claim_is_contradicted(files):
    # The truth is 3.139; the p-value of the claim 1.5 is far below the level at this seed.
    answer = ask("assert", files / "independent.npz", "--design=independent", "--max-epsilon=1.5", "--delta=1e-3")
    assert (answer.code, answer.err) == (1, "")
    assert "contradict the claim of (1.5, 0.001)-DP" in answer.words
    assert "the implementation is wrong, or an assumption of the claim is broken (adjacency, sybils" in answer.words
    assert "or the trials are not of the declared design; or, with probability at most 1e-06, it is" in answer.words
    assert "(1.5, 0.001)-DP at level 1e-06: " in answer.words and "(conditional Clopper-Pearson of" in answer.words
    assert "coins of seed 0 made labelled trials" in answer.words and "split off by seed 0" in answer.words


def test_the_verdict_does_not_depend_on_the_confidence_of_what_is_shown(files):
    claim = ("assert", files / "independent.npz", "--max-epsilon=2.4", "--delta=1e-3")
    said = [ask(*claim, f"--confidence={confidence}") for confidence in (0.5, 0.95, 0.999)]
    rows = [line.split() for answer in said for line in answer.out.splitlines() if "≥" in line]
    assert len({row[4] for row in rows}) == 1 and len({row[3] for row in rows}) == 3
    assert len({answer.code for answer in said}) == 1


def test_a_bound_above_a_claim_that_stands_is_explained(files):
    words = "The certified ε exceeds the claim at 95% confidence, but not at level 1e-06, which the verdict asks for"
    for claimed, said in ((3.3, True), (3.6, False)):
        answer = ask("assert", files / "counts.npz", f"--max-epsilon={claimed}", "--delta=1e-3")
        assert answer.code == 0 and (epsilon(files / "counts.npz") > claimed) == said == (words in answer.words)


def test_the_least_p_value_is_a_limit_and_not_a_measurement(files):
    assert "below 1e-150" in ask("assert", files / "apart.npz", "--max-epsilon=0.1", "--delta=1e-3").out


@pytest.mark.parametrize("words", ["assert counts.json --max-epsilon=9 --delta=0", "assert --help"])
def test_a_closed_pipe_is_no_verdict(files, words):
    """The claim stands; whoever reads has gone before the first line."""
    command = [sys.executable, "-m", "jaxaudit", *words.split()]
    with subprocess.Popen(command, cwd=files, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (141, b"")


def test_a_true_claim_is_not_contradicted_and_not_proved(files):
    # The claim is the truth, so this fails for one seed in a million.
    truth = bounds.gaussian_epsilon(1e-3, SHIFT)
    answer = ask("assert", files / "independent.npz", f"--max-epsilon={truth!r}", "--delta=1e-3")
    assert (answer.code, answer.err) == (0, "") and "That is no proof of privacy" in answer.words


def test_a_claim_is_judged_by_its_p_value(files):
    claim = ("assert", files / "counts.npz", "--max-epsilon=3.3", "--delta=1e-3")
    counts = bounds.Counts(**ERRORS)
    known = bounds.claim_p_value(bounds.declared(counts.thresholds, [1e-3]), counts, 3.3, 1e-3)
    assert 1e-6 < known < 0.1
    for level, code in ((1e-6, 0), (known * 0.999, 0), (known * 1.001, 1)):
        assert ask(*claim, f"--level={level!r}").code == code
    (row,) = (line.split() for line in ask(*claim).out.splitlines() if "≥" in line)
    assert row[:4] == ["≤", "3.3", "≥", bounds.rounded_down(epsilon(files / "counts.npz"))]
    assert known <= float(row[4]) <= 1.1 * known  # never rounded down


def test_the_claim_on_a_run_is_tested_in_every_cell(runs):
    cells = store.read(runs / "both").cells
    bound = [bounds.epsilon_at(cell.plan, cell.counts, 1e-3, 0.975).epsilon for cell in cells]
    claim = 0.95 * min(bound)
    p_values = [bounds.claim_p_value(cell.plan, cell.counts, claim, 1e-3) for cell in cells]
    answer = ask("assert", runs / "both", f"--max-epsilon={claim!r}", "--delta=1e-3", "--level=0.1")
    rows = [line.split() for line in answer.out.splitlines() if "≥" in line]
    for row, cell, lower, *known in zip(rows, cells, bound, p_values, bounds.holm(p_values)):
        assert row[0] == cell.summary["name"] and bounds.rounded_down(lower) in row
        assert [float(row[5]), float(row[6])] == pytest.approx(known, rel=0.1)
    assert answer.code == 1 and min(p_values) < 0.05 and "(smallest adjusted p-value at most 0.1)" in answer.words
    stands = ask("assert", runs / "both", f"--max-epsilon={claim!r}", "--delta=1e-3", f"--level={min(p_values)!r}")
    assert stands.code == 0 and "no adjusted p-value is at most" in stands.words
    assert "Statement of antipodal-4: Lower bound" in answer.words and "+ sum of 3 independent" in answer.words


def test_an_exact_run_is_certain(runs):
    truth = store.read(runs / "exact").headline.summary["bounds"][1]["epsilon_lower"]
    false, true = (
        ask("assert", runs / "exact", f"--max-epsilon={claim!r}", "--delta=1e-3")
        for claim in (truth * (1 - 1e-9), truth)
    )
    assert (false.code, true.code) == (1, 0)
    assert "the exact law of the score" in false.words and re.search(r"≥ [\d.]+ +– +contradicted", false.out)
    assert "the computed law of the score contradicts" in false.words and "with certainty" in false.words
    assert "another attack or other candidates may" in true.words
    assert all(word not in false.words + true.words for word in (" level ", "trials", "p-value at", "chance"))


@pytest.mark.parametrize(
    "options, words",
    [
        (("--delta=0.1",), "allowed are up to 0.01, the largest that"),
        (("--delta=1e-3", "--design=paired"), "leave --design and --method out"),
    ],
)
def test_a_claim_that_a_run_cannot_judge_is_refused(runs, options, words):
    answer = ask("assert", runs / "both", "--max-epsilon=1", *options)
    assert (answer.code, answer.out) == (2, "") and words in answer.err


# plan


@pytest.fixture
def quick(monkeypatch):
    """A machine that plays a thousand trials a second."""
    monkeypatch.setattr(forecast, "trials_per_second", lambda ready: 1000.0)


def test_a_plan_says_trials_time_and_ceiling(quick):
    answer = ask("plan", *LAW, "--set=population.clients=40", "--delta=1e-3", "--within=0.4")
    assert (answer.code, answer.err) == (0, "")
    distance, level = float(bounds.sphere_distance(12, 39)), 0.85 * 0.05
    predicted = bounds.gaussian_epsilon(1e-3, distance)
    rows = [re.split(r"  +", line.strip()) for line in answer.out.splitlines() if re.search(r"%[* ] ", line)]
    assert "gaussian_lrt on synthetic updates, pair antipodal: what to expect at δ = 0.001 with 95%" in answer.words
    assert rows[0].pop(0) == f"{predicted:.3f}"
    assert [row[0] for row in rows[:4]] == ["60%", "80%", "90%", "95%"]
    for row, within in zip(rows, (0.4, 0.2, 0.1, 0.05)):
        unit = 10**6 if row[1].endswith("M") else 1
        trials, known = (
            round(float(row[1].strip("M").replace(",", "")) * unit),
            planning.trials_needed(distance, 1e-3, within, "pc-cp", level),
        )
        assert known <= trials <= max(1.1 * known, 1000)
        assert float(row[3]) == pytest.approx(
            planning.expected_epsilon(distance, trials, 1e-3, "pc-cp", level), abs=1e-3
        )
        assert float(row[4]) == pytest.approx(bounds.ceiling(trials, 1e-3, level, "pc-cp"), abs=1e-3)
    *_, planned = rows
    expected = planning.expected_epsilon(distance, 2000, 1e-3, "pc-cp", level)
    assert planned[:3] == [f"{100 * expected / predicted:.0f}%*", "2,000", "2 s"]
    assert "It is a plan, not a bound" in answer.words and "≥" not in answer.out
    assert contents() == {}


def test_cells_and_labels_take_their_share_of_a_plan(quick):
    """Half of the failure probability for each of two cells, half of the trials for each hypothesis."""
    labelled = ("--set=design=labelled", "--trials=100000", "--cell=antipodal-40")
    answer = ask("plan", *LAW, "--set=population.clients=[8, 40]", *labelled)
    distance, level = float(bounds.sphere_distance(12, 39)), 0.85 * 0.025
    expected = planning.expected_epsilon(distance, 50_000, 1e-3, "cc-cp", level)
    (row,) = (line.split() for line in answer.out.splitlines() if "%*" in line)
    assert row[-5:] == [
        "100,000",
        "1.7",
        "min",
        f"{expected:.3f}",
        f"{bounds.ceiling(50_000, 1e-3, level, 'cc-cp'):.3f}",
    ]


@pytest.mark.parametrize(
    "distance, words",
    [
        (np.nan, "is no sum of one number for each update"),
        (np.inf, "no finite epsilon is predicted"),
        (0.0, "epsilon 0"),
    ],
)
def test_what_no_theory_predicts_is_refused_in_one_line(quick, monkeypatch, distance, words):
    prepare = forecast.prepare

    def with_distance(*arguments):
        ready = prepare(*arguments)
        object.__setattr__(ready.game, "distance", np.array([distance]))
        return ready

    monkeypatch.setattr(forecast, "prepare", with_distance)
    answer = ask("plan", *LAW)
    assert (answer.code, answer.out) == (2, "") and words in answer.err
    assert re.fullmatch(r"jaxaudit: [^\n]+\n", answer.err)


def test_the_speed_is_that_of_the_last_and_longest_range(monkeypatch):
    """Of a clock that every trial moves by a millisecond, and compilation by an hour."""
    now, played = [0.0], []

    class Player:
        def __init__(self, *_):
            now[0] += 3600.0

        def count(self, game, stream, trials, thresholds, labelled):
            played.append((stream, trials.first, trials.count))
            now[0] += 0.001 * trials.count + 3600.0 * (len(played) == 1)

    monkeypatch.setattr(forecast, "Player", Player)
    monkeypatch.setattr(forecast.time, "perf_counter", lambda: now[0])
    recipe = SimpleNamespace(seed=0, design="paired")
    speed = forecast.trials_per_second(SimpleNamespace(recipe=recipe, game=None, thresholds=()))
    assert speed == pytest.approx(1000.0)
    assert {stream for stream, *_ in played} == {"pilot"} and played[-1][2] >= 1000
