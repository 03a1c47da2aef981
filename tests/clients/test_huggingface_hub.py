"""huggingface_hub's InferenceClient at a model's own URL. It runs in both environments: with either major version."""

import asyncio

import numpy as np
import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from tests.clients.conftest import KEY, TEXTS, same_bits

PEOPLE = "Ada Lovelace lived in London"


@pytest.fixture
def client(server):
    """Make clients of one model's URL; no name: the base's, at the root."""
    return lambda name=None: InferenceClient(f"{server.url}/models/{name}" if name else server.url, token=KEY)


def test_the_example(example, server):
    names = example("huggingface_hub")
    assert same_bits(names["vectors"], server.vectors("intent-search"))
    sentences = ["reserve a place for two", "what is my balance?"]
    unit = server.vectors("intent-search", ["book me a table", *sentences])
    assert same_bits(names["cosines"], unit[1:] @ unit[0])
    expected = server.ask("/classify?adapter=banking77", inputs="I lost my card")
    assert [(each.label, each.score) for each in names["labels"]] == [(e["label"], e["score"]) for e in expected[:3]]
    assert all(PEOPLE[each.start : each.end] == each.word for each in names["entities"])


@pytest.mark.parametrize("name", [None, "base", "intent-search", "intent-search@1"])
@pytest.mark.parametrize(
    "options", [{}, {"normalize": False}, {"truncate": True, "truncation_direction": "left"}, {"dimensions": 32}]
)
def test_feature_extraction(client, server, name, options):
    found = client(name).feature_extraction(TEXTS, **options)
    assert found.dtype == np.float32
    assert same_bits(found, server.vectors(name or "base", **options))


def test_one_text_is_one_row(client, server):
    assert same_bits(client("base").feature_extraction(TEXTS[0]), server.vectors("base", TEXTS[0]))


def test_the_asynchronous_client(server):
    async def ask():
        async with AsyncInferenceClient(f"{server.url}/models/intent-search", token=KEY) as client:
            return await client.feature_extraction(TEXTS)

    assert same_bits(asyncio.run(ask()), server.vectors("intent-search"))


@pytest.mark.parametrize("top_k", [None, 1, 2])
def test_text_classification(client, server, top_k):
    found = client("sentiment").text_classification("what a joy", top_k=top_k)
    expected = server.ask("/classify?adapter=sentiment", inputs="what a joy")[:top_k]
    assert [(each.label, each.score) for each in found] == [(each["label"], each["score"]) for each in expected]


def test_function_to_apply(client, server):
    found = client("sentiment").text_classification("what a joy", function_to_apply="none")
    expected = server.ask("/classify?adapter=sentiment", inputs="what a joy", raw_scores=True)
    assert [(each.label, each.score) for each in found] == [(each["label"], each["score"]) for each in expected]


@pytest.mark.parametrize("strategy", ["none", "simple"])
def test_token_classification(client, server, strategy):
    found = client("ner").token_classification(PEOPLE, aggregation_strategy=strategy, ignore_labels=[])
    (expected,) = server.ask("/token_classify?adapter=ner", inputs=PEOPLE, aggregate=strategy == "simple")
    kind = "entity_group" if strategy == "simple" else "entity"
    assert [(getattr(e, kind), e.word, e.score, e.start, e.end) for e in found] == [
        (e[kind], e["word"], e["score"], e["start"], e["end"]) for e in expected
    ]
    assert found


def test_sentence_similarity_of_the_base(client, server):
    unit = server.vectors("base", [TEXTS[0], *TEXTS])
    assert same_bits(client().sentence_similarity(TEXTS[0], TEXTS), unit[1:] @ unit[0])


@pytest.mark.parametrize(
    ("name", "options", "status", "words"),
    [
        ("nobody", {}, 404, "nobody"),
        ("intent-search", {"dimensions": 4096}, 422, "384"),
        ("sentiment", {"normalize": True}, 422, "normalize"),
        ("intent-search", {"prompt_name": "none"}, 422, "prompt"),
    ],
)
def test_errors_say_why(client, name, options, status, words):
    with pytest.raises(HfHubHTTPError) as caught:
        client(name).feature_extraction(TEXTS, **options)
    assert caught.value.response.status_code == status
    assert words in caught.value.response.json()["error"]
