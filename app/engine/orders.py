"""What a worker is told to do between two batches."""

import logging
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field

from app.engine.jobs import plain

logger = logging.getLogger("lorat")


@dataclass(frozen=True, eq=False)
class Order:
    """Some work, and the future that brings its end."""

    work: Callable[[], object]
    done: "Future[None]" = field(default_factory=Future)

    def obey(self) -> None:
        """Do it. What it raises fails the future only."""
        try:
            self.work()
        except BaseException as error:
            logger.exception("an order to the engine failed")
            self.fail(plain(error))
        else:
            with suppress(InvalidStateError):  # it was failed meanwhile
                self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        """Fail the future, unless it has ended."""
        with suppress(InvalidStateError):
            self.done.set_exception(error)
