"""The examples of docs/ do what they say."""

import subprocess
import sys
from pathlib import Path

import numpy as np

import jaxaudit as ja
from jaxaudit import store

SLURM = Path(__file__).parent.parent / "docs" / "slurm.py"


def test_shards_of_a_cluster_are_the_run(pool_file, tmp_path):
    """Three shards as jobs of this machine, merged: the counts of one run."""
    recipe = ["--set=population.kind=arrays", f"--set=population.path={pool_file}", "--set=population.clients=10"]
    command = [sys.executable, SLURM, "membership", *recipe, "--trials=5000", "--shards=3", "--cluster=local"]
    done = subprocess.run(
        [*command, "--out", tmp_path / "night"], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    audit = ja.Audit(
        population=ja.Arrays(path=str(pool_file), clients=10), aggregator=ja.SecureSum(), attack=ja.GaussianLRT()
    )
    whole, merged = ja.run(audit, trials=5000).headline.counts, store.read(tmp_path / "night").headline.counts
    np.testing.assert_array_equal(whole.errors_h0, merged.errors_h0)
    np.testing.assert_array_equal(whole.errors_h1, merged.errors_h1)
