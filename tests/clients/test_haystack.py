"""Haystack: TEI's embedders at a model's own URL, its ranker, and OpenAI's embedder."""

import pytest
from haystack.utils import Secret
from haystack_integrations.components.embedders.huggingface_api import HuggingFaceAPITextEmbedder
from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker, TruncationDirection

from tests.clients.conftest import KEY, TEXTS, same_bits


def test_document_embedder_example(example, server):
    assert same_bits(example("Haystack", 0)["vectors"], server.vectors("intent-search"))


def test_openai_example(example, server):
    found = example("Haystack", 1)["vectors"]
    for vector, text in zip(found, TEXTS, strict=True):
        assert same_bits([vector], server.vectors("intent-search", [text]))


@pytest.mark.parametrize("normalize", [False, True])
def test_text_embedder(server, normalize):
    embedder = HuggingFaceAPITextEmbedder(
        api_type="text_embeddings_inference",
        api_params={"url": f"{server.url}/models/intent-search"},
        token=Secret.from_token(KEY),
        normalize=normalize,
    )
    found = embedder.run(TEXTS[0])["embedding"]
    embedder.close()
    assert same_bits([found], server.vectors("intent-search", TEXTS[0], normalize=normalize))


def test_ranker_example(example, server):
    names = example("Haystack", 2)
    texts = [document.content for document in names["documents"]]
    expected = server.ask("/rerank?adapter=reranker", query="how do I pay by card?", texts=texts)
    assert [(document.content, document.score) for document in names["ranked"]] == [
        (texts[rank["index"]], rank["score"]) for rank in expected
    ]
    assert expected[0]["score"] > expected[1]["score"]


def test_ranker_with_its_options(example, server):
    documents = example("Haystack", 2)["documents"]
    ranker = HuggingFaceTEIRanker(url=server.url, token=Secret.from_token(KEY), raw_scores=True, top_k=1)
    (best,) = ranker.run(query="card", documents=documents, truncation_direction=TruncationDirection.LEFT)["documents"]
    texts = [document.content for document in documents]
    expected = server.ask("/rerank?adapter=reranker", query="card", texts=texts, raw_scores=True)[0]
    assert (best.content, best.score) == (texts[expected["index"]], expected["score"])


def test_ranker_without_a_key(server, example):
    documents = example("Haystack", 2)["documents"]
    ranker = HuggingFaceTEIRanker(url=server.url, token=None, max_retries=1)
    with pytest.raises(RuntimeError, match="401"):
        ranker.run(query="card", documents=documents)
