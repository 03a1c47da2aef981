"""Segments of any length cut into tiles of a few rows: one adapter each."""

from collections.abc import Sequence
from typing import Any

import numpy as np

ROWS = 32
"""Rows of a tile: most short texts fill one or two."""

Tiles = np.ndarray[Any, np.dtype[np.int64]]
"""(tiles, 3): what the caller gave for the segment, first row, row to stop at."""


def tile(segments: Sequence[tuple[int, int, int]]) -> Tiles:
    """Tiles of segments (start, stop, what), in their order, of at most ROWS rows."""
    if not segments:
        return np.zeros((0, 3), dtype=np.int64)
    start, stop, what = np.array(segments, dtype=np.int64).T
    counts = -(-(stop - start) // ROWS)
    owner = np.repeat(np.arange(len(segments)), counts)
    place = np.arange(len(owner)) - (counts.cumsum() - counts)[owner]
    first = start[owner] + place * ROWS
    return np.stack([what[owner], first, np.minimum(first + ROWS, stop[owner])], axis=1)
