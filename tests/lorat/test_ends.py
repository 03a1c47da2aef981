"""Heads and tails of long texts, against the tokens of the whole, also where added tokens overlap."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer

from lorat.base import locate_base
from lorat.ends import Ends, encode_all

PLAIN = AutoTokenizer.from_pretrained(locate_base(None)).backend_tokenizer.to_str()


def backend(*added):
    made = Tokenizer.from_str(PLAIN)
    made.no_padding()
    made.no_truncation()
    made.add_tokens(list(added))
    return made


BACKENDS = [
    backend(),
    backend("abc", "x-b", AddedToken("x.y", normalized=False, single_word=True)),
    backend(AddedToken("<é>", lstrip=True, rstrip=True)),
    backend("ab", "ba"),  # a cut through one changes all that follow
    backend("a b"),
]


@settings(max_examples=300)
@given(
    st.sampled_from(BACKENDS),
    st.lists(st.sampled_from([*"ab-cx.y<é>日[]\u0301\0 ", "ab", "[SEP]"]), max_size=150).map("".join),
    st.integers(1, 12),
    st.sampled_from(["right", "left"]),
)
def test_an_end_has_the_tokens_of_the_whole(made, text, count, direction):
    [whole] = encode_all(made, [text])
    end = Ends(made).find([text], count, direction)[text]
    assert len(end) >= min(count, len(whole))
    kept = slice(len(whole) - len(end), None) if direction == "left" else slice(0, len(end))
    assert end.encoding.ids == whole.ids[kept]
    assert [(end.start + start, end.start + stop) for start, stop in end.encoding.offsets] == whole.offsets[kept]


@pytest.mark.parametrize(("number", "all_of_it"), [(0, False), (1, False), (2, False), (3, True), (4, True)])
def test_all_is_looked_at_where_a_cut_may_change_what_is_far_from_it(number, all_of_it):
    text = "some words " * 100
    assert Ends(BACKENDS[number]).find([text], 5, "left")[text].whole == all_of_it


def test_cutting_leaves_what_others_share():
    end = Ends(BACKENDS[0]).find(["one two three"], 9, "right")["one two three"]
    assert end.cut(2, "left").tokens == ["two", "three"]
    assert end.cut(1, "right").tokens == ["one"]
    assert end.encoding.tokens == ["one", "two", "three"] and end.whole
