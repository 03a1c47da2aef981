"""Log lines, as text or as JSON. What strangers wrote in a name or a body begins no line and steers no terminal."""

import json
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

from app.observe.exchange import current

_PLAIN = re.compile(r"[\w.,:;@/+{}()%*-]+", re.ASCII)
_INDENT = "    "


def configure(form: Literal["text", "json"], level: str) -> None:
    """Have every logger of this process, uvicorn's too, write to the standard error in one form."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.basicConfig(handlers=[handler], force=True)
    logging.getLogger("lorat").setLevel(level.upper())
    logging.captureWarnings(True)


class TextLines(logging.Formatter):
    """`TIME LEVEL REQUEST-ID MESSAGE name=value …`; the lines of a traceback follow, indented."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and indented ones."""
        fields = "".join(f" {name}={_quote(str(value))}" for name, value in _fields(record).items())
        head = f"{_time(record)} {record.levelname} {current().id} {escape(record.getMessage().strip())}{fields}"
        return "\n".join([head, *(_INDENT + escape(line) for line in _traceback(self, record))])


class JsonLines(logging.Formatter):
    """One JSON object a line, in ASCII: what is not is escaped, and reads back as it was."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        entry: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage().strip(),
            "request_id": current().id,
            **_fields(record),
        }
        if traceback := "\n".join(_traceback(self, record)):
            entry["exception"] = traceback
        return _json(entry)


def escape(text: str) -> str:
    """Text without what is not printable: line breaks of any script, control and direction characters, surrogates."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _quote(value: str) -> str:
    return value if _PLAIN.fullmatch(value) else _json(value)


def _json(value: object) -> str:
    return json.dumps(value, default=str).replace("\x7f", "\\u007f")  # the one control character that JSON leaves


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """Given as `extra={"fields": …}`."""
    return getattr(record, "fields", {})


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> Iterator[str]:
    if record.exc_info:
        yield from formatter.formatException(record.exc_info).splitlines()
    if record.stack_info:
        yield from formatter.formatStack(record.stack_info).splitlines()
