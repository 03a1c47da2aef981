"""Keys: what one opens, and which of them a request carries. Pure.

`KEY` opens everything of its scope; `KEY:team-a-*:shared` only these names: prefixes with `*`, others exactly. Only
hashes are kept: nothing that is logged or shown can hold a key.
"""

import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from app.access.caller import ANYONE, Caller
from app.names import NAME

_PATTERN = re.compile(rf"{NAME.pattern}\*?|\*")


@dataclass(frozen=True)
class Key:
    """One key by its SHA-256, and the patterns of the names that it opens; None: all."""

    digest: bytes = field(repr=False)
    opens: tuple[str, ...] | None = None


def parse_keys(parts: Iterable[str]) -> tuple[Key, ...]:
    """Keys as a setting writes them. Raises ValueError, which tells a key by its place and never shows it."""
    keys = [_parse(part, place) for place, part in enumerate(parts, 1)]
    if len({key.digest for key in keys}) < len(keys):
        raise ValueError("the same key stands there twice: write it once, with all its names")
    return tuple(keys)


def _parse(part: str, place: int) -> Key:
    secret, *patterns = part.split(":")
    if not secret:
        raise ValueError(f"key {place} is empty: write KEY, or KEY:prefix-* for a key that opens only some names")
    if not all(_PATTERN.fullmatch(pattern) for pattern in patterns):
        raise ValueError(
            f"key {place} has a colon, and what follows is no adapter name or prefix*: "
            "choose a key without colons, or write KEY:prefix-*"
        )
    return Key(_digest(secret.encode()), tuple(patterns) or None)


def identify(given: bytes, api: Sequence[Key], admin: Sequence[Key]) -> Caller | None:
    """Who asks with this key; None where no key is like it. Where there are no keys at all, anyone, for anything.

    Every key is compared, each in constant time, whatever its length.
    """
    if not (api or admin):
        return ANYONE
    digest, found = _digest(given), None
    for scope, keys in (("api", api), ("admin", admin)):  # one that is both is an admin's
        for place, key in enumerate(keys):
            if hmac.compare_digest(digest, key.digest):
                found = Caller(f"{scope}-{place}", key.opens, admin=scope == "admin")
    return found


def _digest(secret: bytes) -> bytes:
    return sha256(secret).digest()
