"""The command line's calls, against servers that are not what it hopes for."""

import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from app.cli import main
from app.client import ArgumentError, Client, ServerError

RECORD = {
    "name": "x",
    "version": 1,
    "task": "embedding",
    "labels": None,
    "rank": 2,
    "targets": ["query"],
    "layers": [0],
    "bytes": 9,
    "parameters": 9,
    "base_match": "unknown",
}


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


@pytest.mark.parametrize("url", ["http://localhost:80a0", "http://[::1", "http://x\udcff"])
def test_what_is_no_url_is_one_line(url, capsys):
    assert main(["list", "--url", url]) == 1
    said = capsys.readouterr().err
    assert "--url" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [["versions", "x\udcff"], ["delete", "x\udcff"], ["push", ".", "--name", "x\udcff"]]
)
def test_a_name_that_is_no_text_is_one_line(arguments, tmp_path, monkeypatch, capsys):
    (tmp_path / "adapter_config.json").touch()
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--url", "http://127.0.0.1:1"]) == 1
    said = capsys.readouterr().err
    assert r"'x\udcff'" in said and said.count("\n") == 1


def test_a_file_whose_name_is_no_text_is_one_line(tmp_path, capsys):
    (tmp_path / "x\udcff.png").touch()
    assert main(["push", str(tmp_path), "--name", "x", "--url", "http://127.0.0.1:1"]) == 1
    said = capsys.readouterr().err
    assert r"x\udcff.png" in said and "cannot be sent" in said and said.count("\n") == 1


def test_a_directory_whose_name_is_no_text_is_pushed(tmp_path, capsys):
    directory = tmp_path / "x\udcff"
    directory.mkdir()
    (directory / "adapter_config.json").touch()
    with answering(201, json.dumps(RECORD).encode()) as (url, _):
        assert main(["push", str(directory), "--name", "x", "--url", url]) == 0
    assert r"x\udcff is served as x@1" in capsys.readouterr().out


@pytest.mark.parametrize("target", ["nowhere", "folder"])
def test_a_link_that_would_be_left_out_is_named(target, tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    directory = tmp_path / "adapter"
    directory.mkdir()
    (directory / "adapter_config.json").touch()
    (directory / "1_Pooling").symlink_to(tmp_path / target)
    assert main(["push", str(directory), "--name", "x", "--url", "http://127.0.0.1:1"]) == 1
    said = capsys.readouterr().err
    assert f"{directory}/1_Pooling is a link" in said and said.count("\n") == 1


def test_a_name_that_is_taken_is_replaced_by_a_flag(tmp_path, capsys):
    (tmp_path / "adapter_config.json").touch()
    with answering(409, b'{"error": "it exists already: send If-Match, or ?replace=true"}') as (url, _):
        assert main(["push", str(tmp_path), "--name", "x", "--url", url]) == 1
    assert "409: it exists already" in (said := capsys.readouterr().err) and "--replace" in said


@pytest.mark.parametrize("adapters", [1, 1000])  # fewer than a buffer, and more
@pytest.mark.parametrize(("gone", "says"), [(True, ""), (False, "lorat: [Errno 28] No space left on device\n")])
def test_output_that_cannot_be_written_is_one_line_and_a_reader_that_has_gone_none(gone, says, adapters):
    page = json.dumps({"adapters": [RECORD] * adapters, "next": None}).encode()
    reader, writer = os.pipe()
    os.close(reader)
    with answering(200, page) as (url, _), open(writer, "wb") as pipe, open("/dev/full", "wb", buffering=0) as full:
        command = [sys.executable, "-m", "app", "list", "--url", url]
        done = subprocess.run(command, stdout=pipe if gone else full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, says)


@pytest.mark.parametrize(
    ("status", "path", "body", "says"),
    [
        (401, "", b'{"error": "send a key"}', "401: send a key (here: --key, or LORAT_KEY)"),
        (404, "/v1", b'{"error": {"message": "Not Found", "code": null}}', "404: Not Found (here: --url without '/v1'"),
        (404, "", b'{"error": "there is no adapter"}', "404: there is no adapter\n"),
    ],
)
def test_a_refusal_says_what_to_change_on_the_command_line(status, path, body, says, capsys):
    with answering(status, body) as (url, _):
        assert main(["list", "--url", url + path]) == 1
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "headers", "calls"),
    [
        (429, (("Retry-After", "0"),), 21),
        (503, (("Retry-After", "0"),), 21),
        (429, (("Retry-After", "86400"),), 1),
        (503, (), 1),
        (500, (("Retry-After", "0"),), 1),
    ],
)
def test_a_server_without_room_is_asked_again_when_it_says_but_not_for_ever(status, headers, calls):
    with answering(status, b'{"error": "no room"}', headers) as (url, asked):
        client = Client(url)
        with client, pytest.raises(ServerError, match=f"{status}: no room"):
            client.infer("/embed", "x", ["a"])
    assert len(asked) == calls


def test_a_misspelt_variable_is_refused_before_anything_is_sent(monkeypatch, capsys):
    monkeypatch.setenv("LORAT_ULR", "http://127.0.0.1:1")
    with answering(200, b"{}") as (url, asked):
        assert main(["list", "--url", url]) == 1
    assert asked == [] and "LORAT_ULR is no setting: did you mean LORAT_URL?" in capsys.readouterr().err


def test_a_server_that_is_no_lorat_has_no_base():
    with answering(200, b'{"model_id": "x"}') as (url, _):
        client = Client(url)
        with client, pytest.raises(ServerError, match="not as LoRAT does"):
            client.require_base("0" * 64, None)


def test_a_directory_of_too_many_files_is_not_opened(tmp_path, capsys):
    for number in range(65):
        (tmp_path / f"{number}.png").touch()
    assert main(["push", str(tmp_path), "--name", "x", "--url", "http://127.0.0.1:1"]) == 1
    assert "more than 64 files" in capsys.readouterr().err
