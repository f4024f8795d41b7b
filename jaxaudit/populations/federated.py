"""Clients that train a real model on real records and send the updates of recorded mini-batches."""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from .. import datasets, models
from ..schema import recipe
from ..types import Moments, Pair, Responses
from .pairs import explicit_pair, pair_field, random_pair, require_pair_file, thinned, worst_pair, zeroed_pair
from .partition import deal
from .pool import RecordedPool
from .recordings import Batches, FederatedSource, Global, client_updates


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
    learning_rate: float = Field(0.5, gt=0, le=1e6, description="learning rate of SGD")
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
            Batches(self.variants, self.local_steps, self.batch_size),
        )
        learned, audited = source(fit, keys["fit_batches"]), source(certify, keys["certify_batches"])
        held_out = fit.reshape(-1)
        return Responses(
            fit=self._pool(learned),
            certify=self._pool(audited),
            choose_pair=lambda moments: self._pair(audited, learned, moments, keys["pair"]),
            knows={
                "fit_pool": "the two candidates, the model, the protocol, and the updates of simulated clients with "
                "records of their own",
                "certify_pool": "the two candidates, the model, the protocol, and every recorded update it audits",
            },
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
            if each <= self.batch_size:  # with all its records in every batch, a client would always send the same
                allowed = f"batches of 1 to {each - 1}" if each > 1 else f"cohorts of up to {len(part) // 2}"
                raise ValueError(
                    f"population.batch_size is {self.batch_size}, but population.clients = {self.clients} share "
                    f"{len(part)} {name} records, {each} each; allowed are {allowed}: use fewer clients "
                    "or smaller batches"
                )
            dealt.append(part[deal(data.labels[part], self.clients, concentration, keys[name])])
        return dealt

    def _average(self, training, unravel, model: Global, records, key):
        """Federated averaging over the audited cohort, one mini-batch sequence per client and round."""
        batches = Batches(1, self.local_steps, self.batch_size)

        @jax.jit
        def one_round(theta, key):
            def client(argument):
                return client_updates(training, unravel, batches, model._replace(theta=theta), *argument)[0]

            keys = jax.random.split(key, self.clients)
            return theta + jax.lax.map(client, (jnp.asarray(records), keys)).mean(0)

        theta = model.theta
        for key_round in jax.random.split(key, self.rounds):
            theta = one_round(theta, key_round)
        return theta

    def _pair(self, audited: FederatedSource, learned: FederatedSource, moments: Moments, key) -> Pair:
        if self.pair == "worst":
            every = np.concatenate([learned.chunks(group)[0] for group in range(self.clients)])
            return worst_pair(thinned(every), moments, self.clients - 1)
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
