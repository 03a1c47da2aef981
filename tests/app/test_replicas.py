"""Two `lorat serve` on one store, on a local directory and on S3 alike: they follow each other, crash, and go on."""

import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.app.conftest import process, upload
from tests.app.stores import FakeS3, Moto, use_s3
from tests.oracle import PeftAdapter, make_peft

TEXT = "What is LoRA?"
PROMISE = 1.0  # seconds within which a process serves what another one answered 201


class Pair:
    """Two processes on one store."""

    def __init__(self, store: str, base: Path, stack: ExitStack) -> None:
        self._store, self._base, self._stack = store, base, stack
        with ThreadPoolExecutor(2) as threads:
            (self._process, self.one), (_, self.other) = threads.map(lambda _: self._start(), range(2))

    def _start(self) -> tuple[subprocess.Popen[bytes], httpx.Client]:
        flags = ("--demo", "0", "--follow-seconds", "0.5")
        return self._stack.enter_context(process(self._store, *flags, base=self._base))

    def crash_one(self) -> None:
        """Kill -9 the first of them, and start another in its place."""
        self._process.kill()
        self._process.wait()
        self._process, self.one = self._start()


@pytest.fixture(scope="module", params=["directory", "moto"])
def pair(request: pytest.FixtureRequest, tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with pytest.MonkeyPatch.context() as environment, ExitStack() as stack:
        store = str(tmp_path_factory.mktemp("store"))
        if request.param == "moto":
            moto: Moto = request.getfixturevalue("moto")
            use_s3(environment, moto.endpoint)
            store = moto.new_location()
        yield Pair(store, tiny_path, stack)


@pytest.fixture(scope="module")
def made(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> list[PeftAdapter]:
    directory = tmp_path_factory.mktemp("made")
    return [make_peft(tiny_path, directory / str(i), seed=i, r=2) for i in range(2)]


def push(client: httpx.Client, name: str, adapter: PeftAdapter) -> None:
    assert upload(client, name, adapter.directory, params={"replace": True}).status_code == 201


def embed(client: httpx.Client, name: str) -> httpx.Response:
    return client.post("/embed", params={"adapter": name}, json={"inputs": TEXT})


def served(client: httpx.Client, name: str, adapter: PeftAdapter) -> bool:
    """Whether a name is served with the vectors that PEFT computes."""
    response = embed(client, name)
    assert response.status_code == 200, response.text
    return np.abs(np.array(response.json()[0]) - adapter.answers([TEXT])[0].numpy()).max() <= 5e-5


def known(client: httpx.Client) -> int:
    """How many adapters a process counts: without a look at the store, which a name it does not know would cause."""
    return int(client.get("/info").json()["adapters"])


def newest(client: httpx.Client, name: str) -> int | None:
    """The version that a process serves of a name, if it knows it."""
    return client.get(f"/adapters/{name}").json().get("version")


def within(seconds: float, check: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, f"it did not come true in {seconds} s"
        time.sleep(0.02)


def test_an_upload_is_followed_before_anyone_asks_for_it(pair: Pair, made: list[PeftAdapter]) -> None:
    before = known(pair.other)
    push(pair.one, "new", made[0])
    within(PROMISE, lambda: known(pair.other) == before + 1)
    assert served(pair.other, "new", made[0])


def test_a_new_version_is_followed(pair: Pair, made: list[PeftAdapter]) -> None:
    push(pair.one, "x", made[0])
    assert embed(pair.other, "x").headers["x-lorat-adapter"] == "x@1"
    push(pair.one, "x", made[1])
    within(PROMISE, lambda: newest(pair.other, "x") == 2)
    assert embed(pair.other, "x").headers["x-lorat-adapter"] == "x@2"
    assert served(pair.other, "x", made[1])
    assert served(pair.other, "x@1", made[0])


def test_a_name_is_taken_for_both(pair: Pair, made: list[PeftAdapter]) -> None:
    push(pair.one, "taken", made[0])
    assert upload(pair.other, "taken", made[1].directory).status_code == 409
    assert upload(pair.other, "taken", made[1].directory, params={"replace": True}).json()["version"] == 2


def test_what_was_deleted_elsewhere_leaves_its_slots(pair: Pair, tiny_path: Path, tmp_path: Path) -> None:
    def used() -> int:
        return int(pair.other.get("/info").json()["slots"]["used"])

    before = used()
    for version in (1, 2):
        passing = make_peft(tiny_path, tmp_path / str(version), seed=6 + version, r=2)
        push(pair.one, "passing", passing)
        within(PROMISE, lambda version=version: newest(pair.other, "passing") == version)
        assert served(pair.other, "passing", passing)
        assert used() == before + version
    assert pair.one.delete("/adapters/passing").status_code == 204
    within(PROMISE, lambda: used() == before)


def test_a_listing_is_never_behind(pair: Pair, made: list[PeftAdapter]) -> None:
    for version, (writer, reader) in enumerate([(pair.one, pair.other), (pair.other, pair.one)] * 2, start=1):
        push(writer, "listed", made[version % 2])
        assert {r["name"]: r["version"] for r in reader.get("/adapters").json()["adapters"]}["listed"] == version


def test_a_delete_is_followed(pair: Pair, made: list[PeftAdapter]) -> None:
    push(pair.one, "gone", made[0])
    assert served(pair.other, "gone", made[0])
    assert pair.one.delete("/adapters/gone").status_code == 204
    within(PROMISE, lambda: embed(pair.other, "gone").status_code == 404)
    assert pair.other.get("/adapters/gone").status_code == 404


def test_what_was_answered_201_survives_kill_9(pair: Pair, made: list[PeftAdapter]) -> None:
    push(pair.one, "kept", made[0])
    pair.crash_one()
    assert served(pair.one, "kept", made[0])
    assert served(pair.other, "kept", made[0])


@pytest.mark.parametrize("pair", ["moto"], indirect=True)
def test_while_s3_is_away_what_is_held_is_served(pair: Pair, moto: Moto, made: list[PeftAdapter]) -> None:
    """What is not held is a 503; once S3 is back, changes are made and followed again."""
    push(pair.one, "held", made[0])
    assert served(pair.other, "held", made[0])
    with moto.away(), ThreadPoolExecutor(1) as threads:
        unknown = threads.submit(embed, pair.other, "nobody")
        while not unknown.done():
            assert {pair.other.get(route).status_code for route in ("/health", "/ready", "/adapters/held")} == {200}
            assert served(pair.other, "held", made[0])
        assert unknown.result().status_code == 503
    assert embed(pair.other, "nobody").status_code == 404
    push(pair.one, "held", made[1])
    within(10, lambda: newest(pair.other, "held") == 2)
    assert served(pair.other, "held", made[1])


def test_a_silent_s3_holds_up_neither_a_request_nor_the_shutdown(
    s3: type[FakeS3], tiny_path: Path, made: list[PeftAdapter]
) -> None:
    """It accepts connections and never answers: the unknown name is a 503 soon, and SIGTERM ends the process."""
    with process("s3://bucket/store", "--demo", "0", "--graceful-seconds", "20", base=tiny_path) as (server, client):
        push(client, "held", made[0])
        s3.silent = True
        with ThreadPoolExecutor(2) as threads:
            unknown = threads.submit(embed, client, "nobody")
            assert served(client, "held", made[0])
            assert unknown.result(timeout=20).status_code == 503
            waiting = threads.submit(embed, client, "nobody else")
            time.sleep(0.5)
            server.terminate()
            assert server.wait(timeout=30) == 0
            assert waiting.result(timeout=1).status_code == 503
        s3.silent = False
