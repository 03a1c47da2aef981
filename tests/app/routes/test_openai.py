"""`/v1/embeddings` and `/v1/models` (with OpenAI's own client: tests/clients)."""

import base64
import time

import numpy as np
import pytest

from app.settings import Settings


@pytest.mark.parametrize("inputs", ["hello", ["hello", "there"], [101, 7592, 102], [[101, 7592, 102], "there"]])
@pytest.mark.parametrize("model", [None, "base", "search", "kinds@1"])
def test_vectors_are_those_of_embed_bit_for_bit(server, post, made, inputs, model):
    body = {"input": inputs} | ({"model": model} if model else {})
    expected = np.array(post("/embed", {"inputs": inputs}, adapter=model or "base"), np.float32)
    as_floats = post("/v1/embeddings", body)
    as_base64 = post("/v1/embeddings", body | {"encoding_format": "base64"})
    assert [entry["index"] for entry in as_floats["data"]] == list(range(len(expected)))
    assert np.array_equal(np.array([entry["embedding"] for entry in as_floats["data"]], np.float32), expected)
    decoded = [np.frombuffer(base64.b64decode(entry["embedding"]), "<f4") for entry in as_base64["data"]]
    assert np.array_equal(decoded, expected)
    assert as_floats["model"] == (model or "base") and as_floats["object"] == "list"


def test_tokens_are_counted_and_vectors_cut(server, post, made):
    body = {"input": ["hello", "hello there"], "model": "search", "dimensions": 8, "user": "me"}
    response = server.post("/v1/embeddings", json=body)
    assert response.json()["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    assert response.headers["x-lorat-adapter"] == "search@1"
    cut = np.array(post("/embed", {"inputs": body["input"], "dimensions": 8}, adapter="search"), np.float32)
    assert np.array_equal(np.array([entry["embedding"] for entry in response.json()["data"]], np.float32), cut)


def test_models_are_the_base_and_every_adapter(server, post, made):
    listed = server.get("/v1/models").json()
    assert listed["object"] == "list"
    by_id = {entry["id"]: entry for entry in listed["data"]}
    assert list(by_id) == ["base", "fits", "kinds", "names", "search"]
    assert by_id["base"]["parent"] is None and by_id["kinds"]["parent"] == "base"
    assert by_id["kinds"] | {"object": "model", "owned_by": "lorat", "root": "kinds@1"} == by_id["kinds"]
    assert 0 <= time.time() - by_id["kinds"]["created"] < 600
    assert by_id["search"]["max_model_len"] == server.get("/info").json()["max_input_length"]
    for name, entry in by_id.items():
        assert server.get(f"/v1/models/{name}").json() == entry
    assert server.get("/v1/models/kinds@1").json()["root"] == "kinds@1"


def test_the_base_has_the_name_it_is_served_under(serve):
    client = serve(served_name="all-MiniLM-L6-v2")
    answer = client.post("/v1/embeddings", json={"input": "a", "model": "all-MiniLM-L6-v2"}).json()
    assert answer["model"] == "all-MiniLM-L6-v2"
    assert client.get("/v1/models").json()["data"][0]["id"] == "all-MiniLM-L6-v2"
    assert client.get("/v1/models/all-MiniLM-L6-v2").status_code == 200
    assert Settings().served_name == "base"


@pytest.mark.parametrize(
    ("path", "body", "status", "param", "code", "says"),
    [
        ("/v1/embeddings", {"input": "a", "model": "nothere"}, 404, "model", "model_not_found", "nothere"),
        ("/v1/embeddings?adapter=kinds", {"input": "a", "model": "search"}, 422, "model", None, "differ"),
        ("/v1/embeddings", {"input": []}, 400, "input", None, "`input` is empty: send at least one"),
        ("/v1/embeddings", {"input": ["a"] * 257}, 422, "input", None, "limit"),
        ("/v1/embeddings", {"input": "a", "dimensions": 99}, 422, "dimensions", None, "at most"),
        ("/v1/classify", {"input": [], "model": "kinds"}, 400, "input", None, "`input` is empty"),
        ("/v1/embeddings", {"model": "search"}, 422, "input", None, "input"),
        ("/v1/embeddings", {"input": "a", "encoding_format": "hex"}, 422, "encoding_format", None, "base64"),
        ("/v1/embeddings", {"input": [40000]}, 422, "input", None, "check_embedding_ctx_length=False"),
        (
            "/v1/classify",
            {"input": "a", "model": "search"},
            424,
            "model",
            None,
            "no head for sequence_classification (its task is embedding)",
        ),
        ("/v1/nothere", {}, 404, None, None, "Not Found"),
    ],
)
def test_errors_have_openais_shape(server, made, path, body, status, param, code, says):
    response = server.post(path, json=body)
    assert response.status_code == status, response.text
    (error,) = response.json().values()
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)
    assert says in error["message"]


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embed"])
@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "the body is no JSON (Expecting property name enclosed in double quotes, at character 1)"),
        (b'{"input": "a"} x', "the body is no JSON (Extra data, at character 15)"),
        (b"", "the body is empty: send a JSON object"),
    ],
)
def test_a_body_that_is_no_json_is_told_so(server, path, body, says):
    response = server.post(path, content=body, headers={"Content-Type": "application/json"})
    error = response.json()["error"]
    assert response.status_code == 422 and says in (error["message"] if path.startswith("/v1") else error)
    assert path == "/embed" or error["param"] is None


def test_an_unknown_model_is_not_found(server, made):
    response = server.get("/v1/models/nothere")
    assert response.status_code == 404 and response.json()["error"]["code"] == "model_not_found"
