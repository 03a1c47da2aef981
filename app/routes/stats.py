"""What of an adapter changes by itself: `GET /adapters/{name}/stats`."""

from typing import Any

from app.service import Service
from app.store.catalog import Version


def stats_of(service: Service, version: Version) -> dict[str, Any]:
    """A version in this process: where its content is, whether its weights are merged, and its use since the start."""
    use = service.usage.of(version.reference)
    return {
        "name": version.name,
        "version": version.version,
        "resident": _resident(service, version.digest),
        "merged": service.engine.merged(version.digest),
        "requests": use.requests,
        "last_used": use.last_used,
    }


def _resident(service: Service, digest: str) -> str:
    if service.engine.content(digest):
        return "device"
    return "host" if digest in service.registry.cache else "store"
