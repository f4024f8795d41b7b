"""Games for the speed benchmarks: random tables, pools held in memory, and the exact law of a sum."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

import jaxaudit as ja
from jaxaudit.audit import Cell, Prepared
from jaxaudit.game import Game, SumParams, SumProgram
from jaxaudit.player import Player, play_block
from jaxaudit.populations.pool import PoolSums, RecordedPool, TableParams
from jaxaudit.populations.seating import seated
from jaxaudit.populations.source import products
from jaxaudit.protocols import Responses
from jaxaudit.random import CERTIFY, numbered
from jaxaudit.types import ABSENT, LinearTest, Pair, Range, Server

# Scores of a random table lie in [-_LARGEST, _LARGEST); the target adds 0 or _END.
_LARGEST, _END, _SEED = 1000, 500, 0


def drawn(cohort: str, clients: int, terms, columns: int = 1, each=1, dropout: float = 0.0) -> Game:
    """A game on a random table of integers.

    Args:
      cohort: how the seats find their clients.
      clients: of the pool.
      terms: others in the sum: of all columns, or of each.
      columns: scores of a trial.
      each: updates of a client: of all, or i64[clients].
      dropout: probability that a client sends nothing.

    Returns:
      Game, of one cell per column.
    """
    each = np.broadcast_to(each, clients)
    first = np.concatenate([[0], np.cumsum(each)[:-1]])
    terms = tuple(np.broadcast_to(terms, columns).tolist())
    seating, groups = seated(cohort, max(terms), first[None], each[None], dropout)
    table = np.random.default_rng(0).integers(-_LARGEST, _LARGEST, size=(columns, each.sum()), dtype=np.int32).T
    ends = jnp.zeros((2, columns), jnp.int32).at[1].set(_END)
    ones = np.ones(columns)
    return Game(
        SumProgram(PoolSums(seating, terms)),
        SumParams(TableParams(jnp.asarray(table), groups), ends),
        np.arange(columns),
        scale=ones,
        slack=0 * ones,
        nested=ones > 0,
        distance=ones,
    )


@cache
def _mesh():
    return jax.make_mesh((1,), ("trials",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])


def block(game: Game, trials: int):
    """Arguments of a block of at least so many trials on one device: (mesh, width, room), (seed, ..., each)."""
    width = game.program.width(game.params)
    room = whole_batches(game, trials) // width
    return (_mesh(), width, room), tuple(map(jnp.uint32, (_SEED, CERTIFY, 0, 0, room)))


def keys(game: Game, trials: int) -> jax.Array:
    """Keys of about so many trials, whole batches of them: i32[n, 2, columns]."""
    where, named = block(game, trials)
    return play_block(game.program, *where, game.params, *named).block_until_ready()


def player(devices: int = 1) -> Player:
    """Plays on the first devices, and reports to nobody."""
    return Player(jax.devices()[:devices], _SEED, lambda name, trials: lambda done: None)


def count(game: Game, trials: int, thresholds: int = 200, by: Player | None = None) -> list[ja.bounds.Counts]:
    """Errors of the first trials at thresholds over four standard deviations of the sum."""
    seats = np.array(game.program.draws.noise_terms)[:, None]
    reach = 4 * np.sqrt(seats) * _LARGEST / np.sqrt(3)
    return (by or player()).count(game, "certify", Range(0, trials), reach * np.linspace(-1, 1, thresholds))


def replayed(game: Game, trials: int) -> np.ndarray:
    """The same sums of the first trials, from the list of who sits where, added up by NumPy: i64[n, columns]."""
    draws, pool = game.program.draws, game.params.pool
    rows = seats(draws.seating, pool.groups, trials)[:, 0]
    found = np.where((rows == ABSENT)[..., None], 0, np.asarray(pool.table, np.int64)[rows])
    sums = np.cumsum(found, axis=1)
    taken = [draws.seating.of(one) for one in draws.noise_terms]
    return np.stack([sums[:, last - 1, column] for column, last in enumerate(taken)], axis=1)


def seats(seating, groups, trials: int) -> np.ndarray:
    """Rows of the others in the first trials: i32[n, rounds, seats]."""

    def one(trial):
        return seating.rows(groups, numbered(jnp.uint32(_SEED), jnp.uint32(CERTIFY), jnp.uint32(0), trial))

    return np.asarray(jax.jit(jax.vmap(one))(jnp.arange(trials, dtype=jnp.uint32)))


def tails(table: np.ndarray, terms: int) -> tuple[np.ndarray, np.ndarray]:
    """The exact law of a sum of integers drawn with replacement: values, and probabilities to reach each of them."""
    lowest = int(table.min())
    weights = np.bincount(table.ravel() - lowest) / table.size
    support = (len(weights) - 1) * terms + 1
    size = 1 << support.bit_length()
    law = np.fft.irfft(np.fft.rfft(weights, size) ** terms, size)[:support]
    return lowest * terms + np.arange(support), np.cumsum(law[::-1])[::-1]


def agree_with_law(sums: np.ndarray, table: np.ndarray, terms: int) -> None:
    """Assert that tails of sums have the frequencies of the exact law; false alarm below 1e-5."""
    values, reach = tails(table, terms)
    for chance in (0.9, 0.5, 0.1, 0.01):
        value = values[np.searchsorted(-reach, -chance)]
        exact = reach[np.searchsorted(values, value)]
        seen = np.count_nonzero(sums >= value)
        z = (seen - len(sums) * exact) / np.sqrt(len(sums) * exact * (1 - exact))
        assert abs(z) < 5, f"P(sum ≥ {value}) is {exact:.4f}, seen {seen} in {len(sums)}"


@dataclass(frozen=True, eq=False)
class Held:
    """Updates in memory, one for each client or as `sizes` says: a source of a pool.

    Attributes:
      updates: f32[n, dim].
      sizes: i64[clients].
      key: None, so that nothing is remembered.
    """

    updates: np.ndarray
    sizes: np.ndarray
    key: None = None

    @property
    def dim(self) -> int:
        """Dimension of an update."""
        return self.updates.shape[1]

    def freedom(self, groups: int) -> int:
        """Rank that differences within clients can reach."""
        return min(int(self.sizes[:groups].sum()) - groups, self.dim)

    def rows(self, first: int, last: int) -> np.ndarray:
        """The updates of clients `first` to `last - 1`."""
        edges = np.concatenate([[0], np.cumsum(self.sizes)])
        return self.updates[edges[first] : edges[last]]

    def project(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Products in float64, and what that rounds away."""
        return products(self, weights)


def prepared(updates: np.ndarray, terms: Sequence[int], pair: np.ndarray, test: LinearTest, **pool) -> Prepared:
    """An audit of one round that is ready to be played, with weights from elsewhere.

    Args:
      updates: f32[n, dim].
      terms: others in the sum; one cell for each number.
      pair: f32[2, dim], the candidates.
      test: the score.
      **pool: fields of RecordedPool: `cohort`, `dropout`; and `sizes`, the updates of each client.

    Returns:
      Prepared.
    """
    source = Held(updates, np.asarray(pool.pop("sizes", np.ones(len(updates), int))))
    fields = {"cohort": "with_replacement", "what": "updates", "clients": None} | pool
    certify = RecordedPool((source,), noise_terms=max(terms), **fields)
    candidates = Pair("given", pair[:1], pair[1:], adjacency="", source="")
    cells = tuple(Cell(Server(candidates, one, ""), {"": test}, "") for one in terms)
    audit = ja.Audit(population=None, aggregator=ja.SecureSum(), attack=ja.GaussianLRT())
    responses = Responses(
        certify, certify, tuple(one + 1 for one in terms), lambda moments: (candidates,), real="", knows={}
    )
    return Prepared(audit, responses, cells, {})


def linear(weights: np.ndarray, updates_mean: np.ndarray, pair: np.ndarray) -> LinearTest:
    """Weights as the score of a Gaussian likelihood-ratio test."""
    middle = pair.astype(np.float64).mean(axis=0)
    return LinearTest(weights[None], np.array([weights @ updates_mean]), np.array([weights @ middle]))


def sums_of(game: Game, draws: int, terms: int) -> Callable[[], int]:
    """A run of whole batches, sums alone, of about so many draws; it returns how many they were."""
    trials = whole_batches(game, draws // terms)
    return lambda: keys(game, trials).shape[0] * terms


def counts_of(game: Game, draws: int, terms: int, devices: int = 1) -> Callable[[], int]:
    """The same with counting, as a user's run does it."""
    trials, by = max(1, draws // terms), player(devices)

    def run():
        count(game, trials, by=by)
        return trials * terms

    return run


def whole_batches(game: Game, trials: int) -> int:
    """About so many trials, at least one batch of them."""
    width = game.program.width(game.params)
    return width * max(1, round(trials / width))


def agree(game: Game, draws: int, terms: int) -> float:
    """Assert that the sums of `sums_of` are NumPy's over the listed rows; returns the seconds of the first call."""
    began = time.perf_counter()
    found = keys(game, whole_batches(game, draws // terms))
    first_s = time.perf_counter() - began
    ours = np.asarray(found[:300, 0])
    assert np.array_equal(ours, replayed(game, len(ours)))
    return first_s
