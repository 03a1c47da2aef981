"""What runs next. Pure: it knows neither torch nor asyncio nor threads.

First come, first served, up to a token budget and a number of different adapters. A piece of work that does
not fit because of its adapter keeps its place while later ones may pass; the head of the queue always fits.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, Protocol, TypeVar


class Work(Protocol):
    """One input: its size in tokens and its adapter (None: the base, which needs no slot)."""

    @property
    def size(self) -> int:
        """Tokens."""

    @property
    def adapter(self) -> Hashable | None:
        """What counts as one adapter."""


W = TypeVar("W", bound=Work)


class Queue(Generic[W]):
    """Waiting work, in the order it came."""

    def __init__(self, max_tokens: int, max_adapters: int) -> None:
        """`max_tokens` of one batch (a single larger input runs alone), `max_adapters` different ones in it."""
        self.max_tokens = max_tokens
        self.max_adapters = max_adapters
        self._waiting: deque[W] = deque()
        self.tokens = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, work: Iterable[W]) -> None:
        """Add work at the end."""
        for item in work:
            self._waiting.append(item)
            self.tokens += item.size

    def take(self, claim: Callable[[W], bool] = lambda _: True, share: int | None = None) -> list[W]:
        """Remove and return the next batch, of at most `share` tokens where others take from the same queue.

        Work for which `claim` is false (cancelled) is dropped.
        """
        limit = self.max_tokens if share is None else min(share, self.max_tokens)
        batch: list[W] = []
        passed: list[W] = []
        tokens = 0
        adapters: set[Hashable] = set()
        while self._waiting and (not batch or tokens + self._waiting[0].size <= limit):
            item = self._waiting.popleft()
            if len(adapters | {item.adapter} - {None}) > self.max_adapters:
                passed.append(item)
                continue
            self.tokens -= item.size
            if claim(item):
                batch.append(item)
                tokens += item.size
                adapters |= {item.adapter} - {None}
        self._waiting.extendleft(reversed(passed))
        return batch

    def clear(self) -> list[W]:
        """Remove and return everything."""
        everything = list(self._waiting)
        self._waiting.clear()
        self.tokens = 0
        return everything
