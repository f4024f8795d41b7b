"""The commands that turn scores, counts and stored runs into claims, or plan them: `bound`, `assert`, `plan`."""

import math
from pathlib import Path

import click

from .console import CELL, DATA_DIR, SET, page, wanted_recipe

_DELTAS = (1e-2, 1e-3, 1e-4, 1e-5)
_TIGHTNESS = (0.8, 0.9, 0.95)


def _about_scores(command):
    """Options of the commands that take scores or counts."""
    for option in (
        click.option(
            "--failures", is_flag=True, help="Count scores that are not finite as errors, instead of refusing them."
        ),
        click.option(
            "--seed",
            type=click.IntRange(0),
            default=0,
            show_default=True,
            help="Of the split into pilot and certifying scores, and of the coins for independent samples.",
        ),
        click.option(
            "--method",
            # The names of bounds.METHODS, without the half second that importing them takes.
            type=click.Choice(["union", "cc-cp", "pc-cp", "band", "cc-anytime", "pc-anytime"]),
            help="Certificate.  [default: the best that is sound for the design]",
        ),
        click.option(
            "--design",
            type=click.Choice(["paired", "independent", "labelled"]),
            help="How the trials were made: h0[i] and h1[i] share a draw; two samples of fixed size; a fair coin for "
            "every trial.  [default: not declared, which assumes nothing]",
        ),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--delta",
    "deltas",
    type=float,
    multiple=True,
    help="Repeat for several; their bounds hold together.  [default: 1e-2 to 1e-5, or those of the run]",
)
@click.option(
    "--confidence", type=float, help="That all bounds of all cells hold.  [default: 0.95, or that of the run]"
)
@_about_scores
@CELL
@click.option("--estimates", is_flag=True, help="Also print what the counts suggest without certifying it.")
@click.option("--json", "as_json", is_flag=True, help="Print the bounds as JSON, one a line, and nothing else.")
def bound(file, deltas, confidence, design, method, seed, failures, cell, estimates, as_json):
    """Certify your own scores: FILE is an .npz with arrays h0 and h1, a file of counts, or a run folder.

    Larger scores speak for h1. A tenth of the scores, drawn at random, chooses the thresholds; the rest certify.
    Counts at thresholds that were fixed beforehand all take part; they may also be .json, as `bounds.to_json` or
    privacy-estimates writes them.
    """
    from . import claim_tables, report, tables
    from .bounds import percent, privacy_curve, to_json
    from .scores import estimated, plan_and_counts

    stored, cells, name = None, 1, f"{file}"
    if file.is_dir():
        run = _stored(file, design, method, failures)
        if run.exact:
            raise ValueError(f"{file} is an exact run and has no counts; run it with other deltas, --exact and --out")
        stored, cells = run.headline if cell is None else run.cell(cell), len(run.cells)
        name = f"{file}, {stored.summary['name']}" if cells > 1 else name
        plan, counts, deltas = stored.plan, stored.counts, deltas or stored.plan.deltas
        _check_planned(plan, deltas, file)
        confidence = run.summary["confidence"] if confidence is None else confidence
    else:
        if cell:
            raise ValueError(f"{file} is no run folder and has no cells; leave --cell out")
        deltas, confidence = deltas or _DELTAS, 0.95 if confidence is None else confidence
        plan, counts = plan_and_counts(file, deltas, confidence, design, method, seed, failures)
    # A cell may have been chosen for what it showed, so it has its share of the failure probability, no more.
    share = 1 - (1 - confidence) / cells
    found = privacy_curve(plan, counts, deltas, share)
    also = estimated(found, counts) if estimates else ()
    if as_json:
        for one in (*found, *also):
            click.echo(to_json(one))
        return
    distance = stored and stored.summary["distance"]
    rows = [report.bound_row(one, _predicted(one.delta, distance), counts.trials) for one in found]
    console, told = page(), distance is not None
    console.print(
        tables.bound_table(rows, f"{name}: {tables.trials_words(counts)}, {percent(share)} confidence", told)
    )
    if stored:
        tables.say(console, "Statement", stored.summary["statement"])
    how = {
        "design": tables.design_words(counts, design or (stored and counts.design), seed),
        "thresholds": tables.threshold_words(plan),
    }
    console.print(tables.method_sentence([plan.method], share, predictions=told, **how))
    if also:
        console.print(claim_tables.estimate_table(also))
        console.print(claim_tables.estimate_sentence(also))


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
@_about_scores
def assert_(file, max_epsilon, delta, level, confidence, design, method, seed, failures):
    """Test a claim for CI: exit code 1 where the trials contradict that the mechanism is (epsilon, delta)-DP.

    FILE_OR_DIR is what `bound` takes. Every cell of a run is tested, and their p-values are adjusted (Holm). Make the
    claim before the trials. Exit code 0 is no proof of privacy.
    """
    from . import claim_tables, tables
    from .bounds import holm, percent

    for name, value, allowed, good in (
        ("--max-epsilon", max_epsilon, "finite numbers from 0", 0 <= max_epsilon < math.inf),
        ("--delta", delta, "numbers from 0 to below 1", 0 <= delta < 1),
        ("--level", level, "numbers strictly between 0 and 1", 0 < level < 1),
    ):
        if not good:
            raise ValueError(f"{name} is {value}, allowed are {allowed}")
    if file.is_dir():
        run = _stored(file, design, method, failures)
        confidence = run.summary["confidence"] if confidence is None else confidence
        names, statements = zip(*((cell.summary["name"], cell.summary["statement"]) for cell in run.cells))
        tested, how = _tested_cells(run, file, max_epsilon, delta, confidence)
    else:
        from .scores import plan_and_counts

        names, statements, confidence = [""], [""], 0.95 if confidence is None else confidence
        plan, counts = plan_and_counts(file, [delta], confidence, design, method, seed, failures)
        tested = [_tested(plan, counts, max_epsilon, delta, confidence)]
        how = f"{tables.trials_words(counts)}, {percent(confidence)} confidence"
    adjusted = holm([p_value for _, p_value in tested])
    rows = [
        {"cell": name, "claimed": max_epsilon, "certified": certified, "p_value": p_value, "adjusted": joint}
        | {"contradicted": joint <= level}
        for name, (certified, p_value), joint in zip(names, tested, adjusted)
    ]
    console = page()
    console.print(claim_tables.claim_table(rows, f"{file} against ({max_epsilon:g}, {delta:g})-DP: {how}"))
    worst = min(range(len(rows)), key=lambda row: (adjusted[row], tested[row][1]))
    contradicted = rows[worst]["contradicted"]
    console.print(claim_tables.claim_sentence(contradicted, max_epsilon, delta, level))
    tables.say(console, f"Statement{' of ' * (len(rows) > 1)}{names[worst] * (len(rows) > 1)}", statements[worst])
    raise SystemExit(int(contradicted))


def _tested(plan, counts, epsilon, delta, confidence):
    """The certified bound at the claimed delta, and the p-value of the claim."""
    from .bounds import claim_p_value, epsilon_at

    return epsilon_at(plan, counts, delta, confidence).epsilon, claim_p_value(plan, counts, epsilon, delta)


def _tested_cells(run, folder, epsilon, delta, confidence):
    """What is certified of every cell and the p-value of the claim; and how, in words."""
    from . import tables
    from .bounds import exact_epsilon, percent

    if run.exact:
        certain = [exact_epsilon(cell.curve, delta)[0] for cell in run.cells]
        return [(one, 0.0 if one > epsilon else 1.0) for one in certain], "the exact law of the score"
    share, tested = 1 - (1 - confidence) / len(run.cells), []
    for cell in run.cells:
        _check_planned(cell.plan, [delta], folder)
        tested.append(_tested(cell.plan, cell.counts, epsilon, delta, share))
    return tested, f"{tables.trials_words(run.headline.counts)}, {percent(confidence)} confidence"


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

    from . import claim_tables, forecast
    from .bounds import percent
    from .progress import bars

    with bars() as progress:
        ready = forecast.prepare(wanted, progress)
    parts = sorted({*_TIGHTNESS, *([] if within is None else [1 - within])})
    rows = forecast.expect(ready, delta, parts, cell)
    with Console(stderr=True).status("Timing pilot trials"):
        speed = forecast.trials_per_second(ready)
    console = page()
    title = f"{recipe}: what to expect at δ = {delta:g} with {percent(wanted.confidence)} confidence"
    console.print(claim_tables.plan_table(rows, lambda trials: trials / speed, title))
    console.print(claim_tables.plan_sentence(speed, ready.prepare_s))
