"""A mechanism whose ε is known, at 1e8 and 1e9 trials a side; and the normal numbers behind it beyond six deviations.

python benchmarks/gaussian.py [--quick] [--out results/gaussian.md]

One other client sends a standard normal number, and the target -1/2 or 1/2: the scores are normal, one standard
deviation apart. Then draws are counted in both tails, by the engine, and of both numbers that a block of words gives.
A count more than four standard deviations from the normal law fails the run, where at least five are expected: with a
correct sampler once in 1,000 runs.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from measure import Page, cores, facts, options
from scipy.stats import norm

import jaxaudit as ja
from jaxaudit.bounds import gaussian_epsilon, rounded_down
from jaxaudit.devices import prepare
from jaxaudit.player import Player
from jaxaudit.types import Range

DELTA, SEEDS, LEVELS = 1e-5, range(5), (4.5, 5.0, 5.2, 5.5, 6.0)
# Trials of a run, and what the mean of its bounds should reach.
TARGETS = {10**8: 4.05, 10**9: 4.22}


def audit(folder, h0, h1):
    """One other client with independent standard normal coordinates."""
    pair = str(Path(folder) / "pair.npz")
    np.savez(pair, h0=np.float32(h0), h1=np.float32(h1))
    population = ja.Synthetic(law="gaussian", dim=len(h0), clients=2, pair=pair)
    return ja.Audit(population=population, aggregator=ja.SecureSum(), attack=ja.GaussianLRT())


def certified(one, trials):
    """The row of a number of trials: all seeds, one after the other."""
    bounds, seconds = [], []
    for seed in SEEDS:
        began = time.perf_counter()
        (bound,) = ja.run(one, trials=trials, seed=seed, deltas=(DELTA,)).bounds
        seconds.append(time.perf_counter() - began)
        bounds.append(bound.epsilon)
    mean, wall_s, target = np.mean(bounds), np.median(seconds), TARGETS.get(trials)
    return (
        f"{trials:,}",
        rounded_down(mean),
        f"≥ {target}: {'met' if mean >= target else 'missed'}" if target else "–",
        f"{np.std(bounds, ddof=1) / np.sqrt(len(bounds)):.3f}",
        f"{rounded_down(min(bounds))} to {rounded_down(max(bounds))}",
        f"{wall_s:.2f}, {seconds[0]:.2f}",
        f"{trials / wall_s / 1e6:.0f}",
        f"{peak_mib():,.0f}",
    )


def counted(folder, draws):
    """Seconds, the rows of the tails, and the largest departure of a count."""
    levels, each, above, below, began = np.array(LEVELS), draws // 2, 0, 0, time.perf_counter()
    player = Player(tuple(jax.local_devices()), SEEDS[0], lambda name, trials: lambda done: None)
    # The two coordinates are the two numbers of a block, counted one after the other: two scores at once of so short
    # a vector take ten times as long.
    for axis in np.eye(2):
        prepared = audit(folder, 0 * axis, axis).prepare(SEEDS[0])
        game, (column,) = prepared.project(), prepared.columns()
        # The score under H0 where the other client sends 0, and what a standard deviation adds to it.
        start, slope = float(game.params.ends[0, 0] * game.scale[0]), np.linalg.norm(column.test.weights)
        thresholds = start + slope * np.concatenate([levels, -levels])
        (counts,) = player.count(game, "certify", Range(0, each), [thresholds])
        high, not_low = np.split(counts.errors_h0, 2)
        above, below = above + high, below + each - not_low
    took, rows, worst = time.perf_counter() - began, [], 0.0
    for level, *found in zip(LEVELS, above, below):
        expected = norm.sf(level) * 2 * each
        z = (np.array(found) - expected) / np.sqrt(expected)
        # So many standard deviations say little of the smallest counts.
        worst = max(worst, np.abs(z).max() if expected >= 5 else 0.0)
        both = (f"{seen:,} ({off:+.2f})" for seen, off in zip(found, z))
        rows.append((level, f"{expected:,.1f}", *both, f"{reached(level) / norm.sf(level) - 1:+.1e}"))
    return took, rows, worst


def reached(level):
    """P(number ≥ level) of the Box-Muller transform of 32-bit words, every radius that reaches it enumerated."""
    word = np.arange(int(2**32 * np.exp(-(level**2) / 2)) + 1)
    radius = np.sqrt(-2 * np.log((word + 0.5) * 2.0**-32))
    return np.arccos(level / radius[radius >= level]).sum() / np.pi * 2.0**-32


def peak_mib():
    """Of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def main():
    chosen = options("Certified ε of a Gaussian mechanism at many trials, and the tails of its sampler.")
    prepare(distributed=False)
    sizes, draws = ((10**5, 10**6), 10**7) if chosen.quick else (TARGETS, 10**10)
    page = Page("A Gaussian mechanism at many trials")
    page.say(
        f"{facts()}{'; small sizes, of which times say little' * chosen.quick}.",
        "",
        f"## Certified ε at δ = {DELTA:g}",
        "",
        f"`ja.run` on N(-1/2, 1) against N(1/2, 1), whose ε is {gaussian_epsilon(DELTA, 1.0):.3f}: bounds of 95 % "
        f"confidence from seeds {SEEDS[0]} to {SEEDS[-1]}, rounded down, on {len(cores())} cores. Seconds are wall "
        "time of a whole run, pilot included: the median, and the first, which may compile. Memory is the peak of "
        "the process so far.",
        "",
    )
    with tempfile.TemporaryDirectory() as folder:
        one = audit(folder, [-0.5], [0.5])
        columns = "trials a side | mean ε ≥ | target | standard error | lowest to highest | s a run | 10⁶ trials/s"
        page.table(f"{columns} | MiB", (certified(one, trials) for trials in sizes))
        took, rows, worst = counted(folder, draws)
    page.say(
        "## The normal numbers",
        "",
        f"{draws:,} draws of seed {SEEDS[0]} beyond z standard deviations, counted in both tails by the engine in "
        f"{took:.0f} s; in brackets standard deviations of the count from the normal law. `jax.random.normal` in "
        "float32 ends at 5.4. Last, how far the law of the sampler is from the normal one, with every 32-bit word "
        f"enumerated in float64; its words end at {np.sqrt(66 * np.log(2)):.2f}.",
        "",
    )
    page.table("z | expected in a tail | above z | below -z | sampler / normal law - 1", rows)
    page.say(f"At most {worst:.2f} standard deviations where at least 5 are expected (≤ 4).", "")
    assert worst <= 4, worst
    page.write(chosen)


if __name__ == "__main__":
    main()
