"""Log lines on a real logger, and of a real process: one record a line, whatever strangers write; no secret."""

import io
import json
import logging
import re
import signal
import socket
import unicodedata
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.observe.exchange import Exchange, begin
from app.observe.logs import JsonLines, TextLines
from tests.app.conftest import process, upload
from tests.oracle import make_peft

HEAD = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00 (DEBUG|INFO|WARNING|ERROR) [!-~]+ ")
FORGERY = "a\n2026-01-01T00:00:00.000+00:00 ERROR - forged\r\x1b[2Jb\u2028c\u2029d\x85e\x0bf\x9b31mg\x7fh\u202ei\ud800"
WRITTEN = st.one_of(st.just(FORGERY), st.text(st.characters(codec=None), max_size=40))


@contextmanager
def logger(formatter):
    """A logger of its own, and what it wrote."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(formatter)
    made = logging.Logger("lorat.test")
    made.addHandler(handler)
    yield made, written


def write(made, text):
    """Three records with a stranger's text in every place that takes one."""
    made.warning("adapter %s is damaged", text)
    made.info("request", extra={"fields": {"route": text, "adapter": text, "status": 200}})
    try:
        raise ValueError(text)
    except ValueError:
        made.exception("unexpected error at %s", text)


def unprintable(text):
    return [char for char in text if char != "\n" and unicodedata.category(char)[0] in "CZ" and char != " "]


@given(WRITTEN)
def test_text_lines_cannot_be_forged(text):
    with logger(TextLines()) as (made, written):
        write(made, text)
    lines = written.getvalue().split("\n")[:-1]
    assert not unprintable(written.getvalue())
    heads = [line for line in lines if not line.startswith("    ")]
    assert len(heads) == 3 and all(map(HEAD.match, heads))
    assert re.fullmatch(r"(?:[^ \"]+|\"(?:[^\"\\]|\\.)*\"| )+", heads[1].partition("request ")[2]), "fields are quoted"
    assert heads[1].endswith(" status=200") and heads[1].count(" status=200") >= 1
    assert any("Traceback" in line for line in lines)


@given(WRITTEN)
def test_json_lines_cannot_be_forged_and_read_back_as_they_were(text):
    with logger(JsonLines()) as (made, written):
        write(made, text)
    assert all(" " <= char <= "~" or char == "\n" for char in written.getvalue())
    damaged, request, unexpected = map(json.loads, written.getvalue().split("\n")[:-1])
    assert damaged["message"] == f"adapter {text} is damaged" and damaged["level"] == "warning"
    assert (request["route"], request["adapter"], request["status"]) == (text, text, 200)
    assert unexpected["exception"].startswith("Traceback") and unexpected["logger"] == "lorat.test"


def test_a_value_cannot_pose_as_another_field():
    with logger(TextLines()) as (made, written):
        made.info("request", extra={"fields": {"adapter": 'x status=500 "', "tokens": 3}})
    assert written.getvalue().endswith('request adapter="x status=500 \\"" tokens=3\n')


@pytest.mark.parametrize("formatter", [TextLines(), JsonLines()])
def test_a_line_names_the_request_under_way(formatter):
    import contextvars

    with logger(formatter) as (made, written):
        contextvars.copy_context().run(lambda: (begin(Exchange("abc-1")), made.info("one")))
        made.info("two")
    first, second = written.getvalue().splitlines()
    assert "abc-1" in first and "abc-1" not in second


KEYS = {"LORAT_API_KEY": "opens-inference-1f0c", "LORAT_ADMIN_KEY": "opens-everything-77ab"}
TEAM = "opens-a-teams-58e2"


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_server_s_lines_are_of_one_form_and_hold_no_secret(form, tiny_path, tmp_path, monkeypatch):
    for name, key in KEYS.items():
        monkeypatch.setenv(name, key)
    monkeypatch.setenv("LORAT_ADMIN_KEY", f"{KEYS['LORAT_ADMIN_KEY']},{TEAM}:team-*")
    monkeypatch.setenv("LORAT_TRACE_ENDPOINT", "http://user:hidden-word@127.0.0.1:9/v1/traces")
    flags = ("--demo", "0", "--log-format", form, "--access-log", "1", "--log-level", "debug")
    adapter = make_peft(tiny_path, tmp_path / "adapter", r=2)
    answers = []
    with process(tmp_path / "store", *flags, base=tiny_path) as (server, client):
        admin = {"Authorization": f"Bearer {KEYS['LORAT_ADMIN_KEY']}", "X-Request-Id": "upload-1"}
        assert upload(client, "a", adapter.directory, headers=admin).status_code == 201
        for key in (*KEYS.values(), "wrong-key-90d1", "none"):
            headers = {"Authorization": f"Bearer {key}", "X-Request-Id": f"asked-{len(answers)}"}
            embed = ("/embed?adapter=a", "/embed?adapter=no%0Aone", f"/embed?adapter=a&api_key={key}")
            for url in (*embed, f"/no%1B[2J%0Awhere?{key}"):
                answers.append(client.post(url, json={"inputs": "hello"}, headers=headers))
        for url in ("/adapters", "/no%1B[2J%0Awhere"):
            answers.append(client.post(url, headers={"Authorization": f"Bearer {TEAM}"}))
        headers = {"Authorization": f"Bearer {KEYS['LORAT_API_KEY']}", "X-Request-Id": "wrong-shape"}
        answers += [
            client.post("/classify", json={"input": "a"}, headers=headers),
            client.put("/classify", headers=headers),
        ]
        headers = {"Authorization": f"Bearer {KEYS['LORAT_API_KEY']}", "X-Request-Timeout": "x"}
        answers.append(client.post("/embed", content=b"\xff", headers=headers))
        with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
            connection.sendall(f"POST /embed HTTP/9.9\r\nAuthorization: {headers['Authorization']}\r\n\r\n".encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 400")
        upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Authorization": headers["Authorization"]}
        assert client.get("/info", headers=upgrade).status_code == 200
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
        lines = server.stderr.read().decode().partition("nanobind: leaked")[0].splitlines()  # triton's, after Python
    written = "\n".join(lines)
    for secret in (*KEYS.values(), TEAM, "wrong-key-90d1", "hidden-word"):
        assert secret not in written
        assert not any(secret in answer.text for answer in answers)
    assert not unprintable(written)
    if form == "json":
        entries = [json.loads(line) for line in lines]
        assert {entry["logger"] for entry in entries} >= {"lorat", "lorat.access", "uvicorn.error"}
        requests = [entry for entry in entries if entry["logger"] == "lorat.access" and entry["route"] == "/embed"]
        assert [entry["status"] for entry in requests] == [200, 404, 422] * 2 + [401] * 6 + [422]
        first = requests[0]
        assert (first["adapter"], first["tokens"], first["method"], first["client"]) == ("a@1", 3, "POST", "127.0.0.1")
        assert first["request_id"] == "asked-0" and first["ms"] > first["inference_ms"] > 0 and first["inputs"] == 1
        assert [entry.get("key") for entry in requests] == ["api-0"] * 3 + ["admin-0"] * 3 + [None] * 6 + ["api-0"]
        assert requests[1]["adapter"] == "no\none" and requests[1]["reason"] == "unknown_adapter"
        shapes = [entry for entry in entries if entry["request_id"] == "wrong-shape"]
        assert [(entry["status"], entry["reason"]) for entry in shapes] == [(422, "http_422"), (405, "http_405")]
        assert {entry["path"] for entry in entries if entry.get("route") == "none"} == {"/no\x1b[2J\nwhere"}
    else:
        assert all(line.startswith("    ") or HEAD.match(line) for line in lines)
        first, *_ = [line for line in lines if " asked-0 " in line and "route=/embed" in line]
        assert re.search(
            r"INFO asked-0 request method=POST route=/embed status=200 ms=[\d.]+ client=127.0.0.1 adapter=a@1 tokens=3 "
            r"inputs=1 queue_ms=[\d.]+ inference_ms=[\d.]+ key=api-0 trace=[0-9a-f]{32}$",
            first,
        )
    [started] = [line for line in lines if "LoRAT 0" in line]
    for fact in (
        "cpu",
        "float32",
        str(tmp_path / "store"),
        *(["api_keys=1", "admin_keys=2"] if form == "text" else []),
    ):
        assert fact in started
    assert not any("pgrade" in line or "pip install" in line for line in lines)
    for said in ("Application startup complete", "listening on http://127.0.0.1:"):
        assert any(said in line for line in lines)
    assert "forward" in written  # what only debug says
