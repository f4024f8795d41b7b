"""From the decoded sum to every client's label counts: all that the server does after the round."""

from typing import NamedTuple

import numpy as np

from . import batch_sizes, clipped, decoding, histograms, local_steps, packing
from .crafting import Facts


class Recovered(NamedTuple):
    """What the server makes of one round.

    Attributes:
      counts: f64[clients, classes], before they are rounded.
      found: i64[clients, classes], label counts; -1 for a client that sent nothing.
      sizes: i64[clients], records in a batch as the server knows or infers them.
    """

    counts: np.ndarray
    found: np.ndarray
    sizes: np.ndarray


class Told(NamedTuple):
    """What the server knows of a round besides the sum.

    Attributes:
      present: bool[clients], who sent: the protocol tells the server whose masks it must remove; None where it is
        not told, and takes those for absent who decode to nothing.
      clipped: updates were clipped on the way.
      factors: f64[clients], what the clip left of each update; None where the server must find it.
    """

    present: np.ndarray | None
    clipped: bool = False
    factors: np.ndarray | None = None


def solved(facts: Facts, total: np.ndarray, told: Told, known_sizes: bool, corrects: bool) -> Recovered:
    """Every client's label counts.

    Args:
      facts: what was sent.
      total: f64[dim], the decoded sum of the updates.
      told: who sent, and what the clip did.
      known_sizes: batch sizes are known.
      corrects: the drift over several local steps is simulated; else they are decoded as if they were one.

    Returns:
      Recovered.
    """
    published, (kernel, _) = facts.published, facts.head
    training, sizes, steps = published.training, published.sizes, published.steps
    objective = training.objective
    # An SGD step is -learning_rate times the gradient.
    gradients = np.asarray(total, np.float64)[facts.kernel] / -training.learning_rate
    told = _with_presence(facts, gradients, told)
    if not known_sizes and (told.clipped or steps > 1):
        raise ValueError(
            'attack.batch_sizes is "unknown", allowed is "known" behind an l2 clip or for several local steps, which '
            "leave no whole counts to tell a size by"
        )
    if facts.slots.any() and told.clipped:
        raise ValueError(
            "attack.per_direction is above 1, allowed is 1 behind an l2 clip, which leaves no whole counts to tell "
            "apart; leave the clip out of aggregator.stages"
        )
    if objective.weight_decay and steps == 1 and not told.clipped:
        gradients = decoding.without_decay(gradients, kernel, objective.weight_decay, int(told.present.sum()))
    decoded = facts.duals @ gradients
    if told.factors is not None:
        decoded = decoded / told.factors[:, None]
    if facts.slots.any():
        counts = _unpacked(facts, decoded)
    elif steps > 1 and corrects:
        counts = _over_steps(facts, gradients, told)
    elif steps > 1:
        counts = decoding.label_counts(decoded / steps, facts.logits, sizes, objective)
        counts *= steps if published.fresh else 1
    elif told.clipped and told.factors is None:
        counts = clipped.unclipped(decoded, facts.logits, sizes, objective, shortened=True)[0].astype(np.float64)
    else:
        if not known_sizes:
            sizes = batch_sizes.batch_size_of(decoded, facts.logits, objective)
        counts = decoding.label_counts(decoded, facts.logits, sizes, objective)
    sizes = sizes * (steps if published.fresh else 1)
    nearest = histograms.nearest_counts if objective.loss == "multilabel" else histograms.nearest_histograms
    found = np.where(told.present[:, None], nearest(counts, sizes), -1)
    return Recovered(counts, found, sizes)


def _with_presence(facts, gradients, told):
    """Who sent, where the server is not told: of the others nothing is left in the sum but noise."""
    if told.present is not None:
        return told
    if facts.slots.any() or facts.published.training.objective.weight_decay:
        raise ValueError(
            'aggregator.survivors is "hidden", allowed is "announced" for weight decay and for attack.per_direction '
            "above 1, behind which absent clients cannot be told"
        )
    return told._replace(present=batch_sizes.present(facts.duals @ gradients))


def _unpacked(facts, decoded):
    """Counts of clients that share directions: digits in base B + 1 of what the direction decodes to."""
    published, largest = facts.published, int(facts.published.sizes.max())
    label, per_direction = published.labels[0], int(facts.slots.max()) + 1
    sizes = np.zeros((len(decoded), per_direction), np.int64)
    sizes[facts.directions, facts.slots] = published.sizes
    reduction = published.training.objective.reduction
    scale = 1.0 if reduction == "sum" else largest
    values = -scale * np.moveaxis(decoded, 1, 0)
    digits = packing.unpack(values, sizes, largest, reduction)  # [classes, directions, slots]
    counts = np.moveaxis(digits, 0, -1)[facts.directions, facts.slots].astype(np.float64)
    counts[:, label] = 0
    counts[:, label] = published.sizes - counts.sum(axis=1)
    return counts


def _over_steps(facts, gradients, told):
    """Counts behind several local steps, by simulating what each client would have sent, and correcting."""
    published, (kernel, bias), training, present = facts.published, facts.head, facts.published.training, told.present
    if facts.own_bias:
        raise ValueError(
            "population.local_steps is above 1, allowed is 1 where every client has a bias of its own; set "
            'attack.edits = "norm"'
        )
    embeddings, betas, sizes = facts.embeddings[present], facts.betas[present], published.sizes[present]
    activation = "none" if facts.signed else "relu6" if np.isfinite(facts.ceiling) else "relu"
    seen = betas if facts.signed else np.clip(betas, 0, facts.ceiling)
    if seen.shape != embeddings.shape or not np.allclose(seen, embeddings):
        raise ValueError(
            "population.local_steps is above 1, and layers between the last normalisation and the head keep the "
            "drift from being simulated; allowed is 1 for this model and attack.mode"
        )
    momentum, objective = training.momentum, training.objective
    numbers = activation, published.steps, training.learning_rate, momentum, objective
    observed = decoding.head_gradients(gradients, embeddings)
    if told.factors is not None:
        observed = observed / told.factors[present, None]
    frequencies = local_steps.corrected(observed, kernel, bias, betas, *numbers, sizes=sizes)
    counts = np.zeros((len(present), kernel.shape[1]))
    counts[present] = frequencies * (sizes * (published.steps if published.fresh else 1))[:, None]
    return counts
