"""JSON files that come from strangers."""

import json
from pathlib import Path
from typing import Any

from lorat.errors import AdapterFileError


def read_json(path: Path, kind: type[Any]) -> Any:
    """The JSON value in a file. Raises AdapterFileError unless it is readable and of that kind."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise AdapterFileError(f"{path.name} is missing") from error
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterFileError(f"{path.name} is not valid JSON: {error}") from error
    if not isinstance(value, kind):
        raise AdapterFileError(f"{path.name} must hold a JSON {'object' if kind is dict else 'list'}")
    return value
