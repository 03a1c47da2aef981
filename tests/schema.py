"""A server held against its own OpenAPI document: by schemathesis, and with bodies that are damaged."""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.app.conftest import process
from tests.oracle import make_peft

ROOT = Path(__file__).parents[1]
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
]
ADAPTERS = {
    "intent-search": {},
    "names": {"task": "TOKEN_CLS", "num_labels": 5},
    "relevance": {"task": "SEQ_CLS", "num_labels": 1},
    "reviews": {},
    "sentiment": {"task": "SEQ_CLS"},
}
"""Those that the document's examples speak of."""


@dataclass(frozen=True)
class Server:
    """A running server with all of `ADAPTERS`; `key` opens writes, "" where there are no keys."""

    client: httpx.Client
    loras: Path
    key: str

    @property
    def url(self) -> str:
        return str(self.client.base_url)


@contextmanager
def serving(base: Path, directory: Path, key: str = "", inference_key: str = "") -> Iterator[Server]:
    """`lorat serve` on `base`, everything it keeps in `directory`."""
    loras = directory / "loras"
    for seed, (name, options) in enumerate(ADAPTERS.items()):
        make_peft(base, loras / name, seed=seed, r=4, **options)
    flags = {"lora-dir": loras, "demo": False, "log-level": "error", "max-batch-tokens": 1024}
    keys = {"admin-key": key, "api-key": inference_key} if key else {}
    with process(directory / "store", *(f"--{name}={value}" for name, value in (flags | keys).items()), base=base) as (
        _,
        client,
    ):
        client.headers.update({"Authorization": f"Bearer {key}"} if key else {})
        for name in ADAPTERS:
            client.post("/v1/load_lora_adapter", json={"lora_name": name, "lora_path": name}).raise_for_status()
        yield Server(client, loras, key)


def conforms(
    server: Server, directory: Path, *, seed: int, examples: int, phases: str, key: str = ""
) -> dict[str, Any]:
    """Have schemathesis try every route; its report. AssertionError with its words where an answer is not as declared.

    examples: at most so many generated requests a route. key: what the requests carry.
    """
    report = directory / "report.json"
    command = [Path(sys.executable).parent / "schemathesis", "run", f"{server.url}/openapi.json", f"--seed={seed}"]
    command += [f"--max-examples={examples}", f"--phases={phases}", f"--checks={','.join(CHECKS)}"]
    command += ["--generation-database=none", "--continue-on-failure", "--no-color", "--warnings=off"]
    command += ["--suppress-health-check=all", "--report=json", f"--report-json-path={report}"]
    command += [f"--header=Authorization: Bearer {key}"] if key else []
    told = {"SCHEMA_URL": server.url, "SCHEMA_ADMIN_KEY": server.key, "SCHEMA_LORAS": str(server.loras)}
    environment = {**os.environ, **told, "SCHEMATHESIS_HOOKS": "tests.schema_hooks", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    found: dict[str, Any] = json.loads(report.read_text())
    assert found["complete"] and not found["errors"] and found["operations"]["tested"] == found["operations"]["total"]
    return found


def damaged(server: Server, *, seed: int, count: int) -> Counter[int]:
    """Send bodies that are not what they say to every route that takes one; how often each status came."""
    document, generator = server.client.get("/openapi.json").json(), random.Random(seed)
    routes = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if "requestBody" in operation
    ]
    statuses = Counter[int]()
    for number in range(count):
        path, method, operation = routes[number % len(routes)]
        (media, content), *_ = operation["requestBody"]["content"].items()
        body = damage(json.dumps(content.get("example", {})).encode(), generator)
        headers = {"Content-Type": generator.choice([media, media, "application/json", "text/plain", "x", ""])}
        answer = server.client.request(method, path.format(name="sentiment"), content=body, headers=headers)
        told = f"{method} {path} {headers} {body!r}: {answer.status_code} {answer.text[:300]}"
        assert answer.status_code < 500 and str(answer.status_code) in operation["responses"], told
        if not answer.is_success:
            error = answer.json()["error"]
            assert set(error) == {"message", "type", "param", "code"} if path.startswith("/v1") else error, told
        statuses[answer.status_code] += 1
    return statuses


def damage(body: bytes, generator: random.Random) -> bytes:
    """A body with a few bytes cut out, put in or changed, or something else altogether."""
    odd = [
        b"",
        b"null",
        b"[" * 5000,
        b"\xff\xfe",
        b'{"inputs": NaN}',
        b'{"inputs": 1e999}',
        b'{"a":' * 2000,
        b"\x00" * 64,
    ]
    if generator.random() < 0.2:
        return generator.choice(odd)
    for _ in range(generator.randint(1, 4)):
        start = generator.randrange(len(body) + 1)
        end = min(len(body), start + generator.randint(0, 8))
        body = body[:start] + generator.randbytes(generator.randint(0, 4)) + body[end:]
    return body
