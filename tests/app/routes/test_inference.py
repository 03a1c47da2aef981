"""`/embed_all` and fan-out over several adapters (single adapters: tests/app/test_inference.py)."""

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertModel

TEXTS = ["What is LoRA?", "", "naïve café 日本語 🙂", "long " * 300]


def close(got, expected, tolerance=2e-5):
    assert np.abs(np.array(got) - expected.detach().numpy()).max() <= tolerance


@torch.no_grad()
def test_every_token_has_the_hidden_state_of_transformers_and_of_peft(post, made, tiny_path):
    model, tokenizer = BertModel.from_pretrained(tiny_path).eval(), AutoTokenizer.from_pretrained(tiny_path)
    for name, oracle in (
        (None, model),
        ("search", made["search"].model),
        ("kinds", made["kinds"].model.base_model.model.bert),
    ):
        answer = post("/embed_all", {"inputs": TEXTS}, **({"adapter": name} if name else {}))
        for row, text in zip(answer, TEXTS, strict=True):
            tokens = tokenizer(text, return_tensors="pt", truncation=True, max_length=512)
            close(row, oracle(**tokens).last_hidden_state[0])


def test_token_ids_and_one_text_are_taken_by_embed_all_too(post, made):
    assert post("/embed_all", {"inputs": [101, 7592, 102]}) == post("/embed_all", {"inputs": "hello"})


@pytest.mark.parametrize(
    ("path", "names", "inputs"),
    [
        ("/embed", ["search", "base", "kinds@1"], ["hello", "there"]),
        ("/embed", ["search", "kinds"], "hello"),
        ("/classify", ["kinds", "fits@1"], [["hello"], ["a question", "its answer"]]),
        ("/classify", ["kinds", "fits"], "hello"),
    ],
)
def test_several_adapters_answer_by_name_what_each_answers_alone(server, made, path, names, inputs):
    response = server.post(path, params={"adapter": names}, json={"inputs": inputs})
    assert response.status_code == 200, response.text
    assert list(response.json()) == names
    alone = [server.post(path, params={"adapter": name}, json={"inputs": inputs}) for name in names]
    for name, one in zip(names, alone, strict=True):
        flat = [np.array(_numbers(answer)) for answer in (response.json()[name], one.json())]
        assert np.abs(flat[0] - flat[1]).max() <= 1e-5
    for header in ("x-lorat-adapter", "x-lorat-digest"):
        assert response.headers[header] == ",".join(one.headers[header] for one in alone)
    tokens = [int(one.headers["x-compute-tokens"]) for one in alone]
    assert int(response.headers["x-compute-tokens"]) == sum(tokens)


def _numbers(answer):
    """Every number of an answer; classes in an order that does not depend on their scores."""
    if isinstance(answer, float):
        return [answer]
    if isinstance(answer, dict):
        return [answer["score"]]
    if answer and isinstance(answer[0], dict):
        answer = sorted(answer, key=lambda entry: entry["label"])
    return [number for part in answer for number in _numbers(part)]


@pytest.mark.parametrize(
    ("path", "names", "status", "says"),
    [
        ("/embed", ["search", "nothere"], 404, "nothere"),
        ("/classify", ["kinds", "search"], 424, "search"),
        ("/embed", ["search", "search"], 422, "twice"),
        ("/embed_all", ["search", "kinds"], 422, "takes one"),
        ("/token_classify", ["names", "kinds"], 422, "takes one"),
    ],
)
def test_one_that_cannot_answer_fails_all(server, made, path, names, status, says):
    response = server.post(path, params={"adapter": names}, json={"inputs": "hello"})
    assert response.status_code == status and says in response.json()["error"]


def test_inputs_times_adapters_are_held_against_the_limit(server, made):
    response = server.post("/embed", params={"adapter": ["search", "kinds"]}, json={"inputs": ["a"] * 129})
    assert response.status_code == 422 and "258 inputs" in response.json()["error"]
