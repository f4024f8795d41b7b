"""The tables of a run, and the sentences that must be said with them."""

from collections.abc import Sequence

from rich.console import Console, Group
from rich.text import Text

from . import recovery_tables
from .accounting.claims import assumed, columns, make_room, reading, sentences
from .bounds import METHODS, Counts, Plan, percent, rounded_down
from .layout import add_columns, framed, say, titled
from .runs import UNBOUNDED, Run

_CEILING = "The ceiling is the most that this many trials could certify."
# Columns of a terminal below which a table of bounds leaves out the rates, and then the errors, that it was made of.
_RATES, _ERRORS = 60, 45
_METHOD_WORDS = {
    "pc-cp": "paired conditional Clopper-Pearson",
    "cc-cp": "conditional Clopper-Pearson of labelled trials",
    "union": "union of two Clopper-Pearson limits",
    "band": "limits of both error rates at all thresholds at once",
    "pc-anytime": "bets on paired trials, valid whenever they are stopped",
    "cc-anytime": "bets on labelled trials, valid whenever they are stopped",
}
_DESIGN_WORDS = {
    "paired": "pairs that may share a draw, and nothing is assumed of how",
    "nested": "pairs of one draw, whose scores differ by a shift of one sign",
    "labelled": "trials under the hypothesis that a fair coin of their own chose",
    "independent": "two independent samples of fixed sizes",
}


def show(run: Run, console: Console, name: str | None = None) -> None:
    """Print the tables of a run and everything that must be said with them.

    Args:
      run: what is stored.
      console: to print on.
      name: of the one cell to show in full; by default all cells, and the headline's words.
    """
    cells = [cell.summary for cell in run.cells]
    told = cells[0] if name is None else run.cell(name).summary
    several = name is None and len(cells) > 1
    of, predictions = cells if several else [told], any(_predicted(cell["bounds"]) for cell in cells)
    confidence = run.summary["confidence"] if several else told["confidence"]
    if run.summary.get("recovery") and name is None:
        recovery_tables.show(run, console)
    if not run.whole:
        first, count = run.part
        console.print(Text(_title(run.summary, told), "bold"))
        console.print(
            f"A part of the run: trials {first:,} to {first + count - 1:,} of {run.summary['trials']:,}. It "
            "certifies nothing by itself; `jaxaudit merge` adds the parts."
        )
    elif several:
        console.print(cell_table(cells, _title(run.summary), console.width))
    else:
        shape = predictions, console.width, assumed(of)
        console.print(bound_table(told["bounds"], _title(run.summary, told), *shape))
        if told["off_span"]:
            title = "The off-span score of a server that knows the audited pool: a statement of its own, at "
            console.print(bound_table(told["off_span"], title + percent(confidence), *shape))
    for heading, words, cell in sentences(of) if run.whole else ():
        say(console, heading, words, several and cell)
    shown = [cell for cell in of if cell["population"]]
    if shown and run.whole:
        console.print(population_table(shown, confidence))
        say(console, "Statement on the population", shown[0]["population_statement"], several and shown[0])
    say(console, "Statement", told["statement"], several and told)
    say(console, "Verdict", told["verdict"], several and told)
    if several:
        say(console, "The other cells", _others(cells))
    chosen = ", chosen on pilot trials" * (len(told["options"]) > 1)
    say(console, "Setting", told["setting"] and told["setting"] + chosen, several and told)
    say(console, "Real", run.summary["real"])
    say(console, "Simulated", run.summary["simulated"])
    rows = [row for cell in of for row in cell["bounds"]]
    if not rows:
        return
    methods = sorted({row["method"] for row in rows})
    numbers = _CEILING + reading(of)
    console.print(method_sentence(methods, confidence, len(of), predictions=predictions, numbers=numbers))


def _others(cells):
    adjacency = {cell["pair"]: cell["adjacency"] for cell in cells}
    pairs = "; ".join(f"{pair} is {words}" for pair, words in adjacency.items())
    off_span = [cell["name"] for cell in cells if cell["off_span"]]
    certificates = f" Certificates of the off-span score: {', '.join(off_span)}." if off_span else ""
    return f"their statements differ in the pair and in the cohort ({pairs}); --cell NAME prints them.{certificates}"


def cell_table(cells: Sequence[dict], title: str, width: int = 110) -> Group:
    """All cells of a run: a row for every cell and delta; upper bounds displace what finds no room beside them."""
    rows = [row for cell in cells for row in cell["bounds"]]
    first = [cell if row is cell["bounds"][0] else None for cell in cells for row in cell["bounds"]]
    table = {
        "cell": [cell["name"] if cell else "" for cell in first],
        "Δ": [_number(cell["distance"]) if cell else "" for cell in first],
        **_numbers(rows, _predicted(rows), assumed(cells)),
        "verdict": [cell["verdict_kind"] if cell else "" for cell in first],
    }
    if all(cell["distance"] is None for cell in cells):
        del table["Δ"]
    make_room(table, width, ("predicted",), ("Δ",), ("ceiling",), ("ratio",), ("verdict",))
    return _filled(title, rows, table)


def _predicted(rows):
    return any(row["epsilon_predicted"] is not None for row in rows)


def _numbers(rows, predictions, assumed):
    return {
        "δ": [delta_words(row["delta"]) for row in rows],
        "ε certified": [Text(_certified(row), "bold") for row in rows],
        **({"predicted": [_number(row["epsilon_predicted"]) for row in rows]} if predictions else {}),
        **columns(rows, assumed),
        "ceiling": [_number(row["epsilon_ceiling"]) for row in rows],
    }


def _filled(title, rows, table):
    result = framed(rows)
    for name in table:
        result.add_column(name, justify="left" if name in ("cell", "verdict") else "right", no_wrap=name != "errors")
    for row in zip(*table.values()):
        result.add_row(*row)
    return titled(title, result)


def population_table(cells: Sequence[dict], confidence: float) -> Group:
    """What cohorts that share no client certify about the population they come from."""
    title = "On the population: disjoint cohorts as the only trials, a statement of its own, at "
    result = framed([row for cell in cells for row in cell["population"]])
    add_columns(result, left=["cell"], right=["disjoint cohorts", "δ", "ε certified", "ceiling"])
    for cell in cells:
        first = cell["name"], f"{cell['population'][0]['trials']:,}"
        for row in cell["population"]:
            numbers = delta_words(row["delta"]), Text(_certified(row), "bold"), f"{row['epsilon_ceiling']:.3f}"
            result.add_row(*first, *numbers)
            first = ("", "")
    return titled(title + percent(confidence), result)


def bound_table(
    rows: Sequence[dict], title: str, predictions: bool = True, width: int = 110, assumed: bool = False
) -> Group:
    """Bounds as a table: certified values carry the sign ≥, and nothing else does.

    Args:
      rows: as in summary.json.
      title: above the table.
      predictions: whether there is a column for them.
      width: of the terminal. A narrow one shows fewer columns, for no number may be cut off.
      assumed: upper bounds are only claimed, for the system is known to break an assumption of theirs.
    """
    table = _numbers(rows, predictions, assumed)
    table |= {name: [f"{row[name.lower()]:.3g}" for row in rows] for name in ("FPR", "FNR")}
    table["errors"] = [_errors(row) for row in rows]
    make_room(table, width, ("FPR", "FNR"), ("errors",), ("predicted",), ("ratio",), ("ceiling",))
    if not columns(rows) and width < _RATES:
        del table["FPR"], table["FNR"]
        if width < _ERRORS and predictions:
            del table["errors"]
    return _filled(title, rows, table)


def _errors(row):
    return "none sampled" if row["errors_h0"] is None else f"{row['errors_h0']:,} + {row['errors_h1']:,}"


def delta_words(delta: float) -> str:
    """A delta as it is asked for, with an exponent where it is small.

    Example:
      >>> [delta_words(delta) for delta in (0.0, 0.001, 2.5e-4, 1e-5)]
      ['0', '0.001', '2.5e-04', '1e-05']
    """
    if delta == 0 or delta >= 1e-3:
        return f"{delta:g}"
    digits, exponent = f"{delta:.5e}".split("e")
    return f"{digits.rstrip('0').rstrip('.')}e{exponent}"


def trials_words(counts: Counts) -> str:
    """How many trials there were: under each hypothesis, or in all where each was under one."""
    h0, h1 = counts.trials
    if counts.design == "labelled":
        return f"{h0 + h1:,} labelled trials"
    return f"{h0:,} trials" if h0 == h1 else f"{h0:,} + {h1:,} trials"


def design_words(counts: Counts, declared: str | None, seed: int) -> str:
    """How the trials were made: what was `declared`, and the seed of coins that were tossed for it."""
    if declared is None and counts.design == "paired":
        return "no design is declared, so nothing is assumed of how h0[i] and h1[i] depend on each other"
    if declared == "independent" and counts.design == "labelled":
        return f"coins of seed {seed} made labelled trials of two independent samples"
    return _DESIGN_WORDS[counts.design]


def threshold_words(plan: Plan, seed: int | None = None) -> str:
    """Where the thresholds of a plan come from, and the seed of the split; nothing where they do not matter."""
    if METHODS[plan.method].pays == "nothing":
        return ""
    if plan.stream == "declared beforehand":
        return "thresholds were fixed beforehand"
    return "thresholds were chosen on other trials" + ("" if seed is None else f", split off by seed {seed}")


def method_sentence(
    methods: Sequence[str],
    confidence: float,
    cells: int = 1,
    thresholds: str = "thresholds were chosen on other trials",
    design: str = "",
    predictions: bool = True,
    numbers: str = _CEILING,
) -> Text:
    """How the columns of the table are to be read.

    Args:
      methods: of its bounds.
      confidence: that all of them hold.
      cells: that share the failure probability.
      thresholds: where they come from.
      design: how the trials were made.
      predictions: whether the table has some.
      numbers: what its other columns are.
    """
    model = " A prediction is a Gaussian model of the noise, not a bound." * predictions
    title = "How to read it: ", "bold"
    if methods == ["exact"]:
        return Text.assemble(
            title,
            "both error rates were computed, not sampled, and every limit is certain, so all bounds of the table "
            f"hold without a failure probability: for this attack, these draws and this pool.{model}",
        )
    share = f", of which each of the {cells} cells has an equal share" if cells > 1 else ""
    words = " or ".join(_METHOD_WORDS[method] for method in methods)
    how = "; ".join(part for part in (words, design, thresholds) if part)
    together = f"with {percent(confidence)} confidence all bounds of the table hold together"
    return Text.assemble(title, f"{together}{share} ({how}).{model} {numbers}")


def _certified(row):
    sign, mark = "≥" if row["kind"] == "certified" else "≈", "*" if row["censored"] else " "
    return valued(row["epsilon_lower"], sign) + mark


def valued(epsilon: float, sign: str) -> str:
    """An epsilon with its sign, never rounded up."""
    return "no finite ε" if epsilon >= UNBOUNDED else f"{sign} {rounded_down(epsilon)}"


def _number(value):
    return "–" if value is None else f"{value:.3f}"


def _title(summary, told=None) -> str:
    recipe = summary["recipe"]
    pair = f", pair {told['pair']}" if told and told["pair"] else ""
    of = f", {told['clients']:,} clients" if told and isinstance(recipe["population"].get("clients"), list) else ""
    level = percent((told or summary)["confidence"])
    labelled = "labelled " * (summary["design"] == "labelled")
    how = f"{summary['trials']:,} {labelled}trials, {level} confidence"
    how = how if summary["trials"] else "the exact law of the score"
    return (
        f"{recipe['attack']['kind']} on {recipe['population']['kind']} updates{pair}{of}: "
        f"{how}, seed {summary['seed']}"
    )
