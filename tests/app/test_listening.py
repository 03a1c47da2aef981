"""Addresses that are taken before a server listens on them."""

import socket

import pytest

from app.listening import bind, listen
from lorat.errors import ConfigError


def test_what_is_bound_refuses_connections_until_it_is_listened_on() -> None:
    (listener,) = bind("127.0.0.1", 0)
    with listener, pytest.raises(ConnectionRefusedError):
        socket.create_connection(listener.getsockname())
    (listener,) = bind("127.0.0.1", 0)
    with listener:
        listen([listener], 1)
        socket.create_connection(listener.getsockname()).close()


def test_of_two_that_are_bound_to_one_port_the_second_to_listen_is_told() -> None:
    (first,) = bind("127.0.0.1", 0)
    port = first.getsockname()[1]
    (second,) = bind("127.0.0.1", port)
    with first, second:
        listen([first], 1)
        with pytest.raises(ConfigError, match=f"LORAT_PORT {port}"):
            listen([second], 1)
        with pytest.raises(ConfigError, match=f"LORAT_PORT {port}"):
            bind("127.0.0.1", port)
