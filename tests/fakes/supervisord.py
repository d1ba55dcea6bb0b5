"""A supervisord that speaks XML-RPC on a unix socket and keeps the state of programs, without processes."""

import base64
import contextlib
import socketserver
import subprocess
import threading
import time
import xmlrpc.client
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import TracebackType
from typing import Any
from xmlrpc.server import SimpleXMLRPCDispatcher

from ssmd.local.processes import ProcessId, identify


class FakeSupervisord:
    """`orders` is what it was told. It is alive as long as its one real process, which `shutdown` ends.

    A program in `stubborn` does not stop; one in `ends` is found EXITED with that code once it was started.
    """

    def __init__(self, path: Path, password: str, programs: Sequence[str]) -> None:
        self.path = path
        self.password = password
        self.states = dict.fromkeys(programs, "STOPPED")
        self.ends: dict[str, int] = {}
        self.pids: dict[str, int] = {}
        self.started: dict[str, int] = {}
        self.ended: dict[str, int] = {}
        self.stubborn: set[str] = set()
        self.orders: list[str] = []
        self._process = subprocess.Popen(["sleep", "600"])
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def identity(self) -> ProcessId:
        """Its process."""
        found = identify(self._process.pid)
        assert found is not None
        return found

    def __enter__(self) -> "FakeSupervisord":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._process.kill()
        with contextlib.suppress(ChildProcessError):
            self._process.wait()
        self._process.returncode = 0

    # -- what supervisord answers -------------------------------------------------------------------------------

    def getAllProcessInfo(self) -> list[dict[str, Any]]:
        return [self._info(name) for name in self.states]

    def startProcess(self, name: str, _wait: bool) -> bool:
        if self.states[name] == "RUNNING":
            raise xmlrpc.client.Fault(60, f"ALREADY_STARTED: {name}")
        self.orders.append(f"start {name}")
        self.states[name] = "EXITED" if name in self.ends else "RUNNING"
        return True

    def stopProcess(self, name: str, _wait: bool) -> bool:
        if self.states[name] != "RUNNING":
            raise xmlrpc.client.Fault(70, f"NOT_RUNNING: {name}")
        self.orders.append(f"stop {name}")
        if name not in self.stubborn:
            self.states[name] = "STOPPED"
            self.ended[name] = int(time.time())
        return True

    def shutdown(self) -> bool:
        self.orders.append("shutdown")
        self._process.kill()
        return True

    def _info(self, name: str) -> dict[str, Any]:
        state = self.states[name]
        return {
            "name": name,
            "statename": state,
            "pid": self.pids.get(name, 4242) if state == "RUNNING" else 0,
            "start": self.started.get(name, 1),
            "stop": self.ended.get(name, 0),
            "exitstatus": self.ends.get(name, 0),
            "spawnerr": "",
        }


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def __init__(self, fake: FakeSupervisord) -> None:
        self.fake = fake
        self.dispatcher = SimpleXMLRPCDispatcher(allow_none=True)
        for method in ("getAllProcessInfo", "startProcess", "stopProcess", "shutdown"):
            self.dispatcher.register_function(getattr(fake, method), f"supervisor.{method}")
        super().__init__(str(fake.path), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        expected = base64.b64encode(f"ssmd:{self.server.fake.password}".encode()).decode()
        allowed = self.headers.get("Authorization") == f"Basic {expected}"
        answer = self.server.dispatcher._marshaled_dispatch(body) if allowed else b""
        self.send_response(200 if allowed else 401)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer.encode() if isinstance(answer, str) else answer)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: Any) -> None:
        return
