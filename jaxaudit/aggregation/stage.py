"""What happens to an update on its way into the sum: a chain of stages, each with its encoding and its decoding."""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from ..random import Ticket, words

# Stages draw from the upper half of a round's words; see `lane`.
_LANES = 2**31
MAX_STAGES = 16


class Norms(NamedTuple):
    """The largest norms that one client's vector can have; infinite where nothing bounds them.

    Attributes:
      l1, l2, linf: >= 0.
    """

    l1: float
    l2: float
    linf: float

    def tightened(self, dim: int) -> "Norms":
        """The same, with what each norm says about the others in so many dimensions."""
        l2 = min(self.l2, self.l1, np.sqrt(dim) * self.linf)
        linf = min(self.linf, l2)
        return Norms(min(self.l1, np.sqrt(dim) * l2, dim * linf), l2, linf)


UNBOUNDED = Norms(np.inf, np.inf, np.inf)


class Setting(NamedTuple):
    """What a stage finds: the vectors that reach it, and the protocol it is part of.

    Attributes:
      dim: entries of a vector.
      clients: clients of the largest cohort, the target included; of a Poisson cohort, as many as are expected.
      norms: of one client's vector, in the units that it has here.
      ring_bits: sums are taken modulo 2^ring_bits, 1 to 32; 64 for sums that cannot wrap.
      step: what one integer step stands for, in units of the update; 0 while vectors are real.
      most: clients that may take part, which for a Poisson cohort are more; 0 for `clients`.

    Example:
      A stage alone:

      >>> from jaxaudit.aggregation import FixedPoint
      >>> stage = FixedPoint(clip_range=1.0, bits=8)
      >>> params = stage.prepare(Setting(dim=2, clients=10, norms=UNBOUNDED, ring_bits=32, step=0.0))
      >>> sent = stage.encode(params, jnp.array([0.5, -2.0], jnp.float32), ticket=None)
      >>> sent.tolist(), [round(x, 3) for x in stage.decode(params, sent, survivors=1).tolist()]
      ([64, -127], [0.504, -1.0])
    """

    dim: int
    clients: int
    norms: Norms
    ring_bits: int
    step: float
    most: int = 0

    @property
    def crowd(self) -> int:
        """So many clients a sum must have room for."""
        return max(self.clients, self.most)


class Stage(Protocol):
    """One thing that a client does to its vector, and what the server does about it with the sum.

    A stage is a frozen recipe. `prepare` and `after` run once, on the host; the others are pure, and are traced. Only
    params hold numbers that may be swept: the methods that are traced must not read a float field.

    Attributes:
      kind: its tag.
      steady: its encoding draws no random words, so an update always becomes the same.
    """

    kind: str
    steady: bool

    def prepare(self, setting: Setting) -> Any:
        """Params: a pytree of arrays, all that the other methods look up.

        Raises:
          ValueError: in one line, where the stage does not fit what reaches it.
        """

    def after(self, setting: Setting) -> Setting:
        """What the next stage finds."""

    def words(self, setting: Setting) -> str:
        """What it does, for reports: a few words."""

    def encode(self, params, vector, ticket: Ticket) -> jax.Array:
        """What a client makes of its vector.

        Args:
          params: from `prepare`.
          vector: f32[dim], or i32[dim] after a fixed-point stage.
          ticket: of this client and this stage: all of its words may be drawn, from word 0.
        """

    def expected(self, params, vector, variance) -> tuple[Any, Any]:
        """Mean and variance of the encoding, f32, over the stage's own randomness.

        Args:
          params: from `prepare`.
          vector: f32[dim], mean of what comes in.
          variance: f32[dim] or f32[], of its independent entries.

        Returns:
          (mean f32[dim], variance f32[dim] or f32[]). A steady stage has to be exact about the mean.
        """

    def decode(self, params, total, survivors) -> Any:
        """What the server makes of a sum: works on JAX's and on NumPy's arrays, with their precision.

        Args:
          params: from `prepare`, as arrays of the same library.
          total: real[dim], after all later stages were decoded.
          survivors: how many clients are in it.
        """

    def decoded_variance(self, params, variance) -> Any:
        """Variances of the entries of a decoded sum, from those of its entries."""


def lane(ticket: Ticket, seat, stage: int) -> Ticket:
    """The words of one client at one stage: a generator of their own.

    Args:
      ticket: of the trial, in one round.
      seat: u32[] or i32[], the client's seat, below 2^26.
      stage: static, its place in the chain, below `MAX_STAGES`.

    Returns:
      Ticket: its key is a word pair of the trial's key that no population reads, its counter has the trial's number.

    Guarantee:
      Within a stream the lanes of one seat and stage share no word between trials. Two lanes have the same key, and
      so the same words, with probability 2^-64.
    """
    first = jnp.uint32(_LANES) + jnp.uint32(2 * stage) + jnp.uint32(2 * MAX_STAGES) * jnp.asarray(seat, jnp.uint32)
    key = words(ticket._replace(trial=jnp.uint32(0)), first, 2)
    return Ticket(key[0], key[1], ticket.trial)
