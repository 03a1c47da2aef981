"""Names that one process does not serve, though the store has them."""

from app.adapters.registry import Registry


class Unloaded:
    """Holds a name until it is let go, or the store has a version of it that is newer than it was then."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._highest: dict[str, int] = {}

    def add(self, name: str) -> None:
        """Hold a name, with all versions that it has had so far."""
        self._highest[name] = self._registry.catalog.next_version(name) - 1

    def discard(self, name: str) -> None:
        """Let go of a name."""
        self._highest.pop(name, None)

    def __contains__(self, name: object) -> bool:
        """Whether a name is held. One that is not there at all is not: it may have been made anew elsewhere."""
        if not isinstance(name, str) or name not in self._highest:
            return False
        newest = self._registry.catalog.newest(name)
        return newest is not None and newest.version <= self._highest[name]
