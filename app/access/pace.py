"""How many tokens a second are done while there is enough to do. Pure: the clock is an argument, in seconds."""

_WINDOW_SECONDS = 0.5  # of work, and twice `enough` tokens: less is noise
_LEARN = 0.3  # of the way to what a window showed


class Pace:
    """Measured over windows of busy time, from a first estimate on.

    Where little waits the machine idles between, and could do more than it does: such a window can show that the pace
    is higher than was thought, never that it is lower.
    """

    def __init__(self, first: float, enough: int) -> None:
        """first: tokens a second, until a window shows more. enough: tokens that give every worker two batches."""
        self.per_second = first
        self._enough = enough
        self._seconds, self._tokens, self._least = 0.0, 0, enough
        self._last = (0.0, 0)

    def note(self, now: float, computed: int, waiting: int) -> None:
        """Called whenever work comes or goes. computed: tokens ever; waiting: tokens to be done since the last call."""
        (then, before), self._last = self._last, (now, computed)
        if not waiting:
            self._least = 0
            return
        self._seconds += now - then
        self._tokens += computed - before
        self._least = min(self._least, waiting)
        if self._seconds >= _WINDOW_SECONDS and self._tokens >= 2 * self._enough:
            self._learn(self._tokens / self._seconds, full=self._least >= self._enough)
            self._seconds, self._tokens, self._least = 0.0, 0, self._enough

    def _learn(self, seen: float, full: bool) -> None:
        if full or seen > self.per_second:
            self.per_second += _LEARN * (seen - self.per_second)
