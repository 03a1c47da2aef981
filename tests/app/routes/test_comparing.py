"""`/similarity` against sentence-transformers, `/rerank` against PEFT."""

from math import exp

import pytest
from sentence_transformers import SentenceTransformer, util

TEXTS = ["Cards are accepted.", "", "It rains.", "Cards are accepted."]


def test_similarities_are_those_of_sentence_transformers(post, made, tiny_path):
    model = SentenceTransformer(str(tiny_path), device="cpu")
    body = {"inputs": {"source_sentence": "how do I pay?", "sentences": TEXTS}}
    expected = util.cos_sim(model.encode("how do I pay?"), model.encode(TEXTS))[0].tolist()
    assert post("/similarity", body) == pytest.approx(expected, abs=2e-5)
    vectors = made["search"].vectors(["how do I pay?", *TEXTS])
    expected = [float(vectors[0] @ other) for other in vectors[1:]]
    assert post("/similarity", body, adapter="search") == pytest.approx(expected, abs=2e-5)


def test_parameters_of_similarity_are_honoured(server, made):
    long = "word " * 600
    body = {"inputs": {"source_sentence": long, "sentences": ["a"]}, "parameters": {"truncate": False}}
    response = server.post("/similarity", json=body)
    assert response.status_code == 422 and "602 tokens" in response.json()["error"]


@pytest.mark.parametrize("raw", [False, True])
def test_texts_are_ranked_by_what_peft_scores_their_pairs(post, made, raw):
    texts = [text or "?" for text in TEXTS]  # transformers takes a pair with nothing in it for one text
    logits = [float(row) for row in made["fits"].answers([("how do I pay?", text) for text in texts])]
    ranked = post(
        "/rerank", {"query": "how do I pay?", "texts": texts, "raw_scores": raw, "return_text": True}, adapter="fits"
    )
    expected = logits if raw else [1 / (1 + exp(-logit)) for logit in logits]
    assert sorted(entry["index"] for entry in ranked) == [0, 1, 2, 3]
    assert [entry["score"] for entry in ranked] == sorted((entry["score"] for entry in ranked), reverse=True)
    for entry in ranked:
        assert entry["score"] == pytest.approx(expected[entry["index"]], abs=5e-5)
        assert entry["text"] == texts[entry["index"]]
    assert "text" not in post("/rerank", {"query": "q", "texts": ["a"]}, adapter="fits")[0]


@pytest.mark.parametrize(
    ("path", "body", "adapter", "status", "says"),
    [
        ("/rerank", {"query": "q", "texts": ["a"]}, "kinds", 424, "3 labels"),
        ("/rerank", {"query": "q", "texts": ["a"]}, None, 424, "no head"),
        ("/rerank", {"query": "q", "texts": []}, "fits", 400, "`texts` is empty: send at least one"),
        ("/rerank", {"query": "q"}, "fits", 422, "texts"),
        (
            "/similarity",
            {"inputs": {"source_sentence": "a", "sentences": []}},
            None,
            400,
            "`inputs.sentences` is empty: send at least one",
        ),
        ("/similarity", {"inputs": "a"}, None, 422, "inputs"),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": ["b"]}, "adapter": "x"}, None, 422, "adapter"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name(server, made, path, body, adapter, status, says):
    response = server.post(path, json=body, params={"adapter": adapter} if adapter else {})
    assert response.status_code == status, response.text
    assert says in response.json()["error"]
