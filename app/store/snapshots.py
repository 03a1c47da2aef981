"""Snapshots: what the log came to at a sequence, so that a start need not read all of it.

    snapshot/<sequence>-<sha256 of that log entry>-<sha256 of the file>.json

Only the log counts. A snapshot is trusted where its file is whole and the log has that very entry at its sequence: a
copy of a store may bring a snapshot that the copied log never came to, and go on to another entry with its number.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from app.errors import StoreError
from app.store.objects import Objects, naming

FORMAT = 2
_KEY = re.compile(r"snapshot/(\d{12})-(?:([0-9a-f]{64})-)?([0-9a-f]{64})\.json")


@dataclass(frozen=True)
class _Snapshot:
    """One that lies there. entry: the hash of the log entry that it was taken at; None where an old LoRAT wrote it."""

    key: str
    sequence: int
    entry: str | None
    sha256: str


class Snapshots:
    """The snapshots of one store."""

    def __init__(self, objects: Objects, location: str, log_entry: Callable[[int], bytes | None]) -> None:
        """`log_entry` reads an entry as it lies in the log; None where there is none."""
        self._objects = objects
        self._location = location
        self._log_entry = log_entry

    def newest(self) -> tuple[int, dict[str, Any]] | None:
        """The newest that can be trusted: its sequence, and the state that was put; None where there is none.

        Raises `StoreError`.
        """
        with naming(f"read the snapshots of {self._location}"):
            for found in self._of_this_log():
                payload = self._objects.get(found.key) or b""
                if _hash(payload) != found.sha256:
                    continue
                written = json.loads(payload)
                if written["format"] == FORMAT:
                    return found.sequence, written["state"]
        return None

    def put(self, sequence: int, state: Mapping[str, Any]) -> None:
        """Keep what the log came to at a sequence; only this one and the one before stay. Raises `StoreError`."""
        payload = json.dumps({"format": FORMAT, "state": state}, allow_nan=False, separators=(",", ":")).encode()
        with naming(f"write a snapshot to {self._location}"):
            entry = self._log_entry(sequence)
            if entry is None:
                raise StoreError(f"log entry {sequence} of {self._location} is gone")
            self._objects.put(f"snapshot/{sequence:012d}-{_hash(entry)}-{_hash(payload)}.json", payload)
            stay = self._of_this_log()[:2]
            self._objects.delete(found.key for found in self._all() if found not in stay)

    def last_sequence(self) -> int:
        """The sequence of the newest that was taken of this log; 0 where there is none. Raises `StoreError`."""
        with naming(f"list the snapshots of {self._location}"):
            return max((found.sequence for found in self._of_this_log()), default=0)

    def _of_this_log(self) -> list[_Snapshot]:
        """The newest first."""
        return [found for found in reversed(self._all()) if found.entry and found.entry == self._entry_at(found)]

    def _entry_at(self, found: _Snapshot) -> str | None:
        entry = self._log_entry(found.sequence)
        return None if entry is None else _hash(entry)

    def _all(self) -> list[_Snapshot]:
        """The oldest first."""
        matches = (_KEY.fullmatch(each["path"]) for each in self._objects.list("snapshot"))
        found = [_Snapshot(match[0], int(match[1]), match[2], match[3]) for match in matches if match]
        return sorted(found, key=lambda snapshot: (snapshot.sequence, snapshot.key))


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
