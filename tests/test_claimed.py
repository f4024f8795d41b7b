"""`lower ≤ ε ≤ upper` as a person sees it: what is proved, what is certified, and where both contradict."""

import json
from dataclasses import replace
from io import StringIO

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy.stats import binom

from jaxaudit import plots, report, runs, store, tables
from jaxaudit.accounting import claims
from jaxaudit.bounds import Counts, Event, Plan, claim_p_value, epsilon_at, holm, rounded_down
from jaxaudit.claimed import Claim

TRIALS, DELTAS = 10_000, (0.0, 1e-2, 1e-3)
CLAIM = Claim((0.0, 0.0, 0.0), "a theorem", "replacement moves the sum by at most 2", False)
BROKEN = Claim((0.5, 0.5, 0.5), "a theorem", "replacement moves the sum by at most 2", True)
ROW = {
    "delta": 1e-3,
    "epsilon_lower": 3.25,
    "epsilon_ceiling": 5.5,
    "epsilon_predicted": 4.125,
    "epsilon_upper": 4.0,
    "method": "union",
    "kind": "certified",
    "fpr": 0.001,
    "fnr": 0.25,
    "errors_h0": 2,
    "errors_h1": 500,
    "censored": False,
}


def make_cell(name="worst-8", errors=2000, claim=CLAIM, off_span=None):
    """A cell of one threshold, with equally many errors of both kinds."""
    plan = Plan("union", (Event(0.0, "forward"),), DELTAS, stream="pilot")
    summary = {
        "name": name,
        "pair": name.partition("-")[0],
        "clients": 8,
        "setting": "",
        "options": [],
        "adjacency": "replacement of a client's update",
        "statement": "Lower bound on ε of this.",
        "server_knows": "all else",
        "verdict": "undetermined: words",
        "verdict_kind": "undetermined",
        "distance": 1.683,
        "confidence": 0.95,
        "population": [],
        "population_statement": "",
        "claim": report._claimed(claim),
    }
    counts = made_counts(errors)
    return runs.Cell(summary, plan, counts, counts, None if off_span is None else (plan, made_counts(off_span)), {})


def made_counts(errors, trials=TRIALS):
    one, both = np.array([0.0]), np.array([errors])
    return Counts(one, both, both, trials, trials, stream="certify", design="paired")


def make_run(*cells, part=(0, TRIALS)):
    recipe = {"deltas": list(DELTAS), "attack": {"kind": "gaussian_lrt"}, "population": {"kind": "synthetic"}}
    summary = {
        "schema": store.SCHEMA,
        "recipe": recipe,
        "seed": 0,
        "trials": TRIALS,
        "range": list(part),
        "confidence": 0.95,
        "design": "paired",
        "real": "",
        "simulated": "all",
        "provenance": {"git": None, "device": "cpu", "jaxaudit": "0"},
    }
    return report.judged(runs.Run("", summary, cells or (make_cell(),)))


def verdict(*cells):
    return make_run(*cells).headline.summary["violation"]


def printed(what, width):
    console = Console(file=StringIO(), width=width)
    tables.show(what, console) if isinstance(what, runs.Run) else console.print(what)
    return console.file.getvalue()


def claimed(*epsilons, **changes):
    return replace(CLAIM, epsilons=epsilons, **changes)


# The verdict of the trials


@pytest.mark.parametrize(("epsilon", "errors"), [(0.0, 4700), (0.0, 4900), (0.5, 3500)])
def test_the_p_value_of_a_claim_is_the_binomial_tail(epsilon, errors):
    """Of labelled trials with a positive score, the claim allows no fewer of H0 than 1 / (1 + e^ε) on average."""
    plan = Plan("cc-cp", (Event(0.0, "forward", 0.0),), (0.0,), stream="pilot")
    counts = replace(made_counts(errors), design="labelled")
    (found,) = claims.violations([claims.OnTrial([(0.0, epsilon)], [(plan, counts)], False)])
    tail = binom.cdf(errors, TRIALS, 1 / (1 + np.exp(epsilon)))
    assert found["p_value"] == pytest.approx(tail, rel=1.1e-3) and found["violated"] == (tail <= 1e-6)


def test_separated_scores_refute_perfect_privacy():
    found = verdict(make_cell(errors=2000))
    assert found["violated"] and found["level"] == 1e-6 and found["p_value"] < 1e-100
    assert (found["kind"], verdict(make_cell(claim=replace(CLAIM, assumed=True)))["kind"]) == (
        "implementation",
        "assumption",
    )


def test_what_was_broken_is_said():
    words = [verdict(make_cell(claim=replace(CLAIM, assumed=assumed)))["words"] for assumed in (False, True)]
    assert words[0].startswith("The implementation contradicts the claim: ")
    assert words[1].startswith("An assumption of the claim is broken: ")
    assert all("speak against ε ≤ 0.000 at δ = 0 (p = " in each and ", level 1e-6)" in each for each in words)


def test_a_true_claim_stands():
    """Randomized response with odds of e is tight at ε = 1. False-alarm rate: 1e-6, by the guarantee of the level."""
    errors = int(np.random.default_rng(6).binomial(TRIALS, 1 / (1 + np.e)))
    found = verdict(make_cell(errors=errors, claim=claimed(1.0, 1.0, 1.0)))
    assert not found["violated"] and found["kind"] is None
    assert found["words"].startswith("No contradiction of the claim was found (smallest p-value ")
    assert found["words"].endswith("; that is no proof of it.")


def test_a_p_value_is_never_rounded_down():
    run = make_run(make_cell(errors=4900, claim=claimed(0.0, np.inf, np.inf)))
    (said,) = (words for _, words, _ in claims.sentences([run.headline.summary]) if "smallest" in words)
    shown, exact = (
        float(said.partition("p-value ")[2].partition(",")[0]),
        run.headline.summary["violation"]["p_value"],
    )
    assert exact <= shown < 1.1 * exact


@settings(max_examples=5)
@given(st.lists(st.tuples(st.integers(3000, 5000), st.floats(0.0, 0.6)), min_size=1, max_size=4))
def test_all_claims_of_a_run_are_adjusted_for_each_other(cells):
    run = make_run(*(make_cell(f"worst-{n}", e, claimed(0.0, eps, eps)) for n, (e, eps) in enumerate(cells)))
    tests = [
        (cell, delta, epsilon)
        for cell, (_, eps) in zip(run.cells, cells)
        for delta, epsilon in zip(DELTAS, (0.0, eps, eps))
    ]
    adjusted = np.reshape(
        holm([claim_p_value(c.plan, c.counts, epsilon, delta) for c, delta, epsilon in tests]), (-1, 3)
    )
    assert [cell.summary["violation"]["p_value"] for cell in run.cells] == adjusted.min(1).tolist()
    # The worst of all stands at the top.
    assert run.summary["violation"]["p_value"] == adjusted.min()


def test_a_claim_is_no_violation_only_because_there_are_many():
    """One p-value between a tenth of the level and the level: refuted alone, not among ten."""
    one = claimed(0.0, np.inf, np.inf)
    errors = next(e for e in range(4700, 4900) if verdict(make_cell(errors=e, claim=one))["p_value"] > 2e-7)
    assert verdict(make_cell(errors=errors, claim=one))["violated"]
    others = [make_cell(f"worst-{n}", 5000, one) for n in range(9, 18)]
    assert not verdict(make_cell(errors=errors, claim=one), *others)["violated"]


def test_a_violation_in_another_cell_stands_at_the_top():
    run = make_run(make_cell(errors=5000), make_cell("worst-9", 2000))
    assert [cell.summary["violation"]["violated"] for cell in run.cells] == [False, True]
    assert run.summary["violation"]["violated"]


def test_the_off_span_score_speaks_against_the_claim_too():
    assert not verdict(make_cell(errors=5000))["violated"]
    assert verdict(make_cell(errors=5000, off_span=0))["violated"]


@pytest.mark.parametrize("claim", [None, claimed(np.inf, np.inf, np.inf)], ids=["none", "infinite"])
def test_where_nothing_is_proved_nothing_is_tested(claim):
    run = make_run(make_cell(claim=claim))
    assert run.summary["violation"] is None
    assert [row["epsilon_upper"] for row in run.summary["bounds"]] == [None] * 3


def test_a_part_has_no_verdict_and_the_merged_run_has():
    part = make_run(part=(0, TRIALS // 2))
    assert part.headline.summary["claim"] and part.headline.summary["violation"] is None
    assert "Violation" not in printed(part, 80) and "Upper bound" not in printed(part, 80)
    merged = report.judged(replace(part, summary=part.summary | {"range": [0, TRIALS]}))
    assert merged.headline.summary["violation"]["violated"]


# What is stored


def test_every_row_has_its_own_upper_bound_and_null_where_it_is_infinite(tmp_path):
    run = make_run(make_cell(claim=claimed(np.inf, 2.5, 3.5), off_span=100))
    store.write(run, tmp_path / "run", lambda run, folder: None)
    found = store.read(tmp_path / "run").headline.summary
    assert found["claim"] == {
        "source": "a theorem",
        "words": "replacement moves the sum by at most 2",
        "assumed": False,
        "epsilons": [None, 2.5, 3.5],
    }
    for rows in (found["bounds"], found["off_span"]):
        assert [(row["delta"], row["epsilon_upper"]) for row in rows] == list(zip(DELTAS, (None, 2.5, 3.5)))
    assert found["violation"] == run.headline.summary["violation"]


def test_a_claim_changes_no_lower_bound():
    (with_claim, without) = (make_run(make_cell(claim=claim)).headline for claim in (CLAIM, None))
    lower = [[row["epsilon_lower"] for row in one.summary["bounds"]] for one in (with_claim, without)]
    assert lower[0] == lower[1] == [epsilon_at(without.plan, without.counts, d, 0.95).epsilon for d in DELTAS]


def test_a_summary_with_claims_is_strict_json():
    summary = make_run(make_cell(claim=claimed(np.inf, np.float64(2.5), 3.5))).summary
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


# The table


@given(st.floats(1e-6, 1e6), st.floats(0.0, 1e3))
def test_both_columns_are_rounded_against_the_claim_and_the_audit(upper, lower):
    shown = claims.columns([ROW | {"epsilon_upper": upper, "epsilon_lower": lower}])
    assert upper <= float(shown["upper"][0]) <= upper + 1.001e-3
    ratio = lower / upper
    assume(ratio < 999)
    assert float(shown["ratio"][0]) <= ratio < float(shown["ratio"][0]) + 0.01001


@pytest.mark.parametrize(
    ("upper", "lower", "columns"),
    [
        (4.0, 3.25, ["4.000", "0.81"]),
        (0.0, 0.0, ["0.000", "–"]),
        (None, 3.25, ["–", "–"]),
        (3.2491, 0.0, ["3.250", "0.00"]),
        (1e-320, 3.25, ["0.001", "> 999"]),
    ],
)
def test_upper_bound_and_ratio_are_printed(upper, lower, columns):
    rows = [ROW | {"epsilon_upper": upper, "epsilon_lower": lower}, ROW]
    shown = claims.columns(rows)
    assert [shown["upper"][0], shown["ratio"][0]] == columns


def test_a_row_prints_its_numbers_in_the_order_of_its_columns():
    (line,) = (line for line in printed(tables.bound_table([ROW], "title"), 110).splitlines() if "≥" in line)
    assert line.split() == [
        "0.001",
        "≥",
        "3.250",
        "4.125",
        "4.000",
        "0.81",
        "5.500",
        "0.001",
        "0.25",
        "2",
        "+",
        "500",
    ]


rows = st.fixed_dictionaries(
    {
        "delta": st.sampled_from([0.0, 1e-2, 2.5e-4, 1e-5]),
        "epsilon_lower": st.floats(0.0, 99.0),
        "epsilon_ceiling": st.floats(0.0, 99.0),
        "epsilon_predicted": st.none() | st.floats(0.0, 999.0),
        "epsilon_upper": st.none() | st.floats(0.0, 9999.0),
        "fpr": st.floats(1e-9, 1.0),
        "fnr": st.floats(1e-9, 1.0),
        "errors_h0": st.integers(0, 10**12),
        "errors_h1": st.integers(0, 10**12),
        "censored": st.booleans(),
    }
)


@pytest.mark.parametrize("width", [60, 80, 120])
@settings(max_examples=40)
@given(
    st.lists(rows, min_size=1, max_size=3),
    st.sampled_from(["worst-8", "antipodal-1000", "pairs/mine.npz-60"]),
    st.booleans(),
)
def test_no_number_is_cut_off(width, numbers, name, assumed):
    # A table without upper bounds is as wide as it was.
    numbers = [ROW, *(ROW | one for one in numbers)]
    cell = {"name": name, "distance": 12.345, "verdict_kind": "for this pool", "claim": {"assumed": assumed}}
    one = tables.bound_table(numbers, "title", width=width, assumed=assumed)
    for table in (one, tables.cell_table([cell | {"bounds": numbers}] * 2, "title", width)):
        text = printed(table, width)
        assert "…" not in text and max(map(len, text.splitlines())) <= width
        for one in numbers:
            assert one["epsilon_upper"] is None or claims.rounded_up(one["epsilon_upper"]) in text
            assert f"≥ {rounded_down(one['epsilon_lower'])}" in text


@pytest.mark.parametrize(("width", "rates", "errors"), [(60, False, False), (70, False, True), (80, True, True)])
def test_what_is_proved_stays_and_what_it_was_made_of_goes_first(width, rates, errors):
    names = " ".join(printed(tables.bound_table([ROW], "title", width=width), width).split())
    assert "ε certified predicted upper ratio ceiling" in names
    assert ("FPR FNR" in names, "errors" in names) == (rates, errors)


def test_rates_go_before_errors_take_two_lines():
    text = printed(tables.bound_table([ROW | {"errors_h1": 17_320, "fpr": 5e-5}], "title", width=76), 76)
    assert "2 + 17,320" in text and "FPR" not in text


BOUNDS = """\
title
     δ  ε certified  predicted  ceiling    FPR   FNR   errors
 ─────────────────────────────────────────────────────────────
 0.001      ≥ 3.250      4.125    5.500  0.001  0.25  2 + 500
     0      ≥ 3.250          –    5.500  0.001  0.25  2 + 500
"""
NARROW = """\
title
     δ  ε certified  predicted  ceiling   errors
 ────────────────────────────────────────────────
 0.001      ≥ 3.250      4.125    5.500  2 + 500
     0      ≥ 3.250          –    5.500  2 + 500
"""
CELLS = """\
title
 cell          Δ      δ  ε certified  predicted  ceiling  verdict
 ───────────────────────────────────────────────────────────────────────
 worst-8  12.345  0.001      ≥ 3.250      4.125    5.500  for this pool
                      0      ≥ 3.250          –    5.500
 w-9           –  0.001      ≥ 3.250      4.125    5.500  for this pool
                      0      ≥ 3.250          –    5.500
"""


def test_tables_without_claims_are_what_they_were():
    rows = [ROW | {"epsilon_upper": None}, ROW | {"epsilon_upper": None, "delta": 0.0, "epsilon_predicted": None}]
    cells = [
        {"name": name, "distance": distance, "verdict_kind": "for this pool", "bounds": rows}
        for name, distance in (("worst-8", 12.345), ("w-9", None))
    ]
    wide, narrow = (tables.bound_table(rows, "title", width=width) for width in (80, 50))
    for table, width, before in (
        (wide, 80, BOUNDS),
        (narrow, 50, NARROW),
        (tables.cell_table(cells, "title"), 80, CELLS),
    ):
        lines = [line.rstrip() for line in printed(table, width).splitlines()]
        assert [line for line in lines if line] == before.splitlines()


# What is said below it


def test_what_is_proved_and_how_it_stands_is_said_below_the_table():
    text = " ".join(printed(make_run(make_cell(errors=4990, claim=claimed(np.inf, 2.5, 3.5))), 80).split())
    table, _, below = text.partition("Upper bound: replacement moves the sum by at most 2 (a theorem). ")
    assert "2.500" in table and below.startswith(
        "Claim tested: No contradiction of the claim was found (smallest p-value 1, adjusted for all δ and cells)"
    )
    assert "An upper bound is proved of the mechanism" in below and "not of this pair" in below


def test_a_claim_whose_assumption_is_broken_is_no_bound_on_the_system():
    text = " ".join(printed(make_run(make_cell(errors=4990, claim=BROKEN)), 80).split())
    assert "break an assumption of it, so it is no bound on that system. Claim tested: No contradiction" in text


@pytest.mark.parametrize("cells", [1, 2])
def test_a_claim_whose_assumption_is_broken_is_never_called_proved(cells):
    """Neither by the table nor below it, of one cell or of several."""
    cells = [make_cell(f"worst-{n}", 4990, BROKEN) for n in range(cells)]
    text = " ".join(printed(make_run(*cells), 80).split())
    assert " claimed ratio " in text and "Claim of worst-0: " * (len(cells) > 1) in text
    assert "The claimed ε would hold if everyone of the planned cohort had sent its noise, which is not so" in text
    assert not [words for words in ("upper", "Upper bound", "is proved", "Violation") if words in text]


def test_of_two_cells_only_the_one_whose_assumption_holds_has_an_upper_bound():
    text = " ".join(printed(make_run(make_cell(errors=4990), make_cell("worst-9", 4990, BROKEN)), 80).split())
    assert "Upper bound of worst-8: " in text and "Claim of worst-9: " in text and " claimed ratio " in text


def test_every_violated_cell_is_named():
    run = make_run(make_cell(errors=4990), make_cell("worst-9", 2000), make_cell("worst-10", 2100))
    text = " ".join(printed(run, 80).split())
    assert "Upper bound of worst-8: " in text and "No contradiction" not in text
    assert [f"Violation of worst-{n}: The implementation contradicts" in text for n in (8, 9, 10)] == [
        False,
        True,
        True,
    ]


def test_where_no_cell_is_violated_one_sentence_is_for_all():
    text = " ".join(printed(make_run(make_cell(errors=4990), make_cell("worst-9", 4900)), 80).split())
    assert text.count("No contradiction") == text.count("Claim tested: No contradiction of the claim was found") == 1


@pytest.mark.parametrize("claim", [None, claimed(np.inf, np.inf, np.inf)], ids=["none", "infinite"])
def test_nothing_is_said_of_a_verdict_where_nothing_is_proved(claim):
    text = printed(make_run(make_cell(claim=claim)), 80)
    assert not [words for words in ("Violation", "Claim tested", "ratio") if words in text]
    assert ["No finite ε is proved." in " ".join(text.split()), "Upper bound" in text] == [claim is not None] * 2


# The figure


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def proved_line(axes, run):
    plots.privacy(axes, run.headline)
    found = [line for line in axes.lines if line.get_label().startswith("proved upper bound")]
    return found[0] if found else None


def test_the_privacy_figure_shows_the_upper_bounds_as_steps_of_what_is_proved(axes):
    line = proved_line(axes, make_run(make_cell(claim=claimed(np.inf, 2.5, 3.5))))
    assert [*zip(*line.get_data())] == [(1e-3, 3.5), (1e-2, 2.5), (0.5, 2.5)]
    assert line.get_drawstyle() == "steps-post" and line.get_marker() == "s" and line.get_markevery() == slice(2)
    assert line.get_label() == "proved upper bound" and line.get_color() == plots.PROVED


@pytest.mark.parametrize(
    ("epsilons", "label"),
    [((20.0, 15.0), ""), ((1e4, 15.0), ", 1 of 2 above the figure"), ((1e4, 9e3), ", 2 of 2 above the figure")],
)
def test_an_upper_bound_is_in_the_figure_or_said_to_be_above_it(axes, epsilons, label):
    line = proved_line(axes, make_run(make_cell(claim=claimed(np.inf, *epsilons[::-1]))))
    top = axes.get_ylim()[1]
    assert line.get_label() == "proved upper bound" + label
    assert sum(epsilon > top for epsilon in epsilons) == int(label[2:3] or 0) and top < 60


@pytest.mark.parametrize("claim", [None, claimed(0.0, np.inf, np.inf)], ids=["none", "at 0 only"])
def test_no_upper_bound_is_drawn_where_there_is_none(axes, claim):
    assert proved_line(axes, make_run(make_cell(claim=claim))) is None


def test_a_claim_whose_assumption_is_broken_is_not_drawn_as_proved(axes):
    assert proved_line(axes, make_run(make_cell(claim=BROKEN))) is None
    assert "claimed ε, its assumption is broken" in [line.get_label() for line in axes.lines]


def labels_of_cells(axes, *cells):
    """Legend of the figure of cells, whose lines are seen by the test in `axes`."""
    return [text.get_text() for text in plots.cells(axes, make_run(*cells)).get_legend().get_texts()]


def test_the_figure_of_cells_shows_the_upper_bounds(axes):
    labels = labels_of_cells(axes, make_cell(claim=claimed(np.inf, 2.5, 3.5)), make_cell("zeroed-9", claim=None))
    drawn = [line for line in axes.lines if line.get_color() == plots.PROVED and len(line.get_ydata())]
    # The bound at δ = 0.001 of the one cell, and none of the other.
    assert [y for line in drawn for y in line.get_ydata() if np.isfinite(y)] == [3.5]
    assert "proved upper bound" in labels


@pytest.mark.parametrize(
    ("claim", "label"),
    [
        (BROKEN, "claimed ε, its assumption is broken"),
        (claimed(0.0, 1e4, 1e4), "proved upper bound, 2 of 2 above the figure"),
        (None, None),
    ],
    ids=["broken", "far", "none"],
)
def test_the_figure_of_cells_says_what_its_upper_bounds_are(axes, claim, label):
    labels = labels_of_cells(axes, make_cell(claim=claim), make_cell("zeroed-9", claim=claim))
    assert [one for one in labels if "upper" in one or "claimed" in one] == [label] * (label is not None)
