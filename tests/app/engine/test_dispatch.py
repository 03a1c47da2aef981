"""Who runs what next, as workers see it."""

import sys
import threading
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.engine.dispatch import EXPRESS, Dispatch
from app.engine.jobs import Call
from app.errors import UnavailableError
from lorat import Tokens

LONG, FLOOD = 300, [300, 300]  # a flood: more waits than a batch holds


def request(adapter, *sizes):
    return Call("embedding", adapter).begin([Tokens([1] * size) for size in sizes]).jobs()


def waiting(dispatch, worker):
    """A thread that waits for this worker's next batch, and where the batch comes to stand."""
    taken = []
    thread = threading.Thread(target=lambda: taken.append(dispatch.next(worker)), daemon=True)
    thread.start()
    return thread, taken


def busy(dispatch, adapter="flooding", waiting=FLOOD):
    """Each worker runs a batch of one adapter, and so much waits for it."""
    for worker in dispatch.workers:
        dispatch.put(request(adapter, LONG))
        assert dispatch.next(worker)
    dispatch.put(request(adapter, *waiting))


@pytest.fixture
def dispatch():
    return Dispatch(512, 64, 2, express=True)


def test_what_is_due_meanwhile_goes_by_the_express(dispatch):
    busy(dispatch)
    thread, taken = waiting(dispatch, EXPRESS)
    dispatch.put(request("flooding", *[LONG] * 40))
    thread.join(0.2)
    assert not taken, "a flood does not go by the express"
    dispatch.put(request("quiet", 20))
    thread.join(30)
    _, batch = taken[0]
    assert [(job.adapter, job.size) for job in batch] == [("quiet", 20)]


def test_a_text_as_long_as_any_goes_by_the_express_of_small_batches(dispatch):
    busy(dispatch)
    thread, taken = waiting(dispatch, EXPRESS)
    dispatch.put(request("quiet", 256))
    thread.join(30)
    assert [(job.adapter, job.size) for job in taken[0][1]] == [("quiet", 256)]


def test_the_express_rests_while_a_worker_is_free(dispatch):
    dispatch.put(request("flooding", LONG))
    assert dispatch.next("engine-0")
    thread, taken = waiting(dispatch, EXPRESS)
    dispatch.put([*request("flooding", LONG, *FLOOD), *request("quiet", 20)])
    thread.join(0.2)
    assert not taken
    _, batch = dispatch.next("engine-1")
    assert [job.adapter for job in batch] == ["quiet"]
    dispatch.put(request("late", 20))
    thread.join(30)
    assert [job.adapter for job in taken[0][1]] == ["late"]


def test_the_express_rests_where_others_have_much_as_well(dispatch):
    busy(dispatch)
    thread, taken = waiting(dispatch, EXPRESS)
    dispatch.put([job for name in range(20) for job in request(name, 20)])
    thread.join(0.2)
    assert not taken
    dispatch.close()
    thread.join(30)


@pytest.mark.parametrize("waits", [[], [300], [300, 212]])
def test_the_express_leaves_to_others_what_they_will_soon_have_time_for(dispatch, waits):
    busy(dispatch, waiting=waits)
    thread, taken = waiting(dispatch, EXPRESS)
    dispatch.put(request("quiet", 20))
    thread.join(0.2)
    assert not taken
    dispatch.close()
    thread.join(30)
    assert taken == [None]


def test_the_express_takes_as_many_adapters_as_it_has_slots(dispatch):
    busy(dispatch)
    dispatch.put([job for name in range(12) for job in request(name, 10)])
    assert len(dispatch.next(EXPRESS)[1]) == 8  # an eighth of the slots
    dispatch.end(EXPRESS)
    assert len(dispatch.next(EXPRESS)[1]) == 4


def test_the_base_may_go_by_the_express_and_may_flood(dispatch):
    busy(dispatch)
    dispatch.put(request(None, 20))
    assert [job.adapter for job in dispatch.next(EXPRESS)[1]] == [None]
    dispatch.end(EXPRESS)
    for worker in dispatch.workers:
        dispatch.end(worker)
    dispatch.abandon(UnavailableError("done"))
    busy(dispatch, adapter=None)
    dispatch.put([*request(None, 20), *request("quiet", 20)])
    assert [job.adapter for job in dispatch.next(EXPRESS)[1]] == ["quiet"]


@pytest.mark.parametrize(("slots", "workers", "names"), [(1, 2, 1), (2, 2, 2), (3, 2, 3), (64, 4, 5)])
def test_every_worker_has_slots_for_an_adapter(slots, workers, names):
    dispatch = Dispatch(512, slots, workers, express=True)
    assert len(dispatch.names) == names
    dispatch.put([job for name in range(100) for job in request(name, LONG)])
    held = [{job.adapter for job in dispatch.next(worker)[1]} for worker in dispatch.workers]
    dispatch.abandon(UnavailableError("done"))
    dispatch.put([*request("flooding", *FLOOD), *[job for name in range(12) for job in request(name, 10)]])
    held += [{job.adapter for job in dispatch.next(worker)[1]} for worker in dispatch.names[len(dispatch.workers) :]]
    assert all(held) and sum(map(len, held)) <= slots


def test_however_many_workers_and_slots_there_are_each_worker_has_one():
    for slots in range(1, 130):
        for workers in range(1, 130):
            dispatch = Dispatch(512, slots, workers, express=True)
            dispatch.put(request("any", LONG))
            assert dispatch.next(dispatch.workers[-1]), (slots, workers)


def test_what_little_others_have_goes_before_a_flood_and_not_with_it(dispatch):
    dispatch.put([*request("flooding", *[20] * 30), *request("quiet", 20, 20)])
    assert [job.adapter for job in dispatch.next("engine-0")[1]] == ["quiet"] * 2
    assert {job.adapter for job in dispatch.next("engine-1")[1]} == {"flooding"}


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_flood_goes_on_where_others_always_have_something(workers):
    dispatch, taken = Dispatch(512, 64, workers, express=False), Counter()
    dispatch.put(request("flooding", *[LONG] * 100))
    for turn in range(60):
        worker = dispatch.workers[turn % workers]
        if turn >= workers:
            dispatch.end(worker)
        dispatch.put(request(f"quiet{turn}", 20))
        taken.update(job.adapter == "flooding" for job in dispatch.next(worker)[1])
    assert taken[True] >= 25 and taken[False] >= 50


def test_a_flood_goes_on_when_what_others_had_was_cancelled(dispatch):
    quiet = request("quiet", 20, 20)
    dispatch.put([*request("flooding", *FLOOD), *quiet])
    quiet[0].call.future.cancel()
    thread, taken = waiting(dispatch, "engine-0")
    thread.join(30)
    assert [job.adapter for job in taken[0][1]] == ["flooding"]


@settings(deadline=None)
@given(st.integers(100, 5000), st.integers(1, 4))
@example(3 * 512, 2)
def test_no_worker_is_long_idle_while_another_computes_the_last_of_a_request(tokens, workers):
    size, now = 10, 0
    dispatch = Dispatch(512, 64, workers, express=False, clock=lambda: now)
    dispatch.put(request(None, *[size] * (tokens // size)))
    free = dict.fromkeys(dispatch.workers, 0)  # when each is: a token takes a second
    while dispatch.tokens:
        worker = min(free, key=free.get)
        now = free[worker]
        if now:
            dispatch.end(worker)
        free[worker] += sum(job.size for job in dispatch.next(worker)[1])
    assert max(free.values()) <= tokens / workers + 512 / 4


def test_workers_come_and_go_while_others_look(dispatch):
    """One that ends a batch just when another counts what is under way."""
    dispatch.put([job for name in range(2000) for job in request(name, LONG)])

    def work(worker):
        while taken := dispatch.next(worker):
            seen.extend(taken[1])
            dispatch.end(worker)

    seen = []
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        dispatch.close()
        threads = [threading.Thread(target=work, args=[worker]) for worker in dispatch.workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(interval)
    assert len(seen) == 2000


def test_where_others_have_much_as_well_all_take_turns(dispatch):
    dispatch.put([*request("flooding", *[20] * 30), *request("busy", *[20] * 13)])
    assert {job.adapter for job in dispatch.next("engine-0")[1]} == {"flooding", "busy"}


def test_a_closed_dispatch_hands_out_what_waits_and_takes_no_more(dispatch):
    dispatch.put(request("a", 5))
    dispatch.close()
    with pytest.raises(UnavailableError, match="shutting down"):
        dispatch.put(request("a", 5))
    assert len(dispatch.next("engine-0")[1]) == 1
    assert dispatch.next("engine-0") is dispatch.next("engine-1") is dispatch.next(EXPRESS) is None


def test_after_closing_an_order_fails_at_once(dispatch):
    dispatch.close()
    with pytest.raises(UnavailableError, match="shutting down"):
        dispatch.order(lambda: None).result(0)


def test_what_is_abandoned_fails_whether_it_waits_or_runs(dispatch):
    calls = [request("a", LONG)[0].call, request("a", LONG)[0].call]
    orders = []
    for call in calls:
        orders.append(dispatch.order(lambda: None))
        dispatch.put(call.jobs())
    order, _ = dispatch.next("engine-0")
    assert order.done is orders[0] and len(dispatch.next("engine-0")[1]) == 1
    dispatch.next("engine-1")
    orders.append(dispatch.order(lambda: None))
    dispatch.abandon(UnavailableError("gone"))
    assert all(isinstance(each.exception(0), UnavailableError) for each in [call.future for call in calls] + orders[1:])
    order.obey()
    assert orders[0].result(0) is None


def test_an_order_is_obeyed_by_a_worker_but_the_express(dispatch):
    done = dispatch.order(lambda: None)
    order, batch = dispatch.next("engine-1")
    assert order.done is done and not batch


def test_an_order_holds_no_batch_up_and_orders_hold_up_no_batches(dispatch):
    first, second = dispatch.order(lambda: None), dispatch.order(lambda: None)
    dispatch.put(request("a", 300, 300))
    order, batch = dispatch.next("engine-0")
    assert order.done is first and not batch
    assert [job.adapter for job in dispatch.next("engine-0")[1]] == ["a"]
    assert dispatch.next("engine-1")[0].done is second
    assert [job.adapter for job in dispatch.next("engine-1")[1]] == ["a"]


def test_an_order_is_obeyed_where_what_waits_was_cancelled(dispatch):
    orders = [dispatch.order(lambda: None) for _ in range(2)]
    [gone] = request("gone", 20)
    dispatch.put([gone])
    gone.call.future.cancel()
    assert [dispatch.next("engine-0")[0].done for _ in range(2)] == orders


def test_orders_are_obeyed_one_after_another_where_nothing_else_waits(dispatch):
    orders = [dispatch.order(lambda: None) for _ in range(3)]
    assert [dispatch.next("engine-0")[0].done for _ in range(3)] == orders


# --- nobody starves

BATCH = 512
LARGEST = 256
names = st.one_of(st.none(), st.integers(0, 7))
clients = st.lists(st.tuples(names, st.integers(1, LARGEST), st.integers(1, 64)), min_size=1, max_size=8)
phases = st.lists(st.tuples(clients, st.integers(1, 30)), min_size=1, max_size=6)
FLOODS = [(f"flood{n}", 32, 20) for n in range(8)]
LIGHT_ONES = [(f"light{n}", 32, 8) for n in range(10)]
BASE_AND_TENANTS = [(None, 32, 64), *[(f"tenant{n}", 8, 1) for n in range(40)]]


class Stage:
    """A dispatch whose workers take whenever there is something, and who was served what, in tokens."""

    def __init__(self, slots, workers):
        self.dispatch = Dispatch(BATCH, slots, workers, express=True)
        self.running, self.waiting = {}, Counter()
        self.most_waiting = 0
        """Adapters at a time."""
        self.passed = {}
        """What others were served since one that waits was served, or came."""

    def put(self, adapter, size):
        self.dispatch.put(request(adapter, size))
        self.waiting[adapter] += size
        self.most_waiting = max(self.most_waiting, len(self.waiting))
        self.passed.setdefault(adapter, 0)

    def end(self, worker):
        self.dispatch.end(worker)
        return self.running.pop(worker)

    def take(self):
        for worker in self.dispatch.names:
            if worker not in self.running and (self.express_has_some() if worker == EXPRESS else self.waiting):
                _, self.running[worker] = self.dispatch.next(worker)
                self.count(self.running[worker])

    def express_has_some(self):
        floods = [tokens for tokens in self.waiting.values() if tokens > BATCH]
        others = self.waiting.total() - sum(floods)
        return self.running.keys() >= {*self.dispatch.workers} and floods and 0 < others <= LARGEST

    def count(self, batch):
        for job in batch:
            self.waiting[job.adapter] -= job.size
        self.waiting = +self.waiting
        self.passed = {
            adapter: 0 if adapter in {job.adapter for job in batch} else tokens + sum(job.size for job in batch)
            for adapter, tokens in self.passed.items()
            if adapter in self.waiting
        }


@settings(max_examples=30, deadline=None)
@example([([*FLOODS, LIGHT_ONES[0]], 300), ([*FLOODS, *LIGHT_ONES], 60)], 64, 2)
@example([(BASE_AND_TENANTS, 400), ([(None, 32, 64), ("busy", 32, 64)], 100)], 8, 2)
@given(phases, st.sampled_from([4, 8, 64]), st.integers(1, 3))
def test_nobody_is_passed_by_for_more_than_two_batches_of_each_that_waits(phases, slots, workers):
    """Whatever floods, goes by the express, fills in or finds no place. Who is answered asks again, while a phase lasts."""
    stage = Stage(slots, workers)
    for asking, rounds in phases:
        for adapter, size, count in asking:
            for _ in range(count):
                stage.put(adapter, size)
        again = {(adapter, size) for adapter, size, _ in asking}
        for _ in range(rounds):
            stage.take()
            for worker in list(stage.running):
                for job in stage.end(worker):
                    if (job.adapter, job.size) in again:
                        stage.put(job.adapter, job.size)
                assert max(stage.passed.values(), default=0) <= 2 * BATCH * stage.most_waiting
                stage.take()
