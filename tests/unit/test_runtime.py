"""Running one service: signals, drain, failures and what they become."""

import asyncio
import gc
import json
import os
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from ssmd import runtime
from ssmd.errors import ConfigError, DataError, Unavailable
from ssmd.runtime import OpenService, root_cause, run_service
from ssmd.service_state import read_state
from ssmd.telemetry import configure_logging


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    yield
    gc.unfreeze()


def stop_us(sign: signal.Signals = signal.SIGTERM) -> None:
    os.kill(os.getpid(), sign)


class Played:
    """A service whose life is a coroutine function; `drained` is set when it was told to stop and returned."""

    def __init__(self, life: Callable[["Played", asyncio.Event], Any]) -> None:
        self.life = life
        self.status = "ok"
        self.drained = False

    async def run(self, stop: asyncio.Event) -> None:
        await self.life(self, stop)
        self.drained = True

    def health(self) -> dict[str, object]:
        return {"status": self.status, "frames": 7}


async def until_told(service: Played, stop: asyncio.Event) -> None:
    stop_us()
    await stop.wait()


def opening(service: Played) -> OpenService:
    async def open_service(_stack: AsyncExitStack) -> Played:
        return service

    return open_service


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT], ids=lambda sign: sign.name)
def test_a_signal_drains_the_service_and_ends_with_0(sign: signal.Signals, tmp_path: Path) -> None:
    async def life(_service: Played, stop: asyncio.Event) -> None:
        stop_us(sign)
        await stop.wait()
        state = read_state(tmp_path, "played")
        assert state is not None
        await asyncio.sleep(0)

    service = Played(life)

    assert run_service("played", opening(service), tmp_path) == 0
    assert service.drained
    state = read_state(tmp_path, "played")
    assert state is not None
    assert (state.state, state.exit_code, state.pid) == ("stopped", 0, os.getpid())


def test_what_was_opened_is_closed_after_the_drain(tmp_path: Path) -> None:
    order: list[str] = []

    async def life(_service: Played, stop: asyncio.Event) -> None:
        await until_told(_service, stop)
        order.append("drained")

    async def open_service(stack: AsyncExitStack) -> Played:
        stack.callback(order.append, "closed")
        return Played(life)

    assert run_service("played", open_service, tmp_path) == 0
    assert order == ["drained", "closed"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("no key", "Run: ssmd key set"), 2),
        (Unavailable("nobody there"), 7),
        (ExceptionGroup("tasks", [ValueError("x"), ExceptionGroup("inner", [ConfigError("no key")])]), 2),
    ],
    ids=["ours", "outside", "in a group"],
)
def test_a_failure_ends_with_its_own_code_and_says_why(
    error: Exception, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def life(_service: Played, _stop: asyncio.Event) -> None:
        raise error

    assert run_service("played", opening(Played(life)), tmp_path) == code
    state = read_state(tmp_path, "played")
    assert state is not None
    cause = root_cause(error)
    assert (state.state, state.exit_code, state.error) == ("failed", code, str(cause).splitlines()[0])
    assert state.error in capsys.readouterr().err


def test_a_bug_is_one_line_for_people_and_a_traceback_in_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def life(_service: Played, _stop: asyncio.Event) -> None:
        raise KeyError("oops")

    configure_logging("played")

    assert run_service("played", opening(Played(life)), tmp_path) == 70
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    assert "This is a bug in ssmd: KeyError: 'oops'" in err
    logged = [json.loads(line) for line in out.splitlines()]
    assert any("Traceback" in line.get("exception", "") for line in logged)
    assert all(line["component"] == "played" for line in logged)


def test_a_service_that_ends_by_itself_has_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def life(_service: Played, _stop: asyncio.Event) -> None:
        return

    assert run_service("played", opening(Played(life)), tmp_path) == 1
    assert "without being told to" in capsys.readouterr().err


def test_a_signal_while_it_is_opened_ends_it_at_once(tmp_path: Path) -> None:
    async def open_service(_stack: AsyncExitStack) -> Played:
        stop_us()
        await asyncio.sleep(3600)
        raise AssertionError("not reached")

    assert run_service("played", open_service, tmp_path) == 0


async def never_drains(_service: Played, stop: asyncio.Event) -> None:
    stop_us()
    await stop.wait()
    await asyncio.sleep(3600)


def test_a_drain_that_takes_too_long_is_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "DRAIN_S", 0.05)

    assert run_service("played", opening(Played(never_drains)), tmp_path) == 1


def test_a_second_signal_does_not_wait_for_the_drain(tmp_path: Path) -> None:
    async def life(_service: Played, stop: asyncio.Event) -> None:
        stop_us()
        await stop.wait()
        stop_us()
        await asyncio.sleep(3600)

    assert run_service("played", opening(Played(life)), tmp_path) == 1


def ask(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_the_admin_port_tells_health_and_metrics(tmp_path: Path) -> None:
    answers: dict[str, tuple[int, str]] = {}

    async def life(service: Played, stop: asyncio.Event) -> None:
        state = read_state(tmp_path, "played")
        assert state is not None
        answers["well"] = await asyncio.to_thread(ask, state.port, "/health")
        service.status = "degraded"
        answers["unwell"] = await asyncio.to_thread(ask, state.port, "/health")
        answers["metrics"] = await asyncio.to_thread(ask, state.port, "/metrics")
        await until_told(service, stop)

    assert run_service("played", opening(Played(life)), tmp_path) == 0
    assert answers["well"][0] == 200
    assert json.loads(answers["well"][1]) == {
        "service": "played", "state": "running", "pid": os.getpid(), "status": "ok", "frames": 7,
    }  # fmt: skip
    assert answers["unwell"][0] == 503
    assert answers["metrics"][0] == 200
    assert "ssmd_connector_messages_received_total" in answers["metrics"][1]


def test_a_taken_admin_port_is_replaced_by_a_free_one(tmp_path: Path) -> None:
    seen: list[int] = []

    async def life(service: Played, stop: asyncio.Event) -> None:
        state = read_state(tmp_path, "played")
        assert state is not None
        seen.append(state.port)
        assert (await asyncio.to_thread(ask, state.port, "/health"))[0] == 200
        await until_told(service, stop)

    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen(1)
        taken = holder.getsockname()[1]

        assert run_service("played", opening(Played(life)), tmp_path, "127.0.0.1", taken) == 0
    assert seen
    assert seen[0] not in (0, taken)


def test_a_home_that_cannot_be_written_does_not_end_the_service(tmp_path: Path) -> None:
    home = tmp_path / "file"
    home.write_text("in the way")

    assert run_service("played", opening(Played(until_told)), home) == 0


@pytest.mark.parametrize(("supervised", "pauses"), [(True, [3.0]), (False, [])], ids=["supervised", "by hand"])
def test_a_young_failure_under_a_supervisor_leaves_slowly(
    supervised: bool, pauses: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("ssmd.runtime.time.sleep", slept.append)
    if supervised:
        monkeypatch.setenv(runtime.SUPERVISED, "mark")
    else:
        monkeypatch.delenv(runtime.SUPERVISED, raising=False)

    async def life(_service: Played, _stop: asyncio.Event) -> None:
        raise DataError("broken")

    assert run_service("played", opening(Played(life)), tmp_path) == 1
    assert slept == pauses
