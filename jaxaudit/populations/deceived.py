"""Clients that train whatever model a malicious server sends each of them, and send their updates."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field, model_validator

from .. import datasets, models
from ..broadcast import Published
from ..models import LocalTraining, Objective
from ..protocols import Responses, Truth
from ..schema import one_or_more, recipe, several
from ..types import Pair
from .answers import answers, head, placed, whole
from .candidates import NAMES as PAIRS
from .candidates import candidate_batches, label_pair
from .cohorts import dropout_field
from .holdings import Batching, holdings
from .memory import MemorySource
from .partition import Name as Partition
from .pool import RecordedPool


@recipe
class Deceived:
    """Clients that train the models which a malicious server sends them, each perhaps another.

    The server keeps a share of the records, on which it tries its models out. The others belong to the clients. Every
    client records `variants` updates of its own model on batches of its own records; in a trial each of the others
    sends one of them, and the target one of two candidates.

    Attributes:
      kind: "deceived".
      dataset: of images; all but "digits" need their official files (`jaxaudit data`).
      model: a network with normalisation layers, such as "lenet_bn"; `jaxaudit list deceived` names them.
      hidden: width of the layer before the head, where the architecture leaves it open.
      clients: in the cohort, the target included.
      dropout: probability that a client of the cohort sends nothing; the target always sends.
      batch_size: records in a batch; a list gives the clients sizes in turn.
      local_steps: SGD steps on a client.
      fresh_batches: every step has a batch of its own; else all steps repeat one.
      learning_rate: of SGD.
      momentum: of SGD.
      loss: "softmax" or "multilabel".
      reduction: "mean" or "sum" over a batch.
      smoothing: of labels, in [0, 1).
      class_weights: of the records of each class; empty for equal ones.
      weight_decay: λ of λ/2 · |parameters|².
      partition: "iid", "dirichlet" with the concentration `alpha`, or "by_class".
      alpha: concentration of the Dirichlet partition; smaller is more uneven.
      records: of every client, drawn from its mixture of classes, while others may hold the same ones; 0 deals each
        record to one client.
      variants: recorded updates of each client.
      server_share: share of the records that the server keeps.
      sends: "whole" updates, or what of them the server reads: the "head".
      pair: what the target's batch is: "all_labels" (the first label throughout, or the second), "one_label" (one
        record of the first or of the second, the others half and half), "presence" (the first label throughout, or
        with one record of the second), "zeroed" (nothing, or the second label throughout); a list audits all.
      labels: the two labels.
    """

    kind: Literal["deceived"] = "deceived"
    dataset: datasets.Name = "digits"
    model: models.Name = "lenet_bn"
    hidden: int = Field(512, ge=1, le=100_000, description="width of the layer before the head")
    clients: int = Field(50, ge=2, le=100_000, description="in the cohort, the target included")
    dropout: float = dropout_field()
    batch_size: one_or_more(int, "whole numbers from 1 to 100,000", lambda size: 1 <= size <= 100_000) = Field(
        64, description="records in a batch; a list gives the clients sizes in turn"
    )
    local_steps: int = Field(1, ge=1, le=10_000, description="SGD steps on a client")
    fresh_batches: bool = Field(False, description="every local step has a batch of its own")
    learning_rate: float = Field(0.1, gt=0, le=1e6, description="learning rate of SGD")
    momentum: float = Field(0.0, ge=0, lt=1, description="momentum of SGD")
    loss: Literal["softmax", "multilabel"] = "softmax"
    reduction: Literal["mean", "sum"] = "mean"
    smoothing: float = Field(0.0, ge=0, lt=1, description="share of a label that is spread over all classes")
    class_weights: tuple[float, ...] = Field((), description="of the records of each class; none for equal ones")
    weight_decay: float = Field(0.0, ge=0, le=1e3, description="weight of half the squared norm of the parameters")
    partition: Partition = "dirichlet"
    alpha: float = Field(0.5, gt=0, description="concentration of the Dirichlet partition")
    records: int = Field(0, ge=0, le=1_000_000, description="of every client, 0 to deal each record to one")
    variants: int = Field(1, ge=1, le=100_000, description="recorded updates of each client")
    server_share: float = Field(0.1, gt=0, lt=1, description="share of the records that the server keeps")
    sends: Literal["whole", "head"] = "whole"
    pair: one_or_more(str, f"of {', '.join(PAIRS)}", lambda name: name in PAIRS) = "all_labels"
    labels: tuple[int, int] = Field((0, 1), description="the two labels that the audit is about")

    @model_validator(mode="after")
    def _fit(self):
        if self.records and self.partition == "by_class":
            raise ValueError('records is set, and partition = "by_class" deals each record to one client; set 0')
        if self.labels[0] == self.labels[1] or min(self.labels) < 0:
            raise ValueError(f"labels is {list(self.labels)}, allowed are two different labels from 0")
        largest = max(several(self.batch_size))
        if self.records and self.records < largest:
            raise ValueError(
                f"records is {self.records}, allowed are 0, or {largest} or more, the largest batch_size"
            )
        if self.class_weights and self.loss == "multilabel":
            raise ValueError('class_weights is set, allowed are none for loss = "multilabel"')
        if any(weight <= 0 for weight in self.class_weights):
            raise ValueError(f"class_weights is {list(self.class_weights)}, allowed are numbers > 0")
        return self

    def respond(self, seed: int, broadcast: Any) -> Responses:
        """Load, deal, let the server make up its models, and record what the clients answer."""
        if broadcast is None:
            raise ValueError(
                'deceived clients answer a malicious server; use attack.kind = "label_leakage", or '
                'population.kind = "federated" for an honest one'
            )
        data = datasets.load(self.dataset)
        models.check(self.model, data.inputs.shape[1:])
        self._check(data)
        training = LocalTraining(
            models.build(self.model, data.classes, self.hidden), self.learning_rate, self.momentum, self._objective
        )
        names = ("split", "records", "batches", "init", "candidates")
        keys = dict(zip(names, jax.random.split(jax.random.key(seed), len(names))))
        order = np.asarray(jax.random.permutation(keys["split"], len(data.labels)))
        cut = max(1, round(self.server_share * len(order)))
        probe, theirs = order[:cut], order[cut:]
        held = holdings(data.labels, theirs, self.clients, self.records, self.partition, self.alpha, keys["records"])
        batching = Batching(several(self.batch_size), self.variants, self.local_steps, self.fresh_batches)
        batches = batching.drawn(held, keys["batches"])

        theta, unravel = training.init(keys["init"], jnp.asarray(data.inputs[:1]))
        params = unravel(theta)["params"]
        take = {"whole": whole, "head": head}[self.sends]
        published = Published(
            training=training,
            params=params,
            index=placed(params, take),
            probe=data.inputs[probe],
            clients=self.clients,
            sizes=batching.sizes(self.clients),
            steps=self.local_steps,
            fresh=self.fresh_batches,
            classes=data.classes,
            labels=self.labels,
        )
        sent = broadcast(published)
        answer = partial(answers, training, sent, take, data.inputs, data.labels)
        rows = _recorded(answer, batches)
        sizes = np.full(self.clients, self.variants)
        own, others = rows[: self.variants], rows[self.variants :]
        source = MemorySource(others, sizes[1:])
        counts = batching.counted(data.labels, batches, data.classes)
        ask = partial(self._pairs, answer, data.labels, theirs, published.sizes, keys["candidates"])
        pool = RecordedPool(
            (source,),
            cohort="fixed",
            noise_terms=self.clients - 1,
            what="recorded mini-batch updates, each of the model that its client was sent,",
            clients=self.clients - 1,
            dropout=self.dropout,
        )
        return Responses(
            fit=None,
            certify=pool,
            cohorts=(self.clients,),
            choose_pairs=lambda moments: ask(0),
            everyone=lambda: tuple(pair for client in range(self.clients) for pair in ask(client)[:1]),
            knows={
                "fit_pool": "the models it sent, the two candidates and the protocol; its own records, and none of "
                "any client's"
            },
            real=f"the updates: local training of a flax {self.model} on {data.source}, every client from the model "
            f"that it was sent ({sent.words})",
            given="this pool, and the models that were sent before the data were seen",
            structural=lambda pair: _structural(sent.exclusive, pair, others),
            metrics={"dim": float(rows.shape[1])},
            data_sha256={self.dataset: data.sha256},
            sent=sent,
            truth=Truth(
                Pair("own", own[:1], own[:1], "none", "what the target sends unasked"),
                counts[0],
                counts[self.variants :],
            ),
            partial="only the head's part of every update is summed here" if self.sends == "head" else "",
        )

    @property
    def _objective(self):
        return Objective(
            loss=self.loss,
            reduction=self.reduction,
            smoothing=self.smoothing,
            class_weights=self.class_weights,
            weight_decay=self.weight_decay,
        )

    def _check(self, data):
        if max(self.labels) >= data.classes:
            raise ValueError(
                f"population.labels is {list(self.labels)}, allowed are labels below {data.classes} for "
                f"{self.dataset}; set them with --set population.labels=[0,1]"
            )
        if self.class_weights and len(self.class_weights) != data.classes:
            raise ValueError(
                f"population.class_weights has {len(self.class_weights)} numbers, allowed are {data.classes}, one "
                f"for each class of {self.dataset}"
            )

    def _pairs(self, answer: Callable, labels, theirs, sizes, key, client: int) -> tuple[Pair, ...]:
        found = []
        for name in several(self.pair):
            batches = candidate_batches(name, self.labels, labels, theirs, int(sizes[client]), key)
            steps = np.repeat(batches[:, None], self.local_steps, axis=1)  # [2, steps, size]
            h0, h1 = answer(np.full(2, client), steps)
            repeats = any(len(np.unique(batch)) < len(batch) for batch in batches)
            found.append(label_pair(name, self.labels, h0, h1, repeats))
        return tuple(found)


def _recorded(answer: Callable, batches: list[np.ndarray]) -> np.ndarray:
    """The updates of all clients, in order, those of one batch size together: f32[clients * variants, dim]."""
    sizes, variants, rows = np.array([own.shape[2] for own in batches]), len(batches[0]), None
    for size in np.unique(sizes):
        clients = np.flatnonzero(sizes == size)
        found = answer(np.repeat(clients, variants), np.concatenate([batches[c] for c in clients]))
        rows = np.empty((len(sizes), variants, found.shape[1]), np.float32) if rows is None else rows
        rows[clients] = found.reshape(len(clients), variants, -1)
    return rows.reshape(-1, rows.shape[2])


def _structural(exclusive: np.ndarray, pair: Pair, others: np.ndarray) -> str | None:
    """A proof that no other update hides the pair's difference; None where a recorded one speaks against it."""
    if not len(exclusive) or not np.any(pair.difference[:, exclusive]) or others[:, exclusive].any():
        return None
    return "the models that were sent leave zeros in all other updates where the target's candidates differ"
