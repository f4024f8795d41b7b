"""Where a server must edit a model so that all records look the same to its last layer."""

from typing import NamedTuple

from ..broadcast import Path


class Bait(NamedTuple):
    """The normalisation layers that make the embedding, the input of the head, the same for all records.

    With scale 0 at `norm`, and with scale 0 and bias -1 at every one of `silenced`, the embedding depends on no
    record: where `norm` is next to the head it is max(bias, 0), cut off at `ceiling`, or the bias itself if `signed`;
    where more layers follow it is what they make of that. Running the model on any records tells.

    Attributes:
      norm: path of the last normalisation layer in the parameters, which hold its "scale" and "bias".
      silenced: paths of further ones, of a shortcut around `norm`.
      ceiling: largest entry that the embedding can have.
      signed: whether entries of the embedding can be negative.
    """

    norm: Path
    silenced: tuple[Path, ...] = ()
    ceiling: float = float("inf")
    signed: bool = False
