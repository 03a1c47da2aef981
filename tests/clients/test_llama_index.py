"""LlamaIndex over TEI's route and over OpenAI's."""

import asyncio

import pytest

from tests.clients.conftest import TEXTS, same_bits


@pytest.mark.parametrize("number", [0, 1], ids=["text-embeddings-inference", "openai-like"])
def test_examples(example, server, number):
    names = example("LlamaIndex", number)
    assert same_bits(names["vectors"], server.vectors("intent-search"))
    client = names["embeddings"]
    one = server.vectors("intent-search", [TEXTS[0]])
    assert same_bits([client.get_query_embedding(TEXTS[0])], one)
    assert same_bits([client.get_text_embedding(TEXTS[0])], one)
    assert same_bits(asyncio.run(client.aget_text_embedding_batch(TEXTS)), server.vectors("intent-search"))
