"""Room in the temporary directory, where uploads and downloads lie while they are under way."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import NoRoomError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def temporary_room() -> Iterator[None]:
    """Turn the system's word that there is no room into NoRoomError."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise NoRoomError("the server's temporary directory is full: try again later, or give it more room") from error
