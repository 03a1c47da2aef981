"""What schemathesis is told of a server: real names and uploads in most valid requests, so that they reach the model.

Loaded by `schemathesis run` itself; each choice follows from the request, so that a seed means the same requests.
"""

import io
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import httpx
import schemathesis

URL, KEY, LORAS = os.environ["SCHEMA_URL"], os.environ["SCHEMA_ADMIN_KEY"], Path(os.environ["SCHEMA_LORAS"])
NAMES = sorted(path.name for path in LORAS.iterdir())
FITTING = {
    "/classify": ["relevance", "sentiment"],
    "/predict": ["relevance", "sentiment"],
    "/token_classify": ["names"],
    "/rerank": ["relevance"],
    "/v1/classify": ["relevance", "sentiment"],
}
"""The adapters that have what a route asks for; the others take any."""
_http = httpx.Client(base_url=URL, headers={"Authorization": f"Bearer {KEY}"} if KEY else {}, timeout=60)


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Name an adapter that is there, or upload one, in three of four requests that are valid otherwise."""
    choice = zlib.crc32(repr((case.path_parameters, case.query, case.body)).encode())
    if case.meta is None or case.meta.generation.mode is not schemathesis.GenerationMode.POSITIVE or choice % 4 == 0:
        return
    path, names = case.operation.path, FITTING.get(case.operation.path, NAMES)
    name = names[choice // 4 % len(names)]
    parameters = {parameter.name for parameter in case.operation.query}
    fields = case.body if isinstance(case.body, dict) else {}
    fields |= {key: name for key in ("model", "lora_name", "lora_path") if key in fields}
    fields |= {"version": 1} if "version" in fields else {}
    if "model" in fields:
        case.query.pop("adapter", None)
    elif "adapter" in parameters:
        case.query["adapter"] = [name]
    for key in case.path_parameters:
        case.path_parameters[key] = f"{name}@1" if case.method in ("GET", "DELETE") and choice % 8 == 1 else name
    if path == "/adapters" and case.method == "POST":
        kwargs["files"] = [("name", (None, f"up-{choice % 5}")), ("files", ("adapter.zip", archive(name)))]


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Bring back what a request has taken away."""
    gone = response.status_code == 204 or (
        case.operation.path.endswith("/unload_lora_adapter") and response.status_code == 200
    )
    if gone:
        restore(_http)


def restore(client: httpx.Client) -> None:
    """Have a server serve every adapter of the directory."""
    for name in NAMES:
        body = {"lora_name": name, "lora_path": name, "load_inplace": True}
        client.post("/v1/load_lora_adapter", json=body).raise_for_status()


def archive(name: str) -> bytes:
    """An adapter as a .zip."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as files:
        for path in sorted((LORAS / name).iterdir()):
            files.writestr(path.name, path.read_bytes())
    return target.getvalue()
