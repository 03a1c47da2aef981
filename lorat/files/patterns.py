"""Regular expressions that come from strangers, matched within limits.

PEFT matches with Python's `re`; what `regex` alone understands (fuzzy counts, recursion, inline flags) is refused.
Time: a thread's own, so that a busy machine refuses nothing; `regex` stops a match when told to, by the time of the
whole process. Memory: nested groups cost it memory that grows exponentially with
their depth, and a group that is to be there n times is copied n times when it is compiled, so length, depth and
counts are limited before anything is compiled.
"""

import re
import time
from typing import Any

import regex

from lorat.errors import AdapterFileError
from lorat.files.json_file import short

_FILE = "adapter_config.json has the pattern"
MAX_LENGTH = 2000
MAX_DEPTH = 6
MAX_COPIES = 1000
SECONDS = 0.5
_MOST = 5.0  # of all threads together, for one match
_TOKEN = re.compile(r"\\.|\[\^?\]?|[](){]", re.DOTALL)
_COUNT = re.compile(r"\{(\d*),?\d*\}", re.ASCII)
_GROUP = re.compile(r"\((?!\?)|\(\?(?:[:=!]|<[=!]|P<[A-Za-z_])")


class Patterns:
    """Matches patterns of one adapter's config; all of them together get half a second of a core."""

    def __init__(self) -> None:
        self._left = SECONDS
        self._compiled: dict[tuple[str, str], Any] = {}

    def match(self, pattern: str, text: str, form: str = "{}") -> Any:
        """A match of `form` with `pattern` in it at the beginning of `text`, or None.

        Raises AdapterFileError for a pattern that is broken, too long, too deep or too slow.
        """
        if len(pattern) > MAX_LENGTH:
            raise AdapterFileError(f"{_FILE} {short(pattern)}: make it shorter and flatter")
        if self._left <= 0:
            raise AdapterFileError("adapter_config.json has patterns that together take too long")
        started = time.thread_time()
        try:
            return self._compile(pattern, form).match(text, timeout=_MOST)
        except AdapterFileError:
            raise
        except TimeoutError as error:
            raise AdapterFileError(f"{_FILE} {short(pattern)}, which takes too long") from error
        except Exception as error:  # what `regex` raises is not documented, and nothing of it is our own fault
            raise AdapterFileError(f"{_FILE} {short(pattern)}: {short(str(error))}") from error
        finally:
            self._left -= time.thread_time() - started

    def _compile(self, pattern: str, form: str) -> Any:
        if (pattern, form) not in self._compiled:
            _check(pattern)
            self._compiled[pattern, form] = regex.compile(form.format(pattern))
        return self._compiled[pattern, form]


def _check(pattern: str) -> None:
    """Refuse what costs too much, or what `re` reads otherwise. Inside a set a parenthesis may open, never close."""
    depth = sets = 0
    copies = 1
    for found in _TOKEN.finditer(pattern):
        token = found[0]
        if token == "{":
            copies *= _least(pattern, found.start())
        elif token == "(":
            if not _GROUP.match(pattern, found.start()):
                raise AdapterFileError(f"{_FILE} {short(pattern)}: its kind of group is not supported")
            depth += 1
        elif token == ")":
            depth -= depth > 0 and not sets
        elif token[0] in "[]":
            sets = max(0, sets + (1 if token[0] == "[" else -1))
        if depth > MAX_DEPTH or copies > MAX_COPIES:
            raise AdapterFileError(f"{_FILE} {short(pattern)}: make it shorter and flatter")


def _least(pattern: str, position: int) -> int:
    """How often what is before a count must at least be there."""
    count = _COUNT.match(pattern, position)
    if count is None:
        raise AdapterFileError(f"{_FILE} {short(pattern)}: its braces hold no plain count")
    return max(1, int(count[1][:9] or 0))
