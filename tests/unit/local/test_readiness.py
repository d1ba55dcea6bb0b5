"""When a service does its job, and whose words are used when it does not."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from ssmd.errors import ConfigError, FatalError, Unavailable
from ssmd.local.home import Home, StackRecord
from ssmd.local.ports import Listener, free_port
from ssmd.local.readiness import (
    await_server,
    await_service,
    failure,
    require_answer,
    require_writable,
    summary,
    works,
)
from ssmd.local.supervisord import Control
from ssmd.local.survey import survey
from ssmd.service_state import ServiceState, write_state
from tests.fakes.airflow import fake_airflow
from tests.fakes.supervisord import FakeSupervisord

NAMES = ["nats", "connector", "gateway"]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.prepare()
    return home


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeSupervisord]:
    with FakeSupervisord(tmp_path / "s.sock", "secret", NAMES) as fake:
        yield fake


@pytest.fixture
def control(fake: FakeSupervisord) -> Iterator[Control]:
    control = Control(fake.path, "secret")
    yield control
    control.close()


@contextmanager
def admin(health: dict[str, Any]) -> Iterator[int]:
    """An admin endpoint that answers with `health`, whatever it is at that moment; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(health).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def state(port: int = 0, **fields: Any) -> ServiceState:
    return ServiceState("connector", 4242, fields.pop("state", "running"), "127.0.0.1", port, "", **fields)


def pause(_seconds: float) -> None:
    time.sleep(0.001)


def soon() -> float:
    return time.monotonic() + 0.05


def test_a_service_is_ready_when_it_says_so(home: Home, fake: FakeSupervisord, control: Control) -> None:
    fake.states["connector"] = "RUNNING"
    with admin({"status": "ok", "connected": True, "frames": 5}) as port:
        write_state(home.root, state(port))

        health = await_service("connector", control, home, pause, time.monotonic() + 30)

    assert health["frames"] == 5


def test_the_state_of_an_older_process_is_not_believed(home: Home, fake: FakeSupervisord, control: Control) -> None:
    fake.states["connector"] = "RUNNING"
    fake.pids["connector"] = 4243
    with admin({"status": "ok"}) as port:
        write_state(home.root, state(port))

        assert await_service("connector", control, home, pause, soon()) == {"status": "starting"}


def test_one_that_goes_on_trying_is_left_alone_after_the_deadline(
    home: Home, fake: FakeSupervisord, control: Control
) -> None:
    fake.states["connector"] = "RUNNING"
    with admin({"status": "degraded", "connected": False, "problem": "exchange away"}) as port:
        write_state(home.root, state(port))

        health = await_service("connector", control, home, pause, soon())

    assert health["problem"] == "exchange away"
    assert not works("connector", health)


def test_wrong_credentials_are_told_in_the_services_own_words(
    home: Home, fake: FakeSupervisord, control: Control
) -> None:
    fake.ends["connector"] = 2
    control.start("connector")
    write_state(home.root, state(state="failed", exit_code=2, error="key 'kalshi' refused", hint="Run: ssmd key set"))

    with pytest.raises(ConfigError) as caught:
        await_service("connector", control, home, pause, soon())

    assert caught.value.message == "connector: key 'kalshi' refused"
    assert caught.value.hint == "Run: ssmd key set"


def test_without_own_words_the_log_speaks(home: Home, fake: FakeSupervisord, control: Control) -> None:
    fake.ends["nats"] = 1
    control.start("nats")
    (home.log / "nats.err.log").write_text("first\ncould not open store\n")

    error = failure(control.states()["nats"], home)

    assert isinstance(error, FatalError)
    assert error.message == "nats ended (exit code 1): first | could not open store"


def test_last_words_in_json_are_told_as_words(home: Home, fake: FakeSupervisord, control: Control) -> None:
    fake.ends["nats"] = 1
    control.start("nats")
    (home.log / "nats.err.log").write_text('{"level":"info","event":"drained"}\n{"event":"lost","error":"no disk"}\n')

    assert failure(control.states()["nats"], home).message == "nats ended (exit code 1): drained | lost: no disk"


def test_a_server_that_ends_is_an_error_with_its_last_words(
    home: Home, fake: FakeSupervisord, control: Control
) -> None:
    fake.ends["nats"] = 1
    control.start("nats")
    (home.log / "nats.err.log").write_text("address already in use\n")

    with pytest.raises(FatalError, match="address already in use"):
        await_server("nats", lambda: False, control, home, pause)


def test_a_server_elsewhere_must_answer() -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        require_answer(Listener("nats", "127.0.0.1", free_port(), "spec.middleware.transport.url"))


def test_a_storage_folder_must_be_writable(tmp_path: Path) -> None:
    require_writable(tmp_path / "new" / "storage")
    assert list((tmp_path / "new" / "storage").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        require_writable(tmp_path / "file" / "storage")


@pytest.mark.parametrize(
    ("name", "health", "expected"),
    [
        ("connector", {"status": "degraded", "connected": True}, True),
        ("connector", {"status": "degraded", "connected": False}, False),
        ("gateway", {"status": "degraded"}, True),
        ("gateway", {"status": "down"}, False),
        ("archiver", {"status": "degraded"}, False),
        ("archiver", {"status": "ok"}, True),
    ],
)
def test_what_counts_as_working(name: str, health: dict[str, Any], expected: bool) -> None:
    assert works(name, health) is expected


def test_the_summary_holds_what_people_look_for() -> None:
    health = {"frames": 12345, "tickers": 9, "gaps": 0, "connection": "c-1", "problem": ""}
    assert summary("connector", health) == "12,345 frames, 9 tickers, 0 gaps"
    assert summary("connector", {"problem": "exchange away"}).endswith("exchange away")
    assert summary("gateway", {"clients": 1}) == "1 client"
    trouble = {"status": "degraded", "frames": 1, "trouble": {"stream": "the broker is behind", "key": "refused"}}
    assert summary("connector", trouble) == "1 frame · key: refused; stream: the broker is behind"
    assert summary("archiver", {"problems": {"storage": "the disk is full"}}) == "storage: the disk is full"


def test_the_survey_shows_each_program_as_it_is(home: Home, fake: FakeSupervisord) -> None:
    fake.states |= {"nats": "RUNNING", "connector": "RUNNING"}
    fake.ends["gateway"] = 70
    fake.states["gateway"] = "EXITED"
    (home.log / "gateway.err.log").write_text("This is a bug\n")
    assert survey(home) == []
    home.write_record(StackRecord("m", "e", "f", str(fake.path), "secret", fake.identity, NAMES, {}))
    with admin({"status": "degraded", "connected": False, "problem": "exchange away"}) as port:
        write_state(home.root, state(port))

        found = {component.name: component for component in survey(home)}

    assert found["nats"].well
    assert (found["connector"].status, found["connector"].well) == ("degraded", False)
    assert "exchange away" in found["connector"].detail
    assert found["gateway"].status == "down"
    assert "This is a bug" in found["gateway"].detail
    fake.shutdown()
    fake.identity.wait(5.0)
    (gone,) = survey(home)
    assert "ssmd down" in gone.detail


def test_without_airflows_api_nothing_is_known_of_its_other_parts(home: Home, tmp_path: Path) -> None:
    names = ["airflow-api", "airflow-scheduler", "airflow-triggerer"]
    url = f"http://127.0.0.1:{free_port()}"
    home.airflow_access.write_text(json.dumps({"url": url, "username": "u", "password": "p"}))
    with FakeSupervisord(tmp_path / "air.sock", "secret", names) as fake:
        fake.states = dict.fromkeys(names, "RUNNING")
        fake.started = {"airflow-api": int(time.time()) - 20}
        home.write_record(StackRecord("m", "e", "f", str(fake.path), "secret", fake.identity, names, {}))

        found = {component.name: component for component in survey(home)}
        fake.started["airflow-api"] -= 600
        late = {component.name: component for component in survey(home)}

    assert (found["airflow-api"].status, late["airflow-api"].status) == ("starting", "silent")
    for name in names[1:]:
        assert (found[name].status, found[name].detail) == ("unknown", "the API does not answer")


@pytest.mark.parametrize(
    ("up_s", "health", "beat_ago_s", "status", "said"),
    [
        (20, "unhealthy", None, "starting", "no heartbeat yet"),
        (20, "unhealthy", 900, "starting", "no heartbeat yet"),  # of the process before this one
        (20, "healthy", 25, "starting", "no heartbeat yet"),  # Airflow does not know that it is another process
        (20, "healthy", 5, "ok", ""),
        (20, "unhealthy", 15, "silent", "no heartbeat since "),
        (243, "unhealthy", 120, "silent", "no heartbeat since "),
        (243, "unhealthy", 900, "silent", "no heartbeat yet"),
        (243, None, None, "silent", "no heartbeat yet"),
        (243, "healthy", None, "ok", ""),
    ],
)
def test_a_part_of_airflow_is_judged_by_heartbeats_of_its_own_process(
    home: Home, tmp_path: Path, up_s: int, health: str | None, beat_ago_s: int | None, status: str, said: str
) -> None:
    now = time.time()
    beat = None if beat_ago_s is None else datetime.fromtimestamp(now - beat_ago_s, UTC).isoformat()
    with fake_airflow() as airflow, FakeSupervisord(tmp_path / "air.sock", "secret", ["airflow-triggerer"]) as fake:
        airflow.health = {"triggerer": {"status": health, "latest_triggerer_heartbeat": beat}}
        home.airflow_access.write_text(json.dumps({"url": airflow.url, "username": "u", "password": "p"}))
        fake.states = {"airflow-triggerer": "RUNNING"}
        fake.started = {"airflow-triggerer": int(now) - up_s}
        home.write_record(StackRecord("m", "e", "f", str(fake.path), "secret", fake.identity, [*fake.states], {}))

        found = survey(home)[0]

    assert (found.name, found.status) == ("airflow-triggerer", status)
    assert found.detail.startswith(said)
    assert bool(found.detail) == bool(said)
