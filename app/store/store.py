"""Adapter contents, the log of changes and its snapshots, behind one URL.

    content/<digest>.zip         one adapter's kept files: stored, sorted, the same bytes on every machine;
                                 <digest>.1.zip when it was collected once and uploaded again, and so on (gc.py)
    log/<sequence>.json          one change each, from 1 on, twelve digits, created exclusively and never written again
    snapshot/…                   what the log came to at a sequence, so that a start need not read all of it
                                 (snapshots.py)

Creating the next log entry exclusively is the only lock: whoever creates it was first, and everyone else reads it and
decides again. A local directory and S3 both have that operation.
"""

import json
import re
import struct
import tempfile
import uuid
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from app.errors import StoreError
from app.store.content import extract
from app.store.entries import DIGEST
from app.store.objects import THREADS, Objects, naming
from app.store.snapshots import Snapshots

FORMAT = 1
_CONTENT = re.compile(r"content/([0-9a-f]{64})(?:\.([1-9][0-9]*))?\.zip")
_LOG = re.compile(r"log/(\d{12})\.json")
_DAMAGE = (zipfile.BadZipFile, struct.error, EOFError, LookupError, OverflowError, RuntimeError, ValueError)


class SequenceTakenError(StoreError):
    """Another process created this log entry first: read it and decide again."""


class MissingContentError(StoreError):
    """A content is not there."""


class StoreGoneError(StoreError):
    """What was read of the store is not there any more: its disk is unmounted, or its directory was moved."""


@dataclass(frozen=True)
class StoredContent:
    """A content as it lies in the store: `size` in bytes, `modified` by the store's clock."""

    digest: str
    generation: int
    size: int
    modified: datetime


class Store:
    """What is kept at one location. Safe to use from several threads and processes."""

    def __init__(self, objects: Objects, location: str) -> None:
        self._objects = objects
        self.location = location
        self.snapshots = Snapshots(objects, location, lambda sequence: objects.get(_log_key(sequence)))
        self.generation_of: Callable[[str], int] = lambda digest: 0  # the AdapterLog that reads the log replaces it

    @classmethod
    def open(cls, location: str) -> "Store":
        """Open a directory (made if missing) or a URL such as `s3://bucket/prefix`.

        Raises `StoreError` when it cannot be reached or written, and when what is behind it does not honour
        conditional writes: sharing such a store would lose uploads.
        """
        with naming(f"open the store {location}"):
            return cls(Objects.open(location, ("content", "log", "snapshot")), location)

    def put_content(self, digest: str, path: Path) -> int:
        """Keep a packed adapter under its digest, durably; one that is there already, byte for byte, is left alone.

        The digest's generation that it was kept for: an upload whose digest has another one when `AdapterLog.commit`
        asks for its decision must put the content again. See app/store/gc.py.

        Raises `StoreError` when it cannot be written.
        """
        generation = self.generation_of(digest)
        key = _content_key(digest, generation)
        with naming(f"write the content {digest} to {self.location}"):
            if not self._is_same(key, path):
                self._objects.put(key, path)
            with suppress(FileNotFoundError):  # just collected: the commit finds that out
                # Also when it was there: who wrote it may not have synced it yet, and we are about to promise it.
                self._objects.sync(key)
        return generation

    def has_content(self, digest: str, path: Path) -> bool:
        """Whether a packed adapter is kept, byte for byte. Raises `StoreError`."""
        with naming(f"compare the content {digest} of {self.location}"):
            return self._is_same(self._content_key(digest), path)

    def _is_same(self, key: str, path: Path) -> bool:
        if self._objects.size(key) != path.stat().st_size:
            return False
        try:
            with path.open("rb") as file:
                return all(chunk == file.read(len(chunk)) for chunk in self._objects.stream(key))
        except FileNotFoundError:
            return False

    def get_content(self, digest: str, directory: Path) -> Path:
        """Extract a content into an empty directory (made if missing), verified against its digest; the directory.

        Raises `MissingContentError`, or `StoreError` for a damaged one: both name the digest, and nothing is written.
        """
        with naming(f"extract the content {digest} of {self.location}"):
            directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=directory) as fetched:
                for chunk in self._content_chunks(digest):
                    fetched.write(chunk)
                try:
                    with zipfile.ZipFile(fetched) as archive:
                        extract(archive, digest, directory)
                except _DAMAGE as error:
                    fault = f"content {digest} in {self.location} is damaged ({error})"
                    raise StoreError(f"{fault}: upload it again") from error
        return directory

    def _content_chunks(self, digest: str) -> Iterator[bytes]:
        key = self._content_key(digest)
        with naming(f"read the content {digest} from {self.location}"):
            try:
                yield from self._objects.stream(key)
            except FileNotFoundError as error:
                fault = f"content {digest} is missing in {self.location}: upload it again"
                raise MissingContentError(fault) from error

    def contents(self) -> Iterator[StoredContent]:
        """Every content that is kept, also those that no version means any more. Errors: `StoreError`."""
        with naming(f"list the contents of {self.location}"):
            for found in self._objects.list("content"):
                match = _CONTENT.fullmatch(found["path"])
                if match:
                    yield StoredContent(match[1], int(match[2] or 0), found["size"], found["last_modified"])

    def remove_contents(self, contents: Iterable[StoredContent]) -> None:
        """Delete them; one that is gone already is no error. Raises `StoreError` when they cannot be deleted."""
        with naming(f"delete contents of {self.location}"):
            self._objects.delete(_content_key(content.digest, content.generation) for content in contents)

    def append(self, after: int, entry: Mapping[str, Any]) -> int:
        """Create the log entry that follows the sequence `after`, durably; its sequence.

        Raises `SequenceTakenError` when another process was first, `StoreGoneError` when what it would follow is gone,
        `StoreError` when it cannot be written.
        """
        key = _log_key(after + 1)
        # When a write succeeded but its answer was lost, it is sent again: the id tells our entry from another's.
        payload = json.dumps({**entry, "format": FORMAT, "id": uuid.uuid4().hex}, allow_nan=False).encode()
        with naming(f"append to the log of {self.location}"):
            if after > 0 and self._objects.size(_log_key(after)) is None:
                # Asked first: an entry behind a hole is read by who made it, and lost at the next start.
                raise self._gone(after)
            if not self._objects.create(key, payload) and self._objects.get(key) != payload:
                raise SequenceTakenError(f"log entry {after + 1} of {self.location} is taken")
            if after > 0:
                # Who wrote it may not have synced it yet; after a power cut ours would follow a hole.
                self._objects.sync(_log_key(after))
            self._objects.sync(key)
        return after + 1

    def read(self, after: int) -> list[tuple[int, dict[str, Any]]]:
        """The log entries above the sequence `after`, in order, each with its sequence.

        Raises `StoreGoneError` where a directory does not have the entry `after`, or no log at all; `StoreError` for an
        entry that is missing, damaged, or written in a newer format.
        """
        with naming(f"read the log of {self.location}"):
            if self._objects.lacks(_log_key(after) if after else "log"):
                raise self._gone(after)
            if after > 0 and self._objects.get(_log_key(after + 1)) is None:
                return []  # the usual case costs one request and no listing
            listed = range(after + 1, self._last_sequence(after) + 1)
            if len(listed) < THREADS:
                entries = [self._entry(sequence) for sequence in listed]
            else:
                with ThreadPoolExecutor(THREADS) as readers:
                    entries = list(readers.map(self._entry, listed))
            # A listing may be late: what it does not show yet has the next keys.
            while self._objects.get(_log_key(after + len(entries) + 1)) is not None:
                entries.append(self._entry(after + len(entries) + 1))
            return entries

    def _gone(self, sequence: int) -> StoreGoneError:
        what = f"log entry {sequence}" if sequence else "the log"
        return StoreGoneError(f"{what} of {self.location} is gone: is this still the store that was opened?")

    def _last_sequence(self, after: int) -> int:
        numbers = (_LOG.fullmatch(found["path"]) for found in self._objects.list("log", _log_key(after)))
        return max((int(number[1]) for number in numbers if number), default=after)

    def _entry(self, sequence: int) -> tuple[int, dict[str, Any]]:
        payload = self._objects.get(_log_key(sequence))
        if payload is None:
            raise StoreError(f"log entry {sequence} of {self.location} is missing though later ones are there")
        try:
            entry = json.loads(payload)
        except ValueError as error:
            raise StoreError(f"log entry {sequence} of {self.location} is damaged: {error}") from error
        if not isinstance(entry, dict) or entry.get("format") != FORMAT:
            raise StoreError(
                f"log entry {sequence} of {self.location} is not in format {FORMAT}: a newer LoRAT wrote it"
            )
        return sequence, entry

    def _content_key(self, digest: str) -> str:
        return _content_key(digest, self.generation_of(digest))


def _content_key(digest: str, generation: int) -> str:
    if DIGEST.fullmatch(digest) is None:
        raise StoreError(f"{digest[:80]!r} is not a digest: 64 characters of 0-9 and a-f")
    return f"content/{digest}.{generation}.zip" if generation else f"content/{digest}.zip"


def _log_key(sequence: int) -> str:
    return f"log/{sequence:012d}.json"
