"""Files of rows that have the fields of some kind of data, each checked; `read_rows` reads the rows themselves.

Whatever could mean two things, or nothing, is refused with its file and line.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorat.errors import ConfigError
from lorat.files.json_file import short
from lorat.training.rows import is_table, read_rows

FIELDS = (
    ("text", "label"),
    ("text", "labels"),
    ("tokens", "tags"),
    ("text_a", "text_b"),
    ("sentence1", "sentence2"),
    ("anchor", "positive"),
    ("query", "positive"),
)
"""The fields that make a row, one of these; pairs of texts may have a `score` as well."""
SCORE = "score"
_PAIRS = FIELDS[3:]
_NAMES = {name for fields in FIELDS for name in fields} | {SCORE}
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)


@dataclass(frozen=True)
class FieldRows:
    """The rows of a file, all of one kind.

    name: the file's. fields: one of FIELDS, for pairs perhaps with `score`. lines: where each row starts.
    values: of each row, in the order of `fields`: texts; for `label`, `labels`, `tokens` and `tags` tuples of texts;
    for `score` a float.
    """

    name: str
    fields: tuple[str, ...]
    lines: tuple[int, ...]
    values: tuple[tuple[Any, ...], ...]


def read_fields(path: Path, columns: Mapping[str, str]) -> FieldRows:
    """The rows of a file, each checked. columns: the name in the file of a field that has another there.

    Raises ConfigError, naming the file and the line, for a row that cannot be honoured.
    """
    table, values, first = is_table(path), [], None
    rows = read_rows(path)
    for line, row in rows:
        place = f"{path.name}, line {line}"
        fields = _fields_of(row, columns, place)
        first = first or fields
        if fields != first:
            raise ConfigError(f"{place}: {listed(fields)} after rows of {listed(first)}: give rows of one kind")
        sources = {name: columns.get(name, name) for name in first}
        values.append(_values_of(row, sources, place, table=table))
    if table:
        _check_columns(sources, zip(*values, strict=True), path.name)
    return FieldRows(path.name, fields, tuple(line for line, _ in rows), tuple(values))


def find_file(directory: Path, names: Sequence[str]) -> Path | None:
    """The file of a directory that has one of these names before its ending, whatever that is; None without one.

    Raises ConfigError where there are two.
    """
    try:
        found = sorted(path for path in directory.iterdir() if path.suffix and path.name.partition(".")[0] in names)
    except OSError as error:
        raise ConfigError(f"{directory} cannot be read: {error.strerror}") from error
    if len(found) > 1:
        raise ConfigError(f"{directory} has {found[0].name} and {found[1].name}: keep one of them")
    return found[0] if found else None


def listed(names: Sequence[str]) -> str:
    """Names, fit for a message."""
    most = 12
    shown = ", ".join(name if name.isidentifier() and len(name) < 40 else short(name, 40) for name in names[:most])
    return (shown or "none") + (f" and {len(names) - most} more" if len(names) > most else "")


def choice(fields: Iterable[Sequence[str]]) -> str:
    """Some of FIELDS, fit for a message."""
    return " | ".join(" + ".join(names) for names in fields)


def _fields_of(row: Mapping[str, Any], columns: Mapping[str, str], place: str) -> tuple[str, ...]:
    """The one of FIELDS that a row has, with `score` where a pair has it.

    columns: which field is read in place of one of these. Raises ConfigError, which calls the row `place`.
    """
    unknown = next((name for name in columns if name not in _NAMES), None)
    if unknown is not None:
        raise ConfigError(f"columns has {short(unknown)}, which is not read: the fields are {listed(sorted(_NAMES))}")
    has = {name for name in _NAMES if columns.get(name, name) in row}
    found = [(*fields, SCORE) if fields in _PAIRS and SCORE in has else fields for fields in FIELDS if has >= {*fields}]
    found = [fields for fields in found if {*fields} >= {*columns}]
    if len(found) != 1:
        asked = "".join(f", {short(source)} as {name}" for name, source in columns.items())
        problem = f"{place}: its fields are {listed([*row])}"
        problem += f": {'two kinds of row' if found else 'no row'}; read are {choice(FIELDS)}{asked}"
        mixed = "separate columns by commas or by semicolons alone, " if any(";" in name for name in row) else ""
        raise ConfigError(f"{problem}: {mixed}rename yours, or say which is which (--column text=FIELD)")
    if found[0] in _PAIRS and "label" in row:
        raise ConfigError(f"{place}: a pair with a label: say which column is read as score, or take the label away")
    return found[0]


def _values_of(row: Mapping[str, Any], sources: Mapping[str, str], place: str, *, table: bool) -> tuple[Any, ...]:
    """The checked values of a row's fields, in the order of `sources` (field: name in the row)."""
    if "tokens" in sources and table:
        raise ConfigError(f"{place}: tokens and tags are read from JSON lines only: give a .jsonl file")
    values = [_value(name, row[source], f"{place}: {short(source)}", table) for name, source in sources.items()]
    if "tokens" in sources and not len(values[0]) == len(values[1]) > 0:
        raise ConfigError(f"{place}: {len(values[0])} tokens and {len(values[1])} tags: give one tag to each token")
    return tuple(values)


def _check_columns(sources: Mapping[str, str], columns: Iterable[Sequence[Any]], file: str) -> None:
    """Refuse, with ConfigError, the columns of a table that hold numbers where texts or labels are meant."""
    for (name, source), values in zip(sources.items(), columns, strict=True):
        problem = f"{file}: every row of the column {short(source)} is a number"
        if name == "label" and all(_is_number(label) for (label,) in values):
            if not all(_is_number(label, whole=True) for (label,) in values):
                raise ConfigError(f"{problem}, not all whole: it looks like a score, not like a label")
        elif name not in ("label", "labels", SCORE) and all(map(_is_number, values)):
            raise ConfigError(f"{problem}: say which column is read as {name}")


def _value(name: str, value: Any, what: str, table: bool) -> Any:
    if name == SCORE:
        return _as_number(value, what, table=table)
    if name in ("labels", "tokens", "tags"):
        return _as_texts(value, what, table=table)
    text = _as_text(value, what)
    return (text.strip() if table else text,) if name == "label" else text


def _as_text(value: Any, what: str) -> str:
    """A value that is a text and not blank; errors call it `what`."""
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, int | float):
        raise ConfigError(f"{what} must be a text, it is {json.dumps(value)}: put it in quotes")
    raise ConfigError(f"{what} must be a text that is not blank, it is {short(value)}")


def _as_texts(value: Any, what: str, *, table: bool) -> tuple[str, ...]:
    """A list of texts, which may be empty; in a table a text that is split at "|"."""
    if table:
        value = [part.strip() for part in value.split("|")] if value.strip() else []
    if not isinstance(value, list):
        raise ConfigError(f"{what} must be a list of texts, it is {short(value)}")
    return tuple(_as_text(item, f"{what}: each") for item in value)


def _as_number(value: Any, what: str, *, table: bool) -> float:
    """A finite number; in a table a text that is one."""
    if table and _is_number(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        point = ": write it with a point" if table and "," in str(value) else ""
        raise ConfigError(f"{what} must be a finite number, it is {short(value)}{point}")
    return float(value)


def _is_number(text: str, *, whole: bool = False) -> bool:
    """Whether a text is a number written in digits, or a whole one."""
    return (_WHOLE if whole else _NUMBER).fullmatch(text.strip()) is not None
