"""The stage that gives requests their tokens, with the tiny base's tokenizer."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.jobs import Call
from app.engine.tokenizing import Manner, Tokenizing
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


def test_who_has_gone_is_not_tokenised(base):
    held = Held(base)
    gone = held.put(["a"], Manner(PLAIN, truncate=True))
    gone.future.cancel()
    held.release()
    assert gone not in held.handed and not gone.inputs


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
