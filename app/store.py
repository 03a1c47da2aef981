"""Adapter contents and the log of changes, behind one URL.

    content/<digest>.zip       one adapter's kept files: stored, sorted, the same bytes on every machine;
                               <digest>.1.zip when it was collected once and uploaded again, and so on (app/gc.py)
    log/<sequence>.json        one change each, from 1 on, twelve digits, created exclusively and never written again

Creating the next log entry exclusively is the only lock: whoever creates it was first, and everyone else reads it and
decides again. A local directory and S3 both have that operation, and obstore gives both the same face.

On a local directory files and their directories are fsynced before a write counts, because obstore does not do it.
"""

import json
import os
import re
import struct
import tempfile
import time
import uuid
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from app.catalog import DIGEST
from app.content import digest_of, extract, pack
from app.errors import StoreError

__all__ = ["SequenceTakenError", "Store", "digest_of", "pack"]

FORMAT = 1
_TEMPORARY = re.compile(r".*#\d+")  # how obstore's local store names a file that it is still writing
_CONTENT = re.compile(r"content/([0-9a-f]{64})(?:\.([1-9][0-9]*))?\.zip")
_STALE_SECONDS = 3600
_CHUNK_BYTES = 1 << 20
_READERS = 8
_DAMAGE = (zipfile.BadZipFile, struct.error, EOFError, LookupError, OverflowError, RuntimeError, ValueError)


class SequenceTakenError(StoreError):
    """Another process created this log entry first: read it and decide again."""


@dataclass(frozen=True)
class StoredContent:
    """A content as it lies in the store: `size` in bytes, `modified` by the store's clock."""

    digest: str
    generation: int
    size: int
    modified: datetime


class Store:
    """The objects behind one location. Safe to use from several threads and processes."""

    def __init__(self, objects: ObjectStore, location: str, root: Path | None = None) -> None:
        self._objects = objects
        self._root = root  # of a local directory; None elsewhere
        self.location = location
        self.generation_of: Callable[[str], int] = lambda digest: 0  # the AdapterLog that reads the log replaces it

    @classmethod
    def open(cls, location: str) -> "Store":
        """Open a directory (made if missing) or a URL such as `s3://bucket/prefix`.

        Raises `StoreError` when it cannot be reached or written, and when what is behind it does not honour
        conditional writes: sharing such a store would lose uploads.
        """
        root = _local_root(location)
        with _naming(f"open the store {location}"):
            if root is None:
                store = cls(from_url(location), location)
            else:
                for folder in (root, root / "content", root / "log"):
                    folder.mkdir(parents=True, exist_ok=True)
                _fsync(root)
                _fsync(root.parent)
                store = cls(LocalStore(root), location, root)
                store._sweep()
            store._probe()
        return store

    def _probe(self) -> None:
        key = f"probe-{uuid.uuid4().hex}"
        obstore.put(self._objects, key, b"probe", mode="create")
        try:
            obstore.put(self._objects, key, b"probe", mode="create")
        except AlreadyExistsError:
            return
        finally:
            with suppress(BaseError, OSError):  # a probe left behind harms nobody and is not what went wrong
                obstore.delete(self._objects, key)
        raise StoreError(
            f"{self.location} ignores conditional writes (creating the same object twice succeeded), so two processes "
            "could overwrite each other's uploads: use a server that honours If-None-Match, or a local directory"
        )

    def _sweep(self) -> None:
        """Remove what a killed process left half written."""
        assert self._root is not None
        oldest = time.time() - _STALE_SECONDS
        for folder in (self._root, self._root / "content", self._root / "log"):
            for path in folder.iterdir():
                if _TEMPORARY.fullmatch(path.name) and path.is_file() and path.stat().st_mtime < oldest:
                    path.unlink(missing_ok=True)

    def put_content(self, digest: str, path: Path) -> None:
        """Keep a packed adapter under its digest, durably; nothing to do when it is there with the same size.

        To be called by what decides on an upload, inside `AdapterLog.commit`: see app/gc.py.

        Raises `StoreError` when it cannot be written.
        """
        key = self._content_key(digest)
        with _naming(f"write the content {digest} to {self.location}"):
            if self._size(key) != path.stat().st_size:
                obstore.put(self._objects, key, path)
            # Also when it was there: who wrote it may not have synced it yet, and we are about to promise it.
            self._sync(key)

    def get_content(self, digest: str, directory: Path) -> Path:
        """Extract a content into an empty directory (made if missing), verified against its digest; the directory.

        Raises `StoreError` that names the digest when the content is missing or damaged; nothing is written then.
        """
        with _naming(f"extract the content {digest} of {self.location}"):
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

    def content_bytes(self, digest: str) -> bytes:
        """The packed adapter (.zip) as it was put, for a download. Raises `StoreError` when it is missing."""
        return b"".join(self._content_chunks(digest))

    def _content_chunks(self, digest: str) -> Iterator[bytes]:
        key = self._content_key(digest)
        with _naming(f"read the content {digest} from {self.location}"):
            try:
                found = obstore.get(self._objects, key)
            except FileNotFoundError as error:
                raise StoreError(f"content {digest} is missing in {self.location}: upload it again") from error
            yield from map(bytes, found.stream(min_chunk_size=_CHUNK_BYTES))

    def contents(self) -> Iterator[StoredContent]:
        """Every content that is kept, also those that no version means any more. Errors: `StoreError`."""
        with _naming(f"list the contents of {self.location}"):
            for batch in obstore.list(self._objects, "content"):
                for found in batch:
                    match = _CONTENT.fullmatch(found["path"])
                    if match:
                        yield StoredContent(match[1], int(match[2] or 0), found["size"], found["last_modified"])

    def remove_contents(self, contents: Iterable[StoredContent]) -> None:
        """Delete them; one that is gone already is no error. Raises `StoreError` when they cannot be deleted."""

        def remove(content: StoredContent) -> None:
            with suppress(FileNotFoundError):
                obstore.delete(self._objects, _content_key(content.digest, content.generation))

        with _naming(f"delete contents of {self.location}"), ThreadPoolExecutor(_READERS) as threads:
            for _ in threads.map(remove, contents):
                pass

    def append(self, after: int, entry: Mapping[str, Any]) -> int:
        """Create the log entry that follows the sequence `after`, durably; its sequence.

        Raises `SequenceTakenError` when another process was first, `StoreError` when it cannot be written.
        """
        key = _log_key(after + 1)
        # When a write succeeded but its answer was lost, it is sent again: the id tells our entry from another's.
        payload = json.dumps({**entry, "format": FORMAT, "id": uuid.uuid4().hex}, allow_nan=False).encode()
        with _naming(f"append to the log of {self.location}"):
            try:
                obstore.put(self._objects, key, payload, mode="create")
            except AlreadyExistsError as error:
                if self._get(key) != payload:
                    raise SequenceTakenError(f"log entry {after + 1} of {self.location} is taken") from error
            if after > 0:
                # Who wrote it may not have synced it yet; after a power cut ours would follow a hole.
                self._sync(_log_key(after))
            self._sync(key)
        return after + 1

    def read(self, after: int) -> list[tuple[int, dict[str, Any]]]:
        """The log entries above the sequence `after`, in order, each with its sequence.

        Raises `StoreError` for an entry that is missing, damaged, or written in a newer format.
        """
        with _naming(f"read the log of {self.location}"):
            if after > 0 and self._get(_log_key(after + 1)) is None:
                return []  # the usual case costs one request and no listing
            sequences = range(after + 1, self._last_sequence(after) + 1)
            if len(sequences) < _READERS:
                return [self._entry(sequence) for sequence in sequences]
            with ThreadPoolExecutor(_READERS) as readers:
                return list(readers.map(self._entry, sequences))

    def _last_sequence(self, after: int) -> int:
        last = after
        for batch in obstore.list(self._objects, "log", offset=_log_key(after)):
            for found in batch:
                number = re.fullmatch(r"log/(\d{12})\.json", found["path"])
                last = max(last, int(number[1]) if number else 0)
        return last

    def _entry(self, sequence: int) -> tuple[int, dict[str, Any]]:
        payload = self._get(_log_key(sequence))
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

    def _get(self, key: str) -> bytes | None:
        try:
            return bytes(obstore.get(self._objects, key).bytes())
        except FileNotFoundError:
            return None

    def _size(self, key: str) -> int | None:
        try:
            return obstore.head(self._objects, key)["size"]
        except FileNotFoundError:
            return None

    def _sync(self, key: str) -> None:
        if self._root is not None:
            _fsync(self._root / key)
            _fsync((self._root / key).parent)


def _content_key(digest: str, generation: int) -> str:
    if DIGEST.fullmatch(digest) is None:
        raise StoreError(f"{digest[:80]!r} is not a digest: 64 characters of 0-9 and a-f")
    return f"content/{digest}.{generation}.zip" if generation else f"content/{digest}.zip"


def _log_key(sequence: int) -> str:
    return f"log/{sequence:012d}.json"


def _local_root(location: str) -> Path | None:
    if "://" not in location:
        return Path(location).expanduser().resolve()
    url = urlsplit(location)
    return Path(unquote(url.path)) if url.scheme == "file" else None


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Turn obstore's and the disk's errors into `StoreError`, saying what was tried."""
    try:
        yield
    except (BaseError, OSError) as error:
        raise StoreError(f"cannot {what}: {str(error).splitlines()[0] if str(error) else error!r}") from error
