"""A server that is killed at a chosen moment, the client that changes its adapters, and the one that looks again."""

import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import torch
import transformers
import uvicorn

from app.main import create_app
from app.settings import Settings
from app.store.adapter_log import AdapterLog
from app.store.gc import collect
from app.store.store import Store
from tests.app.conftest import upload
from tests.prove.killed import PROCESSES, State, count_calls

LOWEST_RANK = 2
TEXT = "one frozen base and many adapters"
TOLERANCE = 5e-5


class Operation(NamedTuple):
    """`which`: the adapter, or the version to go back to. `status`: its answer, where nothing is killed."""

    kind: str
    reference: str
    which: int
    status: int


CUT, MISFIT, AFTERWARDS = 3, 4, 5  # among the adapters: a file cut short, one of another base, one for the end
OPERATIONS = [
    Operation("refused", "c", MISFIT, 422),
    Operation("upload", "a", 0, 201),
    Operation("upload", "b", 1, 201),
    Operation("upload", "a", 1, 201),
    Operation("refused", "a", CUT, 422),
    Operation("create", "a", 2, 409),  # without ?replace=true
    Operation("upload", "a", 2, 201),
    Operation("upload", "b", 1, 200),  # the same again: nothing new
    Operation("rollback", "a", 1, 201),
    Operation("delete", "a@2", 0, 204),
    Operation("delete", "a@2", 0, 404),
    Operation("upload", "b", 2, 201),
    Operation("delete", "b", 0, 204),
    Operation("upload", "a", 1, 201),
    Operation("delete", "a", 0, 204),
    Operation("refused", "b", MISFIT, 422),
    Operation("collect", "", 0, 200),  # by another process
    Operation("upload", "b", 1, 201),  # what was just collected
    Operation("upload", "a", 0, 201),
    Operation("refused", "c", CUT, 422),
    Operation("upload", "a", 2, 201),
    Operation("rollback", "a", 6, 201),
    Operation("rollback", "a", 8, 200),
    Operation("delete", "b@3", 0, 204),
    Operation("collect", "", 0, 200),
    Operation("upload", "b", 1, 201),
]
REFERENCES = [*"abc", *(f"{name}@{number}" for name in "abc" for number in range(1, 10))]
ONCE_DONE = {"upload": 200, "rollback": 200, "delete": 404}
"""What an operation is answered when it is sent again though it was done."""


@dataclass(frozen=True)
class Made:
    """An adapter's directory, and the vector of `TEXT` by PEFT; None for what no server takes."""

    directory: Path
    vector: np.ndarray | None = None


def serve(base: Path, directory: Path, kill_at: int, parent: Connection) -> None:
    """Serve `directory/store` until SIGTERM; send the port, then, at the end, the number of calls to the store."""
    tempfile.tempdir = str(directory)
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again once it has drained
    listening = listen()
    parent.send(listening.getsockname()[1])
    calls = count_calls(kill_at)
    settings = Settings(
        base=str(base), store=str(directory / "store"), device="cpu", demo=False, slots=4, follow_seconds=60
    )
    uvicorn.Server(uvicorn.Config(create_app(settings), log_level="error")).run([listening])
    parent.send(calls())


def listen() -> socket.socket:
    """A socket at a free port. It names its protocol, without which asyncio leaves it with Nagle's 40 ms."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    return listening


@dataclass(frozen=True)
class Running:
    """A server's process, what it sends, and a client of it."""

    process: BaseProcess
    sent: Connection
    client: httpx.Client


@contextmanager
def running(base: Path, directory: Path, kill_at: int = 0) -> Iterator[Running]:
    """A server in a process of its own, killed before the store's call number `kill_at`, from 1, or at the end."""
    sent, theirs = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=serve, args=(base, directory, kill_at, theirs))
    process.start()
    theirs.close()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{sent.recv()}", timeout=60) as client:
            yield Running(process, sent, client)
    finally:
        process.kill()
        process.join()
        sent.close()


def is_ready(client: httpx.Client) -> bool:
    """Wait until the server answers; False where it is killed first."""
    try:
        return client.get("/ready").status_code == 200
    except httpx.TransportError:
        return False


def answered(client: httpx.Client, directory: Path, adapters: Sequence[Made]) -> int:
    """Send the operations until the server is gone; how many it answered, each as it should."""
    for done, operation in enumerate(OPERATIONS):
        try:
            status = send(client, directory, adapters, operation)
        except httpx.TransportError:
            return done
        assert status == operation.status, (operation, status)
    return len(OPERATIONS)


def send(client: httpx.Client, directory: Path, adapters: Sequence[Made], operation: Operation) -> int:
    """The status that an operation is answered."""
    kind, reference, which, _ = operation
    if kind == "collect":
        collect(AdapterLog(Store.open(str(directory / "store"))), older_than_seconds=0)
        return 200
    if kind == "rollback":
        return client.post(f"/adapters/{reference}/rollback", json={"version": which}).status_code
    if kind == "delete":
        return client.delete(f"/adapters/{reference}").status_code
    return upload(client, reference, adapters[which].directory, params={"replace": kind != "create"}).status_code


def run_and_kill(
    base: Path, directory: Path, adapters: Sequence[Made], kill_at: int = 0, kill_after: float = 0
) -> int | None:
    """Send operations to a server that is killed before a call, or some seconds after it was ready.

    How many it answered; None where it was killed before it was ready.
    """
    with running(base, directory, kill_at) as server:
        if not is_ready(server.client):
            done = None
        elif kill_at:
            done = answered(server.client, directory, adapters)
        else:
            killing = threading.Timer(kill_after, server.process.kill)
            killing.start()
            done = answered(server.client, directory, adapters)
            killing.join()
        server.process.join(60)
        assert server.process.exitcode == -signal.SIGKILL
    return done


def look(client: httpx.Client) -> State:
    """What a server lists; a rank tells which adapter it is."""
    found: State = {}
    for newest in client.get("/adapters").json()["adapters"]:
        versions = client.get(f"/adapters/{newest['name']}/versions").json()["versions"]
        assert versions[0] == newest
        found[newest["name"]] = [(each["version"], each["rank"] - LOWEST_RANK) for each in versions]
    return found


def served(client: httpx.Client, state: State, adapters: Sequence[Made]) -> int:
    """Hold every version's answer against PEFT's; how many there are. What is not in the state is a 404."""
    there = {f"{name}@{number}": which for name, versions in state.items() for number, which in versions}
    newest = {name: f"{name}@{versions[0][0]}" for name, versions in state.items()}
    for reference in {*REFERENCES, *there, *newest}:
        answer = client.post("/embed", params={"adapter": reference}, json={"inputs": TEXT})
        version = newest.get(reference, reference)
        if version not in there:
            assert answer.status_code == 404, (reference, answer.text)
            continue
        assert answer.status_code == 200, (reference, answer.text)
        assert answer.headers["x-lorat-adapter"] == version
        expected = adapters[there[version]].vector
        assert expected is not None and np.abs(np.array(answer.json()[0]) - expected).max() <= TOLERANCE, reference
    return len(there)
