"""Bugs planted in a channel with noise: how many trials it takes until the verdict names them, and its false alarms.

python benchmarks/channel_bugs.py [--quick] [--out results/channel_bugs.md]

The system with the bug is audited; the claim is what the accountant proves of the one without it. The server knows
all updates but the target's, so nothing hides the target but the noise that the protocol adds. A verdict against a
correct system, or a bug that no number of trials reveals, fails the run.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from measure import Page, facts, options
from scipy.stats import binomtest

import jaxaudit as ja
from jaxaudit.accounting.claims import LEVEL, OnTrial, rounded_up, violations
from jaxaudit.aggregation.channel import Channel
from jaxaudit.aggregation.stage import lane
from jaxaudit.bounds import best_plan
from jaxaudit.claimed import claim
from jaxaudit.devices import prepare
from jaxaudit.game import Game
from jaxaudit.player import Player
from jaxaudit.tuning import pilot_trials
from jaxaudit.types import Range

DELTAS, SEEDS, USUAL = (1e-2, 1e-3, 1e-4, 1e-5), range(3), 0.05
# Trials that a run plans; where whole updates are folded, fewer are affordable.
RUNGS = tuple(int(first * 10**zeros) for zeros in range(3, 9) for first in (1, 3))[:-1]
FOLDED = 3 * 10**7
QUICK = 10**5
# What is claimed of a system: at every delta, or at one alone.
EVERY, ALONE = slice(None), slice(1, 2)


@dataclass(frozen=True)
class Forgetful(Channel):
    """A channel in which one of the others forgets its noise.

    Attributes:
      silent: its seat.
    """

    silent: int = 0

    def encode(self, params, vector, ticket, seat, first: int, last: int) -> jax.Array:
        """As every client does it, but for the noise of one."""
        for place in range(first, last):
            stage = self.stages[place]
            after = stage.encode(params.stages[place], vector, lane(ticket, seat, place))
            if hasattr(stage, "share"):
                after = jnp.where(jnp.asarray(seat, jnp.uint32) == jnp.uint32(self.silent), vector, after)
            vector = after
        return vector


class Bug(NamedTuple):
    """A system that does not do what is claimed of it.

    Attributes:
      words: what is wrong.
      claimed: the audit of the correct system.
      plant: the game that the system with the bug plays, from the audit of the correct one.
      most: the largest number of trials that is tried.
    """

    words: str
    claimed: ja.Audit
    plant: Callable[[ja.Audit], Game]
    most: int = RUNGS[-1]


def audit(stages: Sequence[Any], clients: int = 10, dim: int = 16) -> ja.Audit:
    """The target sends e_1 or -e_1, or what the stages make of it."""
    population = ja.Synthetic(law="known", dim=dim, clients=clients)
    return ja.Audit(population=population, aggregator=ja.SecureSum(stages=tuple(stages)), attack=ja.GaussianLRT())


def planted(*stages: Any) -> Callable[[ja.Audit], Game]:
    """The same clients with other stages."""

    def game(claimed):
        aggregator = replace(claimed.aggregator, stages=stages)
        return replace(claimed, aggregator=aggregator).prepare(SEEDS[0]).game()

    return game


def one_share_missing(claimed: ja.Audit) -> Game:
    """The correct stages, in a channel in which the first of the others adds no noise."""
    prepared = claimed.prepare(SEEDS[0])
    channel = prepared.chain.channel
    forgetful = Forgetful(**{field.name: getattr(channel, field.name) for field in fields(channel)})
    return replace(prepared, chain=replace(prepared.chain, channel=forgetful)).fold()


def gaussian(bound: float = 1.0, scale: float = 1.0) -> ja.Gaussian:
    """Shares that add up to twice the clip bound: a claim of μ = 1 under replacement."""
    return ja.Gaussian(deviation=2 * bound * scale, where="distributed")


def skellam(step: float, scale: float = 1.0) -> tuple[Any, ...]:
    """The same on integers; a clip range of 1 makes the sensitivity exact in one dimension."""
    return ja.Clip(norm=1.0), ja.FixedPoint(clip_range=1.0, step=step), ja.Skellam(deviation=2.0 * scale)


def discrete(step: float, scale: float = 1.0) -> tuple[Any, ...]:
    """As `skellam`."""
    return ja.Clip(norm=1.0), ja.FixedPoint(clip_range=1.0, step=step), ja.DiscreteGaussian(deviation=2.0 * scale)


CLIP, COARSE, FINE = ja.Clip(norm=1.0), 2.0**-6, 2.0**-10
EXACT_SKELLAM, EXACT_DISCRETE = audit(skellam(COARSE), dim=1), audit(discrete(COARSE), dim=1)


def clipped_first(bound: float, clients: int = 10, dim: int = 16) -> ja.Audit:
    """Correct: every client clips, then adds its share."""
    return audit((ja.Clip(norm=bound), gaussian(bound)), clients, dim)


def bugs() -> dict[str, Bug]:
    """Every bug in every system that it is planted in, by name."""
    # 1 is 1.6 steps of 0.625, which become 2: what moves by 2 before rounding moves by 2.5 after it.
    stretched = CLIP, ja.FixedPoint(clip_range=2.5, step=0.625), ja.DiscreteGaussian(deviation=2.0)
    return {
        "halved, gaussian": Bug("noise scale halved", clipped_first(1.0), planted(CLIP, gaussian(scale=0.5))),
        "halved, skellam": Bug("noise scale halved", EXACT_SKELLAM, planted(*skellam(COARSE, 0.5))),
        "halved, skellam, 16": Bug("noise scale halved", audit(skellam(FINE)), planted(*skellam(FINE, 0.5))),
        "halved, discrete, 16": Bug("noise scale halved", audit(discrete(FINE)), planted(*discrete(FINE, 0.5))),
        "no clip": Bug("clip forgotten, pair twice as long", clipped_first(0.5), planted(gaussian(0.5))),
        "no clip, just": Bug("clip forgotten, pair 10 % longer", clipped_first(1 / 1.1), planted(gaussian(1 / 1.1))),
        **{
            f"noise first, {clients}": Bug(
                "noise before clipping, pair ten times as long",
                clipped_first(0.1, clients),
                planted(gaussian(0.1), ja.Clip(norm=0.1)),
                FOLDED,
            )
            for clients in (2, 10)
        },
        **{
            f"share missing, {name}, {clients}": Bug(
                "one client's noise missing", audit(stages, clients, dim=1), one_share_missing, FOLDED
            )
            for name, stages in (("gaussian", (CLIP, gaussian())), ("skellam", skellam(COARSE)))
            for clients in (2, 3, 10)
        },
        **{
            f"rounded last, {clients}": Bug(
                "real noise rounded to steps of 1, sensitivity of before",
                clipped_first(1.0, clients, dim=1),
                planted(CLIP, gaussian(), ja.FixedPoint(step=1.0, clip_range=2.0**20)),
                FOLDED,
            )
            for clients in (64, 100)
        },
        "rounded first": Bug(
            "noise on coarsely rounded updates, sensitivity of before", EXACT_DISCRETE, planted(*stretched)
        ),
    }


def correct() -> dict[str, ja.Audit]:
    """Systems whose claims are tight, by name."""
    return {"gaussian": clipped_first(1.0), "skellam": EXACT_SKELLAM, "discrete": EXACT_DISCRETE}


def p_value(game: Game, proved: Sequence[tuple[float, float]], seed: int, trials: int) -> float:
    """What `violations` finds: pilot, plan, count and p-value as in a run of so many trials.

    Args:
      game: of the system that runs.
      proved: pairs (delta, epsilon), all of them claimed.
      seed: of the run.
      trials: that it plans.
    """
    player = Player(jax.local_devices()[:1], seed, lambda name, planned: lambda done: None)
    (pilot,) = player.scores(game, "pilot", pilot_trials(trials))
    plan = best_plan(pilot, trials, [delta for delta, _ in proved])
    (counts,) = player.count(game, "certify", Range(0, trials), [plan.thresholds])
    (found,) = violations([OnTrial(proved, [(plan, counts)], False)])
    return found["p_value"]


@cache
def proved(one: ja.Audit) -> tuple[tuple[float, float], ...]:
    """What the accountant proves of a correct system."""
    prepared = one.prepare(SEEDS[0])
    return tuple(zip(DELTAS, claim(prepared, prepared.cells[0], DELTAS).epsilons))


def told(bug: Bug, most: int) -> tuple[str, ...]:
    """The row of a bug."""
    began, one, most = time.perf_counter(), bug.claimed, min(most, bug.most)
    game = bug.plant(one)
    rungs = [trials for trials in RUNGS if trials <= most]
    found = [next((n for n in rungs if p_value(game, proved(one), seed, n) <= LEVEL), None) for seed in SEEDS]
    assert all(found) or most == QUICK, bug.words
    return (
        bug.words,
        noise(one),
        f"{one.population.dim}",
        f"{one.population.clients}",
        rounded_up(proved(one)[ALONE][0][1]),
        ", ".join(f"{trials:,}" if trials else f"> {most:,}" for trials in found),
        f"{time.perf_counter() - began:.0f}",
    )


def alarms(one: ja.Audit, claims: slice, folded: bool, trials: int, runs: int) -> tuple[str, ...]:
    """The row of a correct system."""
    prepared, tested = one.prepare(SEEDS[0]), proved(one)[claims]
    game = prepared.fold() if folded else prepared.game()
    found = [p_value(game, tested, seed, trials) for seed in range(runs)]
    assert min(found) > LEVEL, (one, min(found))

    def rate(level):
        seen = binomtest(sum(p <= level for p in found), runs)
        low, high = seen.proportion_ci(0.95, "exact")
        return f"{seen.k} ({100 * low:.2f} to {100 * high:.2f} %)"

    path, of = "whole updates" if folded else "projected", ", ".join(f"{delta:g}" for delta, _ in tested)
    shape = noise(one), one.population.dim, one.population.clients, path, of, f"{trials:,}", f"{runs:,}"
    return *map(str, shape), rate(LEVEL), rate(USUAL), f"{min(found):.2g}"


def checked(quick: bool) -> Iterator[tuple[str, ...]]:
    """Rows of the correct systems."""
    runs, many = (20, 10**5) if quick else (1000, 10**6)
    for one in correct().values():
        yield alarms(one, EVERY, False, 10**4, runs)
        yield alarms(one, ALONE, False, many, runs)
    for one in (clipped_first(1.0, dim=1), EXACT_SKELLAM):
        yield alarms(one, EVERY, True, 10**4, runs)


def noise(one: ja.Audit) -> str:
    """Its law."""
    (kind,) = (stage.kind for stage in one.aggregator.stages if hasattr(stage, "share"))
    return kind.replace("_", " ")


def filled(quick: bool) -> Page:
    """All tables."""
    page = Page("Bugs planted in a channel with noise")
    page.say(
        f"{facts()}{'; small sizes, at which not all bugs are seen' * quick}.",
        "",
        "## Trials until a bug is seen",
        "",
        f"The verdict of a run at level {LEVEL:g}, Holm's adjustment over δ = {', '.join(f'{d:g}' for d in DELTAS)} "
        f"included, at {RUNGS[0]:,}, {RUNGS[1]:,}, {RUNGS[2]:,} and so on planned trials: the fewest with a verdict, "
        f"for seeds {', '.join(map(str, SEEDS))}. Each number is a run of its own, with its pilot; to go on until a "
        "verdict falls would need another level. Correct systems clip and add distributed noise of twice the clip "
        "bound, so that all claims are near those of a Gaussian mechanism with μ = 1; ε is what is claimed at "
        f"δ = {DELTAS[1]:g}, by exact laws but for integer noise in 16 dimensions, where it is by theorems. A client "
        "whose noise is missing adds none, in a channel that knows its seat. Noise before clipping and noise that is "
        "rounded are played by every client; the pair of the former is long, because a short update is shortened "
        "together with the noise on it. Seconds are wall time of all runs of a row.",
        "",
    )
    most = QUICK if quick else RUNGS[-1]
    columns = f"bug | noise | dim | clients | ε claimed | trials, seeds {', '.join(map(str, SEEDS))} | s"
    page.table(columns, (told(bug, most) for bug in bugs().values()))
    page.say(
        "## Verdicts on correct systems",
        "",
        "Seeds 0 and up, each with pilot, plan, trials and verdict; in brackets the Clopper-Pearson interval of the "
        f"rate, 95 %. The rate at {USUAL:g} shows that the verdict could fall: with one claim and many trials that "
        "level begins to be used up; with four claims and few trials, Holm's adjustment and the margins of the test "
        "leave nearly all of it.",
        "",
    )
    columns = f"noise | dim | clients | path | δ claimed | trials | runs | p ≤ {LEVEL:g} | p ≤ {USUAL:g} | smallest p"
    page.table(columns, checked(quick))
    return page


def lines(quick: bool = False) -> list[str]:
    """The page, in Markdown."""
    return filled(quick).lines


def main():
    chosen = options("Bugs planted in a channel with noise, and the verdicts on them.")
    prepare(distributed=False)
    filled(chosen.quick).write(chosen)


if __name__ == "__main__":
    main()
