"""Bodies over the limits: counted by the route that was asked, with the reasons that docs/operations.md names."""

import socket

import pytest


def pieces():
    """A body without a declared length."""
    yield b" " * 600
    yield b" " * 600


@pytest.fixture(scope="module")
def client(serve):
    return serve(max_body_bytes=1000, body_timeout_seconds=0.3)


def counted(client):
    """How many requests of `/embed` by status, and refusals by reason."""
    lines = [line.rpartition(" ") for line in client.get("/metrics").text.splitlines()]
    kinds = ('lorat_requests_total{method="POST",route="/embed"', "lorat_refusals_total{")
    return {name: float(count) for name, _, count in lines if name.startswith(kinds)}


@pytest.mark.parametrize("content", [b" " * 1001, pieces()], ids=["declared", "sent"])
def test_a_large_body_is_counted(client, content):
    requests = 'lorat_requests_total{method="POST",route="/embed",status="413"}'
    refusals = 'lorat_refusals_total{reason="too_large"}'
    before = counted(client)
    answer = client.post("/embed", content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error_type"]) == (413, "TooLarge")
    after = counted(client)
    for name in (requests, refusals):
        assert after[name] == before.get(name, 0) + 1


def test_a_slow_body_is_counted(client):
    head = b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    with socket.create_connection((client.base_url.host, client.base_url.port)) as slow:
        slow.sendall(head)
        assert slow.recv(100).startswith(b"HTTP/1.1 408")
    after = counted(client)
    assert after['lorat_requests_total{method="POST",route="/embed",status="408"}'] == 1
    assert after['lorat_refusals_total{reason="slow_body"}'] == 1


def test_a_large_body_for_no_route_has_none(client):
    assert client.post("/nowhere", content=b" " * 1001).status_code == 413
    text = client.get("/metrics").text
    assert 'lorat_requests_total{method="POST",route="none",status="413"} 1.0' in text
