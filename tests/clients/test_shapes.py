"""Shapes that no client has types of: text-embeddings-inference's and vLLM's, field by field."""

import numpy as np
import pytest

from tests.clients.conftest import TEXTS, same_bits


def test_embed_in_json_and_raw_float32_holds_the_same_bits(server):
    for adapter in ("base", "intent-search"):
        answer = server.http.post("/embed", params={"adapter": adapter}, json={"inputs": TEXTS})
        assert same_bits(answer.json(), server.vectors(adapter))
        times = ("x-total-time", "x-tokenization-time", "x-queue-time", "x-inference-time")
        assert all(float(answer.headers[name]) >= 0 for name in times)
        assert int(answer.headers["x-compute-tokens"]) > 0
        assert answer.headers["x-lorat-digest"].startswith("sha256:")


def test_teis_info(server):
    info = server.http.get("/info").json()
    strings = {"model_id", "model_sha", "model_dtype", "version", "device"}
    counts = {"max_concurrent_requests", "max_input_length", "max_batch_tokens", "max_client_batch_size", "adapters"}
    assert all(isinstance(info[name], str) and info[name] for name in strings)
    assert all(isinstance(info[name], int) and info[name] > 0 for name in counts)
    assert info["auto_truncate"] is True and info["model_type"] == {"embedding": {"pooling": "mean"}}


@pytest.mark.parametrize("path", ["/classify", "/predict"])
def test_teis_classify(server, path):
    one = server.ask(f"{path}?adapter=sentiment", inputs="what a joy")
    assert [set(each) for each in one] == [{"score", "label"}] * 2
    assert one[0]["score"] > one[1]["score"]
    many = server.ask(f"{path}?adapter=sentiment", inputs=[["what a joy"], ["never again", "what a joy"]])
    assert [len(each) for each in many] == [2, 2]
    assert [each["label"] for each in many[0]] == [each["label"] for each in one]


def test_teis_rerank_similarity_and_tokenize(server):
    ranks = server.ask("/rerank?adapter=reranker", query="card", texts=TEXTS, return_text=True)
    assert [set(rank) for rank in ranks] == [{"index", "score", "text"}] * 2
    assert all(rank["text"] == TEXTS[rank["index"]] for rank in ranks)
    (cosine,) = server.ask("/similarity", inputs={"source_sentence": TEXTS[0], "sentences": [TEXTS[0]]})
    assert cosine == pytest.approx(1, abs=1e-6)
    (tokens,) = server.ask("/tokenize", inputs="It rains.")
    assert [set(token) for token in tokens] == [{"id", "text", "special", "start", "stop"}] * len(tokens)
    assert [token["text"] for token in tokens] == ["[CLS]", "It", "rains", ".", "[SEP]"]


def test_teis_errors(server):
    answer = server.http.post("/embed", json={"inputs": []})
    assert answer.status_code == 400 and set(answer.json()) == {"error", "error_type"}
    assert answer.json()["error_type"] == "Empty"


def test_vllms_classify(server):
    answer = server.ask("/v1/classify", model="banking77", input=["I lost my card", "top up"])
    assert set(answer) == {"id", "object", "created", "model", "data", "usage"}
    assert (answer["object"], answer["model"]) == ("list", "banking77")
    assert isinstance(answer["id"], str) and isinstance(answer["created"], int)
    assert set(answer["usage"]) >= {"prompt_tokens", "total_tokens"}
    for index, row in enumerate(answer["data"]):
        assert set(row) == {"index", "label", "probs", "num_classes"}
        assert (row["index"], row["num_classes"], len(row["probs"])) == (index, 77, 77)
        assert np.sum(row["probs"]) == pytest.approx(1, abs=1e-5)
    native = server.ask("/classify?adapter=banking77", inputs=[["I lost my card"], ["top up"]])
    assert [row["label"] for row in answer["data"]] == [row[0]["label"] for row in native]
    assert [max(row["probs"]) for row in answer["data"]] == [row[0]["score"] for row in native]


def test_vllms_errors(server):
    answer = server.http.post("/v1/classify", json={"model": "intent-search", "input": "x"})
    assert answer.status_code == 424 and set(answer.json()["error"]) == {"message", "type", "param", "code"}
    forbidden = server.http.post("/v1/load_lora_adapter", json={"lora_name": "x", "lora_path": "x"})
    assert forbidden.status_code == 403 and set(forbidden.json()) == {"error"}
