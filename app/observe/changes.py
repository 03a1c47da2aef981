"""A log line for each change of an adapter that succeeded. The line's request id says which request it was."""

import logging

from app.observe.exchange import current
from app.store.catalog import Version

logger = logging.getLogger("lorat")


def note_change(change: str, version: Version, **more: object) -> None:
    """change: what became of it, as `uploaded`. version: the one that it is about. more: what else is to be said."""
    fields = {"adapter": version.reference, "digest": f"sha256:{version.digest}", **more}
    if key := current().key:
        fields["key"] = key
    logger.info("adapter %s", change, extra={"fields": fields})
