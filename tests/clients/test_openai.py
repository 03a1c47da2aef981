"""The openai package: both encodings, both clients, its own types and errors."""

import asyncio
import base64

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types import CreateEmbeddingResponse, Model

from tests.clients.conftest import KEY, TEXTS, same_bits


@pytest.fixture
def client(server):
    with OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def test_the_example(example, server):
    names = example("openai")
    names["client"].close()
    assert same_bits(names["vectors"], server.vectors("intent-search"))


@pytest.mark.parametrize("model", ["base", "intent-search", "intent-search@1", "sentiment"])
@pytest.mark.parametrize("encoding", [{}, {"encoding_format": "base64"}, {"encoding_format": "float"}])
def test_vectors_are_those_of_embed_bit_for_bit(client, server, model, encoding):
    answer = client.embeddings.create(model=model, input=TEXTS, **encoding)
    expected = server.vectors(model)
    rows = [row.embedding for row in answer.data]
    if encoding == {"encoding_format": "base64"}:
        assert b"".join(map(base64.b64decode, rows)) == expected.tobytes()
    else:
        assert same_bits(rows, expected)


def test_the_asynchronous_client(server):
    async def ask():
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key=KEY) as client:
            return await client.embeddings.create(model="intent-search", input=TEXTS)

    assert same_bits([row.embedding for row in asyncio.run(ask()).data], server.vectors("intent-search"))


@pytest.mark.parametrize("text", ["one text", ""])
def test_a_single_text(client, server, text):
    answer = client.embeddings.create(model="intent-search", input=text, user="someone")
    assert same_bits([answer.data[0].embedding], server.vectors("intent-search", text))


def test_dimensions(client, server):
    answer = client.embeddings.create(model="intent-search", input=TEXTS, dimensions=64)
    assert same_bits([row.embedding for row in answer.data], server.vectors("intent-search", dimensions=64))


def test_token_ids_are_those_of_the_text(client, server):
    tokens = server.ask("/tokenize", inputs=TEXTS)
    ids = [[token["id"] for token in text] for text in tokens]
    answer = client.embeddings.create(model="intent-search", input=ids)
    assert same_bits([row.embedding for row in answer.data], server.vectors("intent-search"))
    one = client.embeddings.create(model="intent-search", input=ids[0])
    assert same_bits([one.data[0].embedding], server.vectors("intent-search", [ids[0]]))
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(map(len, ids))


def test_the_answer_is_of_the_clients_own_types_and_has_nothing_else(client):
    raw = client.embeddings.with_raw_response.create(model="intent-search", input=TEXTS, encoding_format="float")
    found = CreateEmbeddingResponse.model_validate(raw.http_response.json(), strict=True)
    assert found.model == "intent-search" and [row.index for row in found.data] == [0, 1]
    assert not any(part.model_extra for part in (found, found.usage, *found.data))
    assert raw.headers["x-lorat-adapter"] == "intent-search@1"


def test_models(client, server):
    listed = list(client.models.list())
    assert [model.id for model in listed][:1] == ["base"]
    assert {"banking77", "intent-search", "sentiment", "ner", "reranker"} < {model.id for model in listed}
    one = client.models.retrieve("intent-search@1")
    assert (one.id, one.object, one.owned_by, one.parent) == ("intent-search@1", "model", "lorat", "base")
    raw = server.http.get("/v1/models").json()["data"]
    for body in raw:
        Model.model_validate(body, strict=True)
        assert set(body) == {"id", "object", "created", "owned_by", "root", "parent", "max_model_len"}
    assert [body["parent"] for body in raw] == [None, *["base"] * (len(raw) - 1)]


@pytest.mark.parametrize(
    ("options", "error", "code"),
    [
        ({"model": "nobody"}, openai.NotFoundError, "model_not_found"),
        ({"model": "base", "dimensions": 4096}, openai.UnprocessableEntityError, None),
        ({"model": "base", "input": []}, openai.BadRequestError, None),
        (
            {"model": "base", "extra_headers": {"Authorization": "Bearer wrong"}},
            openai.AuthenticationError,
            "invalid_api_key",
        ),
    ],
)
def test_errors_are_the_clients_own(client, options, error, code):
    with pytest.raises(error) as caught:
        client.embeddings.create(**{"input": TEXTS, **options})
    assert caught.value.code == code and caught.value.type == "invalid_request_error"
    assert caught.value.body["message"]
    assert set(caught.value.body) == {"message", "type", "param", "code"}


def test_what_the_client_cannot_send_otherwise_is_named(client):
    with pytest.raises(openai.UnprocessableEntityError, match="colour") as caught:
        client.embeddings.create(model="base", input=TEXTS, extra_body={"colour": "blue"})
    assert caught.value.param == "colour"
