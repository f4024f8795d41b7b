"""What a finished audit says: the summary, the table, the sentence that binds it, and the figures."""

import platform
import subprocess
from importlib.metadata import version
from math import isfinite
from pathlib import Path

import jax
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from . import config, plots, store
from .bounds import area_under_roc, gaussian_epsilon, percent, rounded_down, tradeoff
from .runner import Finding, Result


def to_run(result: Result) -> store.Run:
    """What is kept of a result: everything that its tables and figures need.

    Args:
      result: from `run`.

    Returns:
      Run, ready to be written.
    """
    recipe, prepared = result.recipe, result.prepared
    cells = [_cell(finding, prepared) for finding in result.cells]
    pool = prepared.responses.certify.describe(result.headline.cell.server.noise_terms)
    summary = {
        "schema": store.SCHEMA,
        "recipe": config.to_mapping(recipe),
        "digest": config.digest(recipe),
        "seed": recipe.seed,
        "trials": recipe.trials,
        "design": "paired",
        "real": prepared.responses.real,
        "simulated": f"{prepared.mechanism}, and who sends what in a trial",
        "metrics": dict(prepared.responses.metrics) | {"noise_terms": result.headline.cell.server.noise_terms},
        "pool": {key: pool[key] for key in ("updates", "clients", "replacement")},
        "timing": result.timing,
        "provenance": _provenance(prepared),
    }
    # At the top stand the headline's own figures, with the confidence that all cells hold together.
    summary = cells[0].summary | summary | {"confidence": recipe.confidence}
    return store.Run(config.to_toml(recipe), summary, tuple(cells))


def _cell(finding: Finding, prepared) -> store.Cell:
    distance = finding.distance if finding.distance is not None and isfinite(finding.distance) else None
    summary = {
        "name": finding.cell.name,
        "pair": finding.cell.pair.name,
        "clients": finding.cell.clients,
        "setting": finding.cell.setting,
        "options": list(finding.cell.options),
        "confidence": finding.confidence,
        "adjacency": finding.cell.pair.adjacency,
        "statement": finding.statement,
        "server_knows": finding.cell.server.knows,
        "verdict": finding.verdict.words,
        "verdict_kind": finding.verdict.kind,
        "distance": distance,
        "auc": area_under_roc(tradeoff(finding.counts, finding.confidence)),
        "bounds": [bound_row(bound, _prediction(bound.delta, finding.distance)) for bound in finding.bounds],
        "off_span": [bound_row(bound) for bound in finding.off_span],
        "population": [bound_row(bound) for bound in finding.population],
        "assumes": finding.assumes if finding.population else "",
    }
    return store.Cell(summary, finding.plan, finding.counts, _spectrum(finding, prepared))


def save(result: Result, folder: str | Path) -> store.Run:
    """Write the run folder of a result, with its figures.

    Raises:
      ValueError: where the folder is in use.
    """
    run = to_run(result)
    store.write(run, folder, plots.draw)
    return run


def show(run: store.Run, console: Console, name: str | None = None) -> None:
    """Print the tables of a run and everything that must be said with them.

    Args:
      run: what is stored.
      console: to print on.
      name: of the one cell to show in full; by default all cells, and the headline's words.
    """
    cells = [cell.summary for cell in run.cells]
    told = cells[0] if name is None else run.cell(name).summary
    if name is None and len(cells) > 1:
        console.print(cell_table(cells, _title(run.summary)))
    else:
        console.print(table(told["bounds"], _title(run.summary, told)))
        if told["off_span"]:
            level = percent(told["confidence"])
            title = f"The off-span score of a server that knows the audited pool: a statement of its own, at {level}"
            console.print(table(told["off_span"], title))
    if any(cell["population"] for cell in cells):
        console.print(population_table([told] if name else cells))
    for word, text in (
        ("statement", told["statement"]),
        ("verdict", told["verdict"]),
        ("setting", told["setting"] and f"{told['setting']}, chosen on pilot trials" * (len(told["options"]) > 1)),
        ("real", run.summary["real"]),
        ("simulated", run.summary["simulated"]),
    ):
        if text:
            console.print(Text.assemble((f"{word.capitalize()}: ", "bold"), text))
    alone = name is not None or len(cells) == 1
    confidence = told["confidence"] if alone else run.summary["confidence"]
    console.print(method_sentence(told["bounds"][0]["method"], confidence, 1 if alone else len(cells)))


def cell_table(cells: list[dict], title: str) -> Table:
    """All cells of a run, one a row: the certified bound at every delta, and in brackets the prediction."""
    result = _plain_table(title, any(row["censored"] for cell in cells for row in cell["bounds"]))
    result.add_column("pair")
    for name in ("clients", "Δ", *(f"ε at δ = {row['delta']:g}" for row in cells[0]["bounds"]), "ceiling"):
        result.add_column(name, justify="right", no_wrap=True)
    result.add_column("verdict")
    for cell in cells:
        result.add_row(
            cell["pair"],
            f"{cell['clients']:,}",
            "–" if cell["distance"] is None else f"{cell['distance']:.3f}",
            *(Text(f"{_certified(row)}({_predicted(row)})") for row in cell["bounds"]),
            f"{cell['bounds'][0]['epsilon_ceiling']:.2f}",
            cell["verdict_kind"],
        )
    return result


def population_table(cells: list[dict]) -> Table:
    """What the cohorts that share no client certify about the population."""
    trials = "disjoint cohorts"
    title = f"On the population, a statement of its own: {trials} as the only trials, all else from the fit pool"
    result = _plain_table(title, any(row["censored"] for cell in cells for row in cell["population"]))
    words = f"Every client sends its first recording. Assuming that {cells[0]['assumes']}."
    result.caption = Text(f"{result.caption or ''}\n{words}".strip())
    result.caption_style, result.caption_justify = "none", "left"
    result.add_column("pair")
    for name in ("clients", trials, *(f"ε at δ = {row['delta']:g}" for row in cells[0]["population"]), "ceiling"):
        result.add_column(name, justify="right", no_wrap=True)
    for cell in cells:
        rows = cell["population"]
        result.add_row(
            cell["pair"],
            f"{cell['clients']:,}",
            f"{rows[0]['trials']:,}",
            *(Text(_certified(row)) for row in rows),
            f"{max(row['epsilon_ceiling'] for row in rows):.3f}",
        )
    return result


def table(rows: list[dict], title: str) -> Table:
    """Bounds as a table: certified values carry the sign ≥, and nothing else does."""
    result = _plain_table(title, any(row["censored"] for row in rows))
    for name in ("δ", "ε certified", "ε predicted", "ε ceiling", "false pos. rate", "false neg. rate", "errors"):
        result.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        result.add_row(
            f"{row['delta']:g}",
            Text(_certified(row), "bold"),
            _predicted(row),
            f"{row['epsilon_ceiling']:.3f}",
            f"{row['fpr']:.3g}",
            f"{row['fnr']:.3g}",
            f"{row['errors_h0']:,} + {row['errors_h1']:,}",
        )
    return result


def _plain_table(title, censored) -> Table:
    result = Table(title=Text(title), box=box.SIMPLE_HEAD, title_style="bold", title_justify="left")
    if censored:
        result.caption = Text(
            "* No error of the rarer kind was seen: limited by the number of trials, not a measurement of ε."
        )
        result.caption_style, result.caption_justify = "yellow", "left"
    return result


def _certified(row):
    sign, mark = "≥" if row["kind"] == "certified" else "≈", "*" if row["censored"] else " "
    return f"{sign} {rounded_down(row['epsilon_lower'])}{mark}"


def _predicted(row):
    predicted = row["epsilon_predicted"]
    return "–" if predicted is None else f"{predicted:.3f}"


def method_sentence(method: str, confidence: float, cells: int = 1) -> Text:
    """How the columns of the table are to be read."""
    share = f", of which each of the {cells} rows has an equal share" if cells > 1 else ""
    return Text.assemble(
        ("How to read it: ", "bold"),
        f"with {percent(confidence)} confidence all bounds of the table hold together{share} "
        f"({_METHOD_WORDS[method]}; thresholds were chosen on other trials). A prediction"
        f"{' (in brackets)' * (cells > 1)} is a Gaussian model of the noise, not a bound. The ceiling is the most "
        "that this many trials could certify.",
    )


_METHOD_WORDS = {
    "pc-cp": "paired conditional Clopper-Pearson",
    "union": "union of two Clopper-Pearson limits",
}


def bound_row(bound, prediction: float | None = None, trials: tuple[int, int] | None = None) -> dict:
    """A bound as plain values, under the names of summary.json; `trials` where h0 and h1 had unequal ones."""
    trials_h0, trials_h1 = trials or (bound.trials, bound.trials)
    return {
        "delta": bound.delta,
        "epsilon_lower": bound.epsilon,
        "epsilon_ceiling": bound.ceiling,
        "epsilon_predicted": prediction if prediction is not None and isfinite(prediction) else None,
        "epsilon_upper": None,
        "method": bound.method,
        "kind": bound.kind,
        "assumption": bound.assumption,
        "threshold": bound.threshold,
        "direction": bound.direction,
        "fpr": bound.errors_h0 / trials_h0,
        "fnr": bound.errors_h1 / trials_h1,
        "errors_h0": bound.errors_h0,
        "errors_h1": bound.errors_h1,
        "trials": bound.trials,
        "significance": bound.significance,
        "censored": bound.censored,
    }


def _prediction(delta, distance):
    return None if distance is None else gaussian_epsilon(delta, distance)


def _title(summary, told=None) -> str:
    recipe = summary["recipe"]
    pair = f", pair {told['pair']}" if told and told["pair"] else ""
    of = f", {told['clients']:,} clients" if told and isinstance(recipe["population"].get("clients"), list) else ""
    return (
        f"{recipe['attack']['kind']} on {recipe['population']['kind']} updates{pair}{of}: "
        f"{summary['trials']:,} trials, {percent((told or summary)['confidence'])} confidence, seed {summary['seed']}"
    )


def _spectrum(finding: Finding, prepared) -> dict:
    """Noise by direction, what the pair differs by in it, and how much of the score's separation comes from it.

    Of the first audited round; empty where the audited pool was too large to look at.
    """
    if finding.truth is None or not len(finding.truth[0].covariance.variances):
        return {}
    noise, difference = finding.truth[0].covariance, finding.cell.pair.difference[:1]
    along = noise.directions.along(difference)[0]
    arrays = {"variance": noise.variances, "energy": along**2}
    if prepared.linear:
        weights = prepared.audit.attack.linear(finding.cell.knowledge).weights[:1]
        arrays["separation"] = np.cumsum(noise.directions.along(weights)[0] * along)
        arrays["shift"] = np.vdot(weights, difference)
    return arrays


def _provenance(prepared) -> dict:
    device = jax.devices()[0]
    return {
        "jaxaudit": version("jaxaudit"),
        "jax": jax.__version__,
        "numpy": np.__version__,
        "scipy": version("scipy"),
        "python": platform.python_version(),
        "device": device.platform if device.device_kind == device.platform else device.device_kind,
        "devices": jax.device_count(),
        "git": _commit(),
        "data_sha256": dict(prepared.responses.data_sha256),
        "flags": {"matmul_precision": str(jax.config.jax_default_matmul_precision), "x64": jax.config.jax_enable_x64},
    }


def _commit() -> str | None:
    """The commit of this source tree; None for an installed package."""
    here = Path(__file__)
    git = ("git", "-C", str(here.parent))
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", here.name], capture_output=True, check=True, timeout=5)
        done = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, check=True, timeout=5, text=True)
        changed = subprocess.run([*git, "status", "--short"], capture_output=True, check=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() + ("-dirty" if changed.stdout else "")
