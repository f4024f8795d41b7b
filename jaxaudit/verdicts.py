"""Whether any noise can hide the pair: the verdict on every cell, and the score that would show it."""

from typing import Any

import numpy as np

from .attacks.span import Verdict, judge, not_judged
from .audit import Cell, Prepared
from .types import LinearTest, Pair


def truths(prepared: Prepared) -> dict[int, Any]:
    """Moments of the audited pool for every cohort size, where they can be had in half a minute."""
    pool = prepared.responses.certify
    sizes = {cell.clients for cell in prepared.cells}
    return {size: pool.moments(size - 1) if pool.affordable(size - 1) else None for size in sizes}


def verdict(prepared: Prepared, cell: Cell, truth) -> Verdict:
    """Whether the cell's pair is perfectly distinguishable, from the moments of the audited pool or None."""
    pair, chain = prepared.seen(cell.pair), prepared.chain
    # A proof about entries of updates says nothing about a sum whose stages mix them.
    by_entry = chain is None or chain.by_entry
    structural = prepared.responses.structural(cell.pair) if by_entry else None
    if chain is not None and not chain.faithful:
        return not_judged(pair, "the channel is not linear")
    return not_judged(pair) if truth is None else judge(truth, pair, structural)


def off_span_test(pair: Pair, found: Verdict, truth) -> LinearTest:
    """The score that reads the part of the difference no noise reaches, around the middle of the candidates."""
    direction = found.off_span / np.linalg.norm(found.off_span)
    means = np.stack([one.mean / one.terms for one in truth])
    return LinearTest(direction, *(np.einsum("rd,rd->r", direction, along) for along in (means, pair.middle)))
