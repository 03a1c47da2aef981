"""How often each adapter version was asked for, since this process started."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from app.store.entries import now


@dataclass(frozen=True)
class Use:
    """`requests` so far, and when the last one came: ISO 8601 in UTC, None for never."""

    requests: int = 0
    last_used: str | None = None


class Usage:
    """A `Use` for each `name@version`. Safe to use from any thread."""

    def __init__(self) -> None:
        self._uses: dict[str, Use] = {}
        self._lock = threading.Lock()

    def note(self, reference: str) -> None:
        """Count one request for `name@version`."""
        with self._lock:
            self._uses[reference] = Use(self.of(reference).requests + 1, now())

    def of(self, reference: str) -> Use:
        """The use of `name@version` so far."""
        return self._uses.get(reference, Use())

    def keep(self, there: Callable[[str], bool]) -> None:
        """Forget the versions that are not `there` any more."""
        with self._lock:
            self._uses = {reference: use for reference, use in self._uses.items() if there(reference)}
