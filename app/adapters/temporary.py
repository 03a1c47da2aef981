"""Room in the temporary directory, where uploads and downloads lie while they are under way."""

from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import NoRoomError
from lorat.files.out import DISK_FULL


@contextmanager
def temporary_room() -> Iterator[None]:
    """Turn the system's word that there is no room into NoRoomError."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise NoRoomError("the server's temporary directory is full: try again later, or give it more room") from error
