"""HTTP's `Accept` header."""

import re

_QUALITY = re.compile(r"q=([01](?:\.[0-9]{0,3})?)")


def prefers(accept: str, kind: str, usual: str) -> bool:
    """Whether a header names a media type, and does not like the usual one better."""
    liked = dict(map(_liking, accept.lower().split(",")))
    return liked.get(kind, 0.0) > 0 and liked[kind] >= liked.get(usual, 0.0)


def _liking(accepted: str) -> tuple[str, float]:
    """A media type, and its quality."""
    kind, *parameters = (part.strip() for part in accepted.split(";"))
    given = next(filter(None, map(_QUALITY.fullmatch, parameters)), None)
    return kind, float(given[1]) if given else 1.0
