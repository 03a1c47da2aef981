"""Limits from the settings: of each key and each adapter, where they are set, of transfers, and of large answers."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from app.access.answer_room import AnswerRoom
from app.access.quota import Places, Rates
from app.errors import OverloadedError
from app.settings import Settings


class Limit:
    """How often and how many at once, of one kind. A whole request passes, or nothing of it is counted."""

    def __init__(self, kind: str, per_second: float | None, at_once: int | None) -> None:
        """kind: `key` or `adapter`, as the settings' names end."""
        self._kind = kind
        self._per_second, self._at_once = per_second, at_once
        self._rates = Rates(per_second) if per_second else None
        self._places = Places(at_once) if at_once else None

    @contextmanager
    def held(self, whom: Sequence[str]) -> Iterator[None]:
        """Count a request of these as long as it lasts. Raises OverloadedError, which names the limit."""
        if self._rates is None and self._places is None:
            yield
            return
        self._check(whom)
        if self._rates is not None:
            now = time.perf_counter()
            for who in whom:
                self._rates.take(who, now)
        if self._places is None:
            yield
            return
        self._places.enter(whom)
        try:
            yield
        finally:
            self._places.leave(whom)

    def _check(self, whom: Sequence[str]) -> None:
        now = time.perf_counter()
        for who in whom:
            if self._places is not None and self._places.full(who):
                raise OverloadedError(
                    f"{self._kind} {who!r} has {self._at_once} requests running, the most it may have "
                    f"(max_concurrent_per_{self._kind}): wait for one of them"
                )
            if self._rates is not None and (wait := self._rates.wait(who, now)):
                raise OverloadedError(
                    f"{self._kind} {who!r} may ask {self._per_second:g} times a second "
                    f"(requests_per_second_per_{self._kind}): ask less often",
                    retry_after=math.ceil(wait),
                )


class AtOnce:
    """So many at once of what takes room in the temporary directory. Used from one thread."""

    def __init__(self, kind: str, most: int) -> None:
        self._kind, self._most, self._running = kind, most, 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Count one as long as it lasts. Raises OverloadedError."""
        if self._running >= self._most:
            raise OverloadedError(
                f"{self._running} {self._kind} are under way, the most at once here (max_concurrent_transfers): "
                "try again later"
            )
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1


class Limits:
    """Those of keys and adapters, of what is sent here and fetched from here, and of large answers."""

    def __init__(self, settings: Settings) -> None:
        self.keys = Limit("key", settings.requests_per_second_per_key, settings.max_concurrent_per_key)
        self.adapters = Limit("adapter", settings.requests_per_second_per_adapter, settings.max_concurrent_per_adapter)
        self.uploads = AtOnce("uploads", settings.max_concurrent_transfers)
        self.downloads = AtOnce("downloads", settings.max_concurrent_transfers)
        self.token_vectors = AnswerRoom(settings.max_embed_all_bytes)
