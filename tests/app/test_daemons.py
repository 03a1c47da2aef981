"""Threads that nothing waits for, and calls that are shared."""

import subprocess
import sys
import threading
from concurrent.futures import CancelledError
from queue import Queue

import pytest

from app.daemons import Daemons, Shared

WAIT = 30


def test_calls_are_made_by_so_many_threads_at_most() -> None:
    threads, go, running = Daemons(2, "some"), threading.Event(), threading.Semaphore(0)

    def call() -> str:
        running.release()
        assert go.wait(WAIT)
        return threading.current_thread().name

    futures = [threads.submit(call) for _ in range(5)]
    assert running.acquire(timeout=WAIT) and running.acquire(timeout=WAIT)
    assert not running.acquire(timeout=0.05)
    go.set()
    assert {future.result(WAIT) for future in futures} == {"some"}


def test_closing_cancels_what_has_not_begun_and_leaves_behind_what_hangs() -> None:
    threads, go, began = Daemons(1, "some"), threading.Event(), threading.Event()

    def hang() -> bool:
        began.set()
        return go.wait(WAIT)

    hangs, waits = threads.submit(hang), threads.submit(lambda: 1)
    assert began.wait(WAIT)
    threads.close(timeout=0)
    with pytest.raises(CancelledError):
        waits.result(WAIT)
    with pytest.raises(RuntimeError, match="closed"):
        threads.submit(lambda: 1)
    go.set()
    assert hangs.result(WAIT)


HANGS = """
import time
from app.daemons import Daemons
Daemons(1, "some").submit(lambda: time.sleep(3600))
"""


def test_python_ends_whatever_hangs() -> None:
    assert subprocess.run([sys.executable, "-c", HANGS], timeout=120).returncode == 0


class Calls:
    """Calls that end when they are told how."""

    def __init__(self) -> None:
        self.began: Queue[int] = Queue()
        self.outcomes: Queue[int | Exception] = Queue()
        self._count = 0

    def __call__(self) -> int:
        self._count += 1
        self.began.put(self._count)
        outcome = self.outcomes.get(timeout=WAIT)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def test_who_asks_while_a_call_runs_gets_the_next_one() -> None:
    calls = Calls()
    shared = Shared(calls, "some")
    first = shared.ask()
    assert calls.began.get(timeout=WAIT) == 1
    later = [shared.ask() for _ in range(10)]
    calls.outcomes.put(10)
    assert first.result(WAIT) == 10
    assert calls.began.get(timeout=WAIT) == 2
    assert not any(future.done() for future in later)
    calls.outcomes.put(20)
    assert {future.result(WAIT) for future in later} == {20}
    calls.outcomes.put(30)
    assert shared.ask().result(WAIT) == 30


def test_a_failure_is_shared_with_those_who_wait_for_the_next() -> None:
    calls = Calls()
    shared = Shared(calls, "some")
    asked = [shared.ask()]
    assert calls.began.get(timeout=WAIT) == 1
    asked += [shared.ask() for _ in range(3)]
    calls.outcomes.put(OSError("no answer"))
    for future in asked:
        with pytest.raises(OSError, match="no answer"):
            future.result(WAIT)
    calls.outcomes.put(1)
    assert shared.ask().result(WAIT) == 1


def test_who_leaves_cancels_nothing() -> None:
    calls = Calls()
    shared = Shared(calls, "some")
    asked = shared.ask()
    assert not asked.cancel()
    calls.outcomes.put(1)
    assert asked.result(WAIT) == 1
