"""What is kept of a finished audit: the summary of every cell, and the figures."""

import platform
import subprocess
from dataclasses import replace
from importlib.metadata import version
from math import isfinite
from pathlib import Path

import jax
import numpy as np

from . import config, plots, runs, store
from .accounting import claims
from .bounds import area_under_roc, epsilon_at, exact_epsilon, gaussian_epsilon
from .claimed import Claim
from .exact_mode import ExactFinding, ExactResult
from .findings import Finding, Result


def to_run(result: Result) -> runs.Run:
    """What is kept of a result: everything that its tables and figures need.

    Args:
      result: from `run`.

    Returns:
      Run, ready to be written.
    """
    recipe, prepared = result.recipe, result.prepared
    summary = _summary(result) | {
        "trials": recipe.trials,
        "range": list(result.part),
        "fingerprint": result.fingerprint,
        "confidence": recipe.confidence,
        "design": recipe.design,
        "simulated": prepared.simulated,
    }
    cells = tuple(_cell(one, prepared) for one in result.cells)
    recovery = result.recovery
    summary["recovery"] = recovery and recovery.summary
    return judged(runs.Run(config.to_toml(recipe), summary, cells, recovery.arrays if recovery else {}))


def _summary(result: Result | ExactResult) -> dict:
    """What is said of every run."""
    recipe, prepared = result.recipe, result.prepared
    noise_terms = result.cells[0].cell.server.noise_terms
    pool = prepared.responses.certify.describe(noise_terms)
    return {
        "schema": store.SCHEMA,
        "recipe": config.to_mapping(recipe),
        "digest": config.digest(recipe),
        "seed": recipe.seed,
        "real": prepared.responses.real,
        "metrics": dict(prepared.responses.metrics) | {"noise_terms": noise_terms},
        "pool": {key: pool[key] for key in ("updates", "clients", "replacement")},
        "timing": result.timing,
        "provenance": _provenance(prepared),
    }


def exact_run(result: ExactResult) -> runs.Run:
    """What is kept of a result whose law was computed."""
    recipe, prepared, cells = result.recipe, result.prepared, []
    for found in result.cells:
        rows = [_exact_row(found, delta) for delta in recipe.deltas]
        own = {"auc": area_under_roc(found.curve), "bounds": rows, "off_span": [], "claim": None, "violation": None}
        summary = _about(found) | {"confidence": 1.0, "population": [], "population_statement": ""} | own
        cells.append(runs.ExactCell(summary, found.thresholds, found.curve, _spectrum(found, prepared)))
    summary = _summary(result) | {"trials": 0, "range": [0, 0], "design": "exact", "confidence": 1.0}
    summary["recovery"] = None
    summary["simulated"] = f"nothing: the law of the score was computed; the mechanism is {prepared.mechanism}"
    return runs.Run(config.to_toml(recipe), summary | cells[0].summary, tuple(cells))


def _exact_row(found: ExactFinding, delta: float) -> dict:
    epsilon, at, direction = exact_epsilon(found.curve, delta)
    return {
        "delta": delta,
        "epsilon_lower": min(epsilon, runs.UNBOUNDED),
        "epsilon_ceiling": None,
        "epsilon_predicted": _prediction(delta, found.distance),
        "epsilon_upper": None,
        "method": "exact",
        "kind": "certified",
        "assumption": "independent draws from the recorded updates; no limit can fail",
        "threshold": float(found.thresholds[at]),
        "direction": direction,
        "fpr": float(found.curve.fpr[at]),
        "fnr": float(found.curve.fnr[at]),
        "errors_h0": None,
        "errors_h1": None,
        "trials": None,
        "significance": 0.0,
        "censored": False,
    }


def judged(run: runs.Run) -> runs.Run:
    """The run with the bounds and the verdicts on claims that follow from its counts; a part of one has neither."""
    cells, violations = [], claims.violations([_on_trial(run, cell) for cell in run.cells])
    for cell, violation in zip(run.cells, violations):
        confidence, deltas = cell.summary["confidence"], run.summary["recipe"]["deltas"] if run.whole else []
        proved = dict(_proved(run, cell))
        bounds = [epsilon_at(cell.plan, cell.counts, delta, confidence) for delta in deltas]
        off_span = [epsilon_at(*cell.off_span, delta, confidence) for delta in deltas if cell.off_span]
        own = {
            "auc": area_under_roc(cell.tradeoff()),
            "bounds": [
                bound_row(
                    bound,
                    _prediction(bound.delta, cell.summary["distance"]),
                    cell.counts.trials,
                    proved.get(bound.delta),
                )
                for bound in bounds
            ],
            "off_span": [
                bound_row(bound, trials=cell.off_span[1].trials, upper=proved.get(bound.delta)) for bound in off_span
            ],
            "violation": violation,
        }
        cells.append(replace(cell, summary=cell.summary | own))
    # At the top stand the headline's own figures, with the confidence that all cells hold together, and the worst
    # verdict of all cells: a contradiction in another cell must not be overlooked.
    worst = min((one for one in violations if one), key=lambda one: one["p_value"], default=None)
    headline = cells[0].summary | {"confidence": run.summary["confidence"], "violation": worst}
    return replace(run, summary=run.summary | headline, cells=tuple(cells))


def _cell(finding: Finding, prepared) -> runs.Cell:
    summary = _about(finding) | {
        "confidence": finding.confidence,
        "population": [bound_row(bound) for bound in finding.population],
        "population_statement": finding.population_statement if finding.population else "",
        "claim": _claimed(finding.claim),
    }
    spectrum = _spectrum(finding, prepared)
    return runs.Cell(summary, finding.plan, finding.counts, finding.histogram, finding.off_span, spectrum)


def _about(finding: Finding | ExactFinding) -> dict:
    """What is said of a cell before its bounds."""
    return {
        "name": finding.cell.name,
        "pair": finding.cell.pair.name,
        "clients": finding.cell.clients,
        "setting": finding.cell.setting,
        "options": list(finding.cell.options),
        "adjacency": finding.cell.pair.adjacency,
        "statement": finding.statement,
        "server_knows": finding.cell.server.knows,
        "verdict": finding.verdict.words,
        "verdict_kind": finding.verdict.kind,
        "distance": finding.distance if finding.distance is not None and isfinite(finding.distance) else None,
    }


def save(result: Result | ExactResult, folder: str | Path) -> runs.Run:
    """Write the run folder of a result, with its figures; a part of a run has none.

    Raises:
      ValueError: where the folder is in use.
    """
    return write(exact_run(result) if isinstance(result, ExactResult) else to_run(result), folder)


def write(run: runs.Run, folder: str | Path) -> runs.Run:
    """Write a run folder, with the figures of a whole run."""
    store.write(run, folder, plots.draw if run.whole else lambda run, folder: None)
    return run


def bound_row(
    bound, prediction: float | None = None, trials: tuple[int, int] | None = None, upper: float | None = None
) -> dict:
    """A bound as plain values, under the names of summary.json.

    Args:
      bound: a lower one.
      prediction: of a Gaussian model.
      trials: where h0 and h1 had unequal ones.
      upper: the epsilon that is proved of the mechanism, None where none is.
    """
    trials_h0, trials_h1 = trials or (bound.trials, bound.trials)
    return {
        "delta": bound.delta,
        "epsilon_lower": bound.epsilon,
        "epsilon_ceiling": bound.ceiling,
        "epsilon_predicted": prediction,
        "epsilon_upper": upper,
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


def _claimed(claim: Claim | None) -> dict | None:
    """A claim as plain values, None for an infinite epsilon."""
    if claim is None:
        return None
    epsilons = [float(epsilon) if isfinite(epsilon) else None for epsilon in claim.epsilons]
    return {"source": claim.source, "words": claim.words, "assumed": claim.assumed, "epsilons": epsilons}


def _proved(run: runs.Run, cell: runs.Cell) -> list[tuple[float, float]]:
    """(delta, epsilon) wherever a finite epsilon is claimed of a cell."""
    claim = cell.summary["claim"]
    if not (claim and run.whole):
        return []
    pairs = zip(run.summary["recipe"]["deltas"], claim["epsilons"], strict=True)
    return [(delta, epsilon) for delta, epsilon in pairs if epsilon is not None]


def _on_trial(run: runs.Run, cell: runs.Cell) -> claims.OnTrial:
    """What is claimed of a cell against the trials of its score and of its off-span score."""
    evidence = [(cell.plan, cell.counts), *([cell.off_span] if cell.off_span else [])]
    return claims.OnTrial(
        _proved(run, cell), evidence, bool(cell.summary["claim"] and cell.summary["claim"]["assumed"])
    )


def _prediction(delta, distance):
    if distance is None:
        return None
    predicted = gaussian_epsilon(delta, distance)
    return predicted if isfinite(predicted) else None


def _spectrum(finding: Finding | ExactFinding, prepared) -> dict:
    """Noise by direction, what the pair differs by in it, and how much of the score's separation comes from it.

    Of the first audited round; empty where the audited pool was too large to look at.
    """
    if finding.truth is None or not len(finding.truth[0].covariance.variances):
        return {}
    noise, difference = finding.truth[0].covariance, prepared.seen(finding.cell.pair).difference[:1]
    along = noise.directions.along(difference)[0]
    arrays = {"variance": noise.variances + noise.floor, "energy": along**2}
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
