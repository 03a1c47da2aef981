"""What changes the adapters: upload, rollback, settings, delete. Each is one durable entry of the log, or nothing."""

import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.adapters.preconditions import ANY, Conditions
from app.adapters.record import make_record
from app.adapters.registry import Registry
from app.adapters.upload import Unpacked, UploadLimits, unpack
from app.adapters.upload_archive import Received
from app.errors import ConflictError, InvalidRequestError, PreconditionFailedError, StoreError
from app.names import check_name, name_of, number_of
from app.observe.changes import note_change
from app.store.catalog import Catalog, Version
from app.store.content import digest_of, pack
from app.store.entries import now
from app.store.retention import end_old_versions
from lorat import Adapter

logger = logging.getLogger("lorat")


@dataclass(frozen=True)
class Uploaded:
    """What an upload came to: the version (None for a dry run), its record, whether it is new, files left out."""

    version: Version | None
    record: Mapping[str, Any]
    new: bool
    ignored: tuple[str, ...]


@dataclass(frozen=True)
class Inspected:
    """What an upload holds: its checked content, digest and record, and its files."""

    content: Adapter
    digest: str
    record: dict[str, Any]
    files: Unpacked


def inspect(received: Received, directory: Path, limits: UploadLimits, check: Callable[[Path], Adapter]) -> Inspected:
    """Unpack an upload into a directory and check it. Raises what refuses it."""
    files = unpack(received, directory, limits)
    content = check(files.directory)
    digest = digest_of({path: files.directory / path for path in files.files})
    return Inspected(content, digest, make_record(content, files.directory, files.files), files)


class Changes:
    """Writes to a registry's log. Synchronous; safe to call from any thread."""

    def __init__(
        self, registry: Registry, limits: UploadLimits, keep_versions: int | None = None, served_name: str | None = None
    ) -> None:
        """keep_versions: how many newest versions of a name an upload or a rollback leaves; None leaves all.

        served_name: what the base is called, so no adapter may be.
        """
        self._keep_versions = keep_versions
        self._served_name = served_name
        self._registry = registry
        self._log = registry.log
        self._limits = limits

    def upload(
        self,
        name: str,
        received: Received,
        conditions: Conditions = ANY,
        *,
        dry_run: bool = False,
    ) -> Uploaded:
        """Check an upload and make it the newest version of `name`.

        When it returns, the version is durable; when it raises, nothing has changed.
        """
        if check_name(name) == self._served_name:
            raise InvalidRequestError(f"{name!r} is what this server calls the base: call the adapter something else")
        directory = Path(tempfile.mkdtemp(prefix="lorat-"))
        try:
            found = inspect(received, directory / "files", self._limits, self._registry.check)
            files = found.files
            if dry_run:
                self._log.refresh()  # as committing would
                conditions.would_write(self._log.catalog.newest(name), found.digest)
                return Uploaded(None, found.record, False, files.ignored)
            pack(files.directory, files.files, directory / "content.zip")
            version, new = self._commit(name, found.digest, found.record, conditions, directory / "content.zip")
        finally:
            shutil.rmtree(directory)
        self._registry.keep(found.digest, found.content)
        self._end_old_versions(name)
        return Uploaded(version, version.record, new, files.ignored)

    def _end_old_versions(self, name: str) -> None:
        """Retention. The new version stands whatever becomes of it: what is left over ends with the next one."""
        if self._keep_versions is None:
            return
        try:
            end_old_versions(self._log, name, self._keep_versions)
        except StoreError as error:
            logger.warning("old versions of %s could not be ended: %s", name, error)

    def rollback(self, name: str, number: int, conditions: Conditions = ANY) -> tuple[Version, bool]:
        """Make an old version's content the newest again: the version that `name` now means, and whether it is new.

        Raises UnknownAdapterError, PreconditionFailedError; DamagedError for content that could not be served.
        """
        check_name(name)
        version = self._registry.bind(f"{name}@{number}").version
        conditions = replace(conditions, replace=True)  # its content is other than the newest's
        done = self._commit(name, version.digest, version.record, conditions, old=version)
        self._end_old_versions(name)
        return done

    def _commit(
        self,
        name: str,
        digest: str,
        record: Mapping[str, Any],
        conditions: Conditions,
        content: Path | None = None,
        old: Version | None = None,
    ) -> tuple[Version, bool]:
        """The version now in the log, and whether it was made here: the append decides between racing ones."""
        decided: Version | None = None
        before: Version | None = None
        kept = self._put(name, digest, conditions, content) if content else 0

        def decide(catalog: Catalog) -> dict[str, Any] | None:
            nonlocal decided, before, kept
            if old:
                catalog.resolve(old.reference)  # once it is deleted, its content may be collected
            write = conditions.would_write(catalog.newest(name), digest)
            if content and catalog.generation(digest) != kept:  # it was collected since
                kept = self._log.store.put_content(digest, content)
            if not write:
                decided = catalog.newest(name)
                return None
            before = catalog.newest(name)
            decided = Version(name, catalog.next_version(name), digest, now(), record)
            return {"op": "upload", "name": name, "digest": digest, "created": decided.created, "record": dict(record)}

        new = self._log.commit(decide) is not None
        assert decided is not None
        if new and old:
            note_change("rolled back", decided, to=old.reference)
        elif new:
            note_change("replaced" if before else "uploaded", decided)
        return decided, new

    def _put(self, name: str, digest: str, conditions: Conditions, content: Path) -> int:
        """Keep an upload's content before the commit, which others wait for; its generation.

        Also when there is nothing new: it mends a damaged one. Who is refused leaves nothing, but mends an older
        version of the name that has this content.
        """
        self._log.refresh()
        try:
            conditions.would_write(self._log.catalog.newest(name), digest)
        except (ConflictError, PreconditionFailedError) as error:
            mended = self._mend(name, digest, content)
            if mended is None:
                raise
            raise type(error)(f"{error}. The content of {mended.reference} was damaged and is whole again") from error
        return self._log.store.put_content(digest, content)

    def _mend(self, name: str, digest: str, content: Path) -> Version | None:
        """Keep the content of a name's version anew; the version, or None where there is none or nothing to mend."""
        version = next((v for v in self._log.catalog.versions(name) if v.digest == digest), None)
        if version is None or self._log.store.has_content(digest, content):
            return None
        self._log.store.put_content(digest, content)
        self._registry.mended(digest)
        return version

    def configure(self, name: str, changes: Mapping[str, Any], conditions: Conditions = ANY) -> Version:
        """Set some settings of a name; its newest version.

        Raises UnknownAdapterError, PreconditionFailedError, InvalidRequestError for one version's name.
        """
        if number_of(name) is not None:
            raise InvalidRequestError(f"settings belong to a name, not to one version: use {name_of(name)!r}")
        found: Version | None = None

        def decide(catalog: Catalog) -> dict[str, Any] | None:
            nonlocal found
            found = catalog.resolve(name)
            conditions.check_unchanged(found)
            settings = {**catalog.settings(name), **changes}
            if settings == dict(catalog.settings(name)):
                return None
            return {"op": "settings", "name": name, "settings": settings, "created": now()}

        changed = self._log.commit(decide) is not None
        assert found is not None
        if changed:
            note_change("configured", found, **changes)
        return found

    def delete(self, reference: str, conditions: Conditions = ANY) -> None:
        """End a name (`x`) or one version of it (`x@2`); requests already bound finish.

        Raises UnknownAdapterError, PreconditionFailedError.
        """
        whole = number_of(reference) is None
        found: Version | None = None

        def decide(catalog: Catalog) -> dict[str, Any]:
            nonlocal found
            found = catalog.resolve(reference)
            conditions.check_unchanged(found)
            version = None if whole else found.version
            return {"op": "delete", "name": found.name, "version": version, "created": now()}

        self._log.commit(decide)
        assert found is not None
        note_change("deleted", found, versions="all" if whole else "one")
