"""Where a result may go: a directory that is new or empty, in a place that can be written to."""

import os
from pathlib import Path

from lorat.errors import ConfigError


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
