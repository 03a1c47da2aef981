"""Replicas behind the gateway: what they share, and what happens to requests when they come and go."""

import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.app.conftest import upload
from tests.deploy.stack import Stack, docker, make_image, run, wait_until
from tests.deploy.traffic import Question, Traffic
from tests.oracle import PeftAdapter, make_peft
from tests.test_readme import EXAMPLES, numbers, words

JSON = {"Content-Type": "application/json"}
KILL = "import os, signal; [os.kill(int(p), signal.SIGKILL) for p in os.listdir('/proc') if p.isdigit() and int(p) > 1"
KILL += " and int(p) != os.getpid() and b'app' in open(f'/proc/{p}/cmdline', 'rb').read()]"


@pytest.mark.parametrize("example", range(len(EXAMPLES)))
def test_curl_examples_of_the_readme_through_the_gateway(stack: Stack, example: int):
    asked, shown = EXAMPLES[example]
    keyed = asked.replace("curl -s", f"curl -s -H 'Authorization: Bearer {stack.setting('LORAT_API_KEY')}'")
    got = run("bash", "-euo", "pipefail", "-c", keyed.replace("localhost:8000", f"127.0.0.1:{stack.port}"))
    assert words(got) == words(shown)
    assert numbers(got) == pytest.approx(numbers(shown), abs=1e-4)


def test_keys_are_asked_for_and_metrics_stay_inside(stack: Stack):
    with stack.client() as client:
        assert client.get("/metrics").status_code == 404
        assert client.get("/adapters").status_code == 200
        assert client.get("/adapters", headers={"Authorization": ""}).status_code == 401
        reader = {"Authorization": f"Bearer {stack.setting('LORAT_API_KEY')}"}
        assert client.delete("/adapters/sentiment", headers=reader).status_code == 403


def test_an_upload_is_served_by_every_replica_within_a_second(stack: Stack, minilm_path: Path, tmp_path: Path):
    versions = [make_peft(minilm_path, tmp_path / str(seed), seed=seed, r=4) for seed in (50, 51)]
    with ExitStack() as opened:
        client = opened.enter_context(stack.client())
        replicas = [opened.enter_context(stack.client(stack.address(replica))) for replica in stack.replicas()]
        assert len(replicas) == 2
        for number, adapter in enumerate(versions, 1):
            assert upload(client, "shared", adapter.directory, params={"replace": True}).status_code == 201
            answered = time.monotonic()
            for replica in replicas:
                while (answer := _ask(replica)).headers.get("x-lorat-adapter") != f"shared@{number}":
                    assert time.monotonic() - answered < 1.0
                    time.sleep(0.02)
                assert np.abs(np.array(answer.json()[0]) - adapter.answers(["hello"])[0].numpy()).max() < 2e-3
            print(f"\nversion {number} served by every replica {time.monotonic() - answered:.2f} s after its 201")
        assert client.delete("/adapters/shared").status_code == 204


def _ask(client: httpx.Client) -> httpx.Response:
    return client.post("/embed?adapter=shared", json={"inputs": "hello"})


def test_requests_for_an_adapter_go_to_one_replica(stack: Stack, questions: list[Question]):
    for question in questions[:12]:
        with stack.client() as client:
            before = _asked(stack, question.adapter)
            for _ in range(6):
                assert client.post(question.path, content=question.body, headers=JSON).status_code == 200
                time.sleep(0.05)
            gained = [after - count for after, count in zip(_asked(stack, question.adapter), before, strict=True)]
        assert sorted(gained) == [0, 6], (question.path, gained)


def _asked(stack: Stack, adapter: str) -> list[int]:
    """How often each replica was asked for an adapter."""
    counts = []
    for replica in stack.replicas():
        with stack.client(stack.address(replica)) as client:
            counts.append(client.get(f"/adapters/{adapter}/stats").json()["requests"])
    return counts


@contextmanager
def uploads(stack: Stack, adapter: PeftAdapter) -> Iterator[list[int]]:
    """Settings changed through the gateway five times a second, which it never tries twice; their statuses."""
    statuses: list[int] = []
    ended = threading.Event()

    def change() -> None:
        with stack.client() as client:
            while not ended.wait(0.2):
                statuses.append(client.patch("/adapters/e0", json={"pinned": len(statuses) % 2 == 0}).status_code)
                answer = upload(client, "e0", adapter.directory)
                statuses.append(answer.status_code)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield statuses
    finally:
        ended.set()
        thread.join()


def test_a_replica_is_killed_and_comes_back(stack: Stack, traffic: Callable[[], Traffic]):
    victim = stack.replicas()[0]
    with traffic() as asking:
        asking.settle()
        subprocess.run([*_exec(victim), "python", "-c", KILL])  # what ends with it reports an error itself
        wait_until(lambda: _restarts(victim) == 1, 30, "the killed replica was not started again")
        stack.wait_healthy(victim)
        asking.settle()
        docker("kill", "--signal", "KILL", victim)
        asking.settle()
        docker("start", victim)
        stack.wait_healthy(victim)
        asking.settle()
    print("\n" + asking.report("kill -9 of a replica, twice, and its restart"))


def _exec(container: str) -> list[str]:
    from tests.deploy.stack import DOCKER

    return [DOCKER, "exec", container]


def _restarts(container: str) -> int:
    return int(docker("inspect", "--format", "{{.RestartCount}}", container))


def test_replicas_are_added_and_taken_away(stack: Stack, traffic: Callable[[], Traffic], adapters):
    with traffic() as asking, uploads(stack, adapters["e0"]) as statuses:
        asking.settle()
        for count in (3, 1, 2):
            stack.up("--no-recreate", "--scale", f"api={count}")
            assert len(stack.replicas()) == count
            asking.settle()
    print("\n" + asking.report("2 → 3 → 1 → 2 replicas"))
    assert set(statuses) == {200}, statuses
    print(f"{len(statuses)} changes meanwhile, 0 failed")


def test_replicas_are_restarted_one_by_one(stack: Stack, traffic: Callable[[], Traffic], adapters):
    with traffic() as asking, uploads(stack, adapters["e0"]) as statuses:
        asking.settle()
        for replica in stack.replicas():
            docker("restart", replica)
            stack.wait_healthy(replica)
        asking.settle()
    print("\n" + asking.report("each replica restarted"))
    assert set(statuses) == {200}, statuses
    print(f"{len(statuses)} changes meanwhile, 0 failed")


def test_a_new_image_and_a_new_version_roll_out(
    stack: Stack, traffic: Callable[[], Traffic], adapters, minilm_path: Path, tmp_path: Path
):
    package = stack.directory / "lorat" / "__init__.py"
    package.write_text(re.sub(r'__version__ = ".*"', '__version__ = "0.1.0+next"', package.read_text()))
    print(f"\nrebuild after a change of the code: {make_image(stack.directory):.1f} s")
    first, second = (make_peft(minilm_path, tmp_path / str(seed), seed=seed, r=4) for seed in (60, 61))
    old = set(stack.replicas())
    with stack.client() as client, traffic() as asking, uploads(stack, adapters["e0"]) as statuses:
        assert upload(client, "rolling", first.directory).status_code == 201
        seen: list[str] = []
        ended = threading.Event()

        def ask() -> None:
            with stack.client() as other:
                while not ended.is_set():
                    answer = other.post("/embed?adapter=rolling", json={"inputs": "hello"})
                    assert answer.status_code == 200
                    version = answer.headers["x-lorat-adapter"]
                    wanted = {"rolling@1": first, "rolling@2": second}[version].answers(["hello"])[0].numpy()
                    seen.append(version if np.abs(np.array(answer.json()[0]) - wanted).max() < 2e-3 else "wrong")

        thread = threading.Thread(target=ask)
        thread.start()
        stack.roll()
        assert upload(client, "rolling", second.directory, params={"replace": True}).status_code == 201
        asking.settle()
        ended.set()
        thread.join()
    print(asking.report("the image replaced"))
    assert set(statuses) == {200}, statuses
    assert set(seen) == {"rolling@1", "rolling@2"} and seen[-1] == "rolling@2"
    assert len(stack.replicas()) == 2 and not old & set(stack.replicas())
    for replica in stack.replicas():
        with stack.client(stack.address(replica)) as client:
            assert client.get("/info").json()["version"] == "0.1.0+next"


def test_a_backup_is_restored_as_the_guide_says(stack: Stack, questions: list[Question], tmp_path: Path):
    page = (stack.directory / "docs" / "deployment.md").read_text()
    backup, restore = re.findall(r"```sh\n(docker compose (?:exec|run)[^`]*?store\.tar\n)```", page)
    run("bash", "-euc", backup, cwd=stack.directory, environment=stack.environment)
    fresh = Stack(stack.directory, project="lorat-restored", port=8001)
    try:
        run("bash", "-euc", restore, cwd=fresh.directory, environment=fresh.environment)
        fresh.up("--scale", "api=1")
        with stack.client() as before, fresh.client() as after:
            assert after.get("/adapters").json() == before.get("/adapters").json()
            for question in questions[:: len(questions) // 6]:
                assert question.is_answered_by(after.post(question.path, content=question.body, headers=JSON).content)
    finally:
        fresh.down()


def test_the_store_says_its_format_and_another_one_is_refused(stack: Stack):
    first = docker("exec", stack.replicas()[0], "cat", "/var/lib/lorat/log/000000000001.json")
    assert json.loads(first)["format"] == 1
