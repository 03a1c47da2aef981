"""Slots: where loaded adapters live on the device, ready for the forward pass.

A slot's tensors are made once, when its adapter is loaded, and never written again. Whoever holds a
`Slot` computes with exactly that adapter; unloading only takes it out of the table.
"""

import threading
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from lorat.adapter import Adapter, LoRA
from lorat.errors import NotLoadedError, SlotsFullError
from lorat.gpu.lanes import settle
from lorat.heads import LoadedHead
from lorat.layers import merged_weight
from lorat.layout import lay_out
from lorat.targets import Site

if TYPE_CHECKING:
    from lorat.ops.table import Table

# The linear layers of an encoder layer that share an input are one matrix product: a group.
GROUPS: dict[str, tuple[str, ...]] = {
    "qkv": ("query", "value", "key"),  # query and value, the usual targets, lie side by side
    "output": ("output",),
    "intermediate": ("intermediate",),
    "ffn_output": ("ffn_output",),
}


_JOINED_RANK = 32


class Part(NamedTuple):
    """The share of a group's neighbouring targets: rows of the stacked A, columns of the group's output, and B.

    ranks, columns: the first, and the one after the last. b: (rank, out of the target): scaling * B, transposed.
    """

    ranks: tuple[int, int]
    columns: tuple[int, int]
    b: Tensor


class Delta(NamedTuple):
    """What an adapter adds to one group: y[:, columns] += (x A^T)[:, ranks] b, then `bias` on all of y.

    a: (in, sum of ranks): the A of the group's targets, stacked and transposed.
    bias: (out of the group,) or None.
    """

    a: Tensor
    parts: list[Part]
    bias: Tensor | None


class GroupLinear(Protocol):
    """A group's frozen linear: weight (out, in) and bias (out,), the targets' outputs side by side."""

    @property
    def weight(self) -> Tensor:
        """(out, in)."""

    @property
    def laid_out(self) -> Tensor:
        """The weight as the matrix library wants it."""

    @property
    def bias(self) -> Tensor:
        """(out,)."""


Groups = Mapping[tuple[int, str], GroupLinear]
"""The base's linears by (layer, group)."""


class Slot:
    """A loaded adapter. Hand it to `Row`; ask for a new one after `unload`."""

    def __init__(self, index: int, adapter: Adapter, deltas: Mapping[tuple[int, str], Delta]) -> None:
        self.index = index
        self.adapter = adapter
        self.deltas = deltas
        self.head: LoadedHead | None = None  # filled by MultiLoRAT, which knows the base's pooler
        self.merged: Mapping[tuple[int, str], Tensor] = {}
        self.table: Table | None = None  # filled when a GPU's batch first has it
        self.loaded = True

    def require_loaded(self) -> None:
        """Raise NotLoadedError once the adapter has been unloaded."""
        if not self.loaded:
            raise NotLoadedError(f"the adapter of slot {self.index} was unloaded: load it again")

    @property
    def multiply_adds(self) -> int:
        """Of its low-rank products, for one row."""
        return sum(d.a.numel() + sum(part.b.numel() for part in d.parts) for d in self.deltas.values())


class Slots:
    """A table of at most `capacity` loaded adapters. Loading and unloading cost the same however full it is."""

    def __init__(self, groups: Groups, capacity: int) -> None:
        self._groups = groups
        self._free = list(range(capacity, 0, -1))
        self._lock = threading.Lock()
        self.capacity = capacity

    @property
    def free(self) -> int:
        """How many adapters can still be loaded."""
        return len(self._free)

    def load(self, adapter: Adapter) -> Slot:
        """Put an adapter on the device. Raises SlotsFullError when no slot is free."""
        with self._lock:
            if not self._free:
                raise SlotsFullError(f"all {self.capacity} slots hold an adapter: unload one, or ask for more slots")
            index = self._free.pop()
        try:
            return self.prepare(adapter, index)
        except BaseException:
            self._give_back(index)
            raise

    def prepare(self, adapter: Adapter, index: int = 0) -> Slot:
        """A slot that stands in no table: for a trial, before an adapter is let in."""
        return Slot(index, adapter, self._deltas(adapter))

    def unload(self, slot: Slot) -> None:
        """Free a slot. Batches that already hold it finish with it. Raises NotLoadedError the second time."""
        slot.require_loaded()
        slot.loaded = False
        self._give_back(slot.index)

    def _give_back(self, index: int) -> None:
        with self._lock:
            self._free.append(index)

    def merge(self, slot: Slot) -> None:
        """Give a slot merged weights of its own: pristine base + delta, one new tensor per changed group."""
        slot.require_loaded()
        merged = {key: _merge(self._groups[key].weight, delta) for key, delta in slot.deltas.items()}
        settle(next(iter(self._groups.values())).bias.device)
        slot.merged = merged

    def merge_size(self, slot: Slot) -> tuple[float, int]:
        """A slot's low-rank products as a share of the base's arithmetic, and the bytes of its merged weights."""
        whole = sum(linear.laid_out.numel() for linear in self._groups.values())
        changed = sum(self._groups[key].laid_out.numel() for key in slot.deltas)
        itemsize = next(iter(self._groups.values())).bias.itemsize
        return slot.multiply_adds / whole, changed * itemsize

    def unmerge(self, slot: Slot) -> None:
        """Drop a slot's merged weights."""
        slot.merged = {}

    def _deltas(self, adapter: Adapter) -> dict[tuple[int, str], Delta]:
        deltas = {}
        for (layer, group), linear in self._groups.items():
            chosen = [adapter.lora.get(Site(layer, target)) for target in GROUPS[group]]
            if any(chosen):
                deltas[layer, group] = _stack(chosen, linear)
        return deltas


def _stack(chosen: list[LoRA | None], linear: GroupLinear) -> Delta:
    """Ranks are filled up with zeros to a multiple of 8: a GPU's kernels read A and B 16 bytes at a time."""
    width = linear.bias.shape[0] // len(chosen)
    parts: list[Part] = []
    stacked, rank = [], 0
    bias = torch.zeros_like(linear.bias, dtype=torch.float32)
    for position, lora in enumerate(chosen):
        if lora is None:
            continue
        columns = position * width, (position + 1) * width
        padding = _padded(lora.rank) - lora.rank
        b = F.pad((lora.b * lora.scaling).T, (0, 0, 0, padding))
        parts.append(Part((rank, rank + len(b)), columns, b))
        stacked.append(F.pad(lora.a, (0, 0, 0, padding)))
        rank += len(b)
        if lora.bias is not None:
            bias[slice(*columns)] = lora.bias.to(bias) - linear.bias[slice(*columns)].float()
    kept = linear.bias.device, linear.bias.dtype if linear.bias.is_cuda else torch.float32  # lorat.ops.torch says why
    a = torch.cat(stacked).T.contiguous().to(*kept)
    parts = [Part(part.ranks, part.columns, part.b.contiguous().to(*kept)) for part in _joined(parts)]
    return Delta(a, parts, bias.to(linear.bias) if bias.any() else None)


def _joined(parts: list[Part]) -> list[Part]:
    """Neighbours of small rank as one part with a block-diagonal B: one product costs less than several."""
    first, last = parts[0], parts[-1]
    gapless = all(before.columns[1] == after.columns[0] for before, after in pairwise(parts))
    if not gapless or last.ranks[1] > _JOINED_RANK:
        return parts
    b: Tensor = torch.block_diag(*(part.b for part in parts))  # type: ignore[no-untyped-call]
    return [Part((0, last.ranks[1]), (first.columns[0], last.columns[1]), b)]


def _padded(rank: int) -> int:
    return -(-rank // 8) * 8


def _merge(weight: Tensor, delta: Delta) -> Tensor:
    merged = weight.clone()
    for part in delta.parts:
        columns = slice(*part.columns)
        merged[columns] = merged_weight(weight[columns], delta.a[:, slice(*part.ranks)].T, part.b.T)
    return lay_out(merged)
