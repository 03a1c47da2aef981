"""What runs next. Pure: it knows neither torch nor asyncio nor threads nor a clock.

Fair by tokens, twice: adapters take turns, and within an adapter its requests do. Next is whoever was served the
fewest tokens; who begins to wait is put level with the most served one. So a flood holds up nobody but itself, and a
stream of newcomers does not hold up who waits already. A batch ends at the first input that does not fit: what would
still fit could pass it for ever.

What is served before others' turn must not have one wait later until all others have caught up. So who is passed by
stays as far behind the most served one as it was, and is owed nothing of what others get meanwhile; and the base, which
fills what the adapters' places leave of a batch, pays for that with a batch at most.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Set
from heapq import heappop, heappush, heapreplace
from typing import Generic, Protocol, TypeVar


class Work(Protocol):
    """One input: its size in tokens, its adapter (None: the base, which needs no slot) and its request."""

    @property
    def size(self) -> int:
        """Tokens."""

    @property
    def adapter(self) -> Hashable | None:
        """What counts as one adapter."""

    @property
    def request(self) -> Hashable:
        """What it came with; work of one request keeps its order."""


T = TypeVar("T")
W = TypeVar("W", bound=Work)


class _Turns(Generic[T]):
    """Who is next: of those inside the one that was served the fewest tokens, of equals the one that came first."""

    def __init__(self, free: Callable[[T], bool] = lambda _: True, debt: int = 0) -> None:
        """Who is `free` is always inside; others wait outside until they are let in.

        debt: tokens by which one that is free may be ahead of the most served one, for what it got before others' turn.
        """
        self._free = free
        self._debt = debt
        self._inside: list[tuple[int, int, T]] = []  # heaps of: tokens served, number, who
        self._outside: list[tuple[int, int, T]] = []
        self._aside: list[tuple[int, int, T]] = []
        self._most = 0  # served to anyone in turn
        self._passed_at = 0  # what that was when some were set aside
        self._number = 0

    def __bool__(self) -> bool:
        return bool(self._inside)

    def join(self, who: T) -> None:
        """Begin to wait, level with the most served one there ever was."""
        self._number += 1
        self._place((self._most, self._number, who))

    @property
    def first(self) -> T:
        """Whose turn it is."""
        return self._inside[0][2]

    def serve(self, tokens: int, stays: bool) -> None:
        """Charge the first one, which leaves unless it `stays`."""
        served, number, who = self._inside[0]
        if self._free(who) and self._outside and self._outside[0] < self._inside[0]:  # before others' turn
            served = min(served + tokens, self._most + self._debt)
        else:
            served += tokens
            self._most = max(self._most, served)
        if stays:
            heapreplace(self._inside, (served, number, who))
        else:
            heappop(self._inside)

    def let_in(self) -> None:
        """Let the first one outside in, if it comes before all inside."""
        if self._outside and not (self._inside and self._inside[0] < self._outside[0]):
            heappush(self._inside, heappop(self._outside))

    def send_out(self) -> None:
        """Send out who is not free, and take back who was set aside, as far behind the most served one as it was."""
        meanwhile = self._most - self._passed_at
        back = [(served + meanwhile, number, who) for served, number, who in self._aside]
        turns, self._inside, self._aside = self._inside + back, [], []
        for turn in turns:
            self._place(turn)

    def set_aside(self, whom: Callable[[T], bool]) -> None:
        """Pass some by until all are sent out."""
        self._passed_at = self._most
        turns, self._inside, self._outside = self._inside + self._outside, [], []
        for turn in turns:
            if whom(turn[2]):
                self._aside.append(turn)
            else:
                self._place(turn)

    def _place(self, turn: tuple[int, int, T]) -> None:
        heappush(self._inside if self._free(turn[2]) else self._outside, turn)


class _Flow(Generic[W]):
    """The work of one adapter. Its requests take turns."""

    def __init__(self, adapter: Hashable | None) -> None:
        self.adapter = adapter
        self.tokens = 0
        self._requests: dict[Hashable, deque[W]] = {}
        self._turns: _Turns[deque[W]] = _Turns()

    def __bool__(self) -> bool:
        return bool(self._requests)

    @property
    def requests(self) -> int:
        """How many have inputs that wait."""
        return len(self._requests)

    def put(self, item: W) -> None:
        """Add an input at the end of its request."""
        request = self._requests.get(item.request)
        if request is None:
            request = self._requests[item.request] = deque()
            self._turns.join(request)
        request.append(item)
        self.tokens += item.size

    @property
    def first(self) -> W:
        """The next input."""
        return self._turns.first[0]

    def remove_first(self, cost: int) -> None:
        """Remove the next input and charge its request `cost` tokens."""
        request = self._turns.first
        item = request.popleft()
        self.tokens -= item.size
        self._turns.serve(cost, stays=bool(request))
        if not request:
            del self._requests[item.request]


def _is_base(flow: _Flow[W]) -> bool:
    return flow.adapter is None


class Queue(Generic[W]):
    """Waiting work, and whose turn it is."""

    def __init__(self, max_tokens: int, max_adapters: int) -> None:
        """`max_tokens` of one batch (a single larger input runs alone), `max_adapters` different ones in it."""
        self.max_tokens = max_tokens
        self.max_adapters = max_adapters
        self.tokens = 0
        self._length = 0
        self._flows: dict[Hashable | None, _Flow[W]] = {}
        self._turns = _Turns[_Flow[W]](_is_base, debt=max_tokens)  # inside: the base, the batch's adapters

    def __len__(self) -> int:
        return self._length

    @property
    def requests(self) -> int:
        """How many have inputs that wait."""
        return sum(flow.requests for flow in self._flows.values())

    def put(self, work: Iterable[W]) -> None:
        """Add work, each input at the end of its request."""
        for item in work:
            flow = self._flows.get(item.adapter)
            if flow is None:
                flow = self._flows[item.adapter] = _Flow(item.adapter)
                self._turns.join(flow)
            flow.put(item)
            self._length += 1
            self.tokens += item.size

    @property
    def adapters(self) -> Set[Hashable | None]:
        """Those that have something that waits."""
        return self._flows.keys()

    def tokens_of(self, adapters: Iterable[Hashable | None]) -> int:
        """Tokens that wait for some adapters."""
        return sum(self._flows[adapter].tokens for adapter in adapters if adapter in self._flows)

    def larger_than(self, tokens: int) -> Set[Hashable | None]:
        """The adapters for which more than that waits."""
        if self.tokens <= tokens:
            return frozenset()
        return {adapter for adapter, flow in self._flows.items() if flow.tokens > tokens}

    def take(
        self,
        claim: Callable[[W], bool] = lambda _: True,
        share: int | None = None,
        places: int | None = None,
        without: Set[Hashable | None] = frozenset(),
    ) -> list[W]:
        """Remove and return the next batch; of at most `share` tokens and `places` adapters where others take as well.

        Work for which `claim` is false (cancelled) is dropped and costs its adapter and its request nothing.
        `without`: adapters that it passes by.
        """
        if without:
            self._turns.set_aside(lambda flow: flow.adapter in without)
        room = self.max_tokens if share is None else min(share, self.max_tokens)
        most = self.max_adapters if places is None else min(places, self.max_adapters)
        batch: list[W] = []
        adapters: set[Hashable] = set()
        while flow := self._next(len(adapters) < most):
            item = flow.first
            size = item.size
            if batch and size > room:
                break
            claimed = claim(item)
            self._remove_first(flow, size, charged=claimed)
            if claimed:
                batch.append(item)
                room -= size
                if flow.adapter is not None:
                    adapters.add(flow.adapter)
        self._turns.send_out()
        return batch

    def _next(self, places: bool) -> _Flow[W] | None:
        """Whose turn it is. An adapter that is not in the batch comes into it only where it has `places`."""
        if places:
            self._turns.let_in()
        return self._turns.first if self._turns else None

    def _remove_first(self, flow: _Flow[W], size: int, charged: bool) -> None:
        cost = size if charged else 0
        flow.remove_first(cost)
        self._turns.serve(cost, stays=bool(flow))
        if not flow:
            del self._flows[flow.adapter]
        self._length -= 1
        self.tokens -= size

    def clear(self) -> list[W]:
        """Remove and return everything."""
        everything = []
        while self._length:
            everything += self.take()
        return everything
