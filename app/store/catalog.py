"""The adapters there are: a pure fold over the store's log.

The log is a list of entries (entries.py) with an `"op"`: "upload", "delete", "settings" or "collect"; a `Catalog` is
what they add up to. A rollback is an upload whose digest and record are an older version's. Version numbers are not
written anywhere: an upload's number is one more than the highest that was ever given under its name, so every reader of
the same log derives the same numbers, and a delete never frees one.

One thread may apply entries while others read: each name's versions are one immutable tuple that is replaced whole.
"""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from app.errors import UnknownAdapterError
from app.names import NAME, name_of, number_of
from app.store.entries import DEFAULT_SETTINGS, check_entry

_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class Version:
    """One upload under a name.

    `version` counts from 1; `digest` is a hex SHA-256 without prefix; `created` is ISO 8601 in UTC; `record` is what
    the check of the upload found, and is not interpreted here.
    """

    name: str
    version: int
    digest: str
    created: str
    record: Mapping[str, Any]

    @property
    def reference(self) -> str:
        """What names exactly this version: `name@version`."""
        return f"{self.name}@{self.version}"


Versions = list[Version]  # inside Catalog, `list` is its method


class Catalog:
    """Every version of every adapter, as the entries applied so far have it."""

    def __init__(self) -> None:
        self._versions: dict[str, tuple[Version, ...]] = {}  # newest first, never an empty tuple
        self._highest: dict[str, int] = {}  # the highest number ever given under a name; deletes leave it
        self._settings: dict[str, Mapping[str, Any]] = {}  # of names that have versions and are not at the defaults
        self._generations: dict[str, int] = {}  # of digests that were collected
        self._ended: dict[str, str] = {}  # of digests that a version had and was deleted: when the last one was

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> "Catalog":
        """The catalog whose `state` this was."""
        catalog = cls()
        records = state["records"]
        for name, versions in state["versions"].items():
            catalog._versions[name] = tuple(
                Version(name, number, digest, created, records[index]) for number, digest, created, index in versions
            )
        catalog._highest = {**state["highest"]}
        catalog._settings = {**state["settings"]}
        catalog._generations = {**state["generations"]}
        catalog._ended = {**state["ended"]}
        return catalog

    def state(self) -> dict[str, Any]:
        """Everything the applied entries came to until now, as JSON takes it: for `restore`."""
        places: dict[int, int] = {}
        records: list[Mapping[str, Any]] = []

        def place(record: Mapping[str, Any]) -> int:
            if places.setdefault(id(record), len(records)) == len(records):
                records.append(record)
            return places[id(record)]

        versions = {
            name: [[v.version, v.digest, v.created, place(v.record)] for v in versions]
            for name, versions in self._versions.items()
        }
        return {
            "versions": versions,
            "records": records,
            "highest": {**self._highest},
            "settings": {name: dict(settings) for name, settings in self._settings.items()},
            "generations": {**self._generations},
            "ended": {**self._ended},
        }

    def apply(self, entry: Mapping[str, Any]) -> None:
        """Apply one log entry. An entry that is not understood raises `StoreError` and changes nothing."""
        check_entry(entry)
        if entry["op"] == "upload":
            self._upload(entry)
        elif entry["op"] == "delete":
            self._delete(entry["name"], entry["version"], entry["created"])
        elif entry["op"] == "collect":
            self._collect(entry["digests"])
        elif entry["name"] in self._versions:  # otherwise it was deleted meanwhile, and its settings ended with it
            self._settings[entry["name"]] = {**self.settings(entry["name"]), **entry["settings"]}

    def _upload(self, entry: Mapping[str, Any]) -> None:
        name = entry["name"]
        number = self.next_version(name)
        before = self._versions.get(name, ())
        record = _shared(entry["digest"], entry["record"], before)
        self._highest[name] = number
        self._versions[name] = (Version(name, number, entry["digest"], entry["created"], record), *before)

    def _delete(self, name: str, number: int | None, when: str) -> None:
        before = self._versions.get(name, ())
        left = tuple(v for v in before if number is not None and v.version != number)
        self._ended.update({v.digest: when for v in before if v not in left})
        if left:
            self._versions[name] = left
        else:
            self._versions.pop(name, None)
            self._settings.pop(name, None)

    def _collect(self, digests: Sequence[str]) -> None:
        for digest in digests:
            self._generations[digest] = self.generation(digest) + 1
            self._ended.pop(digest, None)

    def find(self, reference: str) -> Version | None:
        """The version that `x` (its newest) or `x@2` names, or None; cheap also where there is none."""
        number, versions = number_of(reference), self._versions.get(name_of(reference), ())
        if number is None:
            return versions[0] if versions else None
        if _NUMBER.fullmatch(number) is None:
            return None
        return next((version for version in versions if version.version == int(number)), None)

    def resolve(self, reference: str) -> Version:
        """The version that `x` (its newest) or `x@2` names. Raises `UnknownAdapterError` where there is none."""
        found = self.find(reference)
        if found is not None:
            return found
        name = name_of(reference)
        there = ", ".join(str(version.version) for version in self.versions(name)[:8])
        hint = f": {name!r} has the versions {there}" if there else ""
        raise UnknownAdapterError(f"there is no adapter {reference[:80]!r}{hint}", None if there else self._close(name))

    def _close(self, name: str) -> str | None:
        if NAME.fullmatch(name) is None:
            return None
        # Comparing is slow and unknown names are cheap to send, so only a few likely names are compared.
        likely = (n for n in self._versions.copy() if n[0] == name[0] and abs(len(n) - len(name)) <= 3)
        return next(iter(difflib.get_close_matches(name, islice(likely, 200), n=1, cutoff=0.7)), None)

    def newest(self, name: str) -> Version | None:
        """The newest version of a name, or None where there is none."""
        versions = self._versions.get(name)
        return versions[0] if versions else None

    def next_version(self, name: str) -> int:
        """The number that the next upload under this name will be given."""
        return self._highest.get(name, 0) + 1

    def versions(self, name: str) -> Versions:
        """Every version of a name, newest first; empty where there is none."""
        return [*self._versions.get(name, ())]

    def settings(self, name: str) -> Mapping[str, Any]:
        """What was last set for a name: `pinned` (bool) and `merge` ("auto", "always" or "never").

        The defaults where nothing was set; they return when the name is deleted.
        """
        return self._settings.get(name, DEFAULT_SETTINGS)

    def digests(self) -> set[str]:
        """The digest of every version of every name: the content that is still needed."""
        return {v.digest for versions in self._versions.copy().values() for v in versions}

    def having(self, digest: str) -> Iterator[Version]:
        """The versions with this content. It looks through all of them."""
        there = (v for versions in self._versions.copy().values() for v in versions)
        return (version for version in there if version.digest == digest)

    def generation(self, digest: str) -> int:
        """How often this content was given up for deletion: where it is kept depends on it (gc.py says why)."""
        return self._generations.get(digest, 0)

    def ended(self, digest: str) -> str | None:
        """When the last version with this content was deleted (`created` of that entry); None where none was."""
        return self._ended.get(digest)

    @property
    def ever_used(self) -> bool:
        """Whether there was ever an upload, deleted or not."""
        return bool(self._highest)

    def __len__(self) -> int:
        return len(self._versions)

    def list(self, after: str | None = None) -> Versions:
        """The newest version of each name, in the order of names, from the first name > `after`."""
        versions = self._versions.copy()
        names = sorted(name for name in versions if after is None or name > after)
        return [versions[name][0] for name in names]


def _shared(digest: str, record: Mapping[str, Any], versions: Sequence[Version]) -> Mapping[str, Any]:
    """The record, or the equal one of a version that has the same content or is the newest: labels take memory."""
    alike = (v for v in versions if v is versions[0] or v.digest == digest)
    return next((v.record for v in alike if v.record == record), record)
