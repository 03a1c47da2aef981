"""The engine against a real model: mixing, cancelling, failing, closing."""

import os
import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from app.engine.engine import Engine
from app.engine.jobs import Call
from app.engine.merging import MergePolicy
from app.engine.residency import Residency
from app.errors import NotFiniteError, UnavailableError
from app.observe.metrics import Metrics
from lorat import MultiLoRAT, Row, Tokens, read_adapter
from tests.oracle import make_peft


class Trace(Metrics):
    """Remembers every forward pass: its adapters and its tasks."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def observe_batch(self, tasks, adapters, tokens, seconds, fill):
        super().observe_batch(tasks, adapters, tokens, seconds, fill)
        self.batches.append((adapters, set(tasks), tasks.total()))


def call(ids, task, digest=None, content=None):
    """A request of one input."""
    return Call(task, digest, content).begin([Tokens(ids)])


def submit(engine, calls):
    for each in calls:
        engine.submit(each)


@pytest.fixture
def trace():
    return Trace()


@pytest.fixture
def engine(tiny, trace):
    made = Engine(tiny, 4096, trace)
    yield made
    made.close(10)


@pytest.fixture
def held(tiny, engine):
    """Keeps the worker in a batch until it is set."""
    release, started = threading.Event(), threading.Event()
    forward = tiny.forward

    def waiting(rows):
        started.set()
        assert release.wait(30)
        return forward(rows)

    tiny.forward = waiting
    first = call([101, 102], "embedding")
    engine.submit(first)
    assert started.wait(30)
    yield release
    release.set()


def adapters(tiny, tiny_path, tmp_path, count, **options):
    return [
        read_adapter(
            make_peft(tiny_path, tmp_path / f"{options}{i}", seed=i, r=2, **options).directory, tiny.base.shape
        )
        for i in range(count)
    ]


def test_one_forward_holds_eight_adapters_and_both_tasks(tiny, tiny_path, tmp_path, engine, held, trace):
    embedding = adapters(tiny, tiny_path, tmp_path, 4)
    classifying = adapters(tiny, tiny_path, tmp_path, 4, task="SEQ_CLS", num_labels=3)
    jobs = [call([101, 7592, 102], a.task, f"{n}", a) for n, a in enumerate([*embedding, *classifying])]
    submit(engine, [call([101, 102], "embedding"), *jobs])
    held.set()
    assert all(torch.isfinite(torch.tensor(job.future.result(30)[0].values)).all() for job in jobs)
    assert len(trace.batches) == 2
    count, tasks, size = trace.batches[1]
    assert count == 9  # the base is one of them
    assert tasks == {"embedding", "sequence_classification"}
    assert size == 9


def test_more_adapters_than_slots_are_split_and_nobody_fails(tiny, tiny_path, tmp_path, engine, held, trace):
    many = adapters(tiny, tiny_path, tmp_path, 20)
    jobs = [call([101, 7592, 102], "embedding", f"{n}", a) for n, a in enumerate(many)]
    submit(engine, jobs)
    held.set()
    vectors = [tuple(job.future.result(30)[0].values) for job in jobs]
    assert len(set(vectors)) == 20
    assert max(count for count, _, _ in trace.batches) == tiny.slots.capacity == 8


def test_cancelled_work_is_not_computed(engine, held, trace):
    jobs = [call([101, 102], "embedding") for _ in range(5)]
    submit(engine, jobs)
    assert all(job.future.cancel() for job in jobs[:4])
    held.set()
    jobs[4].future.result(30)
    engine.close(30)  # a batch is counted after it was answered
    assert [size for _, _, size in trace.batches] == [1, 1]


def test_a_failed_batch_fails_its_jobs_and_the_engine_goes_on(tiny, engine):
    bad = call([101] * 600, "embedding")
    engine.submit(bad)
    with pytest.raises(Exception, match="600 tokens"):
        bad.future.result(30)
    good = call([101, 102], "embedding")
    engine.submit(good)
    assert good.future.result(30)[0].values.shape == (32,)
    assert engine.healthy()


def test_an_adapter_that_cannot_be_loaded_fails_none_but_its_own_requests(tiny, tiny_path, tmp_path, engine, held):
    good, bad = adapters(tiny, tiny_path, tmp_path, 2)
    load = tiny.load

    def out_of_memory(adapter):
        if adapter is bad:
            raise torch.OutOfMemoryError("no room")
        return load(adapter)

    tiny.load = out_of_memory
    failing = [call([101, 7592, 102], "embedding", "bad", bad) for _ in range(2)]
    fine = [call([101, 7592, 102], "embedding", *which) for which in ((), ("good", good)) for _ in range(2)]
    submit(engine, [failing[0], *fine, failing[1]])
    held.set()
    assert all(each.future.result(30)[0].values.shape == (32,) for each in fine)
    for each in failing:
        with pytest.raises(torch.OutOfMemoryError, match="no room"):
            each.future.result(30)


def test_a_request_that_cannot_be_run_fails_none_but_itself(tiny, tiny_path, tmp_path, engine, held, trace):
    [adapter] = adapters(tiny, tiny_path, tmp_path, 1)
    bad = call([101] * 600, "embedding", "x", adapter)
    fine = [call([101, 7592, 102], "embedding", *which) for which in ((), ("x", adapter)) for _ in range(3)]
    submit(engine, [*fine[:2], bad, *fine[2:]])
    held.set()
    assert all(each.future.result(30)[0].values.shape == (32,) for each in fine)
    with pytest.raises(Exception, match="600 tokens"):
        bad.future.result(30)
    engine.close(30)
    assert [size for _, _, size in trace.batches] == [1, 3, 1, 1, 1]  # the base's, then each of the adapter's


class Panic(BaseException):
    """As pyo3 raises one for a panic in Rust."""


@pytest.mark.parametrize("error", [MemoryError, Panic])
def test_a_worker_goes_on_whatever_a_batch_raises(trace, tiny, error):
    engine = Engine(tiny, 4096, trace, workers=1)

    def fail(*_):
        trace.observe_batch = observe
        raise error("here")

    observe, trace.observe_batch = trace.observe_batch, fail
    try:
        parts = Call("embedding").begin([Tokens([101] * 100)] * 60)  # more than a batch: it is not answered yet
        engine.submit(parts)
        with pytest.raises((MemoryError, RuntimeError), match="here"):
            parts.future.result(30)
        after = call([101, 102], "embedding")
        engine.submit(after)
        assert after.future.result(30)[0].values.shape == (32,)
        assert engine.healthy()
    finally:
        engine.close(30)
    assert engine.running == 0


def test_a_worker_goes_on_whatever_an_order_raises(engine):
    def panic():
        raise Panic("here")

    with pytest.raises(RuntimeError, match="here"):
        engine.queue.order(panic).result(30)
    assert engine.healthy()


def test_an_answer_out_of_range_is_the_only_one_that_fails(tiny, tiny_path, tmp_path, engine, held, trace):
    good, huge = adapters(tiny, tiny_path, tmp_path, 2)
    for lora in huge.lora.values():
        lora.b.mul_(1e30)
    short = [[101, 7592, token, 102] for token in range(1000, 1008)]  # they share a block of the attention
    bad = [call(ids, "embedding", "huge", huge) for ids in short[:2]]
    fine = [call(ids, "embedding", *which) for ids in short[2:] for which in ((), ("good", good))]
    submit(engine, [bad[0], *fine, bad[1]])
    held.set()
    slot = tiny.prepare(good)
    for each in fine:
        alone = tiny.forward([Row(each.inputs[0], slot if each.digest else None)])[0].numpy()
        assert abs(each.future.result(30)[0].values - alone).max() <= 1e-6
    for each in bad:
        with pytest.raises(NotFiniteError, match="out of range"):
            each.future.result(30)
    assert [size for _, _, size in trace.batches[:2]] == [1, len(fine) + 2]


def test_closing_finishes_what_is_queued_and_refuses_more(engine, held):
    jobs = [call([101, 102], "embedding") for _ in range(3)]
    submit(engine, jobs)
    held.set()
    engine.close(30)
    assert all(job.future.result(0)[0].values.shape == (32,) for job in jobs)
    assert not engine.healthy()
    with pytest.raises(UnavailableError, match="shutting down"):
        engine.submit(call([101, 102], "embedding"))


def test_what_does_not_finish_in_time_fails_with_an_error(engine, held):
    job = call([101, 102], "embedding")
    engine.submit(job)
    engine.close(0.05)
    with pytest.raises(UnavailableError, match="send it again"):
        job.future.result(0)


def test_what_runs_for_too_long_fails_as_well_and_so_do_orders(tiny, tiny_path, tmp_path, engine, held):
    [adapter] = adapters(tiny, tiny_path, tmp_path, 1)
    [running] = engine.queue.under_way.jobs()
    before = engine.preload("x", adapter)
    engine.close(0.05)
    after = engine.preload("x", adapter)
    for future in (running.call.future, before, after):
        with pytest.raises(UnavailableError):
            future.result(0)


def test_a_forgotten_adapter_gives_its_slot_back(tiny, tiny_path, tmp_path, engine):
    [adapter] = adapters(tiny, tiny_path, tmp_path, 1)
    job = call([101, 102], "embedding", "x", adapter)
    engine.submit(job)
    job.future.result(30)
    assert engine.resident == 1
    engine.forget("x")
    after = call([101, 102], "embedding")
    engine.submit(after)
    after.future.result(30)
    assert (engine.resident, tiny.slots.free) == (0, tiny.slots.capacity)


def test_pins_give_way_last_and_never_what_the_batch_holds(tiny_path, tmp_path):
    model = MultiLoRAT.from_pretrained(tiny_path, device="cpu", slots=2)
    many = {f"{n}": a for n, a in enumerate(adapters(model, tiny_path, tmp_path, 4))}
    residency = Residency(model)
    residency.prefer({"0", "3"})
    residency.preload("0", many["0"])
    for wanted in (["1"], ["2"], ["1", "2"], ["0", "1"], ["2", "3"], ["1", "0"]):
        with residency.lease({digest: many[digest] for digest in wanted}) as held:
            assert {digest: slot.adapter for digest, slot in held.items()} == {d: many[d] for d in wanted}
            assert all(slot.loaded for slot in held.values())
            assert len({slot.index for slot in held.values()}) == len(wanted)
    with residency.lease({"2": many["2"]}):
        pass
    assert set(residency.digests()) == {"0", "2"}
    residency.preload("3", many["3"])
    assert set(residency.digests()) == {"0", "3"}
    assert not residency.has_room()
    residency.preload("1", many["1"])  # only pinned ones could give way
    assert set(residency.digests()) == {"0", "3"}


def test_merged_ones_give_way_before_pinned_ones_and_after_the_others(tiny_path, tmp_path):
    model = MultiLoRAT.from_pretrained(tiny_path, device="cpu", slots=3)
    many = {f"{n}": a for n, a in enumerate(adapters(model, tiny_path, tmp_path, 6))}
    residency = Residency(model)
    residency.prefer({"0"})

    def use(digest):
        with residency.lease({digest: many[digest]}):
            return set(residency.digests())

    for digest in "012":
        use(digest)
    residency.merge("1", merged=True)
    assert use("3") == {"0", "1", "3"}
    residency.merge("3", merged=True)
    assert use("4") == {"0", "3", "4"}
    assert use("5") == {"0", "3", "5"}


@pytest.mark.parametrize(("slots", "count", "in_a_batch"), [(4, 5, 3), (8, 12, 4), (8, 16, 4)])
def test_where_adapters_outnumber_the_slots_merging_takes_no_longer_than_it_saves(
    tiny_path, tmp_path, slots, count, in_a_batch
):
    model = MultiLoRAT.from_pretrained(tiny_path, device="cpu", slots=slots)
    many = {f"{n}": a for n, a in enumerate(adapters(model, tiny_path, tmp_path, count))}
    residency, policy, chance, saved = Residency(model), MergePolicy(1 << 30), random.Random(0), 0.0
    for number in range(2000):
        tokens = dict.fromkeys(chance.sample(sorted(many), in_a_batch), 1024 // in_a_batch)
        with residency.lease({digest: many[digest] for digest in tokens}):
            residency.count(tokens)
            policy.observe(tokens)
        candidates, merged = residency.candidates(), residency.merged()
        saved += sum(candidates[digest].cost * tokens[digest] for digest in merged & tokens.keys())
        if number % 20 == 0:
            chosen = policy.choose(candidates, merged, always=set(), never=set())
            for digest in chosen ^ merged:
                residency.merge(digest, digest in chosen)
    assert 500 * residency.merges < saved


def test_what_is_leased_does_not_give_way(tiny_path, tmp_path):
    model = MultiLoRAT.from_pretrained(tiny_path, device="cpu", slots=2)
    many = {f"{n}": a for n, a in enumerate(adapters(model, tiny_path, tmp_path, 3))}
    residency = Residency(model)
    with residency.lease({"0": many["0"]}) as held:
        for digest in "1212":
            with residency.lease({digest: many[digest]}):
                assert set(residency.digests()) == {"0", digest}
        residency.forget("0")
        assert held["0"].loaded
        with residency.lease({"0": many["0"], "1": many["1"]}) as both:
            residency.preload("2", many["2"])  # all slots are leased: it waits for a request
            assert set(residency.digests()) == {"0", "1"} and both["0"] is held["0"]
    residency.forget("0")
    assert set(residency.digests()) == {"1"}


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_several_workers_answer_every_input_with_its_own_adapter(tiny_path, tmp_path, workers):
    """More adapters than slots, in requests of several inputs, submitted from several threads."""
    model = MultiLoRAT.from_pretrained(tiny_path, device="cpu", slots=6)
    many = adapters(model, tiny_path, tmp_path, 12)
    inputs = [Tokens([101, *range(2000, 2000 + length), 102]) for length in (1, 9, 40)]
    expected = {}
    for number, adapter in enumerate(many):
        slot = model.load(adapter)
        expected[number] = model.forward([Row(tokens, slot) for tokens in inputs])
        model.unload(slot)
    engine = Engine(model, 64, Metrics(), workers)
    try:
        with ThreadPoolExecutor(4) as threads:
            numbers = [n for _ in range(8) for n in range(12)]
            calls = [Call("embedding", f"{n}", many[n]).begin(inputs) for n in numbers]
            list(threads.map(engine.submit, calls))
        for number, answered in zip(numbers, calls, strict=True):
            outputs = answered.future.result(60)
            assert len(outputs) == len(inputs)
            for output, vector in zip(outputs, expected[number], strict=True):
                assert (torch.from_numpy(output.values) - vector).abs().max() <= 1e-5
    finally:
        engine.close(10)
    assert not engine.healthy()


def test_what_waits_is_shared_among_idle_workers(tiny, trace):
    engine = Engine(tiny, 4096, trace, workers=2)
    together = threading.Barrier(2)  # each pass waits for the other: one alone would never end
    forward = tiny.forward
    tiny.forward = lambda rows: together.wait(30) < 2 and forward(rows)
    try:
        request = Call("embedding").begin([Tokens([101, 2000 + n, 102]) for n in range(40)])
        engine.submit(request)
        assert len(request.future.result(30)) == 40
    finally:
        engine.close(10)
        del tiny.forward
    assert len(trace.batches) >= 2


def test_an_input_that_fails_fails_its_request(engine):
    bad = Call("embedding").begin([Tokens([101, 102]), Tokens([101] * 600)])
    engine.submit(bad)
    with pytest.raises(Exception, match="600 tokens"):
        bad.future.result(30)
    assert not bad.wanted


def test_an_adapter_with_all_the_traffic_gets_merged_weights_and_loses_them_again(tiny_path, tmp_path):
    model = MultiLoRAT.from_pretrained(tiny_path, device="cpu", slots=4)
    hot, other = adapters(model, tiny_path, tmp_path, 2)
    engine = Engine(model, 4096, Metrics(), merge_bytes=1 << 20)

    def ask(digest, content, times):
        vectors = []
        for _ in range(times):
            request = Call("embedding", digest, content).begin([Tokens([101, 7592, 102])] * 50)
            engine.submit(request)
            vectors.append(request.future.result(30)[0].values)
        return vectors

    try:
        vectors = ask("hot", hot, 100)
        assert engine.merged("hot")
        assert abs(vectors[-1] - vectors[0]).max() <= 1e-5
        for _ in range(60):
            ask("other", other, 50)
            if engine.merged("other") and not engine.merged("hot"):
                break
        assert not engine.merged("hot") and engine.merged("other")
        engine.prefer(frozenset(), frozenset(), {"other"})
        ask(None, None, 1)
        assert not engine.merged("other")
    finally:
        engine.close(10)


def test_a_failing_order_does_not_stop_the_worker(tiny, engine):
    with pytest.raises(TypeError):
        engine.preload("broken", None).result(30)
    good = call([101, 102], "embedding")
    engine.submit(good)
    assert good.future.result(30)[0].values.shape == (32,)
    assert tiny.slots.free == tiny.slots.capacity


@pytest.mark.skipif(sys.platform != "linux", reason="a thread has no nice value of its own elsewhere")
def test_a_worker_gives_way_to_whoever_started_it_however_nice_that_is(tiny):
    seen = []
    forward = tiny.forward
    tiny.forward = lambda rows: (seen.append(os.getpriority(os.PRIO_PROCESS, 0)), forward(rows))[1]

    def start():
        own = os.nice(3)
        engine = Engine(tiny, 4096, Metrics(), express=True)
        asked = call([101, 102], "embedding")
        engine.submit(asked)
        asked.future.result(30)
        engine.close(30)
        return own

    with ThreadPoolExecutor(1) as threads:
        own = threads.submit(start).result()
    assert seen == [min(own + 10, 19)]
