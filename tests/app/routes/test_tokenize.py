"""`/tokenize` against transformers' tokenizer."""

import pytest
from transformers import AutoTokenizer

TEXTS = ["What is LoRA?", "", "naïve café 日本語 🙂 x", "unaffable words", "long " * 600]


@pytest.mark.parametrize("special", [True, False])
def test_tokens_are_those_of_transformers(post, tiny_path, special):
    tokenizer = AutoTokenizer.from_pretrained(tiny_path)
    answer = post("/tokenize", {"inputs": TEXTS, "add_special_tokens": special})
    for pieces, text in zip(answer, TEXTS, strict=True):
        whole = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
        assert [piece["id"] for piece in pieces] == whole["input_ids"]
        for piece, (start, stop) in zip(pieces, whole["offset_mapping"], strict=True):
            if piece["special"]:
                assert piece["text"] in ("[CLS]", "[SEP]")
                assert piece["start"] is piece["stop"] is None
            else:
                assert (piece["start"], piece["stop"], piece["text"]) == (start, stop, text[start:stop])


def test_one_text_is_a_list_of_one(post):
    assert post("/tokenize", {"inputs": "hello"}) == post("/tokenize", {"inputs": ["hello"]})


@pytest.mark.parametrize(
    ("body", "status"), [({"inputs": []}, 400), ({"inputs": [1]}, 422), ({"inputs": "a", "adapter": "x"}, 422)]
)
def test_what_is_no_text_is_refused(server, body, status):
    assert server.post("/tokenize", json=body).status_code == status


def test_an_adapter_must_exist_and_changes_nothing(server, made, post):
    plain = post("/tokenize", {"inputs": "hello"})
    for name in ("base", "search", "search@1"):
        assert post("/tokenize", {"inputs": "hello"}, adapter=name) == plain
    for names, status in (("nothere", 404), (["search", "kinds"], 422)):
        assert server.post("/tokenize", params={"adapter": names}, json={"inputs": "hello"}).status_code == status


@pytest.mark.parametrize("inputs", [["a"] * 257, "a " * 140_000])
def test_too_much_is_refused(server, inputs):
    response = server.post("/tokenize", json={"inputs": inputs})
    assert response.status_code == 422 and "limit" in response.json()["error"]


def test_half_a_character_is_refused(server):
    response = server.post("/tokenize", content=b'{"inputs": "\\ud800"}', headers={"Content-Type": "application/json"})
    assert response.status_code == 422, response.text
