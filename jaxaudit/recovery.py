"""Reconstruction: rounds through the audited channel, what the attack recovers of them, and the truth beside it.

It is no bound: it needs the truth, which the audit never looks at. Its rounds have a stream of their own.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .audit import Prepared
from .bounds import clopper_pearson_lower, clopper_pearson_upper
from .encoded import EncodedPool
from .random import STREAMS, numbered
from .types import ABSENT

# Noise on the sum in units of the clip norm, of which the recipe's own is one more.
_NOISE = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_ROUNDS = 50
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Recovery:
    """What was recovered, beside the truth.

    Attributes:
      summary: figures for summary.json.
      arrays: of one round without noise.
    """

    summary: dict[str, Any]
    arrays: dict[str, np.ndarray]


def recover(
    prepared: Prepared,
    seed: int,
    progress: Callable[[str, int], Callable] | None = None,
    clients: int = 1000,
) -> Recovery | None:
    """Rounds at several levels of noise, the recipe's own among them; None for an attack that only decides.

    Args:
      prepared: the audit.
      seed: of the run.
      progress: called with a name and the number of rounds; returns a function of the rounds just done.
      clients: whose histograms are recovered at every level, in as many rounds as that takes, up to 50.

    Returns:
      Recovery.
    """
    attack, truth = prepared.audit.attack, prepared.responses.truth
    if truth is None or not hasattr(attack, "recover"):
        return None
    own, levels = _multiplier(prepared), (0.0,)
    if own:
        levels = tuple(sorted({*_NOISE, own}))
    rounds = int(np.clip(-(-clients // prepared.cells[0].clients), 1, _ROUNDS))
    of_level = [1 if _repeats(prepared, level) else rounds for level in levels]
    advance = progress("recovery", sum(of_level)) if progress else lambda done: None
    factors = _clip_factors(_with_noise(prepared, 0.0)) if _clips(prepared) else None
    rows, arrays, null = [], {}, {}
    for level, played in zip(levels, of_level):
        grades, told = [], None
        for facts, told, total, labels in _rounds(prepared, level / own if own else 0.0, seed, played, factors):
            recovered = attack.recover(facts, total, told)
            grades.append(attack.graded(recovered, labels))
            if not arrays:
                arrays = {"truth": labels, "found": recovered.found}
                null = {
                    "exact": float(grades[0].null_exact.mean()),
                    "overlap": float(grades[0].null_overlap.mean()),
                }
            advance(1)
        rows.append(_row(level, level == own, grades, told))
    summary = {
        "what": "label histograms",
        "adversary": prepared.responses.sent.words,
        "model": prepared.responses.real,
        "clients": prepared.cells[0].clients,
        "classes": int(truth.of_target.shape[-1]),
        "batch": sorted({int(truth.of_target.sum()), *truth.of_rows.sum(axis=1).tolist()}),
        "null": null,
        "rows": rows,
        **(told_of_attack := attack.told(prepared.responses.sent.facts)),
        "notes": _notes(rows) + told_of_attack["notes"],
    }
    return Recovery(summary, arrays)


def _row(level, is_own, grades, told) -> dict:
    exact = np.concatenate([one.exact for one in grades])
    overlap = np.concatenate([one.overlap for one in grades])
    return {
        "noise_multiplier": level,
        "recipe": bool(is_own),
        "rounds": len(grades),
        "clients": int(exact.size),
        "exact": float(exact.mean()),
        "exact_lower": float(clopper_pearson_lower(int(exact.sum()), exact.size, (1 - _CONFIDENCE) / 2)),
        "exact_upper": float(clopper_pearson_upper(int(exact.sum()), exact.size, (1 - _CONFIDENCE) / 2)),
        "overlap": float(overlap.mean()),
        "largest_error": max(one.largest_error for one in grades),
        "clip_known": told.factors is not None,
    }


def _notes(rows) -> list[str]:
    notes = ["Intervals are about rounds drawn from these recordings, and take the clients of one as independent."]
    if any(row["clip_known"] for row in rows):
        notes.append(
            "Where noise is added, or several local steps are made, the decoder is told by how much each update was "
            "clipped, so these rows are the most that it recovers; else it finds that out by itself."
        )
    return notes


def _clips(prepared) -> bool:
    return prepared.chain is not None and bool(prepared.chain.l2_clips)


def _repeats(prepared, level) -> bool:
    """All rounds are one: everybody has one recorded update and sends it, and nothing is random on the way."""
    pool, chain = prepared.responses.certify, prepared.chain
    (source,) = (pool if chain is None else pool.pool).sources
    steady = chain is None or all(link.stage.steady or hasattr(link.stage, "share") for link in chain.links)
    return level == 0 and steady and len(pool.attendance(pool.noise_terms)) == 1 and int(source.sizes.max()) == 1


def _multiplier(prepared) -> float:
    """Deviation of the noise on the sum, over the clip norm where updates are clipped; 0 without noise."""
    chain, pool = prepared.chain, prepared.responses.certify
    if chain is None or not chain.noises:
        return 0.0
    deviation = np.sqrt(pool.noise_variance(prepared.cells[0].server.noise_terms))
    return float(f"{deviation / min(chain.l2_clips, default=1.0):.6g}")


def _rounds(prepared: Prepared, share: float, seed: int, rounds: int, factors) -> Iterator[tuple]:
    """(facts, what is told, f64[dim] decoded sum, i64[clients, ...] truth) of rounds with a share of the noise."""
    quiet, attack = _with_noise(prepared, share), prepared.audit.attack
    game, truth = quiet.fold(), prepared.responses.truth
    facts = prepared.responses.sent.facts
    if not share and attack.finds_factors(facts):
        factors = None
    for number in range(rounds):
        named = (jnp.uint32(word) for word in (seed, STREAMS["recovery"], 0, number))
        total, who = _played(game.program, game.params, numbered(*named))
        who = np.asarray(who)[0]
        sat = np.where(who == ABSENT, 0, who)
        labels = np.concatenate([truth.of_target[None], np.where((who == ABSENT)[:, None], -1, truth.of_rows[sat])])
        announced = quiet.chain is None or quiet.chain.channel.announced
        told = attack.told_of_round(
            present=np.append(True, who != ABSENT) if announced else None,
            clipped=_clips(prepared),
            factors=None if factors is None else np.append(factors[-1], factors[sat]),
        )
        yield facts, told, np.asarray(total[0], np.float64), labels


@partial(jax.jit, static_argnums=0)
def _played(program, params, ticket):
    (views,) = program.reveal(params, ticket)
    return views.total[0], program.draws.others(params.pool, ticket)


def _with_noise(prepared: Prepared, share: float) -> Prepared:
    """The same audit with so much of its noise, in which the target sends what it sends unasked."""
    responses, audit, (cell, *_) = prepared.responses, prepared.audit, prepared.cells
    own = replace(cell, server=replace(cell.server, pair=responses.truth.own))
    if prepared.chain is None:
        return replace(prepared, cells=(own,))
    stages = [
        replace(stage, deviation=stage.deviation * share) if hasattr(stage, "deviation") else stage
        for stage in audit.aggregator.stages
        if share or not hasattr(stage, "deviation")
    ]
    bare = replace(responses, certify=responses.certify.pool)
    audit = replace(audit, aggregator=replace(audit.aggregator, stages=tuple(stages)))
    chain = audit.chain(bare)
    behind = bare if chain is None else replace(bare, certify=EncodedPool(bare.certify, chain))
    return replace(prepared, audit=audit, responses=behind, chain=chain, cells=(own,))


def _clip_factors(quiet: Prepared) -> np.ndarray:
    """What the clip left of every recorded update, and last of the target's own: f64[updates + 1]."""
    pool, own = quiet.responses.certify, quiet.responses.truth.own
    (source,) = pool.pool.sources
    rows = np.concatenate([source.rows(0, len(source.sizes)), own.h0]).astype(np.float64)
    left = pool.chain.arrived(rows.astype(np.float32))
    squares = np.einsum("nd,nd->n", rows, rows)
    # Of nothing a clip leaves all.
    return np.where(squares > 0, np.einsum("nd,nd->n", left, rows) / np.where(squares > 0, squares, 1.0), 1.0)
