"""Many decisions of one round, each about another client: only where they are proved independent.

With models that leave every client channels of its own, and continuous noise that is independent in every entry, the
statistic of a client depends on its own coin and on the noise of its own entries. So the decisions of a round are
independent trials, a trial of the audit is one of them, and it draws its noise by a ticket of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .aggregation.chain import Chain
from .broadcast import Sent
from .fixed_point import fixed_step
from .game import Game
from .populations.source import product_error
from .random import normals
from .types import LinearTest, Pair, Ticket

# Room for noise in a score: so many standard deviations.
_REACH = 40.0


class Independent(NamedTuple):
    """A proof that the decisions of a round are independent; `proved` makes it, and nothing else should.

    Attributes:
      why: in words.
    """

    why: str


def proved(chain: Chain | None, pool: Any, sent: Sent, attendance) -> Independent:
    """The proof, from the channel and the models.

    Raises:
      ValueError: with what stands against it, in one line.
    """
    against = _against(chain, sent, attendance)
    if against:
        raise ValueError(
            f'attack.decisions is "all", and the decisions of a round are not proved independent: {against}; allowed '
            "are disjoint channels, an l2 clip and Gaussian noise without fixed point or dropouts: else set "
            'attack.decisions = "one"'
        )
    return Independent("continuous Gaussian noise on disjoint channels, and an l2 clip of each client's own update")


def _against(chain, sent, attendance) -> str:
    if chain is None or not chain.noises:
        return "no noise is added"
    for link in chain.links:
        if link.stage.kind not in ("clip", "weight", "gaussian"):
            return f"there is a {link.stage.kind} stage"
    if len(attendance) > 1 or not chain.channel.announced or chain.channel.minimum:
        return "who takes part is not the same in every round"
    touched = sent.facts.embeddings != 0
    if (touched.sum(axis=0) > 1).any():
        return "the models of two clients share a channel"
    return ""


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
    """One decision a trial: trial t is about client t mod clients, in round t div clients."""

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


def decided(independent: Independent, tests: Sequence[LinearTest], pairs: Sequence[Pair], deviation: float) -> Game:
    """The game in which every client of a round is a target.

    Args:
      independent: the proof.
      tests: the statistic of each client.
      pairs: its candidates as they add to the sum.
      deviation: of the noise in an entry of the sum, > 0.

    Returns:
      Game of one cell: its error rates are averages over the clients, so a bound on its ε is one on the largest of
      theirs. Trials have as many laws as there are clients, so nothing but the union of two Clopper-Pearson limits
      is used; for a sum of independent coins of unequal odds these are conservative (Hoeffding, 1956).
    """
    del independent
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
