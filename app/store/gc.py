"""Garbage collection: contents that no version means any more, and versions that retention ends.

**Why it is safe while others upload.** An upload may find its content in the store and be about to append its entry
while a collection elsewhere has judged the same content to be garbage. No clock and no lock decides between them;
the log does. A collection first appends a "collect" entry for what it found, and deletes only what such an entry
names. The entry raises the content's generation in every catalog, and the generation is part of the object's key:

- An upload that decided before the entry cannot append behind it without reading it, for both need the same sequence.
  It decides again, finds another generation than it put its content for, and puts it under the new one's key.
- The collection deletes keys of older generations only, however late it comes to it, and no catalog points there.
- What a version means when the entry is appended is not in the entry, for the decision is taken with the newest log.

A collection that was killed after its entry leaves garbage of an old generation, which the next one deletes.

The age is not what makes uploads safe. It is for readers: a process that follows the log a second behind, or was cut
off from it for hours, still finds the content of a version that it does not know to be deleted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from app.errors import InvalidRequestError
from app.store.adapter_log import AdapterLog
from app.store.catalog import Catalog
from app.store.entries import now
from app.store.retention import end_old_versions
from app.store.store import StoredContent

DAY_SECONDS = 86400.0


@dataclass(frozen=True)
class Collected:
    """What a collection came to."""

    contents_removed: int
    bytes_freed: int
    versions_ended: int


def collect(log: AdapterLog, *, older_than_seconds: float = DAY_SECONDS, keep_versions: int | None = None) -> Collected:
    """Delete the contents that no version means; may run beside anything else.

    older_than_seconds: spare what was written, or lost its last version, less than that ago.
    keep_versions: first end every version but so many newest ones of each name; None ends none.
    Raises `InvalidRequestError` for less than 1, `StoreError` when the store fails; run it again then.
    """
    if keep_versions is not None and keep_versions < 1:
        raise InvalidRequestError(f"keep_versions is {keep_versions}: at least the newest version is kept, 1")
    log.refresh()
    ended = sum(end_old_versions(log, name, keep_versions) for name in _names(log)) if keep_versions else 0
    oldest = datetime.now(UTC) - timedelta(seconds=older_than_seconds)
    old = [
        content
        for content in log.store.contents()
        if content.modified <= oldest and _ended(log.catalog, content.digest) <= oldest
    ]
    _give_up(log, old)
    garbage = [content for content in old if content.generation < log.catalog.generation(content.digest)]
    log.store.remove_contents(garbage)
    return Collected(len(garbage), sum(content.size for content in garbage), ended)


def _names(log: AdapterLog) -> list[str]:
    return [version.name for version in log.catalog.list()]


def _ended(catalog: Catalog, digest: str) -> datetime:
    """When a content lost its last version; long ago where that is not known."""
    try:
        return datetime.fromisoformat(catalog.ended(digest) or "").astimezone(UTC)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)


def _give_up(log: AdapterLog, contents: Sequence[StoredContent]) -> None:
    """Append which of these contents no version means: from then on they may be deleted."""

    def decide(catalog: Catalog) -> dict[str, Any] | None:
        needed = catalog.digests()
        current = {c.digest for c in contents if c.generation == catalog.generation(c.digest)}
        return {"op": "collect", "digests": sorted(current - needed), "created": now()} if current - needed else None

    log.commit(decide)
