"""Keeps this process in step with the store: a thread that follows the log and settles what it changed.

Other processes' uploads, rollbacks and deletes are applied; contents that nobody names any more leave the cache and
the slots. Reading contents takes as long as it takes, so another thread does that (reading.py). A store that does not
answer is asked again: nothing here stops the server.
"""

import time

from app.adapters.reading import Reading, pinned
from app.adapters.registry import Registry
from app.adapters.repeated import Repeated
from app.adapters.usage import Usage
from app.engine.engine import Engine
from app.observe.adapter_counts import AdapterCounts

_STOP_SECONDS = 5.0


class Follower:
    """Follows the log until it is closed."""

    def __init__(
        self, registry: Registry, engine: Engine, usage: Usage, counts: AdapterCounts, interval: float
    ) -> None:
        """`interval`: seconds between two looks at the store."""
        self._registry = registry
        self._engine = engine
        self._usage = usage
        self._counts = counts
        self._settled = -1
        self._named: set[str] = set()
        self.reading = Reading(registry, engine)
        self._following = Repeated(self.tick, "follower", "follow the store", interval)
        self._reader = Repeated(self.reading.turn, "reader", "read from the store", interval)

    def start(self) -> None:
        """Look once, so that damage is noted and pinned adapters are loaded; then begin to follow.

        Raises StoreError.
        """
        self.tick()
        self.reading.begin()
        self._following.start()
        self._reader.start()

    def wake(self) -> None:
        """Look at once: something has just changed."""
        self._following.wake()

    def close(self) -> None:
        """Stop. A call to the store that does not come back is left behind."""
        threads = (self._following, self._reader)
        for thread in threads:
            thread.stop()
        end = time.monotonic() + _STOP_SECONDS
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))

    def tick(self) -> None:
        """Look once. Raises StoreError."""
        log = self._registry.log
        log.refresh()
        sequence = log.sequence  # what is committed from here on may be settled now, and is settled next time
        if sequence != self._settled:
            self._settle()
            self._settled = sequence
        # Each time: a request that was bound before its adapter was deleted may have loaded it since.
        self._registry.sweep(self._named)

    def _settle(self) -> None:
        catalog = self._registry.catalog
        self._named = catalog.digests()
        for kept in (self._usage, self._counts):
            kept.keep(lambda reference: catalog.find(reference) is not None)
        always, never = (
            {version.digest for version in catalog.list() if catalog.settings(version.name)["merge"] == merge}
            for merge in ("always", "never")
        )
        self._engine.prefer({version.digest for version in pinned(catalog)}, always, never)
        self.reading.changed()
        self._reader.wake()
