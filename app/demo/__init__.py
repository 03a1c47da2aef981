"""The demo adapters that come with LoRAT, each in a directory of its own with a model card."""

import logging
from pathlib import Path

from app.adapters.changes import Changes
from app.store.catalog import Catalog
from lorat.errors import BaseMismatchError

logger = logging.getLogger("lorat")
DIRECTORY = Path(__file__).parent


def import_demos(changes: Changes, catalog: Catalog) -> None:
    """Upload the demo adapters into a store that never held anything: a deleted demo stays deleted.

    On another base than theirs they are left out.
    """
    if catalog.ever_used:
        return
    for directory in sorted(path.parent for path in DIRECTORY.glob("*/adapter_config.json")):
        files = [(str(path.relative_to(directory)), path) for path in sorted(directory.rglob("*")) if path.is_file()]
        try:
            changes.upload(directory.name, files)
        except BaseMismatchError:
            logger.info("the demo adapters are for the embedded base and were left out")
            return
