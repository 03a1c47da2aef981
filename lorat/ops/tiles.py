"""Segments of any length cut into tiles of a few rows: one adapter each."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lorat.packing import positions

ROWS = 32
"""Rows of a tile: most short texts fill one or two."""

Tiles = NDArray[np.int64]
"""(tiles, 3): what the caller gave for the segment, first row, row to stop at."""


def tile(segments: Sequence[tuple[int, int, int]]) -> Tiles:
    """Tiles of segments (start, stop, what), in their order, of at most ROWS rows."""
    if not segments:
        return np.zeros((0, 3), dtype=np.int64)
    rows = np.array([(what, start, stop) for start, stop, what in segments], dtype=np.int64)
    counts = (rows[:, 2] - rows[:, 1] + ROWS - 1) // ROWS
    tiles: Tiles = rows.repeat(counts, axis=0)
    first, stop = tiles[:, 1], tiles[:, 2]
    first += ROWS * positions(counts)
    np.minimum(stop, first + ROWS, out=stop)
    return tiles
