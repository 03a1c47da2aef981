"""The header of a safetensors file, read strictly before the library opens it.

    <length, 8 bytes little endian> {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, …} <data>

safetensors' own parser takes the last of two tensors with one name, leaves unknown fields alone, and allows a
header of 100 MB. What it checks besides (overlaps, holes, sizes that do not fit) stays with it.
"""

import struct
from pathlib import Path
from typing import Any

from lorat.errors import AdapterFileError
from lorat.files.json_file import parse_json, short

MAX_HEADER_BYTES = 1 << 20
_FIELDS = {"dtype", "shape", "data_offsets"}


def read_header(path: Path, name: str) -> tuple[dict[str, dict[str, Any]], int]:
    """The entries of the header by tensor, their values unchecked, and where in the file the data begins.

    Raises AdapterFileError, which calls the file `name`, for a header that is missing, too large or ambiguous.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else None
            if length is None or length > size - 8:
                raise AdapterFileError(f"{name} is not a whole safetensors file: it ends inside its header")
            if length > MAX_HEADER_BYTES:
                raise AdapterFileError(f"{name} has a header of {length} bytes, the limit is {MAX_HEADER_BYTES}")
            header = parse_json(file.read(length), dict, f"{name}: its header")
    except FileNotFoundError as error:
        raise AdapterFileError(f"{name} is missing") from error
    except OSError as error:
        raise AdapterFileError(f"{name} cannot be read: {error.strerror}") from error
    _check_metadata(header.pop("__metadata__", {}), name)
    for key, entry in header.items():
        if not isinstance(entry, dict) or set(entry) != _FIELDS:
            raise AdapterFileError(f"{name}: the header's entry {short(key)} must have dtype, shape and data_offsets")
    return header, 8 + length


def _check_metadata(metadata: Any, name: str) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise AdapterFileError(f"{name}: the header's __metadata__ must map names to texts")
