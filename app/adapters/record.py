"""An adapter's record: the facts that `/adapters` shows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from app.store.catalog import Version
from lorat import Adapter
from lorat.adapter import Head


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
        "layers": sorted({site.layer for site in adapter.lora}),
        "head": adapter.head and _head(adapter.head),
        "labels": list(adapter.head.labels) if adapter.head else None,
        "recipe": adapter.recipe.to_json() if adapter.recipe else None,
        "parameters": adapter.parameters,
        "bytes": sum((directory / path).stat().st_size for path in files),
    }


def _head(head: Head) -> dict[str, Any]:
    """`kind`: how its logits become scores."""
    return {"labels": len(head.labels), "kind": "sigmoid" if head.independent else "softmax"}


def show(version: Version, settings: Mapping[str, Any], damage: str | None = None) -> dict[str, Any]:
    """A version's whole record, with the settings of its name; `damaged` only where it cannot be served."""
    identity = {"name": version.name, "version": version.version, "digest": f"sha256:{version.digest}"}
    damaged = {"damaged": damage} if damage else {}
    return {**identity, **version.record, "created": version.created, **settings, **damaged}
