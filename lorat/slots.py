"""Slots: where loaded adapters live on the device, ready for the forward pass.

A slot's tensors are made once, when its adapter is loaded, and never written again. Whoever holds a
`Slot` computes with exactly that adapter; unloading only takes it out of the table.
"""

import threading
from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor

from lorat.adapter import Adapter
from lorat.deltas import GROUPS, Delta, GroupLinear, Key, merge, stack
from lorat.errors import NotLoadedError, SlotsFullError
from lorat.gpu.lanes import settle
from lorat.heads import LoadedHead
from lorat.ops.table import Table
from lorat.targets import Site

Groups = Mapping[Key, GroupLinear]
"""The base's linears by (layer, group)."""


class Slot:
    """A loaded adapter. Hand it to `Row`; ask for a new one after `unload`."""

    def __init__(self, owner: "Slots", index: int, adapter: Adapter, deltas: Mapping[Key, Delta]) -> None:
        self.owner = owner
        self.index = index
        self.adapter = adapter
        self.deltas = deltas
        self.multiply_adds = sum(d.a.numel() + sum(part.b.numel() for part in d.parts) for d in deltas.values())
        """Of its low-rank products, for one row."""
        self.head: LoadedHead | None = None  # filled by MultiLoRAT, which knows the base's pooler
        self.merged: Mapping[Key, Tensor] = {}
        self.loaded = True

    @cached_property
    def table(self) -> Table:
        """For kernels that find an adapter's tensors by their addresses."""
        return Table.of(self.deltas, self.owner.layers, self.owner.device)

    def require_loaded(self, owner: "Slots") -> None:
        """Raise NotLoadedError where its table is another one, or once the adapter has been unloaded."""
        if self.owner is not owner:
            raise NotLoadedError("a slot is of another MultiLoRAT: load its adapter into this one")
        if not self.loaded:
            raise NotLoadedError(f"the adapter of slot {self.index} was unloaded: load it again")


class Slots:
    """A table of at most `capacity` loaded adapters. Loading and unloading cost the same however full it is."""

    def __init__(self, groups: Groups, capacity: int) -> None:
        self._groups = groups
        self.layers = len({layer for layer, _ in groups})
        self.device = next((linear.bias.device for linear in groups.values()), torch.device("cpu"))
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
        return Slot(self, index, adapter, self._deltas(adapter))

    def unload(self, slot: Slot) -> None:
        """Free a slot. Batches that already hold it finish with it.

        Raises NotLoadedError the second time, for a slot of another table, and for one that stands in none.
        """
        with self._lock:
            slot.require_loaded(self)
            if not slot.index:
                raise NotLoadedError("the slot was prepared for a trial and takes no place: let go of it")
            slot.loaded = False
        self._give_back(slot.index)

    def _give_back(self, index: int) -> None:
        with self._lock:
            self._free.append(index)

    def merge(self, slot: Slot) -> None:
        """Give a slot merged weights of its own: pristine base + delta, one new tensor per changed group.

        Raises NotLoadedError for one that was unloaded or is of another table.
        """
        slot.require_loaded(self)
        merged = {key: merge(self._groups[key], delta) for key, delta in slot.deltas.items()}
        settle(self.device)
        slot.merged = merged

    def merge_size(self, slot: Slot) -> tuple[float, int]:
        """A slot's low-rank products as a share of the base's arithmetic, and the bytes of its merged weights."""
        whole = sum(linear.laid_out.numel() for linear in self._groups.values())
        changed = sum(self._groups[key].laid_out.numel() for key in slot.deltas)
        itemsize = next(iter(self._groups.values())).bias.itemsize
        return slot.multiply_adds / whole, changed * itemsize

    def unmerge(self, slot: Slot) -> None:
        """Drop a slot's merged weights. Raises as `merge`."""
        slot.require_loaded(self)
        slot.merged = {}

    def _deltas(self, adapter: Adapter) -> dict[Key, Delta]:
        deltas = {}
        for (layer, group), linear in self._groups.items():
            chosen = [adapter.lora.get(Site(layer, target)) for target in GROUPS[group]]
            if any(chosen):
                deltas[layer, group] = stack(chosen, linear)
        return deltas
