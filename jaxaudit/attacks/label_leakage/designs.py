r"""Which vectors the clients' heads see, so that their gradients come apart again.

The error of a decoded gradient is the gain κ = √(mean diag (E Eᵀ)⁻¹) times that of the sum. Where entries are
bounded, rows of a Hadamard matrix have the least: each measures with half of the channels (a weighing design). Where
norms are bounded, as by a clip, disjoint channels do: the gain times the mean norm is 1, and √2 · √(K / (K + 1)) for
the former.

    design                       condition     gain
    "disjoint", w channels each  1             1/√w
    "hadamard", (1 + H)/2        √(1 + K)      2/√d · √(K / (K + 1))
    "signed", H                  1             1/√d

The closed forms of the last two are those of a power of two d. Other dimensions take columns away from the next
larger matrix, which for K close to d multiplies the gain by up to 1.9 and leaves the condition below d; for K up to
3d/4 the gain is within 1.15 of its closed form (all measured).

Reference:
  Harwit & Sloane (1979), Hadamard Transform Optics, for the weighing design.
"""

from typing import Literal

import numpy as np
from scipy.linalg import hadamard, qr

from .decoding import RANK_TOLERANCE

Name = Literal["disjoint", "hadamard", "signed"]


def design(name: Name, clients: int, dim: int, *, first: int = 0) -> np.ndarray:
    """Embeddings of unit amplitude.

    Args:
      name: "disjoint" (channels of its own for every client), "hadamard" (entries 0 and 1) or "signed" (entries -1
        and 1, only where no rectifier follows).
      clients: K, at least 1.
      dim: d, channels.
      first: channels that client 0 gets at least, of disjoint ones; the others share the rest.

    Returns:
      f64[K, d].

    Raises:
      ValueError: when the channels do not carry as many clients.

    Example:
      >>> design("disjoint", 2, 5)
      array([[1., 1., 1., 0., 0.],
             [0., 0., 0., 1., 1.]])
    """
    if first and name != "disjoint":
        raise ValueError(
            f"first is {first} for design {name!r}, allowed is 0; only design 'disjoint' gives channels away"
        )
    carried = capacity(name, dim, first=first)
    if not 1 <= clients <= carried:
        raise ValueError(
            f"design {name!r} carries 1 to {carried} clients on {dim} channels, asked are {clients}; use a wider "
            "model, fewer clients a round, or attack.per_direction"
        )
    if name == "disjoint":
        return np.repeat(np.eye(clients), _widths(clients, dim, first), axis=1)
    signs = _signs(clients, dim, positive=name == "hadamard")
    return (1 + signs) / 2 if name == "hadamard" else signs


def capacity(name: Name, dim: int, *, first: int = 0) -> int:
    """Most clients that a design tells apart.

    Args:
      name: of the design.
      dim: d, channels.
      first: channels that client 0 gets at least, of disjoint ones.

    Returns:
      d, less one for "hadamard": the row of ones that would be its last is nearly the mean of the others, and takes
      the condition from √(1 + K) to (K + 4)/2, and to up to 4d where d is no power of two. With `first`, client 0 and
      one for each of the other channels.
    """
    if name == "hadamard":
        return dim - 1
    return dim if first < 2 else max(dim - first + 1, 0)


def stealthy(support, amplitude: float, gamma: float = 1.0) -> np.ndarray:
    """Shifts that hide the records although the scale stays: gradients of the layers before do not vanish.

    On its channels a client's shift stands far above what the scale lets through, and the head saturates; on all
    others it stands below, and the rectifier cuts off ten deviations.

    Args:
      support: bool[K, d], the channels of each client.
      amplitude: of the shift there, > 0.
      gamma: scale of the layer, at least 0.

    Returns:
      f64[K, d].
    """
    return np.where(support, float(amplitude), -(1.0 + 10.0 * gamma))


def gain(embeddings, *, bias: bool = False) -> float:
    """Deviation of a decoded gradient for independent noise of deviation 1 on every entry of the sum.

    Args:
      embeddings: f64[K, d].
      bias: whether the gradient of the bias is read too, as one more dimension in which every embedding is 1.

    Returns:
      √(mean diag (E Eᵀ)⁻¹), inf where embeddings are dependent.
    """
    rows = np.asarray(embeddings, np.float64)
    if bias:
        rows = np.hstack([rows, np.ones((len(rows), 1))])
    scales = _spectrum(rows)
    # The mean of the diagonal of an inverse is that of its eigenvalues.
    return float(np.sqrt(np.mean(scales**-2))) if scales.all() else np.inf


def condition(embeddings) -> float:
    """Largest singular value of f64[K, d] over the least of K: inf where embeddings are dependent."""
    scales = _spectrum(embeddings)
    return float(scales.max() / scales.min()) if scales.all() else np.inf


def require_conditioned(embeddings, largest: float = 1e3) -> None:
    """Embeddings must come apart.

    Of a model they can be dependent although there are fewer than d: pixels of a channel, or dense layers behind a
    narrow normalisation, have no more freedom than the channels that are shifted.

    Args:
      embeddings: f64[K, d], of a design or as a model shows them.
      largest: condition that is allowed.

    Raises:
      ValueError: beyond it.
    """
    rows = np.asarray(embeddings, np.float64)
    found = condition(rows)
    if found <= largest:
        return
    scales = _spectrum(rows)
    rank = int((scales > RANK_TOLERANCE * scales.max()).sum())
    if rank < len(rows):
        raise ValueError(
            f"embeddings of {len(rows)} clients have rank {rank}, needed is {len(rows)}; use a model with more "
            "channels in its last normalisation layer, fewer clients a round, or attack.per_direction"
        )
    raise ValueError(
        f"embeddings of {len(rows)} clients have condition {found:.3g}, allowed are up to {largest:g}; use fewer "
        "clients a round, a wider model, or attack.design = disjoint"
    )


def _widths(clients, dim, first):
    """Channels of each client: equal shares, of which the first clients take what is left over."""
    equal = dim // clients + (np.arange(clients) < dim % clients)
    if first <= equal[0]:
        return equal
    return np.append(first, _widths(clients - 1, dim - first, 0))


def _signs(clients, dim, positive):
    """Hadamard rows with the row of ones last, or without it where entries 0 and 1 will be made of them."""
    order = 1 << (dim - 1).bit_length()
    rows = np.roll(hadamard(order), -1, axis=0)[: order - 1 if positive else order, :dim].astype(np.float64)
    if order > dim:
        # Pivots are the rows farthest from the span of those before: greedy, so fewer clients are conditioned better.
        entries = (1 + rows) / 2 if positive else rows
        rows = rows[qr(entries.T, mode="r", pivoting=True)[1]]
    return rows[:clients]


def _spectrum(embeddings):
    """K singular values of f64[K, d], those missing are 0."""
    rows = np.asarray(embeddings, np.float64)
    scales = np.linalg.svd(rows, compute_uv=False)
    return np.pad(scales, (0, len(rows) - len(scales)))
