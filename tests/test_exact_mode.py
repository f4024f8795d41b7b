"""The exact law of a score: closed forms, simulated trials within its limits, and a reason wherever there is none."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from reference import discrete_epsilon
from scipy import stats
from test_cli import ask, contents
from test_runner import FoldedLRT

import jaxaudit as ja
from jaxaudit import report, runs, store
from jaxaudit.config import make_recipe
from jaxaudit.exact_mode import run_exact
from jaxaudit.player import Player
from jaxaudit.types import Range

TRIALS = 1_000_000


def silent(name, trials):
    return lambda done: None


def audit_of(path, **fields):
    return ja.Audit(
        population=ja.Arrays(path=str(path), **({"clients": 10} | fields)),
        aggregator=ja.SecureSum(),
        attack=ja.GaussianLRT(),
    )


def exact(audit, deltas=(1e-2, 1e-4)):
    return run_exact(make_recipe(audit, trials=20_000, deltas=deltas), progress=silent)


def lattice(tmp_path, dropout):
    """An audit of updates of one bit, zero against one, and the law of its score: {score under H0: probability}."""
    bits = (np.random.default_rng(0).random((2000, 1)) < 0.4).astype(np.float32)
    np.savez(tmp_path / "bits.npz", updates=bits)
    np.savez(tmp_path / "pair.npz", h0=np.zeros(1), h1=np.ones(1))
    result = exact(audit_of(tmp_path / "bits.npz", clients=21, pair=str(tmp_path / "pair.npz"), dropout=dropout))
    (source,) = result.prepared.responses.certify.sources
    rate = float(np.mean(source.rows(0, len(source.sizes)), dtype=np.float64))
    weights, each, offset = result.cells[0].cell.knowledge
    law = {}
    for present in range(21):
        for ones in range(present + 1):
            chance = stats.binom.pmf(present, 20, 1 - dropout) * stats.binom.pmf(ones, present, rate)
            score = ones * weights[0, 0] - present * each[0] - offset[0]
            law[score] = law.get(score, 0.0) + chance
    return result.cells[0], float(weights[0, 0]), law


@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_limits_hold_what_can_be_enumerated(tmp_path, dropout):
    """With dropouts the server sees how many took part, and its score allows for them: a mixture of binomials."""
    finding, shift, law = lattice(tmp_path, dropout)
    scores, mass = np.array(list(law)), np.array(list(law.values()))
    # Where a score ties with a threshold to the last bits, the limits hold both rates.
    for rate, lower, upper in (
        (lambda t, tie: mass[scores >= t + tie].sum(), finding.curve.fpr_lower, finding.curve.fpr_upper),
        (lambda t, tie: mass[scores + shift <= t + tie].sum(), finding.curve.fnr_lower, finding.curve.fnr_upper),
    ):
        for number, threshold in enumerate(finding.thresholds):
            either = [rate(threshold, tie) for tie in (-1e-9, 1e-9)]
            assert lower[number] <= max(either) * (1 + 1e-9) and min(either) * (1 - 1e-9) <= upper[number]


@pytest.mark.parametrize("delta", [1e-2, 1e-4])
def test_the_law_of_a_lattice_gives_its_exact_epsilon(tmp_path, delta):
    """A count of 20 others against the same count plus one: its likelihood ratio is monotone, so the law is tight."""
    finding, _, law = lattice(tmp_path, 0.0)
    h0 = np.array([law[score] for score in sorted(law)])
    truth = discrete_epsilon(delta, np.append(h0, 0.0), np.append(0.0, h0))
    found = ja.bounds.exact_epsilon(finding.curve, delta)[0]
    tails = np.append(h0, 0.0), np.append(0.0, h0)
    upper, lower = ([np.cumsum(one[::step]) for one in tails] for step in (-1, 1))
    best = max(np.log((many - delta)[many > delta] / few[many > delta]).max() for few, many in (upper, lower[::-1]))
    # The lattice moves a tail by 0.2 % at most.
    assert best - 0.004 <= found <= best + 1e-9 <= truth + 2e-9


@pytest.mark.parametrize(
    "fields",
    [
        {"cohort": "with_replacement"},
        {"cohort": "fixed"},
        {"cohort": "fixed", "dropout": 0.3, "clients": (4, 10)},
        {"cohort": "with_replacement", "dropout": 0.3, "pair": ("random", "zeroed")},
    ],
    ids=lambda fields: "-".join(map(str, fields.values())),
)
def test_simulated_rates_lie_within_the_limits(pool_file, fields):
    """Both rates of every cell at nine thresholds: within five standard errors of the bracket, false alarm 1e-4."""
    result = exact(audit_of(pool_file, **fields))
    game = result.prepared.project()
    at = [one.thresholds[np.linspace(0, one.thresholds.size - 1, 11).astype(int)[1:-1]] for one in result.cells]
    counts = Player(jax.devices(), 3, silent).count(game, "certify", Range(0, TRIALS), at)
    for finding, thresholds, counted in zip(result.cells, at, counts):
        where = np.searchsorted(finding.thresholds, thresholds)
        for errors, lower, upper in (
            (counted.errors_h0, finding.curve.fpr_lower[where], finding.curve.fpr_upper[where]),
            (counted.errors_h1, finding.curve.fnr_lower[where], finding.curve.fnr_upper[where]),
        ):
            # At least one in a million: below that a single error of the slack would be many standard errors.
            margin = 5 * np.sqrt(np.maximum(upper, 1e-6) / TRIALS)
            rates = errors / TRIALS
            assert np.all(rates >= lower - margin) and np.all(rates <= upper + margin)


def test_rounds_add_independent_terms(tmp_path):
    rng = np.random.default_rng(2)
    client = np.tile(np.repeat(np.arange(30), 3), 2)
    np.savez(
        tmp_path / "u.npz",
        updates=rng.standard_normal((180, 4)).astype(np.float32),
        client=client,
        round=np.repeat([0, 1], 90),
    )
    result = exact(audit_of(tmp_path / "u.npz", rounds=(0, 1), cohort="fixed", clients=8))
    ((terms, _),) = result.prepared.responses.certify.terms(result.prepared.columns())
    assert sum(term.times for term in terms) == 2 * 7
    variance = sum(term.probabilities @ (term.values - term.probabilities @ term.values) ** 2 for term in terms)
    game = result.prepared.project()
    (scores,) = Player(jax.devices(), 0, silent).scores(game, "certify", 100_000)
    # Standard error of a variance of near normal scores: 0.45 %; five of them, false alarm 6e-7.
    assert abs(scores.h0.var() / variance - 1) < 0.0224


def test_an_exact_bound_exceeds_what_trials_can_certify(pool_file):
    """At the same threshold certified rates are worse than exact ones but for 5 %; here by far, at the best one."""
    audit = audit_of(pool_file)
    sampled = ja.run(audit, trials=20_000, deltas=[1e-2])
    found = ja.bounds.exact_epsilon(exact(audit).cells[0].curve, 1e-2)[0]
    assert sampled.bound(1e-2).epsilon < found < sampled.bound(1e-2).epsilon + 2


@pytest.mark.parametrize("cohort", ["without_replacement", "poisson"])
def test_dependent_seats_are_refused_with_the_reason(pool_file, cohort):
    with pytest.raises(ValueError, match=f'needs independent draws; cohort = "{cohort}"'):
        exact(audit_of(pool_file, cohort=cohort))


def test_continuous_laws_are_refused_with_the_reason():
    audit = ja.Audit(population=ja.Synthetic(dim=4, clients=4), aggregator=ja.SecureSum(), attack=ja.GaussianLRT())
    with pytest.raises(ValueError, match="finitely many values; sphere updates"):
        exact(audit)


def test_scores_that_are_not_linear_are_refused_with_the_reason(pool_file):
    audit = replace(audit_of(pool_file), attack=FoldedLRT())
    with pytest.raises(ValueError, match="needs a score that is linear in the updates; attack 'folded_lrt'"):
        exact(audit)


@pytest.fixture(scope="module")
def folder(pool_file, tmp_path_factory):
    """An exact run of two cells from the command line."""
    where = tmp_path_factory.mktemp("exact") / "run"
    recipe = (
        "--set=population.kind=arrays",
        f"--set=population.path={pool_file}",
        "--set=population.clients=[6, 10]",
    )
    answer = ask("run", *recipe, "--exact", "--delta=1e-3", "--out", where)
    assert answer.code == 0, answer.err
    return where, recipe, answer


def test_the_folder_of_an_exact_run_is_read_back(folder):
    where, _, answer = folder
    run = store.read(where)
    assert run.exact and run.whole and len(run.cells) == 2
    assert run.summary["design"] == "exact" and run.summary["confidence"] == 1.0
    for cell in run.cells:
        (row,) = cell.summary["bounds"]
        assert (row["kind"], row["method"], row["trials"]) == ("certified", "exact", None)
        assert row["epsilon_lower"] == pytest.approx(ja.bounds.exact_epsilon(cell.curve, 1e-3)[0], abs=1e-12)
        assert np.all(cell.curve.fpr_lower <= cell.curve.fpr_upper)
        assert f"≥ {ja.bounds.rounded_down(row['epsilon_lower'])}" in answer.out
    assert "computed, not sampled" in answer.words and "trials," not in answer.out.splitlines()[0]
    assert {"roc.png", "tradeoff.png", "privacy.png", "cells.png"} <= {path.name for path in where.iterdir()}


def test_an_exact_run_is_printed_again_not_computed_again(folder):
    where, recipe, answer = folder
    before = contents(where)
    again = ask("run", *recipe, "--exact", "--delta=1e-3", "--out", where)
    assert again.out == answer.out and contents(where) == before
    shown = ask("report", where, "--cell", "random-6")
    assert shown.code == 0 and (Path(where) / "random-6-roc.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--exact", "--range", "0:1000"), "--exact plays no trials"),
        (("--exact", "--delta=1e-4"), "holds this audit with deltas"),
        (("--delta=1e-3",), "holds an exact run"),
    ],
)
def test_what_does_not_go_with_an_exact_run_is_refused(folder, arguments, message):
    where, recipe, _ = folder
    answer = ask("run", *recipe, *arguments, "--out", where)
    assert answer.code == 2 and message in answer.err and answer.err.count("\n") == 1


@pytest.mark.parametrize("command", ["bound", "merge"])
def test_an_exact_run_has_no_counts_to_bound_or_merge(folder, command, tmp_path):
    where, _, _ = folder
    answer = ask(command, where, *(("--out", tmp_path / "whole") if command == "merge" else ()))
    assert answer.code == 2 and "exact run" in answer.err and not (tmp_path / "whole").exists()


def test_impossible_events_have_a_finite_entry(tmp_path, pool_file):
    """Candidates so far apart that no noise reaches from one to the other: infinite, stored as its floor."""
    np.savez(tmp_path / "far.npz", h0=np.full(12, -1e6), h1=np.full(12, 1e6))
    result = exact(audit_of(pool_file, pair=str(tmp_path / "far.npz")))
    assert ja.bounds.exact_epsilon(result.cells[0].curve, 1e-2)[0] == np.inf
    assert report.exact_run(result).headline.summary["bounds"][0]["epsilon_lower"] == runs.UNBOUNDED


def test_no_finite_epsilon_is_said_in_words(tmp_path, pool_file):
    np.savez(tmp_path / "far.npz", h0=np.full(12, -1e6), h1=np.full(12, 1e6))
    recipe = ("--set=population.kind=arrays", f"--set=population.path={pool_file}", "--set=population.clients=10")
    answer = ask(
        "run", *recipe, f"--set=population.pair={tmp_path / 'far.npz'}", "--exact", "--out", tmp_path / "run"
    )
    assert answer.code == 0, answer.err
    assert answer.out.count("no finite ε") == 4


def test_a_finite_epsilon_is_never_called_infinite():
    """Candidates 40 standard deviations apart, in a support that holds both: rates below 1e-300, but not zero."""
    coins = ja.bounds.Term(np.array([0.0, 1.0]), np.array([0.5, 0.5]), times=5000)
    _, curve = ja.bounds.exact_curve([coins], (0.0, 2000.0))
    assert 680 < ja.bounds.exact_epsilon(curve, 1e-3)[0] < 691 < runs.UNBOUNDED
