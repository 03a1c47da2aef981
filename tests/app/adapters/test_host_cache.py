"""The host cache: its limit in bytes, and one reading however many ask."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from app.adapters.host_cache import HostCache
from lorat import Adapter
from lorat.adapter import LoRA
from lorat.targets import Site


def content(values):
    """An adapter of so many float32 values."""
    lora = LoRA(torch.zeros(1, values // 2), torch.zeros(values // 2, 1), 1.0)
    return Adapter("embedding", {Site(0, "query"): lora}, rank=1, alpha=1)


def unread(digest):
    raise AssertionError(digest)


@pytest.fixture
def opened():
    made = []

    def make(*arguments):
        made.append(HostCache(*arguments))
        return made[-1]

    yield make
    for cache in made:
        cache.close()


def test_what_was_used_longest_ago_leaves_until_the_limit_holds(opened):
    cache = opened(399, unread)
    for digest, values in (("a", 40), ("b", 40)):
        cache.put(digest, content(values))
    assert cache.get("a") is not None
    cache.put("c", content(20))
    assert (cache.digests(), cache.bytes) == (["a", "c"], 240)
    cache.put("a", content(10))
    assert cache.bytes == 120
    cache.put("large", content(1000))
    assert (cache.digests(), cache.bytes) == (["large"], 4000)
    cache.drop("large")
    cache.drop("large")
    assert (cache.digests(), cache.bytes, cache.get("a")) == ([], 0, None)


def test_many_who_ask_share_one_reading(opened):
    read, go = [], threading.Event()

    def slow(digest):
        read.append(digest)
        assert go.wait(30)
        return content(10)

    cache = opened(1000, slow)
    loading = [cache.load("a") for _ in range(100)]
    go.set()
    assert len({id(future.result(30)) for future in loading}) == 1
    assert cache.load("a").result(0) is loading[0].result()
    assert read == ["a"]


def test_a_failed_reading_fails_all_who_wait_and_is_tried_again(opened):
    answers = [OSError("away"), content(10)]

    def read(_):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    cache = opened(1000, read)
    with pytest.raises(OSError, match="away"):
        cache.load("a").result(30)
    assert cache.load("a").result(30) is cache.get("a")


def test_bytes_are_right_after_racing_threads(opened):
    cache = opened(1000, lambda digest: content(2 * int(digest)))

    def work(seed):
        for step in range(300):
            digest = str(1 + (seed * 7 + step) % 30)
            if step % 5:
                cache.load(digest).result(30)
            else:
                cache.drop(digest)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert cache.bytes == sum(8 * int(digest) for digest in cache.digests()) <= 1000


HANGS = """
import time
from app.adapters.host_cache import HostCache
cache = HostCache(1, lambda digest: time.sleep(3600))
cache.load("x")
cache.close()
"""


def test_a_reading_that_hangs_holds_up_no_shutdown():
    assert subprocess.run([sys.executable, "-c", HANGS], timeout=120).returncode == 0
