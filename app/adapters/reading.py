"""Contents that are read though nobody asked for them: pinned adapters, and what might be damaged.

What was there at the start is read through once, one version a turn, so that damage is known before anyone asks. What
is damaged is read again now and then: another process may have been sent it anew.
"""

import logging
import threading

from app.adapters.registry import Registry
from app.engine.engine import Engine
from app.errors import DamagedError, StoreError, UnknownAdapterError
from app.store.catalog import Catalog, Version, Versions

logger = logging.getLogger("lorat")
AGAIN = 20  # turns from one look at what is damaged to the next


class Reading:
    """What is to be read. `turn` is for one thread."""

    def __init__(self, registry: Registry, engine: Engine) -> None:
        self._registry = registry
        self._engine = engine
        self._changed = threading.Event()
        self._changed.set()
        self._unread: Versions = []
        self._turns = 0

    def begin(self) -> None:
        """Load pinned adapters, and note what is missing or cut short. Raises StoreError."""
        self._load_pinned()
        self._unread = self._registry.audit()

    def changed(self) -> None:
        """Others may be pinned from now on. Any thread may say so."""
        self._changed.set()

    def turn(self) -> None:
        """Load what is pinned, and read one version. Raises StoreError where the store does not answer."""
        self._load_pinned()
        self._turns += 1
        version = self._next() or (self._damaged() if self._turns % AGAIN == 0 else None)
        if version:
            self._verify(version)

    def _verify(self, version: Version) -> None:
        try:
            self._registry.verify(version)
        except (DamagedError, UnknownAdapterError):  # it is noted, or nobody's any more
            pass
        except StoreError:
            self._unread.append(version)
            raise

    def _next(self) -> Version | None:
        while self._unread:
            version = self._unread.pop()
            if self._registry.catalog.find(version.reference) and not self._registry.at_hand(version):
                return version
        return None

    def _damaged(self) -> Version | None:
        """A version that was found to be damaged: another one each time."""
        digests = list(self._registry.damaged)
        digest = digests[self._turns // AGAIN % len(digests)] if digests else None
        return next(self._registry.catalog.having(digest), None) if digest else None

    def _load_pinned(self) -> None:
        if not self._changed.is_set():
            return
        self._changed.clear()
        try:
            for version in pinned(self._registry.catalog):
                self._preload(version)
        except BaseException:
            self._changed.set()
            raise

    def _preload(self, version: Version) -> None:
        # asked first: where more are pinned than there is room for, each change would have them read for nothing
        if self._engine.content(version.digest) or not self._engine.has_room():
            return
        try:
            content = self._registry.bind(version.reference).content
        except (DamagedError, UnknownAdapterError) as error:
            logger.warning("the pinned adapter %s is not loaded: %s", version.reference, error)
        else:
            self._engine.preload(version.digest, content).result()


def pinned(catalog: Catalog) -> Versions:
    """The newest version of each name that is pinned."""
    return [version for version in catalog.list() if catalog.settings(version.name)["pinned"]]
