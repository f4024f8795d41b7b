"""Fishing models: what the server sends so that each client's head sees one known vector, whatever its records.

With γ = 0 in the last normalisation layer its output is β for every record, so the head's input is e_k = act(β_k).
What e_k is, and whether it is one vector at all, is read off the model itself on the server's own records.
"""

from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ...broadcast import Path, Published, Sent
from ...populations.answers import personal
from . import decoding, designs, packing, presets

Mode = Literal["exact", "beta_only", "saturated"]
Preset = Literal["natural", "tie", "one_hot"]

# The server's records on which a model is tried out, and models that are tried at once: they share all layers before
# the one that differs, which are computed once.
_PROBES, _CLIENTS = 16, 64
# Of a model that should be constant, and is but for this share: rounding of a layer behind the embedding.
_CONSTANT = 1e-6


class Facts(NamedTuple):
    """What the attack remembers of the models that it sent.

    Attributes:
      embeddings: f64[clients, d], what each client's head sees.
      duals: f64[directions, d], the vectors that read one direction's share out of a sum.
      logits: f64[clients, classes].
      spread: how far an embedding was from constant, relative to its largest entry.
      kernel: i64[d, classes], the places of the head's weights in an update.
      bias: i64[classes], those of its bias.
      head: f64[d, classes] and f64[classes], what was sent as the head's weights and common bias.
      betas: f64[clients, channels], the last normalisation layer's.
      published: where it started from.
      slots: i64[clients], the place of each client on its direction; all 0 without packing.
      directions: i64[clients], the directions of the clients; each its own without packing.
      ceiling: no entry of an embedding is larger; `signed`: they may be negative.
      own_bias: the head's bias differs by client.
    """

    embeddings: np.ndarray
    duals: np.ndarray
    logits: np.ndarray
    spread: float
    kernel: np.ndarray
    bias: np.ndarray
    head: tuple[np.ndarray, np.ndarray]
    betas: np.ndarray
    published: Published
    slots: np.ndarray
    directions: np.ndarray
    ceiling: float
    signed: bool
    own_bias: bool


class Plan(NamedTuple):
    """The server's choices.

    Attributes:
      design: of the embeddings.
      mode: "exact" (γ = 0 wherever it must be), "beta_only" (γ untouched) or "saturated" (γ = 0 in the last
        normalisation layer alone, large |β|).
      amplitude: of β on a client's channels.
      preset: logits of the target's model.
      edits_bias: the head's bias differs by client, too.
      everyone: all clients get the preset, not the target alone.
      per_direction: clients on one direction, told apart by their amplitudes.
    """

    design: designs.Name
    mode: Mode
    amplitude: float
    preset: Preset
    edits_bias: bool
    everyone: bool
    per_direction: int


def craft(plan: Plan, published: Published) -> Sent:
    """The models of all clients.

    Args:
      plan: the server's choices.
      published: where it starts from.

    Returns:
      Sent, with `Facts`.

    Raises:
      ValueError: where the model has no usable normalisation layer, its head's input is not constant, or it carries
        too few clients.
    """
    params, bait = published.params, _bait(published.training.model)
    if plan.per_direction > 1:
        _require_plain(published)
    if plan.mode == "beta_only" and (bait.silenced or bait.signed):
        against = "a skip connection goes around" if bait.silenced else "no rectifier follows"
        raise ValueError(
            f"attack.mode is 'beta_only', but {against} the model's last normalisation layer; allowed are exact and "
            "saturated for it"
        )
    flat = flatten_dict(params)
    scale, shift = (*bait.norm, "scale"), (*bait.norm, "bias")
    directions, slots = _packed(plan, published)
    betas = _betas(plan, published, bait, flat[shift].shape[0], directions, slots)
    own = {shift: betas.astype(np.float32)}
    if plan.mode != "beta_only":
        flat[scale] = jnp.zeros_like(flat[scale])
    if plan.mode == "exact":
        for path in bait.silenced:
            flat[(*path, "scale")] = jnp.zeros_like(flat[(*path, "scale")])
            flat[(*path, "bias")] = -jnp.ones_like(flat[(*path, "bias")])
    common = unflatten_dict(flat)
    embeddings, logits, spread = tried_out(published, common, own)
    _require_constant(plan, published, spread)
    if plan.edits_bias and plan.preset != "natural":
        own[("head", "bias")] = _biases(plan, published, embeddings, slots)
        embeddings, logits, spread = tried_out(published, common, own)
    one_each = embeddings[slots == 0]
    designs.require_conditioned(one_each)
    kernel, bias = published.index["head"]["kernel"], published.index["head"]["bias"]
    head = tuple(np.asarray(flat[("head", name)], np.float64) for name in ("kernel", "bias"))
    told = bait.ceiling, bait.signed, ("head", "bias") in own
    duals = decoding.dual_rows(one_each)
    facts = Facts(embeddings, duals, logits, spread, kernel, bias, head, betas, published, slots, directions, *told)
    if plan.per_direction > 1:
        packing.require_one_hot(logits)
    return Sent(common, own, facts, _words(plan, bait), _exclusive(plan, published, facts))


def tried_out(published: Published, common: Any, own: dict[Path, np.ndarray]) -> tuple[np.ndarray, np.ndarray, float]:
    """Every client's model on the server's own records.

    Returns:
      (f64[clients, d] mean embedding, f64[clients, classes] logits, the largest deviation of an embedding from its
      mean, relative to the largest entry of all).
    """
    probe = jnp.asarray(published.probe[:_PROBES], jnp.float32)
    found = []
    for first in range(0, published.clients, _CLIENTS):
        at = np.minimum(np.arange(first, first + _CLIENTS), published.clients - 1)
        some = {path: jnp.asarray(leaf[at]) for path, leaf in own.items()}
        found.append(_on_probe(published.training.model, common, some, probe))
    embeddings, logits, spreads = (
        np.concatenate([np.asarray(one[n], np.float64) for one in found])[: published.clients] for n in range(3)
    )
    return embeddings, logits, float(spreads.max() / max(np.abs(embeddings).max(), np.finfo(float).tiny))


@partial(jax.jit, static_argnums=0)
def _on_probe(model, common, own, probe):
    collections = ["batch_stats", "intermediates"]

    def one(own):
        params = personal(common, own)
        rngs = {"dropout": jax.random.key(0)}
        logits, state = model.apply({"params": params}, probe, mutable=collections, rngs=rngs)
        embedding = state["intermediates"]["embedding"][0]
        # Of equal numbers the mean may be off in its last bit; the first of them is not.
        apart = jnp.abs(embedding - embedding[0])
        return jnp.where(apart.max() > 0, embedding.mean(0), embedding[0]), logits.mean(0), apart.max()

    return jax.vmap(one)(own)


def _bait(model):
    if not hasattr(model, "bait"):
        raise ValueError(
            f"population.model is {type(model).__name__}, which has no normalisation layer in front of its head; "
            "allowed are lenet_bn, vgg_bn, vgg11_bn, resnet18, preact_resnet, mobilenet and layernorm; set it with "
            "--set population.model=NAME"
        )
    return model.bait


def _packed(plan, published):
    """Direction and slot of every client."""
    number = np.arange(published.clients)
    return number // plan.per_direction, number % plan.per_direction


def _betas(plan, published, bait, channels, directions, slots):
    """β of every client: f64[clients, channels]."""
    if plan.amplitude > bait.ceiling:
        raise ValueError(
            f"attack.amplitude is {plan.amplitude}, allowed are up to {bait.ceiling}, where the model's activation "
            "is cut off"
        )
    if plan.design == "signed" and not bait.signed:
        raise ValueError(
            "attack.design is 'signed', but the model's rectifiers cut off negative entries; allowed are disjoint "
            "and hadamard for it, signed for model layernorm"
        )
    by_lp = plan.preset != "natural" and not plan.edits_bias
    first = 0
    if by_lp:
        limits = {"margin": _margin(plan), "ceiling": bait.ceiling}
        first = presets.channels_for(plan.preset, *_head(published), published.labels, channels, **limits)
    rows = designs.design(plan.design, int(directions[-1]) + 1, channels, first=first)[directions]
    betas = plan.amplitude * rows
    if plan.per_direction > 1:
        betas *= packing.amplitudes(plan.per_direction, int(published.sizes.max()))[slots][:, None]
    if by_lp:
        betas[0] = _preset_beta(plan, published, rows[0] > 0, bait.ceiling)
    if plan.mode == "beta_only":
        return np.where(betas > 0, betas, designs.stealthy(betas > 0, plan.amplitude))
    if plan.mode == "saturated" and bait.silenced:
        return np.where(rows > 0, betas, -betas.max())
    return betas


def _preset_beta(plan, published, support, ceiling):
    kernel, bias = _head(published)
    length = plan.amplitude * np.sqrt(support.sum())
    limits = {"margin": _margin(plan), "length": length, "ceiling": ceiling}
    if plan.preset == "tie":
        return presets.tie(kernel, bias, support, published.labels, **limits)
    return presets.one_hot(kernel, bias, support, published.labels[0], **limits)


def _margin(plan):
    """In logits; at odds of one an update vanishes altogether."""
    return presets.MARGIN if plan.preset == "tie" else presets.VANISHING


def _biases(plan, published, embeddings, slots):
    """The head's bias of every client: f32[clients, classes]."""
    kernel, bias = _head(published)
    biases = np.tile(bias, (published.clients, 1)).astype(np.float32)
    for k in range(published.clients if plan.everyone or plan.per_direction > 1 else 1):
        if plan.preset == "tie":
            biases[k] = presets.bias_tie(kernel, bias, embeddings[k], published.labels)
        else:
            biases[k] = presets.bias_one_hot(kernel, bias, embeddings[k], published.labels[0])
    return biases


def _head(published):
    head = published.params["head"]
    return np.asarray(head["kernel"], np.float64), np.asarray(head["bias"], np.float64)


def _require_plain(published):
    objective = published.training.objective
    if objective != type(objective)(reduction=objective.reduction) or published.steps > 1:
        raise ValueError(
            "attack.per_direction is above 1, allowed is 1 unless clients minimise the plain softmax loss in one "
            "local step; leave smoothing, class_weights, weight_decay, loss and local_steps of the population out"
        )


def _require_constant(plan, published, spread):
    if plan.mode != "exact" or spread <= _CONSTANT:
        return
    raise ValueError(
        f"the fishing model's embedding varies by {spread:.2g} of its largest entry over a batch of "
        f"{min(_PROBES, len(published.probe))} records: a dropout layer stands before the head, or a skip connection "
        "goes around the last normalisation layer; use a model without it, or attack.mode = saturated"
    )


def _exclusive(plan, published, facts):
    """Places where the target's embedding is not zero, and all others are whatever the records."""
    drifts = published.steps > 1 and facts.signed  # no rectifier keeps a shift that moves from zero at zero
    decays = published.training.objective.weight_decay > 0
    if plan.mode != "exact" or drifts or decays:
        return np.zeros(0, np.int64)
    alone = (facts.embeddings[0] != 0) & ~(facts.embeddings[1:] != 0).any(axis=0)
    return facts.kernel[alone].reshape(-1)


def _words(plan, bait):
    norm = ".".join(bait.norm)
    edited = {"exact": "scale 0 and shift", "beta_only": "shift", "saturated": "scale 0 and shift"}[plan.mode]
    words = f"client-specific {edited} of one normalisation layer ({norm})"
    if plan.mode == "exact" and bait.silenced:
        words += (
            f"; {len(bait.silenced)} more silenced for all: {', '.join('.'.join(path) for path in bait.silenced)}"
        )
    if plan.edits_bias and plan.preset != "natural":
        return words + "; and the head's bias: a stronger adversary than one that edits normalisation alone"
    return words + "; nothing else"
