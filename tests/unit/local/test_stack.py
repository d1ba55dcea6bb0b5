"""Bringing a stack up, with a supervisord that only pretends: the order, the record, and what happens on failure."""

import configparser
import contextlib
import io
import os
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest

from ssmd.errors import ConfigError, FatalError, RefusedError, Unavailable
from ssmd.local import stack as stacks
from ssmd.local.home import Home
from ssmd.local.plan import Plan
from ssmd.local.ports import free_port
from ssmd.local.processes import MARK, ProcessId
from ssmd.local.progress import Progress
from ssmd.local.stack import Stack
from ssmd.local.teardown import down
from ssmd.service_state import ServiceState, write_state
from tests.fakes.supervisord import FakeSupervisord
from tests.unit.local.test_plan import ENDPOINTS, plan
from tests.unit.local.test_readiness import admin

SERVICES = ["connector", "archiver", "gateway"]


class Rig:
    """A home, a plan whose servers are elsewhere, and the process boundary replaced by a fake."""

    def __init__(self, folder: Path, closing: contextlib.ExitStack) -> None:
        self.home = Home(folder / "home")
        self.home.prepare()
        self.said = io.StringIO()
        self.migrated: list[str] = []
        self.variables: dict[str, str] = {}
        self.ends: dict[str, int] = {}
        self.fake: FakeSupervisord | None = None
        self._closing = closing
        broker = closing.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.broker = broker.getsockname()[1]
        port = closing.enter_context(admin({"status": "ok", "connected": True}))
        for name in SERVICES:
            write_state(self.home.root, ServiceState(name, 4242, "running", "127.0.0.1", port, ""))

    def launch(self, home: Home, variables: Mapping[str, str], own_logs: Sequence[Path]) -> ProcessId:
        """In place of starting supervisord: a fake that follows the configuration that was written."""
        written = configparser.RawConfigParser()
        written.read(home.config)
        names = [section.partition(":")[2] for section in written.sections() if section.startswith("program:")]
        path, password = Path(written["unix_http_server"]["file"]), written["unix_http_server"]["password"]
        self.fake = self._closing.enter_context(FakeSupervisord(path, password, names))
        self.fake.ends = self.ends
        self.variables = dict(variables)
        return self.fake.identity

    def plan(self) -> Plan:
        """Broker and database elsewhere: only our services are started."""
        gateway = {"host": "127.0.0.1", "port": free_port()}
        return plan(database=None, broker=None, endpoints=ENDPOINTS, gateway=gateway)

    def stack(self, chosen: Plan | None = None, **environ: str) -> Stack:
        return Stack(chosen or self.plan(), self.home, Progress(self.said), self.migrated.append, None, environ)


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    before = {sign: signal.getsignal(sign) for sign in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    with contextlib.ExitStack() as closing:
        rig = Rig(tmp_path, closing)
        monkeypatch.setattr(stacks, "launch", rig.launch)
        yield rig
    for sign, handler in before.items():
        signal.signal(sign, handler)


def test_services_start_in_order_and_the_record_says_how_to_find_them(rig: Rig) -> None:
    assert rig.stack(PATH="/bin", PYTHONDONTWRITEBYTECODE="1").run(detach=True) == 0

    assert rig.fake is not None
    assert rig.fake.orders == ["start connector", "start archiver", "start gateway"]
    record = rig.home.read_record()
    assert record is not None
    assert record.programs == ["connector", "connector-b", "archiver", "gateway"]
    assert record.up is None
    assert rig.variables == {"PATH": "/bin", MARK: record.mark, "SSMD_HOME": str(rig.home.root)}
    with pytest.raises(RefusedError, match="is already up"):
        rig.stack().run(detach=True)
    assert down(rig.home, Progress(io.StringIO())) is True


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda sign: sign.name)
def test_a_signal_stops_everything_in_order_and_ends_with_0(sign: signal.Signals, rig: Rig) -> None:
    class Listening(io.StringIO):
        def write(self, text: str) -> int:
            if "everything is up" in text:
                os.kill(os.getpid(), sign)
            return super().write(text)

    rig.said = Listening()

    assert rig.stack().run() == 0

    assert rig.fake is not None
    assert rig.fake.orders[3:] == ["stop connector", "stop archiver", "stop gateway", "shutdown"]
    assert rig.home.read_record() is None


@pytest.mark.parametrize(("code", "error"), [(2, ConfigError), (0, FatalError)], ids=["refused", "ended"])
def test_a_service_that_will_not_run_takes_the_others_down(code: int, error: type[Exception], rig: Rig) -> None:
    rig.ends["connector"] = code
    words = ServiceState("connector", 4242, "failed", "", 0, "", code, "the key 'kalshi' has no value")
    if code:
        write_state(rig.home.root, words)

    with pytest.raises(error, match="has no value" if code else "connector ended"):
        rig.stack().run()

    assert rig.fake is not None
    assert rig.fake.orders[-3:] == ["stop archiver", "stop gateway", "shutdown"]
    assert rig.home.read_record() is None


def test_a_taken_port_starts_nothing(rig: Rig) -> None:
    chosen = rig.plan()
    with socket.create_server(("127.0.0.1", chosen.gateway.port)), pytest.raises(ConfigError, match="is taken by"):
        rig.stack(chosen).run()

    assert rig.fake is None


def test_a_server_elsewhere_that_is_away_starts_nothing(rig: Rig) -> None:
    gateway = {"host": "127.0.0.1", "port": free_port()}
    chosen = plan(database=None, broker="nats://192.0.2.1:4222", endpoints=ENDPOINTS, gateway=gateway)

    def unreachable(*_arguments: object, **_options: object) -> socket.socket:
        raise TimeoutError("timed out")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "create_connection", unreachable)
        with pytest.raises(Unavailable, match=r"nats at 192\.0\.2\.1:4222"):
            rig.stack(chosen).run()

    assert rig.fake is None


def test_the_database_is_brought_up_to_date_before_services_start(rig: Rig) -> None:
    url = "postgresql+psycopg2://ssmd@localhost.example:5432/ssmd"
    gateway = {"host": "127.0.0.1", "port": free_port()}
    chosen = plan(database=None, broker=None, endpoints=ENDPOINTS, gateway=gateway)

    assert rig.stack(msgspec.structs.replace(chosen, database_url=url)).run(detach=True) == 0

    assert rig.migrated == [url]
    assert down(rig.home, Progress(io.StringIO())) is True
