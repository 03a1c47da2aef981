"""Run the application under uvicorn."""

import gc
import logging
import signal
import socket
import threading
from types import FrameType

import transformers
import uvicorn

from app.access.connection import guarded
from app.listening import listen
from app.main import create_app, open_service
from app.observe.logs import configure
from app.service import Service
from app.settings import Settings
from lorat.errors import ConfigError

LOOPBACK = {"127.0.0.1", "::1", "localhost"}
logger = logging.getLogger("lorat")


def serve(settings: Settings, listeners: list[socket.socket]) -> None:
    """Serve at these sockets, which are bound, until SIGINT or SIGTERM; then answer what is running and stop."""
    configure(settings.log_format, settings.log_level)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_default_handler()
    transformers.utils.logging.enable_propagation()
    if not (settings.api_key or settings.admin_key) and settings.host not in LOOPBACK:
        logger.warning("no LORAT_API_KEY or LORAT_ADMIN_KEY: everyone who reaches %s may do everything", settings.host)
    app = create_app(settings)
    app.state.service = open_service(settings, app.state.metrics)
    gc.freeze()  # what the start left behind stays: looking through it all, again and again, would stop every request
    gc.enable()
    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises them again once it has drained: end with 0
        signal.signal(number, lambda *_: None)
    config = uvicorn.Config(
        app,
        http=guarded(settings),
        ws="none",
        forwarded_allow_ips=settings.forwarded_allow_ips,
        access_log=False,
        log_config=None,  # its loggers are ours
        log_level=settings.log_level,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=settings.graceful_seconds,
    )
    try:
        listen(listeners, config.backlog)
    except ConfigError:
        app.state.service.close()
        raise
    Server(config, app.state.service, settings.drain_seconds).run(listeners)


class Server(uvicorn.Server):
    """uvicorn's server, which says at `/ready` that it is leaving some time before it takes no more connections."""

    def __init__(self, config: uvicorn.Config, service: Service, drain_seconds: float) -> None:
        super().__init__(config)
        self._service = service
        self._drain_seconds = drain_seconds

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take requests, and say where."""
        await super().startup(sockets)
        for listener in sockets or ():
            host, port = listener.getsockname()[:2]
            logger.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to leave; a second signal ends the waiting."""
        if self._service.ready and self._drain_seconds:
            leave = threading.Timer(self._drain_seconds, super().handle_exit, (sig, frame))
            leave.daemon = True
            leave.start()
        else:
            super().handle_exit(sig, frame)
        self._service.ready = False
