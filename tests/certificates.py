"""Every way from scores to a certified bound, in one form: what the coverage suite and its benchmark try.

A certificate gets a pilot and fresh trials of two laws, in whatever design it needs, and gives a bound for each of
some deltas; it has failed where a bound exceeds the truth. All designs are made from the same random numbers, so the
failures of different certificates depend on each other; those of one certificate do not.

The judge is an exact binomial test. It condemns a rule when, were it right, so many failures had a chance below 1e-6;
the tests judge fewer than a thousand times, so the chance that they wrong any right rule is below 1e-3.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from scipy.stats import binom
from trials import LOOKS, Sample

from jaxaudit import bounds
from jaxaudit.bounds import METHODS, auditing, certify, conditional

DELTAS = (0.0, 1e-5, 1e-3, 1e-2)
CONFIDENCE, SIGNIFICANCE = 0.95, 0.05
PILOT = 0.05  # Share of the trials, as `bounds.split` takes it of 10,000.


def condemned(failures, repetitions, chance=1e-6):
    """The judge: would a rule that fails at most one time in twenty fail so often?"""
    return binom.sf(np.asarray(failures) - 1, repetitions, SIGNIFICANCE) < chance


class Certificate(NamedTuple):
    """A way to a bound.

    Attributes:
      bound: (plan, fresh trials, deltas) -> f64[deltas].
      plan: (pilot, fresh trials of each hypothesis, deltas) -> plan; None where the trials of the pilot serve better
        as fresh ones.
      together: its bounds at all deltas hold at once.
      at: the deltas, or epsilons for bounds on delta.
      truth: (law, delta) -> true epsilon.
    """

    bound: Callable
    plan: Callable | None = None
    together: bool = True
    at: tuple = DELTAS
    truth: Callable = lambda law, delta: law.epsilon(delta)


def planned(design, choose, method, made_for=None, together=True):
    """One plan for all deltas, or for others: pilot, counts and curve, counts and bounds as a reader finds them."""

    def plan(pilot, size, deltas):
        return choose(getattr(pilot, design), size, made_for or deltas, method)

    def bound(plan, fresh, deltas):
        counts = bounds.from_json(bounds.to_json(getattr(fresh, design).count(plan.thresholds)))
        found = bounds.privacy_curve(plan, counts, deltas, CONFIDENCE, together)
        return [bounds.from_json(bounds.to_json(bound)).epsilon for bound in found]

    return Certificate(bound, plan, together)


def certified(plan, scores, deltas):
    found = bounds.privacy_curve(plan, scores.count(plan.thresholds), deltas, CONFIDENCE)
    return [bound.epsilon for bound in found]


def alone(design, choose, method):
    """A plan for each delta by itself, which gets all of the failure probability."""

    def plan(pilot, size, deltas):
        return [choose(getattr(pilot, design), size, [delta], method) for delta in deltas]

    def bound(plans, fresh, deltas):
        counts = getattr(fresh, design).count(np.concatenate([plan.thresholds for plan in plans]))
        return [bounds.epsilon_at(plan, counts, delta, CONFIDENCE).epsilon for plan, delta in zip(plans, deltas)]

    return Certificate(bound, plan, together=False)


def declared(design, method):
    """The threshold that the law declares, either way."""

    def bound(_, fresh, deltas):
        return certified(bounds.declared([fresh.law.threshold], deltas, method), getattr(fresh, design), deltas)

    return Certificate(bound)


def tossed(design):
    """CC-CP after coins for pairs, or for two samples of fixed size."""

    def bound(plan, fresh, deltas):
        return certified(plan, bounds.toss(getattr(fresh, design), fresh.seed), deltas)

    return Certificate(bound, planned("labelled", bounds.robust_pilot, "cc-cp").plan)


def on_delta(design):
    """Bounds on delta at several epsilons."""

    def plan(pilot, size, _):
        return bounds.robust_pilot(getattr(pilot, design), size, DELTAS, "union")

    def bound(plan, fresh, epsilons):
        counts = getattr(fresh, design).count(plan.thresholds)
        return [bounds.delta_at(plan, counts, epsilon, CONFIDENCE) for epsilon in epsilons]

    return Certificate(bound, plan, at=(0.0, 0.9, 2.9), truth=lambda law, epsilon: float(law.delta(epsilon)))


def everywhere(design, limit):
    """The best of hundreds of thresholds between the very scores that certify, either way."""

    def bound(_, fresh, deltas):
        scores, found = getattr(fresh, design), []
        ranks = np.unique(np.geomspace(1, fresh.size, 400).astype(int))
        places = {
            "forward": np.nextafter(np.sort(scores.h0)[-ranks], np.inf),
            "reverse": np.nextafter(np.sort(scores.h1)[ranks - 1], -np.inf),
        }
        for side, thresholds in places.items():
            counts = scores.count(thresholds)
            errors = counts.errors_h0[:, None], counts.errors_h1[:, None]
            found.append(bounds.epsilon_simultaneous(*errors, counts.trials, deltas, SIGNIFICANCE, side, limit))
        return np.max(np.concatenate(found), axis=0)

    return Certificate(bound)


def audited(strategy):
    """As users of jax_privacy call it, with the strategy for a law."""

    def bound(_, fresh, deltas):
        auditor, chosen = auditing.ScoreAuditor(fresh.independent.h1, fresh.independent.h0), strategy(fresh.law)
        return [auditor.epsilon_clopper_pearson(SIGNIFICANCE, delta, threshold_strategy=chosen) for delta in deltas]

    return Certificate(bound)


def watched(design, method, significance=SIGNIFICANCE):
    """The largest of the bounds at ten looks, for one event at each delta."""

    def bound(events, fresh, deltas):
        found = np.zeros(len(deltas))
        for side in ("forward", "reverse"):
            own = [number for number, event in enumerate(events) if event.direction == side]
            if own:
                seen = [fresh.looks(design, events[number].threshold) for number in own]
                errors, trials = np.moveaxis(np.array([errors for errors, _ in seen]), 1, 0), tuple(seen[0][1])
                given = (*errors, trials, np.array(deltas)[own, None], significance, side)
                found[own] = METHODS[method].bound(*given).max(axis=1)
        return found

    def plan(pilot, size, deltas):
        plans = [bounds.robust_pilot(getattr(pilot, design), size, [delta], method) for delta in deltas]
        return [max(plan.events, key=lambda event: event.share) for plan in plans]

    return Certificate(bound, plan, together=False)


def one_run():
    """All trials as canaries of one run: the coins of the highest scores are guessed, as many as the pilot says."""

    def plan(pilot, size, deltas):
        (event,) = bounds.gaussian_pilot(pilot.labelled, size, deltas[:1], "cc-cp").events
        scores, _ = pilot.canaries()
        inside = scores >= event.threshold if event.direction == "forward" else scores < event.threshold
        return event.direction, max(round(100 * inside.mean()), 1)

    def bound(plan, fresh, deltas):
        (direction, percent), (scores, coins) = plan, fresh.canaries()
        if direction == "reverse":
            scores, coins = -scores, ~coins
        guesses = percent * coins.size // 100
        correct = coins[np.argpartition(scores, -guesses)[-guesses:]].sum()
        return bounds.epsilon_one_run(correct, guesses, coins.size, deltas, SIGNIFICANCE)

    # At larger deltas nothing is left of a bound that pays for δ with every canary.
    return Certificate(bound, plan, together=False, at=DELTAS[:2])


def split_many_times(design, method, splits):
    """The median of many splits, each with a pilot of its own."""

    def bound(_, fresh, deltas):
        return [
            bounds.multi_split(getattr(fresh, design), delta, CONFIDENCE, method, splits, fresh.seed)
            for delta in deltas
        ]

    return Certificate(bound, together=False)


CERTIFICATES = {
    "CC-CP, robust pilot": alone("labelled", bounds.robust_pilot, "cc-cp"),
    "CC-CP, robust pilot, all deltas": planned("labelled", bounds.robust_pilot, "cc-cp"),
    "CC-CP, robust pilot, each of all deltas": planned("labelled", bounds.robust_pilot, "cc-cp", together=False),
    "CC-CP, Gaussian pilot": alone("labelled", bounds.gaussian_pilot, "cc-cp"),
    "CC-CP, coins for samples": tossed("independent"),
    "CC-CP, coins for pairs": tossed("paired"),
    "PC-CP, robust pilot": alone("nested", bounds.robust_pilot, "pc-cp"),
    "PC-CP, robust pilot, all deltas": planned("nested", bounds.robust_pilot, "pc-cp"),
    "PC-CP, Gaussian pilot": alone("nested", bounds.gaussian_pilot, "pc-cp"),
    "union, robust pilot": planned("paired", bounds.robust_pilot, "union"),
    "union, nested pairs, unplanned deltas": planned("nested", bounds.robust_pilot, "union", made_for=(1e-3,)),
    "union, declared threshold": declared("paired", "union"),
    "union, delta at fixed epsilon": on_delta("paired"),
    "band": everywhere("paired", bounds.equal_level_limit),
    "DKW band": everywhere("paired", bounds.dkw_limit),
    "order statistics": Certificate(
        lambda _, fresh, deltas: bounds.epsilon_order_statistics(fresh.independent, deltas, SIGNIFICANCE).epsilon
    ),
    "ScoreAuditor": audited(lambda law: auditing.Bonferroni()),
    "ScoreAuditor, declared threshold": audited(lambda law: auditing.Explicit(law.threshold)),
    "CC-anytime, worst of ten looks": watched("labelled", "cc-anytime"),
    "PC-anytime, worst of ten looks": watched("nested", "pc-anytime"),
    "CC-CP, level spent on ten looks": watched("labelled", "cc-cp", bounds.spending(SIGNIFICANCE, LOOKS)),
    "one run": one_run(),
}


class Tally(NamedTuple):
    """What repetitions of a certificate came to.

    Attributes:
      failures: i64[at], bounds above the truth.
      judged: i64[k], what may happen one time in twenty: a failure anywhere if the bounds hold together, else each of
        them, but for bounds of what is infinite.
      means, deviations: f64[at], of the bounds; standard deviations are those of one repetition.
    """

    failures: np.ndarray
    judged: np.ndarray
    means: np.ndarray
    deviations: np.ndarray


def tried(certificates: Mapping[str, Certificate], law, rng, size, plans, reuses):
    """Tally of each certificate in plans · reuses repetitions of `size` trials of each hypothesis.

    The guarantee holds given the plan, so a plan may serve many repetitions: the number of failures is still
    stochastically at most binomial.
    """
    pilot_size = round(PILOT * size)
    values = {name: [] for name in certificates}
    for _ in range(plans):
        pilot = Sample.draw(law, rng, pilot_size, "pilot")
        made = {name: one.plan and one.plan(pilot, size - pilot_size, one.at) for name, one in certificates.items()}
        for _ in range(reuses):
            every = Sample.draw(law, rng, size, "fresh")
            fresh = every.first(size - pilot_size)
            for name, one in certificates.items():
                values[name].append(one.bound(made[name], fresh if one.plan else every, one.at))
    found = {}
    for name, one in certificates.items():
        each, truths = np.array(values[name]), np.array([one.truth(law, at) for at in one.at])
        exceeded = each > truths
        judged = exceeded.any(axis=1, keepdims=True) if one.together else exceeded[:, np.isfinite(truths)]
        found[name] = Tally(exceeded.sum(axis=0), judged.sum(axis=0), each.mean(axis=0), each.std(axis=0))
    return found


def quicken(patch=setattr):
    """Remember what thousands of repetitions ask about the same few numbers, and leave out what nothing rests on."""
    patch(conditional, "delta_offset", remembered(conditional.delta_offset))
    patch(bounds, "epsilon_one_run", remembered(bounds.epsilon_one_run))
    patch(certify, "_ceilings", lambda plan, counts, levels, deltas: np.zeros(len(deltas)))


def remembered(function):
    """The same function of numbers and arrays, which remembers its answers."""
    answers = {}

    def answer(*args):
        key = tuple((np.shape(arg), np.asarray(arg, np.float64).tobytes()) for arg in args)
        if key not in answers:
            answers[key] = function(*args)
        return answers[key]

    return answer
