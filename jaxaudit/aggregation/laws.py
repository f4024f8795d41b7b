"""Laws of integer noise: exact probabilities on the host, alias tables to draw from on the device."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import fft, special

from ..random import Ticket, words

# What is cut off a law weighs less than this, and by Chernoff's bound exp(-_CHERNOFF) is half of it.
_TAIL = 2.0**-60
_CHERNOFF = 61 * np.log(2)

# Absolute errors of a probability after an FFT of up to 2^24 numbers that add up to 1.
_ROUNDING = 2.0**-62

# A column of a table has 2^32 units: of 2^20 columns there are 2^52, so float64 holds all probabilities exactly.
_COLUMN, _MIN_COLUMNS, _MAX_COLUMNS = 2**32, 2**8, 2**20
_MAX_ATOMS = 2**24


@dataclass(frozen=True, eq=False)
class IntegerLaw:
    """The law of a random integer of bounded support.

    Attributes:
      low: the smallest value.
      pmf: f64[k], probabilities of low, low + 1, ...
      family: which law it is; "table" for one that is known by its probabilities only.
      parameter: > 0, variance parameter of a discrete Gaussian or Skellam law, trials of a binomial one.
    """

    low: int
    pmf: np.ndarray
    family: Literal["discrete_gaussian", "skellam", "binomial", "table"] = "table"
    parameter: float = 0.0

    @property
    def values(self) -> np.ndarray:
        """i64[k], all possible values."""
        return self.low + np.arange(self.pmf.size)

    @property
    def mean(self) -> float:
        """The mean, 0 for all families."""
        return float(self.values @ self.pmf)

    @property
    def variance(self) -> float:
        """The variance; of a discrete Gaussian it is below the parameter."""
        return float((self.values - self.mean) ** 2 @ self.pmf)

    @property
    def deviation(self) -> float:
        """The standard deviation."""
        return float(np.sqrt(self.variance))

    @property
    def reach(self) -> int:
        """The largest magnitude."""
        return int(max(-self.low, self.low + self.pmf.size - 1))

    def sum_of(self, n: int) -> "IntegerLaw":
        """The law of the sum of independent draws.

        Args:
          n: how many draws, >= 1.

        Returns:
          IntegerLaw: of the same family for Skellam and binomial laws. Others are convolved by the FFT, to within
          1e-15 n of the truth in total variation; tails that weigh less than that are cut or rounding errors.

        Raises:
          ValueError: for n < 1, or where the sum has more than 2^24 values.
        """
        if n < 1:
            raise ValueError(f"a sum has {n} draws, allowed are 1 or more")
        if n == 1:
            return self
        if self.family in ("skellam", "binomial"):
            return (skellam if self.family == "skellam" else binomial)(n * self.parameter)
        # Centred: phases near zero keep their precision when they are multiplied by n. What is further away than
        # Bernstein's inequality allows weighs < 2^-60, and folds over.
        centre = round(self.mean)
        ends = np.array([self.low, self.low + self.pmf.size - 1.0]) - centre
        away = n * abs(self.mean - centre) + np.sqrt(2 * _CHERNOFF * n * self.variance) + _CHERNOFF * np.ptp(ends) / 3
        first, last = np.clip(n * ends, np.floor(-away), np.ceil(away))
        _refuse_wide(last - first + 1, _MAX_ATOMS, np.sqrt(n) * self.deviation)
        window = np.arange(int(first), int(last) + 1)
        size = fft.next_fast_len(max(window.size, self.pmf.size), real=True)
        one = np.zeros(size)
        one[(self.values - centre) % size] = self.pmf
        total = fft.irfft(fft.rfft(one) ** n, size)[window % size]
        # Smaller probabilities are rounding errors, and together no more than they.
        return _trimmed(n * centre + int(first), np.where(total > _ROUNDING, total, 0.0))


def discrete_gaussian(variance: float) -> IntegerLaw:
    """The discrete Gaussian law: the integer x has probability proportional to exp(-x² / (2 variance)).

    Args:
      variance: the parameter σ², > 0. The law's own variance is smaller: by less than 1e-6 of it for σ² >= 1, but
        σ² = 0.01 leaves nothing but zeros.

    Returns:
      IntegerLaw: what is cut off weighs less than 2^-60, here and below.

    Raises:
      ValueError: for a parameter out of range, or where the law has more than 2^24 values; here and below.
    """
    # log E exp(sX) <= variance s² / 2, for Gaussian weights sum to the most where they are centred on an integer.
    reach = _reach(variance, 0.0)
    weights = np.exp(-0.5 * np.arange(-reach, reach + 1.0) ** 2 / max(variance, 1e-300))
    return _trimmed(-reach, weights, "discrete_gaussian", variance)


def skellam(variance: float) -> IntegerLaw:
    """The symmetric Skellam law: the difference of two Poisson draws with mean variance / 2.

    Args:
      variance: > 0.

    Returns:
      IntegerLaw: relative error of a probability below 1e-12.
    """
    # log E exp(sX) = variance (cosh s - 1) <= variance s²/2 / (1 - s/3), so that P(X >= t) <= exp(-L) where
    # t = √(2 variance L) + L/3.
    reach = _reach(variance, _CHERNOFF / 3)
    k = np.arange(reach + 1.0)
    if variance < 2**16:
        half = special.ive(k, variance)
    else:
        # The uniform expansion of exp(-v) I_k(v), DLMF 10.41.3; its next term is below 0.3 / v³. Beyond 2^31 SciPy's
        # Bessel functions are NaN, and its Skellam law takes minutes.
        norm = np.hypot(k, variance)
        cosine = (k / norm) ** 2
        series = 1 + (3 - 5 * cosine) / (24 * norm) + (81 - 462 * cosine + 385 * cosine**2) / (1152 * norm**2)
        exponent = k**2 / (norm + variance) - k * np.arcsinh(k / variance)
        half = np.exp(exponent) * series / np.sqrt(2 * np.pi * norm)
    return _trimmed(-reach, np.concatenate([half[:0:-1], half]), "skellam", variance)


def binomial(trials: int) -> IntegerLaw:
    """The centred binomial law: heads in so many fair coins, less half of them.

    Args:
      trials: even, >= 2; the variance is trials / 4.

    Returns:
      IntegerLaw: relative error of a probability below 1e-12.
    """
    if trials < 2 or trials % 2:
        raise ValueError(f"trials is {trials}, allowed are even numbers from 2, for the law to be centred")
    half, reach = trials // 2, min(trials // 2, _reach(trials / 4, 0.0))
    # From the ratios p(k + 1) / p(k) = (half - k) / (half + k + 1): log gamma functions would cancel.
    k = np.arange(float(reach))
    side = np.exp(np.cumsum(np.log((half - k) / (half + k + 1))))
    return _trimmed(-reach, np.concatenate([side[::-1], [1.0], side]), "binomial", trials)


def total_variation(first: IntegerLaw, second: IntegerLaw) -> float:
    """Total variation distance of two laws, in [0, 1]."""
    low = min(first.low, second.low)
    size = max(law.low + law.pmf.size for law in (first, second)) - low
    one, other = (np.pad(law.pmf, (law.low - low, size - law.pmf.size - law.low + low)) for law in (first, second))
    return float(0.5 * np.abs(one - other).sum())


def _reach(variance: float, extra: float) -> int:
    """How far a law goes whose tail at √(2 variance L) + extra is at most exp(-L)."""
    if not variance > 0:
        raise ValueError(f"the variance of noise is {variance}, allowed are > 0")
    reach = np.ceil(np.sqrt(2 * _CHERNOFF * variance) + extra)
    _refuse_wide(2 * reach + 1, _MAX_ATOMS, np.sqrt(variance))
    return int(reach)


def _refuse_wide(atoms: float, allowed: int, deviation: float) -> None:
    """Raise ValueError for a law of too many values."""
    if not atoms <= allowed:
        raise ValueError(
            f"noise of deviation {deviation:.3g} steps needs a table of {atoms:.3g} entries, allowed are up to"
            f" {allowed:,}; use fewer bits, that is a larger step"
        )


def _trimmed(low: int, weights: np.ndarray, family="table", parameter: float = 0.0) -> IntegerLaw:
    """The law of these weights, less ends that together weigh under `_TAIL`."""
    ends = [int(np.searchsorted(np.cumsum(w), _TAIL / 2 * w.sum())) for w in (weights, weights[::-1])]
    kept = weights[ends[0] : weights.size - ends[1]]
    return IntegerLaw(low + ends[0], kept / kept.sum(), family, parameter)


class Table(NamedTuple):
    """A law to draw from: column i holds the value low + i and one other value, its alias.

    Attributes:
      low: i32[].
      threshold: u32[2^k], how many of the 2^32 units of a column are its own value's.
      alias: i32[2^k], the value that has the others.
    """

    low: jax.Array
    threshold: jax.Array
    alias: jax.Array


def table(law: IntegerLaw) -> Table:
    """The table of a law for Walker's alias method, made in integers: only probabilities are rounded.

    Args:
      law: of at most 2^20 values, for all families here deviations up to 57,000.

    Returns:
      Table: of 2^k columns, the fewest that hold the law, at least 2^8.

    Raises:
      ValueError: in one line, for a wider law.

    Guarantee:
      Draws follow `law_of(table)` exactly, given uniform words. Its probabilities are multiples of 2^-(32+k), within
      2^-33 of the law's in total variation, and none above 2^-(33+k) is lost.
    """
    _refuse_wide(law.pmf.size, _MAX_COLUMNS, law.deviation)
    columns = max(_MIN_COLUMNS, 1 << (law.pmf.size - 1).bit_length())
    # Rounded on a power of two up to 2^52. What is left over goes to the heaviest values; no light one is lost.
    units = np.rint(np.pad(law.pmf, (0, columns - law.pmf.size)) * (columns * _COLUMN)).astype(np.int64)
    rest = columns * _COLUMN - int(units.sum())
    heavy = np.argsort(-units, kind="stable")[: np.count_nonzero(units >= 2**21)]
    np.add.at(units, heavy[np.arange(abs(rest)) % heavy.size], np.sign(rest))
    units, threshold, alias = units.tolist(), [0] * columns, list(range(columns))
    small = [i for i in range(columns) if units[i] < _COLUMN]
    large = [i for i in range(columns) if units[i] > _COLUMN]
    # Columns still open have a whole column's units on average, so while one has fewer another has more.
    while small:
        i, j = small.pop(), large[-1]
        threshold[i], alias[i] = units[i], j
        units[j] -= _COLUMN - units[i]
        if units[j] <= _COLUMN:
            large.pop()
            if units[j] < _COLUMN:
                small.append(j)
    others = np.asarray(alias, np.int32) + np.int32(law.low)
    return Table(jnp.int32(law.low), jnp.asarray(np.asarray(threshold, np.uint32)), jnp.asarray(others))


def law_of(table: Table) -> IntegerLaw:
    """The law that draws from a table follow, exactly: its probabilities are multiples of 2^-52 or of more."""
    low, threshold, alias = int(table.low), np.asarray(table.threshold, np.int64), np.asarray(table.alias, np.int64)
    units = threshold.copy()
    np.add.at(units, alias - low, _COLUMN - threshold)
    first, last = np.flatnonzero(units)[[0, -1]]
    return IntegerLaw(low + int(first), units[first : last + 1] / (_COLUMN * units.size))


def draw(table: Table, ticket: Ticket, size: int) -> jax.Array:
    """Independent draws from a table.

    Args:
      table: from `table`.
      ticket: its words 0 to 2 size - 1 are read, two for a draw.
      size: number of draws, static.

    Returns:
      i32[size].
    """
    pairs = words(ticket, 0, 2 * size).reshape(size, 2)
    bits = (table.threshold.shape[0] - 1).bit_length()
    column = (pairs[:, 0] >> jnp.uint32(32 - bits)).astype(jnp.int32)
    threshold = table.threshold.at[column].get(mode="promise_in_bounds")
    alias = table.alias.at[column].get(mode="promise_in_bounds")
    return jnp.where(pairs[:, 1] < threshold, table.low + column, alias)


def sample(law: IntegerLaw, generator: np.random.Generator | None, size: int) -> np.ndarray:
    """Independent draws on the host, by samplers that have nothing in common with the tables.

    Args:
      law: any.
      generator: None for fresh randomness of the system: the discrete Gaussian then comes from OpenDP, an optional
        package, which samples it exactly (10 µs a draw) and cannot be seeded.
      size: number of draws.

    Returns:
      i64[size]: Poisson differences for Skellam and coins for binomial laws, by NumPy; else the inverse of the
      cumulative probabilities, whose steps are 2^-53.
    """
    if law.family == "discrete_gaussian" and generator is None:
        try:
            import opendp.prelude as dp
        except ImportError as error:
            raise ImportError("OpenDP samples this law and is missing; pip install 'jaxaudit[opendp]'") from error
        dp.enable_features("contrib")
        space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T="f64")
        return np.asarray(dp.m.make_gaussian(*space, scale=float(np.sqrt(law.parameter)))([0] * size), np.int64)
    generator = np.random.default_rng(generator)
    if law.family == "skellam":
        return generator.poisson(law.parameter / 2, size) - generator.poisson(law.parameter / 2, size)
    if law.family == "binomial":
        return generator.binomial(int(law.parameter), 0.5, size) - int(law.parameter) // 2
    return generator.choice(law.values, size, p=law.pmf)
