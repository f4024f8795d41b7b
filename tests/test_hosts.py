"""Processes that share a run: each plays its own trials, and together they write what one would have written."""

import json
import os
import socket
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxaudit import hosts
from jaxaudit.bounds import Counts
from jaxaudit.hosts import ALONE, Hosts, connect
from jaxaudit.types import Range

TRIALS = 100_001
LIMIT_S = 120


@given(first=st.integers(0, 2**44), count=st.integers(0, 10**13), processes=st.integers(1, 300))
def test_shares_are_a_partition_into_nearly_equal_ranges(first, count, processes):
    shares = [Hosts(index, processes).share(Range(first, count)) for index in range(processes)]
    assert shares[0].first == first and sum(share.count for share in shares) == count
    assert all(one.first + one.count == other.first for one, other in pairwise(shares))
    assert max(share.count for share in shares) - min(share.count for share in shares) <= 1


def test_one_process_has_all_trials_and_speaks():
    assert ALONE.share(Range(7, 100)) == Range(7, 100) and ALONE.first
    assert [Hosts(index, 3).first for index in range(3)] == [True, False, False]


def counts(errors, trials, stream="0/certify"):
    return Counts(np.array([0.0, 1.0]), np.array(errors), np.array(errors[::-1]), trials, trials, stream, "nested")


def test_one_process_has_its_own_counts():
    own = [counts([3, 1], 10)]
    assert ALONE.add(own)[0] is own[0]


def test_counts_of_all_processes_are_added_beyond_32_bits(monkeypatch):
    """A gather that loses nothing: three processes, two cells, numbers up to the largest plan."""
    own = [counts([2**40 + 5, 2**31 - 1], 10**13), counts([2**30, 2**30 - 1], 2**32, "0/off-span")]
    monkeypatch.setattr("jax.experimental.multihost_utils.process_allgather", lambda x: np.stack([np.asarray(x)] * 3))
    for one, sum_ in zip(own, Hosts(1, 3).add(own)):
        assert sum_.errors_h0.tolist() == [3 * int(n) for n in one.errors_h0]
        assert sum_.errors_h1.tolist() == [3 * int(n) for n in one.errors_h1]
        assert sum_.trials_h0 == sum_.trials_h1 == 3 * one.trials_h0
        assert (sum_.stream, sum_.design) == (one.stream, one.design)


def test_processes_that_prepared_the_same_agree(monkeypatch):
    monkeypatch.setattr(hosts, "_gathered", lambda numbers: np.stack([numbers, numbers]))
    Hosts(0, 2).agree("a", "prepared different trials")
    monkeypatch.setattr(hosts, "_gathered", lambda numbers: np.stack([numbers, numbers + 1]))
    with pytest.raises(ValueError, match=r"^the 2 processes prepared different trials$"):
        Hosts(0, 2).agree("a", "prepared different trials")


def test_connecting_says_what_it_needs(monkeypatch):
    def alone(**numbers):
        raise RuntimeError("no peers")

    monkeypatch.setattr("jax.distributed.initialize", alone)
    with pytest.raises(ValueError, match=r"finds no other processes \(no peers\); start under SLURM, .* or set JAX_"):
        connect()


def test_the_environment_names_the_other_processes(monkeypatch):
    seen = {}
    for name, value in {"COORDINATOR_ADDRESS": "host:1234", "NUM_PROCESSES": "3", "PROCESS_ID": "0"}.items():
        monkeypatch.setenv(f"JAX_{name}", value)
    monkeypatch.setattr("jax.distributed.initialize", lambda **numbers: seen.update(numbers))
    assert connect() == Hosts(0, 1)
    assert seen == {"coordinator_address": "host:1234", "num_processes": 3, "process_id": 0}


# Real processes


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("desk")
    np.save(folder / "u.npy", np.random.default_rng(0).standard_normal((400, 4)).astype(np.float32))
    return folder


def start(desk, *more, peers=None):
    """`jaxaudit run` on its own, or as process i of n at a port: peers = (port, n, i)."""
    kept = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS" and not name.startswith("SLURM")}
    package = Path(hosts.__file__).parents[1]
    environment = kept | {"JAXAUDIT_CACHE": str(desk / "cache"), "PYTHONPATH": str(package)}
    if peers:
        port, count, index = map(str, peers)
        environment |= {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}"}
        environment |= {"JAX_NUM_PROCESSES": count, "JAX_PROCESS_ID": index}
    fields = ("population.kind=arrays", "population.path=u.npy", "population.clients=20")
    sets = [argument for field in fields for argument in ("--set", field)]
    command = [sys.executable, "-m", "jaxaudit", "run", *sets, "--delta=0.01", f"--trials={TRIALS}", *more]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=desk, env=environment, **pipes)


def finish(*processes):
    """How each ended; a process that hangs is ended and fails the test."""
    answers, until = [], time.monotonic() + LIMIT_S
    try:
        for process in processes:
            out, err = process.communicate(timeout=max(0, until - time.monotonic()))
            answers.append(SimpleNamespace(code=process.returncode, out=out, err=err))
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return answers


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def together(desk, *differences):
    """Two processes of one job, each with options of its own."""
    port = free_port()
    return finish(*(start(desk, "--distributed", *own, peers=(port, 2, i)) for i, own in enumerate(differences)))


@pytest.fixture(scope="module")
def shared(desk):
    """A run of two processes, asked for again; and the same of one."""
    pair = together(desk, ["--out=two"], ["--out=two"])
    left = {path.name for path in desk.iterdir()}
    again = together(desk, ["--out=two"], ["--out=two"])
    (one,) = finish(start(desk, "--out=one"))
    return SimpleNamespace(pair=pair, again=again, one=one, left=left)


def ours(out):
    """What this package printed: the transport of JAX's processes writes to stdout too, in lines that may be torn."""
    return [line for line in out.splitlines() if "Gloo" not in line and "peer ranks" not in line and line.strip()]


def summary(folder):
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def test_two_processes_count_what_one_counts(shared, desk):
    assert [one.code for one in (*shared.pair, shared.one)] == [0, 0, 0], shared.pair[0].err + shared.pair[1].err
    with np.load(desk / "two" / "counts.npz") as two, np.load(desk / "one" / "counts.npz") as one:
        assert two.files == one.files
        for name in one.files:
            np.testing.assert_array_equal(two[name], one[name], err_msg=name)
        assert two["trials_h0"] == TRIALS
    for name in ("bounds", "cells", "range", "fingerprint"):
        assert summary(desk / "two")[name] == summary(desk / "one")[name], name


def test_one_process_speaks_for_all(shared):
    first, other = shared.pair
    assert "certified" in first.out and "Statement: " in first.out
    assert first.out.endswith("in two\n")
    assert ours(other.out) == []


def test_a_finished_run_is_shown_again_by_one_process(shared):
    first, other = shared.again
    assert first.code == other.code == 0, first.err + other.err
    assert ours(first.out) == ours(shared.pair[0].out) and ours(other.out) == []


def test_only_the_run_is_left(shared):
    assert shared.left == {"cache", "u.npy", "two"}


def test_each_process_played_its_half(shared, desk):
    timing = summary(desk / "two")["timing"]
    assert round(timing["trials_per_s"] * timing["trials_s"]) == TRIALS // 2


def test_processes_that_prepared_different_trials_are_refused_and_do_not_hang(desk):
    """Both say so in one line of their own, and nothing is written."""
    pair = together(desk, ["--out=odd", "--seed=1"], ["--out=odd", "--seed=2"])
    assert not (desk / "odd").exists()
    assert {one.code for one in pair} == {2}, [one.err for one in pair]
    for one in pair:
        (line,) = [line for line in one.err.splitlines() if line.startswith("jaxaudit: ")]
        assert line.startswith("jaxaudit: the 2 processes prepared different certify trials; ")


def test_distributed_without_others_is_refused_at_once(desk):
    began = time.monotonic()
    (answer,) = finish(start(desk, "--out=alone", "--distributed"))
    assert answer.code == 2 and answer.out == "" and not (desk / "alone").exists()
    (line,) = answer.err.splitlines()
    assert line.startswith("jaxaudit: --distributed finds no other processes (")
    assert line.endswith("set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID")
    assert time.monotonic() - began < 30
