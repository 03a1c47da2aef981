"""`POST /models/{name}` against PEFT, transformers' pipelines and the other routes."""

import numpy as np
import pytest
import torch
from transformers import pipeline

TEXT = "Ada Lovelace lived in London, near Saint James's Square."


def test_an_embedding_adapter_and_the_base_answer_vectors(post, made):
    for name in ("base", "search", "search@1"):
        for body in ({"inputs": "hello"}, {"inputs": ["hello", "there"]}, {"inputs": ["a"], "normalize": False}):
            assert post(f"/models/{name}", body) == post("/embed", body, adapter=name)
    assert post("/models/search", {"inputs": "a"}, adapter="search") == post("/models/search", {"inputs": "a"})
    assert post("/", {"inputs": "hello"}) == post("/embed", {"inputs": "hello"})
    assert post("/", {"inputs": "hello"}, adapter="search") == post("/embed", {"inputs": "hello"}, adapter="search")
    cut = post("/models/search", {"inputs": "hello", "dimensions": 8, "truncate": True})
    assert np.array(cut).shape == (1, 8)


def test_a_classifier_always_answers_a_list_for_each_text(post, made):
    (logits,) = made["kinds"].answers(["hello"])
    scores = dict(zip(["LABEL_0", "LABEL_1", "LABEL_2"], logits.softmax(-1).tolist(), strict=True))
    for inputs in ("hello", ["hello"]):
        ((first, second, third),) = post("/models/kinds", {"inputs": inputs})
        assert first["score"] >= second["score"] >= third["score"]
        assert {entry["label"]: entry["score"] for entry in (first, second, third)} == pytest.approx(scores, abs=5e-5)
    (top,) = post("/models/kinds", {"inputs": "hello", "parameters": {"top_k": 1}})
    assert [entry["label"] for entry in top] == [max(scores, key=scores.get)]


@pytest.mark.parametrize(
    ("function", "apply"), [("none", lambda x: x), ("sigmoid", torch.sigmoid), ("softmax", lambda x: x.softmax(-1))]
)
def test_the_function_that_is_asked_for_is_applied(post, made, function, apply):
    (logits,) = made["kinds"].answers(["hello"])
    (row,) = post("/models/kinds", {"inputs": "hello", "parameters": {"function_to_apply": function}})
    got = [entry["score"] for entry in sorted(row, key=lambda entry: entry["label"])]
    assert got == pytest.approx(apply(logits).tolist(), abs=5e-5)


@pytest.mark.parametrize("strategy", ["none", "simple"])
@pytest.mark.parametrize("ignored", [None, [], ["LABEL_1", "LABEL_3"]])
def test_entities_are_those_of_the_pipeline(post, made, strategy, ignored):
    adapter = made["names"]
    adapter.model.base_model.model.config.id2label = {index: f"LABEL_{index}" for index in range(5)}
    oracle = pipeline(
        "token-classification", adapter.model.base_model.model, tokenizer=adapter.tokenizer, device="cpu",
        aggregation_strategy=strategy, **({} if ignored is None else {"ignore_labels": ignored}),
    )  # fmt: skip
    given = {"aggregation_strategy": strategy} | ({} if ignored is None else {"ignore_labels": ignored})
    expected = oracle(TEXT)
    assert expected
    got = post("/models/names", {"inputs": TEXT, "parameters": given})
    assert post("/models/names", {"inputs": [TEXT], "parameters": given}) == [got]
    for one, other in zip(got, expected, strict=True):
        key = "entity" if strategy == "none" else "entity_group"
        assert one[key] == other[key].removeprefix("LABEL_") or one[key] == other[key]
        assert (one["start"], one["end"]) == (other["start"], other["end"])
        assert one["score"] == pytest.approx(float(other["score"]), abs=5e-5)


def test_sentences_are_compared_by_any_adapter(post, made):
    body = {"inputs": {"source_sentence": "hello", "sentences": ["there", "hello"]}}
    for name in ("base", "search", "kinds"):
        assert post(f"/models/{name}", body) == post("/similarity", body, adapter=name)


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/models/nothere", {"inputs": "a"}, 404, "nothere"),
        ("/models/kinds?adapter=search", {"inputs": "a"}, 422, "'kinds' and ?adapter='search' differ"),
        ("/models/kinds?adapter=nothere", {"inputs": "a"}, 422, "differ"),
        ("/models/kinds?adapter=kinds&adapter=search", {"inputs": "a"}, 422, "takes one"),
        ("/models/search", {"inputs": []}, 400, "at least one"),
        ("/models/search", {"inputs": "a", "parameters": {"top_k": 1}}, 422, "top_k"),
        ("/models/kinds", {"inputs": "a", "normalize": True}, 422, "normalize"),
        ("/models/kinds", {"inputs": [[101]]}, 422, "token ids"),
        ("/models/kinds", {"inputs": "a", "parameters": {"top_k": 0}}, 422, "top_k"),
        ("/models/kinds", {"inputs": "a", "parameters": {"ignore_labels": []}}, 422, "ignore_labels"),
        ("/models/names", {"inputs": "a", "parameters": {"aggregation_strategy": "max"}}, 422, "aggregation_strategy"),
        ("/models/names", {"inputs": "a", "parameters": {"stride": 1}}, 422, "stride"),
        ("/models/base", {"inputs": {"source_sentence": "a", "sentences": ["b"]}, "dimensions": 2}, 422, "dimensions"),
    ],
)
def test_what_means_nothing_is_refused_by_name(server, made, path, body, status, says):
    response = server.post(path, json=body)
    assert response.status_code == status, response.text
    assert says in response.json()["error"]
