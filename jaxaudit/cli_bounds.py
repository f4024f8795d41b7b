"""The commands that turn scores, counts and stored runs into claims, or plan them: `bound`, `assert`, `plan`."""

import math
from pathlib import Path

import click

from .console import CELL, DATA_DIR, SET, SEVERAL, about_scores, checked_confidence, page, wanted_recipe

_DELTAS = (1e-2, 1e-3, 1e-4, 1e-5)
_TIGHTNESS = (0.8, 0.9, 0.95)
# Below it the p-value of a claim is not told from smaller ones.
_LEAST_LEVEL = 1e-100


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--delta",
    "deltas",
    type=SEVERAL,
    multiple=True,
    help="Repeat for several; their bounds hold together.  [default: 1e-2 to 1e-5, or those of the run]",
)
@click.option(
    "--confidence", type=float, help="That all bounds of all cells hold.  [default: 0.95, or that of the run]"
)
@about_scores
@CELL
@click.option("--estimates", is_flag=True, help="Also print what the counts suggest without certifying it.")
@click.option("--json", "as_json", is_flag=True, help="Print the bounds as JSON, one a line, and nothing else.")
def bound(file, deltas, confidence, design, method, seed, failures, cell, estimates, as_json):
    """Certify your own scores: FILE is an .npz with arrays h0 and h1, a file of counts, or a run folder.

    Larger scores speak for h1. Part of the scores, drawn at random (a twentieth, up to a tenth of few, 20,000 at
    most), chooses the thresholds; the rest certify.

    Counts at thresholds that were fixed beforehand all take part. Their file is an .npz with arrays thresholds,
    errors_h0 (scores of h0 at or above each threshold), errors_h1 (scores of h1 at or below it), trials_h0,
    trials_h1, stream (a name) and design (paired, nested, labelled or independent), or .json as `bounds.to_json` or
    privacy-estimates writes it.
    """
    from . import claim_tables, report, tables
    from .bounds import percent, privacy_curve, to_json
    from .scores import Certifying, estimate_json, estimated

    stored, cells, name, deltas = None, 1, f"{file}", tuple(dict.fromkeys(deltas))
    confidence = checked_confidence(confidence, 0.0)
    if file.is_dir():
        run = _stored(file, design, method, failures)
        if run.exact:
            raise ValueError(
                f"{file} is an exact run and has no counts; `jaxaudit report` prints its bounds, and a run of the "
                "recipe with other deltas, --exact and --out certifies others"
            )
        stored, cells = run.headline if cell is None else run.cell(cell), len(run.cells)
        name = f"{file}, {stored.summary['name']}" if cells > 1 else name
        found, deltas = Certifying(stored.plan, stored.counts), deltas or stored.plan.deltas
        _check_planned(found.plan, deltas, file)
        confidence = confidence or run.summary["confidence"]
    else:
        if cell:
            raise ValueError(f"{file} is no run folder and has no cells; leave --cell out")
        deltas, confidence = deltas or _DELTAS, confidence or 0.95
        found = _made(file, deltas, confidence, design, method, seed, failures)
    # A cell may have been chosen for what it showed, so it has its share of the failure probability, no more.
    share = 1 - (1 - confidence) / cells
    bounds = privacy_curve(found.plan, found.counts, deltas, share)
    also = estimated(bounds, found.counts) if estimates else ()
    if as_json:
        for lines in (map(to_json, bounds), map(estimate_json, also)):
            for line in lines:
                click.echo(line)
        return
    distance = stored and stored.summary["distance"]
    rows = [report.bound_row(one, _predicted(one.delta, distance), found.counts.trials) for one in bounds]
    console, told = page(), distance is not None
    title = f"{name}: {tables.trials_words(found.counts)}, {percent(share)} confidence"
    console.print(tables.bound_table(rows, title, told, console.width))
    if stored:
        tables.say(console, "Statement", stored.summary["statement"])
    how = _how(found, found.counts.design if stored else design, None if stored else seed)
    console.print(tables.method_sentence([found.plan.method], share, predictions=told, **how))
    if also:
        console.print(claim_tables.estimate_table(also, console.width))
        console.print(claim_tables.estimate_sentence(also))


def _made(file, deltas, confidence, design, method, seed, failures):
    """What a file gives to certify with; of scores that seem to be turned round it says so."""
    from .scores import plan_and_counts

    found = plan_and_counts(file, deltas, confidence, design, method, seed, failures)
    if found.reversed:
        click.echo(
            "jaxaudit: on the pilot h0 has the larger scores; larger must speak for h1: negate the scores if they "
            "are losses",
            err=True,
        )
    return found


def _how(found, design, seed):
    """How trials were made and thresholds chosen, in words; `seed` is that of a file of scores."""
    from . import tables

    words = tables.design_words(found.counts, design, seed)
    if any(found.failed):
        words += "; {:,} + {:,} trials without a score count as errors".format(*found.failed)
    return {"design": words, "thresholds": tables.threshold_words(found.plan, seed)}


def _predicted(delta, distance):
    """Epsilon of a Gaussian model, None where it has none."""
    from .bounds import gaussian_epsilon

    predicted = math.inf if distance is None else gaussian_epsilon(delta, distance)
    return predicted if math.isfinite(predicted) else None


def _stored(folder: Path, design, method, failures):
    """A whole run, which knows its own design and method."""
    from . import store

    if design or method:
        raise ValueError(
            f"{folder} is a run folder, whose design and method are stored; leave --design and --method out"
        )
    if failures:
        raise ValueError(f"{folder} is a run folder, which holds counts of finite scores; leave --failures out")
    run = store.read(folder)
    if not run.whole:
        raise ValueError(f"{folder} is a part of a run and certifies nothing by itself; merge all parts first")
    return run


def _check_planned(plan, deltas, folder):
    """Refuse a delta that no event of a plan serves."""
    from .bounds import METHODS

    if METHODS[plan.method].pays == "delta" and max(deltas) > max(plan.deltas):
        raise ValueError(
            f"--delta is {max(deltas):g}, allowed are up to {max(plan.deltas):g}, the largest that {folder} was "
            "planned for; run the recipe again with it and another --seed"
        )


@click.command(name="assert")
@click.argument("file", metavar="FILE_OR_DIR", type=click.Path(path_type=Path))
@click.option("--max-epsilon", type=float, required=True, help="Claimed epsilon.")
@click.option("--delta", type=float, required=True, help="Claimed delta.")
@click.option(
    "--level",
    type=float,
    default=1e-6,
    show_default=True,
    help="Probability, at most, that a true claim is called contradicted; a gate runs often.",
)
@click.option("--confidence", type=float, help="Of the bounds that are shown.  [default: 0.95, or that of the run]")
@about_scores
def assert_(file, max_epsilon, delta, level, confidence, design, method, seed, failures):
    """Test a claim for CI: exit code 1 where the trials contradict that the mechanism is (epsilon, delta)-DP.

    FILE_OR_DIR is what `bound` takes. Every cell of a run is tested, and their p-values are adjusted (Holm). Make the
    claim before the trials. Exit code 0 is no proof of privacy.
    """
    from . import claim_tables, tables
    from .bounds import percent

    for name, value, allowed, good in (
        ("--max-epsilon", max_epsilon, "finite numbers from 0", 0 <= max_epsilon < math.inf),
        ("--delta", delta, "numbers from 0 to below 1", 0 <= delta < 1),
        ("--level", level, f"numbers from {_LEAST_LEVEL:g} to below 1", _LEAST_LEVEL <= level < 1),
    ):
        if not good:
            raise ValueError(f"{name} is {value}, allowed are {allowed}")
    confidence, words = checked_confidence(confidence, 0.0), {}
    if file.is_dir():
        run = _stored(file, design, method, failures)
        confidence = confidence or run.summary["confidence"]
        cells = [cell.summary for cell in run.cells]
        found = [_checked_cell(cell, delta, file) for cell in run.cells]
        if not run.exact:
            words = _how(found[0], run.headline.counts.design, None)
    else:
        run, cells, confidence = None, [{"name": "", "statement": ""}], confidence or 0.95
        # Planned for the test, whose verdict then does not depend on the confidence of what is shown beside it.
        found = [_made(file, [delta], 1 - max(level, 1e-12), design, method, seed, failures)]
        words = _how(found[0], design, seed)
    rows = _judged(run, found, cells, max_epsilon, delta, level, confidence)
    exact, claim = bool(run and run.exact), f"({max_epsilon:g}, {tables.delta_words(delta)})-DP"
    how = "" if exact else f" at level {level:g}"
    how += ": the exact law of the score" if exact else f": {tables.trials_words(found[0].counts)}, "
    how += "" if exact else f"{percent(confidence)} confidence"
    console = page()
    console.print(claim_tables.claim_table(rows, f"{file} against {claim}{how}"))
    console.print(claim_tables.claim_sentence(rows, claim, level, confidence))
    methods = ["exact"] if exact else sorted({one.plan.method for one in found})
    numbers = "A p-value is the least failure probability at which the trials contradict the claim" + (
        "; adjusted (Holm) they hold for all cells." if len(rows) > 1 else "."
    )
    console.print(tables.method_sentence(methods, confidence, len(rows), predictions=False, numbers=numbers, **words))
    worst = max(range(len(rows)), key=lambda n: (rows[n]["contradicted"], -(rows[n]["adjusted"] or 0.0)))
    tables.say(console, "Statement", cells[worst]["statement"], len(rows) > 1 and cells[worst])
    raise SystemExit(int(rows[worst]["contradicted"]))


def _checked_cell(cell, delta, folder):
    """What a cell of a run gives to certify with; None where its law was computed."""
    from .runs import ExactCell
    from .scores import Certifying

    if isinstance(cell, ExactCell):
        return None
    _check_planned(cell.plan, [delta], folder)
    return Certifying(cell.plan, cell.counts)


def _judged(run, found, cells, epsilon, delta, level, confidence):
    """A row for every cell: what is certified at the claimed delta, and the p-value of the claim where trials ran."""
    from .bounds import claim_p_value, epsilon_at, exact_epsilon, holm

    if run and run.exact:
        certified = [exact_epsilon(cell.curve, delta)[0] for cell in run.cells]
        p_values = adjusted = [None] * len(cells)
        verdicts = [one > epsilon for one in certified]
    else:
        share = 1 - (1 - confidence) / len(cells)
        certified = [epsilon_at(one.plan, one.counts, delta, share).epsilon for one in found]
        p_values = [claim_p_value(one.plan, one.counts, epsilon, delta) for one in found]
        adjusted = holm(p_values)
        verdicts = [joint <= level for joint in adjusted]
    names = "cell", "certified", "p_value", "adjusted", "contradicted"
    columns = [cell["name"] for cell in cells], certified, p_values, adjusted, verdicts
    return [{"claimed": epsilon} | dict(zip(names, row)) for row in zip(*columns)]


@click.command()
@click.argument("recipe", default="membership")
@SET
@click.option("--delta", type=float, default=1e-3, show_default=True, help="To certify epsilon at.")
@click.option(
    "--within", type=float, help="Part of the predicted epsilon that may be missing, beside 0.2, 0.1 and 0.05."
)
@click.option(
    "--trials", type=int, help="Certifying trials to say what to expect of.  [default: those of the recipe]"
)
@click.option("--confidence", type=float, help="That all bounds hold.  [default: that of the recipe]")
@CELL
@DATA_DIR
def plan(recipe, overrides, delta, within, trials, confidence, cell, data_dir):
    """Plan an audit: the trials and the time that a wanted tightness needs, from theory and a short timing.

    RECIPE is what `run` takes. It is prepared, and pilot trials are played; no certifying trial is.
    """
    for name, value in (("--delta", delta), ("--within", within)):
        if value is not None and not 0 < value < 1:
            raise ValueError(f"{name} is {value}, allowed are numbers strictly between 0 and 1")
    wanted = wanted_recipe(recipe, overrides, data_dir, trials=trials, confidence=confidence)

    from rich.console import Console

    from . import cache, devices

    devices.prepare(distributed=False)
    cache.keep_compilations()

    from . import claim_tables, forecast, tables
    from .bounds import percent
    from .progress import bars

    with bars() as progress:
        ready = forecast.prepare(wanted, progress)
    parts = sorted({*_TIGHTNESS, *([] if within is None else [1 - within])})
    rows = forecast.expect(ready, delta, parts, cell)
    with Console(stderr=True).status("Timing pilot trials"):
        speed = forecast.trials_per_second(ready)
    console = page()
    title = (
        f"{recipe}, {forecast.words(ready, cell)}: what to expect at δ = {tables.delta_words(delta)} with "
        f"{percent(wanted.confidence)} confidence"
    )
    console.print(claim_tables.plan_table(rows, lambda trials: trials / speed, title))
    console.print(claim_tables.plan_sentence(speed, ready.prepare_s))
