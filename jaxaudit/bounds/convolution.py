r"""A certain bracket for the upper tail of a sum of independent terms: lattice, tilt, FFT, and all their errors.

*Lattice.* Groups of terms are enumerated, and the value of each group rounded down to a multiple of a cell h, a power
of two (so that no division rounds). The lattice sum is at most S, and S exceeds it by at most `widening`.
*Tilt.* P(K = k) = M(θ) e^{-θhk} P_θ(K = k) for the lattice sum hK. Tilted laws that peak at several depths of the
tail turn small absolute errors into small relative ones; at each threshold the tightest limits are taken.
*Transform.* FFT of every group, product, inverse FFT. In a radix-2 (or 4) FFT every input reaches every output by one
path of log2(N) stages. A stage multiplies by a twiddle, itself computed with error below 2 + √5 units u = 2^-53, and
adds: below 8u in all. So an output is wrong by at most 8 u log2(N) Σ|input|, whatever the cancellation.
*Wrap-around.* Tilted mass outside the period is below e^-36 a side by Chernoff's inequality.

Reference:
  Dembo & Zeitouni (1998), Large Deviations, 2.2 (tilt, Chernoff); Higham (2002), Accuracy and Stability, 24 (FFT);
  Koskela, Jälkö & Honkela (2020), arXiv:1906.03049, and Gopi, Lee & Wutschitz (2021), arXiv:2106.02848 (convolution
  by FFT with a certain bracket, for privacy losses).
"""

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from scipy.fft import irfft, rfft
from scipy.special import log_ndtr

UNIT = 2.0**-53
# A group of terms is enumerated up to so many combinations of values: fewer transforms, and one rounding a group.
ATOMS = 2**18
# Cells of all the transforms of one tilt, and of one of them, unless `size` is given.
CELLS, SMALLEST, LARGEST = 2**24, 2**18, 2**22
# Values are rounded to 1 / FINE of a cell before a group adds them, exactly, as integers.
FINE = 2**12
# Tilts are so many standard deviations apart (a Gaussian tail at z has depth z²/2), up to DEEPEST of these steps.
STEP, DEEPEST = 3.0, 5
# Minus the logarithm of the tilted mass allowed outside the period, each side: less than the transform's own error.
ALIAS = 36.0
# Above every error by underflow, relative to the peak of a tilted law.
TINY = 1e-150


class Law(NamedTuple):
    """A sum, in distances from its smallest value.

    Attributes:
      terms: list of (distances f64[k] >= 0, log probabilities, times); constants are only in `low`.
      groups: list of (terms that are enumerated together, times).
      low, high: ends of the support of the sum.
      slop: by how much the distances may be off, all copies together.
      grain: a power of two that divides every distance.
      tilts: f64[k], increasing, of both signs, wide enough for bulk and outliers; empty for a constant.
      cumulants: f64[3, k], K(θ) = log E exp(θ (S - low)) at each tilt, and its first two derivatives.
    """

    terms: list
    groups: list
    low: Fraction
    high: Fraction
    slop: Fraction
    grain: float
    tilts: np.ndarray
    cumulants: np.ndarray

    @property
    def range(self) -> float:
        """Length of the support."""
        return float(self.high - self.low)


def laws(terms) -> tuple[Law, Law]:
    """The law of a sum and that of its negative, of (values f64[k], log probabilities f64[k], times)."""
    return _law(terms), _law([(-values, log_mass, times) for values, log_mass, times in terms])


def _law(terms):
    low = high = slop = Fraction(0)
    grain, spread = math.inf, []
    for values, log_mass, times in terms:
        start, stop = values.min(), values.max()
        low, high = low + times * Fraction(float(start)), high + times * Fraction(float(stop))
        if start == stop:
            continue
        distances = values - start
        # What the subtraction rounded away, exactly (Knuth's two-sum).
        back = distances - values
        if np.any((values - (distances - back)) - (start + back)):
            slop += times * Fraction(UNIT) * Fraction(float(distances.max()))
        mantissa, exponent = np.frexp(distances[distances > 0])
        digits = np.ldexp(mantissa, 53).astype(np.int64)
        grain = min(grain, np.ldexp((digits & -digits).astype(np.float64), exponent - 53).min())
        spread.append((distances, log_mass, times))
    if 0 < high - low < 1e-150:
        raise ValueError(f"the sum ranges over {float(high - low)}, allowed is 0 or at least 1e-150; rescale it")
    tilts, cumulants = np.zeros(0), np.zeros((3, 0))
    if spread:
        reach = float(high - low)
        deviation = max(math.sqrt(_cumulants(spread, [0.0])[2, 0]), 2.0**-30 * reach)
        positive = np.geomspace(1e-5, 1e3, 50) / deviation
        # With |θ| reach <= 2^30, the float64 value of K(θ) is within 1/8 of the true one.
        positive = positive[positive * reach <= 2.0**30]
        tilts = np.concatenate([-positive[::-1], [0.0], positive])
        cumulants = _cumulants(spread, tilts)
    return Law(spread, _groups(spread), low, high, slop, grain, tilts, cumulants)


def _groups(terms):
    groups, single = [], []
    for term in terms:
        distances, _, times = term
        block = max(1, int(math.log(ATOMS) / math.log(distances.size) + 1e-9))
        whole, rest = divmod(times, block)
        groups += [([term] * block, whole)] if whole else []
        single += [term] * rest
    atoms = ATOMS + 1
    for term in sorted(single, key=lambda term: term[0].size):
        if (atoms := atoms * term[0].size) > ATOMS:
            groups.append(([], 1))
            atoms = term[0].size
        groups[-1][0].append(term)
    return groups


def _cumulants(terms, tilts):
    """K(θ) and its first two derivatives, f64[3, k]."""
    sizes = [distances.size for distances, _, _ in terms]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    distances, log_mass = (np.concatenate([term[part] for term in terms]) for part in (0, 1))
    times = np.array([times for _, _, times in terms], np.float64)

    def at(tilt):
        exponents = tilt * distances + log_mass
        top = np.maximum.reduceat(exponents, starts)
        weights = np.exp(exponents - np.repeat(top, sizes))
        mass = np.add.reduceat(weights, starts)
        mean = np.add.reduceat(weights * distances, starts) / mass
        square = np.add.reduceat(weights * distances * distances, starts) / mass
        return times @ (top + np.log(mass)), times @ mean, times @ np.maximum(square - mean * mean, 0)

    return np.array([at(tilt) for tilt in tilts]).T


def quantiles(law):
    """Thresholds at about even log rates and even rates in the upper tail, by the saddlepoint approximation."""
    if law.low == law.high:
        return np.array([float(law.low)])
    right = law.tilts >= 0
    tilts, (log_mgf, mean, variance) = law.tilts[right], law.cumulants[:, right]
    # Bahadur & Rao: P(S >= mean of the tilted law) is about exp(K - θ K') exp(λ²/2) Φ(-λ), λ = θ √K''.
    root = tilts * np.sqrt(variance)
    log_rate = np.minimum.accumulate(log_mgf - tilts * mean + root**2 / 2 + log_ndtr(-root))
    levels = np.concatenate([np.linspace(-30 * math.log(10), math.log(0.5), 250), np.log(np.linspace(0.01, 0.5, 64))])
    return float(law.low) + np.interp(levels, log_rate[::-1], mean[::-1])


def upper_tail(law, inner, outer, size):
    """Lower limits of P(S >= inner) and upper limits of P(S >= outer), thresholds as fractions."""
    lower = np.array([float(t <= law.low) for t in inner])
    upper = np.array([float(t <= law.high) for t in outer])
    near = np.array([float(t - law.low) for t in outer if law.low < t <= law.high])
    if law.low == law.high or not near.size:
        return lower, upper
    right = law.tilts >= 0
    tilts, (log_mgf, mean, _) = law.tilts[right], law.cumulants[:, right]
    steps = np.floor(np.sqrt(-2 * np.min(log_mgf - tilts * near[:, None], axis=1, initial=0)) / STEP)
    steps = np.unique(np.minimum(np.concatenate([[0], steps, steps + 1]), DEEPEST))
    depth = np.maximum.accumulate(np.sqrt(np.maximum(2 * (tilts * mean - log_mgf), 0)))
    groups = sum(times for _, times in law.groups)
    copies = sum(times for _, _, times in law.terms)
    # Cells that a sum may lose by rounding.
    lost = groups + copies / FINE
    if size is None:
        size = min(max(CELLS // len(law.groups), SMALLEST), LARGEST)
    size = _power_of_two(size)
    if not 2 * lost + 2**10 <= size <= 2**26:
        raise ValueError(f"size must be in [{2 * math.ceil(lost) + 2**10}, 2^26] for {copies} terms, got {size:.0f}")
    cell, lattice = None, None
    for tilt in np.unique(np.interp(STEP * steps, depth, tilts)):
        first, last = _window(law, tilt)
        # As fine as the period allows, but no finer than shifts the tail by 0.2 % or than distances resolve.
        fine = 0.002 / (groups * max(tilt, 8 / (last - first)))
        coarse = max((last - first) / (size - lost - 4), fine / 2, 2.0**-48 * law.range)
        new = max(_power_of_two(coarse), law.grain)
        if new != cell:
            cell, lattice = new, _lattice(law, new)
        widening = 0.0 if law.grain >= cell else cell * lost
        start = math.floor((first - widening) / cell) - 1
        cells = int(_power_of_two((last - first + widening) / cell + 4))
        # The law of hK tilted by e^{θhK} is at most e^{θ widening} times that tilted by e^{θS}.
        alias = 2 * math.exp(min(tilt * widening - ALIAS, 0))
        inside = _indices(inner, law.low - law.slop, cell, law.range)
        outside = _indices(outer, law.low + law.slop + Fraction(widening), cell, law.range)
        limits = _tilted_limits(lattice, tilt * cell, start, cells, alias, inside, outside)
        lower, upper = np.maximum(lower, limits[0]), np.minimum(upper, np.maximum(limits[1], 1e-300))
    return lower, upper


def _power_of_two(number):
    """The smallest at or above a number."""
    mantissa, exponent = math.frexp(number)
    return math.ldexp(1.0, exponent - (mantissa == 0.5))


def _indices(thresholds, origin, cell, span):
    """First cell at or above each threshold; of one beyond the support, the nearest that is beyond it."""
    most, cell = math.ceil(span / cell) + 2, Fraction(cell)
    return np.array([min(max(math.ceil((t - origin) / cell), 0), most) for t in thresholds])


def _window(law, tilt):
    r"""Distances between which the tilted sum lies, but for mass e^-ALIAS a side.

    For θ' > θ, P_θ(S ≥ b) ≤ exp(K(θ') - K(θ) - (θ' - θ) b), and likewise below; one nat covers the errors of K.
    """
    here = _cumulants(law.terms, [tilt])[0, 0]
    above, below, log_mgf = law.tilts > tilt, law.tilts < tilt, law.cumulants[0]
    last = np.min((log_mgf[above] - here + ALIAS + 1) / (law.tilts[above] - tilt), initial=law.range)
    first = np.max((here - log_mgf[below] - ALIAS - 1) / (tilt - law.tilts[below]), initial=0.0)
    return float(first), float(last)


def _lattice(law, cell):
    """For every group (index i64[k] of the cell, log probabilities f64[k], times)."""
    lattice = []
    for terms, times in law.groups:
        index, log_mass = np.zeros(1, np.int64), np.zeros(1)
        for distances, log_probability, _ in terms:
            floor = np.floor(distances * (FINE / cell)).astype(np.int64)
            index = np.add.outer(index, floor).ravel()
            log_mass = np.add.outer(log_mass, log_probability).ravel()
        lattice.append((index // FINE, log_mass, times))
    return lattice


def _transform(lattice, tilt, cells):
    """Transform of the tilted lattice sum, a bound of the error of a cell of its inverse, log M and its error."""
    product, bound = np.ones(cells // 2 + 1, np.complex128), np.ones(cells // 2 + 1)
    step = 8 * UNIT * math.log2(cells) * 1.01
    log_mgf = slack = copies = 0.0
    for index, log_mass, times in lattice:
        exponents = log_mass + tilt * index
        top = exponents.max()
        weights = np.exp(exponents - top)
        mass = weights.sum()
        transform = rfft(np.bincount(index & (cells - 1), weights / mass, minlength=cells))
        product *= _power(transform, times)
        bound *= _power(np.abs(transform) + step, times)
        log_mgf += times * (top + math.log(mass))
        # exp and log err by units of their arguments, the sum of a cell by one unit for each atom.
        largest = np.abs(log_mass).max() + tilt * index.max() + abs(log_mgf)
        slack += times * UNIT * (index.size + 64 + 32 * largest)
        copies += times
    # |Π(z + e) - Π z| <= Π(|z| + |e|) - Π|z|; every product and modulus, of `copies` factors, rounds by 16u a factor.
    size = np.abs(product)
    error = np.maximum(bound - size, 0) + (16 * UNIT * copies + step) * bound
    return product, 2.02 * error.sum() / cells + TINY, log_mgf, slack


def _power(base, times):
    """By repeated squaring; relative error (times - 1) times that of one product."""
    result = None
    while times:
        if times & 1:
            result = base if result is None else result * base
        times >>= 1
        base = base * base if times else base
    return result


def _tilted_limits(lattice, tilt, start, cells, alias, inside, outside):
    """Lower limits of P(K >= inside) and upper limits of P(K >= outside), K the lattice sum on one tilted period."""
    product, error, log_mgf, slack = _transform(lattice, tilt, cells)
    furthest = max(inside.max(), outside.max(), start + cells)
    slack += UNIT * (2 * cells + 4096 + 8 * (abs(log_mgf) + tilt * furthest))
    # Errors of the law and of the sums over it multiply; `alias` leaves room for a factor e^(1/2).
    if slack > 0.5:
        return np.zeros(inside.shape), np.ones(outside.shape)
    slip = math.exp(2 * slack)
    mass = np.roll(np.maximum(irfft(product, cells), 0), -(start % cells))
    offset = np.arange(cells)
    centre = int(mass @ offset / mass.sum())
    reach = int(min(300 / tilt, cells)) if tilt > 0 else cells
    first, last = max(centre - reach, 0), min(centre + reach, cells)
    # All terms of Σ_{j >= i} e^{-θ (j - centre)} P_θ(j) have one sign: summing errs by a unit for each of them.
    weighted = mass * np.exp(-np.clip(tilt * (offset - centre), -700, 745))
    tail = np.append(np.cumsum(weighted[::-1])[::-1], 0.0)

    def tilted_back(place):
        """M e^{-θ place}, and E_θ[e^{-θ (K - place)}; K >= place] with the bound of its error."""
        left = cells - place
        geometric = left if tilt == 0 else np.expm1(-tilt * left) / np.expm1(-tilt)
        front = np.exp(np.minimum(log_mgf - tilt * (place + start), 700))
        return front, tail[place] * np.exp(tilt * (place - centre)), error * geometric

    place = inside - start
    front, value, wrong = tilted_back(np.clip(place, first, last))
    lower = front * np.maximum(value / slip - wrong * slip - alias - TINY, 0) / slip
    lower = np.where(place <= last, lower, 0)
    place = outside - start
    front, value, wrong = tilted_back(np.clip(place, first, last))
    upper = front * ((value + wrong) * slip + alias + TINY) * slip
    chernoff = np.exp(np.minimum(log_mgf - tilt * outside, 700)) * slip
    upper = np.minimum(np.where(place >= first, upper, 1), chernoff)
    return np.clip(lower, 0, 1), np.clip(upper, 0, 1)
