"""How often, and how many at once, one of many may ask. Pure: the clock is an argument, in seconds."""

from collections import Counter
from collections.abc import Hashable, Sequence

_SWEEP_FROM = 64
_ROUNDING = 1e-7  # seconds


class Rates:
    """A token bucket for each: so many requests a second, of which one second's worth, at least one, may come at once.

    Only who asked lately is remembered: a bucket that is full again is forgotten.
    """

    def __init__(self, per_second: float) -> None:
        self._interval = 1 / per_second
        self._burst = (max(1.0, per_second) - 1) * self._interval
        self._due: dict[Hashable, float] = {}
        """When each one's bucket is full again."""
        self._sweep_at = _SWEEP_FROM

    def __len__(self) -> int:
        return len(self._due)

    def wait(self, who: Hashable, now: float) -> float:
        """Seconds until this one may ask; 0: at once."""
        wait = self._due.get(who, now) - now - self._burst
        return wait if wait > _ROUNDING else 0.0

    def take(self, who: Hashable, now: float) -> None:
        """Count one request."""
        self._due[who] = max(now, self._due.get(who, now)) + self._interval
        if len(self._due) >= self._sweep_at:
            self._due = {one: due for one, due in self._due.items() if due > now}
            self._sweep_at = max(_SWEEP_FROM, 2 * len(self._due))


class Places:
    """So many at once for each."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: Counter[Hashable] = Counter()

    def __len__(self) -> int:
        return len(self._taken)

    def full(self, who: Hashable) -> bool:
        """Whether this one has as many as it may."""
        return self._taken[who] >= self._most

    def enter(self, whom: Sequence[Hashable]) -> None:
        """Count one more for each."""
        self._taken.update(whom)

    def leave(self, whom: Sequence[Hashable]) -> None:
        """Count one less for each; who has none is forgotten."""
        for who in whom:
            self._taken[who] -= 1
            if not self._taken[who]:
                del self._taken[who]
