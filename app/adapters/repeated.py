"""Something that is done again and again in a thread of its own, whatever it raises."""

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger("lorat")


class Repeated:
    """A call a turn until it is stopped. That it fails is said once, and once that it does not any more."""

    def __init__(self, call: Callable[[], object], name: str, what: str, interval: float) -> None:
        """`interval`: seconds from one call to the next. `what` it does, for the log."""
        self._call = call
        self._what = what
        self._interval = interval
        self._failing = False
        self._open = True
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Make the next call at once."""
        self._wake.set()

    def stop(self) -> None:
        """Make no more calls. One that does not come back is left behind."""
        self._open = False
        self._wake.set()

    def join(self, timeout: float) -> None:
        """Wait for the call under way, up to so many seconds."""
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        while self._open:
            self._wake.wait(self._interval)
            self._wake.clear()
            if self._open:
                self._turn()

    def _turn(self) -> None:
        try:
            self._call()
        except Exception as error:
            if not self._failing:
                logger.warning("cannot %s, trying again every %g s: %s", self._what, self._interval, error)
            self._failing = True
        else:
            if self._failing:
                logger.warning("can %s again", self._what)
            self._failing = False
