"""Bounds on the population that the audited clients come from: cohorts that share no client are the only trials."""

from dataclasses import replace

import numpy as np

from .audit import Prepared
from .bounds import Bound, Scores, best_plan, epsilon_at
from .config import Recipe
from .player import Player
from .tuning import pilot_trials, tuned


def certify_population(
    player: Player, prepared: Prepared, recipe: Recipe, confidence: float
) -> list[tuple[Bound, ...]]:
    """Cohorts of audited clients that share no client, as the only trials of the population's mechanism.

    Everything else comes from the fit pool: weights, settings and thresholds. A server that knows the audited pool
    has no such row, because its weights were fitted on these very clients.
    """
    nothing: list[tuple[Bound, ...]] = [()] * len(prepared.cells)
    if not prepared.responses.fresh or not prepared.linear or prepared.audit.server_knows != "fit_pool":
        return nothing
    fit = prepared.responses.fit
    pilots = pilot_trials(recipe.trials)
    chosen = tuned(player, prepared, "fit", pilots, fit)
    columns, learned, audited = chosen.columns(), chosen.project(pool=fit), chosen.project()
    pilot, found = player.scores(learned, "fit", pilots), []
    for number, (column, sums) in enumerate(zip(columns, prepared.responses.certify.disjoint(columns))):
        if not len(sums):
            found.append(())
            continue
        slack, nested = audited.slack[number], learned.nested[number] and audited.nested[number]
        design = "nested" if nested else "paired"
        ends = prepared.seen(column.pair).both
        h0, h1 = (sums + np.vdot(column.test.weights, end) - column.test.offset.sum() for end in ends)
        learnt = replace(pilot[number], design=design)
        plan = best_plan(learnt, len(sums), recipe.deltas, confidence)
        counts = Scores(h0 + slack, h1 - slack, "disjoint cohorts", design).count(plan.thresholds)
        found.append(tuple(epsilon_at(plan, counts, delta, confidence) for delta in recipe.deltas))
    return found
