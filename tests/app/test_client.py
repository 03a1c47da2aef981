"""The command line's calls, against servers that are not what it hopes for."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from app.cli import main
from app.client import ArgumentError, Client


@contextmanager
def answering(status, body=b"", headers=()):
    """A server that answers everything so: its URL, and what it was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.command, self.path, self.headers["Authorization"]))
            self.send_response(status)
            for name, value in (*headers, ("Content-Length", str(len(body)))):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_DELETE = do_POST = do_GET

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("reference", "path"),
    [
        ("reviews@2", "/adapters/reviews@2"),
        ("reviews#old", "/adapters/reviews%23old"),
        ("reviews?v=1", "/adapters/reviews%3Fv%3D1"),
        ("a/../reviews", "/adapters/a%2F..%2Freviews"),
    ],
)
def test_a_reference_is_one_part_of_the_path(reference, path):
    with answering(204) as (url, asked), Client(url) as client:
        client.delete(reference)
    assert asked == [("DELETE", path, None)]


@pytest.mark.parametrize("reference", ["", ".", ".."])
def test_what_would_be_another_path_is_not_sent(reference, capsys):
    with answering(204) as (url, asked):
        assert main(["delete", reference, "--url", url]) == 1
    assert asked == [] and "is no adapter" in capsys.readouterr().err


@pytest.mark.parametrize(("key", "sent"), [("SECRET\n", "Bearer SECRET"), (" \n", None), ("", None)])
def test_white_space_around_a_key_is_not_sent(key, sent):
    with answering(200, b'{"adapters": [], "next": null}') as (url, asked), Client(url, key) as client:
        assert list(client.adapters()) == []
    assert asked == [("GET", "/adapters", sent)]


def test_a_key_of_another_script_arrives_as_the_server_reads_it():
    with answering(200, b"{}") as (url, asked), Client(url, "ключ") as client:
        client.info()
    assert asked[0][2].encode("latin-1").decode() == "Bearer ключ"


@pytest.mark.parametrize("key", ["SEC\nRET", "SEC\0RET", "SEC\udcffRET"])
def test_a_key_that_no_header_holds_is_refused_and_not_shown(key, capsys):
    with pytest.raises(ArgumentError):
        Client("http://127.0.0.1:1", key)
    assert main(["list", "--url", "http://127.0.0.1:1", "--key", key]) == 1
    said = capsys.readouterr().err
    assert "LORAT_KEY" in said and "SEC" not in said


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((200, b"<html>"), "not as LoRAT does"),
        ((200, b"[]"), "not as LoRAT does"),
        ((200, b"{}"), "not as LoRAT does"),
        ((301, b"", (("Location", "https://elsewhere/adapters"),)), "sends on to https://elsewhere/adapters"),
        ((502, b"bad gateway"), "502: bad gateway"),
    ],
)
def test_an_answer_that_is_no_lorat_s_is_one_line(answer, says, capsys):
    with answering(*answer) as (url, _):
        assert main(["list", "--url", url]) == 1
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1


def test_a_directory_of_too_many_files_is_not_opened(tmp_path, capsys):
    for number in range(65):
        (tmp_path / f"{number}.png").touch()
    assert main(["push", str(tmp_path), "--name", "x", "--url", "http://127.0.0.1:1"]) == 1
    assert "more than 64 files" in capsys.readouterr().err
