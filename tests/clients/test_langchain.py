"""LangChain over OpenAI's route and over a model's own URL."""

import asyncio
from pathlib import Path

import llama_index.core
import numpy as np
import openai
import pytest
import tiktoken
from langchain_huggingface import HuggingFaceEndpointEmbeddings
from langchain_openai import OpenAIEmbeddings

from tests.clients.conftest import KEY, TEXTS, same_bits

VOCABULARIES = (
    Path(llama_index.core.__file__).parent / "_static" / "tiktoken_cache"
)  # OpenAI's, as LlamaIndex ships them


@pytest.fixture
def default(server, monkeypatch):
    """langchain-openai as it is when nothing is set, with OpenAI's own vocabulary."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(VOCABULARIES))
    return OpenAIEmbeddings(model="intent-search", base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)


def test_openai_example(example, server):
    embeddings = example("langchain-openai")
    assert same_bits(embeddings["vectors"], server.vectors("intent-search"))
    client = embeddings["embeddings"]
    assert same_bits([client.embed_query(TEXTS[0])], server.vectors("intent-search", [TEXTS[0]]))
    assert same_bits(asyncio.run(client.aembed_documents(TEXTS)), server.vectors("intent-search"))


def test_more_texts_than_one_request_takes(example, server):
    client = example("langchain-openai")["embeddings"]
    texts = [f"text {number}" for number in range(500)]
    found = client.embed_documents(texts, chunk_size=200)
    parts = [server.vectors("intent-search", texts[start : start + 200]) for start in (0, 200, 400)]
    assert same_bits(found, np.concatenate(parts))


@pytest.mark.parametrize("text", ["Ünïcode, déjà vu", "internationalisation of hypermedia"])
def test_ids_of_openais_vocabulary_are_refused_with_what_to_set(default, text):
    with pytest.raises(openai.UnprocessableEntityError, match="check_embedding_ctx_length=False"):
        default.embed_documents([text])


def test_the_default_of_openai_means_other_words_where_all_its_ids_exist_here(default, server):
    text = "I lost my card"
    ids = tiktoken.get_encoding("cl100k_base").encode(text)
    found = default.embed_documents([text])
    np.testing.assert_allclose(found, server.vectors("intent-search", [ids]), atol=1e-6)
    assert np.abs(found - server.vectors("intent-search", [text])).max() > 0.01


def test_huggingface_example(example, server):
    names = example("langchain-huggingface")
    assert same_bits(names["vectors"], server.vectors("intent-search"))
    client = names["embeddings"]
    assert same_bits([client.embed_query(TEXTS[0])], server.vectors("intent-search", [TEXTS[0]]))
    assert same_bits(asyncio.run(client.aembed_documents(TEXTS)), server.vectors("intent-search"))


def test_huggingface_takes_no_url_for_a_model(server):
    with pytest.raises(ValueError, match="not a URL"):
        HuggingFaceEndpointEmbeddings(model=f"{server.url}/models/intent-search")
