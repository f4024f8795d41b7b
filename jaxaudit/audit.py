"""The audit: a population sends, an aggregator reveals, an attack scores.

`Audit` is the recipe. `Audit.prepare` does all the slow and host-bound work, and what it returns makes a `Game`.
Where a recipe lists several pairs or cohort sizes, every combination is a cell: all cells share the preparation, the
draws of every trial, and the failure probability.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from .aggregation.chain import Chain
from .decisions import WHY, decided, proved
from .encoded import CoarseWeights, EncodedPool
from .game import Evaluation, FoldParams, FoldProgram, Game, SumParams, SumProgram
from .protocols import Aggregator, Attack, Column, Pool, Population, Responses
from .schema import recipe
from .types import LinearTest, Pair, Server

Knows = Literal["fit_pool", "certify_pool"]
_EXACT_SUM = (
    "the ideal functionality of secure aggregation (the exact sum of the updates, with all rounding counted against "
    "the bound)"
)
_VERBS = {
    "population": ("respond",),
    "aggregator": ("view", "linear", "words", "prepare", "init", "add", "reveal"),
    "attack": ("reads", "broadcast", "score"),
}


@dataclass(frozen=True)
class Cell:
    """One pair in one cohort size.

    Attributes:
      server: what the adversary was told: the pair, and how many others there are.
      options: the attack's knowledge for each of its settings, by the setting in words.
      setting: the one that is used; pilot trials choose it where there are several.
    """

    server: Server
    options: Mapping[str, Any]
    setting: str

    @property
    def pair(self) -> Pair:
        """The candidates."""
        return self.server.pair

    @property
    def clients(self) -> int:
        """Cohort size, the target included."""
        return self.server.noise_terms + 1

    @property
    def knowledge(self) -> Any:
        """What the attack calibrated, in float64."""
        return self.options[self.setting]

    @property
    def name(self) -> str:
        """Pair and cohort size."""
        return f"{self.pair.name}-{self.clients}"


@dataclass(frozen=True)
class Prepared:
    """An audit after all host-bound work.

    Attributes:
      audit: the recipe.
      responses: what the population prepared; its pools lie behind the channel, if there is one.
      chain: how updates are encoded, None for a plain sum.
      cells: what is audited together; the first is the headline.
      timing: seconds spent in `respond_s` (data and training) and `calibrate_s` (moments, pairs, weights).
    """

    audit: "Audit"
    responses: Responses
    cells: tuple[Cell, ...]
    timing: Mapping[str, float]
    chain: Chain | None = None

    def seen(self, pair: Pair) -> Pair:
        """The candidates as they add to the sum that the server decodes."""
        return pair if self.chain is None else self.responses.certify.seen(pair)

    def game(self) -> Game:
        """The cheapest form of the game: projected where score and aggregator are linear, else the general one."""
        if self.all_at_once:
            return self._decisions
        return self._projection if self.linear else self.fold()

    @property
    def all_at_once(self) -> bool:
        """Every client of a round is a target, with a decision of its own."""
        return getattr(self.audit.attack, "decisions", "one") == "all"

    @cached_property
    def _decisions(self) -> Game:
        responses, attack, server = self.responses, self.audit.attack, self.cells[0].server
        if len(self.cells) > 1:
            raise ValueError(
                'attack.decisions is "all", allowed is "one" for several pairs or cohort sizes; name one pair'
            )
        pairs = [self.seen(pair) for pair in responses.everyone()]
        tests = [attack.test(responses.sent.facts, pair, client) for client, pair in enumerate(pairs)]
        variance = 0.0 if self.chain is None else responses.certify.noise_variance(server.noise_terms)
        return decided(proved(self.chain, tests, pairs, np.sqrt(variance), server.attendance))

    @property
    def simulated(self) -> str:
        """What is drawn in a trial, in words."""
        if self.all_at_once:
            return f"{self.mechanism}; every decision of a round as a trial of its own, for {WHY}"
        return f"{self.mechanism}, and who sends what in a trial"

    @cached_property
    def linear(self) -> bool:
        """The score is linear in the total, and the total in the updates."""
        if not (self.audit.aggregator.linear and hasattr(self.audit.attack, "linear")):
            return False
        return self.chain is None or (self.responses.certify.linear and self._projection is not None)

    @cached_property
    def _projection(self) -> Game | None:
        """The projected game; None where 32 bits are too few for its weights and the steps of the ring."""
        try:
            return self.project()
        except CoarseWeights:
            return None

    @property
    def mechanism(self) -> str:
        """What was simulated of the protocol, in words: the exact sum if projected, else what the aggregator does."""
        if self.chain is not None:
            naive = self.chain.may_wrap and hasattr(self.audit.attack, "linear")
            hint = (
                "; this test takes sums that wrapped for those that did not, attack.kind = wrapped_lrt reads residues"
            )
            return self.chain.words(projected=self.linear) + hint * naive
        return _EXACT_SUM if self.linear else self.audit.aggregator.words

    def settings(self) -> "Prepared":
        """The same audit with every setting of every cell as a cell of its own."""
        cells = [replace(cell, setting=setting) for cell in self.cells for setting in cell.options]
        return replace(self, cells=tuple(cells))

    def fold(self) -> Game:
        """The general game, on whole updates."""
        pairs = list({id(cell.pair): cell.pair for cell in self.cells}.values())
        loaded = self.responses.certify.load(pairs)
        order = sorted(range(len(self.cells)), key=lambda c: self.cells[c].clients)
        evaluations, knowledge = [], []
        for cell in (self.cells[c] for c in order):
            where = next(number for number, pair in enumerate(pairs) if pair is cell.pair)
            evaluations.append(Evaluation(where, loaded.draws.seats(cell.server.noise_terms)))
            knowledge.append(jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), cell.knowledge))
        aggregator, dim = self.audit.aggregator, self.responses.certify.dim
        largest = 1 + max(evaluation.seats for evaluation in evaluations)
        if self.chain is None:
            numbers = aggregator.prepare(loaded.limit, largest)
        else:
            aggregator = self.chain.channel.started(self.responses.certify.ahead)
            numbers = self.chain.params(loaded.limit)
        program = FoldProgram(loaded.draws, aggregator, self.audit.attack.score, dim, tuple(evaluations))
        params = FoldParams(loaded.params, numbers, tuple(knowledge))
        cells = len(self.cells)
        return Game(
            program,
            params,
            order=np.argsort(order),
            scale=np.ones(cells),
            # The score is a function of the view, and the view of the sum: there is nothing to allow for.
            slack=np.zeros(cells),
            nested=np.zeros(cells, bool),
            distance=np.full(cells, np.nan),
        )

    def project(self, tests: Sequence[LinearTest] | None = None, pool: Pool | None = None) -> Game:
        """The game on the exact sum, one integer per update and cell: a linear score of a sum is a sum of scores.

        Same tickets and same draws as `fold`, at a cost per trial that does not depend on the dimension. The sum is
        not rounded to the aggregator's fixed point; what the rounding of scores leaves open is in the slack.

        Args:
          tests: the linear score of every cell; the attack's own by default.
          pool: what to draw from; the certify pool by default.

        Returns:
          Game, of one column per cell.
        """
        columns = self.columns(tests)
        projected = (pool or self.responses.certify).project(columns)
        slack = (projected.terms + 1) * projected.error
        # Of the ends themselves: weights may have been rounded to whole steps.
        shift = projected.step * (projected.ends[1].astype(np.float64) - projected.ends[0])
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = np.where(shift == 0, 0.0, np.abs(shift) / projected.deviation)
        return Game(
            SumProgram(projected.draws),
            SumParams(projected.params, jnp.asarray(projected.ends, jnp.int32)),
            order=np.arange(len(columns)),
            scale=projected.step,
            slack=slack,
            nested=shift > 6 * slack,
            distance=distance,
        )

    def columns(self, tests: Sequence[LinearTest] | None = None) -> list[Column]:
        """The linear score of every cell, with its pair and its cohort."""
        tests = tests or [self.audit.attack.linear(cell.knowledge) for cell in self.cells]
        return [Column(cell.pair, test, cell.server.noise_terms) for cell, test in zip(self.cells, tests)]

    def statement(self, cell: Cell) -> str:
        """The sentence that says what a bound of a cell is about, and what it is not."""
        drawn = self.responses.certify.describe(cell.server.noise_terms)["words"]
        return (
            f"{self._about(cell, drawn)}; conditional on {self.responses.given}, these candidates and this attack. "
            "Not a statement about new clients, other models or record-level DP."
        )

    def population_statement(self, cell: Cell) -> str:
        """What a bound from disjoint cohorts is about, and what it assumes."""
        rounds = self.responses.certify.rounds
        drawn = (
            f"sum of the updates of {cell.server.noise_terms:,} distinct clients of the population that the audited "
            f"clients come from{f', others in each of {rounds} rounds' * (rounds > 1)}, one recording each"
        )
        return (
            f"{self._about(cell, drawn)}; weights, settings and thresholds come from the fit pool; assuming that "
            f"{self.responses.fresh}."
        )

    def _about(self, cell, drawn):
        if self.all_at_once:
            return (
                f"Lower bound on the largest ε of {cell.clients:,} mechanisms, one for each client as the target: "
                f"its fixed candidates x, x' ({cell.pair.source}), of which it always sends one, + those of all "
                f"others; server knows {cell.server.knows}; adjacency: {cell.pair.adjacency}{self._part}"
            )
        return (
            f"Lower bound on ε of: fixed candidates x, x' ({cell.pair.source}), of which the target always sends "
            f"one, + {drawn}; server knows {cell.server.knows}; adjacency: {cell.pair.adjacency}{self._part}"
        )

    @property
    def _part(self):
        return f"; {self.responses.partial}" * bool(self.responses.partial)


@recipe
class Audit:
    """A recipe of the game.

    Attributes:
      population: who sends what.
      aggregator: what the protocol reveals.
      attack: what the server infers.
      server_knows: "fit_pool" (the server learned from clients other than the audited ones) or "certify_pool" (it
        knows every recorded update it audits: a stronger server, and a statement about this pool only).
    """

    population: Any
    aggregator: Any
    attack: Any
    server_knows: Knows = "fit_pool"

    def check(self) -> None:
        """Raise ValueError where a part is incomplete, or the parts do not fit together."""
        for part, verbs in _VERBS.items():
            player = getattr(self, part)
            verbs += ("calibrate",) if part == "attack" and not hasattr(player, "options") else ()
            for verb in verbs:
                if not hasattr(player, verb):
                    name = type(player).__name__
                    raise ValueError(f"{part} {name} has no {verb!r}; jaxaudit.protocols says what it must have")
        attack: Attack = self.attack
        aggregator: Aggregator = self.aggregator
        if attack.reads is not aggregator.view:
            raise ValueError(
                f"attack {attack.kind!r} reads {attack.reads.__name__}, but aggregator {aggregator.kind!r} reveals "
                f"{aggregator.view.__name__}; choose an attack that reads what is revealed"
            )

    def prepare(self, seed: int) -> Prepared:
        """All host-bound work, once: respond, moments, pairs, calibrate.

        Args:
          seed: of the run, in [0, 2^32).

        Returns:
          Prepared.
        """
        self.check()
        began = time.perf_counter()
        population: Population = self.population
        responses = population.respond(seed, self.attack.broadcast())
        if self.server_knows not in responses.knows:
            raise ValueError(
                f"server_knows is {self.server_knows!r}, allowed are {', '.join(responses.knows)} for population "
                f"{population.kind!r}; leave it out"
            )
        chain = self.chain(responses)
        if chain is not None:
            fit, certify = (pool and EncodedPool(pool, chain) for pool in (responses.fit, responses.certify))
            responses = replace(responses, fit=fit, certify=certify)
        responded = time.perf_counter()
        pool = responses.certify if self.server_knows == "certify_pool" else responses.fit
        moments = cache(lambda clients: pool.moments(clients - 1) if pool else ())
        pairs = responses.choose_pairs(moments(responses.cohorts[0]))
        cells = []
        for clients in responses.cohorts:
            for pair in pairs:
                attendance = responses.certify.attendance(clients - 1)
                knows, sent = responses.knows[self.server_knows], responses.sent
                server = Server(pair, clients - 1, knows, attendance, chain, sent and sent.facts)
                cells.append(self._calibrated(server, moments(clients), responses))
        timing = {"respond_s": responded - began, "calibrate_s": time.perf_counter() - responded}
        return Prepared(self, responses, tuple(cells), timing, chain)

    def chain(self, responses: Responses) -> Chain | None:
        """How updates are encoded in the largest cohort, of pools that do not lie behind a channel yet."""
        if not hasattr(self.aggregator, "fitted"):
            return None
        clients = max(responses.cohorts)
        pool = responses.certify
        others = pool.attendance(clients - 1)
        varying, most = others != ((clients - 1, 1.0),), 1 + max(number for number, _ in others)
        smallest = min(responses.cohorts)
        if getattr(self.aggregator, "minimum", 0) > smallest:
            raise ValueError(
                f"aggregator.minimum is {self.aggregator.minimum:,}, but the smallest cohort has {smallest:,} "
                f"clients, and hardly a round would be revealed; allowed are 0 to {smallest:,}"
            )
        chain = self.aggregator.fitted(pool.dim, clients, varying, pool.rounds, most)
        if chain is not None and responses.partial and not chain.by_entry:
            raise ValueError(
                f"{responses.partial}, and a stage of aggregator.stages (l2 clip, rotate, top_k or random_k) needs "
                'whole updates; set population.sends = "whole"'
            )
        if chain is not None and chain.channel.remembered and getattr(pool, "cohort", "fixed") != "fixed":
            raise ValueError(
                f'error_feedback remembers from round to round, and cohort = "{pool.cohort}" has other clients in '
                'each; allowed is cohort = "fixed", or one audited round'
            )
        return chain

    def _calibrated(self, server, moments, responses):
        sees = server if server.chain is None else replace(server, pair=responses.certify.seen(server.pair))
        if hasattr(self.attack, "options"):
            options = self.attack.options(sees, moments)
        else:
            options = {"": self.attack.calibrate(sees, moments)}
        return Cell(server, options, next(iter(options)))
