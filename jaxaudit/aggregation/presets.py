"""Secure aggregation as three deployed stacks encode it: chains of stages with their constants.

What is said of a stack was read in its published code, unless it is marked UNCONFIRMED.
"""

import math
from statistics import NormalDist
from typing import Literal

from .clip import Clip
from .encoding import FixedPoint
from .noise import DiscreteGaussian, Skellam
from .rotate import Rotate, padded
from .secure_sum import SecureSum
from .weight import Weight

# Beyond it TFF says that norms overflow and utility gains nothing.
_LARGEST_SCALE = 1e6


def flower_secaggplus(
    *,
    examples: int,
    max_weight: int = 1000,
    clipping_range: float = 8.0,
    quantization_range: int = 2**22,
    modulus_bits: int = 32,
) -> SecureSum:
    """Flower's SecAgg+ with its default constants, for clients with equally many examples.

    As in the code: the weight is examples / max_weight, rounded to whole 1 / quantization_range; weighted vectors are
    clipped, shifted to be non-negative and rounded stochastically (up, then down again with the probability of what
    the rounding added: the same law). Zero becomes quantization_range / 2, without rounding noise.

    Not simulated: the first entry of what a client sends is its weight, here one number for all; vectors here are
    what the population says, and Flower sends **weights of models**, not updates, so that every coordinate of every
    client tosses a coin (sd of the sum about step · sqrt(n / 6)) instead of only those that changed; masks, whose
    generator Flower seeds with 32 bits and which never take their largest value; float32 arithmetic, in which Flower
    rounds v + 8 to a quarter of a step or finer before the coin. Clients with more than `max_weight` examples, whose
    vectors may overflow in Flower, are refused.

    Args:
      examples: of each client, 1 to max_weight.
      max_weight: as Flower's argument of that name.
      clipping_range: as Flower's.
      quantization_range: as Flower's: levels, an even number.
      modulus_bits: log2 of Flower's modulus_range.

    Returns:
      SecureSum; its total is the sum of the updates, so dividing by the survivors gives Flower's mean.

    Raises:
      ValueError: for so many examples that Flower warns of overflow, or none.

    Example:
      >>> flower_secaggplus(examples=500).stages[0].factor
      0.5

    Reference:
      github.com/adap/flower, flwr/common/secure_aggregation/quantization.py and the SecAgg+ mod and workflow.
    """
    if not 1 <= examples <= max_weight:
        raise ValueError(f"examples is {examples:,}, allowed are 1 to {max_weight:,} (max_weight); raise max_weight")
    ratio = round(examples / max_weight * quantization_range) / quantization_range
    return SecureSum(
        stages=(
            Weight(factor=ratio),
            FixedPoint(levels=quantization_range, clip_range=clipping_range, rounding="stochastic", shifted=True),
        ),
        ring_bits=modulus_bits,
    )


def tff_sum(clip_range: float) -> SecureSum:
    """The secure sum of floats in TensorFlow Federated (`SecureSumFactory`), for a symmetric range.

    As in the code: entries are clipped to ±clip_range and rounded to 2^32 - 1 levels without coins; the sum has 64
    bits and does not wrap; a sum of zeros is exactly zero. Different: TFF scales in float64 where this does in
    float32, whose 24 bits are all that an update of that type has; at the ends of the range integers are lower by up
    to 128 of 2^31.

    Args:
      clip_range: > 0, in units of the update.

    Returns:
      SecureSum.

    Reference:
      github.com/google-parfait/tensorflow-federated, aggregators/secure.py and primitives.py (secure_quantized_sum).
    """
    return SecureSum(stages=(FixedPoint(levels=2**32 - 1, clip_range=clip_range),), ring_bits=64)


def tff_distributed_dp(
    *,
    clip: float,
    noise_multiplier: float,
    clients: int,
    dim: int,
    bits: int = 16,
    mechanism: Literal["skellam", "discrete_gaussian"] = "skellam",
    beta: float = 0.0,
    modclip_prob: float = 1e-4,
    seed: int = 0,
) -> SecureSum:
    """Distributed differential privacy in TensorFlow Federated (`DistributedDpSumFactory`).

    As in the code: rotation, l2 clip, division by a step, stochastic rounding (conditional for beta > 0), integer
    noise in equal shares, sum modulo 2^bits. The step comes from `tff_granularity`. Chosen here: the Hadamard
    rotation ("hd"), where TFF's default is a discrete Fourier transform; the clip is fixed ("auto_l2_clip" is off);
    one rotation for all rounds, where TFF draws new public signs each round.

    Args:
      clip: l2 norm, > 0, in units of the update (`l2_clip`).
      noise_multiplier: standard deviation of the noise in the sum over clip, >= 0; 0 adds none.
      clients: expected in a round (`expected_clients_per_round`).
      dim: entries of an update.
      bits: of the modulus, 1 to 22.
      mechanism: "skellam" (TFF's default) or "discrete_gaussian".
      beta: bias of conditional rounding, in [0, 1); 0, as in TFF, rounds without conditions.
      modclip_prob: probability with which an entry of the sum may wrap, in (0, 1).
      seed: of the public rotation.

    Returns:
      SecureSum, which may wrap.

    Raises:
      ValueError: where an argument is out of range, or so many bits cannot hold so many clients.

    Reference:
      github.com/google-parfait/tensorflow-federated, aggregators/distributed_dp.py; Kairouz, Liu & Steinke (2021),
      arXiv:2102.06387; Agarwal, Kairouz & Liu (2021), arXiv:2110.04995.
    """
    if not 0 <= beta < 1:
        raise ValueError(f"beta is {beta}, allowed is [0, 1); 0 rounds without conditions")
    gamma = tff_granularity(
        clip=clip,
        noise_multiplier=noise_multiplier,
        clients=clients,
        dim=padded(dim),
        bits=bits,
        modclip_prob=modclip_prob,
    )
    rounding = {"rounding": "conditional", "beta": beta} if beta else {"rounding": "stochastic"}
    kinds = {"skellam": Skellam, "discrete_gaussian": DiscreteGaussian}
    if mechanism not in kinds:
        raise ValueError(f"mechanism is {mechanism!r}, allowed are {' and '.join(kinds)}")
    noise = (kinds[mechanism](deviation=noise_multiplier * clip),) if noise_multiplier else ()
    return SecureSum(
        stages=(Rotate(seed=seed), Clip(norm=clip), FixedPoint(step=gamma, **rounding), *noise),
        ring_bits=bits,
        wrap=True,
    )


def tff_granularity(
    *, clip: float, noise_multiplier: float, clients: int, dim: int, bits: int, modclip_prob: float = 1e-4
) -> float:
    r"""The step for which k standard deviations of an entry of the noisy sum fit the modulus.

    Args:
      clip: as of `tff_distributed_dp`, and so are the others but
      noise_multiplier: of the sum's noise.
      clients: n.
      dim: after padding.
      bits: b.
      modclip_prob: two-sided tail of a normal law beyond k standard deviations.

    Returns:
      float, the solution gamma of 2^b = 2k sqrt((c n)^2 / d + (gamma^2 / 4 + sigma^2) n) / gamma with sigma = z c /
      sqrt(n), the noise of one client; at least 1e-6. The rotation is taken to make entries as flat as a Gaussian
      vector's (rho = 1 in TFF).

    Raises:
      ValueError: where an argument is out of range, or the modulus cannot even hold the rounding noise.

    Reference:
      `_heuristic_scale_factor` and `_clip_prob_to_num_stddevs` in TFF.
    """
    if not 1 <= bits <= 22:
        raise ValueError(f"bits is {bits}, allowed are 1 to 22, as in TFF; float32 sums are exact up to 2^24")
    if not (clip > 0 and noise_multiplier >= 0 and clients >= 1 and 0 < modclip_prob < 1):
        raise ValueError(
            f"clip, noise_multiplier, clients and modclip_prob are {clip}, {noise_multiplier}, {clients} and "
            f"{modclip_prob}, allowed are > 0, >= 0, >= 1 and (0, 1)"
        )
    deviations = NormalDist().inv_cdf(1 - modclip_prob / 2)
    room = 4.0**bits - clients * deviations**2
    if bits < math.log2(clients) or room <= 0:
        raise ValueError(
            f"bits is {bits}, which cannot hold the rounding noise of {clients:,} clients; use more bits"
        )
    flat = (clip * clients) ** 2 / dim
    noise = (noise_multiplier * clip) ** 2
    return max(2 * deviations * math.sqrt((flat + noise) / room), 1 / _LARGEST_SCALE)
