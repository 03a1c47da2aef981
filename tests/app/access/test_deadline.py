"""Deadlines: what comes too late is given up, and not taken from the queue."""

import asyncio
import math
import time

import pytest

from app.access.deadline import in_time, parse_timeout
from app.engine.dispatch import Dispatch
from app.engine.jobs import Call
from app.errors import DeadlineError
from lorat import Tokens


async def work(seconds, deadline, error=None):
    async with in_time(deadline):
        await asyncio.sleep(seconds)
        if error:
            raise error
    return "done"


def test_work_is_given_up_at_its_deadline_and_not_before():
    started = time.perf_counter()
    with pytest.raises(DeadlineError):
        asyncio.run(work(30, started + 0.05))
    assert 0.05 <= time.perf_counter() - started < 5
    assert asyncio.run(work(0.01, time.perf_counter() + 30)) == "done"
    assert asyncio.run(work(0.01, math.inf)) == "done"


def test_work_that_is_late_already_is_not_begun():
    with pytest.raises(DeadlineError):
        asyncio.run(work(0, time.perf_counter() - 0.001, ValueError("it was begun")))


def test_a_timeout_of_the_work_itself_stays_what_it_is():
    with pytest.raises(TimeoutError, match="the store"):
        asyncio.run(work(0, time.perf_counter() + 30, TimeoutError("the store")))


def test_what_is_too_late_is_not_taken_from_the_queue():
    dispatch = Dispatch(512, 64, 1, express=False)
    late = Call("embedding", "a", deadline=time.perf_counter() - 0.001).begin([Tokens([1] * 9)] * 3)
    timely = Call("embedding", "a", deadline=time.perf_counter() + 60).begin([Tokens([1] * 5)])
    dispatch.put(late.jobs() + timely.jobs())
    _, batch = dispatch.next("engine-0")
    assert [job.call for job in batch] == [timely]
    dispatch.end("engine-0")
    assert (dispatch.tokens, dispatch.computed) == (0, 5)


@pytest.mark.parametrize(("value", "seconds"), [("2.5", 2.5), (" 1e3 ", 1000.0), ("0.001", 0.001)])
def test_seconds_are_a_number(value, seconds):
    assert parse_timeout(value) == seconds
