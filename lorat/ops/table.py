"""Where an adapter's tensors are, as numbers that a kernel reads: one table an adapter, one entry a linear layer."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import gcd

import numpy as np
import torch
from torch import Tensor

from lorat.deltas import GROUPS, Delta, Key

PARTS = max(map(len, GROUPS.values()))
PART = 3
"""Fields of an entry before its first part."""
RANKS, A, BIAS = range(PART)
"""Ranks of all parts (as A has columns), address of A, address of the bias (0: none)."""
PART_FIELDS = 5
"""Fields of a part."""
B, FIRST_RANK, PART_RANKS, FIRST_COLUMN, PART_COLUMNS = range(PART_FIELDS)
"""Address of B, first rank, ranks (0: no part), first column, columns."""
FIELDS = PART + PART_FIELDS * PARTS
_GROUPS = {group: place for place, group in enumerate(GROUPS)}


@dataclass(frozen=True)
class Table:
    """An adapter's table on the device, with the tensors it points to, and what a batch must know of it.

    fields: (layers * groups * FIELDS,) int64; an entry of zeros: nothing to add there. keys: the entries that are
    not zeros. ranks: the largest number of ranks of an entry. aligned: what all its ranks and columns are a
    multiple of, 8 at most: 16 bytes of a half type can then be read at once.
    """

    fields: Tensor
    deltas: Mapping[Key, Delta]
    keys: frozenset[Key]
    ranks: int
    aligned: int

    @cached_property
    def groups(self) -> frozenset[str]:
        """Of the keys."""
        return frozenset(group for _, group in self.keys)

    @classmethod
    def of(cls, deltas: Mapping[Key, Delta], layers: int, device: torch.device) -> "Table":
        """A table for a model of so many layers. When this returns it is written, for every stream."""
        fields = np.zeros((layers, len(GROUPS), FIELDS), dtype=np.int64)
        for (layer, group), delta in deltas.items():
            fields[layer, _GROUPS[group]] = _entry(delta)
        sizes = [n for d in deltas.values() for p in d.parts for n in (*p.ranks, *p.columns)]
        ranks = [delta.a.shape[1] for delta in deltas.values()]
        return cls(
            fields=torch.from_numpy(fields.reshape(-1)).to(device),  # from pageable memory: waited for
            deltas=deltas,
            keys=frozenset(deltas),
            ranks=max(ranks, default=0),
            aligned=gcd(8, *sizes, *ranks),
        )


def first_field(key: Key) -> int:
    """Where a linear layer's entry starts in every table."""
    layer, group = key
    return (layer * len(GROUPS) + _GROUPS[group]) * FIELDS


def _entry(delta: Delta) -> list[int]:
    tensors = [delta.a, *(part.b for part in delta.parts), *([] if delta.bias is None else [delta.bias])]
    assert all(tensor.is_contiguous() for tensor in tensors)
    entry = [delta.a.shape[1], delta.a.data_ptr(), 0 if delta.bias is None else delta.bias.data_ptr()]
    for part in delta.parts:
        ranks, columns = part.ranks[1] - part.ranks[0], part.columns[1] - part.columns[0]
        entry += [part.b.data_ptr(), part.ranks[0], ranks, part.columns[0], columns]
    return entry + [0] * (FIELDS - len(entry))
