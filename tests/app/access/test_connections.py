"""Slow and oversized heads and bodies, at a real server: they are ended, and nobody else waits for them."""

import json
import socket
import threading
import time
from contextlib import contextmanager

import pytest

from tests.app.conftest import process

FLAGS = [
    "--header-timeout-seconds",
    "2",
    "--body-timeout-seconds",
    "3",
    "--max-header-bytes",
    "8000",
    "--api-key",
    "k-1",
]
KEY = {"Authorization": "Bearer k-1"}
HEAD = b"POST /embed HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k-1\r\nContent-Type: application/json\r\n"
MANY = 300


@pytest.fixture(scope="module")
def client(tiny_path, tmp_path_factory):
    with process(tmp_path_factory.mktemp("store"), "--demo", "0", *FLAGS, base=tiny_path) as (_, client):
        client.headers.update(KEY)
        yield client


def connect(client):
    return socket.create_connection((client.base_url.host, client.base_url.port), timeout=15)


def answer_of(connection):
    """All that comes until the server ends it."""
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


def whole_answer(connection):
    """One answer, from a connection that goes on."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return head


def ended_after(connection):
    started = time.monotonic()
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return time.monotonic() - started


@contextmanager
def trickling(client, first, byte):
    """Many connections that send `first` and then a byte at a time; how many of them the server has ended."""
    connections = [connect(client) for _ in range(MANY)]
    for connection in connections:
        connection.sendall(first)
    stop, ended = threading.Event(), set()

    def trickle():
        while not stop.wait(0.2):
            for connection in set(connections) - ended:
                try:
                    connection.sendall(byte)
                except OSError:
                    ended.add(connection)

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        yield ended
    finally:
        stop.set()
        thread.join()
        for connection in connections:
            connection.close()


@pytest.mark.parametrize(
    ("first", "byte"),
    [
        (b"POST /embed HTTP/1.1\r\nX-Slow: ", b"a"),
        (b"", b"\r\n"),
        (HEAD + b"Content-Length: 100000\r\n\r\n", b" "),
        (b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n", b" "),  # refused, its body goes on
    ],
    ids=["head", "before the head", "body", "body of a refused request"],
)
def test_hundreds_that_send_a_byte_at_a_time_hold_up_nobody_and_are_ended(client, first, byte):
    slowest = 0.0
    with trickling(client, first, byte) as ended:
        end = time.monotonic() + 30
        while len(ended) < MANY:
            assert time.monotonic() < end, f"{len(ended)} of {MANY} were ended"
            started = time.monotonic()
            assert client.post("/embed", json={"inputs": "a"}).status_code == 200
            slowest = max(slowest, time.monotonic() - started)
            time.sleep(0.02)
    assert slowest < 2


def test_a_slow_body_is_told_so_and_its_connection_ends(client):
    with connect(client) as connection:
        connection.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
        head, _, body = answer_of(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408") and json.loads(body)["error_type"] == "Timeout"


def test_a_connection_that_says_nothing_is_ended(client):
    with connect(client) as connection:
        assert 1.5 < ended_after(connection) < 8


@pytest.mark.parametrize("whole", [True, False])
def test_a_head_over_the_limit_is_431(client, whole):
    large = b"X-Large: " + b"a" * 9000 + (b"\r\n\r\n" if whole else b"")
    with connect(client) as connection:
        connection.sendall(HEAD + large)
        assert answer_of(connection).startswith(b"HTTP/1.1 431")
    with connect(client) as connection:
        connection.sendall(HEAD + b"X-Small: " + b"a" * 7000 + b"\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        assert answer_of(connection).startswith(b"HTTP/1.1 422")


def test_many_small_lines_are_a_large_head_too(client):
    with connect(client) as connection:
        connection.sendall(HEAD + b"".join(b"X-%d: a\r\n" % number for number in range(2000)) + b"\r\n")
        assert answer_of(connection).startswith(b"HTTP/1.1 431")


def test_a_body_over_the_limit_is_413_and_the_server_goes_on(client):
    with connect(client) as connection:
        connection.sendall(HEAD + b"Content-Length: 999999999\r\n\r\n")
        assert answer_of(connection).startswith(b"HTTP/1.1 413")
    assert client.post("/embed", json={"inputs": "a"}).status_code == 200


def test_an_idle_connection_and_one_between_requests_are_used_again(client):
    with connect(client) as connection:
        for pause in (1, 2.5, 0):  # longer than the time for a head, which has not begun
            body = b'{"inputs":"a"}'
            connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            assert whole_answer(connection).startswith(b"HTTP/1.1 200")
            time.sleep(pause)


def test_a_refused_request_s_body_may_come_later_and_the_connection_is_used_again(client):
    wrong = HEAD.replace(b"k-1", b"k-2")
    with connect(client) as connection:
        for _ in range(3):
            connection.sendall(wrong + b"Content-Length: 100000\r\n\r\n")
            assert whole_answer(connection).startswith(b"HTTP/1.1 401")
            connection.sendall(b" " * 100_000)
