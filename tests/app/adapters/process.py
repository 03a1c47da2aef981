"""A process that shares a store, as far as its adapters go: no base, and slots that are a dictionary."""

from collections.abc import Set
from concurrent.futures import Future
from pathlib import Path

import torch

from app.adapters.changes import Changes
from app.adapters.follow import Follower
from app.adapters.registry import Registry
from app.adapters.upload import UploadLimits
from app.adapters.usage import Usage
from app.observe.adapter_counts import AdapterCounts
from app.store.adapter_log import AdapterLog
from app.store.store import Store
from lorat import Adapter
from lorat.adapter import LoRA
from lorat.targets import Site
from tests.app.stores import FILES


class Slots:
    """As much of the engine as adapters need."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._held: dict[str, Adapter] = {}
        self.pinned: Set[str] = frozenset()

    def content(self, digest: str) -> Adapter | None:
        return self._held.get(digest)

    def digests(self) -> list[str]:
        return [*self._held]

    def forget(self, digest: str) -> None:
        self._held.pop(digest, None)

    def prefer(self, pinned: Set[str], merged: Set[str], unmerged: Set[str] = frozenset()) -> None:
        self.pinned = pinned

    def has_room(self) -> bool:
        return len(self._held) < self._capacity

    def preload(self, digest: str, content: Adapter) -> "Future[None]":
        if self.has_room():
            self._held[digest] = content
        done: Future[None] = Future()
        done.set_result(None)
        return done


class Process:
    """Its parts, opened on a store. What it reads is counted in `read`, by digest."""

    def __init__(self, store: Path, slots: int = 4, keep_versions: int | None = None) -> None:
        self.log = AdapterLog(Store.open(str(store)))
        self.slots = Slots(slots)
        self.read: list[str] = []
        self.registry = Registry(self.log, lambda directory: content(), self.slots, cache_bytes=1)
        get = self.log.store.get_content

        def counted(digest: str, directory: Path) -> Path:
            self.read.append(digest)
            return get(digest, directory)

        self.log.store.get_content = counted  # type: ignore[method-assign]
        self.changes = Changes(self.registry, UploadLimits(), keep_versions)
        self.follower = Follower(self.registry, self.slots, Usage(), AdapterCounts(10), interval=3600)  # type: ignore[arg-type]


def content() -> Adapter:
    lora = LoRA(torch.zeros(1, 8), torch.zeros(8, 1), 1.0)
    return Adapter("embedding", {Site(0, "query"): lora}, rank=1, alpha=1)


def files(directory: Path, tag: str) -> list[tuple[str, Path]]:
    """An upload; another tag makes it another content."""
    made = []
    for path, data in FILES.items():
        target = directory / f"files-{tag}" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data + tag.encode() if path.endswith("safetensors") else data)
        made.append((path, target))
    return made
