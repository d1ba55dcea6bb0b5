"""When a program of the stack does its job, and in whose words it says that it cannot."""

import http.client
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from ssmd.errors import (
    EXIT_CONFIG,
    EXIT_DONE,
    EXIT_REFUSED,
    EXIT_UNAVAILABLE,
    ConfigError,
    FatalError,
    RefusedError,
    SsmdError,
    Unavailable,
)
from ssmd.local.home import Home
from ssmd.local.plan import Address, service_of
from ssmd.local.ports import Listener
from ssmd.local.supervisord import Control, ProgramState, tail
from ssmd.service_state import PlannedStop, read_planned, read_state, troubles_of

_CLASSES: dict[int, type[SsmdError]] = {
    EXIT_CONFIG: ConfigError,
    EXIT_REFUSED: RefusedError,
    EXIT_UNAVAILABLE: Unavailable,
}
_ENDED = ("EXITED", "FATAL")
_MAX_STARTS = 2
"""So often a service may end with an unexpected code before `ssmd up` gives up on it."""


def failure(state: ProgramState, home: Home) -> SsmdError:
    """The error of a program that ended, in its own words and with its own exit code where it left them."""
    said = read_state(home.root, state.name)
    log = home.log / f"{state.name}.err.log"
    if said is not None and said.state == "failed" and said.error:
        kind = _CLASSES.get(said.exit_code or 0, FatalError)
        return kind(f"{state.name}: {said.error}", said.hint or f"Read {log}")
    words = last_words(log) or last_words(home.log / f"{state.name}.log") or state.problem or "it said nothing"
    kind = _CLASSES.get(state.exit_code, FatalError) if state.state == "EXITED" else FatalError
    return kind(f"{state.name} ended (exit code {state.exit_code}): {words}", f"Read {log}")


def last_words(log: Path) -> str:
    """The last two lines of a log, as people read them: of a line in JSON the event and its error."""
    return " | ".join(_words(line) for line in tail(log, 2).split(" | ") if line)


def _words(line: str) -> str:
    try:
        said = msgspec.json.decode(line)
    except msgspec.MsgspecError:
        return line
    if not isinstance(said, dict) or not said.get("event"):
        return line
    return ": ".join(str(said[key]) for key in ("event", "error") if said.get(key))


def stop_order(state: ProgramState, home: Home) -> PlannedStop | None:
    """The order by which a program that does not run was stopped; None when it has another reason to be at rest."""
    planned = read_planned(home.root, state.name, state.stopped)
    ordered = state.state in ("STOPPED", "EXITED") and state.exit_code == 0
    return planned if planned is not None and planned.then is None and ordered else None


def await_service(
    name: str, control: Control, home: Home, pause: Callable[[float], None], deadline: float
) -> dict[str, Any]:
    """Wait until a service does its job; its health.

    After `deadline` (monotonic seconds) the last health is returned as it is; its `status` says what is missing, and
    the service goes on trying by itself. Raises the service's error when it has ended for good.
    """
    health: dict[str, Any] = {"status": "starting"}
    pids: set[int] = set()
    while True:
        state = control.states()[name]
        final = state.state == "FATAL" or (state.state == "EXITED" and state.exit_code in (EXIT_DONE, EXIT_CONFIG))
        if final or (state.state == "EXITED" and len(pids) >= _MAX_STARTS):
            raise failure(state, home)
        if state.pid:
            pids.add(state.pid)
            health = service_health(home, name, state.pid) or health
        if works(name, health) or time.monotonic() > deadline:
            return health
        pause(0.05)


def works(name: str, health: dict[str, Any]) -> bool:
    """Does it do its job? A connector that receives and a gateway that serves do, whatever is missing beside."""
    status, service = health.get("status"), service_of(name)
    return (
        status == "ok"
        or (service == "connector" and bool(health.get("connected")))
        or (service == "gateway" and status == "degraded")
    )


def summary(name: str, health: dict[str, Any]) -> str:
    """The few numbers of a health answer that people look for first."""
    said = {
        "connector": (("frames", "frame{s}"), ("tickers", "ticker{s}"), ("gaps", "gap{s}")),
        "archiver": (("taken_seq", "message{s} taken"), ("acked_seq", "archived")),
        "gateway": (("clients", "client{s}"),),
    }.get(service_of(name), ())
    words = [
        f"{health[key]:,} {word.format(s='' if health[key] == 1 else 's')}"
        for key, word in said
        if isinstance(health.get(key), int)
    ]
    if health.get("role") == "standby":
        words.append("standby")
    return " · ".join(part for part in (", ".join(words), "; ".join(troubles_of(health))) if part)


def service_health(home: Home, name: str, pid: int) -> dict[str, Any] | None:
    """What a service's admin endpoint says now; None when the process `pid` has none (yet)."""
    state = read_state(home.root, name)
    if state is None or state.pid != pid or not state.port:
        return None
    return fetch_health(Address(state.host, state.port))


def fetch_health(address: Address) -> dict[str, Any] | None:
    """GET /health of an admin endpoint; None when it does not answer."""
    link = http.client.HTTPConnection(address.host, address.port, timeout=2.0)
    try:
        link.request("GET", "/health")
        answer = msgspec.json.decode(link.getresponse().read())
    except (OSError, http.client.HTTPException, msgspec.MsgspecError):
        return None
    finally:
        link.close()
    return answer if isinstance(answer, dict) else None


def await_server(
    name: str, ready: Callable[[], bool], control: Control, home: Home, pause: Callable[[float], None]
) -> None:
    """Wait until `ready` says so; the server's own last words as an error when it keeps ending, or after 30 s."""
    deadline = time.monotonic() + 30.0
    while not ready():
        state = control.states()[name]
        failed_twice = state.state == "BACKOFF" and time.monotonic() > deadline - 26.0
        if state.state in _ENDED or failed_twice:
            raise failure(state, home)
        if time.monotonic() > deadline:
            raise Unavailable(f"{name} is not ready after 30 s", f"Read {home.log / name}.log and .err.log")
        pause(0.03)


def answers(address: Address) -> bool:
    """Does something accept connections there?"""
    try:
        socket.create_connection(address, timeout=1.0).close()
    except OSError:
        return False
    return True


def require_answer(listener: Listener) -> None:
    """A server that is not ours to start must be there; Unavailable otherwise."""
    try:
        socket.create_connection((listener.host, listener.port), timeout=5.0).close()
    except OSError as error:
        raise Unavailable(
            f"{listener.program} at {listener.host}:{listener.port} ({listener.setting}) does not answer: {error}",
            "`ssmd up` starts servers on loopback addresses only: start this one yourself, or correct the address.",
        ) from error


def require_writable(folder: Path) -> None:
    """Make the storage's folder and write into it; ConfigError otherwise."""
    probe = folder / ".ssmd-write-test"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"ssmd")
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"the storage folder {folder} (spec.middleware.storage.path) cannot be written: {error.strerror}",
            "Make it writable, free some space, or change the path.",
        ) from error
