"""Routing: which rows of a packed batch belong to which slot. Made once per batch; plain data."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from torch import Tensor

from lorat.deltas import Delta, Key
from lorat.ops.torch import lora_delta
from lorat.slots import Slot


class Segment(NamedTuple):
    """Packed rows start to stop - 1, all of one slot, with its merged weights as they were when this was made."""

    start: int
    stop: int
    slot: Slot
    merged: Mapping[Key, Tensor]

    @property
    def deltas(self) -> Mapping[Key, Delta]:
        """The slot's, as they were loaded."""
        return self.slot.deltas


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
                segments.append(Segment(offsets[rows[0]], offsets[rows[-1] + 1], slot, slot.merged))
        return cls(segments)

    def deltas(self, key: Key) -> list[tuple[int, int, Delta]]:
        """(start, stop, delta) of the segments that add a low-rank product at a group."""
        return [
            (segment.start, segment.stop, segment.deltas[key])
            for segment in self.segments
            if key in segment.deltas and key not in segment.merged
        ]

    def add_deltas(self, key: Key, y: Tensor, x: Tensor) -> None:
        """y += what each row's adapter adds at a group, in place. y (rows, out), x (rows, in)."""
        lora_delta(y, x, self.deltas(key))

    def merged(self, key: Key) -> list[Merged]:
        """The segments that have a merged weight at a group."""
        return [
            Merged(segment.start, segment.stop, segment.merged[key], segment.deltas[key].bias)
            for segment in self.segments
            if key in segment.merged
        ]
