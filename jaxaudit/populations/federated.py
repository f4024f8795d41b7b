"""Clients that train a real model on real records and send the updates of recorded mini-batches."""

import dataclasses
from functools import partial
from itertools import islice
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field, model_validator

from .. import datasets, models
from ..cache import key_of, remembered
from ..protocols import Responses
from ..schema import recipe, several
from ..types import Moments, Pair
from .cohorts import Cohort, cohort_field, dropout_field, require_one_poisson_size
from .pairs import (
    candidates_of,
    explicit_pair,
    pair_field,
    random_pair,
    require_pair_files,
    worst_pair,
    zeroed_pair,
)
from .partition import Name as Partition
from .partition import deal
from .pool import RecordedPool
from .recordings import Batches, FederatedSource, Global


@recipe
class Federated:
    """Clients with their own records, training the same model.

    The records are halved (`fit_share`): one part belongs to simulated clients that the server may learn from, the
    other to the clients that are audited. Every client records `variants` mini-batch updates of the audited round. In
    a trial each of the others sends one of its own, drawn at random, and the target sends one of two candidates.

    Attributes:
      kind: "federated".
      dataset: a name that `jaxaudit list` shows; all but "digits" need their official files (`jaxaudit data`).
      model: "softmax" (one dense layer), "mlp" (one hidden layer), "cnn" (two convolutions, for images), or a network
        with normalisation layers, as of `Deceived`.
      hidden: width of the hidden layer of "mlp", or of that before the head.
      clients: cohort size, the target included; a list of them audits all from the same draws.
      cohort: who the others are: the same clients in every trial ("fixed"), or clients drawn afresh in every trial
        and round from `pool_clients` of them, "with_replacement", "without_replacement", or "poisson" (each takes
        part by a coin of its own, so that `clients` of them are expected). The target takes part in any case.
      pool_clients: clients that cohorts are drawn from, besides the target; 0 where the cohort is fixed.
      dropout: probability that a client of the cohort sends nothing; the target always sends.
      batch_size: records in a mini-batch.
      local_steps: SGD steps on a client.
      learning_rate: of SGD.
      momentum: of SGD.
      rounds: rounds of federated averaging before the audited one; 0 audits the model as initialised.
      audited_rounds: rounds in a row in which the target sends its candidate; the model moves on between them.
      partition: "iid", "dirichlet" with the concentration `alpha`, or "by_class" (every client holds two classes).
      alpha: concentration of the Dirichlet partition; smaller is more uneven.
      variants: recorded mini-batch updates of each client; 1 is enough where cohorts are drawn.
      fit_share: share of the records that the server may learn from.
      fit_updates: updates of its own clients that the server learns from, at most; two of two clients at least.
      pair: "record" (one record of the target's batch is replaced by a record the cohort never saw), "zeroed" (the
        target's update or nothing), "random" (two of the target's updates), "worst" (farthest pair of the fit pool),
        or a file with arrays `h0` and `h1`; a list of them audits all from the same draws.
    """

    kind: Literal["federated"] = "federated"
    dataset: datasets.Name = "digits"
    model: models.Name = "softmax"
    hidden: int = Field(32, ge=1, le=100_000, description="width of the hidden layer of mlp")
    clients: cohort_field(100_000) = Field(60, description="cohort sizes, the target included")
    cohort: Cohort = "fixed"
    pool_clients: int = Field(0, ge=0, le=1_000_000, description="clients that cohorts are drawn from")
    dropout: float = dropout_field()
    batch_size: int = Field(8, ge=1, description="records in a mini-batch")
    local_steps: int = Field(1, ge=1, le=10_000, description="SGD steps on a client")
    learning_rate: float = Field(0.5, gt=0, le=1e6, description="learning rate of SGD")
    momentum: float = Field(0.0, ge=0, lt=1, description="momentum of SGD")
    rounds: int = Field(20, ge=0, le=100_000, description="rounds of federated averaging before the audit")
    audited_rounds: int = Field(1, ge=1, le=1000, description="rounds that are audited together")
    partition: Partition = "iid"
    alpha: float = Field(0.5, gt=0, description="concentration of the Dirichlet partition")
    variants: int = Field(64, ge=1, le=1_000_000, description="recorded mini-batch updates of each client")
    fit_share: float = Field(0.5, gt=0, lt=1, description="share of the records that the server may learn from")
    fit_updates: int = Field(4096, ge=2, le=1_000_000, description="updates that the server learns from, at most")
    pair: pair_field("record", "zeroed", "random", "worst") = "record"

    @model_validator(mode="after")
    def _cohorts_fit(self):
        largest = max(several(self.clients))
        require_one_poisson_size(self.cohort, self.clients)
        if self.cohort == "fixed":
            if self.pool_clients:
                raise ValueError(
                    f'pool_clients is {self.pool_clients}, allowed is 0 for cohort = "fixed"; drawn cohorts are '
                    'cohort = "with_replacement" or "without_replacement"'
                )
            if self.variants < 2:
                raise ValueError(f'variants is {self.variants}, allowed are 2 or more for cohort = "fixed"')
        elif self.pool_clients < largest:
            raise ValueError(
                f"pool_clients is {self.pool_clients}, allowed are {largest} or more, the largest cohort: it is how "
                "many clients cohorts are drawn from"
            )
        return self

    def respond(self, seed: int, broadcast: Any) -> Responses:
        """Load, deal, train and set up the recordings."""
        if broadcast is not None:
            raise ValueError(
                "federated clients answer an honest server; for a malicious attack set population.kind = deceived"
            )
        data = datasets.load(self.dataset)
        models.check(self.model, data.inputs.shape[1:])
        model = models.build(self.model, data.classes, self.hidden)
        training = models.LocalTraining(model, self.learning_rate, self.momentum)
        names = ("split", "fit", "certify", "init", "train", "fit_batches", "certify_batches", "pair")
        keys = dict(zip(names, jax.random.split(jax.random.key(seed), len(names))))
        fit, certify = self._deal(data, keys)
        of = key_of(seed=seed, data=data.sha256, **self._law())

        inputs, labels = jnp.asarray(data.inputs), jnp.asarray(data.labels)
        start, unravel = training.init(keys["init"], inputs[:1])
        require_pair_files(several(self.pair), self.audited_rounds, start.size)
        trainers = certify if self.cohort == "fixed" else fit
        path = remembered(of, lambda: self._train(training, unravel, start, inputs, labels, trainers, keys["train"]))
        thetas = [jnp.asarray(theta) for theta in path["theta"]]

        def sources(records, variants, key, which):
            batches = Batches(variants, self.local_steps, self.batch_size)
            return tuple(
                FederatedSource(
                    training,
                    unravel,
                    Global(theta, inputs, labels),
                    batches,
                    records,
                    jax.random.fold_in(key, at),
                    f"{of}/{which}/{at}/{records.shape}/{variants}",
                )
                for at, theta in enumerate(thetas)
            )

        # The server's own recordings are cut down to `fit_updates`: fewer variants first, then fewer clients.
        fit_variants = int(np.clip(self.fit_updates // len(fit), min(2, self.variants), self.variants))
        fit_clients = fit[: max(2, self.fit_updates // fit_variants)]
        learned = sources(fit_clients, fit_variants, keys["fit_batches"], "fit")
        audited = sources(certify[1:], self.variants, keys["certify_batches"], "certify")
        target = sources(certify[:1], max(2, self.variants), keys["certify_batches"], "target")
        largest = max(several(self.clients)) - 1
        pool = partial(
            RecordedPool,
            cohort=self.cohort,
            noise_terms=largest,
            what="recorded mini-batch updates",
            dropout=self.dropout,
        )
        tested = (
            (data.test_inputs, data.test_labels) if len(data.test_labels) else _held_out(data, fit, certify, trainers)
        )
        return Responses(
            fit=pool(learned, clients=len(fit_clients), stands_in_for=len(certify) - 1),
            certify=pool(audited, clients=len(certify) - 1),
            cohorts=several(self.clients),
            choose_pairs=partial(self._pairs, target, learned, keys["pair"]),
            knows={
                "fit_pool": "the two candidates, the model, the protocol, and the updates of simulated clients with "
                "records of their own",
                "certify_pool": "the two candidates, the model, the protocol, and every recorded update it audits",
            },
            real=f"the updates: local training of a flax {self.model} classifier on {data.source}; {self._history()}",
            given="this pool" + ", the recorded course of the model (no trial changes it)" * (len(thetas) > 1),
            fresh=self._fresh(),
            metrics={
                "dim": float(start.size),
                "test_accuracy": training.accuracy(unravel, thetas[0], *map(jnp.asarray, tested)),
            },
            data_sha256={self.dataset: data.sha256},
        )

    def _law(self):
        """The fields that decide the recorded updates; the others only choose among them."""
        chosen = {"clients": max(several(self.clients)), "pair": None, "fit_updates": None}
        return dataclasses.asdict(self) | chosen

    def _history(self):
        """Where the audited model comes from, in words."""
        if not self.rounds:
            return "the model as initialised"
        by = "the audited cohort" if self.cohort == "fixed" else "clients that the server learns from"
        return f"the model after {self.rounds:,} round{'s' * (self.rounds > 1)} of federated averaging by {by}"

    def _fresh(self):
        if self.cohort == "fixed" or self.partition != "iid":
            return ""
        return (
            "the clients' records are independent draws from one law, the model was trained by other clients, and "
            "the candidates belong to none of them"
        )

    def _deal(self, data, keys):
        clients = max(several(self.clients)) if self.cohort == "fixed" else self.pool_clients + 1
        order = np.asarray(jax.random.permutation(keys["split"], len(data.labels)))
        cut = round(self.fit_share * len(order))
        # With all its records in every batch, a client would always send the same.
        spare = int(self.variants > 1)
        dealt = []
        for name, part in (("fit", order[:cut]), ("certify", order[cut:])):
            records = part[deal(data.labels[part], clients, self.partition, self.alpha, keys[name])]
            each = records.shape[1]
            if each < self.batch_size + spare:
                allowed = f"batches of 1 to {each - spare}" if each > spare else f"up to {len(part) // 2} clients"
                field = "clients" if self.cohort == "fixed" else "pool_clients"
                raise ValueError(
                    f"population.batch_size is {self.batch_size}, but the {clients} clients of population.{field} "
                    f"share {len(part)} {name} records, {each} each; allowed are {allowed}: use fewer clients or "
                    "smaller batches"
                )
            dealt.append(records)
        return dealt

    def _train(self, training, unravel, theta, inputs, labels, records, key):
        """The models of the audited rounds, f32[audited_rounds, dim]."""
        draw = Batches(1, self.local_steps, self.batch_size).once
        cohort = min(max(several(self.clients)), len(records))
        key_who, key_draw = jax.random.split(key)
        kept = [theta]
        for number in range(self.rounds + self.audited_rounds - 1):
            order = jax.random.permutation(jax.random.fold_in(key_who, number), len(records))
            model = training, unravel, theta, inputs, labels, records[np.asarray(order)[:cohort]], draw, key_draw
            _, theta = islice(models.average(*model, first=number), 2)
            kept = [*kept, theta][-self.audited_rounds :]
        return {"theta": np.stack(kept)}

    def _pairs(self, target, learned, key, moments) -> tuple[Pair, ...]:
        return tuple(self._pair(name, target, learned, key, moments) for name in several(self.pair))

    def _pair(self, name, target, learned, key, moments: tuple[Moments, ...]) -> Pair:
        if name == "worst":
            return worst_pair([_thinned(source) for source in learned], moments)
        if name == "record":
            return self._record_pair(target, learned, key)
        if name in ("zeroed", "random"):
            own = [source.rows(0, 1)[:2] for source in target]
            first, second = (np.stack(rows) for rows in zip(*own))
            return zeroed_pair(first) if name == "zeroed" else random_pair(first, second)
        return explicit_pair(name, self.audited_rounds, target[0].dim)

    def _record_pair(self, target, learned, key):
        substitute = int(jax.random.choice(key, jnp.asarray(learned[0].records).reshape(-1)))
        ends, record = [], None
        for source in target:
            batches = source.drawn(0)[0].copy()
            record = int(batches[0, 0]) if record is None else record
            if record not in batches[0]:  # the record that is asked about takes part in every audited round
                batches[0, 0] = record
            ends.append((source.update(batches), source.update(np.where(batches == record, substitute, batches))))
        return Pair(
            "record",
            *(np.stack(side) for side in zip(*ends)),
            adjacency="replacement of one record of the target's batch",
            source=f"the target's batch{'es' * (len(target) > 1)} with record {record} of {self.dataset}, and the "
            f"same with record {substitute} in its place",
        )


def _held_out(data, fit, certify, trainers):
    """Records that no client trained on, of a data set without a test split."""
    unseen = (fit if trainers is certify else certify).reshape(-1)
    return data.inputs[unseen], data.labels[unseen]


def _thinned(source: FederatedSource) -> np.ndarray:
    """Recorded updates evenly spread over the clients, few enough to be compared with each other."""
    step = -(-int(source.sizes.sum()) // candidates_of(source.dim))
    skip = np.cumsum(source.sizes) - source.sizes
    return np.concatenate([source.rows(c, c + 1)[-int(skip[c]) % step :: step] for c in range(len(source.sizes))])
