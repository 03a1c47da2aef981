"""Where a store may be, for the tests: a directory, an imitated S3 that can misbehave, and two real S3 servers."""

import logging
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import httpx
import pytest

from app.store.content import digest_of, pack
from app.store.objects import Objects

NOW = "2026-01-02T03:04:05.000+00:00"
FILES = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"\0" * 100, "1_Pooling/config.json": b"{}\n"}
RCLONE = Path(sys.executable).with_name("rclone")


class FakeS3(BaseHTTPRequestHandler):
    """As much of S3 as the store uses. With `conditional` off it ignores If-None-Match, as some servers do."""

    conditional = True
    silent = False  # whether it takes requests and never answers
    takes = 0.0  # seconds until it answers a PUT of a content, as where the way there is slow
    lists = True  # whether listings show what there is
    deletes = True  # whether it may be asked to delete
    lose_answer_to = "nothing"  # a part of the key whose first PUT succeeds and is answered 500
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes: the second would wait for the first's ACK
    objects: dict[str, bytes]
    lock: threading.Lock

    def _answer(self, status: int, body: bytes = b"") -> None:
        if self.silent:
            while self.silent:
                time.sleep(0.05)
            self.close_connection = True  # whoever asked has gone
            return
        self.send_response(status)
        self.send_header("ETag", '"e"')
        self.send_header("Last-Modified", "Sun, 05 Jan 2020 10:00:00 GMT")
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
        if "content/" in self._key():
            time.sleep(self.takes)
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
            keys = sorted(key for key in self.objects if key.startswith(prefix) and key > after and self.lists)
        contents = "".join(
            f"<Contents><Key>{key}</Key><LastModified>2020-01-05T10:00:00.000Z</LastModified><ETag>e</ETag>"
            f"<Size>{len(self.objects[key])}</Size></Contents>"
            for key in keys
        )
        head = f"<Name>bucket</Name><Prefix>{prefix}</Prefix><KeyCount>{len(keys)}</KeyCount><IsTruncated>false</IsTruncated>"
        return f"<ListBucketResult>{head}{contents}</ListBucketResult>".encode()

    def do_POST(self) -> None:
        keys = re.findall("<Key>(.*?)</Key>", self.rfile.read(int(self.headers["Content-Length"])).decode())
        if not self.deletes:
            return self._answer(403)
        for key in keys:
            self.objects.pop(key, None)
        deleted = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
        self._answer(200, f"<DeleteResult>{deleted}</DeleteResult>".encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


def use_s3(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Have s3:// lead to this server, also in processes started from here."""
    environment = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeS3]]:
    """The imitated S3."""
    handler = type("Handler", (FakeS3,), {"objects": {}, "lock": threading.Lock()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    use_s3(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    yield handler
    server.shutdown()
    server.server_close()


class Moto:
    """A moto server, which honours conditional writes. It can go away: its buckets are kept by this process."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._start(port=0)
        host, self._port = self._server.get_host_and_port()
        self.endpoint = f"http://{host}:{self._port}"

    def _start(self, port: int) -> None:
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
        self._server.start()

    def new_location(self) -> str:
        """Where an empty store may be, in a bucket of its own."""
        bucket = f"bucket-{uuid.uuid4().hex}"
        httpx.put(f"{self.endpoint}/{bucket}").raise_for_status()
        return f"s3://{bucket}/some/prefix"

    @contextmanager
    def away(self) -> Iterator[None]:
        """Refuse connections for a while."""
        self._server.stop()
        try:
            yield
        finally:
            self._start(self._port)

    def stop(self) -> None:
        self._server.stop()


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    """A moto server."""
    server = Moto()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def rclone_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An rclone server with one bucket, which checks keys and ignores conditional writes."""
    directory = tmp_path_factory.mktemp("rclone")
    (directory / "served" / "bucket").mkdir(parents=True)
    command = [RCLONE, "serve", "s3", "--addr", "127.0.0.1:0", "--auth-key", "key,secret", directory / "served"]
    with (directory / "log").open("w") as log, subprocess.Popen(command, stderr=log) as server:
        while not (said := re.search(r"server on \[(http://.*?)/\]", (directory / "log").read_text())):
            assert server.poll() is None, (directory / "log").read_text()
            time.sleep(0.01)
        yield said[1]
        server.kill()


@pytest.fixture
def rclone(rclone_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The location of an empty store on an rclone server, which `Store.open` refuses."""
    use_s3(monkeypatch, rclone_endpoint)
    return f"s3://bucket/{uuid.uuid4().hex}/prefix"


@pytest.fixture(params=["directory", "file-url", "s3", "moto"])
def shared_location(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Where a store may be that several processes write.

    For tests of writers that race to create one object, and of the probe that asks whether only one of them can.
    It is no `rclone serve s3`: that one ignores `If-None-Match: *`, so both would succeed and one write be lost.
    """
    return place(request.param, request, monkeypatch, tmp_path)


@pytest.fixture(params=["directory", "file-url", "s3", "moto", "rclone"])
def location(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Where a store may be that one process writes at a time; every test that takes it holds for each.

    On rclone stores are opened without the probe, which would refuse it.
    """
    if request.param == "rclone":
        monkeypatch.setattr(Objects, "_probe", lambda objects, location: None)
    return place(request.param, request, monkeypatch, tmp_path)


def place(kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The location of an empty store of a kind."""
    if kind == "s3":
        request.getfixturevalue("s3")
        return "s3://bucket/some/prefix"
    if kind == "moto":
        server = request.getfixturevalue("moto")
        use_s3(monkeypatch, server.endpoint)
        return server.new_location()
    if kind == "rclone":
        return str(request.getfixturevalue("rclone"))
    directory = tmp_path / "the store"
    return str(directory) if kind == "directory" else directory.as_uri()


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


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
