"""The user's own recorded updates, from a file or a folder."""

import hashlib
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

import jax
import numpy as np
from pydantic import Field, field_validator, model_validator

from ..protocols import Responses
from ..schema import listed, recipe, several
from ..types import Moments, Pair
from .cohorts import Cohort, cohort_field, dropout_field, require_one_poisson_size
from .imports import Updates, read_updates
from .pairs import (
    candidates_of,
    explicit_pair,
    pair_field,
    random_pair,
    require_pair_files,
    worst_pair,
    zeroed_pair,
)
from .pool import RecordedPool
from .source import blocks, products


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Some rows of the recordings of one round, client after client.

    Attributes:
      updates: the recordings.
      order: i64[n], the rows in use.
      sizes: i64[clients], how many of them belong to each client.
    """

    updates: Updates
    order: np.ndarray
    sizes: np.ndarray

    @property
    def dim(self) -> int:
        """Dimension of an update."""
        return self.updates.dim

    @cached_property
    def key(self) -> str:
        """Address of the rows: the files they are in, the layers, and which."""
        which = hashlib.sha256(self.order.tobytes() + self.sizes.tobytes()).hexdigest()
        return f"{sorted(self.updates.sha256.values())}/{self.updates.layers}/{which}"

    @cached_property
    def edges(self) -> np.ndarray:
        """i64[clients + 1], where each client begins."""
        return np.concatenate([[0], np.cumsum(self.sizes)])

    def freedom(self, groups: int) -> int:
        """Rank that differences within clients can reach."""
        return min(int(self.edges[groups]) - groups, self.dim)

    def rows(self, first: int, last: int) -> np.ndarray:
        """The updates of clients `first` to `last - 1`."""
        return self.updates.rows(self.order[self.edges[first] : self.edges[last]])

    def project(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Products in float64, and what that rounds away."""
        return products(self, weights)


@recipe
class Arrays:
    """Recorded updates in a file or a folder, from which cohorts are drawn.

    Attributes:
      kind: "arrays".
      path: a .npy, .npz or .safetensors file, or a folder of .npz and .safetensors files: flat `updates`, or the
        named tensors of a model, with the `client` and the `round` of each if known (the README has the schema).
        Where clients are known the pools are disjoint by clients, else by updates.
      layers: names or patterns of the tensors to audit, such as "conv1.*"; empty for all.
      rounds: rounds to audit together, the target taking part in each; empty where only one is recorded.
      clients: cohort size, the target included; a list of them audits all from the same draws.
      cohort: cohorts are drawn in every trial "with_replacement" (independent clients) or "without_replacement"
        (distinct ones) or "poisson" (each takes part by a coin of its own, so that `clients` of them are expected),
        or are "fixed", each client drawing one of its own updates. The target takes part in any case.
      dropout: probability that a client of the cohort sends nothing; the target always sends.
      fit_share: share of the clients (or updates) that the server may learn from; the others certify.
      pair: "random" (two updates of the target), "zeroed" (one update against nothing), "worst" (farthest pair of the
        fit pool), or a file with arrays `h0` and `h1`; a list of them audits all from the same draws. The target's
        updates are left out of both pools.
    """

    kind: Literal["arrays"] = "arrays"
    path: str = Field(description="a .npy, .npz or .safetensors file, or a folder of them")
    layers: tuple[str, ...] = Field((), description="names or patterns of tensors, empty for all")
    rounds: tuple[int, ...] = Field(
        (), max_length=1000, description="rounds to audit together, empty where one is recorded"
    )
    clients: cohort_field(100_000) = Field(60, description="cohort sizes, the target included")
    cohort: Cohort = "with_replacement"
    dropout: float = dropout_field()
    fit_share: float = Field(0.5, gt=0, lt=1, description="share of the clients that the server may learn from")
    pair: pair_field("random", "zeroed", "worst") = "random"

    @field_validator("layers", "rounds", mode="before")
    @classmethod
    def _lists(cls, value):
        return listed(value)

    @model_validator(mode="after")
    def _cohorts_fit(self):
        require_one_poisson_size(self.cohort, self.clients)
        return self

    def respond(self, seed: int, broadcast: Any) -> Responses:
        """Index, check and split the recordings; rows are read when they are used."""
        if broadcast is not None:
            raise ValueError(
                "recorded arrays cannot answer a malicious server; set population.kind = deceived, or use an "
                "honest attack"
            )
        updates = read_updates(self.path, self.layers)
        known = updates.client is not None
        if self.cohort == "fixed" and not known:
            raise ValueError(
                f'population.cohort is "fixed", but {self.path} does not say whose updates it holds; record `client`'
            )
        owners = updates.client if known else np.arange(len(updates))
        rounds = self._audited(updates)
        if len(rounds) > 1 and not known:
            raise ValueError(f"{self.path} does not say whose updates its rounds hold; record `client`")
        require_pair_files(several(self.pair), len(rounds), updates.dim)
        for first, last in blocks(np.ones(len(updates), int), updates.dim):
            updates.rows(np.arange(first, last))  # refuses what is not finite
        parts = self._split(owners, updates.round, rounds, known, seed)
        target, fit, certify = ([_source(updates, owners, names, r) for r in rounds] for names in parts)
        clients = [len(names) if known else None for names in parts]
        pool = partial(
            RecordedPool,
            cohort=self.cohort,
            noise_terms=max(several(self.clients)) - 1,
            what="recorded updates",
            dropout=self.dropout,
        )
        apart = "clients" if known else "rows (their clients are not recorded)"
        cohort = "".join(
            f", recorded in a cohort of {updates.cohort[r]:,}" for r in rounds[:1] if r in updates.cohort
        )
        return Responses(
            fit=pool(tuple(fit), clients=clients[1], stands_in_for=len(parts[2])),
            certify=pool(tuple(certify), clients=clients[2]),
            cohorts=several(self.clients),
            choose_pairs=partial(self._pairs, target, fit),
            real=f"the updates, as recorded in {updates.source}{cohort}; {updates.flattening}",
            given="this pool" + ", the recorded course of the model (no trial changes it)" * (len(rounds) > 1),
            knows={
                "fit_pool": "the two candidates, the protocol, and recorded updates disjoint from the audited by "
                + apart,
                "certify_pool": "the two candidates, the protocol, and every recorded update of the audited pool",
            },
            fresh=self._fresh(updates, known),
            data_sha256=updates.sha256,
        )

    def _fresh(self, updates, known):
        # A model that moved through recorded rounds was moved by the recorded clients.
        if self.cohort == "fixed" or len(np.unique(updates.round)) > 1:
            return ""
        who = "clients" if known else "updates come from different clients, which"
        return (
            f"the recorded {who} are independent draws from one population, and the model and the candidates were "
            "chosen without them"
        )

    def _audited(self, updates):
        recorded = np.unique(updates.round)
        if not self.rounds and len(recorded) > 1:
            raise ValueError(
                f"{self.path} holds rounds {recorded[0]} to {recorded[-1]}; choose with --set population.rounds="
                f"[{recorded[0]}], or several that the target takes part in"
            )
        missing = sorted(set(self.rounds) - set(recorded.tolist()))
        if missing:
            raise ValueError(f"population.rounds holds {missing[0]}, {self.path} holds {_ranges(recorded)}")
        return list(dict.fromkeys(self.rounds)) or recorded.tolist()

    def _split(self, owners, recorded_in, rounds, known, seed):
        """Names of the target, of the fit and of the certify clients, who all sent updates in every audited round."""
        names = np.unique(owners[recorded_in == rounds[0]])
        for r in rounds[1:]:
            names = np.intersect1d(names, owners[recorded_in == r])
        key_order, _ = jax.random.split(jax.random.key(seed))
        order = names[np.asarray(jax.random.permutation(key_order, len(names)))]
        # By rows, two of them play the target; by clients, one client with all its rows does.
        taken = 1 if known else 2
        cut = taken + round(self.fit_share * (len(order) - taken))
        parts = order[:taken], order[taken:cut], order[cut:]
        what, largest = ("clients" if known else "updates"), max(several(self.clients))
        for name, part in (("fit", parts[1]), ("certify", parts[2])):
            if len(part) < largest - 1:
                raise ValueError(
                    f"population.clients is {largest}, but the {name} pool holds only {len(part)} of {len(names)} "
                    f"{what}; allowed are cohorts up to {len(part) + 1}: record more, or change population.fit_share"
                )
        return parts

    def _pairs(self, target, fit, moments) -> tuple[Pair, ...]:
        return tuple(self._pair(name, target, fit, moments) for name in several(self.pair))

    def _pair(self, name, target, fit, moments: tuple[Moments, ...]) -> Pair:
        own = [source.rows(0, len(source.sizes)) for source in target]
        if name == "zeroed":
            return zeroed_pair(np.stack([rows[0] for rows in own]))
        if name == "random":
            if min(len(rows) for rows in own) < 2:
                raise ValueError('population.pair = "random" needs two updates of the target, its client has one')
            return random_pair(*(np.stack([rows[at] for rows in own]) for at in (0, 1)))
        if name == "worst":
            candidates = [s.updates.rows(s.order[:: -(-len(s.order) // candidates_of(s.dim))]) for s in fit]
            return worst_pair(candidates, moments)
        return explicit_pair(name, len(target), target[0].dim)


def _source(updates, owners, names, in_round):
    """The rows of some clients in one round, client after client in the order of `names`."""
    where = np.argsort(names, kind="stable")
    rows = np.flatnonzero((updates.round == in_round) & np.isin(owners, names))
    place = where[np.searchsorted(names, owners[rows], sorter=where)]
    order = rows[np.argsort(place, kind="stable")]
    return ArraySource(updates, order, np.bincount(place, minlength=len(names)))


def _ranges(recorded):
    return f"rounds {recorded[0]} to {recorded[-1]}" if len(recorded) > 1 else f"round {recorded[0]} only"
