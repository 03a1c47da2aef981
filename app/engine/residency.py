"""Which adapters are in the device's slots: of those that nobody leases the least recently used gives way.

Those with merged weights go after the others, or they would be merged again whenever they are back; pinned ones last.
"""

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager

from app.engine.merging import Candidate
from lorat import Adapter, MultiLoRAT, Slot


class Residency:
    """Slots by digest, in the order of their last use. Safe to use from several threads."""

    def __init__(self, model: MultiLoRAT, loaded: Callable[[float], object] = lambda seconds: None) -> None:
        """`loaded` is called with the time that filling a slot took."""
        self._model = model
        self._loaded = loaded
        self._slots: OrderedDict[str, Slot] = OrderedDict()
        self._leases: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()
        self._lock = threading.RLock()
        self._pinned: Set[str] = frozenset()
        self.loads = 0
        self.evictions = 0
        self.merges = 0

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def capacity(self) -> int:
        """How many adapters the device can hold."""
        return self._model.slots.capacity

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

    @contextmanager
    def lease(self, wanted: Mapping[str, Adapter]) -> Iterator[dict[str, Slot]]:
        """Slots for one batch: loads what is not there; none of them gives way until the batch is done.

        All batches at a time may want at most as many adapters as there are slots.
        """
        with self._lock:
            present = [digest for digest in wanted if digest in self._slots]
            self._leases.update(present)  # before anything is evicted
            leased = {digest: self._use(digest) for digest in present}
            try:
                for digest in wanted.keys() - leased.keys():
                    self._make_room()
                    self._load(digest, wanted[digest])
                    self._leases[digest] += 1
                    leased[digest] = self._use(digest)
            except BaseException:
                self._release(list(leased))
                raise
        try:
            yield leased
        finally:
            with self._lock:
                self._release(list(leased))

    def _release(self, digests: Iterable[str]) -> None:
        self._leases.subtract(digests)
        self._leases += Counter()  # without those that nobody leases any more

    def _use(self, digest: str) -> Slot:
        self._slots.move_to_end(digest)
        return self._slots[digest]

    def preload(self, digest: str, content: Adapter) -> None:
        """Put an adapter into a slot, unless only pinned ones could give way to it."""
        with self._lock:
            if digest in self._slots or not self.has_room():
                return
            self._make_room()
            self._load(digest, content)

    def has_room(self) -> bool:
        """Whether a slot is free, or one that is not pinned could give way."""
        with self._lock:
            return bool(self._model.slots.free or self._may_leave() - self._pinned)

    def _may_leave(self) -> Set[str]:
        return {digest for digest in self._slots if not self._leases[digest]}

    def _make_room(self) -> None:
        """Evict what nobody leases and was used longest ago; a merged one only where all are, a pinned one likewise."""
        if self._model.slots.free:
            return
        others = [(digest, slot) for digest, slot in self._slots.items() if not self._leases[digest]]
        digest, _ = min(others, key=lambda other: (other[0] in self._pinned, bool(other[1].merged)))
        self._evict(digest)
        self.evictions += 1

    def _evict(self, digest: str) -> None:
        self._model.unload(self._slots.pop(digest))
        del self._tokens[digest]

    def _load(self, digest: str, adapter: Adapter) -> None:
        started = time.perf_counter()
        self._slots[digest] = self._model.load(adapter)
        self.loads += 1
        self._loaded(time.perf_counter() - started)

    def prefer(self, pinned: Set[str]) -> None:
        """Which give way last."""
        self._pinned = pinned

    def count(self, tokens: Mapping[str | None, int]) -> None:
        """Note the tokens that a batch had of each adapter (None: the base)."""
        with self._lock:
            for digest in self._slots.keys() & tokens.keys():
                self._tokens[digest] += tokens[digest]

    def candidates(self) -> dict[str, Candidate]:
        """What merging each resident adapter would take."""
        with self._lock:
            return {
                digest: Candidate(*self._model.merge_size(slot), self._tokens[digest])
                for digest, slot in self._slots.items()
            }

    def merged(self) -> frozenset[str]:
        """Who computes with merged weights."""
        with self._lock:
            return frozenset(digest for digest, slot in self._slots.items() if slot.merged)

    def merge(self, digest: str, merged: bool) -> None:
        """Give a resident adapter merged weights, or take them away. Others are served meanwhile."""
        with self._lock:
            slot = self._slots.get(digest)
            if slot is None or bool(slot.merged) == merged:
                return
            self._leases[digest] += 1
        try:
            if merged:
                self._model.merge(slot)
                with self._lock:
                    self.merges += 1
            else:
                self._model.unmerge(slot)
        finally:
            with self._lock:
                self._release([digest])

    def forget(self, digest: str) -> None:
        """Free the slot of an adapter, if it has one; while a batch leases it, once it gives way."""
        with self._lock:
            if digest in self._may_leave():
                self._evict(digest)
