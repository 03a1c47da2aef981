"""The catalog and the log it is folded from, kept in step: every change of the adapters goes through here."""

import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from app.daemons import Shared
from app.errors import StoreError
from app.store.catalog import Catalog
from app.store.entries import check_entry
from app.store.store import SequenceTakenError, Store

logger = logging.getLogger("lorat")
SNAPSHOT_EVERY = 1000  # entries; as many are read one by one at a start
Decide = Callable[[Catalog], Mapping[str, Any] | None]


class AdapterLog:
    """A store, the catalog folded from its log, and the last sequence that is in it.

    Everything here is synchronous and may be called from any thread. `catalog` may be read at any time, also while
    another thread refreshes or commits.
    """

    def __init__(self, store: Store) -> None:
        """Read the store's log, from its newest snapshot on. Errors: `StoreError`."""
        self.store = store
        self._sequence, self.catalog = _start(store)
        self._snapshot = self._sequence
        store.generation_of = self.catalog.generation
        self._lock = threading.Lock()  # over applying, and over a commit from its decision on
        self._looks = Shared(self._look, "log")
        self.refresh()

    @property
    def sequence(self) -> int:
        """The last log entry that the catalog has; 0 for an empty log."""
        return self._sequence

    def refresh(self) -> int:
        """Apply what other processes appended until now; how many entries that was. Errors: `StoreError`."""
        return self.look().result()

    def look(self) -> "Future[int]":
        """As `refresh`, for who does not want to wait in a thread. Whoever asks meanwhile shares one look."""
        return self._looks.ask()

    def commit(self, decide: Decide) -> Mapping[str, Any] | None:
        """Append what `decide` makes of the newest catalog; return it, or None when it asked for nothing.

        `decide` is called again whenever another process was first, so what it does must bear repeating (putting the
        content does); it must not call back into this object, and others wait while it runs. What it raises ends the
        commit with nothing appended. When this returns an entry, the entry is durable and applied. Errors: its own,
        and `StoreError`.
        """
        self.refresh()
        with self._lock:
            while True:
                entry = decide(self.catalog)
                if entry is None:
                    return None
                entry = _plain(entry)
                check_entry(entry)
                try:
                    sequence = self.store.append(self._sequence, entry)
                except SequenceTakenError:
                    self._follow()
                    continue
                self.catalog.apply(entry)
                self._sequence = sequence  # last: who sees it may count on the catalog
                return entry

    def _look(self) -> int:
        entries = self.store.read(self._sequence)  # not under the lock: nobody waits for the store with us
        with self._lock:
            applied = self._apply(entries)
        if self._sequence - self._snapshot >= SNAPSHOT_EVERY:
            self._keep_snapshot()
        return applied

    def _apply(self, entries: Sequence[tuple[int, Mapping[str, Any]]]) -> int:
        """Apply what follows; a commit may have applied some since they were read. How many that was."""
        new = [(sequence, entry) for sequence, entry in entries if sequence > self._sequence]
        for sequence, entry in new:
            self.catalog.apply(entry)
            self._sequence = sequence
        return len(new)

    def _keep_snapshot(self) -> None:
        """Have the next start read less, unless another process saw to it. That it fails harms nothing."""
        try:
            self._snapshot = self.store.snapshots.last_sequence()
            with self._lock:
                sequence, state = self._sequence, self.catalog.state()
            if sequence - self._snapshot >= SNAPSHOT_EVERY:
                self.store.snapshots.put(sequence, state)
        except StoreError as error:
            logger.warning("no snapshot was kept: %s", error)
        self._snapshot = self._sequence

    def _follow(self) -> None:
        """Read what took our sequence. A store that shows nothing there would have us try for ever."""
        if self._apply(self.store.read(self._sequence)) == 0:
            raise StoreError(
                f"log entry {self._sequence + 1} of {self.store.location} can neither be created nor read: "
                "the store does not show its own writes"
            )


def _start(store: Store) -> tuple[int, Catalog]:
    snapshot = store.snapshots.newest()
    return (snapshot[0], Catalog.restore(snapshot[1])) if snapshot else (0, Catalog())


def _plain(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry as every other process will read it."""
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(entry), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise StoreError(f"a log entry cannot be written as JSON: {error}") from error
    return plain
