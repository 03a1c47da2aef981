"""`lorat serve`, a process of the service's own environment, and the examples of docs/clients.md."""

import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("SERVER_PYTHON", str(ROOT / ".venv" / "bin" / "python"))
TEXTS = ["book me a table", "what is my balance?"]
KEY, ADMIN_KEY = "KEY", "ADMIN-KEY"
IN_THE_DOCS = "http://127.0.0.1:8000"

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
    os.environ.pop(name, None)


@dataclass(frozen=True)
class Server:
    """A running server, and what it answers to plain HTTP."""

    url: str
    http: httpx.Client

    def vectors(self, adapter: str, inputs: Any = TEXTS, **fields: Any) -> np.ndarray:
        """`/embed` in raw float32: what every client's vectors are held against."""
        answer = self.http.post(
            "/embed",
            params={"adapter": adapter},
            json={"inputs": inputs, **fields},
            headers={"Accept": "application/octet-stream"},
        )
        assert answer.status_code == 200, answer.text
        shape = [int(size) for size in answer.headers["x-shape"].split(",")]
        return np.frombuffer(answer.content, "<f4").reshape(shape)

    def ask(self, path: str, **body: Any) -> Any:
        """The JSON that a path answers to a body."""
        answer = self.http.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("server")
    run("-m", "tests.clients.adapters", str(directory))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    flags = {
        "port": url.rpartition(":")[2],
        "store": directory / "store",
        "api-key": KEY,
        "admin-key": ADMIN_KEY,
        "reranker": "reranker",
        "merge": "never",  # the bits of a vector depend on whether its adapter is merged,
        "workers": "1",  # and on what it is computed with
        "max-batch-tokens": "4096",
    }
    command = [PYTHON, "-m", "app", "serve", *(f"--{name}={value}" for name, value in flags.items())]
    with (directory / "log").open("wb") as log, subprocess.Popen(command, cwd=ROOT, stderr=log) as process:
        try:
            with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60) as client:
                wait_ready(process, client, directory / "log")
                for name in ("ner", "reranker"):
                    run("-m", "app", "push", str(directory / name), "--name", name, "--url", url, "--key", ADMIN_KEY)
                yield Server(url, client)
        finally:
            process.terminate()


def run(*arguments: str) -> None:
    """Run Python in the service's environment."""
    subprocess.run([PYTHON, *arguments], cwd=ROOT, check=True, capture_output=True, timeout=300)


def wait_ready(process: subprocess.Popen[bytes], client: httpx.Client, log: Path) -> None:
    for _ in range(1800):
        assert process.poll() is None, log.read_text()
        try:
            if client.get("/ready").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError("the server was not ready in three minutes")


def examples(section: str, language: str = "python") -> list[str]:
    """The code blocks of a section of docs/clients.md."""
    text = (ROOT / "docs" / "clients.md").read_text()
    (body,) = re.findall(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return re.findall(rf"```{language}\n(.*?)```", body, re.DOTALL)


@pytest.fixture
def example(server: Server) -> Callable[..., dict[str, Any]]:
    """Run an example of a section as it stands, on the server of these tests; what its names come to."""

    def execute(section: str, number: int = 0) -> dict[str, Any]:
        code = examples(section)[number]
        assert IN_THE_DOCS in code
        names: dict[str, Any] = {}
        exec(compile(code.replace(IN_THE_DOCS, server.url), f"docs/clients.md, {section}", "exec"), names)
        return names

    return execute


def same_bits(found: Any, expected: np.ndarray) -> bool:
    """Whether numbers, read as float32, are the expected ones bit for bit."""
    array = np.asarray(found, dtype="<f4")
    return array.shape == expected.shape and array.tobytes() == expected.tobytes()
