"""Real servers: uvicorn in a thread, or `lorat serve` in a process of its own."""

import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn

from app.main import create_app
from app.settings import Settings
from tests.app import stores

location, shared_location = stores.location, stores.shared_location
s3, moto, rclone, rclone_endpoint = stores.s3, stores.moto, stores.rclone, stores.rclone_endpoint


@contextmanager
def running(settings: Settings, **options: object) -> Iterator[httpx.Client]:
    """A server in this process, and a client for it. options: uvicorn's."""
    app = create_app(settings)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=30, **options))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            client.app, client.server = app, server
            yield client
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def process(
    store: Path | str, *flags: str, base: Path | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """`lorat serve` as a person starts it, and a client that waits until it is ready.

    Its `stderr` is a file: a pipe that nobody reads is full some time, and the server waits.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "app", "serve", "--port", str(port), "--store", str(store), *flags]
    url = f"http://127.0.0.1:{port}"
    with (
        tempfile.NamedTemporaryFile() as log,
        open(log.name, "rb") as said,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        server = subprocess.Popen(command + (["--base", str(base)] if base else []), stderr=log)
        server.stderr = said
        try:
            wait_ready(server, client)
            yield server, client
        finally:
            server.kill()
            server.wait()


def wait_ready(server: subprocess.Popen[bytes], client: httpx.Client) -> None:
    for _ in range(600):
        assert server.poll() is None, server.stderr.read().decode()
        try:
            if client.get("/ready").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("the server was not ready in a minute")


@pytest.fixture(scope="module")
def serve(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., httpx.Client]]:
    """Start servers on the tiny base with settings of choice; they stop with the module."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def start(**settings: object) -> httpx.Client:
            values = {"base": str(tiny_path), "store": str(tmp_path_factory.mktemp("store")), "demo": False, "slots": 4}
            return stack.enter_context(running(Settings(**values | settings)))

        yield start


@pytest.fixture(scope="module")
def server(serve: Callable[..., httpx.Client]) -> httpx.Client:
    """One server on the tiny base."""
    return serve()


@contextmanager
def held(client: httpx.Client) -> Iterator[threading.Event]:
    """Keep the engine in its next batch until the event is set, or the block ends."""
    model, release = client.app.state.service.model, threading.Event()
    forward = model.forward
    model.forward = lambda rows: release.wait(60) and forward(rows)
    try:
        yield release
    finally:
        release.set()
        model.forward = forward


def until(check: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for what comes true by itself."""
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.01)


def files_of(directory: Path) -> list[tuple[str, tuple[str, bytes]]]:
    """An adapter directory as multipart files."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return [("files", (path.relative_to(directory).as_posix(), path.read_bytes())) for path in paths]


def upload(client: httpx.Client, name: str, directory: Path, **options: object) -> httpx.Response:
    """POST an adapter directory."""
    return client.post("/adapters", data={"name": name}, files=files_of(directory), **options)
