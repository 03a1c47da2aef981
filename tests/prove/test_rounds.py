"""Promise 2 under fire: names are uploaded, replaced, rolled back and deleted while 32 clients ask for them."""

import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from tests.app.conftest import process, upload
from tests.oracle import make_peft

pytestmark = pytest.mark.prove
ROUNDS = int(os.environ.get("ROUNDS", "10000"))
CLIENTS = 32
PAUSE = 0.2  # seconds at most between a client's requests: the changes need a share of the cores
NAMES = [f"name{index}" for index in range(8)]
TEXTS = ["What is LoRA?", "a", "one frozen base and many adapters", "naïve café", ""]
FINE = {200, 201, 204, 404, 409, 412}


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_rounds_of_change_under_mixed_traffic(tiny_path, tmp_path, keep):
    made = [
        make_peft(tiny_path, tmp_path / str(i), seed=i, r=2, **({"task": "SEQ_CLS", "num_labels": 3} if i % 2 else {}))
        for i in range(6)
    ]
    flags = ("--demo", "0", "--slots", "4", "--keep-versions", "20", "--max-queue-seconds", "600")
    with process(tmp_path / "store", *flags, base=tiny_path) as (server, client):
        oracle = {}
        for index, adapter in enumerate(made):
            digest = upload(client, f"first{index}", adapter.directory).json()["digest"]
            oracle[digest] = {"/embed": torch.stack(adapter.vectors(TEXTS)).numpy()}
            if index % 2:
                oracle[digest]["/classify"] = torch.stack(adapter.answers(TEXTS)).softmax(-1).numpy()
        address, stop, asked, memory = str(client.base_url), threading.Event(), [], []

        def ask(seed):
            generator, counts, worst = random.Random(seed), {}, 0.0
            with httpx.Client(base_url=address, timeout=60) as mine:
                while not stop.is_set():
                    time.sleep(PAUSE * generator.random())
                    place, route = generator.randrange(len(TEXTS)), generator.choice(["/embed", "/classify"])
                    params = {"adapter": generator.choice(NAMES)}
                    response = mine.post(route, params=params, json={"inputs": TEXTS[place]})
                    counts[response.status_code] = counts.get(response.status_code, 0) + 1
                    if response.status_code != 200:
                        assert response.status_code in (404, 424), response.text
                        continue
                    expected = oracle[response.headers["x-lorat-digest"]][route]
                    got = response.json()
                    values = (
                        got[0]
                        if route == "/embed"
                        else [{e["label"]: e["score"] for e in got}[f"LABEL_{i}"] for i in range(3)]
                    )
                    worst = max(worst, float(np.abs(np.array(values) - expected[place]).max()))
                    assert worst <= 5e-5, (response.headers["x-lorat-adapter"], worst)
            return counts, worst

        def change(generator):
            name = generator.choice(NAMES)
            kind = generator.random()
            if kind < 0.6:
                return upload(client, name, generator.choice(made).directory, params={"replace": True})
            if kind < 0.8:
                record = client.get(f"/adapters/{name}")
                newest = record.json().get("version", 1)
                return client.post(f"/adapters/{name}/rollback", json={"version": generator.randint(1, newest)})
            return client.delete(f"/adapters/{name}")

        started, generator, changes = time.perf_counter(), random.Random(0), {}
        with ThreadPoolExecutor(CLIENTS) as threads:
            asking = [threads.submit(ask, seed) for seed in range(CLIENTS)]
            try:
                for number in range(ROUNDS):
                    status = change(generator).status_code
                    assert status in FINE
                    changes[status] = changes.get(status, 0) + 1
                    if number % max(1, ROUNDS // 100) == 0:
                        memory.append(resident_bytes(server.pid))
                        assert not any(future.done() for future in asking)
            finally:
                stop.set()
            asked = [future.result() for future in asking]
        seconds = time.perf_counter() - started
        answered = sum(sum(counts.values()) for counts, _ in asked)
        right = sum(counts.get(200, 0) for counts, _ in asked)
        tenth = len(memory) // 10
        second, last = np.mean(memory[tenth : 2 * tenth]), np.mean(memory[-tenth:])
        keep(f"{ROUNDS:,} rounds of upload, replace, roll back and delete in {seconds:.0f} s, statuses {changes};")
        keep(f"meanwhile {CLIENTS} clients had {answered:,} answers, {right:,} of them 200. Each of these was")
        keep("held against the oracle of the digest its header")
        keep(f"names: worst difference {max(worst for _, worst in asked):.1e}.")
        keep(
            f"Resident memory: second tenth {second / 1e6:.0f} MB, last tenth {last / 1e6:.0f} MB ({last / second - 1:+.1%})."
        )
        assert last <= 1.05 * second
