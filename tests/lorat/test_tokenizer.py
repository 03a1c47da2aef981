"""Token ids, with transformers' own tokenizer as the oracle."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from lorat.base import load_base, locate_base
from lorat.errors import InputError, InputTooLongError

ORACLE = AutoTokenizer.from_pretrained(locate_base(None))
OURS = load_base(device="cpu").tokenizer
texts = st.text(max_size=60)


@settings(max_examples=150, deadline=None)
@given(
    texts,
    st.one_of(st.none(), st.text(min_size=1, max_size=60)),
    st.integers(8, 40),
    st.sampled_from(["right", "left"]),
)
def test_texts_and_pairs_are_cut_as_transformers_cuts_them(first, second, length, side):
    ORACLE.truncation_side = side
    expected = ORACLE(first, second, truncation="longest_first", max_length=length)
    [got] = OURS.encode([first if second is None else (first, second)], max_length=length, direction=side)
    assert got.ids == expected["input_ids"]
    assert (got.types or [0] * len(got)) == expected["token_type_ids"]


WORDS = st.text(st.sampled_from("aé日🙂.-\u0301\u3000\n\t ₂x"), max_size=30) | st.just("y" * 300) | st.just("[MASK]")


@settings(max_examples=150, deadline=None)
@given(
    st.lists(WORDS, min_size=1, max_size=8), st.integers(1, 60), st.integers(8, 20), st.sampled_from([" ", "\n", ""])
)
def test_a_long_text_is_cut_as_if_all_of_it_had_been_looked_at(words, times, length, between):
    text = between.join(words * times)
    ORACLE.truncation_side = "right"
    [got, short] = OURS.encode([text, "short"], max_length=length, spans=True)
    assert got.ids == ORACLE(text, truncation=True, max_length=length)["input_ids"]
    assert short.ids == ORACLE("short")["input_ids"]


def test_of_a_long_text_little_is_looked_at(monkeypatch):
    looked_at = []
    encode = OURS._encode_flat
    monkeypatch.setattr(OURS, "_encode_flat", lambda texts, **more: looked_at.extend(texts) or encode(texts, **more))
    OURS.encode(["some words " * 100_000], max_length=128)
    assert sum(map(len, looked_at)) <= 16 * 128


def test_lengths_are_the_model_s_at_most():
    assert len(OURS.encode(["x " * 1000])[0]) == 512
    assert len(OURS.encode(["x " * 1000], max_length=9999)[0]) == 512


def test_over_long_inputs_are_refused_where_cutting_was_not_asked_for():
    with pytest.raises(InputTooLongError, match="input 1 has 22 tokens, the limit is 10"):
        OURS.encode(["a", "x " * 20], max_length=10, truncate=False)
    with pytest.raises(InputTooLongError, match="4 token ids, the limit is 3"):
        OURS.check_ids([1, 2, 3, 4], max_length=3, truncate=False)


def test_token_ids_are_checked_and_cut():
    assert OURS.check_ids([1, 2, 3, 4], max_length=3).ids == [1, 2, 3]
    assert OURS.check_ids([1, 2, 3, 4], max_length=3, direction="left").ids == [2, 3, 4]
    for wrong in ([], [-1], [30522], [2**70]):
        with pytest.raises(InputError):
            OURS.check_ids(wrong)


def test_half_a_surrogate_pair_is_refused():
    with pytest.raises(InputError, match="Unicode"):
        OURS.encode(["fine", "\ud800"])


@settings(deadline=None)
@given(st.lists(texts, max_size=4), st.booleans())
def test_lengths_are_before_anything_is_cut(given_texts, lower):
    expected = [len(ORACLE(text.lower() if lower else text)["input_ids"]) for text in given_texts]
    assert OURS.lengths(given_texts, lower) == expected
    assert OURS.lengths(["word " * 600]) == [602]


@pytest.mark.parametrize(("text", "room"), [("a text", 1), (("a text", "and one"), 2)])
def test_no_room_for_the_special_tokens_is_an_error(text, room):
    with pytest.raises(InputError, match=f"max_length={room}: special tokens alone are {room + 1}"):
        OURS.encode([text], max_length=room)
    assert len(OURS.encode([text], max_length=room + 1)[0]) == room + 1
