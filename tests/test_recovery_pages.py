"""What is printed, drawn and kept of a recovery is what was recovered: no count is hidden, and none looks right."""

import re
from dataclasses import replace
from io import StringIO

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from rich.console import Console

from jaxaudit import figures, plots, recovery_plots, recovery_tables, runs, store, tables
from jaxaudit.bounds import Counts, Event, Plan

BOUND = {
    "delta": 1e-3,
    "epsilon_lower": 3.25,
    "epsilon_ceiling": 5.5,
    "epsilon_predicted": None,
    "epsilon_upper": None,
    "method": "union",
    "kind": "certified",
    "fpr": 0.001,
    "fnr": 0.25,
    "errors_h0": 2,
    "errors_h1": 500,
    "censored": False,
}
CELL = {
    "name": "histograms-8",
    "pair": "histograms",
    "clients": 8,
    "setting": "",
    "options": [],
    "adjacency": "replacement of a client's update",
    "statement": "Lower bound on ε of this.",
    "server_knows": "the models it sent",
    "verdict": "undetermined: words",
    "verdict_kind": "undetermined",
    "distance": None,
    "confidence": 0.95,
    "population": [],
    "population_statement": "",
    "claim": None,
    "violation": None,
    "bounds": [BOUND],
    "off_span": [],
}
QUIET = {
    "noise_multiplier": 0.0,
    "recipe": False,
    "rounds": 20,
    "clients": 1000,
    "exact": 1.0,
    "exact_lower": 0.99631,
    "exact_upper": 1.0,
    "overlap": 1.0,
    "largest_error": 3.14e-5,
    "clip_known": False,
}
NOISY = QUIET | {
    "noise_multiplier": 0.01,
    "exact": 0.8399,
    "exact_lower": 0.8157,
    "exact_upper": 0.8621,
    "overlap": 0.9978,
    "largest_error": None,
    "clip_known": True,
}
LOUD = NOISY | {"noise_multiplier": 0.5, "recipe": True, "exact": 0.0, "exact_lower": 0.0, "exact_upper": 0.0037}
ROWS = [QUIET, NOISY, LOUD]
# The target's counts are right; of the second client one record is found in another class; the third dropped out.
TRUTH = np.array([[7, 0, 3], [7, 2, 1], [-1, -1, -1], [0, 0, 10]])
FOUND = np.array([[7, 0, 3], [6, 3, 1], [4, 4, 2], [0, 0, 10]])


def make_run(truth=TRUTH, found=FOUND, rows=ROWS, names=None):
    told = {
        "what": "label histograms",
        "adversary": "one batch normalisation",
        "model": "LeNet-BN on MNIST",
        "design": "disjoint channels, 10 of 512 each; condition 1, noise gain 0.316",
        "clients": len(truth),
        "classes": truth.shape[1],
        "batch": [10],
        "null": {"exact": 0.0, "overlap": 0.5309},
        "rows": rows,
        "spread": 0.0,
        "mode": "exact",
        "notes": ["Intervals take the clients of a round for independent."],
    }
    summary = CELL | {
        "schema": store.SCHEMA,
        "recipe": {"attack": {"kind": "labels"}, "population": {"kind": "deceived"}},
        "seed": 3,
        "trials": 1000,
        "range": [0, 1000],
        "design": "paired",
        "real": "gradients of a network on real images",
        "simulated": "all else",
        "provenance": {"git": None, "device": "cpu", "jaxaudit": "0"},
        "recovery": told,
    }
    counts = Counts(np.array([0.0, 1.0]), np.array([2, 1]), np.array([500, 600]), 1000, 1000, "certify", "paired")
    cell = runs.Cell(CELL, Plan("union", (Event(0.0, "forward"),), (1e-3,), "pilot"), counts, counts, None, {})
    arrays = {"truth": truth, "found": found} | ({} if names is None else {"names": np.array(names)})
    return runs.Run("", summary, (cell,), arrays)


def large(clients, classes, wrong=0.3, batch=64):
    """A round in which a share of the clients has one record in a wrong class."""
    rng = np.random.default_rng(clients + classes)
    truth = rng.multinomial(batch, rng.dirichlet(np.full(classes, 0.5), clients))
    found = truth.copy()
    for client in np.flatnonzero(rng.random(clients) < wrong):
        found[client, truth[client].argmax()] -= 1
        found[client, truth[client].argmin()] += 1
    return make_run(truth, found)


def printed(what, width=110):
    console = Console(file=StringIO(), width=width)
    if isinstance(what, runs.Run):
        recovery_tables.show(what, console)
    else:
        console.print(what)
    return console.file.getvalue()


def lines(recovery, width=110):
    """Rows of the table of histograms, as words."""
    table, _ = recovery_tables.histogram_table(recovery, width)
    return [line.split() for line in printed(table, width).splitlines() if re.match(r" +(target|\d+) ", line)]


@pytest.fixture
def panels():
    with plt.rc_context(figures.STYLE):
        figure, panels = plt.subplots(1, 2)
        yield panels
        plt.close(figure)


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draws a run and returns the names of its figures with their captions."""

    def draw(run, name=None):
        captions = {}
        monkeypatch.setattr(Figure, "savefig", lambda self, path: captions.update({path.name: self.get_supxlabel()}))
        plots.draw(run, tmp_path, name)
        return captions

    return draw


# The table of histograms


def test_a_right_count_is_a_number_and_a_wrong_one_has_an_arrow():
    """Of 10 records each: 9 of them are in the right classes where one is not."""
    assert lines(make_run().recovery)[-4:] == [
        ["target", "7", "·", "3", "✓", "1.000"],
        ["1", "7→6", "2→3", "1", "✗", "0.900"],
        ["2", "–", "–", "–", "–", "–"],
        ["3", "·", "·", "10", "✓", "1.000"],
    ]


@settings(max_examples=40, deadline=None)
@given(
    pairs=st.integers(1, 10).flatmap(
        lambda classes: st.lists(
            st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), min_size=classes, max_size=classes),
            min_size=1,
            max_size=12,
        )
    )
)
def test_both_counts_of_every_client_can_be_read_from_the_table(pairs):
    truth, found = np.moveaxis(np.array(pairs), -1, 0)
    rows = lines({"truth": truth, "found": found}, 200)
    cells = [[cell.replace("·", "0").split("→") for cell in row[1:-2]] for row in rows]
    assert np.array([[int(cell[0]) for cell in row] for row in cells]).tolist() == truth.tolist()
    assert np.array([[int(cell[-1]) for cell in row] for row in cells]).tolist() == found.tolist()
    assert [row[-2] == "✓" for row in rows] == (truth == found).all(axis=1).tolist()


@pytest.mark.parametrize("width", [110, 80, 60])
@pytest.mark.parametrize(("clients", "classes"), [(50, 10), (500, 10), (50, 100)])
def test_no_number_is_cut_off_by_the_terminal(clients, classes, width):
    run = large(clients, classes, wrong=1.0, batch=512)
    text, rows = printed(run, width), lines(run.recovery, width)
    shown = recovery_tables.histogram_table(run.recovery, width)[1]
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    assert len(rows) == min(clients, 64) and all(len(row) in (shown + 2, shown + 3) for row in rows)


@pytest.mark.parametrize(("width", "columns"), [(110, 13), (82, 13), (81, 12), (74, 12), (73, 11), (60, 9)])
def test_a_narrow_terminal_leaves_out_the_overlap_and_then_classes(width, columns):
    """Ten columns of `10→11`, of 5 characters and a space; client, exact and overlap take 7, 6 and 8, the edge 1."""
    ten = np.full((3, 10), 10)
    assert {len(row) for row in lines({"truth": ten, "found": ten + 1}, width)} == {columns}


def test_twenty_of_a_hundred_classes_find_room_on_a_page():
    assert {len(row) for row in lines(large(50, 100).recovery)} == {23}


@pytest.mark.parametrize(
    ("clients", "classes", "words"),
    [
        (500, 10, "the first 64 of 500 clients; recovery.npz of the run folder has all."),
        (50, 100, "the first 20 of 100 classes; recovery.npz of the run folder has all. ✓ and overlap are over all"),
        (65, 21, "the first 64 of 65 clients and 20 of 21 classes; recovery.npz"),
    ],
)
def test_what_is_not_shown_is_said(clients, classes, words):
    assert words in " ".join(printed(large(clients, classes, wrong=0)).split())


def test_nothing_is_said_to_be_left_out_where_all_is_shown():
    assert "recovery.npz" not in printed(large(64, 20)) and "✗" not in printed(large(50, 10, wrong=0))


def test_errors_are_counted_among_clients_that_did_not_drop_out():
    text = " ".join(printed(make_run()).split())
    assert "Recovered: 2 of 3 clients exactly; 2 of 9 counts are wrong" in text and "dropped out (–): 1." in text


def test_classes_are_named_where_names_say_more_than_numbers():
    assert "Classes: 0 cat, 1 dog, 2 eel" in printed(make_run(names=["cat", "dog", "eel"]))
    assert "Classes" not in printed(make_run(names=["0", "1", "2"]))


# The table of noise


def test_a_row_of_noise_prints_its_numbers_and_the_recipe_is_marked():
    text = printed(recovery_tables.noise_table(ROWS, {"exact": 0.0, "overlap": 0.5309}))
    rows = [line.split() for line in text.splitlines() if re.match(r" +(\d|pooled)", line)]
    assert rows == [
        ["0", "1.000", "[0.996,", "1.000]", "1.000", "3.1e-05", "20", "1,000"],
        ["0.01†", "0.839", "[0.815,", "0.863]", "0.997", "–", "20", "1,000"],
        ["0.5†", "0.000", "[0.000,", "0.004]", "0.997", "–", "20", "1,000", "←", "recipe"],
        ["pooled", "guess", "0.000", "0.530"],
    ]


@given(share=st.floats(0, 1))
def test_no_share_is_rounded_towards_a_stronger_claim(share):
    down, up = float(recovery_tables._down(share)), float(recovery_tables._up(share))
    assert down <= share + 1e-9 and share - 1e-9 <= up and up - down <= 0.0011
    assert down < 1 or share > 1 - 1e-9


@given(wrong=st.integers(1, 1000))
def test_one_only_where_all_are_exact(wrong):
    assert recovery_tables._down(1 - wrong / 100_000) != "1.000"


@pytest.mark.parametrize("thousandths", [1, 289, 573, 999])
def test_a_share_of_three_decimals_is_printed_as_it_is(thousandths):
    assert recovery_tables._down(thousandths / 1000) == recovery_tables._up(thousandths / 1000)


# The page


@pytest.mark.parametrize(
    "words",
    [
        "label histograms of 4 clients, 3 classes, 10 records each",
        "Adversary: one batch normalisation",
        "The server knows: the models it sent",
        "Model: LeNet-BN on MNIST",
        "noise gain 0.316",
        "Mode: exact",
        "Note: Intervals take the clients",
        "certifies no ε",
        "† is a row whose decoder was told",
    ],
)
def test_what_must_be_said_is_said_with_the_recovery(words):
    assert words in " ".join(printed(make_run()).split())


def test_recovery_stands_before_the_bounds_and_what_is_real_is_said_once():
    run = make_run()
    run.summary["recovery"]["model"] = run.summary["real"]
    console = Console(file=StringIO(), width=110)
    tables.show(run, console)
    text = console.file.getvalue()
    assert 0 < text.index("Recovered: ") < text.index("ε certified") and text.count(run.summary["real"]) == 1


@pytest.mark.parametrize("changes", [{"recovery": None}, {}], ids=["nothing recovered", "one cell asked for"])
def test_no_recovery_is_shown_where_none_is_asked_for(drawn, changes):
    run = replace(make_run(), summary=make_run().summary | changes)
    name = None if changes else "histograms-8"
    console = Console(file=StringIO(), width=110)
    tables.show(run, console, name)
    assert "Recover" not in console.file.getvalue()
    assert not [figure for figure in drawn(run, name) if "recovery" in figure]


# The figures


def test_both_panels_show_the_counts_on_one_scale_and_wrong_ones_are_outlined(panels):
    recovery_plots.picture(panels, make_run())
    images = [ax.images[0] for ax in panels]
    for image, counts in zip(images, (TRUTH, FOUND)):
        shown = image.get_array()
        assert (shown.mask == (TRUTH < 0)).all() and (shown.data == counts)[~shown.mask].all()
    assert {image.get_clim() for image in images} == {(0, 10)}
    assert {image.get_cmap().name for image in images} == {"cividis"}
    (outlines,) = panels[1].collections
    corners = {tuple((path.vertices.min(axis=0) + 0.5).astype(int)) for path in outlines.get_paths()}
    assert corners == {(0, 1), (1, 1)} and not len(outlines.get_facecolor())
    assert panels[1].get_title() == "recovered: 2 of 3 clients exactly"
    labels = [text.get_text() for text in panels[0].figure.legends[0].get_texts()]
    assert labels == ["wrong: 2 of 9 counts", "dropped out: 1"]


def test_wrong_counts_of_rows_too_low_for_an_outline_are_filled(panels):
    run = large(500, 10)
    recovery_plots.picture(panels, run)
    (marks,) = panels[1].collections
    wrong = (run.recovery["truth"] != run.recovery["found"]).sum()
    assert len(marks.get_facecolor()) and len(marks.get_paths()) == wrong > 0


def test_a_recovery_without_errors_marks_nothing(panels):
    recovery_plots.picture(panels, large(50, 10, wrong=0))
    assert not panels[1].collections[0].get_paths() and not panels[1].figure.legends
    assert panels[1].get_title() == "recovered: 50 of 50 clients exactly"
    assert panels[0].figure.axes[-1].get_ylabel() == "records"


def test_shares_intervals_and_the_pooled_guess_are_drawn_where_they_are(panels):
    ax = recovery_plots.against_noise(panels[0], make_run(rows=ROWS[::-1]))
    (bars,) = ax.containers
    np.testing.assert_allclose(bars.lines[0].get_xydata(), [(row["noise_multiplier"], row["exact"]) for row in ROWS])
    (segments,) = (bar.get_segments() for bar in bars.lines[2])
    limits = [(row["exact_lower"], row["exact_upper"]) for row in ROWS]
    np.testing.assert_allclose([segment[:, 1] for segment in segments], limits, atol=1e-12)
    flat = {line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == ":" and len(line.get_ydata())}
    assert flat == {0.0, 0.5309}
    assert "noise of this recipe, 0.5" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_no_noise_stands_left_of_the_least_and_within_the_axis(panels):
    ax = recovery_plots.against_noise(panels[0], make_run())
    left, none, least, most, right = ax.transData.transform([(x, 0) for x in (ax.get_xlim()[0], 0, 0.01, 0.5, 1)])[
        :, 0
    ]
    assert left < none < least - 10 < most and ax.get_xlim()[1] > 0.5 and right > most
    assert recovery_plots.against_noise(panels[1], make_run(rows=ROWS[1:])).get_xscale() == "log"


@pytest.mark.parametrize(("rows", "names"), [(ROWS, {"recovery", "recovery-noise"}), (ROWS[:1], {"recovery"})])
def test_figures_name_their_clients_seed_and_device(drawn, rows, names):
    captions = {name: words for name, words in drawn(make_run(rows=rows)).items() if name.startswith("recovery")}
    assert set(captions) == {f"{name}{suffix}" for name in names for suffix in (".png", ".pdf")}
    for words in ("one batch normalisation; 4 clients, 10 records each", "seed 3", "cpu"):
        assert all(words in caption for caption in captions.values())
    assert "one round without noise" in captions["recovery.png"] and "1,000 trials" not in str(captions.values())


@pytest.mark.parametrize(("clients", "classes"), [(50, 10), (50, 100)])
def test_figures_are_written_without_a_warning_and_closed(tmp_path, clients, classes):
    before = plt.get_fignums()
    with plt.rc_context(figures.STYLE):
        recovery_plots.draw(large(clients, classes), tmp_path)
    assert {path.name for path in tmp_path.iterdir() if path.stat().st_size > 5000} == {
        *("recovery.png", "recovery.pdf", "recovery-noise.png", "recovery-noise.pdf")
    }
    assert plt.get_fignums() == before


# What is kept


def test_a_recovery_is_read_as_it_was_written(tmp_path):
    run = make_run(names=["cat", "dog", "eel"])
    store.write(run, tmp_path / "run", lambda run, folder: None)
    found = store.read(tmp_path / "run")
    assert found.summary["recovery"] == run.summary["recovery"] and "recovery.npz" in found.summary["sha256"]
    assert {name: array.dtype for name, array in found.recovery.items()} == {
        name: array.dtype for name, array in run.recovery.items()
    }
    np.testing.assert_equal(found.recovery, run.recovery)


@pytest.mark.parametrize(
    "damage", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-9])]
)
def test_a_damaged_recovery_is_named_and_refused(tmp_path, damage):
    store.write(make_run(), tmp_path / "run", lambda run, folder: None)
    damage(tmp_path / "run" / "recovery.npz")
    with pytest.raises(ValueError, match=r"recovery\.npz: missing or changed"):
        store.read(tmp_path / "run")


def test_a_run_that_recovers_nothing_has_no_file_of_it(tmp_path):
    store.write(replace(make_run(), recovery={}), tmp_path / "run", lambda run, folder: None)
    assert not (tmp_path / "run" / "recovery.npz").exists() and store.read(tmp_path / "run").recovery == {}
