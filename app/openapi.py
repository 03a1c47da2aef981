"""The OpenAPI document: what FastAPI derives from the routes, with an example of each request and its answer."""

from typing import Any

from fastapi import FastAPI

_TEXT = "Never again."
_DIGEST = "sha256:bf56215ecdddb7c4ca5378a3d9be829b36efaabda8c003037e8e965f81e16258"
_SCORES = [{"score": 0.8222097, "label": "negative"}, {"score": 0.17779024, "label": "positive"}]
_RECORD: dict[str, Any] = {
    "name": "sentiment",
    "version": 1,
    "digest": _DIGEST,
    "description": "Tells whether a sentence of a review is positive or negative.",
    "tags": ["text-classification"],
    "base_match": "verified",
    "task": "sequence_classification",
    "rank": 8,
    "alpha": 16.0,
    "targets": ["query", "value"],
    "layers": [0, 1, 2, 3, 4, 5],
    "head": {"labels": 2, "kind": "softmax"},
    "labels": ["negative", "positive"],
    "recipe": None,
    "parameters": 74498,
    "bytes": 304093,
    "created": "2026-11-25T23:13:11.090+00:00",
    "pinned": False,
    "merge": "auto",
}
_STATS = {"name": "sentiment", "version": 1, "resident": "device", "merged": False, "requests": 3, "last_used": None}
_MODEL = {
    "id": "sentiment",
    "object": "model",
    "created": 1795648391,
    "owned_by": "lorat",
    "root": "sentiment@1",
    "parent": "base",
    "max_model_len": 256,
}
_BASE = _MODEL | {"id": "base", "root": "sentence-transformers/all-MiniLM-L6-v2", "parent": None}
_TOKENS = [
    {"id": 101, "text": "[CLS]", "special": True, "start": None, "stop": None},
    {"id": 8840, "text": "Lo", "special": False, "start": 0, "stop": 2},
    {"id": 2527, "text": "RA", "special": False, "start": 2, "stop": 4},
    {"id": 102, "text": "[SEP]", "special": True, "start": None, "stop": None},
]
_VECTOR = {"object": "embedding", "index": 0, "embedding": [-0.8190645, -0.14468347, -0.5551577]}
_CLASS = {"index": 0, "label": "negative", "probs": [0.8222097, 0.17779024], "num_classes": 2}
_INFO = {
    "model_id": "sentence-transformers/all-MiniLM-L6-v2",
    "model_sha": "a0c656ee496409692ecc1e819980bad2e2f64baf79facb7319dd96dd51ad0f51",
    "model_dtype": "float32",
    "model_type": {"embedding": {"pooling": "mean"}},
    "max_concurrent_requests": 512,
    "max_input_length": 256,
    "max_batch_tokens": 4096,
    "max_client_batch_size": 256,
    "auto_truncate": True,
    "tokenization_workers": 1,
    "version": "0.1.0",
    "adapters": 3,
    "slots": {"capacity": 64, "used": 1},
    "device": "cpu",
    "fingerprint": "ea059d8e59c55aeb8736aa6aab899e8b72a684df49a3ed32385d82f8b1f1e477",
}

QUERIES: dict[str, dict[str, str]] = {
    "POST /classify": {"adapter": "sentiment"},
    "POST /predict": {"adapter": "sentiment"},
    "POST /token_classify": {"adapter": "names"},
    "POST /rerank": {"adapter": "relevance"},
}
"""Adapters that the examples of a route are for, where it is not the base."""

YOURS = frozenset({"names", "relevance"})
"""Those of them that stand for an adapter of the reader's: no demo adapter has their task."""

_PATHS = {"name": "sentiment", "reference": "sentiment@1"}

REQUESTS: dict[str, Any] = {
    "POST /embed": {"inputs": ["What is LoRA?"], "dimensions": 3},
    "POST /embed_all": {"inputs": "LoRA"},
    "POST /classify": {"inputs": _TEXT},
    "POST /predict": {"inputs": [[_TEXT], ["a question", "its answer"]]},
    "POST /token_classify": {"inputs": "Ada Lovelace lived in London"},
    "POST /similarity": {"inputs": {"source_sentence": "What is LoRA?", "sentences": ["A low-rank adapter."]}},
    "POST /rerank": {"query": "how do I pay?", "texts": ["It rains.", "Cards are accepted."]},
    "POST /tokenize": {"inputs": "LoRA"},
    "POST /models/{name}": {"inputs": _TEXT, "parameters": {"top_k": 1}},
    "POST /": {"inputs": "What is LoRA?"},
    "POST /v1/embeddings": {"input": "What is LoRA?", "model": "intent-search", "dimensions": 3},
    "POST /v1/classify": {"input": _TEXT, "model": "sentiment"},
    "POST /v1/load_lora_adapter": {"lora_name": "reviews", "lora_path": "reviews"},
    "POST /v1/unload_lora_adapter": {"lora_name": "reviews"},
    "POST /adapters/{name}/rollback": {"version": 1},
    "PATCH /adapters/{name}": {"pinned": True},
}

ANSWERS: dict[str, Any] = {
    "POST /embed": [[-0.83374953, 0.1143097, -0.54018056]],
    "POST /embed_all": [[[0.028779687, 0.12735547], [0.001487513, 0.15525983]]],
    "POST /classify": _SCORES,
    "POST /predict": [_SCORES, _SCORES],
    "POST /token_classify": [[{"entity_group": "PER", "score": 0.99, "word": "Ada Lovelace", "start": 0, "end": 12}]],
    "POST /similarity": [0.13867855],
    "POST /rerank": [{"index": 1, "score": 0.97}, {"index": 0, "score": 0.02}],
    "POST /tokenize": [_TOKENS],
    "POST /models/{name}": [_SCORES[:1]],
    "POST /": [[-0.05050533, 0.00692437]],
    "POST /v1/embeddings": {
        "object": "list",
        "data": [_VECTOR],
        "model": "intent-search",
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    },
    "POST /v1/classify": {
        "id": "classify-4a079b15cc11447b94f393d2748ee2bc",
        "object": "list",
        "created": 1795648406,
        "model": "sentiment",
        "data": [_CLASS],
        "usage": {"prompt_tokens": 5, "total_tokens": 5},
    },
    "GET /v1/models": {"object": "list", "data": [_BASE, _MODEL]},
    "GET /v1/models/{name}": _MODEL,
    "POST /v1/load_lora_adapter": "Success: LoRA adapter 'reviews' added successfully.",
    "POST /v1/unload_lora_adapter": "Success: LoRA adapter 'reviews' removed successfully.",
    "POST /adapters": _RECORD,
    "GET /adapters": {"adapters": [_RECORD], "next": None},
    "GET /adapters/{name}": _RECORD,
    "GET /adapters/{name}/versions": {"versions": [_RECORD], "next": None},
    "POST /adapters/{name}/rollback": _RECORD,
    "PATCH /adapters/{name}": _RECORD | {"pinned": True},
    "GET /adapters/{reference}/stats": _STATS,
    "GET /info": _INFO,
    "GET /health": {"status": "ok"},
    "GET /ready": {"status": "ready"},
}


def add_examples(app: FastAPI) -> None:
    """Have `/openapi.json` carry the examples."""
    derive = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _fill(derive())
        return derive()

    app.openapi = openapi  # type: ignore[method-assign]


def _fill(document: dict[str, Any]) -> None:
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{}, {"key": []}]  # none where no key is set
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            route = f"{method.upper()} {path}"
            if route in REQUESTS:
                operation["requestBody"]["content"]["application/json"]["example"] = REQUESTS[route]
            if route in ANSWERS:
                success = next(code for code in ("201", "200") if code in operation["responses"])
                for content in operation["responses"][success]["content"].values():
                    content["example"] = ANSWERS[route]
            for parameter in operation.get("parameters", []):
                example = QUERIES.get(route, {}).get(parameter["name"]) or _PATHS.get(parameter["name"])
                if example and (parameter["in"] == "path" or route in QUERIES):
                    parameter["example"] = example
                if example in YOURS:
                    parameter["description"] += f". `{example}` stands for one of yours: no demo adapter has this task"
