"""Fitting a chain of stages to a cohort: what does not fit is refused here, before anything is drawn."""

from collections.abc import Sequence

from .chain import Chain, Fitted
from .channel import WIDE, Channel, blank
from .stage import UNBOUNDED, Setting, Stage


def fit(
    stages: Sequence[Stage],
    ring_bits: int,
    dim: int,
    clients: int,
    *,
    wrap: bool = False,
    announced: bool = True,
    minimum: int = 0,
    varying: bool = False,
    rounds: int = 1,
    most: int = 0,
) -> Chain:
    """Fit stages to the vectors and the cohort of an audit.

    Args:
      stages: in the order in which a client applies them.
      ring_bits: sums are modulo 2^ring_bits, or 64.
      dim: entries of an update.
      clients: of the largest cohort, the target included.
      wrap: sums may leave the ring.
      announced: the server learns how many took part.
      minimum: rounds with fewer clients are aborted.
      varying: clients may be absent.
      rounds: audited together.
      most: clients that may take part, if more than `clients`.

    Returns:
      Chain.

    Raises:
      ValueError: where a stage does not fit, or a sum would leave the ring.
    """
    setting, links = Setting(dim, clients, UNBOUNDED, ring_bits, 0.0, most), []
    for place, stage in enumerate(stages):
        try:
            links.append(Fitted(stage, setting, stage.prepare(setting)))
        except ValueError as error:
            raise ValueError(f"aggregator.stages.{place} ({stage.kind}): {error}") from error
        setting = stage.after(setting)
        largest = stage.largest_cohort(links[-1].setting) if hasattr(stage, "largest_cohort") else None
        rounds_off = not links[-1].setting.step and setting.step > 0
        if rounds_off and not (wrap or largest or ring_bits == WIDE or _bounded(setting, ring_bits)):
            raise ValueError(
                f"aggregator.stages.{place} ({stage.kind}): clip_range is 0 and wrap is false, so nothing keeps sums "
                "within the ring, allowed is a clip range > 0; give one, or say wrap = true"
            )
        if largest is not None and largest < min(2, setting.crowd) and not wrap:
            raise ValueError(
                f"aggregator.stages.{place} ({stage.kind}): no cohort fits a ring of {ring_bits} bits, for two "
                "clients overflow it; use more ring_bits, fewer bits or levels or a larger step, or say wrap = true"
            )
        if largest is not None and setting.crowd > largest and not wrap:
            raise ValueError(
                f"aggregator.stages.{place} ({stage.kind}): the clip range of {setting.crowd:,} clients overflows a "
                f"ring of {ring_bits} bits, allowed are up to {largest:,} clients; use more ring_bits, fewer bits or "
                "a larger step, or say wrap = true"
            )
    if not setting.step and ring_bits < 32:
        raise ValueError(
            f"aggregator.ring_bits is {ring_bits}, but no stage makes integers; allowed is 32 then: add a "
            "fixed_point stage"
        )
    shifted = any(getattr(stage, "shifted", False) for stage in stages)
    if shifted and not announced:
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
        announced=announced,
        minimum=minimum,
        remembered=_remembered(links) if rounds > 1 else (),
    )
    return Chain(dim, tuple(links), setting, channel, clients, varying)


def _bounded(setting, ring_bits):
    """Stages before keep the sum of all clients in the ring."""
    return setting.crowd * setting.norms.linf <= 2.0 ** (ring_bits - 1) - 1


def _remembered(links):
    """Entries of what each stage carries over; nothing where none does."""
    sizes = tuple(link.setting.dim * getattr(link.stage, "error_feedback", False) for link in links)
    return sizes if any(sizes) else ()
