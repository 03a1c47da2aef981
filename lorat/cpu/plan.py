"""A batch cut for compiled kernels: blocks of rows, pieces of one adapter in them, and the merged weights."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lorat.cpu.kernels.records import BLOCK, PIECE, ROWS
from lorat.deltas import GROUPS
from lorat.ops.table import Table
from lorat.packing import Integers
from lorat.routing import Segment

Records = NDArray[np.void]


class Plan(NamedTuple):
    """blocks (BLOCK) of all rows, and their pieces (PIECE).

    merged: (choices, layers * groups) int64, addresses of panels or 0; the first choice is all zeros. tables: of the
    segments. Whoever holds them and the segments holds every tensor that is pointed to.
    """

    blocks: Records
    pieces: Records
    merged: Integers
    tables: tuple[Table, ...]

    @classmethod
    def of(cls, segments: Sequence[Segment], rows: int, layers: int) -> "Plan":
        """Segments of a batch of so many rows, one behind another; what reaches beyond them is let go."""
        tables = tuple(segment.slot.table for segment in segments)
        weights = [_addresses(segment, layers) for segment in segments if segment.merged]
        blocks: list[tuple[int, int, int, int, int]] = []
        pieces: list[tuple[int, int, int]] = []
        at = 0  # the first segment that is not passed
        for start, stop, merged in _blocks(segments, rows):
            first = len(pieces)
            while at < len(segments) and segments[at].start < stop:
                segment = segments[at]
                edges = max(start, segment.start), min(stop, segment.stop)
                if edges[0] < edges[1]:
                    pieces.append((*edges, tables[at].fields.data_ptr()))
                if segment.stop > stop:
                    break
                at += 1
            blocks.append((start, stop, first, len(pieces), merged))
        groups = layers * len(GROUPS)
        return cls(
            np.array(blocks, BLOCK),
            np.array(pieces, PIECE),
            np.array([[0] * groups, *weights], np.int64),
            tables,
        )

    @property
    def ranks(self) -> int:
        """The largest number of ranks that an adapter has at one linear layer."""
        return max([table.ranks for table in self.tables], default=0)


def _blocks(segments: Sequence[Segment], rows: int) -> Iterator[tuple[int, int, int]]:
    """(start, stop, choice of weights): at most ROWS rows each, those of a segment with merged weights alone."""
    done, choice = 0, 0
    for segment in segments:
        if segment.merged:
            choice += 1
            yield from _cut(done, segment.start, 0)
            yield from _cut(segment.start, min(segment.stop, rows), choice)
            done = segment.stop
    yield from _cut(done, rows, 0)


def _cut(start: int, stop: int, choice: int) -> Iterator[tuple[int, int, int]]:
    for first in range(start, stop, ROWS):
        yield first, min(first + ROWS, stop), choice


def _addresses(segment: Segment, layers: int) -> list[int]:
    """Of a slot's merged weights, by layer and group; 0 where it has none."""
    keys = ((layer, group) for layer in range(layers) for group in GROUPS)
    return [segment.merged[key].data_ptr() if key in segment.merged else 0 for key in keys]
