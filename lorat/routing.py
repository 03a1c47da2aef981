"""Routing: which rows of a packed batch belong to which slot. Made once per batch; plain data."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from torch import Tensor

from lorat.deltas import Delta, Key
from lorat.ops import stacked
from lorat.ops.stacked import Shape, Stack, Tiling
from lorat.ops.torch import lora_delta
from lorat.slots import Slot


class Segment(NamedTuple):
    """Packed rows start to stop - 1, all of one adapter, with that adapter's tensors as they were loaded.

    shape: what neighbours must have in common to be stacked; None for one that is not.
    """

    start: int
    stop: int
    deltas: Mapping[Key, Delta]
    merged: Mapping[Key, Tensor]
    shape: Shape | None = None


class Merged(NamedTuple):
    """Packed rows start to stop - 1 with a weight of their own, as `lay_out` left it, and a bias to add."""

    start: int
    stop: int
    weight: Tensor
    bias: Tensor | None


class Routing:
    """The segments of a batch that change something: rows of the base alone are in none."""

    def __init__(self, segments: Iterable[Segment]) -> None:
        self.segments = tuple(segments)
        self._single: list[Segment] = []
        self._stacked: list[tuple[Tiling, list[Segment]]] = []
        for run in _runs(self.segments):
            tiling = stacked.tiling([segment[:2] for segment in run]) if run[0].shape else None
            if tiling:
                self._stacked.append((tiling, run))
            else:
                self._single += run

    @classmethod
    def of(cls, slots: Sequence[Slot | None], offsets: Sequence[int]) -> "Routing":
        """One segment for each run of the same slot.

        slots: the slot of each sequence, None for the base alone. offsets: where each sequence starts in
        the batch, and its end (length: sequences + 1).
        """
        segments = []
        for slot, run in groupby(range(len(slots)), key=slots.__getitem__):
            rows = list(run)
            if slot is not None:
                merged = slot.merged  # read once: another thread may merge it now
                shape = None if merged else slot.shape
                segments.append(Segment(offsets[rows[0]], offsets[rows[-1] + 1], slot.deltas, merged, shape))
        return cls(segments)

    def deltas(self, key: Key) -> list[tuple[int, int, Delta]]:
        """(start, stop, delta) of the segments that add a low-rank product at a group by themselves."""
        return [
            (segment.start, segment.stop, segment.deltas[key])
            for segment in self._single
            if key in segment.deltas and key not in segment.merged
        ]

    def stacks(self, key: Key) -> list[Stack]:
        """The other segments that do."""
        return [
            stacked.stack(tiling, [segment.deltas[key] for segment in run])
            for tiling, run in self._stacked
            if key in run[0].deltas
        ]

    def add_deltas(self, key: Key, y: Tensor, x: Tensor) -> None:
        """y += what each row's adapter adds at a group that is in no stack, in place. y (rows, out), x (rows, in)."""
        lora_delta(y, x, self.deltas(key))

    def merged(self, key: Key) -> list[Merged]:
        """The segments that have a merged weight at a group."""
        return [
            Merged(segment.start, segment.stop, segment.merged[key], segment.deltas[key].bias)
            for segment in self.segments
            if key in segment.merged
        ]


def _runs(segments: Sequence[Segment]) -> list[list[Segment]]:
    """Segments one behind another that are of one shape."""
    runs: list[list[Segment]] = []
    for segment in segments:
        if runs and (runs[-1][-1].stop, runs[-1][-1].shape) == (segment.start, segment.shape):
            runs[-1].append(segment)
        else:
            runs.append([segment])
    return runs
