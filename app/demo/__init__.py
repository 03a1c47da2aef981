"""The demo adapters that come with LoRAT, each in a directory of its own with a model card."""

import logging
from pathlib import Path

from app.adapters.changes import Changes
from app.errors import InvalidRequestError, TooLargeError
from app.store.catalog import Catalog
from lorat.errors import AdapterError, BaseMismatchError, LoratError, ProbeError

logger = logging.getLogger("lorat")
DIRECTORY = Path(__file__).parent
_SETTINGS: dict[type[LoratError], str] = {
    InvalidRequestError: "LORAT_SERVED_NAME",
    TooLargeError: "LORAT_MAX_UPLOAD_BYTES",
    ProbeError: "LORAT_DTYPE",
    AdapterError: "LORAT_MAX_RANK",
}
"""Which setting an adapter that is whole is refused by; the first whose error it is."""


def import_demos(changes: Changes, catalog: Catalog) -> None:
    """Upload the demo adapters into a store that never held anything: a deleted demo stays deleted.

    All are checked before the first is uploaded. Those that do not fit the settings are left out; on another base
    than theirs, all of them. Raises StoreError.
    """
    if catalog.ever_used:
        return
    directories = sorted(path.parent for path in DIRECTORY.glob("*/adapter_config.json"))
    try:
        fitting = [directory for directory in directories if _fits(changes, directory)]
    except BaseMismatchError:
        logger.info("the demo adapters are for the embedded base and were left out")
        return
    for directory in fitting:
        changes.upload(directory.name, _files(directory))


def _fits(changes: Changes, directory: Path) -> bool:
    """Whether the settings let a demo in. Raises BaseMismatchError."""
    try:
        changes.upload(directory.name, _files(directory), dry_run=True)
    except BaseMismatchError:
        raise
    except tuple(_SETTINGS) as error:
        setting = next(setting for kind, setting in _SETTINGS.items() if isinstance(error, kind))
        logger.warning("the demo adapter %s is left out, by %s: %s", directory.name, setting, error)
        return False
    return True


def _files(directory: Path) -> list[tuple[str, Path]]:
    return [(str(path.relative_to(directory)), path) for path in sorted(directory.rglob("*")) if path.is_file()]
