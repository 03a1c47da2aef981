"""create_app(settings): the whole service as one ASGI application."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import torch
from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi_offline import FastAPIOffline

from app.access.admission import Admission
from app.access.body_limit import BodyLimit
from app.access.pace import Pace
from app.access.shedding import Shedding
from app.adapters.changes import Changes
from app.adapters.follow import Follower
from app.adapters.preload import preload
from app.adapters.registry import Registry
from app.adapters.upload import UploadLimits
from app.adapters.usage import Usage
from app.demo import import_demos
from app.engine.cores import cores
from app.engine.engine import Engine
from app.engine.tuning import choose_budget, measure_pace
from app.error_answers import add_handlers
from app.info import start_facts
from app.observe.metrics import Metrics
from app.observe.requests import Observed
from app.observe.traces import Traces, open_traces
from app.openapi import add_examples
from app.routes import adapters, comparing, health, inference, models, openai, tokenize, versions, vllm
from app.service import Service
from app.settings import Settings
from app.store.adapter_log import AdapterLog
from app.store.store import Store
from lorat import Adapter, MultiLoRAT, __version__, load_base, read_adapter
from lorat.cpu import suits_kernels
from lorat.errors import ConfigError
from lorat.layout import computes
from lorat.probes import verify_probes

logger = logging.getLogger("lorat")
_MAX_WORKERS = 4
MODULES = (inference, openai, vllm, models, comparing, tokenize, adapters, versions, health)
"""Of routes, those first that are asked for most."""


def create_app(settings: Settings | None = None, service: Service | None = None) -> FastAPI:
    """An application that opens its service when it starts (unless given one that is open) and drains when it stops."""
    chosen = settings or Settings()
    app = FastAPIOffline(title="LoRAT", version=__version__, redoc_url=None, lifespan=_lifespan)
    app.state.settings = chosen
    app.state.service = service
    app.state.metrics = service.metrics if service else Metrics(chosen.metrics_adapters)
    app.state.traces = open_traces(chosen.trace_endpoint)
    app.add_middleware(BodyLimit, limit=partial(_body_limit, chosen), seconds=chosen.body_timeout_seconds)
    routes = [route for module in MODULES for route in module.router.routes]
    app.add_middleware(Shedding, routes=routes)
    app.add_middleware(Observed, metrics=app.state.metrics, traces=app.state.traces, access_log=chosen.access_log)
    # `include_router` would cost each request a second search; the first found is the cheapest
    app.router.routes[:0] = routes
    add_handlers(app)
    add_examples(app)
    return app


def open_service(settings: Settings, metrics: Metrics) -> Service:
    """Open the store, load the base and the declared adapters, start the engine."""
    log = AdapterLog(Store.open(settings.store))
    if log.catalog.versions(settings.served_name):
        raise ConfigError(f"an adapter has the name {settings.served_name!r}: set LORAT_SERVED_NAME to another one")
    model = load_model(settings)
    workers = settings.workers or default_workers(model.device)
    on_cpu = model.device.type == "cpu"
    merge_bytes = settings.merge_bytes if settings.merge == "auto" and on_cpu else 0  # a GPU would lose by it
    tokens, rate = _measure(model, workers, settings.max_batch_tokens)
    engine = Engine(model, tokens, metrics, workers, merge_bytes, express=on_cpu)
    registry = Registry(
        log,
        partial(check_adapter, model),
        engine,
        cache_bytes=settings.host_cache_bytes,
        loaded=metrics.loaded_to_host,
    )
    changes = Changes(registry, upload_limits(settings), settings.keep_versions, settings.served_name)
    usage = Usage()
    follower = Follower(registry, engine, usage, metrics.adapters, settings.follow_seconds)
    try:
        if settings.demo:
            import_demos(changes, log.catalog)
        preload(registry, engine, settings.preload, settings.slots)
        if settings.reranker and log.catalog.find(settings.reranker) is None:
            logger.warning("LORAT_RERANKER: there is no adapter %r yet, /rerank is a 404 until then", settings.reranker)
        follower.start()
    except BaseException:
        engine.close(timeout=5)  # a thread still inside torch when Python ends would abort the process
        registry.close()
        raise
    pace = Pace(rate, engine.enough)
    admission = Admission(settings.max_concurrent_requests, settings.max_queue_seconds, pace)
    return Service(settings, model, registry, changes, follower, usage, engine, metrics, admission)


def load_model(settings: Settings) -> MultiLoRAT:
    """The base with room for adapters. Raises BaseError, ConfigError."""
    base = load_base(settings.base, device=settings.device, dtype=settings.dtype)
    if base.device.type == "cpu" and not computes(base.dtype):
        logger.warning("this processor has no %s, float32 is many times faster: set LORAT_DTYPE", settings.dtype)
    if settings.dtype == "auto" and suits_kernels(base.config, base.device):
        logger.info("on this processor LORAT_DTYPE=bfloat16 is twice as fast as float32 (docs/performance.md: Types)")
    return MultiLoRAT(base, slots=settings.slots, max_rank=settings.max_rank)


def default_workers(device: torch.device) -> int:
    """Two on a GPU: one prepares its batch while the other's computes.

    On a CPU one a core, up to a few: threads inside a pass wait for one another.
    """
    return 2 if device.type == "cuda" else min(cores(), _MAX_WORKERS)


def _measure(model: MultiLoRAT, workers: int, budget: int | None) -> tuple[int, float]:
    """Tokens in a forward pass, `budget` where it is set, and how many are done in a second."""
    paces = list(measure_pace(model, workers, budget))
    tokens = budget or choose_budget(paces)
    rate = max(pace.rate for pace in paces)
    logger.info("%d tokens in a forward pass (LORAT_MAX_BATCH_TOKENS sets it), %.0f tokens/s", tokens, rate)
    return tokens, rate


def upload_limits(settings: Settings) -> UploadLimits:
    """What one upload may hold."""
    return UploadLimits(max_bytes=settings.max_upload_bytes)


def check_adapter(model: MultiLoRAT, directory: Path) -> Adapter:
    """The adapter in a directory, when it fits the base and answers its probes as it did when it was saved."""
    adapter = read_adapter(directory, model.base.shape, max_rank=model.max_rank)
    verify_probes(model, adapter)
    return adapter


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service or await run_in_threadpool(open_service, app.state.settings, app.state.metrics)
    app.state.service = service
    logger.info("LoRAT %s", __version__, extra={"fields": start_facts(service)})
    try:
        yield
    finally:
        await run_in_threadpool(service.close)
        traces: Traces | None = app.state.traces
        if traces:
            await run_in_threadpool(traces.close)


def _body_limit(settings: Settings, path: str) -> int:
    return settings.max_upload_bytes if path.rstrip("/") == "/adapters" else settings.max_body_bytes
