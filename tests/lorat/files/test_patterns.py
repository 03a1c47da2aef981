"""Patterns from strangers: those of `re` work as there, what costs too much is refused before it is compiled."""

import re
import threading
import time

import pytest

from lorat.errors import AdapterFileError
from lorat.files.patterns import SECONDS, Patterns

NAMES = ["encoder.layer.0.attention.self.query", "encoder.layer.11.output.dense", "pooler.dense", "a(b)[c]{d}"]


@pytest.mark.parametrize(
    "pattern",
    [
        r".*\.(?:query|value)", r"encoder\.layer\.(?:0|1[01])\..*", r".*layer\.\d{1,2}\..*", r"(?!pooler).*dense",
        r".*(?<=self\.)query", r"(?P<part>encoder|pooler).*", r"a[(]b[)]\[c\]\{d\}", r"[^]]*(?=query).*", r"[a-z(){.]+.*",
        r"(((((.*)))))", r".{2,}(?:.*)*", r"([)]?)([)]?)([)]?)([)]?)pooler.*",
    ],
)  # fmt: skip
def test_what_re_understands_matches_as_there(pattern):
    if "{." in pattern:
        with pytest.raises(AdapterFileError, match="braces"):
            Patterns().match(pattern, NAMES[0])
        return
    for name in NAMES:
        assert bool(Patterns().match(pattern, name, r"(?:{})\Z")) == bool(re.fullmatch(pattern, name)), name


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("(?:" * 7 + "a" + ")" * 7, "flatter"),
        ("[)]" * 7 + "(?:" * 7 + "a" + ")" * 7, "flatter"),  # a parenthesis in a set closes nothing
        ("([)]" * 7 + "a" + ")" * 7, "flatter"),
        ("([[:alpha:])]" * 7 + "a" + ")" * 7, "flatter"),
        (r"(\)" * 7 + "a" + ")" * 7, "flatter"),
        (r"(\\)" * 200, None),
        ("(?:(?:(?:a{60000}){60000}){60000})", "flatter"),  # filled the memory of the machine
        ("(?:(?:a{900,}){900,}){900,}", "flatter"),
        ("a{100}" * 2, "flatter"),
        ("a{" + "9" * 1000 + "}", "flatter"),
        ("a" * 2001, "shorter"),
        ("(?:quary){e<=2}", "braces"),  # fuzzy: `re` reads it as text
        (r"\p{Lu}", "braces"),
        ("(a|(?R))", "group"),
        ("(?i)QUERY", "group"),
        ("(?#note)a", "group"),
        ("(?>a)", "group"),
        (r"\L<names>", "pattern"),
        ("a**", "pattern"),
        ("(?P<x>a)(?P=y)", "group"),
    ],
)
def test_what_costs_too_much_or_means_something_else_is_refused(pattern, says):
    if says is None:
        Patterns().match(pattern, NAMES[0])
        return
    started = time.perf_counter()
    with pytest.raises(AdapterFileError, match=says):
        Patterns().match(pattern, NAMES[0])
    assert time.perf_counter() - started < 0.5


def test_what_the_rest_of_the_process_does_costs_no_pattern_its_time():
    stop = threading.Event()
    spinning = [threading.Thread(target=lambda: [None for _ in iter(stop.is_set, True)]) for _ in range(4)]
    for thread in spinning:
        thread.start()
    try:
        for _ in range(3):
            patterns = Patterns()
            for layer in range(72):
                for key in range(24):
                    pattern = rf"encoder\.layer\.{key}\.attention\.self\.query"
                    assert bool(patterns.match(pattern, f"encoder.layer.{layer}.attention.self.query")) == (
                        key == layer
                    )
    finally:
        stop.set()
        for thread in spinning:
            thread.join()


def test_all_patterns_together_get_half_a_second():
    patterns, started = Patterns(), time.thread_time()
    with pytest.raises(AdapterFileError, match="too long"):
        any(patterns.match(f"x{index}", NAMES[0]) for index in range(10_000_000))
    assert time.thread_time() - started < SECONDS + 2
