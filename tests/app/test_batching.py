from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from app.batching import Queue


@dataclass(eq=False)
class Item:
    size: int
    adapter: int | None
    cancelled: bool = False


items = st.lists(
    st.builds(Item, st.integers(1, 50), st.one_of(st.none(), st.integers(0, 6)), st.booleans()), max_size=60
)


@given(items, st.integers(1, 80), st.integers(1, 4))
def test_everything_runs_once_in_batches_within_the_limits(work, max_tokens, max_adapters):
    queue = Queue(max_tokens, max_adapters)
    queue.put(work)
    seen = []
    while len(queue):
        before = len(queue)
        batch = queue.take(lambda item: not item.cancelled)
        assert len(queue) < before
        assert sum(item.size for item in batch) <= max_tokens or len(batch) == 1
        assert len({item.adapter for item in batch} - {None}) <= max_adapters
        seen += batch
    assert sorted(map(id, seen)) == sorted(id(item) for item in work if not item.cancelled)
    assert queue.tokens == 0


@given(items, st.integers(1, 4))
def test_one_adapter_s_work_keeps_its_order(work, max_adapters):
    queue = Queue(60, max_adapters)
    queue.put(work)
    seen = []
    while len(queue):
        seen += queue.take()
    for adapter in {item.adapter for item in work}:
        mine = [item for item in work if item.adapter == adapter]
        assert [item for item in seen if item.adapter == adapter] == mine


@given(items)
def test_the_head_of_the_queue_is_always_in_the_next_batch(work):
    queue = Queue(10, 1)
    queue.put(work)
    while len(queue):
        head = queue._waiting[0]
        assert head in queue.take()


def test_the_tokens_waiting_are_counted():
    queue = Queue(10, 2)
    queue.put([Item(4, 1), Item(5, 2), Item(3, 3)])
    assert (queue.tokens, len(queue)) == (12, 3)
    queue.take()
    assert queue.tokens == 3
    assert len(queue.clear()) == 1
    assert queue.tokens == 0
