"""What the parts of the service hold at the moment, as metrics that are read when they are asked for."""

from app.access.admission import Admission
from app.adapters.registry import Registry
from app.engine.engine import Engine
from app.observe.metrics import Metrics


def watch(metrics: Metrics, engine: Engine, registry: Registry, admission: Admission) -> None:
    """Show what a service has admitted, its queue, slots, host cache and store."""
    residency, queue, cache = engine.residency, engine.queue, registry.cache
    metrics.gauge("lorat_running_requests", "Inference requests under way", lambda: admission.running)
    metrics.gauge("lorat_queue_requests", "Requests with inputs that wait for a forward pass", lambda: queue.requests)
    metrics.gauge("lorat_queue_inputs", "Inputs that wait for a forward pass", lambda: queue.inputs)
    metrics.gauge("lorat_queue_tokens", "Tokens that wait for a forward pass", lambda: queue.tokens)
    metrics.gauge("lorat_queue_wait_seconds", "Time that all admitted work takes, by estimate", admission.seconds)
    metrics.gauge("lorat_passes_running", "Forward passes under way", lambda: engine.running)
    metrics.gauge("lorat_adapters", "Adapters by name", lambda: len(registry.catalog))
    metrics.gauges(
        "lorat_adapter_contents",
        "Adapter contents in a tier; what is on the device may be in the host's cache too",
        "tier",
        {
            "device": lambda: len(residency),
            "host": lambda: len(cache),
            "store": lambda: len(registry.catalog.digests()),
        },
    )
    metrics.counters(
        "lorat_evictions",
        "Adapters that gave way to others in a tier",
        "tier",
        {"device": lambda: residency.evictions, "host": lambda: cache.evictions},
    )
    metrics.gauge("lorat_slots", "Adapters that the device can hold", lambda: residency.capacity)
    metrics.gauge("lorat_host_cache_bytes", "Memory of the host's cache", lambda: cache.bytes)
    metrics.counter("lorat_merges", "Adapters that got merged weights", lambda: residency.merges)
    metrics.gauge("lorat_merged_adapters", "Adapters with merged weights now", lambda: len(residency.merged()))
    metrics.gauge("lorat_damaged_contents", "Contents that cannot be served", lambda: len(registry.damaged))
