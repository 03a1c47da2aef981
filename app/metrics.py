"""Prometheus metrics, in a registry of their own so that a process may hold several apps."""

import time
from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lorat.rows import Asked

_POWERS = tuple(2**power for power in range(15))


class Metrics:
    """What `/metrics` shows. Names are stable."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("lorat_requests", "HTTP requests", ["route", "status"], registry=self.registry)
        self.latency = Histogram("lorat_request_seconds", "Time of a request", ["route"], registry=self.registry)
        self._batches = Counter("lorat_batches", "Forward passes", registry=self.registry)
        self._inputs = Counter("lorat_inputs", "Inputs computed", ["task"], registry=self.registry)
        self._tokens = Counter("lorat_tokens", "Tokens computed", registry=self.registry)
        self._batch_tokens = self._histogram("lorat_batch_tokens", "Tokens in a forward pass")
        self._batch_adapters = self._histogram("lorat_batch_adapters", "Different adapters in a forward pass")
        self._forward = Histogram("lorat_forward_seconds", "Time of a forward pass", registry=self.registry)
        self._loads = Gauge("lorat_slot_loads", "Adapters put into a slot", registry=self.registry)
        self._evictions = Gauge("lorat_slot_evictions", "Adapters that gave way", registry=self.registry)
        self._resident = Gauge("lorat_slots_used", "Adapters in slots", registry=self.registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, buckets=_POWERS, registry=self.registry)

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a value that is read when it is asked for."""
        Gauge(name, text, registry=self.registry).set_function(read)

    def observe_batch(self, tasks: Mapping[Asked, int], adapters: int, tokens: int, seconds: float) -> None:
        """Count one forward pass: its inputs by task, its different adapters, its tokens and its time."""
        self._batches.inc()
        self._tokens.inc(tokens)
        self._forward.observe(seconds)
        self._batch_tokens.observe(tokens)
        self._batch_adapters.observe(adapters)
        for task, count in tasks.items():
            self._inputs.labels(task).inc(count)

    def observe_slots(self, loads: int, evictions: int, used: int) -> None:
        """Note how many adapters were put into slots, gave way, and are in one."""
        self._loads.set(loads)
        self._evictions.set(evictions)
        self._resident.set(used)

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)


class Measured:
    """ASGI middleware: counts requests and their time by route and status."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, noting the status of its answer."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.requests.labels(route, status).inc()
            self._metrics.latency.labels(route).observe(time.perf_counter() - started)
