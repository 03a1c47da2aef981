"""Where a result may go: a directory that is new or empty, in a place that can be written to; writes that fail."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from lorat.errors import ConfigError

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""The system's numbers for want of space."""
_OS_ERROR = re.compile(r"os error (\d+)")  # as safetensors writes one


def check_out(out: Path) -> None:
    """Raise ConfigError for a place that is taken, or where no directory can be made."""
    place = Path(os.path.abspath(out))
    try:
        taken = place.is_symlink() or (place.exists() and (not place.is_dir() or any(place.iterdir())))
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror}: give another directory") from error
    if taken:
        raise ConfigError(f"{out} is there already: give a directory that is new or empty")
    if place == Path.cwd():
        raise ConfigError(f"{out} is the directory you are in: give another one, that is new or empty")
    above = next(path for path in place.parents if os.path.lexists(path))
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise ConfigError(f"{out} cannot be written in {above}: give another directory")


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """A write that fails in here is a ConfigError, and leaves no empty directory at `out` that was not there."""
    there = out.exists()
    try:
        yield
    except BaseException as error:
        if not there:
            with suppress(OSError):
                out.rmdir()
        if (reason := _reason(error)) is None:
            raise
        raise ConfigError(f"{out} cannot be written: {reason}: free some space, or give another directory") from error


def errno_of(error: BaseException) -> int | None:
    """The system's number for a write that failed; None for another error."""
    if isinstance(error, OSError):
        return error.errno
    number = _OS_ERROR.search(str(error)) if isinstance(error, SafetensorError) else None
    return int(number[1]) if number else None


def _reason(error: BaseException) -> str | None:
    """What the system said of a write; None for another error."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    number = errno_of(error)
    return None if number is None else os.strerror(number)
