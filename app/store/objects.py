"""Objects behind one URL, written durably: a local directory or S3, with one face through obstore.

On a local directory files and their directories are fsynced before a write counts, because obstore does not do it.
"""

import os
import re
import time
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from app.errors import StoreError
from app.store.location import local_root, without_credentials

if TYPE_CHECKING:
    from obstore import ObjectMeta  # exists for type checkers only
    from obstore.store import ClientConfig, RetryConfig

_TEMPORARY = re.compile(r".*#\d+")  # how obstore's local store names a file that it is still writing
_STALE_SECONDS = 3600
_CHUNK_BYTES = 1 << 20
THREADS = 8
# A server that does not answer must not hold up a request, or the shutdown, for the minutes that obstore would try.
_RETRY: "RetryConfig" = {
    "max_retries": 4,
    "retry_timeout": timedelta(seconds=5),
    "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=1), "base": 2},
}
_CONNECT, _READ, _WHOLE = timedelta(seconds=2), timedelta(seconds=5), timedelta(seconds=300)
# The time to read an answer runs while the body is sent, too, and parts that are sent at once share the uplink.
_SENT, _PARTS = timedelta(seconds=120), 2
_FAULT = re.compile(r"kind: (Timeout|Connect)\b")
_FAULTS = {"Timeout": "it took too long", "Connect": "no connection"}


class Objects:
    """What lies below one location, by key. Safe to use from several threads and processes.

    What the server or the disk says against it is raised as it comes; `naming` makes it a `StoreError`.
    """

    def __init__(self, objects: ObjectStore, root: Path | None = None, sender: ObjectStore | None = None) -> None:
        """`root`: of a local directory; None elsewhere. `sender`: for what takes long to send."""
        self._objects = objects
        self._sender = sender or objects
        self._root = root

    @classmethod
    def open(cls, location: str, folders: Iterable[str]) -> "Objects":
        """Open a directory (made if missing, with these folders) or a URL such as `s3://bucket/prefix`.

        Raises `StoreError` for what is neither, and for a server that does not honour conditional writes: sharing it
        would lose uploads.
        """
        root = local_root(location)
        if root is None:
            objects = cls(_remote(location, _READ), sender=_remote(location, _SENT))
        else:
            for folder in (root, *(root / folder for folder in folders)):
                folder.mkdir(parents=True, exist_ok=True)
                _sweep(folder)
            _fsync(root)
            _fsync(root.parent)
            objects = cls(LocalStore(root), root)
        objects._probe(location)
        return objects

    def _probe(self, location: str) -> None:
        key = f"probe-{uuid.uuid4().hex}"
        try:
            # Where the answer to the first was lost it was sent again, and found itself: nobody else knows the key.
            if (self.create(key, b"probe") or self.get(key) == b"probe") and not self.create(key, b"probe"):
                return
        finally:
            with suppress(BaseError, OSError):  # a probe left behind harms nobody and is not what went wrong
                obstore.delete(self._objects, key)
        raise StoreError(
            f"{location} ignores conditional writes (creating the same object twice succeeded), so two processes "
            "could overwrite each other's uploads: use a server that honours If-None-Match, or a local directory"
        )

    def get(self, key: str) -> bytes | None:
        """An object, or None where there is none."""
        try:
            return bytes(obstore.get(self._objects, key).bytes())
        except FileNotFoundError:
            return None

    def stream(self, key: str) -> Iterator[bytes]:
        """An object in pieces. Raises FileNotFoundError."""
        yield from map(bytes, obstore.get(self._objects, key).stream(min_chunk_size=_CHUNK_BYTES))

    def size(self, key: str) -> int | None:
        """An object's bytes, or None where there is none."""
        try:
            return obstore.head(self._objects, key)["size"]
        except FileNotFoundError:
            return None

    def lacks(self, key: str) -> bool:
        """Whether a directory does not have an object or a folder. Of a bucket, where asking is a request, False."""
        return self._root is not None and not (self._root / key).exists()

    def list(self, folder: str, after: str | None = None) -> "Iterator[ObjectMeta]":
        """What lies in a folder, from the first key > `after`."""
        for batch in obstore.list(self._objects, folder, offset=after):
            yield from batch

    def put(self, key: str, content: bytes | Path) -> None:
        """Write an object whole, over what is there. It counts once it is synced."""
        obstore.put(self._sender, key, content, max_concurrency=_PARTS)
        self._open_to_readers(key)

    def create(self, key: str, content: bytes) -> bool:
        """Write an object where there is none; False where there is one. It counts once it is synced."""
        try:
            obstore.put(self._objects, key, content, mode="create")
        except AlreadyExistsError:
            return False
        self._open_to_readers(key)
        return True

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; one that is gone already is no error."""

        def remove(key: str) -> None:
            with suppress(FileNotFoundError):
                obstore.delete(self._objects, key)

        with ThreadPoolExecutor(THREADS) as threads:
            for _ in threads.map(remove, keys):
                pass

    def _open_to_readers(self, key: str) -> None:
        """Let who may read a directory read what was written there, whatever our umask: replicas may be other users."""
        if self._root is None:
            return
        path = self._root / key
        with suppress(FileNotFoundError):  # collected already
            mode, readers = path.stat().st_mode, path.parent.stat().st_mode & 0o444
            if readers & ~mode:
                path.chmod(mode | readers)

    def sync(self, key: str) -> None:
        """Have an object survive a power cut. S3 promises that with its answer."""
        if self._root is not None:
            _fsync(self._root / key)
            _fsync((self._root / key).parent)


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Turn obstore's and the disk's errors into `StoreError`, saying what was tried."""
    try:
        yield
    except (BaseError, OSError) as error:
        raise StoreError(f"cannot {what}: {_explain(error)}") from error


def _explain(error: Exception) -> str:
    """The first line of what obstore says, and why a server did not answer: it says that only further down."""
    first, _, further = without_credentials(str(error) or repr(error)).partition("\n")
    fault = _FAULT.search(further)
    return f"{first} ({_FAULTS[fault[1]]})" if fault else first


def _remote(location: str, read_timeout: timedelta) -> ObjectStore:
    """Options of our own make obstore forget what the environment says of plain http, so it is said again."""
    plain = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true")
    options: ClientConfig = {
        "connect_timeout": _CONNECT,
        "read_timeout": read_timeout,
        "timeout": _WHOLE,
        "allow_http": plain,
    }
    return from_url(location, retry_config=_RETRY, client_options=options)


def _sweep(folder: Path) -> None:
    """Remove what a killed process left half written."""
    oldest = time.time() - _STALE_SECONDS
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # another process sweeps, too
            if _TEMPORARY.fullmatch(path.name) and path.is_file() and path.stat().st_mtime < oldest:
                path.unlink()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
