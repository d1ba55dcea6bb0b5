"""SSMD_HOME: where the local stack keeps its state, and the record of what it has started."""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ssmd.errors import ConfigError, RefusedError
from ssmd.local.processes import ProcessId

MAX_SOCKET_PATH = 100
"""Bytes; the kernel's limit for the path of a unix socket is 107, and supervisord appends its process number."""


class StackRecord(msgspec.Struct, frozen=True):
    """`run/stack.json`: what `ssmd up` started, for `ssmd down` and `ssmd status`.

    `mark` stands in the environment of every process of the stack; `up` is the `ssmd up` that watches it (None after
    `--detach`); `rest` is the exchange's REST address that its connector was given (None: the registry's); `given` are
    the names of the secret variables that its services were given.
    """

    mark: str
    environment: str
    file: str
    socket: str
    password: str
    supervisord: ProcessId
    programs: list[str]
    urls: dict[str, str]
    up: ProcessId | None = None
    rest: str | None = None
    given: list[str] = []


class Home:
    """The folders below SSMD_HOME."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.run = root / "run"
        self.log = root / "log"
        self.nats = root / "nats"
        self.postgres = root / "postgres"
        self.keys = root / "keys"
        self.airflow = root / "airflow"
        self.airflow_access = self.run / "airflow.json"
        self.config = self.run / "supervisord.conf"
        self.record = self.run / "stack.json"

    def prepare(self) -> None:
        """Make the folders; ConfigError when that is not possible."""
        try:
            for folder in (self.run, self.log, self.keys):
                folder.mkdir(parents=True, exist_ok=True)
            self.keys.chmod(0o700)
            self.run.chmod(0o700)
        except OSError as error:
            raise ConfigError(
                f"cannot use {self.root} for the state of the local stack: {error.strerror}",
                "Set SSMD_HOME to a folder that you may write to.",
            ) from error

    def socket_path(self) -> Path:
        """Where supervisord's control socket goes: `run`, or a new temporary folder when that path is too long."""
        path = self.run / "supervisor.sock"
        if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
            return path
        return Path(tempfile.mkdtemp(prefix="ssmd-", dir="/tmp")) / "supervisor.sock"

    def read_record(self) -> StackRecord | None:
        """What was started last and not yet taken down."""
        try:
            return msgspec.json.decode(self.record.read_bytes(), type=StackRecord)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None

    def write_record(self, record: StackRecord) -> None:
        """Replace the record, whole; only the owner may read it."""
        aside = self.record.with_suffix(".tmp")
        aside.touch(mode=0o600)
        aside.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2))
        aside.replace(self.record)

    def forget(self) -> None:
        """The stack is down: remove the record and the socket."""
        record = self.read_record()
        if record and Path(record.socket).parent != self.run:
            with contextlib.suppress(OSError):
                Path(record.socket).unlink(missing_ok=True)
                Path(record.socket).parent.rmdir()
        self.record.unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Only one `up` works here at a time; RefusedError for the second."""
        with (self.run / "up.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RefusedError(
                    f"another `ssmd up` is at work in {self.root}", "Run: ssmd status, or ssmd down"
                ) from error
            yield
