"""What a model is trained on, against transformers' own tokenizer, words and padding."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, DataCollatorForTokenClassification, DataCollatorWithPadding

from lorat import load_base
from lorat.base import locate_base
from lorat.errors import ConfigError
from lorat.training.inputs import (
    IGNORED,
    check_words,
    collate,
    cut_texts,
    encode_words,
    labelled_items,
    lengths_of,
    tagged_items,
    texts_of,
)
from lorat.training.splits import LabelledTexts, TaggedWords, TextPairs, TrainingData

WORDS = ("a", "unbelievably", "New-York", "don't", "9,000", "é", "日本", "...", "\u200b", "\U0001f600", "x" * 40)
words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def embedded():
    return load_base(device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(locate_base(None))


@pytest.mark.parametrize(
    ("train", "dev", "says"),
    [
        ((("\u200b",), (0,)), (("a",), (0,)), "no word of train is read"),
        ((("a", "b"), (0, 1)), (("\u200d",), (1,)), "no word of dev is read"),
        ((("a", "\u200b"), (0, 1)), (("a",), (0,)), "all words of train have the tag 'O'"),
    ],
)
def test_words_to_learn_from_are_read_and_of_two_tags(train, dev, says, embedded):
    splits = [TaggedWords((words,), (tags,)) for words, tags in (train, dev)]
    with pytest.raises(ConfigError, match=says):
        check_words(embedded, TrainingData("tags", ("O", "B-x"), False, *splits, None, False, "x"))


@settings(deadline=None)
@given(words)
def test_a_word_is_read_at_its_first_token(embedded, tokenizer, sentence):
    (tokens,), (places,) = encode_words(embedded, [sentence])
    text = " ".join(sentence)
    starts = [sum(len(word) + 1 for word in sentence[:n]) for n in range(len(sentence))]
    wanted = tokenizer(text, return_offsets_mapping=True)
    assert list(tokens.ids) == wanted["input_ids"]
    for word, start, place in zip(sentence, starts, places, strict=True):
        inside = [
            n for n, (begin, end) in enumerate(wanted["offset_mapping"]) if start <= begin < end <= start + len(word)
        ]
        assert place == (min(inside) if inside else None)


def test_tags_are_where_transformers_puts_them(embedded, tokenizer):
    sentences = (("Wolfgang", "lives", "unbelievably", "near", "Berlin"), ("yes", "!"))
    tags = ((1, 0, 0, 0, 2), (0, 0))
    items = tagged_items(embedded, TaggedWords(sentences, tags))
    for item, own, sentence in zip(items, tags, sentences, strict=True):
        encoded = tokenizer(list(sentence), is_split_into_words=True)
        first = [
            None if word is None or word == before else word
            for before, word in zip([None, *encoded.word_ids()], encoded.word_ids(), strict=False)
        ]
        assert list(item["input_ids"]) == encoded["input_ids"]
        assert item["labels"] == [IGNORED if word is None else own[word] for word in first]


def test_what_is_cut_off_has_no_tag(embedded):
    longest = embedded.recipe.max_length
    (item,) = tagged_items(embedded, TaggedWords((("word",) * (longest + 9),), ((1,) * (longest + 9),)))
    assert len(item["labels"]) == len(item["input_ids"]) == longest
    assert item["labels"].count(1) == longest - 2


def test_a_text_of_several_labels_has_a_row_of_decisions(embedded):
    rows = LabelledTexts(("one", "both", "none"), ((1,), (0, 1), ()))
    assert [item["labels"] for item in labelled_items(embedded, rows, 2)] == [[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]


def test_texts_that_are_cut_are_counted(embedded, tokenizer):
    most = embedded.recipe.max_length
    fits, long = "word " * (most - 2), "word " * (most - 1)
    assert len(tokenizer(fits)["input_ids"]) == most
    assert cut_texts(embedded, LabelledTexts((fits,), ((0,),))) == ""
    assert cut_texts(embedded, LabelledTexts((fits, long), ((0,), (0,)))).startswith(
        "1 of 2 texts to train on are longer"
    )
    assert cut_texts(embedded, TextPairs((fits, long), (long, fits))).startswith("2 of 4 texts")


def test_the_text_of_a_row():
    assert texts_of(TaggedWords((("a", "b"),), ((0, 0),))) == ["a b"]
    assert texts_of(LabelledTexts(("a", "b"), ((0,), (0,)))) == ["a", "b"]
    assert texts_of(TextPairs(("a",), ("b",), None)) == ["a"]


def test_batches_are_padded_as_transformers_pads_them(tokenizer):
    texts = ["short", "a longer text than that", "in between"]
    items = [{"input_ids": tokenizer(text)["input_ids"], "labels": n} for n, text in enumerate(texts)]
    wanted = DataCollatorWithPadding(tokenizer)([dict(item) for item in items])
    batch = collate(items)
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        name: wanted[name].tolist() for name in ("input_ids", "attention_mask", "labels")
    }
    assert "labels" not in collate([{"input_ids": item["input_ids"]} for item in items])


def test_tags_are_padded_with_what_the_loss_leaves_out(tokenizer):
    items = [
        {"input_ids": ids, "labels": list(range(len(ids)))}
        for ids in (tokenizer(text)["input_ids"] for text in ("short", "a longer text than that"))
    ]
    wanted = DataCollatorForTokenClassification(tokenizer, label_pad_token_id=IGNORED)([dict(item) for item in items])
    assert torch.equal(collate(items)["labels"], wanted["labels"])


def test_decisions_are_not_taken_for_tags():
    """As many labels as tokens: floats are decisions."""
    batch = collate(
        [{"input_ids": [1, 2, 3], "labels": [0.0, 1.0, 1.0]}, {"input_ids": [1], "labels": [1.0, 0.0, 0.0]}]
    )
    assert batch["labels"].tolist() == [[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]]


def test_the_length_of_a_row_is_that_of_all_that_is_read_of_it(embedded):
    assert lengths_of(embedded, LabelledTexts(("a dog", "cat " * 999), ((0,), (1,)))) == [4, 256]
    assert lengths_of(embedded, TaggedWords((("a", "dog"),), ((0, 1),))) == [4]
    assert lengths_of(embedded, TextPairs(("a dog", "a"), ("a", "cat " * 999))) == [7, 259]
