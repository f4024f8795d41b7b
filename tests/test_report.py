"""What is printed and drawn claims no more than was certified, and says what it is about."""

import json
from dataclasses import replace
from io import StringIO

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console

import jaxaudit as ja
from jaxaudit import plots, report, tables

CURVES = (plots.roc, plots.tradeoff_curve, plots.privacy)
FIGURES = ("roc", "tradeoff", "privacy", "scores", "spectrum")
ROW = {
    "delta": 1e-3,
    "epsilon_lower": 3.25,
    "epsilon_ceiling": 5.5,
    "epsilon_predicted": 4.125,
    "epsilon_upper": None,
    "method": "pc-cp",
    "kind": "certified",
    "fpr": 0.001,
    "fnr": 0.25,
    "errors_h0": 2,
    "errors_h1": 500,
    "censored": False,
}


@pytest.fixture(scope="module")
def result():
    """A short audit of a law: eight clients that send points of a sphere."""
    audit = ja.Audit(population=ja.Synthetic(dim=12, clients=8), aggregator=ja.SecureSum(), attack=ja.GaussianLRT())
    return ja.run(audit, trials=2000, deltas=[0.0, 1e-2, 1e-3])


@pytest.fixture(scope="module")
def run(result):
    return report.to_run(result)


@pytest.fixture
def axes():
    figure, axes = plt.subplots(2, 1)
    yield axes
    plt.close(figure)


def changed(run, **summary):
    """A run of one cell, with another summary."""
    (cell,) = run.cells
    return replace(run, summary=run.summary | summary, cells=(replace(cell, summary=cell.summary | summary),))


def printed(*what):
    console = Console(file=StringIO(), width=110)
    for each in what:
        console.print(each)
    return console.file.getvalue()


def shown(run):
    console = Console(file=StringIO(), width=110)
    tables.show(run, console)
    return " ".join(console.file.getvalue().split())


# The table


@pytest.mark.parametrize("kind, sign", [("certified", "≥"), ("gaussian", "≈"), ("estimate", "≈"), ("", "≈")])
def test_only_certified_values_carry_the_sign(kind, sign):
    text = printed(tables.bound_table([ROW | {"kind": kind}], "title"))
    assert [each for each in "≥≈" if each in text] == [sign]
    assert f"{sign} 3.250" in text


@pytest.mark.parametrize("epsilon, printed_as", [(3.2499, "≥ 3.249"), (0.0006, "≥ 0.000"), (0.0, "≥ 0.000")])
def test_a_certified_value_is_never_rounded_up(epsilon, printed_as):
    assert printed_as in printed(tables.bound_table([ROW | {"epsilon_lower": epsilon}], "title"))


def test_a_row_prints_its_numbers_in_the_order_of_its_columns():
    (line,) = (line for line in printed(tables.bound_table([ROW], "title")).splitlines() if "≥" in line)
    assert line.split() == ["0.001", "≥", "3.250", "4.125", "5.500", "0.001", "0.25", "2", "+", "500"]


@pytest.mark.parametrize("censored, mark", [(True, "3.250*"), (False, "3.250 ")])
def test_a_star_stands_where_no_rare_error_was_seen_and_nowhere_else(censored, mark):
    text = printed(tables.bound_table([ROW | {"censored": censored}], "title"))
    assert mark in text and ("*" in text) == censored


@pytest.mark.parametrize("rows", ["bounds", "off_span"])
def test_a_star_is_explained_in_whatever_table_it_stands(run, rows):
    rest = {"bounds": [ROW], "off_span": []}
    text = shown(changed(run, **rest | {rows: [ROW | {"censored": True}]}))
    assert "3.250*" in text and "* No error of the rarer kind was seen" in text


def test_nothing_is_explained_where_no_star_stands(run):
    assert "No error of the rarer kind" not in shown(changed(run, bounds=[ROW], off_span=[]))


def test_a_missing_prediction_is_a_dash():
    assert "–" in printed(tables.bound_table([ROW | {"epsilon_predicted": None}], "title"))


def unpredicted(run):
    """What a run says whose channel no Gaussian model predicts."""
    cells = [
        cell.summary
        | {"distance": None, "bounds": [row | {"epsilon_predicted": None} for row in cell.summary["bounds"]]}
        for cell in run.cells
    ]
    cells = tuple(replace(cell, summary=summary) for cell, summary in zip(run.cells, cells))
    return replace(run, summary=run.summary | cells[0].summary, cells=cells)


@pytest.mark.parametrize("which", ["run", "several"])
def test_where_nothing_is_predicted_no_column_is_for_it(which, request):
    run = request.getfixturevalue(which)
    assert "predicted" in shown(run) and "A prediction is a Gaussian model" in shown(run)
    text = shown(unpredicted(run))
    assert not [words for words in (" predicted ", "prediction", " Δ ") if words in text]
    assert text.count("≥") == shown(run).count("≥")


@pytest.mark.parametrize("name", ["scores[red].npz", "a[/b].npz", ":warning:.npz"])
def test_a_title_is_printed_as_it_is(name):
    assert name in printed(tables.bound_table([ROW], name))


@pytest.mark.parametrize("confidence, words", [(0.95, "95%"), (0.999, "99.9%"), (0.9995, "99.95%")])
def test_confidence_is_printed_as_it_is(confidence, words):
    assert f"with {words} confidence all bounds of the table hold together" in printed(
        tables.method_sentence(["union"], confidence)
    ).replace("\n", " ")


# What a run says


@pytest.mark.parametrize(
    "words",
    [
        "Lower bound on ε of: fixed candidates x, x' (antipodal vectors of the law's support), of which the target "
        "always sends one, + sum of 7 independent",
        "; server knows ",
        "; adjacency: replacement of a client's update; ",
        "conditional on this law, these candidates and this attack.",
        "Not a statement about new clients, other models or record-level DP.",
    ],
)
def test_the_statement_says_what_is_bounded_and_what_is_not(run, words):
    assert words in run.summary["statement"]


@pytest.mark.parametrize("name", ["statement", "verdict", "real", "simulated", "server_knows"])
def test_what_must_be_said_is_said_with_the_table(run, name):
    assert run.summary[name] and run.summary[name] in shown(run)


def test_the_summary_holds_the_certified_bounds(run, result):
    assert [(row["delta"], row["epsilon_lower"], row["kind"]) for row in run.summary["bounds"]] == [
        (bound.delta, bound.epsilon, "certified") for bound in result.bounds
    ]


def test_the_summary_is_strict_json(run):
    assert json.loads(json.dumps(run.summary, allow_nan=False)) == run.summary


def test_a_prediction_that_is_infinite_is_left_out(run):
    assert [row["epsilon_predicted"] is None for row in run.summary["bounds"]] == [True, False, False]


# The figures


@pytest.mark.parametrize("curve", [*CURVES, plots.scores])
def test_a_figure_is_drawn_on_the_given_axes(run, axes, curve):
    open_before = plt.get_fignums()
    assert curve(axes[0], run.headline) is axes[0]
    assert axes[0].lines and not axes[1].lines
    assert plt.get_fignums() == open_before


@pytest.mark.parametrize("curve", [*CURVES, plots.scores])
def test_a_figure_names_its_axes_and_its_curves(run, axes, curve):
    curve(axes[0], run.headline)
    assert axes[0].get_title() and axes[0].get_xlabel() and axes[0].get_ylabel() and axes[0].get_legend()


def test_the_spectrum_is_drawn_on_the_given_axes(run, axes):
    assert plots.noise_spectrum(axes, run.headline) is axes
    assert [len(axis.lines) for axis in axes] == [2, 1]


def test_the_spectrum_names_its_axes(run, axes):
    upper, lower = plots.noise_spectrum(axes, run.headline)
    assert upper.get_title() and upper.get_ylabel() and lower.get_ylabel() and lower.get_xlabel()


@pytest.mark.parametrize("curve", [plots.roc, plots.tradeoff_curve])
def test_the_band_contains_the_measured_curve(run, axes, curve):
    curve(axes[0], run.headline)
    (band,) = axes[0].collections
    edge = band.get_paths()[0].vertices
    (measured,) = (line for line in axes[0].lines if line.get_label() == "measured")
    fpr, rate = (values[np.argsort(measured.get_xdata())] for values in measured.get_data())
    grid = np.unique(edge[:, 0])
    grid = grid[(grid >= fpr[0]) & (grid <= fpr[-1])]
    heights = [edge[edge[:, 0] == x, 1] for x in grid]
    inside = np.interp(grid, fpr, rate)
    assert len(grid) > 100
    assert all(h.min() - 1e-9 <= y <= h.max() + 1e-9 for h, y in zip(heights, inside))


def test_the_certified_curve_stays_below_its_ceiling(run, axes):
    plots.privacy(axes[0], run.headline)
    ceiling, certified = (
        next(line.get_ydata() for line in axes[0].lines if line.get_label().startswith(words))
        for words in ("ceiling", "certified ≥, all")
    )
    assert np.all(certified <= ceiling) and np.all(ceiling[certified > 0] > 0)


def test_the_privacy_figure_marks_the_rows_of_the_table(run, axes):
    plots.privacy(axes[0], run.headline)
    (marks,) = (line for line in axes[0].lines if "the table" in line.get_label())
    rows = [(row["delta"], row["epsilon_lower"]) for row in run.summary["bounds"] if row["delta"] > 0]
    assert list(zip(*marks.get_data())) == rows


def test_a_row_above_all_that_holds_at_all_deltas_at_once_is_drawn(run, axes):
    (row,) = (row for row in run.summary["bounds"] if row["delta"] == 1e-3)
    high = changed(run, bounds=[row | {"epsilon_lower": 40.0, "epsilon_ceiling": 41.0}])
    plots.privacy(axes[0], high.headline)
    (marks,) = (line for line in axes[0].lines if "the table" in line.get_label())
    assert marks.get_ydata() == [40.0] and axes[0].get_ylim()[1] > 41.0


def test_the_densities_of_the_scores_hold_every_score_between_their_edges(run, axes):
    """Area under the curve of each hypothesis, against the errors at both ends: what is neither error is inside."""
    counts = run.headline.histogram
    plots.scores(axes[0], run.headline)
    width = np.diff(counts.thresholds[:2])
    for name, errors, trials in (
        ("H0", counts.errors_h0, counts.trials_h0),
        ("H1", counts.errors_h1, counts.trials_h1),
    ):
        (line,) = (line for line in axes[0].lines if line.get_label() == f"score under {name}")
        assert line.get_ydata().sum() * width == pytest.approx(abs(errors[0] - errors[-1]) / trials)
        assert line.get_ydata().sum() * width > 0.95


@pytest.mark.parametrize("curve", CURVES)
def test_nothing_is_predicted_where_no_model_predicts(run, axes, curve):
    curve(axes[0], changed(run, distance=None).headline)
    assert not [line for line in axes[0].lines if "prediction" in line.get_label()]


@pytest.mark.parametrize("curve", CURVES)
def test_no_figure_rounds_the_confidence_up(run, axes, curve):
    curve(axes[0], changed(run, confidence=0.999).headline)
    texts = [text.get_text() for text in axes[0].get_legend().get_texts()]
    assert not [text for text in texts if "100%" in text]


def test_a_large_distance_can_be_drawn(run, axes):
    plots.privacy(axes[0], changed(run, distance=60.0).headline)
    (predicted,) = (line.get_ydata() for line in axes[0].lines if "prediction" in line.get_label())
    assert np.isfinite(predicted).all() and predicted.min() > 1000


def test_equal_candidates_have_a_spectrum(run, axes):
    spectrum = run.headline.spectrum
    nothing = {name: spectrum[name] * 0 for name in ("energy", "separation", "shift")}
    plots.noise_spectrum(axes, replace(run.headline, spectrum=spectrum | nothing))
    assert np.isfinite(np.concatenate([line.get_ydata() for line in axes[1].lines] or [[0]])).all()


def test_a_spectrum_without_a_separation_is_one_panel(run, tmp_path, monkeypatch):
    """Of a channel that is not linear, the score has no share of a direction."""
    panels = {}
    monkeypatch.setattr(Figure, "savefig", lambda self, path: panels.update({path.name: self.axes}))
    spectrum = {name: run.headline.spectrum[name] for name in ("variance", "energy")}
    plots.draw(replace(run, cells=(replace(run.headline, spectrum=spectrum),)), tmp_path)
    (panel,) = panels["spectrum.png"]
    assert panel.get_xlabel() and panel.get_title() and panel.get_legend() and len(panel.lines) == 2


def test_every_figure_names_trials_seed_device_and_commit(run, tmp_path, monkeypatch):
    captions = {}
    monkeypatch.setattr(Figure, "savefig", lambda self, path: captions.update({path.name: self.get_supxlabel()}))
    provenance = run.summary["provenance"] | {"git": "0123456789abcdef"}
    plots.draw(changed(run, provenance=provenance), tmp_path)
    assert sorted(captions) == sorted(f"{name}{suffix}" for name in FIGURES for suffix in (".png", ".pdf"))
    for words in ("2,000 trials", "seed 0", provenance["device"], "commit 01234567"):
        assert [name for name, caption in captions.items() if words not in caption] == []


def test_drawing_leaves_no_figure_open(run, tmp_path, monkeypatch):
    monkeypatch.setattr(Figure, "savefig", lambda self, path: None)
    open_before = plt.get_fignums()
    plots.draw(run, tmp_path)
    assert plt.get_fignums() == open_before


# Several cells.


@pytest.fixture(scope="module")
def several():
    """Two laws' points in two cohorts, at four deltas."""
    audit = ja.Audit(
        population=ja.Synthetic(dim=12, clients=[8, 4], pair=["antipodal", "zeroed"]),
        aggregator=ja.SecureSum(),
        attack=ja.GaussianLRT(),
    )
    return report.to_run(ja.run(audit, trials=2000, deltas=[0.0, 1e-2, 1e-3, 1e-4]))


def test_every_cell_is_named_in_a_narrow_terminal(several):
    text = printed(tables.cell_table([cell.summary for cell in several.cells], "title"))
    assert all(f"{pair}-{clients} " in text for pair in ("antipodal", "zeroed") for clients in (8, 4))
    assert text.count("≥") == 16 and "…" not in text


@pytest.mark.parametrize("predicted", [True, False])
def test_the_figure_of_cells_names_a_prediction_where_one_is_drawn(several, axes, predicted):
    plots.cells(axes[0], several if predicted else unpredicted(several))
    labels = [text.get_text() for text in axes[0].get_legend().get_texts()]
    assert ("Gaussian prediction, no bound" in labels) == predicted


def test_the_words_of_one_cell_are_not_taken_for_those_of_all(several):
    text = shown(several)
    assert "Statement of antipodal-8: Lower bound" in text and "Verdict of antipodal-8:" in text
    assert "zeroed is zero-out of a client's update" in text
    console = Console(file=StringIO(), width=110)
    tables.show(several, console, "zeroed-4")
    alone = " ".join(console.file.getvalue().split())
    assert "sum of 3 independent" in alone and "98.75% confidence all bounds" in alone


def test_figures_of_a_pair_from_a_file_keep_their_names(several, tmp_path):
    head = several.cells[0]
    cells = (replace(head, summary=head.summary | {"name": "pairs/mine.npz-8"}), *several.cells[1:])
    plots.draw(replace(several, cells=cells), tmp_path, "pairs/mine.npz-8")
    assert {path.name for path in tmp_path.glob("*.png")} == {f"pairs-mine.npz-8-{figure}.png" for figure in FIGURES}


def test_rates_of_labelled_trials_are_of_their_own_hypothesis(small):
    """Unequal numbers of trials: each rate is over those played under its hypothesis."""
    result = ja.run(small, trials=2000, deltas=[1e-1], design="labelled")
    counts = result.headline.counts
    assert counts.trials_h0 + counts.trials_h1 == 2000 and counts.trials_h0 != counts.trials_h1
    (row,) = report.to_run(result).headline.summary["bounds"]
    assert row["fpr"] == row["errors_h0"] / counts.trials_h0
    assert row["fnr"] == row["errors_h1"] / counts.trials_h1
