"""Inputs to tokens, on threads of their own: what waits together and is wanted alike, in one call.

Adapters take turns here as they do in the engine, by characters: one that sends long texts holds up nobody but itself.
A long request comes in portions, so that others have their turns in between, and who has gone is asked before each.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from app.engine.batching import Queue
from app.engine.jobs import Call, plain
from app.errors import UnavailableError
from lorat import Recipe, Tokens
from lorat.base import Base
from lorat.ends import Direction
from lorat.tokenizer import Text

Input = Text | list[int]
_AT_ONCE = 64  # adapters: more would hold the first ones up
_CHARACTERS = 1 << 13  # of one call: some 3 ms, which others wait for
logger = logging.getLogger("lorat")


@dataclass(frozen=True, eq=False)
class Manner:
    """How inputs become tokens."""

    recipe: Recipe
    truncate: bool
    direction: Direction = "right"
    prompt_name: str | None = None
    default_prompt: bool = True
    spans: bool = False

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for manners that are the same; all of them can be ordered."""
        prompt = self.prompt_name is None, self.prompt_name or ""
        return id(self.recipe), self.truncate, self.direction, prompt, self.default_prompt, self.spans


class _Request:
    """A call whose inputs get their tokens portion by portion."""

    def __init__(self, call: Call, inputs: Sequence[Input], manner: Manner) -> None:
        self.call = call
        self.manner = manner
        self._inputs = inputs
        self._tokens: dict[int, Sequence[Tokens]] = {}  # by the input that they start with
        self._missing = len(inputs)
        self._lock = threading.Lock()

    def portions(self) -> "Iterator[_Portion]":
        """Its inputs for the queue."""
        start = 0
        while start < len(self._inputs):
            stop, size = _portion(self._inputs, start)
            yield _Portion(self, start, self._inputs[start:stop], size)
            start = stop

    def finish(self, start: int, tokens: Sequence[Tokens]) -> list[Tokens] | None:
        """Note a portion's tokens. Returns those of all inputs once they are there."""
        with self._lock:
            self._tokens[start] = tokens
            self._missing -= len(tokens)
            done = not self._missing
        return [token for place in sorted(self._tokens) for token in self._tokens[place]] if done else None

    def texts_before(self, start: int) -> int:
        """How many of the inputs before one are texts."""
        return sum(not isinstance(item, list) for item in self._inputs[:start])


@dataclass(frozen=True, eq=False)
class _Portion:
    """Neighbouring inputs of a request, as the queue's work. start: the number of the first one."""

    of: _Request
    start: int
    inputs: Sequence[Input]
    size: int
    """Characters."""

    @property
    def adapter(self) -> str | None:
        return self.of.call.digest

    @property
    def request(self) -> Call:
        return self.of.call

    @property
    def wanted(self) -> bool:
        return self.of.call.wanted


def _portion(inputs: Sequence[Input], start: int) -> tuple[int, int]:
    """Where the portion that begins with an input ends, and its characters: `_CHARACTERS` more than its first, at most.

    A text that it has already adds nothing, for equal ones are tokenised once.
    """
    seen: set[str] = set()
    first = size = _added(inputs[start], seen)
    for place in range(start + 1, len(inputs)):
        added = _added(inputs[place], seen)
        if size + added > first + _CHARACTERS:
            return place, size
        size += added
    return len(inputs), size


def _added(item: Input, seen: set[str]) -> int:
    """Characters of those of an input's texts that are not in `seen`, where they are then."""
    if isinstance(item, list):
        return characters(item)
    new = ({item} if isinstance(item, str) else set(item)) - seen
    seen |= new
    return sum(map(len, new))


def characters(item: Input) -> int:
    """Of a text or of both of a pair; a token id counts as the characters of a usual token."""
    if isinstance(item, str):
        return len(item)
    return len(item[0]) + len(item[1]) if isinstance(item, tuple) else 4 * len(item)


class Tokenizing:
    """Gives calls their tokens and hands them on, or fails them."""

    def __init__(self, base: Base, hand_on: Callable[[Call], None], threads: int) -> None:
        self._base = base
        self._hand_on = hand_on
        self._queue: Queue[_Portion] = Queue(_CHARACTERS, _AT_ONCE)
        self._wake = threading.Condition()
        self._open = True
        self._threads = [
            threading.Thread(target=self._work, name=f"tokenizer-{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, call: Call, inputs: Sequence[Input], manner: Manner) -> None:
        """Queue a call with its inputs. Raises UnavailableError when closed."""
        portions = list(_Request(call, inputs, manner).portions())
        with self._wake:
            if not self._open:
                raise UnavailableError("the server is shutting down: send the request to another one")
            self._queue.put(portions)
            self._wake.notify(len(portions))

    def close(self) -> None:
        """Finish what is queued, then stop."""
        with self._wake:
            self._open = False
            self._wake.notify_all()
        for thread in self._threads:
            thread.join()

    @property
    def alive(self) -> bool:
        """Whether all its threads are there."""
        return all(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while waiting := self._next():
            for _, alike in groupby(sorted(waiting, key=_key), key=_key):
                self._encode(list(alike))

    def _next(self) -> list[_Portion]:
        """Whose turn it is; empty when all is done."""
        with self._wake:
            while not (taken := self._queue.take(attrgetter("wanted"))) and self._open:
                self._wake.wait()
            return taken

    def _encode(self, alike: Sequence[_Portion]) -> None:
        """All in one call; one by one where one of them is refused, or its words would be laid to others."""
        inputs = [item for one in alike for item in one.inputs]
        first = alike[0].of
        try:
            tokens = iter(encode(self._base, inputs, first.manner, first.texts_before(alike[0].start)))
        except BaseException as error:
            if len(alike) == 1:
                _fail(first.call, error)
            else:
                for one in alike:
                    self._encode([one])
            return
        for one in alike:
            self._finish(one, [next(tokens) for _ in one.inputs])

    def _finish(self, portion: _Portion, tokens: Sequence[Tokens]) -> None:
        call, whole = portion.of.call, portion.of.finish(portion.start, tokens)
        if whole is None:
            return
        try:
            call.begin(whole)
            self._hand_on(call)
        except BaseException as error:
            _fail(call, error)


def _fail(call: Call, error: BaseException) -> None:
    """Fail a call of whatever was raised: a panic in the tokenizer is no Exception, and must not end the thread."""
    if not isinstance(error, Exception):
        logger.error("the tokenizer panicked", exc_info=error)
    call.fail(plain(error))


def _key(one: _Portion) -> tuple[object, ...]:
    return one.of.manner.key


def encode(base: Base, inputs: Sequence[Input], manner: Manner, first: int = 0) -> list[Tokens]:
    """Tokens of each input; lists of ids are checked and taken as they are. Raises an InputError.

    first: what an error calls the first text.
    """
    texts = [item for item in inputs if not isinstance(item, list)]
    encoded = iter(
        base.encode(
            texts,
            manner.recipe,
            prompt_name=manner.prompt_name,
            default_prompt=manner.default_prompt,
            truncate=manner.truncate,
            direction=manner.direction,
            spans=manner.spans,
            first=first,
        )
    )
    return [_check_ids(base, item, manner) if isinstance(item, list) else next(encoded) for item in inputs]


def _check_ids(base: Base, ids: list[int], manner: Manner) -> Tokens:
    return base.tokenizer.check_ids(
        ids, max_length=manner.recipe.max_length, truncate=manner.truncate, direction=manner.direction
    )
