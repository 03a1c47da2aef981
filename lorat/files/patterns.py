"""Regular expressions that come from strangers, matched within limits.

Time: `regex` stops a match when told to. Memory: nested groups cost it memory that grows exponentially
with their depth, so depth and length are limited before anything is compiled.
"""

import time
from typing import Any

import regex

from lorat.errors import AdapterFileError

MAX_LENGTH = 2000
MAX_DEPTH = 6
SECONDS = 0.5


class Patterns:
    """Matches patterns of one adapter's config; all of them together get half a second."""

    def __init__(self) -> None:
        self._left = SECONDS

    def match(self, pattern: str, text: str, form: str = "{}") -> Any:
        """A match of `form` with `pattern` in it at the beginning of `text`, or None.

        Raises AdapterFileError for a pattern that is broken, too long, too deep or too slow.
        """
        if len(pattern) > MAX_LENGTH or _depth(pattern) > MAX_DEPTH:
            raise AdapterFileError(
                f"adapter_config.json has the pattern {pattern[:60]!r}…: make it shorter and flatter"
            )
        started = time.perf_counter()
        try:
            return regex.match(form.format(pattern), text, timeout=max(self._left, 1e-3))
        except regex.error as error:
            raise AdapterFileError(f"adapter_config.json has the pattern {pattern!r}: {error}") from error
        except TimeoutError as error:
            raise AdapterFileError(f"adapter_config.json has the pattern {pattern!r}, which takes too long") from error
        finally:
            self._left -= time.perf_counter() - started


def _depth(pattern: str) -> int:
    """Depth of nested parentheses, escaped ones and those in sets included."""
    depth = deepest = 0
    for character in pattern:
        depth += (character == "(") - (character == ")")
        deepest = max(deepest, depth)
    return deepest
