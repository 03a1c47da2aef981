"""When an answer is of no use any more."""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.errors import DeadlineError, InvalidRequestError

HEADER = "X-Request-Timeout"


def parse_timeout(value: str) -> float:
    """Seconds, above 0 and finite. Raises InvalidRequestError."""
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise InvalidRequestError(f"{HEADER}: send the seconds that you wait, a number above 0, as in '{HEADER}: 2.5'")
    return seconds


def deadline_of(given: str | None, default: float | None) -> float:
    """When a request that says `given` is of no use, by `time.perf_counter`. Raises InvalidRequestError."""
    seconds = default if given is None else parse_timeout(given)
    return math.inf if seconds is None else time.perf_counter() + seconds


@asynccontextmanager
async def in_time(deadline: float) -> AsyncIterator[None]:
    """Cancel what is within at the deadline, by `time.perf_counter`. Raises DeadlineError."""
    if deadline == math.inf:
        yield
        return
    left = deadline - time.perf_counter()
    if left <= 0:
        raise _late()
    try:
        async with asyncio.timeout(left) as limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise _late() from error


def _late() -> DeadlineError:
    return DeadlineError("the answer was not ready in the time that was given: give more, or send fewer inputs")
