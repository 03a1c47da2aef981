"""What the engine really runs under mixed load: one forward for many adapters and both tasks."""

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from app.settings import Settings
from tests.app.conftest import running, upload
from tests.oracle import make_peft

pytestmark = pytest.mark.prove
REQUESTS, CLIENTS, ADAPTERS = 600, 64, 16
SHOWN = 12


def test_trace_of_600_mixed_requests(minilm_path, tmp_path, keep):
    settings = Settings(store=str(tmp_path / "store"), demo=False, max_queue_seconds=600)
    with running(settings) as client:
        for index in range(ADAPTERS):
            task = {"task": "SEQ_CLS", "num_labels": 3} if index % 4 == 3 else {}
            made = make_peft(minilm_path, tmp_path / str(index), seed=index, r=8, **task)
            assert upload(client, f"a{index}", made.directory).status_code == 201
        service = client.app.state.service
        forwards, encodes, merges = [], [], []
        observe, encode = service.metrics.observe_batch, service.model._encode
        merge = service.model.slots.merge
        service.metrics.observe_batch = lambda *facts: (forwards.append(facts), observe(*facts))
        service.model._encode = lambda *given: (encodes.append(1), encode(*given))[1]
        service.model.slots.merge = lambda slot: (merges.append(slot), merge(slot))

        def ask(index):
            route = "/classify" if index % 4 == 3 else "/embed"
            body = {"inputs": "one frozen base and many adapters " * random.Random(index).randint(1, 8)}
            return client.post(route, params={"adapter": f"a{index % ADAPTERS}"}, json=body).status_code

        with ThreadPoolExecutor(CLIENTS) as threads:
            assert set(threads.map(ask, range(REQUESTS))) == {200}

    both = [facts for facts in forwards if len(facts[0]) == 2 and facts[1] >= 8]
    assert sum(facts[0].total() for facts in forwards) == REQUESTS
    assert len(forwards) == len(encodes), "one encoder pass a batch, not one an adapter"
    assert not merges
    assert both
    keep(f"{REQUESTS} requests from {CLIENTS} clients over {ADAPTERS} adapters, a quarter of them classifiers:")
    keep(f"{len(forwards)} forward passes, {len(both)} of them with at least 8 adapters and both tasks; no merge.")
    keep(f"{threads_in_forward(service)}\n")
    keep("| forward | inputs | adapters | embed | classify | tokens | ms |\n|---|---|---|---|---|---|---|")
    for number, (tasks, adapters, tokens, seconds, _) in enumerate(forwards[:SHOWN]):
        kinds = tasks["embedding"], tasks["sequence_classification"]
        keep(f"| {number} | {tasks.total()} | {adapters} | {kinds[0]} | {kinds[1]} | {tokens} | {seconds * 1000:.0f} |")


def threads_in_forward(service):
    """Two threads inside one model at once: there is no lock around it."""
    import threading

    from lorat import Row, Tokens

    inside, most, encode = 0, 0, service.model._encode
    both = threading.Barrier(2, timeout=30)

    def counting(*given):
        nonlocal inside, most
        inside += 1
        both.wait()
        most = max(most, inside)
        result = encode(*given)
        inside -= 1
        return result

    service.model._encode = counting
    rows = [Row(Tokens([101, 7592, 102]))]
    with ThreadPoolExecutor(2) as threads:
        first, second = (threads.submit(service.model.forward, rows) for _ in range(2))
        assert torch.equal(first.result()[0], second.result()[0])
    service.model._encode = encode
    assert most == 2
    return "Two threads were inside the model at the same time, with equal results: no lock around it."
