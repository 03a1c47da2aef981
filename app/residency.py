"""Which adapters are in the device's slots: the least recently used gives way. One thread owns it."""

from collections import OrderedDict
from collections.abc import Mapping

from lorat import Adapter, MultiLoRAT, Slot


class Residency:
    """Slots by digest, in the order of their last use."""

    def __init__(self, model: MultiLoRAT) -> None:
        self._model = model
        self._slots: OrderedDict[str, Slot] = OrderedDict()
        self.loads = 0
        self.evictions = 0

    def __len__(self) -> int:
        return len(self._slots)

    def hold(self, wanted: Mapping[str, Adapter]) -> dict[str, Slot]:
        """Slots for one batch: loads what is not there. At most as many adapters as there are slots."""
        held = {}
        for digest in sorted(wanted, key=lambda digest: digest not in self._slots):
            held[digest] = self._slots.get(digest) or self._load(digest, wanted[digest])
            self._slots.move_to_end(digest)
        return held

    def _load(self, digest: str, adapter: Adapter) -> Slot:
        if not self._model.slots.free:
            _, oldest = self._slots.popitem(last=False)
            self._model.unload(oldest)
            self.evictions += 1
        slot = self._model.load(adapter)
        self._slots[digest] = slot
        self.loads += 1
        return slot

    def forget(self, digest: str) -> None:
        """Free the slot of an adapter that is no longer served, if it has one."""
        slot = self._slots.pop(digest, None)
        if slot is not None:
            self._model.unload(slot)
