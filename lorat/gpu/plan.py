"""A batch as numbers on the host: what the encoder takes, exactly or filled up to a bucket."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lorat.deltas import Key
from lorat.gpu.buckets import Bucket, bucket_of
from lorat.gpu.stage import Stage
from lorat.ops.table import Table
from lorat.ops.tiles import Tiles, tile
from lorat.packing import Integers, joined, positions, token_types
from lorat.routing import Routing, Segment
from lorat.slots import Slot


class Plan(NamedTuple):
    """A packed batch, with its tiles by adapter.

    ids, positions, types: (tokens,). lengths, starts: (sequences,). segments: all that have an adapter; merged:
    those that compute with merged weights; tiles: cut from the others, whose tables are `tables`.
    Whoever holds a plan holds every tensor of its adapters.
    """

    ids: Integers
    positions: Integers
    types: Integers
    lengths: Integers
    starts: Integers
    tiles: Tiles
    tables: tuple[Table, ...]
    segments: tuple[Segment, ...]
    merged: tuple[Segment, ...]

    @classmethod
    def of(
        cls,
        ids: Sequence[Sequence[int]],
        types: Sequence[Sequence[int] | None],
        slots: Sequence[Slot | None],
    ) -> "Plan":
        """Sequences in the order given, those of one slot side by side. `types` may hold None for all zeros."""
        lengths = np.array([len(sequence) for sequence in ids])
        ends = lengths.cumsum()
        starts, tokens = ends - lengths, int(ends[-1])
        runs = Routing.of(slots, [0, *ends.tolist()]).segments
        unmerged = [(run, run.slot.table) for run in runs if run.deltas and not run.merged]
        return cls(
            ids=joined(ids, tokens),
            positions=positions(lengths),
            types=token_types(types, lengths.tolist()),
            lengths=lengths,
            starts=starts,
            tiles=tile([(run.start, run.stop, table.fields.data_ptr()) for run, table in unmerged]),
            tables=tuple(table for _, table in unmerged),
            segments=runs,
            merged=tuple(segment for segment in runs if segment.merged),
        )

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return int(self.lengths.max())

    @property
    def keys(self) -> frozenset[Key]:
        """The linear layers where a tile's adapter adds something."""
        return frozenset().union(*(table.keys for table in self.tables))

    @property
    def ranks(self) -> int:
        """The largest number of ranks that an adapter has at one linear layer."""
        return max([table.ranks for table in self.tables], default=0)

    @property
    def aligned(self) -> int:
        """What all ranks and columns are a multiple of."""
        return min([table.aligned for table in self.tables], default=8)

    def bucket(self) -> Bucket | None:
        """Where it fits; None if nowhere: too large, or computed in part with merged weights, which no graph knows."""
        if self.merged or self.aligned != 8:
            return None
        groups = frozenset[str]().union(*[table.groups for table in self.tables])
        return bucket_of(len(self.ids), len(self.lengths), self.longest, len(self.tiles), self.ranks, groups)

    def stage(self, bucket: Bucket | None = None) -> Stage:
        """ids, positions, types (tokens,) int64, offsets (sequences + 1,) int32, tiles (tiles, 3) int64.

        Filled up to a bucket, the tokens beyond the batch's are sequences of their own, in no tile: nobody else attends
        to them. They are computed all the same, because an attention kernel may read on beyond a sequence, and
        whatever it multiplies by zero there must be finite. Sequences beyond those are empty, at the end.
        """
        tokens = bucket.tokens if bucket else len(self.ids)
        stage = Stage()
        for row in (self.ids, self.positions, self.types):
            stage.put(row, tokens)
        filling = range(len(self.ids), tokens, bucket.longest) if bucket else ()
        offsets = np.array([*self.starts.tolist(), *filling], dtype=np.int32)
        stage.put(offsets, (bucket.sequences if bucket else len(self.starts)) + 1, tokens)
        stage.put(self.tiles, bucket.tiles if bucket else None)
        return stage
