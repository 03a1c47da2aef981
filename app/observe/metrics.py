"""Prometheus metrics, in a registry of their own so that a process may hold several apps."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric

from app.observe.adapter_counts import AdapterCounts
from app.observe.exchange import CLIENT_GONE, Exchange
from app.observe.loop import LoopCounter, LoopHistogram, Reading
from lorat.rows import Asked

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_POWERS = tuple(2**power for power in range(15))
_FILLS = tuple(tenths / 10 for tenths in range(1, 11))
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """What `/metrics` shows. Names are stable. What is of requests is noted on the event loop only."""

    def __init__(self, adapters: int = 100) -> None:
        """`adapters`: how many get series of their own."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.adapters = AdapterCounts(adapters)
        self._requests = LoopCounter("lorat_requests", "HTTP requests answered", ["route", "method", "status"])
        self._latency = LoopHistogram("lorat_request_seconds", "Time of a request", SECONDS, "route")
        self._request_tokens = LoopHistogram("lorat_request_tokens", "Tokens of an inference request", _POWERS)
        self._stages = LoopHistogram("lorat_stage_seconds", "Time of a stage of an inference request", SECONDS, "stage")
        self._refusals = LoopCounter("lorat_refusals", "Requests answered with an error", ["reason"])
        self._disconnects = LoopCounter("lorat_client_disconnects", "Clients that left before their answer")
        for collector in (self.adapters, self._requests, self._latency, self._request_tokens, self._stages):
            self.registry.register(collector)
        self.registry.register(self._refusals)
        self.registry.register(self._disconnects)
        self._batches = Counter("lorat_batches", "Forward passes", registry=self.registry)
        self._failures = Counter("lorat_batch_failures", "Forward passes that failed", registry=self.registry)
        self._inputs = Counter("lorat_inputs", "Inputs computed", ["task"], registry=self.registry)
        self._tokens = Counter("lorat_tokens", "Tokens computed", registry=self.registry)
        self._batch_inputs = self._histogram("lorat_batch_inputs", "Inputs in a forward pass", _POWERS)
        self._batch_tokens = self._histogram("lorat_batch_tokens", "Tokens in a forward pass", _POWERS)
        self._batch_adapters = self._histogram("lorat_batch_adapters", "Different adapters in a forward pass", _POWERS)
        self._batch_fill = self._histogram("lorat_batch_fill_ratio", "Tokens of a pass over its budget", _FILLS)
        self._forward = self._histogram("lorat_forward_seconds", "Time of a forward pass", SECONDS)
        loads = self._histogram("lorat_load_seconds", "Time to bring an adapter into a tier", SECONDS, "tier")
        self.loaded_to_host = loads.labels("host").observe
        """Called with the seconds that reading and checking a content took."""
        self.loaded_to_device = loads.labels("device").observe
        """Called with the seconds that filling a slot took."""

    def _histogram(self, name: str, text: str, bounds: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, text, labels, buckets=bounds, registry=self.registry)

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a value that is read when it is asked for."""
        Gauge(name, text, registry=self.registry).set_function(read)

    def gauges(self, name: str, text: str, label: str, reads: Mapping[str, Callable[[], float]]) -> None:
        """As `gauge`, one by each value of a label."""
        gauge = Gauge(name, text, [label], registry=self.registry)
        for value, read in reads.items():
            gauge.labels(value).set_function(read)

    def counter(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a count that others keep, read when it is asked for. It only grows."""
        self.registry.register(Reading(name, text, {"": read}))

    def counters(self, name: str, text: str, label: str, reads: Mapping[str, Callable[[], float]]) -> None:
        """As `counter`, one by each value of a label."""
        self.registry.register(Reading(name, text, dict(reads), label))

    def observe_batch(
        self, tasks: Mapping[Asked, int], adapters: int, tokens: int, seconds: float, fill: float
    ) -> None:
        """Count one forward pass: its inputs by task, its different adapters, its tokens, its time; tokens / budget."""
        self._batches.inc()
        self._tokens.inc(tokens)
        self._forward.observe(seconds)
        self._batch_inputs.observe(sum(tasks.values()))
        self._batch_tokens.observe(tokens)
        self._batch_adapters.observe(adapters)
        self._batch_fill.observe(fill)
        for task, count in tasks.items():
            self._inputs.labels(task).inc(count)

    def observe_tokens(self, by_name: Mapping[str, int]) -> None:
        """Count the tokens of a forward pass by the adapters' names, whether or not anyone still waits for them."""
        for name, tokens in by_name.items():
            self.adapters.add(name, tokens, requests=0)

    def batch_failed(self) -> None:
        """Count one forward pass that brought no outputs."""
        self._failures.inc()

    def observe_request(self, exchange: Exchange, route: str, ended: float) -> None:
        """Count a request that has ended. `route`: its template, `ended`: by `time.perf_counter`."""
        status = exchange.status
        self._requests.add((route, exchange.method if exchange.method in _METHODS else "other", status))
        self._latency.observe(ended - exchange.started, route)
        if status == CLIENT_GONE:
            self._disconnects.add()
        elif exchange.reason:
            self._refusals.add((exchange.reason,))
        if exchange.runs:
            self._observe_runs(exchange, ended)

    def _observe_runs(self, exchange: Exchange, ended: float) -> None:
        computed = 0
        for run in exchange.runs:
            computed += run.tokens if run.outputs else 0
            self.adapters.add(run.name, tokens=0)
            for name, start, end in run.stages(exchange.asked, ended):
                self._stages.observe(end - start, name)
        if computed:
            self._request_tokens.observe(computed)

    def collect(self) -> Iterator[Metric]:
        """Everything, without the times at which each counter began: half of the text, and no one reads it."""
        for metric in self.registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self)
