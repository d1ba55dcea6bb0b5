"""supervisord: its configuration as text, its start, and its control over a unix socket."""

import base64
import contextlib
import http.client
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import msgspec

from ssmd.errors import ConfigError, FatalError, Unavailable
from ssmd.local.home import Home
from ssmd.local.processes import ProcessId, identify

USERNAME = "ssmd"
RPC_TIMEOUT_S = 10.0
START_S = 10.0

_SECRET = re.compile(r"^SSMD_KEY_|WEBHOOK|SECRET|PASSW|TOKEN|CREDENTIAL|(API|ACCESS|PRIVATE)_?KEY", re.IGNORECASE)

StateName = Literal["STOPPED", "STARTING", "RUNNING", "BACKOFF", "STOPPING", "EXITED", "FATAL", "UNKNOWN"]


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """A process of the stack. `user` None: the present one. Times in seconds.

    `settle_s` 0: whatever exit code comes is believed at once (our services: 0 and 2 are final). Above 0, a program
    that ends sooner is tried again with growing pauses, `retries` times (servers).
    """

    name: str
    command: Sequence[str]
    user: str | None = None
    folder: str | None = None
    stop_signal: str = "TERM"
    stop_wait_s: int = 30
    settle_s: int = 0
    retries: int = 10
    always: bool = False
    """Start it again after whatever end, also one with exit code 0 or 2."""
    stop_group: bool = False
    """The order to stop goes to its children, too."""
    hidden: Sequence[str] = ()
    """Environment variables that the program must not see (secrets of others)."""
    variables: Mapping[str, str] = {}
    """Environment variables of its own; no secrets, since the configuration shows them."""


class ProgramState(NamedTuple):
    """What supervisord knows about a program; `started` and `stopped` in seconds since the epoch."""

    name: str
    state: StateName
    pid: int
    started: int
    stopped: int
    exit_code: int
    problem: str


def configuration(programs: Sequence[Program], home: Home, socket_path: Path, password: str, *, root: bool) -> str:
    """The text of supervisord.conf: nothing starts by itself; unexpected ends (not 0, not 2) are restarted."""
    own_user = ["user=root"] if root else []  # said explicitly, or supervisord warns on every start
    sections = [
        [
            "[supervisord]",
            "nodaemon=true",
            "silent=true",
            f"logfile={_value(home.log / 'supervisord.log')}",
            "logfile_maxbytes=10MB",
            "logfile_backups=1",
            f"pidfile={_value(home.run / 'supervisord.pid')}",
            f"childlogdir={_value(home.log)}",
            "nocleanup=true",
            *own_user,
        ],
        [
            "[unix_http_server]",
            f"file={_value(socket_path)}",
            "chmod=0600",
            f"username={USERNAME}",
            f"password={_value(password)}",
        ],
        [
            "[rpcinterface:supervisor]",
            "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface",
        ],
        *(_program(program, order, home) for order, program in enumerate(programs, start=1)),
    ]
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def _program(program: Program, order: int, home: Home) -> list[str]:
    hide = [part for name in program.hidden for part in ("-u", name)]
    own = [f"{name}={value}" for name, value in program.variables.items()]
    command = ["/usr/bin/env", *hide, *own, *program.command] if hide or own else list(program.command)
    return [
        f"[program:{program.name}]",
        f"command={_value(shlex.join(command))}",
        f"priority={order}",
        "autostart=false",
        f"autorestart={'true' if program.always else 'unexpected'}",
        "exitcodes=0,2",
        f"startsecs={program.settle_s}",
        f"startretries={program.retries}",
        f"stopsignal={program.stop_signal}",
        f"stopwaitsecs={program.stop_wait_s}",
        # As a rule the order to stop goes to the program alone (it tells its children); the kill goes to all of them.
        f"stopasgroup={'true' if program.stop_group else 'false'}",
        "killasgroup=true",
        *([f"user={program.user}"] if program.user else []),
        *([f"directory={_value(program.folder)}"] if program.folder else []),
        f"stdout_logfile={_twice(home.log / (program.name + '.log'))}",
        "stdout_logfile_maxbytes=50MB",
        "stdout_logfile_backups=3",
        f"stderr_logfile={_twice(home.log / (program.name + '.err.log'))}",
        "stderr_logfile_maxbytes=10MB",
        "stderr_logfile_backups=1",
    ]


def _value(text: object) -> str:
    """`text` as the value of a setting: supervisord expands %, and takes ` ;` and ` #` for a comment."""
    value = str(text)
    if any(mark in value for mark in (" ;", " #", "\n", "\r")):
        raise ConfigError(
            f"supervisord cannot be told {value!r}: ' ;', ' #' or a line break in it", "Use paths without them."
        )
    return value.replace("%", "%%")


def _twice(text: object) -> str:
    """The same for a program's log files, which supervisord expands twice."""
    return _value(_value(text))


def is_secret(variable: str) -> bool:
    """Does the name of an environment variable say that its value is a secret (or, `SSMD_KEY_…_FILE`, where it is)?"""
    return _SECRET.search(variable) is not None


def launch(home: Home, environment: Mapping[str, str], own_logs: Sequence[Path] = ()) -> ProcessId:
    """Start supervisord in a session of its own (Ctrl-C does not reach it); FatalError when it does not come up.

    `own_logs`: files that programs write themselves, which it keeps small.
    It gets the secrets of `environment` through a pipe and hands them on to those programs that may see them: in its
    own environment everybody who may look at the process would read them for as long as it runs.
    """
    with (home.log / "supervisord.err.log").open("ab") as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", "ssmd.local.supervise", "-n", "-c", str(home.config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
            env={name: value for name, value in environment.items() if not is_secret(name)}
            | {"SSMD_ROTATE": json.dumps([str(path) for path in own_logs])},
        )
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError), child.stdin:  # it ended before it read them: told by `await_control`
        secrets = {name: value for name, value in environment.items() if is_secret(name)}
        child.stdin.write(json.dumps(secrets).encode())
    process = identify(child.pid)
    if process is None:
        raise _did_not_start(home)
    return process


def await_control(control: "Control", process: ProcessId, home: Home) -> None:
    """Return when supervisord takes orders; FatalError when it ends or does not within 10 s."""
    deadline = time.monotonic() + START_S
    while True:
        with contextlib.suppress(Unavailable):
            control.states()
            return
        if not process.alive or time.monotonic() > deadline:
            process.end(1.0)
            raise _did_not_start(home)
        time.sleep(0.02)


def _did_not_start(home: Home) -> FatalError:
    words = tail(home.log / "supervisord.err.log", 3) or tail(home.log / "supervisord.log", 3)
    return FatalError(f"supervisord did not start: {words or 'it said nothing'}", f"Read {home.log}/supervisord.log")


def tail(path: Path, lines: int) -> str:
    """The last non-empty lines of a text file, joined by ` | `; "" when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 8192))
            found = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return " | ".join([line.strip() for line in found if line.strip()][-lines:])


class Control:
    """Orders to a running supervisord; every method raises Unavailable when it does not answer."""

    def __init__(self, socket_path: Path, password: str) -> None:
        self._transport = _UnixTransport(socket_path, password)
        self._server = xmlrpc.client.ServerProxy("http://localhost/RPC2", transport=self._transport)

    def states(self) -> dict[str, ProgramState]:
        """All programs, by name."""
        answer = cast("list[dict[str, Any]]", self._call("getAllProcessInfo"))
        return {
            one["name"]: ProgramState(
                one["name"], one["statename"], one["pid"], one["start"], one["stop"], one["exitstatus"], one["spawnerr"]
            )
            for one in answer
        }

    def start(self, name: str) -> None:
        """Begin to start a program; nothing when it runs."""
        self._call("startProcess", name, False, ignore=(60,))  # False: do not wait

    def stop(self, name: str) -> None:
        """Begin to stop a program; nothing when it does not run."""
        self._call("stopProcess", name, False, ignore=(70, 10))  # False: do not wait

    def shutdown(self) -> None:
        """End supervisord (and whatever still runs below it)."""
        self._call("shutdown", ignore=(6,))

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def _call(self, method: str, *arguments: object, ignore: tuple[int, ...] = ()) -> object:
        try:
            return getattr(self._server.supervisor, method)(*arguments)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode in ignore:
                return None
            raise Unavailable(f"supervisord refused {method} {arguments}: {fault.faultString}") from fault
        except (OSError, http.client.HTTPException, xmlrpc.client.ProtocolError) as error:
            self._transport.close()
            raise Unavailable(f"supervisord does not answer: {error}", "Run: ssmd down") from error


class _UnixTransport(xmlrpc.client.Transport):
    """XML-RPC over a unix socket, with a limit on waiting."""

    def __init__(self, socket_path: Path, password: str) -> None:
        token = base64.b64encode(f"{USERNAME}:{password}".encode()).decode()
        super().__init__(headers=[("Authorization", f"Basic {token}")])
        self._path = socket_path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = self._connection[1]
        if connection is None:
            connection = _UnixConnection(self._path)
            self._connection = str(host), connection
        return connection


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=RPC_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))
