"""`X-Request-Id`, and answers to errors that nobody expected."""

import logging
import re
import socket

import pytest

from app.main import create_app
from tests.app.conftest import upload

FRESH = re.compile("[0-9a-f]{32}")
HARMLESS = ["a", "7f3d-42", "~!#$%&()*+,-./:;<=>?@[]^_`{|}\\", "x" * 128]
HARMFUL = ["", "x" * 129, "a b", 'a"b', "a'b", "a\tb", "é", "a\xa0b"]


def ask(client, id, path="/health"):
    """By hand: clients refuse to send some of these."""
    with socket.create_connection((client.base_url.host, client.base_url.port), 30) as connection:
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-Id: "
        connection.sendall(head.encode() + id.encode("latin-1") + b"\r\n\r\n")
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return re.search(rb"x-request-id: (.*?)\r\n", answer)[1].decode()


@pytest.mark.parametrize("id", HARMLESS)
def test_a_harmless_id_is_kept(server, id):
    assert ask(server, id) == id


@pytest.mark.parametrize("id", HARMFUL)
def test_another_is_replaced(server, id):
    assert FRESH.fullmatch(ask(server, id))


def test_every_answer_has_one_and_each_its_own(server, tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    answers = [
        server.get("/health"),
        server.get("/metrics"),
        server.get("/docs"),
        server.get("/adapters/nobody"),
        server.get("/nowhere"),
        server.put("/embed"),
        server.post("/embed", json={"inputs": "a"}),
        server.post("/embed", json={"inputs": []}),
        server.post("/embed", json={"nothing": 1}),
        server.post("/embed", content=b"a" * (9 << 20)),
        upload(server, "a", tmp_path),
    ]
    statuses = [answer.status_code for answer in answers]
    assert statuses == [200, 200, 200, 404, 404, 405, 200, 400, 422, 413, 422]
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert all(map(FRESH.fullmatch, ids)) and len(set(ids)) == len(ids)


def test_a_500_has_the_id_and_its_log_line_names_it(serve, caplog):
    client = serve()
    client.post("/embed", json={"inputs": "a"}).raise_for_status()
    service = client.app.state.service
    del service.usage, service.fingerprint  # what no request should ever meet
    with caplog.at_level(logging.ERROR):
        answer = client.post("/embed", json={"inputs": "a"}, headers={"X-Request-Id": "the-one"})
    assert answer.status_code == 500 and answer.json()["error_type"] == "Backend"
    assert answer.headers["x-request-id"] == "the-one"
    [record] = [record for record in caplog.records if record.exc_info]
    assert record.getMessage() == "unexpected error at /embed"
    text = client.get("/metrics").text
    assert 'lorat_requests_total{method="POST",route="/embed",status="500"} 1.0' in text
    assert 'lorat_refusals_total{reason="unexpected"} 1.0' in text


def test_an_app_without_a_server_answers_too():
    assert create_app().state.traces is None
