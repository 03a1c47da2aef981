"""Token ids, with transformers' own tokenizer as the oracle."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import normalizers
from tokenizers.pre_tokenizers import Metaspace
from transformers import AutoTokenizer

from lorat.base import load_base, locate_base
from lorat.errors import InputError, InputTooLongError
from lorat.tokenizer import Tokenizer

ORACLE = AutoTokenizer.from_pretrained(locate_base(None))
LOWERED = AutoTokenizer.from_pretrained(locate_base(None))
LOWERED.backend_tokenizer.normalizer = normalizers.Sequence(
    [normalizers.Lowercase(), LOWERED.backend_tokenizer.normalizer]
)
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


SIDES = ["right", "left"]
WORDS = (
    st.text(st.sampled_from("aé日🙂.-\u0301\u3000\n\t ₂x각İ[]MASK—\u200b\0"), max_size=30)
    | st.just("y" * 300)
    | st.sampled_from(["[MASK]", "[[SEP]", " " * 200, "\u0301" * 200])
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(WORDS, min_size=1, max_size=8),
    st.integers(1, 60),
    st.integers(8, 20),
    st.sampled_from([" ", "\n", ""]),
    st.sampled_from(SIDES),
    st.sampled_from([0, 1, 3, 400]),
)
def test_a_long_text_is_cut_as_if_all_of_it_had_been_looked_at(words, times, length, between, side, skip):
    text = between.join(words * times)
    ORACLE.truncation_side = side
    [got, short] = OURS.encode([text, "short"], max_length=length, direction=side, spans=True, skip=skip)
    expected = ORACLE(text, truncation=True, max_length=length, return_offsets_mapping=True)
    assert got.ids == expected["input_ids"]
    assert [span[:2] for span in got.spans[1:-1]] == expected["offset_mapping"][1:-1]
    assert short.ids == ORACLE("short")["input_ids"]
    lost = len(ORACLE(text)["input_ids"]) - len(got) if side == "left" else 0
    assert got.skip == (max(skip - lost, 1) if skip else 0)


@settings(max_examples=150, deadline=None)
@given(st.tuples(WORDS, st.integers(1, 50), WORDS, st.integers(1, 50)), st.integers(8, 20), st.sampled_from(SIDES))
def test_long_pairs_are_cut_as_if_all_of_them_had_been_looked_at(pair, length, side):
    first, times, second, others = pair
    texts = (
        (first + "a ") * times,
        (second + " b") * others,
    )  # transformers takes a pair with nothing in it for one text
    ORACLE.truncation_side = side
    expected = ORACLE(*texts, truncation="longest_first", max_length=length)
    [got, again] = OURS.encode([texts, texts[::-1]], max_length=length, direction=side)
    assert (got.ids, got.types) == (expected["input_ids"], expected["token_type_ids"])
    assert again.ids == ORACLE(*texts[::-1], truncation="longest_first", max_length=length)["input_ids"]


class Counted:
    """A `tokenizers.Tokenizer`, and how many characters it was given."""

    def __init__(self, backend):
        self._backend = backend
        self.characters = 0

    def __getattr__(self, name):
        return getattr(self._backend, name)

    def encode_batch(self, texts, **options):
        self.characters += sum(map(len, texts))
        return self._backend.encode_batch(texts, **options)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("long", ["some words " * 100_000, "words,without—a。space" * 50_000, "日本" * 500_000])
def test_of_a_long_text_little_is_looked_at(long, side):
    counted = Counted(ORACLE.backend_tokenizer)
    tokenizer = Tokenizer(counted, max_length=512, vocabulary=30522)
    tokenizer.encode([long], max_length=128, direction=side)
    assert counted.characters <= 16 * 128
    tokenizer.encode([long], max_length=128, direction=side, skip=5)
    tokenizer.encode([(long, f"a text {number}") for number in range(64)], max_length=128, direction=side)
    tokenizer.encode([(long, long + "and more")], max_length=128, direction=side)
    assert counted.characters <= 6 * 16 * 128


def test_of_two_very_long_texts_the_one_of_more_characters_gets_the_odd_token():
    long, longer = "some words " * 2000, "some words " * 2001
    for pair, types in (((long, longer), [0] * 6 + [1] * 6), ((longer, long), [0] * 7 + [1] * 5)):
        assert OURS.encode([pair], max_length=12)[0].types == types


def test_equal_texts_are_looked_at_once():
    counted = Counted(ORACLE.backend_tokenizer)
    tokens = Tokenizer(counted, max_length=512, vocabulary=30522).encode(["a b c"] * 9 + [("a b c", "d")], max_length=4)
    assert counted.characters == len("a b c") + len("d")
    assert [one.ids for one in tokens[:9]] == [OURS.encode(["a b c"], max_length=4)[0].ids] * 9
    assert tokens[9].ids == OURS.encode([("a b c", "d")], max_length=4)[0].ids


def test_a_tokenizer_of_another_build_looks_at_all():
    backend = Backend.from_str(ORACLE.backend_tokenizer.to_str())
    backend.pre_tokenizer = Metaspace()
    counted = Counted(backend)
    Tokenizer(counted, max_length=512, vocabulary=30522).encode(["some words " * 1000], max_length=8)
    assert counted.characters == len("some words " * 1000)


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
@given(st.lists(texts, max_size=4))
def test_lengths_are_before_anything_is_cut(given_texts):
    assert OURS.lengths(given_texts) == [len(ORACLE(text)["input_ids"]) for text in given_texts]
    assert OURS.lengths(["word " * 600]) == [602]


@pytest.mark.parametrize(("text", "room"), [("a text", 1), (("a text", "and one"), 2)])
def test_no_room_for_the_special_tokens_is_an_error(text, room):
    with pytest.raises(InputError, match=f"max_length={room}: special tokens alone are {room + 1}"):
        OURS.encode([text], max_length=room)
    assert len(OURS.encode([text], max_length=room + 1)[0]) == room + 1


@settings(max_examples=100, deadline=None)
@given(
    st.lists(texts | WORDS | st.sampled_from(["ΟΔΟΣ Σ", "a [MASK] b", "İ ẞ ǅ"]), max_size=4),
    st.integers(8, 40),
    st.sampled_from(SIDES),
)
def test_lower_case_is_that_of_sentence_transformers(given_texts, length, side):
    LOWERED.truncation_side = side
    got = [tokens.ids for tokens in OURS.lower_cased.encode(given_texts, max_length=length, direction=side)]
    assert got == [LOWERED(text, truncation=True, max_length=length)["input_ids"] for text in given_texts]
