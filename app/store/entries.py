"""What an entry of the log may be."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from app.errors import StoreError

DIGEST = re.compile(r"[0-9a-f]{64}")

DEFAULT_SETTINGS: Mapping[str, Any] = MappingProxyType({"pinned": False, "merge": "auto"})
MERGES = frozenset({"auto", "always", "never"})

_NEWER = "a newer LoRAT may have written it: use that version here, too"


def now() -> str:
    """The time of an entry: ISO 8601 in UTC with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def check_entry(entry: Mapping[str, Any]) -> None:
    """Raise `StoreError` for an entry that `Catalog.apply` would not understand."""
    op = entry.get("op")
    check = _CHECKS.get(op) if isinstance(op, str) else None
    if check is None:
        raise StoreError(f"the store's log has an entry of the unknown kind {op!r}: {_NEWER}")
    named = isinstance(entry.get("name"), str) or op == "collect"
    if not named or not isinstance(entry.get("created"), str):
        raise StoreError(f"a log entry ({op}) has no name or no time: the store is damaged")
    check(entry)


def _check_upload(entry: Mapping[str, Any]) -> None:
    digest = entry.get("digest")
    if not isinstance(digest, str) or DIGEST.fullmatch(digest) is None:
        raise StoreError(f"a log entry (upload of {entry['name']!r}) has no digest: the store is damaged")
    if not isinstance(entry.get("record"), Mapping):
        raise StoreError(f"a log entry (upload of {entry['name']!r}) has no record: the store is damaged")


def _check_delete(entry: Mapping[str, Any]) -> None:
    # A missing version must not read as "every version".
    if "version" not in entry or type(entry["version"]) not in (int, type(None)):
        raise StoreError(f"a log entry (delete of {entry['name']!r}) does not say which version: the store is damaged")


def _check_settings(entry: Mapping[str, Any]) -> None:
    settings = entry.get("settings")
    if not isinstance(settings, Mapping):
        raise StoreError(f"a log entry (settings of {entry['name']!r}) has no settings: the store is damaged")
    known = type(settings.get("pinned", False)) is bool and settings.get("merge", "auto") in MERGES
    if not known or not settings.keys() <= DEFAULT_SETTINGS.keys():
        raise StoreError(f"the settings of {entry['name']!r} in the store's log are not known here: {_NEWER}")


def _check_collect(entry: Mapping[str, Any]) -> None:
    digests = entry.get("digests")
    if not isinstance(digests, Sequence) or not all(isinstance(d, str) and DIGEST.fullmatch(d) for d in digests):
        raise StoreError("a log entry (collect) does not say which contents: the store is damaged")


_CHECKS = {"upload": _check_upload, "delete": _check_delete, "settings": _check_settings, "collect": _check_collect}
