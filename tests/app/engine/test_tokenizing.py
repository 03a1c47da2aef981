"""The stage that gives requests their tokens, with the tiny base's tokenizer."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.jobs import Call
from app.engine.tokenizing import _CHARACTERS, Manner, Tokenizing, characters, encode
from app.errors import UnavailableError
from lorat import Recipe, load_base
from lorat.errors import InputError, InputTooLongError

PLAIN = Recipe(normalize=False)
PROMPTED = Recipe(prompts={"query": "query: "})


@pytest.fixture(scope="module")
def base(tiny_path):
    return load_base(tiny_path, device="cpu")


class Held:
    """A stage whose thread waits at its first request until told to go on: all later ones wait together."""

    def __init__(self, base, threads=1):
        self.handed = []
        self._go, self._there = threading.Event(), threading.Event()
        self.stage = Tokenizing(base, self._take, threads)
        self.put(["first"], Manner(PLAIN, truncate=True))
        assert self._there.wait(30)

    def _take(self, call):
        self._there.set()
        assert self._go.wait(30)
        self.handed.append(call)

    def put(self, inputs, manner, adapter=None):
        call = Call("embedding", adapter)
        self.stage.put(call, inputs, manner)
        return call

    def release(self):
        self._go.set()
        self.stage.close()


texts = st.lists(
    st.one_of(st.text(st.characters(codec="utf-8"), max_size=40), st.just([5, 6, 7])), min_size=1, max_size=4
)
manners = st.sampled_from(
    [
        Manner(PLAIN, truncate=True),
        Manner(PLAIN, truncate=True, spans=True),
        Manner(PROMPTED, truncate=True, prompt_name="query"),
        Manner(PROMPTED, truncate=True, prompt_name="query", direction="left"),
    ]
)


@settings(max_examples=30, deadline=None)
@given(requests=st.lists(st.tuples(texts, manners), max_size=20))
def test_requests_that_wait_together_get_the_tokens_that_each_gets_alone(base, requests):
    held = Held(base)
    calls = [held.put(inputs, manner) for inputs, manner in requests]
    held.release()
    assert len(held.handed) == len(calls) + 1
    for call, (inputs, manner) in zip(calls, requests, strict=True):
        for tokens, item in zip(call.inputs, inputs, strict=True):
            if isinstance(item, list):
                assert tokens.ids == item
            else:
                options = {"prompt_name": manner.prompt_name, "direction": manner.direction, "spans": manner.spans}
                assert tokens == base.encode([item], manner.recipe, **options)[0]


def test_adapters_take_turns_by_characters(base):
    held = Held(base)
    manner = Manner(PLAIN, truncate=True, direction="left")
    for _ in range(4):
        held.put(["x " * 40_000], manner, "flooding")
    quiet = [held.put([text], manner, "quiet") for text in ("a", "b", "c")]
    held.release()
    assert {*quiet} <= {*held.handed[1:5]}, "one long request may come before them"


def test_one_that_is_refused_fails_alone_and_in_its_own_words(base):
    held = Held(base)
    strict = Manner(PLAIN, truncate=False)
    good = [held.put(["a"], strict), held.put(["b", "c"], strict)]
    long = held.put(["short", "word " * 600], strict)
    wrong = held.put([[10**9]], strict)
    unknown = held.put(["a"], Manner(PROMPTED, truncate=True, prompt_name="passage"))
    unnamed = held.put(["a"], Manner(PLAIN, truncate=False, prompt_name=""))
    broken = held.put(["\ud800"], strict)
    held.release()
    with pytest.raises(InputTooLongError, match="input 1 has"):
        long.future.result(0)
    for call in (wrong, unknown, unnamed, broken):
        with pytest.raises(InputError):
            call.future.result(0)
    assert [len(call.inputs) for call in good] == [1, 2] and len(held.handed) == 3


class Watched:
    """A base that tells what it is given, before it encodes it."""

    def __init__(self, base, tell):
        self._base = base
        self._tell = tell

    def __getattr__(self, name):
        return getattr(self._base, name)

    def encode(self, texts, *arguments, **options):
        self._tell(texts)
        return self._base.encode(texts, *arguments, **options)


def tokenised(base, inputs, manner, meanwhile=lambda call: None):
    """A call that went through the stage alone, and the texts of each call of the tokenizer."""
    calls, call = [], Call("embedding")
    stage = Tokenizing(Watched(base, lambda texts: (calls.append(texts), meanwhile(call))), lambda call: None, 1)
    stage.put(call, inputs, manner)
    stage.close()
    return call, calls


LONG = ["word " * 2000 + str(number) for number in range(40)]  # each enough for a call


@settings(max_examples=30)
@given(
    inputs=st.lists(st.sampled_from([*LONG[:5], "a", [5, 6], ("a", LONG[0]), (LONG[0], "b")]), min_size=1, max_size=40),
    manner=manners,
)
def test_a_long_request_is_tokenised_in_portions(base, inputs, manner):
    call, calls = tokenised(base, inputs, manner)
    assert list(call.inputs) == encode(base, inputs, manner)
    for texts in calls:
        rest = {part for text in texts[1:] for part in ([text] if isinstance(text, str) else text)}
        assert sum(map(len, rest)) <= _CHARACTERS + len(LONG[0])
    assert len(calls) <= 2 + sum(map(characters, inputs)) // (_CHARACTERS // 2)


def test_the_query_of_many_pairs_makes_them_no_longer(base):
    pairs = [("query " * 30_000, f"text {number}") for number in range(64)]
    call, calls = tokenised(base, pairs, Manner(PLAIN, truncate=True))
    assert len(call.inputs) == 64 and len(calls) == 1


def test_who_goes_meanwhile_is_tokenised_no_further(base):
    call, calls = tokenised(base, LONG, Manner(PLAIN, truncate=True), lambda call: call.future.cancel())
    assert not call.inputs and len(calls) == 1


def test_what_is_refused_is_tokenised_no_further_and_keeps_its_number(base):
    inputs = [[5, 6], *["word " * 300 + str(number) for number in range(100)], "word " * 600, *LONG]
    call, calls = tokenised(base, inputs, Manner(PLAIN, truncate=False))
    with pytest.raises(InputTooLongError, match="input 100 has 602 tokens"):
        call.future.result(0)
    assert len(calls) > 1 and not set(LONG[1:]) & {text for texts in calls for text in texts}


def test_others_have_their_turns_between_the_portions_of_a_long_request(base):
    held = Held(base)
    manner = Manner(PLAIN, truncate=True)
    long, quiet = held.put(LONG, manner, "flooding"), held.put(["a"], manner, "quiet")
    also = held.put(["b"], manner, "flooding")
    held.release()
    assert {*held.handed[1:3]} == {quiet, also} and held.handed[3] is long


def test_who_has_gone_is_not_tokenised(base):
    held = Held(base)
    gone = held.put(["a"], Manner(PLAIN, truncate=True))
    gone.future.cancel()
    held.release()
    assert gone not in held.handed and not gone.inputs


def panic(base):
    """Raise what a fault in the tokenizer's Rust code raises: no Exception."""
    base.tokenizer._backend.encode("a few words").truncate(1, stride=5)


def test_a_panic_of_the_tokenizer_fails_its_request_alone(base, caplog):
    held = Held(Watched(base, lambda texts: "bad" in texts and panic(base)))
    calls = [held.put([text], Manner(PLAIN, truncate=True)) for text in ("a", "bad", "b")]
    assert held.stage.alive
    held.release()
    with pytest.raises(RuntimeError, match="panicked"):
        calls[1].future.result(0)
    assert held.handed[1:] == [calls[0], calls[2]] and "PanicException" in caplog.text


def test_a_panic_behind_the_tokenizer_fails_the_request(base):
    stage = Tokenizing(base, lambda call: panic(base), 1)
    for _ in range(2):
        call = Call("embedding")
        stage.put(call, ["a"], Manner(PLAIN, truncate=True))
        with pytest.raises(RuntimeError, match="panicked"):
            call.future.result(30)
    stage.close()
    assert not stage.alive


def test_an_engine_that_is_shut_fails_the_request(base):
    def refuse(call):
        raise UnavailableError("shut")

    stage = Tokenizing(base, refuse, 1)
    call = Call("embedding")
    stage.put(call, ["a"], Manner(PLAIN, truncate=True))
    with pytest.raises(UnavailableError):
        call.future.result(30)
    stage.close()
    with pytest.raises(UnavailableError):
        stage.put(Call("embedding"), ["a"], Manner(PLAIN, truncate=True))


def test_closing_finishes_what_waits(base):
    held = Held(base, threads=2)
    calls = [held.put(["a"], Manner(PLAIN, truncate=True)) for _ in range(200)]
    held.release()
    assert all(call.inputs for call in calls)
