"""Admission held against a simulated server: full use of it, short queues, room for others beside a flood."""

import contextlib
import math
import random
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.access.admission import Admission, Work
from app.access.pace import Pace
from app.errors import OverloadedError

SECONDS = 2.0
ENOUGH = 100  # two batches


def estimating(max_requests, seconds, first=1_000.0):
    """With an estimate of the pace."""
    return Admission(max_requests, seconds, Pace(first, ENOUGH))


class Simulated:
    """A server of one worker that does `rate` tokens a second in batches, adapters in turn; time as it goes."""

    def __init__(self, rate, max_requests=10_000, seconds=SECONDS, first=None):
        self.admission = estimating(max_requests, seconds, first or rate)
        self.rate, self.now, self.computed = rate, 0.0, 0.0
        self.queues: dict[str, deque] = {}
        self.latencies: list[tuple[float, str, float]] = []

    def ask(self, adapter, tokens):
        work = Work((adapter,), tokens)
        self.admission.check(self.now, work)
        self.admission.begin(work, self.now, int(self.computed))
        self.queues.setdefault(adapter, deque()).append([work, tokens, self.now])

    def run_until(self, end):
        while any(self.queues.values()) and self.now < end:
            adapter = next(iter(self.queues))
            queue = self.queues.pop(adapter)
            first = queue[0]
            done = min(first[1], ENOUGH / 2)
            self.now += done / self.rate
            self.computed += done
            first[1] -= done
            if not first[1]:
                queue.popleft()
                self.admission.end(first[0], self.now, int(self.computed))
                self.latencies.append((self.now, adapter, self.now - first[2]))
            if queue:
                self.queues[adapter] = queue  # to the end of the line
        self.now = max(self.now, end)


def overload(server, factor, seconds, adapters, seed=0, tokens=50):
    """Poisson arrivals at so many times the server's pace; how many tokens were refused."""
    drawn, due, refused, end = random.Random(seed), server.now, [], server.now + seconds
    while (due := due + drawn.expovariate(factor * server.rate / tokens)) < end:
        server.run_until(due)
        try:
            server.ask(drawn.choice(adapters), tokens)
        except OverloadedError as error:
            refused.append(error.retry_after)
    server.run_until(end)
    return refused


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from([300, 2_000, 20_000]),
    st.sampled_from([0.2, 1.0, 5.0]),
    st.sampled_from([1.5, 3.0, 5.0]),
    st.integers(1, 12),
    st.integers(0, 99),
)
def test_overload_is_served_at_the_full_pace_with_a_short_queue(rate, estimate, factor, adapters, seed):
    server = Simulated(rate, first=estimate * rate)
    overload(server, factor, 20, list(map(str, range(adapters))), seed)  # the pace is learnt
    started, before = server.now, server.computed
    refused = overload(server, factor, 20, list(map(str, range(adapters))), seed + 1)
    assert server.computed - before >= rate * 20 - 2 * ENOUGH
    waited = sorted(wait for end, _, wait in server.latencies if end > started)
    assert waited[len(waited) * 99 // 100] <= SECONDS * 1.5 + 200 / rate
    assert refused and all(1 <= seconds <= math.ceil(SECONDS * 1.5) for seconds in refused)


@pytest.mark.parametrize("tokens", [50, 600, 2_000, 20_000])
def test_large_requests_get_in_and_none_makes_the_queue_longer_than_it_may_be(tokens):
    server = Simulated(1_000)
    overload(server, 3, 100, list("abcdefgh"), tokens=100)
    before, server.latencies, drawn = server.computed, [], random.Random(0)
    for _ in range(10_000):
        with contextlib.suppress(OverloadedError):
            server.ask(drawn.choice("abcdefgh"), tokens)
        # half the queue's limit is what one that is larger counts as
        assert server.admission.tokens <= 1_000 * SECONDS * 1.25 * 1.1 + max(0, tokens - 1_000 * SECONDS / 2)
        server.run_until(server.now + 0.02)
    assert server.latencies and server.computed - before >= 0.95 * 1_000 * 200


def test_a_server_that_is_not_overloaded_refuses_nobody():
    server = Simulated(2_000)
    assert overload(server, 0.7, 60, ["a", "b", "c"]) == []


def test_a_flood_of_one_adapter_refuses_itself_and_not_the_others():
    server = Simulated(2_000)
    overload(server, 5, 10, ["flood"])
    refused = quiet = 0
    for number in range(400):
        try:
            server.ask("flood", 100)
        except OverloadedError:
            refused += 1
        if number % 40 == 0:
            server.ask("quiet", 50)
            quiet += 1
        server.run_until(server.now + 0.02)
    assert refused > 100
    waits = [wait for _, adapter, wait in server.latencies if adapter == "quiet"]
    assert len(waits) == quiet and max(waits) < 0.2


def test_what_cannot_be_answered_in_time_is_refused_and_what_can_is_not():
    server = Simulated(1_000)
    overload(server, 5, 10, ["flood"])
    server.run_until(server.now + 0.5)
    assert 1 < server.admission.seconds() < SECONDS
    with pytest.raises(OverloadedError, match="longer than the request waits"):
        server.admission.check(server.now, Work(("flood",)), deadline=server.now + 0.5)
    with pytest.raises(OverloadedError):
        server.admission.check(server.now, Work(("flood",), 10), deadline=server.now + 0.5)
    server.admission.check(server.now, Work(("quiet",), 10), deadline=server.now + 0.5)


def test_the_first_burst_after_a_start_is_held_to_the_first_estimate():
    server = Simulated(1_000)
    overload(server, 50, 2, list("abcdefgh"))
    assert max(wait for _, _, wait in server.latencies) <= SECONDS * 1.5


def test_so_many_requests_and_no_more():
    admission = estimating(2, 1.0)
    work = Work(("a",), 1)
    for _ in range(2):
        admission.check(0.0)
        admission.begin(work, 0.0, 0)
    with pytest.raises(OverloadedError, match="2 requests are running"):
        admission.check(0.0)
    admission.end(work, 0.0, 0)
    admission.check(0.0)


works = st.builds(
    Work, st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True).map(tuple), st.integers(0, 500)
)


@given(st.lists(works, max_size=30), st.randoms())
def test_when_all_have_ended_nothing_is_left(some, drawn):
    admission = estimating(1000, 1.0)
    for work in some:
        admission.begin(work, 0.0, 0)
    assert admission.tokens == sum(work.tokens * len(work.adapters) for work in some)
    drawn.shuffle(some)
    for work in some:
        admission.end(work, 1.0, 100)
    assert (admission.running, admission.tokens, len(admission._by_adapter)) == (0, 0, 0)


def test_the_length_of_tokens_is_learnt_from_what_was_not_cut():
    admission = estimating(10, 1.0)
    before = admission.work(["a"], [1000] * 8, 512).tokens
    for _ in range(200):
        admission.learn(admission.work(["a"], [1000], 512), 100)
    assert before == 8 * 252 and abs(admission.work(["a"], [1000] * 8, 512).tokens - 8 * 100) <= 16
    for _ in range(200):  # these were cut at 50: of their characters nothing can be learnt
        admission.learn(admission.work(["a"], [10_000], 50), 50)
    assert admission.work(["a"], [1000], 512).tokens >= 100
    assert admission.work(["a"], [10**6], 50).tokens == 50


def test_one_tenants_short_texts_leave_the_estimate_of_others_alone():
    admission = estimating(10, 1.0)
    for _ in range(200):
        admission.learn(admission.work(["a"], [100] * 8, 512), 8 * 27)
    before = admission.work(["b"], [100] * 60, 512).tokens
    for _ in range(500):
        admission.learn(admission.work(["a"], [1], 512), 3)
    assert admission.work(["b"], [100] * 60, 512).tokens <= 1.2 * before


# --- pace


def test_idle_time_says_nothing_and_little_work_only_that_it_is_no_less():
    pace = Pace(2000, ENOUGH)
    pace.note(0.0, 0, 0)
    for tick in range(1, 20):
        pace.note(tick * 0.1, tick * 100, waiting=10)
    assert pace.per_second == 2000
    for tick in range(20, 60):
        pace.note(tick * 0.1, tick * 100, waiting=1000)
    known = pace.per_second
    assert known == pytest.approx(1000, rel=0.2)
    for tick in range(60, 120):
        pace.note(tick * 0.1, 6000 + (tick - 60) * 20, waiting=10)
    assert pace.per_second == known
    for tick in range(120, 200):
        pace.note(tick * 0.1, 7200 + (tick - 120) * 300, waiting=10)
    assert pace.per_second == pytest.approx(3000, rel=0.1)


def test_a_pace_that_fell_in_a_bad_hour_is_found_again():
    server = Simulated(20)  # everything stands nearly still
    overload(server, 5, 30, ["a", "b"])
    assert server.admission.seconds() > 0
    server.rate = 5_000
    overload(server, 3, 10, ["a", "b"])
    before = server.computed
    overload(server, 3, 10, ["a", "b"])
    assert server.computed - before >= 0.95 * 50_000
