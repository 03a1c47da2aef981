"""Adapters by name: name → version → content, bound once per request.

The store's log says which version a name means; contents are read from the store once and kept in a host
cache, least recently used out first. Everything here is synchronous and safe to call from any thread.
"""

import shutil
import tempfile
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.adapter_log import AdapterLog
from app.catalog import Catalog, Version, check_name, check_preconditions
from app.content import digest_of, pack
from app.errors import UnknownAdapterError
from app.record import make_record
from app.upload import UploadLimits, unpack
from lorat import Adapter, read_adapter
from lorat.targets import BaseShape


@dataclass(frozen=True)
class Bound:
    """An adapter version that a request will be computed with, whatever happens to its name meanwhile."""

    version: Version
    content: Adapter


@dataclass(frozen=True)
class Conditions:
    """What an upload says of the version that is there: HTTP's preconditions, and `?replace=true`."""

    if_match: str | None = None
    if_none_match: str | None = None
    replace: bool = False


@dataclass(frozen=True)
class Uploaded:
    """What an upload came to: the version (None for a dry run), its record, whether it is new, files left out."""

    version: Version | None
    record: Mapping[str, Any]
    new: bool
    ignored: tuple[str, ...]


class Registry:
    """The adapters of one store, checked against one base."""

    def __init__(
        self,
        log: AdapterLog,
        base: BaseShape,
        *,
        max_rank: int,
        limits: UploadLimits,
        cache_bytes: int,
        on_gone: Callable[[str], None] = lambda digest: None,
    ) -> None:
        """`on_gone` is told the digest of content that no name means any more."""
        self.log = log
        self._base = base
        self._max_rank = max_rank
        self._limits = limits
        self._cache_bytes = cache_bytes
        self._on_gone = on_gone
        self._cache: OrderedDict[str, Adapter] = OrderedDict()
        self._lock = threading.Lock()
        self._loading: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    @property
    def catalog(self) -> Catalog:
        """What the log said last."""
        return self.log.catalog

    def cached(self, reference: str) -> Bound | None:
        """The adapter that `x` or `x@2` means, if its content is at hand: never blocks on the store."""
        version = self.catalog.find(reference)
        content = version and self._from_cache(version.digest)
        return Bound(version, content) if version and content else None

    def bind(self, reference: str) -> Bound:
        """The adapter that `x` or `x@2` means, read from the store if need be.

        Raises UnknownAdapterError, after one more look at the log; StoreError for damaged content.
        """
        version = self.resolve(reference)
        return Bound(version, self._content(version.digest))

    def resolve(self, reference: str) -> Version:
        """The version that `x` or `x@2` means. Raises UnknownAdapterError, after one more look at the log."""
        try:
            return self.catalog.resolve(reference)
        except UnknownAdapterError:
            self.log.refresh()
            return self.catalog.resolve(reference)

    def _content(self, digest: str) -> Adapter:
        """One thread reads an adapter that is not cached; the others wait for it."""
        with self._loading[digest]:
            content = self._from_cache(digest)
            if content is None:
                content = self._read(digest)
                self._to_cache(digest, content)
        self._loading.pop(digest, None)
        return content

    def _read(self, digest: str) -> Adapter:
        with tempfile.TemporaryDirectory(prefix="lorat-") as directory:
            self.log.store.get_content(digest, Path(directory))
            return self._check(Path(directory))

    def _check(self, directory: Path) -> Adapter:
        return read_adapter(directory, self._base, max_rank=self._max_rank)

    def _from_cache(self, digest: str) -> Adapter | None:
        with self._lock:
            content = self._cache.get(digest)
            if content is not None:
                self._cache.move_to_end(digest)
            return content

    def _to_cache(self, digest: str, content: Adapter) -> None:
        with self._lock:
            self._cache[digest] = content
            total = sum(_bytes(adapter) for adapter in self._cache.values())
            while total > self._cache_bytes and len(self._cache) > 1:
                total -= _bytes(self._cache.popitem(last=False)[1])

    def upload(
        self,
        name: str,
        received: Sequence[tuple[str, Path]],
        conditions: Conditions = Conditions(),
        *,
        dry_run: bool = False,
    ) -> Uploaded:
        """Check an upload and make it the newest version of `name`.

        received: (file name, file). When it returns, the version is durable; when it raises, nothing has
        changed.
        """
        check_name(name)
        directory = Path(tempfile.mkdtemp(prefix="lorat-"))
        try:
            files = unpack(received, directory / "files", self._limits)
            content = self._check(files.directory)
            digest = digest_of({path: files.directory / path for path in files.files})
            record = make_record(content, files.directory, files.files)
            if dry_run:
                self._would_write(self.catalog, name, digest, conditions)
                return Uploaded(None, record, False, files.ignored)
            pack(files.directory, files.files, directory / "content.zip")
            version, new = self._commit(name, digest, record, directory / "content.zip", conditions)
        finally:
            shutil.rmtree(directory)
        self._to_cache(digest, content)
        return Uploaded(version, version.record, new, files.ignored)

    def _would_write(self, catalog: Catalog, name: str, digest: str, conditions: Conditions) -> bool:
        return check_preconditions(
            catalog.newest(name),
            digest,
            if_match=conditions.if_match,
            if_none_match=conditions.if_none_match,
            replace=conditions.replace,
        )

    def _commit(
        self, name: str, digest: str, record: dict[str, Any], content: Path, conditions: Conditions
    ) -> tuple[Version, bool]:
        """The version now in the log, and whether this upload made it: the append decides between racing ones."""
        decided: Version | None = None

        def decide(catalog: Catalog) -> dict[str, Any] | None:
            nonlocal decided
            if not self._would_write(catalog, name, digest, conditions):
                decided = catalog.newest(name)
                return None
            self.log.store.put_content(digest, content)
            decided = Version(name, catalog.next_version(name), digest, _now(), record)
            return {"op": "upload", "name": name, "digest": digest, "created": decided.created, "record": record}

        new = self.log.commit(decide) is not None
        assert decided is not None
        return decided, new

    def delete(self, reference: str, if_match: str | None = None) -> None:
        """End a name (`x`) or one version of it (`x@2`); requests already bound finish.

        Raises UnknownAdapterError, PreconditionFailedError.
        """
        gone: set[str] = set()

        def decide(catalog: Catalog) -> dict[str, Any]:
            version = catalog.resolve(reference)
            check_preconditions(version, "", if_match=if_match, if_none_match=None, replace=True)
            whole = "@" not in reference
            gone.update({v.digest for v in catalog.versions(version.name)} if whole else {version.digest})
            number = None if whole else version.version
            return {"op": "delete", "name": version.name, "version": number, "created": _now()}

        self.log.commit(decide)
        for digest in gone - self.catalog.digests():
            with self._lock:
                self._cache.pop(digest, None)
            self._on_gone(digest)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _bytes(adapter: Adapter) -> int:
    return sum(tensor.nbytes for tensor in adapter.tensors())
