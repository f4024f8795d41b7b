r"""Label recovery through secure aggregation: every client gets a model of its own, and the sum comes apart.

A fishing model shows the head of client k one known vector e_k, whatever its records are. Its gradient there is then
of rank one, g_k e_kᵀ, where g_k = p_k - n_k / B holds its label counts n_k and the known probabilities p_k. The sum
over clients, G = Ĝᵀ E, is a linear system with a known matrix, and its solution tells all counts.

As an audit, the server asks of one client whether its batch had the label a throughout, or b: the statistic is
u·ĝ, along the direction u in which the two differ. Clipped to S, with noise of deviation z S on the sum, models that
put a and b at even odds make the two answers antipodal, and the separation 2/z: the worst case of the mechanism.

Reference:
  Wang, Chang, Hu, Pang, Du, Chen & Ren (2024), "Breaking Secure Aggregation: Label Leakage from Aggregated Gradients
  in Federated Learning", IEEE INFOCOM, arXiv:2406.15731.
"""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from ...broadcast import Craft
from ...schema import recipe
from ...types import LinearTest, Moments, Server, SumView, linear_score
from . import designs
from .crafting import Facts, Mode, Plan, Preset, craft
from .grading import Grades, graded
from .solving import Recovered, Told, solved

# Drift of a head over local steps up to which it was seen to be corrected; at ten times that nothing was recovered.
_DRIFT = 10.0


@recipe
class LabelLeakage:
    """Recovers every client's label histogram by models that differ by client; decides which labels one client had.

    Attributes:
      kind: "label_leakage".
      design: of the embeddings: "disjoint" channels, rows of a 0/1 "hadamard" matrix, or "signed" ones (only where
        no rectifier follows the normalisation).
      mode: "exact" (scale 0: embeddings do not depend on records), "beta_only" (scale untouched, so that gradients
        flow as usual) or "saturated" (ResNet v1 with its last normalisation layer alone edited).
      amplitude: of the shift on a client's channels, > 0.
      edits: "norm", or "norm_and_bias", a stronger server that sends every client its own head's bias, too.
      preset: of the target's model: "natural" odds, a "tie" of the two labels (worst case of replacement: separation
        2/z), or "one_hot" (the first label at odds one: its batch sends nothing, worst case of zero-out: 1/z).
      decisions: in a round: "one", or "all", where every client is a target with a coin of its own; only where the
        decisions of a round are proved independent.
      batch_sizes: "known" to the server, or "unknown".
      local_steps: several of them are "corrected" for by simulating their drift, or decoded as if they were one.
      per_direction: clients that share one direction with amplitudes 1, B+1, (B+1)², ...; above 1 it needs
        edits = norm_and_bias and preset = one_hot.
    """

    reads: ClassVar[type] = SumView
    kind: Literal["label_leakage"] = "label_leakage"
    design: designs.Name = "disjoint"
    mode: Mode = "exact"
    amplitude: float = Field(10.0, gt=0, le=1e6, description="of the shift on a client's channels")
    edits: Literal["norm", "norm_and_bias"] = "norm"
    preset: Preset = "natural"
    decisions: Literal["one", "all"] = "one"
    batch_sizes: Literal["known", "unknown"] = "known"
    local_steps: Literal["corrected", "naive"] = "corrected"
    per_direction: int = Field(1, ge=1, le=8, description="clients that share one direction")

    score = staticmethod(linear_score)
    told_of_round: ClassVar[type] = Told

    @model_validator(mode="after")
    def _fit(self):
        stronger = self.edits == "norm_and_bias"
        if self.per_direction > 1 and not (stronger and self.preset == "one_hot" and self.decisions == "one"):
            raise ValueError(
                f"per_direction is {self.per_direction}, allowed is 1 unless edits = norm_and_bias, preset = one_hot "
                "and decisions = one"
            )
        if self.per_direction > 1 and self.batch_sizes == "unknown":
            raise ValueError('batch_sizes is "unknown", allowed is "known" for per_direction above 1')
        if self.decisions == "all" and self.design != "disjoint":
            raise ValueError('decisions is "all", allowed is "one" unless design = disjoint')
        if self.decisions == "all" and self.preset != "natural" and not stronger:
            raise ValueError(
                'decisions is "all", allowed is "one" for a preset by edits = norm, which takes many channels a '
                "client; set edits = norm_and_bias"
            )
        if self.preset != "natural" and not stronger and self.design != "disjoint":
            raise ValueError(
                f"preset is {self.preset!r} by edits = norm, allowed is design = disjoint, where the target has "
                "channels of its own; set edits = norm_and_bias"
            )
        return self

    def broadcast(self) -> Craft:
        """A model for every client."""
        everyone = self.decisions == "all"
        stronger = self.edits == "norm_and_bias"
        plan = Plan(self.design, self.mode, self.amplitude, self.preset, stronger, everyone, self.per_direction)
        return partial(craft, plan)

    def calibrate(self, server: Server, moments: Sequence[Moments]) -> LinearTest:
        """The decoded statistic of the target along the direction in which the candidates differ, in float64.

        Args:
          server: the candidates as they add to the sum, and what was sent.
          moments: not needed; the models leave nothing to be learned.

        Raises:
          ValueError: where the candidates do not differ in what is decoded.
        """
        del moments
        return self.test(server.facts, server.pair, client=0)

    def test(self, facts: Facts, pair, client: int) -> LinearTest:
        """The same of any client."""
        dual = facts.duals[facts.directions[client]]
        apart = dual @ pair.difference[0][facts.kernel]  # f64[classes], of the decoded gradients
        if not np.linalg.norm(apart):
            raise ValueError(
                "the two label sets of the pair leave the same gradient in the head; choose other population.labels"
            )
        weights = np.zeros(pair.h0.shape)
        weights[0, facts.kernel] = np.outer(dual, apart / np.linalg.norm(apart))
        return LinearTest(weights, np.zeros(1), np.einsum("rd,rd->r", weights, pair.middle))

    def linear(self, knowledge: LinearTest) -> LinearTest:
        """The score as weights and offsets."""
        return knowledge

    def recover(self, facts: Facts, total: np.ndarray, told: Told) -> Recovered:
        """Every client's label counts from the decoded sum f64[dim] of one round, and what is known of the round."""
        return solved(facts, total, told, self.batch_sizes == "known", self.local_steps == "corrected")

    def finds_factors(self, facts: Facts) -> bool:
        """The decoder can tell by itself what a clip left of an update, where there is no noise."""
        return facts.published.steps == 1

    def graded(self, recovered: Recovered, truth: np.ndarray) -> Grades:
        """A recovery against the truth i64[clients, classes], whose rows of those who sent nothing are -1."""
        return graded(recovered.counts, recovered.found, truth)

    def told(self, facts: Facts) -> dict:
        """For reports: design and adversary in words."""
        used = facts.embeddings[facts.slots == 0]
        channels = (used != 0).sum(axis=1)
        span = f"{channels.min()}" if channels.min() == channels.max() else f"{channels.min()} to {channels.max()}"
        dim = used.shape[1]
        of = {"disjoint": "disjoint channels", "hadamard": "0/1 Hadamard rows", "signed": "±1 Hadamard rows"}
        packed = f", {self.per_direction} clients on each direction" if self.per_direction > 1 else ""
        return {
            "design": f"{of[self.design]}, {span} of {dim} each{packed}; condition {designs.condition(used):.3g}, "
            f"noise gain {designs.gain(used):.3g}",
            "mode": self.mode,
            "spread": facts.spread,
            "notes": _notes(facts),
        }


def _notes(facts) -> list[str]:
    """What keeps a recovery from being better than it is."""
    steps, rate = facts.published.steps, facts.published.training.learning_rate
    drift = rate * steps * float((facts.embeddings**2).sum(axis=1).max())
    if steps > 1 and drift > _DRIFT:
        return [
            f"Learning rate times local steps times the squared length of an embedding is {drift:.3g}; the "
            f"correction of several local steps settles below about {_DRIFT:g}: lower attack.amplitude."
        ]
    return []
