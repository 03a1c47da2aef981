"""Rows of JSON lines or of a table with a header (CSV, TSV), each with the number of the line it starts at.

A `.csv` whose header has semicolons and no comma is separated by semicolons. What is no row is refused with its file
and line.
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lorat.errors import AdapterFileError, ConfigError
from lorat.files.json_file import parse_json, short

MAX_BYTES = 1_000_000
"""A row may have as many bytes, its line end counted."""
SEPARATORS = {".csv": ",", ".tsv": "\t"}
ENDINGS = (".jsonl", ".ndjson", ".json", *SEPARATORS)
"""The endings of file names that are read; the first three are JSON lines."""
_BOM = b"\xef\xbb\xbf"
_QUOTED = re.compile(rb'"[^"]*"?')

_T = TypeVar("_T")


def read_rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """(number of the line where it starts, fields by name) of each row; the values of a table are texts.

    Raises ConfigError, naming the file and the line, for what cannot be read; blank lines may stand at the end only.
    """
    try:
        if not path.is_file():
            raise ConfigError(f"{path} is {'not a file' if path.exists() else 'missing'}")
        if path.suffix.lower() not in ENDINGS:
            raise ConfigError(f"{path.name} is not read: its name must end in one of {', '.join(ENDINGS)}")
        rows = list(_table_rows(path) if is_table(path) else _json_rows(path))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    if not rows:
        raise ConfigError(f"{path.name} has no rows")
    return rows


def is_table(path: Path) -> bool:
    """Whether a file is a table (CSV, TSV), where every value is a text, and not JSON lines."""
    return path.suffix.lower() in SEPARATORS


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(number, line with its end) of each line, without a byte order mark."""
    number = 0
    with path.open("rb") as file:
        while line := file.readline(MAX_BYTES + 1):
            number += 1
            if len(line) > MAX_BYTES:
                raise ConfigError(f"{path.name}, line {number}: it is over the limit of {MAX_BYTES} bytes")
            if b"\0" in line:
                raise ConfigError(f"{path.name}, line {number}: it has a NUL byte: save the file as UTF-8 text")
            yield number, line.removeprefix(_BOM) if number == 1 else line


def _filled(path: Path, rows: Iterator[tuple[int, _T]]) -> Iterator[tuple[int, _T]]:
    """The rows without blank ones at the end. Raises ConfigError for a blank one before another."""
    blank = 0
    for number, row in rows:
        if not row:
            blank = blank or number
        elif blank:
            raise ConfigError(f"{path.name}, line {blank}: it is blank: remove it")
        else:
            yield number, row


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    stripped = ((number, line.strip(b" \t\r\n")) for number, line in _lines(path))
    for number, line in _filled(path, stripped):
        yield number, _parse_object(line, f"{path.name}, line {number}")


def _parse_object(line: bytes, place: str) -> dict[str, Any]:
    try:
        row: dict[str, Any] = parse_json(line, dict, place)
    except AdapterFileError as error:
        cause = error.__cause__
        if isinstance(cause, json.JSONDecodeError):  # its message counts lines within this one
            problem = f"{cause.msg}, at character {cause.pos + 1}"
            raise ConfigError(f"{place}: not JSON: {problem}: give one object a line") from error
        raise ConfigError(str(error)) from error
    return row


def _table_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    records = _filled(path, _records(path))
    _, header = next(records, (1, []))
    _check_header(header, path.name)
    for number, record in records:
        if len(record) != len(header):
            raise ConfigError(f"{path.name}, line {number}: {len(record)} values for the header's {len(header)} names")
        yield number, dict(zip(header, record, strict=True))


def _check_header(header: Sequence[str], file: str) -> None:
    for name, count in Counter(header).items():
        if not name.strip():
            raise ConfigError(f"{file}, line 1: a column has no name")
        if count > 1:
            raise ConfigError(f"{file}, line 1: {count} columns have the name {short(name)}")


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(number of the line where it starts, values) of each record, the header first; a blank line has no values."""
    start, size = 1, 0

    def fed() -> Iterator[str]:
        nonlocal size
        for number, line in _lines(path):
            size += len(line)
            if size > MAX_BYTES:
                raise ConfigError(f"{path.name}, line {start}: its record is over the limit of {MAX_BYTES} bytes")
            yield _decoded(line, f"{path.name}, line {number}")

    # the limit is the process's, and lower than a record may be; it is only ever raised
    csv.field_size_limit(max(csv.field_size_limit(), MAX_BYTES))
    reader = csv.reader(fed(), delimiter=_separator(path), strict=True)
    try:
        for record in reader:
            yield start, record
            start, size = reader.line_num + 1, 0
    except csv.Error as error:
        raise ConfigError(f"{path.name}, line {start}: not a record of a table: {error}") from error


def _separator(path: Path) -> str:
    """What is between the values. Excel writes semicolons into a .csv where a comma is the decimal sign."""
    usual = SEPARATORS[path.suffix.lower()]
    _, header = next(_lines(path), (1, b""))
    names = _QUOTED.sub(b"", header)
    return ";" if usual == "," and b";" in names and b"," not in names else usual


def _decoded(line: bytes, place: str) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{place}: not UTF-8 at byte {error.start + 1}: save the file as UTF-8") from error
