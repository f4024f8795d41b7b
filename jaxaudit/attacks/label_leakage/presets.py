"""Models that answer with wanted odds: two labels at even ones, or one label at odds of one.

With the honest head the logits are W^T β + b, for shifts β >= 0 of the target's channels: linear constraints, so a
linear program finds β or proves that there is none. More channels make it feasible, at the cost of those left for
others. A stronger server, which sends a bias of its own too, has every preset for free.
"""

from typing import Literal

import numpy as np
from scipy.optimize import linprog

# Margin of other labels in logits: e^-20 of odds, and for one label e^-120, which is 0 in float32.
MARGIN, VANISHING = 20.0, 120.0
# Of a biased tie: e^-30 is far below the rounding of 1/2 in float32, and keeps the bias of moderate size.
_BIASED = 30.0
# What the solver may leave open of a constraint (1e-7), with room.
_SLACK = 1e-6
_FEWEST = 16


def tie(kernel, bias, support, labels=(0, 1), margin=MARGIN, length=0.0, ceiling=np.inf) -> np.ndarray:
    """Shifts under which two labels have odds 1/2 each.

    Args:
      kernel: f64[d, C], the honest head's weights.
      bias: f64[C].
      support: bool[d], channels that may be shifted.
      labels: the two, different.
      margin: of both over all other labels, in logits.
      length: least Euclidean norm of the result.
      ceiling: largest entry.

    Returns:
      f64[d], at least 0, and 0 off the support. The two logits agree within 1e-9.

    Raises:
      ValueError: when the channels do not reach it.
    """
    first, second = labels
    words = f"a tie of labels {first} and {second}"
    return _solved(kernel, bias, support, first, [second], margin, length, ceiling, words)


def one_hot(kernel, bias, support, label=0, margin=MARGIN, length=0.0, ceiling=np.inf) -> np.ndarray:
    """Shifts under which one label has odds 1.

    Args:
      kernel: f64[d, C], the honest head's weights.
      bias: f64[C].
      support: bool[d], channels that may be shifted.
      label: the one.
      margin: over all other labels, in logits. From 104 on the odds of others are 0 in float32, and a batch with this
        label throughout sends exactly nothing.
      length: least Euclidean norm of the result.
      ceiling: largest entry.

    Returns:
      f64[d], at least 0, and 0 off the support.

    Raises:
      ValueError: when the channels do not reach it.
    """
    return _solved(kernel, bias, support, label, [], margin, length, ceiling, f"label {label} at odds of one")


def channels_for(preset: Literal["tie", "one_hot"], kernel, bias, labels, dim, margin=MARGIN, ceiling=np.inf) -> int:
    """How many of the first channels the target needs.

    Args:
      preset: "tie" of the two labels, or "one_hot" of the first.
      kernel: f64[d, C], the honest head's weights.
      bias: f64[C].
      labels: two.
      dim: channels there are, d.
      margin: over all other labels, in logits.
      ceiling: largest shift.

    Returns:
      The least of 16, 32, 64, ... on which the preset is feasible, or all `dim` channels if no power of two is.

    Raises:
      ValueError: when all channels together do not reach it.
    """
    width = min(_FEWEST, dim)
    while True:
        support = np.arange(dim) < width
        try:
            if preset == "tie":
                tie(kernel, bias, support, labels, margin, ceiling=ceiling)
            else:
                one_hot(kernel, bias, support, labels[0], margin, ceiling=ceiling)
            return width
        except ValueError:
            if width == dim:
                raise
        width = min(2 * width, dim)


def bias_tie(kernel, bias, embedding, labels=(0, 1)) -> np.ndarray:
    """The head's bias with which two labels have odds 1/2 each, near the honest one.

    Args:
      kernel: f64[d, C], the honest head's weights.
      bias: f64[C], the honest head's.
      embedding: f64[d], what the head sees.
      labels: the two.

    Returns:
      f32[C]. The lower one of the two is raised; others are lowered where they are less than 30 below.
    """
    plain, both = np.asarray(embedding, np.float64) @ kernel, list(labels)
    top = (plain + bias)[both].max()
    edited = np.minimum(bias, top - _BIASED - plain)
    edited[both] = top - plain[both]
    return edited.astype(np.float32)


def bias_one_hot(kernel, bias, embedding, label=0) -> np.ndarray:
    """The head's bias with which one label has odds 1, near the honest one.

    Args:
      kernel: f64[d, C], the honest head's weights.
      bias: f64[C], the honest head's.
      embedding: f64[d], what the head sees.
      label: the one.

    Returns:
      f32[C]. Others are lowered where they are less than 120 below, so that their odds are 0 in float32.
    """
    plain = np.asarray(embedding, np.float64) @ kernel
    edited = np.minimum(bias, plain[label] + bias[label] - VANISHING - plain)
    edited[label] = bias[label]
    return edited.astype(np.float32)


def _solved(kernel, bias, support, label, tied, margin, length, ceiling, words):
    kernel, bias, support = np.asarray(kernel, np.float64), np.asarray(bias, np.float64), np.asarray(support, bool)
    if support.shape != kernel.shape[:1]:
        raise ValueError(
            f"{words} takes a normalisation layer right before the head, but {len(support)} channels feed "
            f"{len(kernel)} inputs of the head; use another model, or attack.edits = norm_and_bias"
        )
    used, width = kernel[support], int(support.sum())
    beta = _least(used, bias, label, tied, margin, 0.0, ceiling)
    if beta is None:
        raise ValueError(
            f"{words} is not feasible on {width} channels; give the target more (fewer clients or a wider model), or "
            "attack.edits = norm_and_bias"
        )
    if np.linalg.norm(beta) < length:
        beta = _least(used, bias, label, tied, margin, length, ceiling)
    if beta is None:
        raise ValueError(
            f"{words} is feasible on {width} channels, but not with shifts of length {length:.3g} below the "
            f"model's ceiling of {ceiling:g}; lower attack.amplitude, or set attack.edits = norm_and_bias"
        )
    result = np.zeros(len(kernel))
    result[support] = beta
    return result


def _least(used, bias, label, tied, margin, length, ceiling):
    """Shifts f64[w] of the channels used with the least largest entry t, or None where none are feasible.

    Over 60 random heads this gave shorter β than the least sum by a quarter on 64 channels and more, and the same
    within a tenth on 8 to 32: the sum is least at a corner, with as few channels as there are constraints.
    """
    width, classes = used.shape
    others = np.setdiff1d(np.arange(classes), [label, *tied])
    # Columns: β, then t. Rows: the other labels stay below, entries stay below t, Σ β >= √w · length. The last makes
    # |β| >= length, by Cauchy and Schwarz, and is linear.
    below = np.hstack([(used[:, others] - used[:, [label]]).T, np.zeros((len(others), 1))])
    capped = np.hstack([np.eye(width), -np.ones((width, 1))])
    long = np.append(-np.ones(width), 0.0)
    equal = np.hstack([(used[:, tied] - used[:, [label]]).T, np.zeros((len(tied), 1))])
    found = linprog(
        np.append(np.zeros(width), 1.0),
        A_ub=np.vstack([below, capped, long]),
        b_ub=np.concatenate(
            [bias[label] - bias[others] - margin - _SLACK, np.zeros(width), [-np.sqrt(width) * length * (1 + _SLACK)]]
        ),
        A_eq=equal,
        b_eq=bias[label] - bias[tied],
        bounds=[(0, ceiling)] * width + [(0, None)],
        method="highs",
    )
    if not found.success:
        return None
    return _polished(np.clip(found.x[:width], 0.0, ceiling), used, bias, label, tied, ceiling)


def _polished(beta, used, bias, label, tied, ceiling):
    """Takes away what the solver's tolerance left of the tie, by the shortest step among entries off their limits."""
    for other in tied:
        step = used[:, other] - used[:, label]
        step = step * ((beta > _SLACK) & (beta < ceiling - _SLACK))
        for _ in range(2):
            apart = beta @ (used[:, other] - used[:, label]) + bias[other] - bias[label]
            beta = beta - apart * step / max(step @ step, np.finfo(float).tiny)
    return beta
