"""Who asks. Pure."""

import math
from dataclasses import dataclass

from app.errors import ForbiddenError
from app.names import BASE, name_of


@dataclass(frozen=True)
class Caller:
    """Made once per request, and kept at `request.state.caller`."""

    key: str
    """Which key, by scope and place: `api-0`. Never the key itself."""
    opens: tuple[str, ...] | None
    """Patterns of the names it opens beside the base; None: all."""
    admin: bool
    """Whether it may change adapters."""
    deadline: float = math.inf
    """When the answer is of no use any more, by `time.perf_counter`."""

    def may(self, name: str) -> bool:
        """Whether it opens the adapters of this name."""
        return self.opens is None or name == BASE or any(_matches(name, pattern) for pattern in self.opens)

    def require(self, reference: str) -> None:
        """Let `name` or `name@version` pass. Raises ForbiddenError, whether or not there is such an adapter."""
        if not self.may(name_of(reference)):
            raise ForbiddenError(f"this key opens only {', '.join(self.opens or ())}: ask for one of these names")


ANYONE = Caller("anyone", None, admin=True)


def _matches(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
