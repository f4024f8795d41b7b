"""Reading many updates a block at a time."""

from collections.abc import Iterator, Sequence

# Numbers in a block: 128 MiB of float32. Small products would cost more in waking threads than in multiplying.
_NUMBERS = 2**25


def blocks(sizes: Sequence[int], dim: int) -> Iterator[tuple[int, int]]:
    """Ranges of whole groups whose updates together are one block, or one group each if that is more.

    Args:
      sizes: updates in each group.
      dim: dimension of an update.

    Yields:
      (first group, last group + 1).
    """
    limit, first, filled = max(1, _NUMBERS // dim), 0, 0
    for group, size in enumerate(sizes):
        if filled and filled + size > limit:
            yield first, group
            first, filled = group, 0
        filled += size
    if filled:
        yield first, len(sizes)
