"""The store: contents, the log, and what happens when processes race or die."""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.adapter_log import AdapterLog
from app.catalog import Catalog
from app.errors import StoreError, UnknownAdapterError
from app.store import SequenceTakenError, Store, digest_of, pack

NOW = "2026-01-02T03:04:05.000+00:00"
FILES = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"\0" * 100, "1_Pooling/config.json": b"{}\n"}


class FakeS3(BaseHTTPRequestHandler):
    """As much of S3 as the store uses. With `conditional` off it ignores If-None-Match, as some servers do."""

    conditional = True
    lose_answer_to = "nothing"  # a part of the key whose first PUT succeeds and is answered 500
    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]
    lock: threading.Lock

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("ETag", '"e"')
        self.send_header("Last-Modified", "Mon, 05 Jan 2026 10:00:00 GMT")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _key(self) -> str:
        return unquote(urlsplit(self.path).path).removeprefix("/bucket/")

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.lock:
            taken = self._key() in self.objects and self.headers["If-None-Match"] == "*" and self.conditional
            if not taken:
                self.objects[self._key()] = body
        lost = self.lose_answer_to in self._key()
        if lost:
            type(self).lose_answer_to = "nothing"
        self._answer(500 if lost else 412 if taken else 200)

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if "list-type" in query:
            self._answer(200, self._listing(query["prefix"][0], query.get("start-after", [""])[0]))
        else:
            body = self.objects.get(self._key())
            self._answer(404 if body is None else 200, body or b"")

    do_HEAD = do_GET

    def _listing(self, prefix: str, after: str) -> bytes:
        with self.lock:
            keys = sorted(key for key in self.objects if key.startswith(prefix) and key > after)
        contents = "".join(
            f"<Contents><Key>{key}</Key><LastModified>2026-01-05T10:00:00.000Z</LastModified><ETag>e</ETag>"
            f"<Size>{len(self.objects[key])}</Size></Contents>"
            for key in keys
        )
        head = f"<Name>bucket</Name><Prefix>{prefix}</Prefix><KeyCount>{len(keys)}</KeyCount><IsTruncated>false</IsTruncated>"
        return f"<ListBucketResult>{head}{contents}</ListBucketResult>".encode()

    def do_POST(self) -> None:
        keys = re.findall("<Key>(.*?)</Key>", self.rfile.read(int(self.headers["Content-Length"])).decode())
        for key in keys:
            self.objects.pop(key, None)
        deleted = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
        self._answer(200, f"<DeleteResult>{deleted}</DeleteResult>".encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeS3]]:
    handler = type("Handler", (FakeS3,), {"objects": {}, "lock": threading.Lock()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    yield handler
    server.shutdown()
    server.server_close()


@pytest.fixture(params=["directory", "file-url", "s3"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store may be; every test that takes it holds for each."""
    if request.param == "s3":
        request.getfixturevalue("s3")
        return "s3://bucket/some/prefix"
    directory = tmp_path / "the store"
    return str(directory) if request.param == "directory" else directory.as_uri()


def packed(directory: Path, files: dict[str, bytes] = FILES) -> tuple[str, Path]:
    source = directory / "source"
    for path, content in files.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes(content)
    pack(source, list(files), directory / "packed.zip")
    return digest_of(files), directory / "packed.zip"


def upload(name: str, digest: str = "a" * 64) -> dict[str, object]:
    return {"op": "upload", "name": name, "digest": digest, "created": NOW, "record": {}}


def read_back(directory: Path) -> dict[str, bytes]:
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def test_the_digest_is_what_is_documented() -> None:
    def sha(data: bytes) -> str:
        return hashlib.sha256(data).hexdigest()

    expected = sha(f"a\0{sha(b'1')}\nb/c\0{sha(b'2')}\n".encode())
    assert digest_of({"b/c": b"2", "a": b"1"}) == expected


def test_the_digest_of_files_on_disk_is_that_of_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"content")
    assert digest_of({"x": tmp_path / "x"}) == digest_of({"x": b"content"})


def test_packing_knows_neither_order_nor_time(tmp_path: Path) -> None:
    _, first = packed(tmp_path / "1")
    (tmp_path / "1" / "source" / "adapter_config.json").touch()
    os.utime(tmp_path / "1" / "source" / "adapter_config.json", (0, 0))
    pack(tmp_path / "1" / "source", list(reversed(FILES)), tmp_path / "again.zip")
    assert first.read_bytes() == (tmp_path / "again.zip").read_bytes()


path_parts = st.text("abcXYZ019._-ä", min_size=1, max_size=8).filter(lambda part: part not in (".", ".."))
paths = st.lists(path_parts, min_size=1, max_size=3).map("/".join)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(paths, st.binary(max_size=300), min_size=1, max_size=5))
def test_what_is_packed_comes_out_again(files: dict[str, bytes]) -> None:
    if any(other.startswith(f"{path}/") for path in files for other in files):
        return  # a file cannot be a folder as well
    with tempfile.TemporaryDirectory() as directory:
        digest, archive = packed(Path(directory), files)
        store = Store.open(f"{directory}/store")
        store.put_content(digest, archive)
        assert read_back(store.get_content(digest, Path(directory) / "out")) == files


def test_a_content_is_kept_and_downloaded(location: str, tmp_path: Path) -> None:
    digest, archive = packed(tmp_path)
    store = Store.open(location)
    store.put_content(digest, archive)
    store.put_content(digest, archive)
    assert Store.open(location).content_bytes(digest) == archive.read_bytes()
    out = store.get_content(digest, tmp_path / "out")
    assert out == tmp_path / "out"
    assert read_back(out) == FILES


def test_a_missing_content_is_named(location: str, tmp_path: Path) -> None:
    store = Store.open(location)
    for ask in (store.content_bytes, lambda digest: store.get_content(digest, tmp_path / "out")):
        with pytest.raises(StoreError, match="c" * 64):
            ask("c" * 64)
    with pytest.raises(StoreError, match="not a digest"):
        store.content_bytes("../../etc/passwd")


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other", "text"])
def test_a_damaged_content_is_named_and_nothing_is_written(damage: str, tmp_path: Path) -> None:
    digest, archive = packed(tmp_path)
    content = bytearray(archive.read_bytes())
    if damage == "flip":
        content[content.index(b"\0" * 100) + 50] ^= 1
    elif damage == "other":
        content = bytearray(packed(tmp_path / "other", {"adapter_config.json": b"[]"})[1].read_bytes())
    else:
        content = {"cut": content[: len(content) // 2], "empty": bytearray(), "text": bytearray(b"hello")}[damage]
    store = Store.open(str(tmp_path / "store"))
    (tmp_path / "store" / "content" / f"{digest}.zip").write_bytes(content)
    with pytest.raises(StoreError, match=digest):
        store.get_content(digest, tmp_path / "out")
    assert read_back(tmp_path / "out") == {}
    store.put_content(digest, archive)
    if damage != "flip":  # of the same size: that one is found by its digest only
        assert read_back(store.get_content(digest, tmp_path / "out")) == FILES


def test_a_content_whose_paths_lead_out_is_not_extracted(tmp_path: Path) -> None:
    digest = digest_of({"../evil": b"x"})
    store = Store.open(str(tmp_path / "store"))
    with zipfile.ZipFile(tmp_path / "store" / "content" / f"{digest}.zip", "w") as archive:
        archive.writestr("../evil", b"x")
    with pytest.raises(StoreError, match=digest):
        store.get_content(digest, tmp_path / "out")
    assert not (tmp_path / "evil").exists()


def test_the_log_is_read_in_order_from_any_place(location: str) -> None:
    store = Store.open(location)
    assert store.read(0) == []
    for i in range(30):
        assert store.append(i, upload(f"n{i}")) == i + 1
    entries = Store.open(location).read(0)
    assert [sequence for sequence, _ in entries] == [*range(1, 31)]
    assert [entry["name"] for _, entry in entries] == [f"n{i}" for i in range(30)]
    assert all(entry["format"] == 1 for _, entry in entries)
    assert [sequence for sequence, _ in store.read(27)] == [28, 29, 30]
    assert store.read(30) == []


def test_a_sequence_is_given_once(location: str) -> None:
    first, second = Store.open(location), Store.open(location)
    first.append(0, upload("x"))
    with pytest.raises(SequenceTakenError):
        second.append(0, upload("x"))
    assert len(first.read(0)) == 1


def test_an_append_whose_answer_was_lost_counts_once(s3: type[FakeS3]) -> None:
    store = Store.open("s3://bucket/prefix")
    s3.lose_answer_to = "log/"
    assert store.append(0, upload("x")) == 1
    assert [entry["name"] for _, entry in store.read(0)] == ["x"]


@pytest.mark.parametrize(
    ("sequence", "payload", "fault"),
    [
        (2, None, "log entry 2 .* missing"),
        (1, None, "log entry 1 .* missing"),
        (3, b"", "log entry 3 .* damaged"),
        (3, b"{", "log entry 3 .* damaged"),
        (3, b"[1]", "log entry 3 .* newer"),
        (3, b'{"format": 2}', "log entry 3 .* newer"),
        (3, b'{"format": 1, "op": "paint"}', "'paint'.*newer"),
    ],
)
def test_a_log_that_cannot_be_trusted_is_refused(
    sequence: int, payload: bytes | None, fault: str, tmp_path: Path
) -> None:
    store = Store.open(str(tmp_path))
    for i in range(3):
        store.append(i, upload("x"))
    path = tmp_path / "log" / f"{sequence:012d}.json"
    if payload is None:
        path.unlink()
    else:
        path.write_bytes(payload)
    with pytest.raises(StoreError, match=fault):
        AdapterLog(store)


def test_opening_leaves_no_probe(location: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    Store.open(location)
    if location.startswith("s3"):
        assert request.getfixturevalue("s3").objects == {}
    else:
        assert read_back(tmp_path / "the store") == {}


def test_a_server_that_ignores_conditions_is_refused_by_name(s3: type[FakeS3]) -> None:
    s3.conditional = False
    with pytest.raises(StoreError, match=r"s3://bucket/prefix ignores conditional writes.*If-None-Match"):
        Store.open("s3://bucket/prefix")
    assert s3.objects == {}


@pytest.mark.parametrize("location", ["nope://somewhere", "{tmp}/file/below", "{tmp}/file"])
def test_a_location_that_cannot_be_opened_is_named(location: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    location = location.format(tmp=tmp_path)
    with pytest.raises(StoreError, match=location):
        Store.open(location)


def test_leftover_temporaries_are_swept_when_old(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    store.append(0, upload("x"))
    old, young = tmp_path / "log" / "000000000002.json#1", tmp_path / "content" / f"{'a' * 64}.zip#12"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    assert AdapterLog(Store.open(str(tmp_path))).sequence == 1
    assert not old.exists()
    assert young.exists()


def test_what_counts_is_synced_with_its_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest, archive = packed(tmp_path)
    store = Store.open(str(tmp_path / "store"))
    synced: list[str] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    store.put_content(digest, archive)
    assert synced == [f"{digest}.zip", "content"]
    store.put_content(digest, archive)
    assert len(synced) == 4  # also when it was there: who wrote it may not have come to it
    synced.clear()
    store.append(0, upload("x"))
    assert synced == ["000000000001.json", "log"]
    synced.clear()
    store.append(1, upload("x"))
    assert synced == ["000000000001.json", "log", "000000000002.json", "log"]


def test_a_commit_is_seen_by_the_others(location: str) -> None:
    ours, theirs = AdapterLog(Store.open(location)), AdapterLog(Store.open(location))
    entry = ours.commit(lambda catalog: upload("x"))
    assert entry == upload("x")
    assert ours.catalog.resolve("x").version == 1
    assert theirs.catalog.newest("x") is None
    assert theirs.refresh() == 1
    assert theirs.catalog.resolve("x@1").created == NOW
    assert theirs.refresh() == 0
    assert AdapterLog(Store.open(location)).catalog.ever_used


def test_a_decision_against_leaves_nothing(location: str) -> None:
    log = AdapterLog(Store.open(location))
    assert log.commit(lambda catalog: None) is None

    def refuse(catalog: Catalog) -> None:
        catalog.resolve("nobody")

    with pytest.raises(UnknownAdapterError):
        log.commit(refuse)
    for bad in ({"op": "paint"}, {**upload("x"), "record": {"f": float("nan")}}, {**upload("x"), "record": {"f": b""}}):
        with pytest.raises(StoreError):
            log.commit(lambda catalog, bad=bad: bad)  # type: ignore[misc]
    assert AdapterLog(Store.open(location)).sequence == 0
    log.commit(lambda catalog: upload("x"))  # and the lock is free
    assert log.sequence == 1


def test_decisions_are_taken_again_when_another_was_first(location: str) -> None:
    ours, theirs = AdapterLog(Store.open(location)), AdapterLog(Store.open(location))
    seen: list[int] = []

    def decide(catalog: Catalog) -> dict[str, object]:
        seen.append(catalog.next_version("x"))
        if len(seen) == 1:
            theirs.commit(lambda catalog: upload("x", "b" * 64))
        return upload("x")

    ours.commit(decide)
    assert seen == [1, 2]
    assert [v.digest[0] for v in ours.catalog.versions("x")] == ["a", "b"]


def test_a_store_that_hides_its_writes_ends_the_commit(s3: type[FakeS3]) -> None:
    log = AdapterLog(Store.open("s3://bucket/prefix"))
    AdapterLog(Store.open("s3://bucket/prefix")).commit(lambda catalog: upload("y"))
    log.store.read = lambda after: []  # type: ignore[method-assign]
    with pytest.raises(StoreError, match="neither be created nor read"):
        log.commit(lambda catalog: upload("x"))


COMMITS = """
import json, sys
from app.adapter_log import AdapterLog
from app.store import Store

log, won = AdapterLog(Store.open(sys.argv[1])), []
print("ready", flush=True)
sys.stdin.readline()
for i in range(25):
    digest = sys.argv[2] * 32 + f"{i:032x}"
    def decide(catalog):
        decide.number = catalog.next_version("x")
        return {"op": "upload", "name": "x", "digest": digest, "created": "now", "record": {}}
    log.commit(decide)
    won.append([decide.number, digest])
print(json.dumps(won))
"""


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_of_two_processes_exactly_one_wins_each_version(location: str) -> None:
    processes = [python(COMMITS, location, letter) for letter in "ab"]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate()[0] for process in processes]
    won = sorted(pair for answer in answers for pair in json.loads(answer))
    assert [number for number, _ in won] == [*range(1, 51)]
    log = AdapterLog(Store.open(location))
    assert [[v.version, v.digest] for v in reversed(log.catalog.versions("x"))] == won


def test_of_many_threads_exactly_one_wins_each_version(tmp_path: Path) -> None:
    logs = [AdapterLog(Store.open(str(tmp_path))) for _ in range(2)]
    won: list[int] = []

    def work(log: AdapterLog) -> None:
        for _ in range(15):
            entry = log.commit(lambda catalog: {**upload("x"), "record": {"number": catalog.next_version("x")}})
            assert entry is not None
            won.append(entry["record"]["number"])

    threads = [threading.Thread(target=work, args=(log,)) for log in logs for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [*range(1, 61)]
    logs[0].refresh()
    assert all(v.record["number"] == v.version for v in logs[0].catalog.versions("x"))


DIES = """
import os, sys
from pathlib import Path
from app.adapter_log import AdapterLog
from app.store import Store

log = AdapterLog(Store.open(sys.argv[1]))
log.store.put_content(sys.argv[2], Path(sys.argv[3]))
if sys.argv[4] == "after":
    entry = {"op": "upload", "name": "x", "digest": sys.argv[2], "created": "now", "record": {}}
    log.commit(lambda catalog: entry)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("killed", ["before", "after"])
def test_killed_before_the_append_nothing_is_there_and_after_it_all_is(
    killed: str, location: str, tmp_path: Path
) -> None:
    digest, archive = packed(tmp_path)
    with python(DIES, location, digest, str(archive), killed) as process:
        process.communicate()
    assert process.returncode == -9
    log = AdapterLog(Store.open(location))
    if killed == "before":
        assert not log.catalog.ever_used
        log.store.put_content(digest, archive)
        log.commit(lambda catalog: upload("x", digest))
    assert log.catalog.resolve("x@1").digest == digest
    assert read_back(log.store.get_content(digest, tmp_path / "out")) == FILES
