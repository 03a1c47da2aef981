"""Which adapters are in the device's slots: the least recently used gives way. One thread changes it."""

from collections import OrderedDict
from collections.abc import Collection, Mapping, Set

from lorat import Adapter, MultiLoRAT, Slot


class Residency:
    """Slots by digest, in the order of their last use."""

    def __init__(self, model: MultiLoRAT) -> None:
        self._model = model
        self._slots: OrderedDict[str, Slot] = OrderedDict()
        self._pinned: Set[str] = frozenset()
        self._merged: Set[str] = frozenset()
        self.loads = 0
        self.evictions = 0

    def __len__(self) -> int:
        return len(self._slots)

    def digests(self) -> list[str]:
        """What is in a slot. Any thread may ask."""
        return list(self._slots.copy())

    def content(self, digest: str) -> Adapter | None:
        """What is in an adapter's slot, if it has one. Any thread may ask."""
        slot = self._slots.get(digest)
        return slot.adapter if slot else None

    def is_merged(self, digest: str) -> bool:
        """Whether an adapter has a slot with merged weights. Any thread may ask."""
        slot = self._slots.get(digest)
        return bool(slot and slot.merged)

    def hold(self, wanted: Mapping[str, Adapter]) -> dict[str, Slot]:
        """Slots for one batch: loads what is not there. At most as many adapters as there are slots."""
        held = {}
        for digest in sorted(wanted, key=lambda digest: digest not in self._slots):
            if digest not in self._slots:
                self._make_room(wanted)
                self._load(digest, wanted[digest])
            held[digest] = self._slots[digest]
            self._slots.move_to_end(digest)
        return held

    def preload(self, digest: str, content: Adapter) -> None:
        """Put an adapter into a slot, unless only pinned ones could give way to it."""
        if digest in self._slots or not (self._model.slots.free or self._slots.keys() - self._pinned):
            return
        self._make_room(())
        self._load(digest, content)

    def _make_room(self, wanted: Collection[str]) -> None:
        """Evict what was used longest ago and is not `wanted`: one that is pinned only where all are."""
        if self._model.slots.free:
            return
        others = [digest for digest in self._slots if digest not in wanted]
        digest = next((digest for digest in others if digest not in self._pinned), others[0])
        self.forget(digest)
        self.evictions += 1

    def _load(self, digest: str, adapter: Adapter) -> None:
        slot = self._model.load(adapter)
        self._slots[digest] = slot  # before merging, which may fail for want of memory
        self.loads += 1
        if digest in self._merged:
            self._model.merge(slot)

    def prefer(self, pinned: Set[str], merged: Set[str]) -> None:
        """Which give way last, and which have merged weights."""
        self._pinned, self._merged = pinned, merged
        for digest, slot in self._slots.items():
            if digest in merged and not slot.merged:
                self._model.merge(slot)
            elif digest not in merged and slot.merged:
                self._model.unmerge(slot)

    def forget(self, digest: str) -> None:
        """Free the slot of an adapter, if it has one."""
        slot = self._slots.pop(digest, None)
        if slot is not None:
            self._model.unload(slot)
