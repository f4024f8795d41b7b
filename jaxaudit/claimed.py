"""What an accountant proves of an audited channel: the upper bound that stands beside the certified lower one.

The bound is about the mechanism, not about the audited pair: any two vectors that the clients' stages let through,
any updates of the others, and only the noise that honest clients who sent have added.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .accounting import Mechanism, epsilon_upper, sensitivity, source
from .aggregation.chain import Chain, Fitted
from .aggregation.noise import NAMES
from .aggregation.stage import Norms
from .audit import Cell, Prepared
from .types import Pair

# The law of the number of shares where only one is counted.
_OWN = ((1, 1.0),)


@dataclass(frozen=True)
class Claim:
    """What an accountant proves of a cell's mechanism.

    Attributes:
      epsilons: for the recipe's deltas; infinite where nothing is proved.
      source: the theorem or the accountant.
      words: adjacency, sensitivity and whose noise is counted, as a sentence.
      assumed: the audited system is known to break an assumption of the claim: clients drop out, or the cohort is
        smaller than the one whose noise is counted.
    """

    epsilons: tuple[float, ...]
    source: str
    words: str
    assumed: bool


def claim(prepared: Prepared, cell: Cell, deltas: Sequence[float]) -> Claim | None:
    """What is proved of a cell, None where its channel adds no noise.

    Where several stages add noise, each alone gives a bound, because adding more is post-processing; the least is
    taken.
    """
    chain = prepared.chain
    if chain is None or not chain.noises:
        return None
    everyone = prepared.audit.aggregator.claim == "everyone"
    # An aborted round reveals nothing; it is counted as one with just enough clients.
    shares = tuple((max(number + 1, chain.channel.minimum), chance) for number, chance in cell.server.attendance)
    planned = ((chain.clients, 1.0),)
    zero_out = _zero_out(chain, cell.pair)
    mechanisms = [
        _mechanism(chain, link, planned if everyone else shares, zero_out, prepared.responses.certify.rounds)
        for link in chain.noises
    ]
    found = [[epsilon_upper(one, delta) for delta in deltas] for one in mechanisms]
    # For every delta the stage that proves most.
    best = [min(range(len(found)), key=lambda n: found[n][at]) for at in range(len(deltas))]
    used = [(mechanisms[n], chain.noises[n]) for n in dict.fromkeys(best)]
    return Claim(
        tuple(found[n][at] for at, n in enumerate(best)),
        "; ".join(dict.fromkeys(source(mechanism) for mechanism, _ in used)),
        "; or: ".join(_words(mechanism, link, zero_out, everyone, not chain.last.step) for mechanism, link in used)
        + _besides(cell.pair, len(chain.noises) - len(used), prepared.responses.partial),
        shares != planned and any(mechanism.shares == planned for mechanism, _ in used),
    )


def _besides(pair: Pair, ignored: int, partial: str) -> str:
    """What else must be known of a claim: a pair of a narrower adjacency, and noise that is not counted."""
    words = "; the noise of other stages is not counted, it can only add privacy" * (ignored > 0)
    words += f"; {partial}, and the rest of it is not in this bound" * bool(partial)
    if "record" in pair.adjacency:
        words += f"; the audited {pair.adjacency} is a special case of it, so the ratio compares two adjacencies"
    return words


def _zero_out(chain: Chain, pair: Pair) -> bool:
    """One candidate is nothing at all, and nothing is encoded as nothing."""
    if pair.h0.any() and pair.h1.any():
        return False
    mean, variance = chain.spread(np.zeros((1, chain.dim), np.float32))
    return not mean.any() and not variance.any()


def _mechanism(chain: Chain, link: Fitted, shares, zero_out: bool, rounds: int) -> Mechanism:
    stage, setting = link.stage, link.setting
    norms, place = setting.norms, chain.links.index(link)
    if stage.central:
        # Added to the decoded sum, in units of the update: a sum that wraps has no bounded sensitivity.
        shares = _OWN
        sent = chain.norms
        # Real vectors are rounded to a step when they are sent.
        rounding = 0.0 if chain.last.step else np.sqrt(chain.last.dim) * chain.finest(math.inf)[0] / 2
        l2 = math.inf if chain.may_wrap else (sent.l2 + rounding) * chain.gain * (1 + 2.0**-40)
        norms = Norms(math.inf, l2, math.inf).tightened(chain.dim)
    elif any(not hasattr(later.stage, "share") and later.stage.kind != "rotate" for later in chain.links[place:]):
        # What clients round or select after they added their noise is no function of the noisy sum: only the noise of
        # the target itself is counted.
        shares = _OWN
    moved = sensitivity(*norms, "zero-out" if zero_out else "replacement")
    return Mechanism(stage.kind, *moved, setting.dim, stage.share(setting), shares, rounds)


def _words(mechanism: Mechanism, link: Fitted, zero_out: bool, everyone: bool, real: bool) -> str:
    adjacency = "Zeroing out a client's update" if zero_out else "Replacing a client's update"
    in_steps = link.setting.step and not link.stage.central
    unit, whose, share = "steps of the ring" if in_steps else "the update's units", "those who sent", " a share"
    if link.stage.central:
        whose, share = "a trusted party", ""
    elif mechanism.shares == _OWN:
        whose = "the target alone"
    elif everyone:
        whose = "everyone in the cohort"
    if real and not link.stage.central:
        unit += " (real numbers: their rounding to 31-bit steps is not counted)"
    if not math.isfinite(mechanism.l2):
        return f"{adjacency} may move the sum by any amount: nothing bounds the l2 norm where noise is added"
    rounds = f" in each of {mechanism.rounds} rounds" * (mechanism.rounds > 1)
    noise = f"{NAMES[link.stage.kind]} noise of {whose}, of deviation {mechanism.deviation:.6g}{share}"
    return (
        f"{adjacency} moves the sum by at most {mechanism.l2:.6g} in l2{rounds}; {noise}, in {unit}; without "
        "amplification, for the target always takes part"
    )
