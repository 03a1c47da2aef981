"""What is taken, and whose turn it is. `M`: tokens of the largest input."""

import itertools
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from app.engine.batching import Queue


@dataclass(eq=False)
class Item:
    size: int
    adapter: int | None
    request: object = None
    cancelled: bool = False


def wanted(item):
    return not item.cancelled


def batches(queue, claim=wanted):
    while len(queue):
        yield queue.take(claim)


def request(sizes, adapter=None):
    mark = object()
    return [Item(size, adapter, mark) for size in sizes]


def tokens(work):
    return sum(item.size for item in work)


def named(batch):
    return {item.adapter for item in batch} - {None}


sizes = st.integers(1, 50)
adapters = st.one_of(st.none(), st.integers(0, 6))
items = st.lists(st.builds(Item, sizes, adapters, st.integers(0, 3), st.booleans()), max_size=60)


# --- limits, losses, order


@given(items, st.integers(1, 80), st.integers(1, 4))
def test_everything_runs_once_in_batches_within_the_limits(work, max_tokens, max_adapters):
    queue = Queue(max_tokens, max_adapters)
    queue.put(work)
    seen = []
    while len(queue):
        before = len(queue)
        batch = queue.take(wanted)
        assert len(queue) < before
        assert tokens(batch) <= max_tokens or len(batch) == 1
        assert len(named(batch)) <= max_adapters
        seen += batch
    assert sorted(map(id, seen)) == sorted(id(item) for item in work if not item.cancelled)
    assert queue.tokens == 0


@given(st.lists(items, max_size=5), st.integers(1, 4))
def test_the_work_of_one_request_keeps_its_order(arrivals, max_adapters):
    queue = Queue(60, max_adapters)
    seen = []
    for work in arrivals:
        queue.put(work)
        seen += queue.take()
    seen += itertools.chain.from_iterable(batches(queue, lambda _: True))
    everything = list(itertools.chain.from_iterable(arrivals))
    for flow in {(item.adapter, item.request) for item in everything}:
        mine = [item for item in everything if (item.adapter, item.request) == flow]
        assert [item for item in seen if (item.adapter, item.request) == flow] == mine


def test_the_tokens_waiting_are_counted():
    queue = Queue(10, 2)
    queue.put([Item(4, 1), Item(5, 2), Item(3, 3)])
    assert (queue.tokens, len(queue)) == (12, 3)
    queue.take()
    assert (queue.tokens, len(queue)) == (3, 1)
    assert len(queue.clear()) == 1
    assert (queue.tokens, len(queue)) == (0, 0)


@given(items)
def test_clearing_returns_everything_and_the_queue_goes_on(work):
    queue = Queue(20, 2)
    queue.put(work)
    assert sorted(map(id, queue.clear())) == sorted(map(id, work))
    assert (queue.tokens, len(queue), queue.take()) == (0, 0, [])
    queue.put(work)
    assert len(queue.clear()) == len(work)


# --- full batches


@given(items, st.integers(1, 80), st.integers(1, 4))
def test_a_batch_ends_only_where_an_input_does_not_fit(work, max_tokens, max_adapters):
    queue = Queue(max_tokens, max_adapters)
    queue.put(work)
    waiting = set(work)
    for batch in batches(queue, lambda _: True):
        waiting -= set(batch)
        full = len(named(batch)) == max_adapters
        could = [item for item in waiting if not full or item.adapter in named(batch) | {None}]
        assert not could or max(item.size for item in could) > max_tokens - tokens(batch)


@given(st.lists(sizes, min_size=1), st.integers(1, 80), adapters)
def test_a_single_request_gets_whole_batches(lengths, max_tokens, adapter):
    queue = Queue(max_tokens, 1)
    queue.put(request(lengths, adapter))
    for batch in batches(queue):
        longest, total = 1, lengths[0]
        while longest < len(lengths) and total + lengths[longest] <= max_tokens:
            total += lengths[longest]
            longest += 1
        assert [item.size for item in batch] == lengths[:longest]
        lengths = lengths[longest:]


@pytest.mark.parametrize("workers", [1, 2, 3, 10])
def test_idle_workers_share_what_waits(workers):
    queue = Queue(1000, 8)
    queue.put(request([30] * 10))
    taken = [len(queue.take(wanted, -(-queue.tokens // idle))) for idle in range(workers, 0, -1)]
    assert sum(taken) == 10 and max(taken) - min(taken) <= 1


def test_a_share_is_never_more_than_a_batch_and_never_less_than_one_input():
    queue = Queue(50, 8)
    queue.put(request([30] * 3))
    assert [len(queue.take(wanted, share)) for share in (1000, 0, 1)] == [1, 1, 1]


# --- fairness

M = 50
some = st.builds(Item, sizes, adapters, st.integers(0, 3))
bursts = st.lists(st.tuples(some, st.integers(1, 25)), max_size=6).map(
    lambda groups: [Item(item.size, item.adapter, item.request) for item, count in groups for _ in range(count)]
)
arrivals = st.lists(bursts, min_size=1, max_size=8)
budgets = st.integers(1, 200)


def together(queue, arrivals, flow_of, take=Queue.take):
    """For each pair of flows, each interval in which both have work: the tokens served to them, batch by batch."""
    served, waiting, histories, going_on = Counter(), Counter(), [], {}
    for work in itertools.chain(arrivals, itertools.repeat([])):
        queue.put(work)
        waiting.update(flow_of(item) for item in work)
        for pair in itertools.combinations(sorted(waiting, key=str), 2):
            if pair not in going_on:
                going_on[pair] = [served.copy()]
                histories.append((pair, going_on[pair]))
        for item in take(queue):
            served[flow_of(item)] += item.size
            waiting[flow_of(item)] -= 1
        waiting = +waiting
        going_on = {pair: history for pair, history in going_on.items() if waiting.keys() >= set(pair)}
        for history in going_on.values():
            history.append(served.copy())
        if not len(queue):
            return histories


def gap(pair, history):
    """How far the tokens served to a pair come apart over any part of an interval."""
    ahead = [served[pair[0]] - served[pair[1]] for served in history]
    return max(ahead) - min(ahead)


def falls_behind(who, other, history):
    """By how much more the other was served, at most, over any part of an interval."""
    behind = [served[other] - served[who] for served in history]
    return max(now - then for then, now in zip(itertools.accumulate(behind, min), behind, strict=True))


@given(arrivals, budgets)
def test_adapters_that_fit_a_batch_together_get_the_same_but_for_two_inputs(work, max_tokens):
    for pair, history in together(Queue(max_tokens, 7), work, lambda item: item.adapter):
        assert gap(pair, history) <= 2 * M


LEFT_OVER = [
    [Item(16, None, 0) for _ in range(7)] + [Item(7, 0, 0) for _ in range(22)],
    [],
    [Item(1, 1, 0), Item(1, 2, 0)],
    [],
    [],
    [Item(1, 1, 0)],
]


@example(LEFT_OVER, 35, 1)  # the base fills what 1 and 2 leave: that must not put 1 behind 0 when it comes again
@given(arrivals, budgets, st.integers(1, 3))
def test_adapters_that_do_not_get_the_same_but_for_two_batches(work, max_tokens, max_adapters):
    """The base needs no place, so it fills what the others' places leave of a batch: for that it may fall behind later."""
    for pair, history in together(Queue(max_tokens, max_adapters), work, lambda item: item.adapter):
        if None in pair:
            [other] = {*pair} - {None}
            assert falls_behind(None, other, history) <= 2 * max(max_tokens, M) + max_tokens
        else:
            assert gap(pair, history) <= 2 * max(max_tokens, M)


@given(st.integers(20, 200), st.integers(1, 3), sizes, st.integers(1, 100))
def test_what_the_base_filled_in_does_not_hold_it_up_for_long(max_tokens, max_adapters, size, before):
    queue = Queue(max_tokens, max_adapters)
    queue.put(Item(10, None) for _ in range(4000))
    for _ in range(before):
        small = [Item(1, object()) for _ in range(max_adapters + 1)]
        queue.put(small)
        queue.take(wanted)
        for item in small:
            item.cancelled = True
    queue.put(Item(size, "new") for _ in range(1000))
    served = Counter()
    while not served[None]:
        for item in queue.take(wanted):
            served[item.adapter] += item.size
    assert served["new"] <= 2 * max(max_tokens, M) + max_tokens


@given(arrivals, budgets, st.integers(1, 7), st.lists(st.booleans(), min_size=1))
def test_two_that_are_passed_by_together_get_the_same_all_the_same(work, max_tokens, max_adapters, passed_by):
    turns = itertools.chain(passed_by, itertools.repeat(False))
    histories = together(
        Queue(max_tokens, max_adapters),
        work,
        lambda item: item.adapter,
        lambda queue: queue.take(without={0, 1} if next(turns) else frozenset()),
    )
    for pair, history in histories:
        assert pair != (0, 1) or gap(pair, history) <= 2 * max(max_tokens, M)


@given(st.integers(1, 200), st.integers(1, 30), sizes)
def test_who_is_passed_by_is_owed_nothing(times, size, another):
    """However much others got meanwhile, one who comes now is level with them."""
    queue = Queue(100, 8)
    queue.put(Item(10, flood) for flood in "ab" for _ in range(1000))
    for _ in range(times):
        queue.put(request([size], "light"))
        queue.take(without={"a", "b"})
    queue.put(Item(another, name) for name in "xyz")
    assert named(queue.take()) >= {"x"}


@given(arrivals, budgets, st.integers(1, 7))
def test_requests_of_one_adapter_get_the_same_but_for_two_inputs(work, max_tokens, max_adapters):
    for pair, history in together(Queue(max_tokens, max_adapters), work, lambda item: (item.adapter, item.request)):
        assert pair[0][0] != pair[1][0] or gap(pair, history) <= 2 * M


def filled(queue, arrivals):
    """Take a batch after each burst but the last. What waits then."""
    waiting = []
    for work in arrivals:
        batch = set(queue.take())
        waiting = [item for item in waiting if item not in batch] + work
        queue.put(work)
    return waiting


def batches_until(queue, newcomer, other):
    """How many batches are taken up to the newcomer's, with more `other` work coming before each than it can hold."""
    queue.put([newcomer])
    for number in itertools.count(1):
        queue.put(other() for _ in range(21))
        if newcomer in queue.take():
            return number


def least(max_tokens):
    """Tokens of a batch that an input did not fit in, at least."""
    return max(1, max_tokens - M + 1)


@given(arrivals, sizes, st.integers(20, 200))
def test_a_new_adapter_waits_for_two_inputs_of_each_before_it(work, size, max_tokens):
    queue = Queue(max_tokens, 8)
    before = len({item.adapter for item in filled(queue, work)})
    number = batches_until(queue, Item(size, "new"), lambda: Item(10, object()))
    assert number <= 1 + 2 * M * before // least(max_tokens)


@given(arrivals, sizes, st.integers(20, 200), st.integers(1, 3))
def test_a_new_adapter_waits_for_a_batch_of_each_before_it_where_they_do_not_fit(work, size, max_tokens, max_adapters):
    queue = Queue(max_tokens, max_adapters)
    before = len({item.adapter for item in filled(queue, work)})
    number = batches_until(queue, Item(size, "new"), lambda: Item(10, object()))
    assert number <= 1 + before // max_adapters + (max(max_tokens, M) + M) * before // least(max_tokens)


@given(arrivals, sizes, st.integers(20, 200))
def test_a_new_request_waits_for_two_inputs_of_each_before_it(work, size, max_tokens):
    queue = Queue(max_tokens, 1)
    work = [[Item(item.size, "one", item.request) for item in burst] for burst in work]
    before = len({item.request for item in filled(queue, work)})
    number = batches_until(queue, Item(size, "one", "new"), lambda: Item(10, "one", object()))
    assert number <= 1 + 2 * M * before // least(max_tokens)


@pytest.mark.parametrize("adapter", [None, "flooding", "another"])
@pytest.mark.parametrize("floods", [1, 10])
def test_one_text_is_in_the_next_batch_whatever_waits(adapter, floods):
    queue = Queue(4096, 8)
    for _ in range(floods):
        queue.put(request([128] * 256, "flooding"))
    queue.take()
    [text] = request([128], adapter)
    queue.put([text])
    assert text in queue.take()


def test_cancelled_work_costs_its_adapter_and_its_request_nothing():
    queue = Queue(40, 8)
    queue.put([Item(10, "a", "gone", cancelled=True) for _ in range(100)])
    queue.put([Item(10, adapter, "here") for adapter in "ba" for _ in range(4)])
    assert Counter(item.adapter for item in queue.take(wanted)) == {"a": 2, "b": 2}


def test_who_comes_back_has_no_advantage():
    queue = Queue(10, 8)
    queue.put(request([10] * 100, "steady"))
    served = Counter()
    for _ in range(20):
        queue.put(request([10], "back again"))
        served.update(item.adapter for item in queue.take())
    assert served == {"steady": 10, "back again": 10}


# --- against a model


class Plain:
    """The same order the slow way: nothing but a list, and what each adapter and each request was served."""

    def __init__(self, max_tokens, max_adapters):
        self.max_tokens, self.max_adapters = max_tokens, max_adapters
        self.waiting, self.served, self.came, self.most = [], {}, {}, Counter()
        self.numbers = itertools.count()

    def put(self, work):
        for item in work:
            self.waiting.append(item)
            for line, who in self.lines(item):
                if who not in self.served:
                    self.served[who], self.came[who] = self.most[line], next(self.numbers)

    def lines(self, item):
        """The adapter among adapters, the request among those of its adapter."""
        return [("adapters", (item.adapter,)), (item.adapter, (item.adapter, item.request))]

    def turn(self, item):
        """Least is first."""
        return [(self.served[who], self.came[who]) for _, who in self.lines(item)]

    def take(self, share=None, without=frozenset()):
        room = self.max_tokens if share is None else min(share, self.max_tokens)
        batch, before = [], self.most["adapters"]
        while due := sorted((item for item in self.waiting if item.adapter not in without), key=self.turn):
            item = next((item for item in due if self.may_join(item, batch)), None)
            if item is None or (batch and item.size > room):
                break
            self.remove(item, early=item.adapter is None and due[0].adapter is not None)
            if wanted(item):
                batch.append(item)
                room -= item.size
        for adapter in without & {item.adapter for item in self.waiting}:
            self.served[(adapter,)] += self.most["adapters"] - before
        return batch

    def may_join(self, item, batch):
        return item.adapter is None or len(named(batch) | {item.adapter}) <= self.max_adapters

    def remove(self, item, early):
        """early: the base's, which fills in before others' turn."""
        self.waiting.remove(item)
        for line, who in self.lines(item):
            self.served[who] += item.size if wanted(item) else 0
            if early and line == "adapters":
                self.served[who] = min(self.served[who], self.most[line] + self.max_tokens)
            else:
                self.most[line] = max(self.most[line], self.served[who])
        remaining = {who for other in self.waiting for _, who in self.lines(other)}
        for who in self.served.keys() - remaining:
            del self.served[who]
        if (item.adapter,) not in remaining:
            del self.most[item.adapter]


class QueueMachine(RuleBasedStateMachine):
    """The queue beside the model, through any arrivals, cancellations, batches, shares and whoever is passed by."""

    def __init__(self):
        super().__init__()
        self.queue, self.model = Queue(100, 2), Plain(100, 2)

    @rule(work=bursts)
    def put(self, work):
        self.queue.put(work)
        self.model.put(work)

    @rule(share=st.one_of(st.none(), st.integers(0, 150)), without=st.sets(adapters, max_size=3))
    def take(self, share, without):
        assert self.queue.take(wanted, share, without=without) == self.model.take(share, without)

    @rule(data=st.data())
    def cancel(self, data):
        for item in self.model.waiting[:: data.draw(st.integers(1, 5))]:
            item.cancelled = True

    @rule()
    def clear(self):
        assert sorted(map(id, self.queue.clear())) == sorted(map(id, self.model.waiting))
        self.queue, self.model = Queue(100, 2), Plain(100, 2)

    @invariant()
    def counted(self):
        assert len(self.queue) == len(self.model.waiting)
        assert self.queue.tokens == tokens(self.model.waiting)


test_the_queue_does_as_the_model = QueueMachine.TestCase


@given(items, st.integers(1, 80), st.sets(adapters, max_size=4))
def test_adapters_that_are_passed_by_keep_their_work_and_their_turn(work, max_tokens, without):
    queue, other = Queue(max_tokens, 3), Queue(max_tokens, 3)
    queue.put(work)
    other.put([item for item in work if item.adapter not in without])
    while batch := queue.take(wanted, without=without):
        assert batch == other.take(wanted)
    left = [item for item in work if item.adapter in without]
    assert len(queue) == len(left) and queue.tokens == tokens(left)
    assert Counter(map(id, queue.clear())) == Counter(map(id, left))


@given(items, st.integers(0, 3))
def test_a_batch_has_at_most_the_places_it_is_given(work, places):
    queue = Queue(1000, 3)
    queue.put(work)
    assert len(named(queue.take(wanted, places=places))) <= places


@given(items, st.integers(1, 80), st.integers(0, 5))
def test_what_waits_is_known_by_adapter(work, max_tokens, taken):
    queue = Queue(max_tokens, 3)
    queue.put(work)
    gone = [item for _ in range(taken) for item in queue.take()]
    for adapter in {item.adapter for item in work}:
        left = [item for item in work if item.adapter == adapter and not any(item is other for other in gone)]
        assert queue.tokens_of([adapter]) == tokens(left)
        assert all((adapter in queue.larger_than(limit)) == (tokens(left) > limit) for limit in (0, 20, 100))
    assert queue.tokens_of([None, *range(7)]) == queue.tokens
