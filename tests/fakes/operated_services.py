"""Services below a supervisord that is not one: they start, drain and say of themselves what a test tells them to."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ssmd.service_state import ServiceState, read_farewell, write_state
from tests.fakes.supervisord import FakeSupervisord

PROGRAMS = ("connector", "connector-b", "archiver", "gateway")


class OperatedServices(FakeSupervisord):
    """`health` is what each program says; `last` what it says at its end; `heard` what clients were told.

    A program in `silent` leaves without a last word. With `roles`, the first connector is the active one and the other
    is standby until it is alone.
    """

    def __init__(self, path: Path, password: str, home: Path) -> None:
        super().__init__(path, password, PROGRAMS)
        self.home = home
        self.health: dict[str, dict[str, Any]] = {
            "connector": {"status": "ok", "connected": True, "tickers": 9, "frames": 100, "gaps": 1},
            "connector-b": {"status": "ok", "connected": True, "tickers": 9, "frames": 100, "gaps": 1},
            "archiver": {
                "status": "ok",
                "stream": "s",
                "taken_seq": 90,
                "acked_seq": 40,
                "segments": 2,
                "inventory": "ok",
            },
            "gateway": {"status": "ok", "clients": 3, "dependencies": {}},
        }
        self.last: dict[str, dict[str, Any]] = {
            "connector": {"last_segment": "kalshi/trades-07", "last_gap": "planned_teardown", "gaps": 2},
            "connector-b": {"last_segment": "kalshi/trades-b-03", "gaps": 2},
            "archiver": {"taken_seq": 90, "acked_seq": 90, "segments": 5},
            "gateway": {"clients": 0},
        }
        self.roles = False
        self.silent: set[str] = set()
        self.heard: list[str] = []
        self._pid = 1_000_000
        self.endpoints = {name: _Health(self, name) for name in PROGRAMS}

    def up(self, *programs: str) -> None:
        """These run already."""
        for name in programs:
            self.startProcess(name, False)
        self.orders.clear()

    def startProcess(self, name: str, wait: bool) -> bool:
        done = super().startProcess(name, wait)
        if self.states[name] == "RUNNING":
            self._pid += 1
            self.pids[name] = self._pid
            port = self.endpoints[name].server_port
            write_state(self.home, ServiceState(name, self._pid, "running", "127.0.0.1", port, ""))
        return done

    def stopProcess(self, name: str, wait: bool) -> bool:
        farewell = read_farewell(self.home, name)
        self.heard.append(farewell.message if farewell else "")
        done = super().stopProcess(name, wait)
        if self.states[name] == "STOPPED" and name not in self.silent:
            told = ServiceState(name, self.pids[name], "stopped", "", 0, "", 0, health=self.last[name])
            write_state(self.home, told)
        return done

    def said(self, name: str) -> Mapping[str, Any]:
        """What a program says of itself now."""
        if not (self.roles and name.startswith("connector")):
            return self.health[name]
        running = [one for one in ("connector", "connector-b") if self.states[one] == "RUNNING"]
        first = min(running, key=lambda one: self.pids[one])
        return {**self.health[name], "role": "active" if name == first else "standby"}


@contextmanager
def operated_services(folder: Path, home: Path) -> Iterator[OperatedServices]:
    """The services of a home; `folder` is for the socket."""
    services = OperatedServices(folder / "sv.sock", "secret", home)
    for endpoint in services.endpoints.values():
        threading.Thread(target=endpoint.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        with services:
            yield services
    finally:
        for endpoint in services.endpoints.values():
            endpoint.shutdown()
            endpoint.server_close()


class _Health(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, services: OperatedServices, name: str) -> None:
        self.services = services
        self.name = name
        super().__init__(("127.0.0.1", 0), _Answer)


class _Answer(BaseHTTPRequestHandler):
    server: _Health

    def do_GET(self) -> None:
        body = json.dumps(self.server.services.said(self.server.name)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        return
