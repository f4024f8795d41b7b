"""Many decisions of one round, each about another client: only where they are proved independent.

With models that leave every client channels of its own, and continuous noise that is independent in every entry, the
statistic of a client depends on its own coin and on the noise of its own entries, once what the clients may send is
seen to be zero in the entries of all others. So the decisions of a round are independent trials, a trial of the audit
is one of them, and it draws its noise by a ticket of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .aggregation.chain import Chain
from .fixed_point import fixed_step
from .game import Game
from .populations.source import product_error
from .random import normals
from .types import LinearTest, Pair, Ticket

# Room for noise in a score: so many standard deviations.
_REACH = 40.0


class Independent(NamedTuple):
    """Decisions of a round that are independent; `proved` makes it, and nothing else should.

    Attributes:
      tests: the statistic of every client.
      pairs: its candidates, as they add to the sum.
      deviation: of the noise in an entry of the sum.
    """

    tests: Sequence[LinearTest]
    pairs: Sequence[Pair]
    deviation: float


WHY = (
    "continuous Gaussian noise is independent in every entry, and whatever the others send is exactly zero in the "
    "entries that a client's statistic reads"
)


def proved(
    chain: Chain | None, tests: Sequence[LinearTest], pairs: Sequence[Pair], deviation: float, attendance
) -> Independent:
    """The proof, from the channel and from what every client may send.

    Raises:
      ValueError: with what stands against it, in one line.
    """
    against = _against(chain, tests, pairs, attendance)
    if against:
        raise ValueError(
            f'attack.decisions is "all", and the decisions of a round are not proved independent: {against}; allowed '
            "are one pair, disjoint channels, clips and after them Gaussian noise, without fixed point, dropouts and "
            'weight decay: else set attack.decisions = "one"'
        )
    return Independent(tests, pairs, deviation)


def _against(chain, tests, pairs, attendance) -> str:
    if chain is None or not chain.noises:
        return "no noise is added"
    for link in chain.links:
        if link.stage.kind not in ("clip", "weight", "gaussian"):
            return f"there is a {link.stage.kind} stage"
    if len(attendance) > 1 or not chain.channel.announced or chain.channel.minimum:
        return "who takes part is not the same in every round, or not told"
    if not chain.linear:
        return "a stage follows the clients' noise"
    if len({pair.adjacency for pair in pairs}) > 1:
        return "the candidates of some clients are of another adjacency than those of others"
    reads = np.stack([test.weights.reshape(-1) != 0 for test in tests])
    sends = np.stack([pair.both.any(axis=0).reshape(-1) for pair in pairs])
    meet = reads.astype(np.float32) @ sends.astype(np.float32).T
    np.fill_diagonal(meet, 0)
    return "an update of one client has entries that another's statistic reads" if meet.any() else ""


class DecisionParams(NamedTuple):
    """The arrays of a game of decisions: a pytree.

    Attributes:
      ends: i32[clients, 2], what the target adds under either bit, in steps.
      deviation: f32[], of the noise, in steps.
    """

    ends: jax.Array
    deviation: jax.Array


@dataclass(frozen=True)
class DecisionProgram:
    """One decision a trial: trial t is about client t mod clients (of its low 32 bits)."""

    def width(self, params: DecisionParams) -> int:
        """Trials to compute together."""
        del params
        return 8192

    def play(self, params: DecisionParams, ticket: Ticket) -> jax.Array:
        """The statistic of the client under both bits, in steps: i32[2, 1]."""
        client = (ticket.trial % jnp.uint32(params.ends.shape[0])).astype(jnp.int32)
        noise = jnp.rint(params.deviation * normals(ticket, jnp.uint32(0), 1)[0]).astype(jnp.int32)
        return (params.ends[client] + noise)[:, None]

    def decode(self, keys: np.ndarray) -> np.ndarray:
        """Steps as they are."""
        return np.asarray(keys, np.float64)


def decided(independent: Independent) -> Game:
    """The game in which every client of a round is a target.

    Args:
      independent: what is decided, with its proof.

    Returns:
      Game of one cell: its error rates are averages over the clients, so a bound on its ε is one on the largest of
      theirs. Trials have as many laws as there are clients, so they do not count as nested: paired ones take the
      union of two Clopper-Pearson limits. For a sum of independent coins of unequal odds binomial limits are
      conservative (Hoeffding, 1956). Given that a labelled trial fell into the event, it is a false positive with
      probability 1 / (1 + e^ε) or more, independently of the others, so the conditional limit is, too.
    """
    tests, pairs, deviation = independent
    ends, error = [], 0.0
    for test, pair in zip(tests, pairs, strict=True):
        unit = test.weights / np.linalg.norm(test.weights)
        around = (pair.both - pair.middle).reshape(2, -1)
        ends.append(around @ unit.reshape(-1))
        error = max(error, float(product_error(np.abs(pair.both).max(), unit.reshape(1, -1))[0]))
    ends = np.stack(ends)
    step = float(fixed_step(np.abs(ends).max() + _REACH * deviation))
    shift = ends[:, 1] - ends[:, 0]
    return Game(
        DecisionProgram(),
        DecisionParams(jnp.asarray(np.rint(ends / step), jnp.int32), jnp.float32(deviation / step)),
        order=np.arange(1),
        scale=np.array([step]),
        # What an end was rounded by, and the noise.
        slack=np.array([error + step]),
        nested=np.zeros(1, bool),
        distance=np.array([np.mean(shift) / deviation]),
    )
