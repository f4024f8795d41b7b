"""What encodings, dropouts and noise leave of a membership audit, beside what accountants prove; tables for results/.

JAXAUDIT_DATA_DIR=DIR python benchmarks/channel.py [SECTION ...] [--out DIR]    SECTION: digits mnist worst tests; all

Every section keeps what it measured as JSON in DIR (results/channel by default); `channel_tables.py` makes the tables
and the figure of them.
"""

import argparse
import json
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import jax

import jaxaudit as ja
from jaxaudit.devices import prepare
from jaxaudit.encoded import EncodedPool

DELTA, CLIENTS, MULTIPLIERS = 1e-3, 60, (0.1, 0.3, 1.0, 3.0, 10.0)
NOISES = {"discrete Gaussian": ja.DiscreteGaussian, "Skellam": ja.Skellam}
# The clip bound is about what the longest quarter of the updates exceeds.
DATA = {
    "digits": ({"clients": CLIENTS}, 0.5, 0.25),
    "mnist": ({"clients": CLIENTS, "dataset": "mnist", "rounds": 30, "variants": 16, "fit_updates": 2048}, 0.9, 0.2),
}
RIDGES = (0.003, 0.03, 0.3, 3.0)
# Bits of a client's integers where noise is added: rounding then adds little to the sensitivity.
BITS = 12


def noisy(noise, bound, multiplier):
    """Clip, fixed point, and integer noise in shares."""
    steps = ja.Clip(norm=bound), ja.FixedPoint(clip_range=bound, bits=BITS), noise(deviation=multiplier * bound)
    return ja.SecureSum(stages=steps)


def channels(bound, reach):
    """(name, noise multiplier, aggregator, dropout)."""
    ring16 = ja.SecureSum(stages=(ja.FixedPoint(clip_range=reach),), ring_bits=16)
    ring8 = ja.SecureSum(stages=(ja.FixedPoint(clip_range=reach, rounding="stochastic"),), ring_bits=8)
    yield "plain sum", None, ja.SecureSum(), 0.0
    yield "16-bit ring, nearest", None, ring16, 0.0
    yield "8-bit ring, stochastic", None, ring8, 0.0
    yield "10 % dropouts", None, ja.SecureSum(), 0.1
    for name, noise in NOISES.items():
        for multiplier in MULTIPLIERS:
            yield name, multiplier, noisy(noise, bound, multiplier), 0.0


def measured(population, aggregator, attack, trials):
    """One audit: what is certified, and what is proved."""
    began = time.perf_counter()
    audit = ja.Audit(population=population, aggregator=aggregator, attack=attack)
    result = ja.run(audit, trials=trials, deltas=[DELTA])
    (bound,), claim = result.bounds, result.headline.claim
    return {
        "trials": trials,
        "projected": result.prepared.linear,
        "lower": bound.epsilon,
        "ceiling": bound.ceiling,
        "censored": bound.censored,
        "predicted": result.headline.distance and ja.bounds.gaussian_epsilon(DELTA, result.headline.distance),
        "upper": claim and claim.epsilons[0],
        "source": claim and claim.source,
        "setting": result.headline.cell.setting,
        "wall_s": time.perf_counter() - began,
    }


def membership(dataset, direct, general):
    """One record of a client's batch, through every channel."""
    fields, bound, reach = DATA[dataset]
    attack = ja.GaussianLRT(ridge=RIDGES)
    for name, multiplier, aggregator, dropout in channels(bound, reach):
        population = ja.Federated(**fields, dropout=dropout)
        few = "stochastic" in name
        row = {"channel": name, "multiplier": multiplier, "clip": bound if multiplier else None}
        yield row | measured(population, aggregator, attack, general if few else direct)


def worst(trials):
    """Opposite vectors at the clip bound, and others whose updates the server knows: only the noise hides them."""
    population = ja.Synthetic(law="known", dim=64, clients=CLIENTS)
    gaussian = lambda bound, z: ja.SecureSum(stages=(ja.Clip(norm=bound), ja.Gaussian(deviation=z * bound)))  # noqa: E731
    made = {"Gaussian": gaussian} | {
        name: lambda bound, z, noise=noise: noisy(noise, bound, z) for name, noise in NOISES.items()
    }
    for name, make in made.items():
        for multiplier in MULTIPLIERS:
            row = {"channel": name, "multiplier": multiplier, "clip": 1.0}
            yield row | measured(population, make(1.0, multiplier), ja.GaussianLRT(), trials)


def unaware(audit):
    """The audit of a server that does not know of the rounding noise: its covariance leaves that out."""

    class Unaware(type(audit)):
        def prepare(self, seed):
            pool, prepare = EncodedPool.moments, super().prepare
            EncodedPool.moments = lambda own, terms: replace(own.arrived, blur=()).moments(terms)
            try:
                return prepare(seed)
            finally:
                EncodedPool.moments = pool

    return Unaware(population=audit.population, aggregator=audit.aggregator, attack=audit.attack)


def tests(trials):
    """Tests that follow the channel beside the plain linear score, on the same trials."""
    digits = DATA["digits"][0]
    record, zeroed = ja.Federated(**digits), ja.Federated(**digits, pair="zeroed")
    linear, ridge = ja.GaussianLRT(ridge=RIDGES), {"ridge": RIDGES}
    ring8 = ja.SecureSum(stages=(ja.FixedPoint(clip_range=0.25, rounding="stochastic"),), ring_bits=8)
    cases = [
        ("8-bit ring, stochastic", "rounding noise not in the covariance", record, ring8, linear, True),
        ("8-bit ring, stochastic", "rounding noise in the covariance", record, ring8, linear, False),
    ]
    for bits in (8, 7, 6):
        step = ja.FixedPoint(clip_range=0.25, levels=2 * 31)
        ring = ja.SecureSum(stages=(step,), ring_bits=bits, wrap=True)
        for name, attack in {"linear": linear, "wrapped": ja.WrappedLRT(**ridge)}.items():
            cases.append((f"{bits}-bit ring that wraps, 63 levels a client", name, record, ring, attack, False))
    for share in (0.1, 0.3):
        hidden = replace(zeroed, dropout=share)
        for name, attack in {"linear": linear, "mixture": ja.MixtureLRT(**ridge)}.items():
            where = f"{share:.0%} dropouts, not announced".replace("%", " %")
            cases.append((where, name, hidden, ja.SecureSum(survivors="hidden"), attack, False))
    for channel, name, population, aggregator, attack, blind in cases:
        audit = ja.Audit(population=population, aggregator=aggregator, attack=attack)
        yield {"channel": channel, "test": name} | scored(unaware(audit) if blind else audit, trials)


def scored(audit, trials):
    """Certified epsilon and area under the ROC curve."""
    began = time.perf_counter()
    result = ja.run(audit, trials=trials, deltas=[DELTA])
    found = result.headline
    curve = ja.bounds.tradeoff(found.counts, 0.95)
    return {
        "trials": trials,
        "lower": found.bounds[0].epsilon,
        "auc": ja.bounds.area_under_roc(curve),
        "setting": found.cell.setting,
        "wall_s": time.perf_counter() - began,
    }


SECTIONS = {
    "digits": lambda: membership("digits", 10_000_000, 1_000_000),
    "mnist": lambda: membership("mnist", 10_000_000, 100_000),
    "worst": lambda: worst(10_000_000),
    "tests": lambda: tests(100_000),
}


def main():
    """Measure the sections that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("section", nargs="*", default=[], help=" ".join(SECTIONS))
    parser.add_argument("--out", type=Path, default=Path("results/channel"))
    given = parser.parse_args()
    prepare(distributed=False)
    given.out.mkdir(parents=True, exist_ok=True)
    for section in given.section or SECTIONS:
        file, rows = given.out / f"{section}.json", []
        for row in SECTIONS[section]():
            rows.append(row)
            print(json.dumps(row), flush=True)
            machine = f"{jax.devices()[0].device_kind}, jax {jax.__version__}, jaxaudit {version('jaxaudit')}"
            file.write_text(json.dumps({"machine": machine, "delta": DELTA, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
