"""An adapter's record: the facts that `/adapters` shows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from app.catalog import Version
from lorat import Adapter


def make_record(adapter: Adapter, directory: Path, files: Sequence[str]) -> dict[str, Any]:
    """What is true of an adapter's content, whatever its name."""
    return {
        "description": adapter.description,
        "tags": list(adapter.tags),
        "base_match": "verified" if adapter.base_id else "unknown",
        "task": adapter.task,
        "rank": adapter.rank,
        "alpha": adapter.alpha,
        "targets": list(adapter.targets),
        "labels": list(adapter.head.labels) if adapter.head else None,
        "recipe": adapter.recipe.to_json() if adapter.recipe else None,
        "parameters": adapter.parameters,
        "bytes": sum((directory / path).stat().st_size for path in files),
    }


def show(version: Version) -> Mapping[str, Any]:
    """A version's whole record."""
    identity = {"name": version.name, "version": version.version, "digest": f"sha256:{version.digest}"}
    return {**identity, **version.record, "created": version.created}
