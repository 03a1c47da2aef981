"""Adapter contents in the host's memory: the least recently used give way, and each is read once at a time."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from app.daemons import Daemons
from lorat import Adapter

READERS = 4
_STOP_SECONDS = 2.0


class HostCache:
    """Contents by digest, up to a number of bytes. Safe to use from any thread."""

    def __init__(
        self, limit: int, read: Callable[[str], Adapter], loaded: Callable[[float], object] = lambda seconds: None
    ) -> None:
        """`limit`: bytes of tensors (the newest content stays, however large); `read` brings what is not here.

        `loaded` is called with the time that bringing one took.
        """
        self._limit = limit
        self._read = read
        self._loaded = loaded
        self._contents: OrderedDict[str, Adapter] = OrderedDict()
        self._loading: dict[str, Future[Adapter]] = {}
        self._lock = threading.Lock()
        self._readers = Daemons(READERS, "cold")
        self.bytes = 0
        self.evictions = 0

    def get(self, digest: str) -> Adapter | None:
        """A content that is here."""
        with self._lock:
            return self._touch(digest)

    def load(self, digest: str) -> "Future[Adapter]":
        """A content, read if it is not here. All who ask meanwhile share one reading: do not cancel it."""
        with self._lock:
            content = self._touch(digest)
            if content is not None:
                done: Future[Adapter] = Future()
                done.set_result(content)
                return done
            loading = self._loading.get(digest)
            if loading is None:
                loading = self._loading[digest] = self._readers.submit(partial(self._load, digest))
            return loading

    def put(self, digest: str, content: Adapter) -> None:
        """Keep a content; what was used longest ago leaves until the limit holds."""
        with self._lock:
            self._remove(digest)
            self._contents[digest] = content
            self.bytes += content_bytes(content)
            while self.bytes > self._limit and len(self._contents) > 1:
                self._remove(next(iter(self._contents)))
                self.evictions += 1

    def drop(self, digest: str) -> None:
        """Let go of a content, if it is here."""
        with self._lock:
            self._remove(digest)

    def __len__(self) -> int:
        return len(self._contents)

    def __contains__(self, digest: str) -> bool:
        return digest in self._contents

    def digests(self) -> list[str]:
        """What is here."""
        with self._lock:
            return list(self._contents)

    def close(self) -> None:
        """Begin no more readings. One that does not come back is left behind."""
        self._readers.close(_STOP_SECONDS)

    def _load(self, digest: str) -> Adapter:
        started = time.perf_counter()
        try:
            content = self._read(digest)
            self.put(digest, content)
        finally:
            with self._lock:
                del self._loading[digest]
        self._loaded(time.perf_counter() - started)
        return content

    def _touch(self, digest: str) -> Adapter | None:
        content = self._contents.get(digest)
        if content is not None:
            self._contents.move_to_end(digest)
        return content

    def _remove(self, digest: str) -> None:
        content = self._contents.pop(digest, None)
        if content is not None:
            self.bytes -= content_bytes(content)


def content_bytes(adapter: Adapter) -> int:
    """Bytes of an adapter's tensors."""
    return sum(tensor.nbytes for tensor in adapter.tensors())
