"""Requests and tokens by adapter, for the base and a bounded number of adapters."""

import threading
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from app.names import BASE

OTHER = "_other"
"""No adapter's name begins so."""


class AdapterCounts(Collector):
    """Names get a place as they are first asked for; those that find none are counted together, as `_other`.

    A name that was deleted keeps its place until another one needs it. Then its series ends, as Prometheus expects
    of what is gone. Added to `_other` its past would look like a burst in every rate; the counters that know no
    adapter have it all. Safe to use from any thread.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._counts: dict[str, list[int]] = {BASE: [0, 0]}
        self._other = [0, 0]
        self._gone: list[str] = []
        self._lock = threading.Lock()

    def add(self, name: str, tokens: int, requests: int = 1) -> None:
        """Count tokens, and a request."""
        with self._lock:
            count = self._counts.get(name) or self._place(name)
            count[0] += requests
            count[1] += tokens

    def _place(self, name: str) -> list[int]:
        if len(self._counts) > self._places:  # the base has one of its own
            if not self._gone:
                return self._other
            del self._counts[self._gone.pop()]
        self._counts[name] = [0, 0]
        return self._counts[name]

    def keep(self, there: Callable[[str], bool]) -> None:
        """Those that are not `there` any more give their places up to who needs one."""
        with self._lock:
            self._gone = [name for name in self._counts if name != BASE and not there(name)]

    def counts(self) -> dict[str, tuple[int, int]]:
        """Requests and tokens by name, as they are shown."""
        with self._lock:
            named = {name: (requests, tokens) for name, (requests, tokens) in self._counts.items()}
            return named | {OTHER: (self._other[0], self._other[1])}

    def collect(self) -> Iterator[CounterMetricFamily]:
        """What a scrape reads."""
        requests = CounterMetricFamily("lorat_adapter_requests", "Requests bound to an adapter", labels=["adapter"])
        tokens = CounterMetricFamily("lorat_adapter_tokens", "Tokens computed for an adapter", labels=["adapter"])
        for name, (asked, computed) in self.counts().items():
            requests.add_metric([name], asked)
            tokens.add_metric([name], computed)
        yield requests
        yield tokens
