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
from .runner import Result


def to_run(result: Result) -> store.Run:
    """What is kept of a result: everything that its table and figures need.

    Args:
      result: from `run`.

    Returns:
      Run, ready to be written.
    """
    recipe, prepared = result.recipe, result.prepared
    pool = prepared.responses.certify.describe()
    distance = prepared.distance
    summary = {
        "schema": store.SCHEMA,
        "recipe": config.to_mapping(recipe),
        "digest": config.digest(recipe),
        "seed": recipe.seed,
        "trials": recipe.trials,
        "confidence": recipe.confidence,
        "design": "paired",
        "adjacency": prepared.pair.adjacency,
        "statement": prepared.statement,
        "verdict": result.verdict.words,
        "verdict_kind": result.verdict.kind,
        "real": prepared.responses.real,
        "simulated": f"{prepared.mechanism}, and who sends what in a trial",
        "server_knows": prepared.server.knows,
        "distance": distance if distance is not None and isfinite(distance) else None,
        "auc": area_under_roc(tradeoff(result.counts, recipe.confidence)),
        "metrics": dict(prepared.responses.metrics) | {"noise_terms": prepared.server.noise_terms},
        "pool": {key: pool[key] for key in ("updates", "clients", "replacement")},
        "bounds": [bound_row(bound, _prediction(bound.delta, distance)) for bound in result.bounds],
        "off_span": [bound_row(bound) for bound in result.off_span],
        "timing": result.timing,
        "provenance": _provenance(prepared),
    }
    return store.Run(config.to_toml(recipe), summary, result.plan, result.counts, _spectrum(result))


def save(result: Result, folder: str | Path) -> store.Run:
    """Write the run folder of a result, with its figures.

    Raises:
      ValueError: where the folder is in use.
    """
    return store.write(to_run(result), folder, plots.draw)


def show(run: store.Run, console: Console) -> None:
    """Print the table of a run and everything that must be said with it."""
    summary = run.summary
    console.print(table(summary["bounds"], _title(summary)))
    if summary["off_span"]:
        level = percent(summary["confidence"])
        title = f"The off-span score of a server that knows the audited pool: a statement of its own, at {level}"
        console.print(table(summary["off_span"], title))
    for name in ("statement", "verdict", "real", "simulated"):
        console.print(Text.assemble((f"{name.capitalize()}: ", "bold"), summary[name]))
    console.print(method_sentence(summary["bounds"][0]["method"], summary["confidence"]))


def table(rows: list[dict], title: str) -> Table:
    """Bounds as a table: certified values carry the sign ≥, and nothing else does."""
    result = Table(title=Text(title), box=box.SIMPLE_HEAD, title_style="bold", title_justify="left")
    if any(row["censored"] for row in rows):
        result.caption = Text(
            "* No error of the rarer kind was seen: limited by the number of trials, not a measurement of ε."
        )
        result.caption_style, result.caption_justify = "yellow", "left"
    for name in ("δ", "ε certified", "ε predicted", "ε ceiling", "false pos. rate", "false neg. rate", "errors"):
        result.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        sign, mark = "≥" if row["kind"] == "certified" else "≈", "*" if row["censored"] else " "
        predicted = row["epsilon_predicted"]
        result.add_row(
            f"{row['delta']:g}",
            Text(f"{sign} {rounded_down(row['epsilon_lower'])}{mark}", "bold"),
            "–" if predicted is None else f"{predicted:.3f}",
            f"{row['epsilon_ceiling']:.3f}",
            f"{row['fpr']:.3g}",
            f"{row['fnr']:.3g}",
            f"{row['errors_h0']:,} + {row['errors_h1']:,}",
        )
    return result


def method_sentence(method: str, confidence: float) -> Text:
    """How the columns of the table are to be read."""
    return Text.assemble(
        ("How to read it: ", "bold"),
        f"with {percent(confidence)} confidence all bounds of the table hold together "
        f"({_METHOD_WORDS[method]}; thresholds were chosen on other trials). A prediction is a Gaussian model of "
        "the noise, not a bound. The ceiling is the most that this many trials could certify.",
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
        "significance": bound.significance,
        "censored": bound.censored,
    }


def _prediction(delta, distance):
    return None if distance is None else gaussian_epsilon(delta, distance)


def _title(summary) -> str:
    recipe = summary["recipe"]
    what = recipe["attack"]["kind"], recipe["population"]["kind"], recipe["population"].get("pair")
    return (
        f"{what[0]} on {what[1]} updates, pair {what[2]}: {summary['trials']:,} trials, "
        f"{percent(summary['confidence'])} confidence, seed {summary['seed']}"
    )


def _spectrum(result: Result) -> dict[str, np.ndarray]:
    """Noise by direction, what the pair differs by in it, and how much of the score's separation comes from it."""
    prepared, noise = result.prepared, result.noise
    along = noise.directions.T @ prepared.pair.difference
    arrays = {"variance": noise.variances, "energy": along**2}
    if prepared.linear:
        weights = prepared.audit.attack.linear(prepared.knowledge).weights
        arrays["separation"] = np.cumsum((noise.directions.T @ weights) * along)
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
