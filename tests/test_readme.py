"""The README is true: its code runs, its numbers are those of results/."""

import json
import re
from pathlib import Path

import numpy as np

import jaxaudit as ja
from jaxaudit import config

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def code_with(words):
    (code,) = [code for code in re.findall(r"```python\n(.*?)```", README, re.S) if words in code]
    return code


def test_the_bounds_of_the_readme_certify_scores_from_anywhere(capsys):
    rng = np.random.default_rng(0)
    exec(
        compile(code_with("bounds.toss"), "README.md", "exec"),
        {"h0": rng.normal(size=5000), "h1": rng.normal(3, size=5000)},
    )
    said = capsys.readouterr().out
    assert re.fullmatch(r"ε ≥ [4-7]\.\d{3} at δ = 1e-05 \(95% confidence.*\)\n", said)


def test_the_attack_of_the_readme_runs_and_certifies():
    code = code_with("ja.run(").replace("ja.Federated()", "ja.Federated(clients=8, variants=16, rounds=1)")
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert isinstance(names["result"], ja.Result)
    assert names["result"].headline.plan.method == "union"


def recipe_with(words):
    (text,) = [text for text in re.findall(r"```toml\n(.*?)```", README, re.S) if words in text]
    return text


def test_the_channel_of_the_readme_is_a_recipe(tmp_path):
    (tmp_path / "channel.toml").write_text(recipe_with("aggregator.stages"))
    aggregator = config.load(str(tmp_path / "channel.toml")).audit.aggregator
    assert [stage.kind for stage in aggregator.stages] == ["clip", "rotate", "fixed_point", "skellam"]
    assert aggregator.fitted(dim=650, clients=60, varying=False) is not None


def test_the_channels_of_the_readme_are_those_of_results():
    for name, first in (("channel", "| channel | noise multiplier | digits"), ("channel-bugs", "| bug | noise")):
        rows = [line for line in README.split(first)[1].split("\n\n")[0].splitlines() if line.startswith("| ")]
        stored = (ROOT / f"results/{name}.md").read_text().splitlines()
        assert len(rows) > 5 and set(rows) <= set(stored)


def test_the_recipe_of_the_readme_is_a_recipe(tmp_path):
    (tmp_path / "mine.toml").write_text(recipe_with("mine.toml"))
    population = config.load(str(tmp_path / "mine.toml")).audit.population
    assert isinstance(population, ja.Arrays) and population.clients == (50, 100)


def test_the_table_of_the_readme_is_the_stored_run():
    summary = json.loads((ROOT / "results/membership-digits/summary.json").read_text())
    for row in summary["bounds"]:
        assert f"≥ {ja.bounds.rounded_down(row['epsilon_lower'])}" in README
    assert summary["statement"].split(";")[0] in " ".join(README.split())
    assert summary["recipe"] == config.to_mapping(config.load("membership"))


def test_the_recovery_of_the_readme_is_the_stored_run():
    summary = json.loads((ROOT / "results/label-leakage-digits/summary.json").read_text())
    assert summary["recipe"] == config.to_mapping(config.load("label-leakage"))
    recovery = summary["recovery"]
    assert recovery["rows"][0]["exact"] == 1.0 and "Recovered: 50 of 50 clients exactly" in README
    assert all(f"{int(1000 * row['overlap']) / 1000:.3f}" in README for row in recovery["rows"])  # rounded down
    for row in summary["bounds"]:
        assert f"≥ {ja.bounds.rounded_down(row['epsilon_lower'])}" in README


def test_the_label_tables_of_the_readme_are_those_of_results():
    table = (ROOT / "results/label-leakage.md").read_text()
    section = README.split("## Label leakage")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ") and "---" not in line and "![" not in line]
    assert len(rows) > 10 and all(row in table for row in rows)


def test_the_exact_bound_of_the_readme_is_the_stored_one():
    summary = json.loads((ROOT / "results/membership-digits-exact/summary.json").read_text())
    (row,) = [row for row in summary["bounds"] if row["delta"] == 1e-3]
    assert summary["design"] == "exact" and f"ε ≥ {ja.bounds.rounded_down(row['epsilon_lower'])} at δ" in README


def test_the_pairs_of_the_readme_are_those_of_results():
    table = (ROOT / "results/membership-pairs.md").read_text()
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    assert len(rows) == 10 and all(row in README for row in rows)
