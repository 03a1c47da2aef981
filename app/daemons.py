"""Threads that Python does not wait for when it ends: for what may hang on a store that does not answer."""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Daemons:
    """Runs calls in at most so many threads; a thread that finds nothing to do ends. Safe to use from any thread."""

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._threads: set[threading.Thread] = set()
        self._open = True

    def submit(self, call: Callable[[], T]) -> "Future[T]":
        """Have a call made. Raises RuntimeError once this is closed."""
        future: Future[T] = Future()
        with self._lock:
            if not self._open:
                raise RuntimeError(f"{self._name} is closed")
            self._waiting.append((future, call))
            if len(self._threads) < self._most:
                thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._threads.add(thread)
                thread.start()
        return future

    def close(self, timeout: float) -> None:
        """Cancel what has not begun, and wait for the rest, but not for longer than `timeout` seconds."""
        with self._lock:
            self._open = False
            threads = list(self._threads)
            for future, _ in self._waiting:
                future.cancel()
        end = time.monotonic() + timeout
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._threads.discard(threading.current_thread())
                    return
                future, call = self._waiting.popleft()
            _run(call, future)
            del future, call  # or they would be held for as long as the next call takes


class Shared(Generic[T]):
    """A call that is made once for all who ask for it before it begins; who asks while it runs gets the next one.

    So what everyone gets is no older than when they asked. One that fails fails those as well who wait for the next:
    a store that does not answer would else keep them waiting for one time-out after another.
    """

    def __init__(self, call: Callable[[], T], name: str) -> None:
        self._call = call
        self._lock = threading.Lock()
        self._next: Future[T] | None = None
        self._thread = Daemons(1, name)

    def ask(self) -> "Future[T]":
        """What the next call comes to. Who leaves cannot cancel it: others wait for it, too."""
        with self._lock:
            if self._next is None:
                self._next = Future()
                self._next.set_running_or_notify_cancel()
                self._thread.submit(self._answer)
            return self._next

    def _answer(self) -> None:
        asked = self._take()
        if asked is None:  # failed with the one before
            return
        try:
            result = self._call()
        except BaseException as error:
            waiting = self._take()
            for future in (asked, waiting) if waiting else (asked,):
                future.set_exception(error)
            del asked, waiting, future  # the error's traceback holds this frame
        else:
            asked.set_result(result)

    def _take(self) -> "Future[T] | None":
        with self._lock:
            taken, self._next = self._next, None
            return taken


def _run(call: Callable[[], T], future: "Future[T]") -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:
        future.set_exception(error)
        del future  # the error's traceback holds this frame
    else:
        future.set_result(result)
