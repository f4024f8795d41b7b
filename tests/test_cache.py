"""What is remembered is what would be computed: an entry may be lost at any time, and never lies."""

import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import jaxaudit as ja
from jaxaudit import cache
from jaxaudit.cache import key_of, remembered

KEY = key_of(name="an entry")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A cache of each test's own."""
    monkeypatch.setenv("JAXAUDIT_CACHE", str(tmp_path / "kept"))
    return tmp_path / "kept"


class Counted:
    """A computation that counts its calls."""

    def __init__(self, **arrays):
        self.arrays, self.calls = arrays, 0

    def __call__(self):
        self.calls += 1
        return dict(self.arrays)


@pytest.fixture
def compute():
    rng = np.random.default_rng(0)
    return Counted(
        rows=rng.standard_normal((3, 4)),
        turned=np.asfortranarray(rng.standard_normal((4, 3)).astype(np.float32)),
        numbers=np.arange(5),
        number=np.float64(np.pi),
        nothing=np.zeros((0, 7)),
        odd=np.array([np.nan, -0.0, np.inf, 5e-324]),
    )


def same(left, right):
    """Equal names, shapes, dtypes and bits."""
    assert left.keys() == right.keys()
    for name in left:
        one, other = np.asarray(left[name]), np.asarray(right[name])
        assert (one.shape, one.dtype, one.tobytes()) == (other.shape, other.dtype, other.tobytes()), name


def entry(home):
    (path,) = (home / "arrays").glob("*.safetensors")
    return path


def test_it_is_computed_once_and_comes_back_to_the_bit(compute):
    first, again = remembered(KEY, compute), remembered(KEY, compute)
    assert compute.calls == 1
    same(first, compute.arrays)
    same(again, compute.arrays)


def test_nothing_is_kept_without_a_key(compute, home):
    same(remembered(None, compute), remembered(None, compute))
    assert compute.calls == 2 and not home.exists()


@pytest.mark.parametrize("word", ["off", "OFF"])
def test_it_can_be_switched_off(compute, monkeypatch, word):
    monkeypatch.setenv("JAXAUDIT_CACHE", word)
    remembered(KEY, compute), remembered(KEY, compute)
    assert compute.calls == 2 and cache.folder() is None and not Path(word).exists()


@pytest.mark.parametrize("damage", ["truncated", "emptied", "cut in its header", "another file", "a folder"])
def test_a_damaged_entry_is_computed_again(compute, home, damage):
    remembered(KEY, compute)
    path = entry(home)
    whole = path.read_bytes()
    if damage == "a folder":
        path.unlink()
        path.mkdir()
    else:
        damaged = {
            "truncated": whole[:-1],
            "emptied": b"",
            "cut in its header": whole[:20],
            "another file": b"x" * 999,
        }
        path.write_bytes(damaged[damage])
    same(remembered(KEY, compute), compute.arrays)
    assert compute.calls == 2
    if damage != "a folder":
        assert path.read_bytes() == whole


def test_a_pickle_is_never_opened(compute, home):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(home / "sprung"),)

    (home / "arrays").mkdir(parents=True)
    (home / "arrays" / f"{KEY}.safetensors").write_bytes(pickle.dumps(Trap()))
    same(remembered(KEY, compute), compute.arrays)
    assert compute.calls == 1 and not (home / "sprung").exists()


def test_many_writers_at_once_agree(compute, home):
    gate = threading.Barrier(8)

    def one(_):
        gate.wait()
        return remembered(KEY, compute)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(one, range(8)))
    for arrays in found:
        same(arrays, compute.arrays)
    assert [path.name for path in (home / "arrays").iterdir()] == [f"{KEY}.safetensors"]
    calls = compute.calls
    same(remembered(KEY, compute), compute.arrays)
    assert compute.calls == calls


def test_a_folder_that_cannot_be_written_costs_time_only(compute, home):
    home.write_text("a file where the folder should be")
    same(remembered(KEY, compute), compute.arrays)
    same(remembered(KEY, compute), compute.arrays)
    assert compute.calls == 2


def test_an_entry_is_used_where_its_time_cannot_be_set(compute, monkeypatch):
    """A folder that others filled and this user may only read."""
    remembered(KEY, compute)

    def refused(*args, **kwargs):
        raise PermissionError("read-only")

    monkeypatch.setattr(Path, "touch", refused)
    monkeypatch.setattr(os, "utime", refused)
    same(remembered(KEY, compute), compute.arrays)
    assert compute.calls == 1


def test_an_interrupted_write_leaves_nothing_behind(compute, home, monkeypatch):
    def full(arrays, path):
        Path(path).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(cache, "save_file", full)
    same(remembered(KEY, compute), compute.arrays)
    assert list((home / "arrays").iterdir()) == []


def test_an_error_of_the_computation_is_its_own(home):
    def fails():
        raise ValueError("diverges")

    with pytest.raises(ValueError, match=r"^diverges$") as caught:
        remembered(KEY, fails)
    # The reader looks for what went wrong, and it was not that nothing was remembered.
    assert caught.value.__context__ is None and not home.exists()


def test_what_was_used_last_stays(home, monkeypatch):
    monkeypatch.setattr(cache, "_BUDGET_BYTES", 8_900)  # room for four entries of 2,000 bytes and a header
    keys = [key_of(number=number) for number in range(5)]
    for number in range(4):
        remembered(keys[number], Counted(array=np.zeros(250)))
        os.utime(
            home / "arrays" / f"{keys[number]}.safetensors", (number, number)
        )  # clocks may be coarser than tests are quick
    unused = Counted()
    remembered(keys[0], unused)
    remembered(keys[4], Counted(array=np.zeros(250)))
    assert unused.calls == 0
    assert {path.stem for path in (home / "arrays").iterdir()} == {keys[number] for number in (0, 2, 3, 4)}


def test_a_user_s_own_files_beside_the_cache_are_left_alone(home, monkeypatch):
    home.mkdir()
    (home / "recorded.safetensors").write_bytes(b"updates")
    monkeypatch.setattr(cache, "_BUDGET_BYTES", 1)
    remembered(KEY, lambda: {"a": np.zeros(0)})
    assert (home / "recorded.safetensors").read_bytes() == b"updates"


def test_what_is_too_large_is_not_kept(home, monkeypatch):
    monkeypatch.setattr(cache, "_BUDGET_BYTES", 10_000)
    large = Counted(array=np.zeros(313))  # a few bytes over a quarter of the room
    same(remembered(KEY, large), remembered(KEY, large))
    assert large.calls == 2 and not home.exists()


FACTS = {"seed": 0, "data": {"digits": "ab"}, "rate": 0.5, "layers": ["a", "b"]}


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"data": {"digits": "ac"}},
        {"rate": 0.5 + 2**-53},
        {"layers": ["b", "a"]},
        {"layers": ["a,b"]},
        {"more": None},
    ],
    ids=str,
)
def test_another_fact_is_another_key(change):
    assert key_of(**FACTS) == key_of(**FACTS) != key_of(**FACTS | change)


def test_facts_have_no_order():
    assert key_of(a=1, b=2) == key_of(b=2, a=1)


@pytest.mark.parametrize("part", ["code", "libraries"])
def test_another_installation_is_another_key(part, monkeypatch):
    here = key_of(**FACTS)
    if part == "code":
        read = Path.read_bytes
        monkeypatch.setattr(Path, "read_bytes", lambda self: read(self) + b"#" * (self.name == "moments.py"))
    else:
        monkeypatch.setattr(cache, "version", lambda name: "0.0" if name == "scipy" else "1.0")
    cache._installation.cache_clear()
    try:
        assert key_of(**FACTS) != here
    finally:
        monkeypatch.undo()
        cache._installation.cache_clear()
    assert key_of(**FACTS) == here


def prepared(**numbers):
    population = ja.Federated(**{"clients": 8, "variants": 16, "rounds": 1, "batch_size": 4} | numbers)
    return ja.Audit(population=population, aggregator=ja.SecureSum(), attack=ja.GaussianLRT()).prepare(0)


def weights(**numbers):
    return prepared(**numbers).cells[0].knowledge.weights


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A cache in which one recipe has been."""
    folder = str(tmp_path_factory.mktemp("filled"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXAUDIT_CACHE", folder)
        weights()
    return folder


# Fields that decide what the server learns from, each with a value that leaves the others alone.
CHANGES = [
    {"fit_updates": 64},
    {"learning_rate": 0.25},
    {"rounds": 2},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_recipe_never_gets_what_another_one_computed(change, filled, monkeypatch):
    """The same weights to the bit, whether another recipe filled the cache before or nothing is remembered."""
    monkeypatch.setenv("JAXAUDIT_CACHE", filled)
    cached = weights(**change)
    monkeypatch.setenv("JAXAUDIT_CACHE", "off")
    np.testing.assert_array_equal(cached, weights(**change))


def test_a_remembered_audit_is_the_same_audit():
    first, again = (weights(pair="worst") for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_pools_of_many_updates_are_not_mixed_up(monkeypatch):
    """More updates than numbers: the covariance itself is remembered, and only its key tells whose it is."""
    many = {"variants": 128, "rounds": 0}
    kept = [prepared(**many, fit_updates=updates).responses.fit.moments(7)[0] for updates in (1024, 768)]
    monkeypatch.setenv("JAXAUDIT_CACHE", "off")
    fresh = prepared(**many, fit_updates=768).responses.fit.moments(7)[0]
    assert kept[0].samples != kept[1].samples == fresh.samples
    np.testing.assert_array_equal(kept[1].mean, fresh.mean)
    np.testing.assert_array_equal(kept[1].covariance.variances, fresh.covariance.variances)
