"""Sequences laid into blocks of a few widths: what attends to itself alone, as few batched products."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lorat.packing import Integers, positions

Booleans = NDArray[np.bool_]

# In tokens. PyTorch's softmax takes 32 values in bfloat16 at a time, and what is left one by one.
_WIDTHS = np.array([32, 64, 96, 128, 160, 192, 256, 384, 512])
_NOBODY = -1


class Laid(NamedTuple):
    """Blocks of one width.

    members: (sequences,), those in these blocks. first: (sequences,), a member's first place among all of the blocks.
    rows: (blocks, width), the packed row at each place; some row where nobody has it.
    hidden: (blocks, keys, queries or 1), whether a query does not see a key; None where all see all.
    """

    members: Integers
    first: Integers
    rows: Integers
    hidden: Booleans | None


def lay_into_blocks(sizes: Integers) -> Iterator[Laid]:
    """Blocks for packed sequences of so many tokens; one that is longer than any width has its own."""
    starts = sizes.cumsum() - sizes
    widths = _WIDTHS[np.searchsorted(_WIDTHS, sizes.clip(max=_WIDTHS[-1]))].clip(sizes)
    for width in np.unique(widths).tolist():
        members = np.flatnonzero(widths == width)
        lay = _several_a_block if 2 * sizes[members].min() <= width else _one_a_block
        yield lay(members, starts[members], sizes[members], width)


def _one_a_block(members: Integers, starts: Integers, sizes: Integers, width: int) -> Laid:
    place = np.arange(width)
    rows = starts[:, None] + np.minimum(place, sizes[:, None] - 1)
    hidden = None if (sizes == width).all() else place[:, None] >= sizes[:, None, None]
    return Laid(members, np.arange(len(members)) * width, rows, hidden)


def _several_a_block(members: Integers, starts: Integers, sizes: Integers, width: int) -> Laid:
    first, blocks = _first_fit(sizes, width)
    within = positions(sizes)
    places = np.repeat(first, sizes) + within
    rows = np.zeros((blocks, width), dtype=np.int64)
    owners = np.full_like(rows, _NOBODY)
    rows.flat[places] = np.repeat(starts, sizes) + within
    owners.flat[places] = np.repeat(members, sizes)
    return Laid(members, first, rows, owners[:, :, None] != owners[:, None])


def _first_fit(sizes: Integers, width: int) -> tuple[Integers, int]:
    """The first place of each sequence, and the number of blocks: the longest first, each where there is room."""
    first = np.empty_like(sizes)
    filled: list[int] = []
    for index in np.argsort(-sizes, kind="stable").tolist():
        size = int(sizes[index])
        block = next((block for block, used in enumerate(filled) if used + size <= width), len(filled))
        if block == len(filled):
            filled.append(0)
        first[index] = block * width + filled[block]
        filled[block] += size
    return first, len(filled)
