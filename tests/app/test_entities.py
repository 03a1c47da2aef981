"""`/token_classify`: spans, labels and entities, against transformers' pipeline and PEFT."""

import json

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient
from transformers import AutoTokenizer, BertForTokenClassification, pipeline

from app.entities import entities
from app.main import create_app
from app.settings import Settings
from lorat import Recipe
from lorat.adapter import Head, Linear
from lorat.base import load_base
from lorat.tokenizer import Span
from tests.app.conftest import upload
from tests.oracle import make_peft

BIO = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
TEXTS = [
    "Ada Lovelace lived in London, and Charles Babbage did too.",
    "",
    "   \t\n ",
    "naïve café, 日本語 in Tōkyō; Œuvre, ﬁn, ẞ and İstanbul!",
    "🙂 Zoë 👩‍👩‍👧 saw 🇫🇷Paris\u200b once\u00a0more",
    '...,;-- ("O\'Neill") e.g. U.S.A. #42 http://a.b/c?d=e',
    "[CLS] a literal [SEP] and an [UNK]",
    "antidisestablishmentarianism " * 3,
    "Grace Hopper flew to Arlington. " * 120,
]
PLAIN = [text for text in TEXTS if "[CLS]" not in text]  # in lower case that is no token


def head_of(labels, multi_label=False):
    return Head(Linear(torch.empty(0), torch.empty(0)), tuple(labels), multi_label)


def oracle(model, labels, texts, aggregate):
    """What transformers' pipeline answers; an entity's word is the text's own slice."""
    model.config.id2label = dict(enumerate(labels))
    tokenizer = AutoTokenizer.from_pretrained(model.name_or_path, model_max_length=512)
    strategy = (
        {"aggregation_strategy": "simple"} if aggregate else {"aggregation_strategy": "none", "ignore_labels": []}
    )
    run = pipeline("token-classification", model=model, tokenizer=tokenizer, device="cpu", **strategy)
    key = "entity_group" if aggregate else "entity"
    return [
        [
            {key: e[key], "score": float(e["score"]), "word": text[e["start"] : e["end"]] if aggregate else e["word"]}
            | {"start": e["start"], "end": e["end"]}
            for e in run([text])[0]
        ]
        for text in texts
    ]


def assert_same(got, wanted, tolerance):
    assert [list(entry) for row in got for entry in row] == [list(entry) for row in wanted for entry in row]
    for mine, theirs in zip(got, wanted, strict=True):
        assert [e | {"score": 0} for e in mine] == [e | {"score": 0} for e in theirs]
        assert [e["score"] for e in mine] == pytest.approx([e["score"] for e in theirs], abs=tolerance)


@pytest.fixture(scope="module")
def base(tiny_path):
    return load_base(tiny_path, device="cpu")


@pytest.fixture(scope="module")
def tagger(tiny_path):
    torch.manual_seed(1)
    model = BertForTokenClassification.from_pretrained(tiny_path, num_labels=5).eval()
    with torch.no_grad():
        model.classifier.weight.mul_(30)
    return model


def spans_of(base, texts, recipe=None, **options):
    return [tokens.spans for tokens in base.encode(texts, recipe or base.recipe, spans=True, **options)]


@pytest.mark.parametrize("aggregate", [True, False])
@pytest.mark.parametrize("labels", [BIO, ["PER", "LOC", "O", "S-PER", "x-y-z"], ["B-O", "I-O", "B-A", "I-A", "A"]])
def test_entries_are_those_of_transformers(base, tagger, labels, aggregate):
    found = []
    for text, tokens in zip(TEXTS, base.encode(TEXTS, base.recipe, spans=True), strict=True):
        with torch.no_grad():
            logits = tagger(input_ids=torch.tensor([tokens.ids])).logits[0].numpy()
        found.append(entities(text, logits, tokens.spans, head_of(labels), aggregate))
    wanted = oracle(tagger, labels, TEXTS, aggregate)
    assert sum(map(len, wanted)) > 20
    assert_same(found, wanted, 1e-6)


def labelled(*labels):
    """Entities of a text whose tokens, a letter each, have these labels."""
    text = "abcdefgh"[: len(labels)]
    logits = np.array([[9.0 * (label == name) for name in BIO] for label in labels], dtype=np.float32)
    spans = [Span(place, place + 1, letter) for place, letter in enumerate(text)]
    return [(e["entity_group"], e["word"]) for e in entities(text, logits, spans, head_of(BIO), True)]


def test_tokens_join_by_their_prefixes():
    assert labelled("B-PER", "I-PER", "B-PER", "I-LOC") == [("PER", "ab"), ("PER", "c"), ("LOC", "d")]
    assert labelled("I-PER", "I-PER", "O", "I-PER") == [("PER", "ab"), ("PER", "d")]
    assert labelled("O", "O") == []


def test_independent_labels_are_scored_with_a_sigmoid():
    logits = np.array([[0, 2, 1, -1, -2]], dtype=np.float32)
    (entry,) = entities("a", logits, [Span(0, 1, "a")], head_of(BIO, multi_label=True), False)
    assert (entry["entity"], entry["score"]) == ("B-PER", pytest.approx(1 / (1 + np.exp(-2))))
    (entry,) = entities("a", logits[:, 3:4], [Span(0, 1, "a")], head_of(["TERM"]), False)
    assert (entry["entity"], entry["score"]) == ("TERM", pytest.approx(1 / (1 + np.exp(1))))


def test_spans_are_made_when_asked_for(base):
    assert all(tokens.spans is None for tokens in base.encode(TEXTS, base.recipe))
    assert spans_of(base, ["Hi, 🙂"]) == [[None, Span(0, 2, "hi"), Span(2, 3, ","), Span(4, 5, "🙂"), None]]
    assert spans_of(base, [("a", "pair")]) == [None]


def test_lower_case_does_not_shift_spans(base):
    texts = [*PLAIN, "İİ İzmir İ, ΣΑΣ ǅ", "xİ"]
    lower, plain = (spans_of(base, texts, Recipe(lower_case=case)) for case in (True, False))
    for one, other in zip(lower, plain, strict=True):
        assert [span and span[:2] for span in one] == [span and span[:2] for span in other]


@pytest.mark.parametrize("prompt", ["Find names: ", "🙂 İn: "])
@pytest.mark.parametrize("lower_case", [True, False])
def test_a_prompt_is_left_out_and_does_not_shift_spans(base, prompt, lower_case):
    texts = PLAIN[:-1]
    recipe = Recipe(prompts={"find": prompt}, lower_case=lower_case)
    plain, prompted = spans_of(base, texts), spans_of(base, texts, recipe, prompt_name="find")
    for without, behind in zip(plain, prompted, strict=True):
        assert [span for span in behind if span] == [span for span in without if span]
        assert len(behind) > len(without)


def test_a_token_of_both_prompt_and_text_is_cut_to_the_text(base):
    (spans,) = spans_of(base, ["don bridge"], Recipe(prompts={"p": "in lon"}), prompt_name="p")
    assert spans == [None, None, Span(0, 3, "london"), Span(4, 10, "bridge"), None]


@pytest.mark.parametrize("direction", ["left", "right"])
def test_cut_texts_keep_their_spans(base, direction):
    (whole,), (cut,) = (spans_of(base, TEXTS[:1], Recipe(max_length=n), direction=direction) for n in (512, 7))
    kept = [span for span in whole if span]
    assert [span for span in cut if span] == (kept[:5] if direction == "right" else kept[-5:])


@pytest.fixture(scope="module")
def peft(tiny_path, tmp_path_factory):
    directory = tmp_path_factory.mktemp("tagger")
    made = make_peft(tiny_path, directory, task="TOKEN_CLS", num_labels=5, r=4, size=1.0)
    (directory / "config.json").write_text(json.dumps({"id2label": dict(enumerate(BIO))}))
    return made


@pytest.fixture(scope="module")
def client(tiny_path, peft, tmp_path_factory):
    settings = Settings(base=str(tiny_path), store=str(tmp_path_factory.mktemp("store")), demo=False, device="cpu")
    other = tmp_path_factory.mktemp("other")
    make_peft(tiny_path, other, r=4)
    with TestClient(create_app(settings)) as opened:
        assert upload(opened, "names", peft.directory).status_code == 201
        assert upload(opened, "vectors", other).status_code == 201
        yield opened


def ask(client, inputs, **fields):
    response = client.post("/token_classify?adapter=names", json={"inputs": inputs} | fields)
    assert response.status_code == 200, response.text
    return response


def test_scores_are_those_of_peft(client, peft):
    answers = peft.answers(TEXTS, max_length=512)
    for row, logits in zip(ask(client, TEXTS, aggregate=False).json(), answers, strict=True):
        scores, best = logits.softmax(-1)[1:-1].max(-1)
        assert [entry["score"] for entry in row] == pytest.approx(scores.tolist(), abs=5e-5)
        assert [entry["entity"] for entry in row] == [BIO[index] for index in best]


@pytest.mark.parametrize("aggregate", [True, False])
def test_answers_are_those_of_transformers_with_peft(client, peft, aggregate):
    wanted = oracle(peft.model.base_model.model, BIO, TEXTS, aggregate)
    response = ask(client, TEXTS, **({} if aggregate else {"aggregate": False}))
    assert_same(response.json(), wanted, 5e-5)
    assert any(wanted)
    assert response.headers["x-lorat-adapter"] == "names@1"
    assert int(response.headers["x-compute-tokens"]) > 512


def test_one_text_is_answered_as_a_list_of_one(client):
    one, several = ask(client, TEXTS[0]).json(), ask(client, TEXTS[:2]).json()
    assert_same(one, several[:1], 5e-5)
    assert several[1] == []


def test_texts_are_cut_on_the_side_asked_for_or_refused(client):
    text = TEXTS[-1]
    right, left = (
        ask(client, text, aggregate=False, truncation_direction=side).json()[0] for side in ("Right", "Left")
    )
    assert (right[0]["start"], left[-1]["end"]) == (0, len(text) - 1)
    assert len(right) == len(left) == 510
    refused = client.post("/token_classify?adapter=names", json={"inputs": text, "truncate": False})
    assert (refused.status_code, refused.json()["error_type"]) == (422, "Tokenizer")


@pytest.mark.parametrize("adapter", ["", "?adapter=base", "?adapter=vectors"])
def test_an_adapter_without_that_head_is_424(client, adapter):
    response = client.post(f"/token_classify{adapter}", json={"inputs": "a"})
    assert (response.status_code, response.json()["error_type"]) == (424, "Backend")
    assert "no head for token_classification" in response.json()["error"]


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"inputs": []}, 400, "at least one"),
        ({"inputs": [101, 102]}, 422, "inputs"),
        ({"inputs": ["a", ["b"]]}, 422, "inputs"),
        ({"inputs": "a", "aggregate": "yes"}, 422, "aggregate"),
        ({"inputs": "a", "aggregation_strategy": "simple"}, 422, "aggregation_strategy"),
        ({"inputs": "a", "prompt_name": "query"}, 422, "query"),
    ],
)
def test_other_bodies_are_refused_by_name(client, body, status, says):
    response = client.post("/token_classify?adapter=names", json=body)
    assert response.status_code == status
    assert says in response.json()["error"]
