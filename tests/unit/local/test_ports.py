"""Who holds a port, and what is said about it."""

import os
import socket
from collections.abc import Iterator

import pytest

from ssmd.config.values import is_loopback
from ssmd.errors import ConfigError
from ssmd.local.ports import Listener, free_port, holder, problem, refuse_taken


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("10.0.0.1", False),
     ("db.example", False), ("0.0.0.0", False)],
)  # fmt: skip
def test_what_is_a_loopback_address(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_a_taken_port_is_reported_with_its_holder(taken: int) -> None:
    text = problem(Listener("nats", "127.0.0.1", taken, "spec.middleware.transport.url"))

    assert f"port {taken} on 127.0.0.1, wanted by nats (spec.middleware.transport.url), is taken by" in text
    assert f"process {os.getpid()} (" in text


def test_all_taken_ports_are_named_in_one_error_with_what_to_change(taken: int) -> None:
    listeners = [
        Listener("nats", "127.0.0.1", taken, "spec.middleware.transport.url"),
        Listener("gateway", "127.0.0.1", taken, "spec.gateway.port"),
        Listener("postgres", "127.0.0.1", free_port(), "spec.database.url"),
    ]

    with pytest.raises(ConfigError) as caught:
        refuse_taken(listeners)

    assert "wanted by nats" in caught.value.message
    assert "wanted by gateway" in caught.value.message
    assert "postgres" not in caught.value.message
    assert "spec.gateway.port" in caught.value.hint


def test_free_ports_are_no_problem() -> None:
    refuse_taken([Listener("nats", "127.0.0.1", free_port(), "x")])


def test_an_address_of_another_machine_cannot_be_used() -> None:
    assert "cannot be used" in problem(Listener("gateway", "203.0.113.1", 8080, "spec.gateway.host"))


def test_nobody_holds_a_free_port() -> None:
    assert holder(free_port()) == ""
