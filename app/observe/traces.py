"""OpenTelemetry traces, made once a request has ended, from the times that were taken anyway. The extra `trace`."""

import threading
from typing import TYPE_CHECKING

from pydantic import SecretStr
from starlette.types import Scope

from app.observe.exchange import Exchange, Run, Stage
from lorat import __version__
from lorat.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span
    from opentelemetry.util.types import AnyValue

_EXPORT_SECONDS = 5.0
_CLOSE_SECONDS = 5.0
_PROPAGATED = (b"traceparent", b"tracestate")


def open_traces(endpoint: SecretStr | None) -> "Traces | None":
    """Traces to an OTLP/HTTP URL; none without one. Raises ConfigError where it cannot be."""
    if endpoint is None:
        return None
    url = endpoint.get_secret_value()
    if not url.startswith(("http://", "https://")):
        raise ConfigError("LORAT_TRACE_ENDPOINT: give an OTLP/HTTP URL, as http://collector:4318/v1/traces")
    try:
        return Traces(url)
    except ImportError as error:
        raise ConfigError(
            f"LORAT_TRACE_ENDPOINT needs the extra `trace`: pip install -e '.[trace]' ({error})"
        ) from error


class Traces:
    """A span for each request, with one for each stage below it. `OTEL_*` variables set sampling, headers and queue."""

    def __init__(self, endpoint: str) -> None:
        """Begins to send in the background. Raises ImportError without the extra."""
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        resource = Resource.create({"service.name": "lorat", "service.version": __version__})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint, timeout=_EXPORT_SECONDS)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("lorat", __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._trace = trace

    def record(self, exchange: Exchange, route: str, scope: Scope, ended: float) -> str:
        """Make the spans of a request that has ended; their trace's id.

        None, and an empty id, where whoever sent it, or the sampler, wants none.
        """
        names: dict[str, AnyValue] = {
            "http.request.method": exchange.method,
            "http.route": route,
            "url.path": scope["path"],
            "client.address": exchange.client,
            "http.response.status_code": exchange.status,
            "lorat.request_id": exchange.id,
        }
        root = self._tracer.start_span(
            f"{exchange.method} {route}",
            self._context(scope),
            self._trace.SpanKind.SERVER,
            names,
            start_time=exchange.epoch(exchange.started),
        )
        if not root.is_recording():
            return ""
        self._describe(root, exchange, ended)
        root.end(exchange.epoch(ended))
        return self._trace.format_trace_id(root.get_span_context().trace_id)

    def _context(self, scope: Scope) -> "Context":
        """What W3C's headers say of the caller's span."""
        found = {str(name, "latin-1"): str(value, "latin-1") for name, value in scope["headers"] if name in _PROPAGATED}
        return self._propagator.extract(found)

    def _describe(self, root: "Span", exchange: Exchange, ended: float) -> None:
        if exchange.adapters:
            root.set_attribute("lorat.adapter", exchange.adapters)
            root.set_attribute("lorat.tokens", exchange.tokens)
        if exchange.reason:
            root.set_attribute("error.type", exchange.reason)
        if exchange.error:
            seen = {"exception.type": exchange.reason, "exception.message": exchange.error}
            root.add_event("exception", seen, exchange.epoch(ended))
        if exchange.status >= 500:
            root.set_status(self._trace.StatusCode.ERROR, exchange.error)
        below = self._trace.set_span_in_context(root)
        for run in exchange.runs:
            for stage in run.stages(exchange.asked, ended):
                self._add(stage, run, exchange, below)

    def _add(self, stage: Stage, run: Run, exchange: Exchange, below: "Context") -> None:
        names: dict[str, AnyValue] = {
            "lorat.adapter": run.reference,
            "lorat.digest": run.digest,
            "lorat.tokens": run.tokens,
        }
        name, start, end = stage
        span = self._tracer.start_span(name, below, attributes=names, start_time=exchange.epoch(start))
        span.end(exchange.epoch(end))

    def close(self) -> None:
        """Send what is left. A collector that does not answer is left behind."""
        closing = threading.Thread(target=self._provider.shutdown, name="traces-close", daemon=True)
        closing.start()
        closing.join(_CLOSE_SECONDS)
