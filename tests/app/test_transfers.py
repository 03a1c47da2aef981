"""What uploads and downloads take of the temporary directory: so many at once, and an answer where it is full."""

import io
import os
import resource
import socket
import time
import zipfile

import pytest

from app import sending
from tests.app.conftest import files_of, process, upload
from tests.oracle import make_peft


@pytest.fixture(scope="module")
def made(tiny_path, tmp_path_factory):
    return make_peft(tiny_path, tmp_path_factory.mktemp("made"), r=2).directory


def until(answer, status):
    """Ask until the answer has a status; it."""
    for _ in range(600):
        if (response := answer()).status_code == status:
            return response
        time.sleep(0.1)
    raise AssertionError(response.text)


def connected(client, head):
    """A connection that has sent the head of a request, and reads as little as it can."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((client.base_url.host, client.base_url.port))
    connection.sendall(f"{head}\r\nHost: x\r\n".encode())
    return connection


def test_so_many_uploads_are_taken_at_once(serve, made):
    client = serve(max_concurrent_transfers=1)
    with connected(client, "POST /adapters HTTP/1.1") as slow:
        slow.sendall(b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 1000\r\n\r\n--x\r\n")
        refused = until(lambda: upload(client, "x", made), 429)
        assert "max_concurrent_transfers" in refused.json()["error"] and refused.headers["retry-after"] == "1"
    assert until(lambda: upload(client, "y", made), 201).json()["version"] == 1


def test_so_many_downloads_are_sent_at_once(serve, made):
    client = serve(max_concurrent_transfers=1)
    files = [*files_of(made), ("files", ("large.png", os.urandom(1 << 20) * 24))]
    assert client.post("/adapters", data={"name": "x"}, files=files).status_code == 201
    with connected(client, "GET /adapters/x/download HTTP/1.1") as slow:
        slow.sendall(b"\r\n")
        assert slow.recv(1)
        refused = until(lambda: client.get("/adapters/x/download"), 429)
        assert "max_concurrent_transfers" in refused.json()["error"]
        assert upload(client, "y", made).status_code == 201  # these are counted apart
    assert len(until(lambda: client.get("/adapters/x/download"), 200).content) > 24 << 20
    assert client.get("/adapters/nobody/download").status_code == 404
    assert client.get("/adapters/x/download").status_code == 200


def test_a_download_that_is_not_taken_is_cut_off(serve, made, monkeypatch):
    monkeypatch.setattr(sending, "LEAST_BYTES_PER_SECOND", 1 << 40)
    client = serve(max_concurrent_transfers=1, body_timeout_seconds=0.5)
    files = [*files_of(made), ("files", ("large.png", os.urandom(1 << 20) * 24))]
    assert client.post("/adapters", data={"name": "x"}, files=files).status_code == 201

    def begun():
        with client.stream("GET", "/adapters/x/download") as response:
            return response

    with connected(client, "GET /adapters/x/download HTTP/1.1") as slow:
        slow.sendall(b"\r\n")
        assert slow.recv(1)
        until(begun, 200)


def zipped(directory):
    """An adapter as a zip that is small until it is unpacked."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for path in directory.iterdir():
            target.writestr(path.name, path.read_bytes())
        target.writestr("large.png", bytes(400_000))
    return [("files", ("adapter.zip", buffer.getvalue()))]


def test_a_full_temporary_directory_is_a_503_and_left_empty(tiny_path, made, tmp_path, monkeypatch):
    """The system refuses to let a file grow, as it does on a disk that is full."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    with process(tmp_path / "store", "--demo", "0", base=tiny_path) as (server, client):
        before = sorted(temporary.iterdir())
        _, most = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (200_000, most))
        received = [*files_of(made), ("files", ("large.png", os.urandom(1_500_000)))]
        for files in (zipped(made), received):
            refused = client.post("/adapters", data={"name": "x"}, files=files)
            assert (refused.status_code, refused.json()["error_type"]) == (503, "Unhealthy"), refused.text
            assert "temporary directory is full" in refused.json()["error"]
            assert sorted(temporary.iterdir()) == before
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (most, most))
        assert upload(client, "x", made).status_code == 201
        assert sorted(temporary.iterdir()) == before
