"""Fitting a chain of stages to a cohort: what does not fit is refused here, before anything is drawn."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .chain import Chain, Fitted
from .channel import Channel, blank
from .stage import UNBOUNDED, Setting, Stage


def _remembered(links):
    """Entries of what each stage carries over; nothing where none does."""
    sizes = tuple(link.setting.dim * getattr(link.stage, "error_feedback", False) for link in links)
    return sizes if any(sizes) else ()


def fit(stages: Sequence[Stage], ring_bits: int, dim: int, clients: int, **facts: Any) -> Chain:
    """Fit stages to the vectors and the cohort of an audit.

    Args:
      stages: in the order in which a client applies them.
      ring_bits: sums are modulo 2^ring_bits, or 64.
      dim: entries of an update.
      clients: of the largest cohort, the target included.
      facts: `wrap` (sums may leave the ring), `announced`, `minimum`, `varying` (clients may be absent), `rounds`.

    Returns:
      Chain.

    Raises:
      ValueError: where a stage does not fit, or a sum would leave the ring.
    """
    setting, links = Setting(dim, clients, UNBOUNDED, ring_bits, 0.0, np.inf), []
    for place, stage in enumerate(stages):
        try:
            links.append(Fitted(stage, setting, stage.prepare(setting)))
        except ValueError as error:
            raise ValueError(f"aggregator.stages.{place} ({stage.kind}): {error}") from error
        setting = stage.after(setting)
        largest = stage.largest_cohort(links[-1].setting) if hasattr(stage, "largest_cohort") else None
        if largest is not None and clients > largest and not facts["wrap"]:
            raise ValueError(
                f"aggregator.stages.{place} ({stage.kind}): the clip range of {clients:,} clients overflows a ring "
                f"of {ring_bits} bits, allowed are up to {largest:,} clients; use more ring_bits, fewer bits or a "
                "larger step, or say wrap = true"
            )
    if not setting.step and ring_bits < 32:
        raise ValueError(
            f"aggregator.ring_bits is {ring_bits}, but no stage makes integers; allowed is 32 then: add a "
            "fixed_point stage"
        )
    shifted = any(getattr(stage, "shifted", False) for stage in stages)
    if shifted and not facts["announced"]:
        raise ValueError(
            'aggregator.survivors is "hidden", but a shifted encoding cannot be decoded without their number; '
            "allowed is shifted = false: use it, or announce the survivors"
        )
    channel = Channel(
        tuple(blank(stage) for stage in stages),
        size=setting.dim,
        ring_bits=ring_bits,
        integers=setting.step > 0,
        shifted=shifted,
        announced=facts["announced"],
        minimum=facts["minimum"],
        remembered=_remembered(links) if facts["rounds"] > 1 else (),
    )
    return Chain(dim, tuple(links), setting, channel, clients, facts["varying"])
