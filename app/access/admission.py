"""Whether there is room for a request: a whole one or none of it. Pure: the clock is an argument, in seconds.

What is admitted counts from then on, tokenised or not, by an estimate of its tokens. How long a request would wait is
these tokens at the measured pace; as adapters take turns, a request for one with little to do waits for as much of each
other one, not for a flood's whole queue. So a flood fills the queue for itself, and a last part of it is for others.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from app.access.pace import Pace
from app.errors import OverloadedError

_RESERVE = 1.25  # how much longer than a flood may make it the queue gets for others
_SHARED = 0.5  # how full it is when adapters must keep to their shares: they last as long as others bring as much
_FIRST_TOKENS_PER_CHARACTER = 0.25
_LEARN = 0.05
_MUCH = 500  # characters
_SPECIAL_TOKENS = 2


@dataclass(frozen=True)
class Work:
    """One request: its adapters, and what each of them has to compute."""

    adapters: tuple[str, ...]
    tokens: int = 0
    """By estimate."""
    characters: int = 0
    """0 where inputs are cut: they say nothing of how long tokens are."""
    inputs: int = 0

    @property
    def all_tokens(self) -> int:
        """For all adapters."""
        return self.tokens * len(self.adapters)


class Admission:
    """What is admitted, by adapter. Used from one thread."""

    def __init__(self, max_requests: int, max_seconds: float, pace: Pace) -> None:
        """max_seconds: how long the queue may get. pace: by which it is reckoned, and which it goes on measuring."""
        self.running = 0
        """Requests admitted."""
        self.tokens = 0
        """Tokens of them, by estimate."""
        self._max_requests, self._max_seconds = max_requests, max_seconds
        self.pace = pace
        self._by_adapter: Counter[str] = Counter()
        self._tokens_per_character = _FIRST_TOKENS_PER_CHARACTER

    def work(self, adapters: Sequence[str], sizes: Sequence[int], max_length: int) -> Work:
        """A request's work. sizes: characters of each input; max_length: tokens that are left of a longer one."""
        ratio = self._tokens_per_character
        whole = [int(size * ratio) + _SPECIAL_TOKENS for size in sizes]
        cut = max(whole) > max_length
        tokens = sum(min(max_length, size) for size in whole)
        return Work(tuple(adapters), tokens, 0 if cut else sum(sizes), len(sizes))

    def seconds(self, work: Work | None = None) -> float:
        """How long a request would wait; without one, how long all that is admitted takes."""
        return min(self.tokens, math.inf if work is None else self._turns(work)) / self.pace.per_second

    def _turns(self, work: Work) -> float:
        """Tokens until all of a request's adapters have had theirs, if as much of each other adapter goes between."""
        most = max(self._by_adapter[adapter] for adapter in work.adapters) + work.tokens
        new = sum(adapter not in self._by_adapter for adapter in work.adapters)
        return most * (len(self._by_adapter) + new)

    def check(self, now: float, work: Work | None = None, deadline: float = math.inf) -> None:
        """Raises OverloadedError where there is no room, or the answer would come after the deadline.

        Without `work`, only what holds for any request.
        """
        everything = self.seconds()
        if self.running >= self._max_requests:
            raise OverloadedError(
                f"{self.running} requests are running, the most this server admits: try again later",
                _whole(everything),
            )
        if self._full(work):
            raise OverloadedError(
                f"{everything:.1f} s of work are waiting, the most here is {self._max_seconds:g} s: try again later",
                _whole(everything),
            )
        if work and now + self.seconds(work) > deadline:
            raise OverloadedError(
                f"the answer would take {self.seconds(work):.3g} s, longer than the request waits: try again later",
                _whole(everything),
            )

    def _full(self, work: Work | None) -> bool:
        """Whether the queue has no room: none for anybody, or this one's adapters have had their share of it."""
        most = self._max_seconds * self.pace.per_second
        if work is None:
            return self.tokens > most * _RESERVE
        own = min(work.all_tokens, most * _SHARED)  # one that is longer than the queue must get in some time
        if self.tokens and self.tokens + own > most * _RESERVE:
            return True
        return self.tokens > most * _SHARED and self._turns(work) > most

    def begin(self, work: Work, now: float, computed: int) -> None:
        """A request is admitted. computed: tokens that were computed ever, of all requests."""
        self.pace.note(now, computed, self.tokens)
        self.running += 1
        self.tokens += work.all_tokens
        for adapter in work.adapters:
            self._by_adapter[adapter] += work.tokens

    def end(self, work: Work, now: float, computed: int) -> None:
        """It is answered, or has failed."""
        self.pace.note(now, computed, self.tokens)
        self.running -= 1
        self.tokens -= work.all_tokens
        for adapter in work.adapters:
            self._by_adapter[adapter] -= work.tokens
            if not self._by_adapter[adapter]:
                del self._by_adapter[adapter]

    def learn(self, work: Work, tokens: int) -> None:
        """Its inputs came to so many tokens. A few characters teach little: a word alone may be all special tokens."""
        if work.characters:
            ratio = max(tokens - _SPECIAL_TOKENS * work.inputs, 0) / work.characters
            step = _LEARN * min(1.0, work.characters / _MUCH)
            self._tokens_per_character += step * (ratio - self._tokens_per_character)


def _whole(seconds: float) -> int:
    """For `Retry-After`."""
    return max(1, math.ceil(seconds))
