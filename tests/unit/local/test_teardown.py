"""Stopping: the order, what resists, and what outlived supervisord."""

import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssmd.local import teardown
from ssmd.local.home import Home, StackRecord
from ssmd.local.processes import MARK, ProcessId, identify
from ssmd.local.progress import Progress
from ssmd.local.teardown import down, stop_stack
from tests.fakes.supervisord import FakeSupervisord

PROGRAMS = ["postgres", "nats", "simulator", "connector", "archiver", "gateway"]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.prepare()
    return home


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeSupervisord]:
    with FakeSupervisord(tmp_path / "s.sock", "secret", PROGRAMS) as fake:
        for name in PROGRAMS:
            fake.states[name] = "RUNNING"
        yield fake


def record(fake: FakeSupervisord, mark: str = "no process has this mark", up: ProcessId | None = None) -> StackRecord:
    return StackRecord(mark, "local", "local.yaml", str(fake.path), "secret", fake.identity, PROGRAMS, {}, up)


def test_everything_stops_in_order_and_is_forgotten(home: Home, fake: FakeSupervisord) -> None:
    home.write_record(record(fake))
    said = io.StringIO()

    assert down(home, Progress(said)) is True

    expected = ["connector", "archiver", "gateway", "simulator", "nats", "postgres"]
    assert fake.orders == [f"stop {name}" for name in expected] + ["shutdown"]
    assert [line.split()[1] for line in said.getvalue().splitlines()] == expected
    assert home.read_record() is None


def test_nothing_running_is_no_error(home: Home) -> None:
    assert down(home, Progress(io.StringIO())) is False


def test_what_is_at_rest_is_not_told_to_stop(home: Home, fake: FakeSupervisord) -> None:
    fake.states |= {"connector": "EXITED", "nats": "FATAL"}

    stop_stack(home, record(fake), Progress(io.StringIO()))

    assert "stop connector" not in fake.orders
    assert "stop nats" not in fake.orders
    assert fake.orders[-1] == "shutdown"


def test_one_that_resists_is_killed_when_its_time_is_over(
    home: Home, fake: FakeSupervisord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teardown, "_STOP_LIMIT_S", 0.1)
    child = subprocess.Popen(["sleep", "600"])
    fake.stubborn.add("archiver")
    fake.pids["archiver"] = child.pid
    said = io.StringIO()

    def hurry() -> bool:
        if child.poll() is not None:
            fake.states["archiver"] = "STOPPED"  # as supervisord would see
        return False

    stop_stack(home, record(fake), Progress(said), hurry)

    assert child.wait() == -9
    assert "killed" in said.getvalue()
    assert fake.orders[-1] == "shutdown"


def test_what_outlived_supervisord_is_found_by_its_mark(home: Home, fake: FakeSupervisord) -> None:
    mark = f"left-{os.getpid()}"
    child = subprocess.Popen(["sleep", "600"], env={MARK: mark, "PATH": os.environ["PATH"]})
    stranger = subprocess.Popen(["sleep", "600"], env={MARK: "another stack", "PATH": os.environ["PATH"]})
    left = record(fake, mark)
    fake.shutdown()
    left.supervisord.wait(5.0)
    home.write_record(left)
    fake.orders.clear()
    try:
        assert down(home, Progress(io.StringIO())) is True

        assert identify(child.pid) is None or child.poll() is not None
        assert stranger.poll() is None
        assert fake.orders == []
        assert home.read_record() is None
    finally:
        stranger.kill()
        stranger.wait()
        child.returncode = -15


def test_an_up_that_watches_is_asked_first(home: Home, fake: FakeSupervisord) -> None:
    up = subprocess.Popen(["sleep", "600"])
    home.write_record(record(fake, up=identify(up.pid)))
    said = io.StringIO()

    assert down(home, Progress(said)) is True

    assert f"asking `ssmd up` (process {up.pid})" in said.getvalue()
    process = identify(up.pid)
    assert process is None or not process.alive
    up.returncode = -15
