"""Memory for large answers: reckoned as no less than they are, shared by all, free again when a client has its answer."""

import socket
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.access import connection
from app.access.answer_room import most_bytes
from app.access.connection import guarded
from app.settings import Settings
from lorat import load_base
from tests.app.conftest import running

LONG = ["word " * 510] * 256  # 16 MB of vectors with the tiny base, 48 MB as JSON
SHORT = ["word"] * 256


@pytest.fixture(scope="module")
def base(tiny_path):
    return load_base(tiny_path, device="cpu")


@given(st.lists(st.one_of(st.text(max_size=40), st.just("각힣" * 9), st.just([5, 6, 7])), min_size=1, max_size=4))
def test_a_text_has_no_more_tokens_than_are_reckoned(base, inputs):
    texts = [item for item in inputs if isinstance(item, str)]
    tokens = sum(map(len, base.encode(texts, base.recipe))) + sum(3 for item in inputs if isinstance(item, list))
    assert tokens * 32 * 4 <= most_bytes(inputs, 512, 32) <= len(inputs) * 512 * 32 * 4


def embed_all(client, inputs):
    return client.post("/embed_all", json={"inputs": inputs})


def until(check):
    end = time.monotonic() + 60
    while not check():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


def ask_and_read_nothing(client, path, body):
    """A connection that has sent a request, and does not take the answer."""
    unread = socket.socket()
    unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    unread.connect((client.base_url.host, client.base_url.port))
    request = client.build_request("POST", path, json=body)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(request.content)}"
    )
    unread.sendall(head.encode() + b"\r\n\r\n" + request.content)
    return unread


def test_large_answers_share_the_memory_and_small_ones_always_find_some(serve):
    client = serve(max_embed_all_bytes=20 << 20, max_queue_seconds=600)
    with ask_and_read_nothing(client, "/embed_all", {"inputs": LONG}):
        until(lambda: embed_all(client, LONG).status_code == 429)
        refused = embed_all(client, LONG)
        assert "max_embed_all_bytes" in refused.json()["error"] and int(refused.headers["retry-after"]) >= 1
        assert embed_all(client, SHORT).status_code == 200
        assert client.post("/embed", json={"inputs": LONG}).status_code == 200
    until(lambda: embed_all(client, LONG).status_code == 200)


def test_an_answer_that_would_never_fit_says_so(serve):
    client = serve(max_embed_all_bytes=15 << 20)
    refused = embed_all(client, LONG)
    assert (refused.status_code, refused.json()["error_type"]) == (422, "Validation")
    assert "max_embed_all_bytes" in refused.json()["error"]
    assert embed_all(client, LONG[:200]).status_code == 200


@pytest.mark.parametrize(("path", "inputs"), [("/embed_all", LONG), ("/tokenize", ["a b " * 500] * 120)])
def test_an_answer_that_is_not_taken_is_dropped(tiny_path, tmp_path, monkeypatch, path, inputs):
    monkeypatch.setattr(connection, "LEAST_BYTES_PER_SECOND", 1 << 40)
    settings = Settings(
        base=str(tiny_path), store=str(tmp_path), demo=False, body_timeout_seconds=0.5, max_queue_seconds=600
    )
    with running(settings, http=guarded(settings)) as client:
        connections = client.server.server_state.connections
        with ask_and_read_nothing(client, path, {"inputs": inputs}):
            until(lambda: any(one.flow.write_paused for one in list(connections)))
            until(lambda: not connections)
            assert client.get("/health").status_code == 200
