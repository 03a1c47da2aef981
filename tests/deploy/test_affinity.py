"""What hashing by adapter saves: adapters brought in from the store, against taking turns."""

import itertools
import random
import re
import threading
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.app.conftest import upload
from tests.deploy.stack import Stack, clone
from tests.oracle import make_peft

ADAPTERS, REQUESTS, WARM, CLIENTS = 200, 2000, 500, 8


@pytest.fixture(scope="module")
def three(stack: Stack, tmp_path_factory: pytest.TempPathFactory, minilm_path: Path):
    """Three replicas of 64 slots whose host cache holds nothing, so that what is not in a slot comes from the store."""
    stack.compose("stop")
    made = Stack(clone(tmp_path_factory.mktemp("affinity") / "lorat"), project="lorat-affinity", port=8003)
    (made.directory / ".env").write_text((stack.directory / ".env").read_text())
    made.set(LORAT_HOST_CACHE_BYTES="1", LORAT_SLOTS="64", REPLICAS="3", LORAT_MERGE="never")
    directory = tmp_path_factory.mktemp("many")
    try:
        made.up()
        with made.client() as client:
            adapter = make_peft(minilm_path, directory, r=2)
            weights = load_file(directory / "adapter_model.safetensors")
            for number in range(ADAPTERS):
                save_file({k: v + number * 1e-4 for k, v in weights.items()}, directory / "adapter_model.safetensors")
                assert upload(client, f"a{number}", adapter.directory).status_code == 201
        yield made
    finally:
        made.down()
        stack.compose("start")
        for replica in stack.replicas():
            stack.wait_healthy(replica)


def _loads(stack: Stack) -> int:
    """Contents that the replicas have read from the store."""
    total = 0
    for replica in stack.replicas():
        with stack.client(stack.address(replica)) as client:
            found = re.search(r'lorat_load_seconds_count\{tier="host"\} (\S+)', client.get("/metrics").text)
            assert found
            total += int(float(found[1]))
    return total


def _ask(stack: Stack, requests: int, seed: int) -> None:
    """Requests by Zipf from several clients at once."""
    weights = [1 / (rank + 1) for rank in range(ADAPTERS)]
    names = random.Random(seed).choices([f"a{number}" for number in range(ADAPTERS)], weights, k=requests)
    turn = itertools.count()
    statuses = []

    def ask() -> None:
        with stack.client() as client:
            while (number := next(turn)) < requests:
                statuses.append(client.post(f"/embed?adapter={names[number]}", json={"inputs": "hello"}).status_code)

    threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * requests


def _loads_per_thousand(stack: Stack) -> float:
    _ask(stack, WARM, seed=1)
    before = _loads(stack)
    _ask(stack, REQUESTS, seed=2)
    return (_loads(stack) - before) / REQUESTS * 1000


def test_hashing_reads_less_from_the_store_than_taking_turns(three: Stack):
    hashed = _loads_per_thousand(three)
    gateway = three.directory / "deploy" / "haproxy.cfg"
    gateway.write_text(gateway.read_text().replace("balance hash var(txn.adapter)", "balance roundrobin"))
    three.compose("restart", "gateway")
    three.up("--no-recreate", "gateway")
    turns = _loads_per_thousand(three)
    print(f"\nread from the store per 1,000 requests: {hashed:.0f} with hashing, {turns:.0f} taking turns")
    assert hashed < 0.7 * turns
