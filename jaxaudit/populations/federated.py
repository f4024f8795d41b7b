"""Clients that train a real model on real records and send the updates of recorded mini-batches."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from .. import datasets, models
from ..schema import recipe
from ..types import Moments, Pair, Responses
from .pairs import explicit_pair, pair_field, random_pair, require_pair_file, worst_pair, zeroed_pair
from .partition import deal
from .pool import RecordedPool


class Global(NamedTuple):
    """The global model of the audited round, and what it trains on.

    Attributes:
      theta: f32[dim], its parameters.
      inputs: f32[records, ...].
      labels: i32[records].
    """

    theta: jax.Array
    inputs: jax.Array
    labels: jax.Array


@dataclass(frozen=True)
class _Batches:
    """The mini-batches of one client, as positions among its records: static sizes, no arrays."""

    variants: int
    steps: int
    size: int

    def __call__(self, key, records):
        """Record numbers of every recorded variant, i32[variants, steps, size], distinct within a batch."""
        order = jax.random.uniform(key, (self.variants, self.steps, records.shape[0]))
        return records[jnp.argsort(order, axis=-1)[..., : self.size]]


@dataclass(frozen=True, eq=False)
class FederatedSource:
    """The recorded mini-batch updates of some clients, computed when they are asked for.

    Attributes:
      training: the local training.
      unravel: from theta to the pytree of the model.
      model: the global model and the data.
      batches: how mini-batches are recorded.
      records: i64[clients, records per client].
      key: PRNG key of these clients' mini-batches.
    """

    training: models.LocalTraining
    unravel: Any
    model: Global
    batches: _Batches
    records: np.ndarray
    key: jax.Array

    @property
    def dim(self):
        """Number of parameters."""
        return self.model.theta.size

    def freedom(self, groups: int) -> int:
        """Rank that within-client differences can reach; one-step updates are means over the client's records."""
        _, each = self.records.shape
        one = self.batches.variants - 1
        if self.batches.steps == 1:
            one = min(one, each - 1)
        return min(groups * one, self.dim)

    @property
    def sizes(self):
        """Every client has recorded as many variants."""
        return np.full(len(self.records), self.batches.variants)

    def chunks(self, group: int):
        """All variants of one client, in one piece."""
        rows = np.asarray(self._client(jnp.asarray(self.records[group]), jax.random.fold_in(self.key, group)))
        if not np.isfinite(rows).all():
            raise ValueError(
                f"population.learning_rate is {self.training.learning_rate}, and client {group} diverges: its "
                "updates hold NaN or infinity; set a smaller one with --set population.learning_rate=VALUE"
            )
        return [rows]

    def project(self, weights: np.ndarray) -> np.ndarray:
        """One scalar per update; a single step needs only a directional derivative, and no update is stored."""
        if self.batches.steps > 1:
            rows = (self.chunks(group)[0] for group in range(len(self.records)))
            return np.concatenate([row.astype(np.float64) @ weights for row in rows])
        weights = jnp.asarray(weights, jnp.float32)
        slopes = [
            self._slopes(weights, jnp.asarray(records), jax.random.fold_in(self.key, group))
            for group, records in enumerate(self.records)
        ]
        return np.concatenate(jax.device_get(slopes)).astype(np.float64)

    def update(self, batches):
        """The update of given batches i32[steps, size] of record numbers: f32[dim]."""
        return np.asarray(self._update(self.model, jnp.asarray(batches)))

    @property
    def _update(self):
        return partial(_update, self.training, self.unravel)

    def _client(self, records, key):
        return _client_updates(self.training, self.unravel, self.batches, self.model, records, key)

    def _slopes(self, weights, records, key):
        return _client_slopes(self.training, self.unravel, self.batches, self.model, weights, records, key)


@partial(jax.jit, static_argnums=(0, 1))
def _update(training, unravel, model: Global, batch):
    return training.update(unravel, model.theta, model.inputs[batch], model.labels[batch])


@partial(jax.jit, static_argnums=(0, 1, 2))
def _client_updates(training, unravel, batches, model: Global, records, key):
    return jax.vmap(partial(_update, training, unravel, model))(batches(key, records))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _client_slopes(training, unravel, batches, model: Global, weights, records, key):
    def slope(batch):
        return training.projected_update(unravel, model.theta, weights, model.inputs[batch], model.labels[batch])

    return jax.vmap(slope)(batches(key, records))


@recipe
class Federated:
    """A cohort of clients with their own records, training the same model.

    The records are halved (`fit_share`): one part belongs to simulated clients that the server may learn from, the
    other to the cohort that is audited. Every client records `variants` mini-batch updates of the audited round; in a
    trial each of the others sends one of its own, drawn at random, and the target sends one of two candidates.

    Attributes:
      kind: "federated".
      dataset: "digits".
      model: "softmax" (one dense layer) or "mlp" (one hidden layer).
      hidden: width of the hidden layer of "mlp".
      clients: cohort size, the target included.
      batch_size: records in a mini-batch.
      local_steps: SGD steps on a client.
      learning_rate: of SGD.
      momentum: of SGD.
      rounds: rounds of federated averaging before the audited one; 0 audits the model as initialised.
      partition: "iid", or "dirichlet" with the concentration `alpha`.
      alpha: concentration of the Dirichlet partition; smaller is more uneven.
      variants: recorded mini-batch updates of each client.
      fit_share: share of the records that the server may learn from.
      pair: "record" (one record of the target's batch is replaced by a record the cohort never saw), "zeroed" (the
        target's update or nothing), "random" (two of the target's updates), "worst" (farthest pair of the fit pool),
        or a file with arrays `h0` and `h1`.
    """

    kind: Literal["federated"] = "federated"
    dataset: datasets.Name = "digits"
    model: models.Name = "softmax"
    hidden: int = Field(32, ge=1, le=100_000, description="width of the hidden layer of mlp")
    clients: int = Field(60, ge=2, le=100_000, description="cohort size, the target included")
    batch_size: int = Field(8, ge=1, description="records in a mini-batch")
    local_steps: int = Field(1, ge=1, le=10_000, description="SGD steps on a client")
    learning_rate: float = Field(0.5, gt=0, description="learning rate of SGD")
    momentum: float = Field(0.0, ge=0, lt=1, description="momentum of SGD")
    rounds: int = Field(20, ge=0, le=100_000, description="rounds of federated averaging before the audit")
    partition: Literal["iid", "dirichlet"] = "iid"
    alpha: float = Field(0.5, gt=0, description="concentration of the Dirichlet partition")
    variants: int = Field(64, ge=2, le=1_000_000, description="recorded mini-batch updates of each client")
    fit_share: float = Field(0.5, gt=0, lt=1, description="share of the records that the server may learn from")
    pair: pair_field("record", "zeroed", "random", "worst") = "record"

    def respond(self, seed: int, broadcast: Any) -> Responses:
        """Load, deal, train and set up the recordings."""
        if broadcast is not None:
            raise ValueError("federated clients answer only an honest server so far; use an honest attack")
        require_pair_file(self.pair)
        names = ("split", "fit", "certify", "init", "train", "fit_batches", "certify_batches", "pair")
        keys = dict(zip(names, jax.random.split(jax.random.key(seed), len(names))))
        data = datasets.load(self.dataset)
        fit, certify = self._deal(data, keys)

        training = models.LocalTraining(
            models.build(self.model, data.classes, self.hidden), self.learning_rate, self.momentum
        )
        inputs, labels = jnp.asarray(data.inputs), jnp.asarray(data.labels)
        theta, unravel = training.init(keys["init"], inputs[:1])
        theta = self._average(training, unravel, Global(theta, inputs, labels), certify, keys["train"])
        source = partial(
            FederatedSource,
            training,
            unravel,
            Global(theta, inputs, labels),
            _Batches(self.variants, self.local_steps, self.batch_size),
        )
        learned, audited = source(fit, keys["fit_batches"]), source(certify, keys["certify_batches"])
        held_out = fit.reshape(-1)
        return Responses(
            fit=self._pool(learned),
            certify=self._pool(audited),
            choose_pair=lambda moments: self._pair(audited, learned, moments, keys["pair"]),
            real=f"the updates: local training of a flax {self.model} classifier on {data.source}",
            metrics={
                "dim": float(audited.dim),
                "test_accuracy": training.accuracy(unravel, theta, inputs[held_out], labels[held_out]),
            },
            data_sha256={self.dataset: data.sha256},
        )

    def _pool(self, source):
        # Client 0 is the target, or stands in for it: it has a seat of its own, and nobody draws from its recordings.
        others = self.clients - 1
        what = f"recorded mini-batch updates of {others:,} clients, each client drawing one of its own"
        return RecordedPool(source, np.arange(1, self.clients), what, others)

    def _deal(self, data, keys):
        order = np.asarray(jax.random.permutation(keys["split"], len(data.labels)))
        cut = round(self.fit_share * len(order))
        concentration = self.alpha if self.partition == "dirichlet" else None
        dealt = []
        for name, part in (("fit", order[:cut]), ("certify", order[cut:])):
            each = len(part) // self.clients
            if each < self.batch_size:
                allowed = f"batches of 1 to {each}" if each else f"cohorts of up to {len(part)}"
                raise ValueError(
                    f"population.batch_size is {self.batch_size}, but population.clients = {self.clients} share "
                    f"{len(part)} {name} records, {each} each; allowed are {allowed}: use fewer clients "
                    "or smaller batches"
                )
            dealt.append(part[deal(data.labels[part], self.clients, concentration, keys[name])])
        return dealt

    def _average(self, training, unravel, model: Global, records, key):
        """Federated averaging over the audited cohort, one mini-batch sequence per client and round."""
        batches = _Batches(1, self.local_steps, self.batch_size)

        @jax.jit
        def one_round(theta, key):
            def client(argument):
                return _client_updates(training, unravel, batches, model._replace(theta=theta), *argument)[0]

            keys = jax.random.split(key, self.clients)
            return theta + jax.lax.map(client, (jnp.asarray(records), keys)).mean(0)

        theta = model.theta
        for key_round in jax.random.split(key, self.rounds):
            theta = one_round(theta, key_round)
        return theta

    def _pair(self, audited: FederatedSource, learned: FederatedSource, moments: Moments, key) -> Pair:
        if self.pair == "worst":
            every = lambda: np.concatenate([learned.chunks(g)[0] for g in range(self.clients)])  # noqa: E731
            return worst_pair(every, moments, self.clients - 1)
        if self.pair == "record":
            return self._record_pair(audited, learned, key)
        if self.pair in ("zeroed", "random"):
            own = audited.chunks(0)[0]
            return zeroed_pair(own[0]) if self.pair == "zeroed" else random_pair(own[0], own[1])
        return explicit_pair(self.pair, audited.dim)

    def _record_pair(self, audited, learned, key):
        key_batch, key_substitute = jax.random.split(key)
        batches = audited.batches(key_batch, jnp.asarray(audited.records[0]))[0]
        record = batches[0, 0]
        substitute = jax.random.choice(key_substitute, jnp.asarray(learned.records).reshape(-1))
        swapped = jnp.where(batches == record, substitute, batches)
        return Pair(
            audited.update(batches),
            audited.update(swapped),
            adjacency="replacement of one record of the target's batch",
            source=f"the target's batch with record {int(record)} of {self.dataset}, and the same batch with record "
            f"{int(substitute)} in its place",
        )
