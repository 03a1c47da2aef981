"""Keeps this process in step with the store: a thread that follows the log and settles what it changed.

Other processes' uploads, rollbacks and deletes are applied; contents that nobody names any more leave the cache and
the slots; pinned adapters are loaded; what was there at the start is read through once, one version at each look, so
that damage is known before anyone asks. A store that does not answer is asked again: nothing here stops the server.
"""

import logging
import threading
from contextlib import suppress

from app.adapters.registry import Registry
from app.adapters.usage import Usage
from app.engine.engine import Engine
from app.errors import DamagedError, UnknownAdapterError
from app.observe.adapter_counts import AdapterCounts
from app.store.catalog import Version

logger = logging.getLogger("lorat")
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
        self._interval = interval
        self._settled = -1
        self._named: set[str] = set()
        self._unread: list[Version] = []
        self._failing = False
        self._open = True
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follower", daemon=True)

    def start(self) -> None:
        """Look once, so that damage is noted and pinned adapters are loaded; then begin to follow.

        Raises StoreError.
        """
        self.tick()
        self._unread = self._registry.audit()
        self._thread.start()

    def wake(self) -> None:
        """Look at once: something has just changed."""
        self._wake.set()

    def close(self) -> None:
        """Stop. A call to the store that does not come back is left behind."""
        self._open = False
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)

    def _follow(self) -> None:
        while self._open:
            self._wake.wait(self._interval)
            self._wake.clear()
            if not self._open:
                return
            try:
                self.tick()
            except Exception as error:
                if not self._failing:
                    logger.warning("cannot follow the store, trying again every %g s: %s", self._interval, error)
                self._failing = True
            else:
                if self._failing:
                    logger.warning("the store answers again")
                self._failing = False

    def tick(self) -> None:
        """Look once. Raises StoreError."""
        log = self._registry.log
        applied = log.sequence  # up to here; what is committed meanwhile may be settled now, and is settled next time
        if log.refresh() or applied != self._settled:
            self._settle()
            self._settled = applied
        # Each time: a request that was bound before its adapter was deleted may have loaded it since.
        self._registry.sweep(self._named)
        self._read_one()

    def _read_one(self) -> None:
        while self._unread:
            version = self._unread[-1]
            if version.digest in self._named and not self._registry.at_hand(version):
                with suppress(DamagedError):  # it is noted
                    self._registry.verify(version)
                self._unread.pop()
                return
            self._unread.pop()

    def _settle(self) -> None:
        catalog = self._registry.catalog
        self._named = catalog.digests()
        for kept in (self._usage, self._counts):
            kept.keep(lambda reference: catalog.find(reference) is not None)
        set_up = [(version, catalog.settings(version.name)) for version in catalog.list()]
        pinned = [version for version, settings in set_up if settings["pinned"]]
        always, never = (
            {version.digest for version, settings in set_up if settings["merge"] == merge}
            for merge in ("always", "never")
        )
        self._engine.prefer({version.digest for version in pinned}, always, never)
        for version in pinned:
            self._preload(version)

    def _preload(self, version: Version) -> None:
        if self._engine.content(version.digest):
            return
        try:
            content = self._registry.bind(version.reference).content
        except (DamagedError, UnknownAdapterError) as error:
            logger.warning("the pinned adapter %s is not loaded: %s", version.reference, error)
        else:
            self._engine.preload(version.digest, content).result()
