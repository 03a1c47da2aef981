"""Inputs to tokens, on threads of their own: what waits together and is wanted alike, in one call.

Adapters take turns here as they do in the engine, by characters: one that sends long texts holds up nobody but itself.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from app.engine.batching import Queue
from app.engine.jobs import Call
from app.errors import UnavailableError
from lorat import Recipe, Tokens
from lorat.base import Base
from lorat.ends import Direction
from lorat.tokenizer import Text

Input = Text | list[int]
_AT_ONCE = 64  # adapters: more would hold the first ones up
_CHARACTERS = 1 << 16  # of one call: some 20 ms


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


@dataclass(frozen=True, eq=False)
class _Waiting:
    """A request, as the queue's work."""

    call: Call
    inputs: Sequence[Input]
    manner: Manner
    size: int
    """Characters."""

    @property
    def adapter(self) -> str | None:
        return self.call.digest

    @property
    def request(self) -> Call:
        return self.call

    @property
    def wanted(self) -> bool:
        return self.call.wanted


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
        self._queue: Queue[_Waiting] = Queue(_CHARACTERS, _AT_ONCE)
        self._wake = threading.Condition()
        self._open = True
        self._threads = [
            threading.Thread(target=self._work, name=f"tokenizer-{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, call: Call, inputs: Sequence[Input], manner: Manner) -> None:
        """Queue a call with its inputs. Raises UnavailableError when closed."""
        with self._wake:
            if not self._open:
                raise UnavailableError("the server is shutting down: send the request to another one")
            self._queue.put([_Waiting(call, inputs, manner, sum(map(characters, inputs)))])
            self._wake.notify()

    def close(self) -> None:
        """Finish what is queued, then stop."""
        with self._wake:
            self._open = False
            self._wake.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while waiting := self._next():
            for _, alike in groupby(sorted(waiting, key=_key), key=_key):
                self._encode(list(alike))

    def _next(self) -> list[_Waiting]:
        """Whose turn it is; empty when all is done."""
        with self._wake:
            while not (taken := self._queue.take(attrgetter("wanted"))) and self._open:
                self._wake.wait()
            return taken

    def _encode(self, alike: Sequence[_Waiting]) -> None:
        """All in one call; one by one where one of them is refused, or its words would be laid to others."""
        inputs = [item for one in alike for item in one.inputs]
        try:
            tokens = iter(encode(self._base, inputs, alike[0].manner))
        except Exception as error:
            if len(alike) == 1:
                alike[0].call.fail(error)
            else:
                for one in alike:
                    self._encode([one])
            return
        for one in alike:
            self._finish(one.call, [next(tokens) for _ in one.inputs])

    def _finish(self, call: Call, tokens: list[Tokens]) -> None:
        try:
            call.begin(tokens)
            self._hand_on(call)
        except Exception as error:
            call.fail(error)


def _key(one: _Waiting) -> tuple[object, ...]:
    return one.manner.key


def encode(base: Base, inputs: Sequence[Input], manner: Manner) -> list[Tokens]:
    """Tokens of each input; lists of ids are checked and taken as they are. Raises an InputError."""
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
        )
    )
    return [_check_ids(base, item, manner) if isinstance(item, list) else next(encoded) for item in inputs]


def _check_ids(base: Base, ids: list[int], manner: Manner) -> Tokens:
    return base.tokenizer.check_ids(
        ids, max_length=manner.recipe.max_length, truncate=manner.truncate, direction=manner.direction
    )
