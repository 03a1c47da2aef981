"""JSON that comes from strangers: one value for each name, plain numbers and plain text, neither deep nor large."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from lorat.errors import AdapterFileError

MAX_BYTES = 4 << 20
MAX_DEPTH = 32
_MAX_DIGITS = 40  # transformers writes 1000000000000000019884624838656 for "no limit"
_SURROGATE = re.compile("[\\ud800-\\udfff]")


def read_json(path: Path, kind: type[Any]) -> Any:
    """The JSON value in a file. Raises AdapterFileError unless it is readable and of that kind."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise AdapterFileError(f"{path.name} is over the limit of {MAX_BYTES} bytes for a JSON file")
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise AdapterFileError(f"{path.name} is missing") from error
    except OSError as error:
        raise AdapterFileError(f"{path.name} cannot be read: {error.strerror}") from error
    return parse_json(content, kind, path.name)


def parse_json(content: bytes, kind: type[Any], name: str) -> Any:
    """The JSON value in some bytes. Raises AdapterFileError, which calls them `name`, unless it is of that kind."""
    try:
        value = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_int=_whole,
            parse_float=_number,
        )
    except UnicodeDecodeError as error:
        raise AdapterFileError(f"{name} is not valid JSON: it is not UTF-8 at byte {error.start}") from error
    except RecursionError as error:
        raise AdapterFileError(f"{name} is not valid JSON for LoRAT: it is deeper than {MAX_DEPTH} levels") from error
    except ValueError as error:
        raise AdapterFileError(f"{name} is not valid JSON: {error}") from error
    _check_values(value, name)
    if not isinstance(value, kind):
        raise AdapterFileError(f"{name} must hold a JSON {'object' if kind is dict else 'list'}")
    return value


def short(value: Any, longest: int = 60) -> str:
    """A value from a file, fit for a message."""
    text = repr(value[:longest] if isinstance(value, str) else value)
    return text if len(text) <= longest else text[: longest - 3] + "..."


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the name {short(twice)} is there twice")
    return value


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number in JSON")


def _whole(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"the number {text[:20]}… has more than {_MAX_DIGITS} digits")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _check_values(value: Any, name: str) -> None:
    """Refuse what is too deep, and half surrogate pairs, which no answer could be encoded with."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            _check_texts([item] if isinstance(item, str) else item if isinstance(item, dict) else (), name)
            if isinstance(item, dict | list):
                below += item.values() if isinstance(item, dict) else item
        if not below:
            return
        level = below
    raise AdapterFileError(f"{name} is not valid JSON for LoRAT: it is deeper than {MAX_DEPTH} levels")


def _check_texts(texts: Iterable[str], name: str) -> None:
    for text in texts:
        if not text.isascii() and _SURROGATE.search(text):
            raise AdapterFileError(f"{name} is not valid JSON: {short(text)} holds half of a surrogate pair")
