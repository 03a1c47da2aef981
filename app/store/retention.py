"""Retention: ends every version of a name but its newest ones."""

from typing import Any

from app.store.adapter_log import AdapterLog
from app.store.catalog import Catalog
from app.store.entries import now


def end_old_versions(log: AdapterLog, name: str, keep: int) -> int:
    """End every version of `name` but its `keep` newest; how many those were. Raises StoreError."""
    return sum(_end_oldest(log, name, keep) for _ in log.catalog.versions(name)[keep:])


def _end_oldest(log: AdapterLog, name: str, keep: int) -> bool:
    """End the oldest version of a name if it has more than `keep`; whether it had."""

    def decide(catalog: Catalog) -> dict[str, Any] | None:
        beyond = catalog.versions(name)[keep:]
        return {"op": "delete", "name": name, "version": beyond[-1].version, "created": now()} if beyond else None

    return log.commit(decide) is not None
