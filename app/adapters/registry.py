"""Adapters by name: name → version → content, bound once per request.

The store's log says which version a name means; contents are read from the store once and kept in the host
cache. Everything here is safe to call from any thread.
"""

import logging
import tempfile
from collections.abc import Callable, Iterator, Set
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from obstore.exceptions import BaseError

from app.adapters.host_cache import HostCache
from app.adapters.record import show
from app.errors import DamagedError, StoreError, UnknownAdapterError
from app.store.adapter_log import AdapterLog
from app.store.catalog import Catalog, Version
from app.store.content import pack
from app.store.store import MissingContentError, StoreGoneError
from lorat import Adapter
from lorat.errors import AdapterError

logger = logging.getLogger("lorat")


@dataclass(frozen=True)
class Bound:
    """An adapter version that a request will be computed with, whatever happens to its name meanwhile."""

    version: Version
    content: Adapter


class Device(Protocol):
    """What holds contents in slots: the engine."""

    def content(self, digest: str) -> Adapter | None:
        """The content of a slot, if one holds it."""

    def digests(self) -> list[str]:
        """What the slots hold."""

    def forget(self, digest: str) -> None:
        """Free the slot of a content that is no longer served."""


class Registry:
    """The adapters of one store, checked against one base."""

    def __init__(
        self,
        log: AdapterLog,
        check: Callable[[Path], Adapter],
        device: Device,
        *,
        cache_bytes: int,
        loaded: Callable[[float], object] = lambda seconds: None,
    ) -> None:
        """`check` reads an adapter's directory, or raises an AdapterError.

        `loaded` is called with the time that bringing a content into the host cache took.
        """
        self.log = log
        self.check = check
        self.cache = HostCache(cache_bytes, self._read, loaded)
        self.damaged: dict[str, str] = {}
        """Why a content cannot be served, by its digest."""
        self._device = device

    @property
    def catalog(self) -> Catalog:
        """What the log said last."""
        return self.log.catalog

    def bind(self, reference: str) -> Bound:
        """The adapter that `x` or `x@2` means, read from the store if need be.

        Raises UnknownAdapterError, after one more look at the log; DamagedError, StoreError.
        """
        version = self.resolve(reference)
        with self.naming(version):
            return Bound(version, self.at_hand(version) or self.load(version).result())

    def resolve(self, reference: str) -> Version:
        """The version that `x` or `x@2` means. Raises UnknownAdapterError, after one more look at the log."""
        try:
            return self.catalog.resolve(reference)
        except UnknownAdapterError:
            self.log.refresh()
            return self.catalog.resolve(reference)

    def at_hand(self, version: Version) -> Adapter | None:
        """A version's content, if it is in a slot or in the host cache: never waits for the store."""
        return self.cache.get(version.digest) or self._device.content(version.digest)

    def load(self, version: Version) -> "Future[Adapter]":
        """A version's content, read from the store once for all who ask. Wait for it inside `naming`."""
        return self.cache.load(version.digest)

    @contextmanager
    def naming(self, version: Version) -> Iterator[None]:
        """Turn what stops a version's content from being read into an error that names the version.

        Raises DamagedError; StoreError where the store does not answer; UnknownAdapterError where it was deleted.
        """
        try:
            yield
        except (StoreError, AdapterError) as error:
            if _is_outage(error):
                raise StoreError(f"adapter {version.reference!r} cannot be read now: {error}") from error
            if self.catalog.find(version.reference) is None:
                raise UnknownAdapterError(f"adapter {version.reference!r} was deleted") from error
            self._note_damage(version, str(error))
            raise DamagedError(f"adapter {version.reference!r} is damaged: {error}") from error

    def keep(self, digest: str, content: Adapter) -> None:
        """Have a content at hand that was just checked and stored."""
        self.mended(digest)
        self.cache.put(digest, content)

    def mended(self, digest: str) -> None:
        """A content was stored anew: it is not damaged any more."""
        self.damaged.pop(digest, None)

    def _note_damage(self, version: Version, reason: str) -> None:
        if version.digest not in self.damaged:
            logger.error("adapter %s is damaged and not served: %s", version.reference, reason)
        self.damaged[version.digest] = reason

    def audit(self) -> list[Version]:
        """Note each version whose content is missing or cut short, from one listing of the store; the others.

        Raises StoreError.
        """
        versions = [version for newest in self.catalog.list() for version in self.catalog.versions(newest.name)]
        places = [(version.digest, self.catalog.generation(version.digest)) for version in versions]
        sizes = {(stored.digest, stored.generation): stored.size for stored in self.log.store.contents()}
        faults = [_fault(version, sizes.get(place)) for version, place in zip(versions, places, strict=True)]
        if any(faults):
            self.log.refresh()  # what was deleted since lacks nothing, and what is there nobody collects
        whole = []
        for version, fault in zip(versions, faults, strict=True):
            if self.catalog.find(version.reference) is None:
                continue
            if fault:
                self._note_damage(version, fault)
            else:
                whole.append(version)
        return whole

    def verify(self, version: Version) -> None:
        """Read a version as if it were asked for, and let it go. Raises DamagedError, StoreError."""
        with self.naming(version):
            self._read(version.digest)

    def _read(self, digest: str) -> Adapter:
        with tempfile.TemporaryDirectory(prefix="lorat-") as directory:
            content = self.check(self._fetch(digest, Path(directory)))
        self.damaged.pop(digest, None)
        return content

    def _fetch(self, digest: str, directory: Path) -> Path:
        """A content's files. One that is missing may have been collected, and kept anew, since this process looked."""
        while True:
            generation = self.catalog.generation(digest)
            try:
                return self.log.store.get_content(digest, directory)
            except MissingContentError:
                self.log.refresh()
                if self.catalog.generation(digest) == generation:  # whoever has read the log since: it is the same
                    raise

    def show(self, version: Version) -> dict[str, Any]:
        """A version's record, as `/adapters` answers it."""
        return show(version, self.catalog.settings(version.name), self.damaged.get(version.digest))

    def export(self, version: Version) -> IO[bytes]:
        """A version's content as an open .zip, verified; its file is gone once it is closed.

        Raises DamagedError, StoreError.
        """
        with tempfile.TemporaryDirectory(prefix="lorat-") as directory, self.naming(version):
            files = self._fetch(version.digest, Path(directory) / "files")
            paths = [path.relative_to(files).as_posix() for path in files.rglob("*") if path.is_file()]
            packed = Path(directory) / "content.zip"
            pack(files, paths, packed)
            return packed.open("rb")

    def sweep(self, named: Set[str]) -> None:
        """Let go of every content that is not `named` any more. Who is bound to one keeps it."""
        for digest in set(self.cache.digests()) - named:
            self.cache.drop(digest)
        for digest in set(self._device.digests()) - named:
            self._device.forget(digest)
        for digest in set(self.damaged) - named:
            self.damaged.pop(digest, None)

    def close(self) -> None:
        """Begin no more readings."""
        self.cache.close()


def _fault(version: Version, size: int | None) -> str | None:
    """What is wrong with a version whose content has so many bytes in the store: None for one that is not there."""
    if size is None:
        return f"content {version.digest} is missing: upload it again"
    if size < version.record.get("bytes", 0):  # packed, files are not compressed
        return f"content {version.digest} is cut short: upload it again"
    return None


def _is_outage(error: Exception) -> bool:
    """Whether the store failed to answer, or is not there, which says nothing about the content."""
    cause = error.__cause__
    failed = isinstance(cause, (BaseError, OSError)) and not isinstance(cause, FileNotFoundError)
    return failed or isinstance(error, StoreGoneError)
