"""Ports that the local stack needs: are they free, and who holds them if not."""

import errno
import os
import socket
from pathlib import Path
from typing import NamedTuple

from ssmd.errors import ConfigError
from ssmd.local.processes import command_of

_LISTENING = "0A"


class Listener(NamedTuple):
    """An address that a program of the stack listens on; `setting` is where the environment file says so."""

    program: str
    host: str
    port: int
    setting: str


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port of `host` that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def refuse_taken(listeners: list[Listener]) -> None:
    """Nothing, when every address can be had; else one ConfigError that names each taken port and its holder."""
    problems = [text for listener in listeners if (text := problem(listener))]
    if problems:
        raise ConfigError(
            "cannot start: " + "; ".join(problems),
            "Stop what holds the port, or change " + ", ".join(sorted({listener.setting for listener in listeners})),
        )


def problem(listener: Listener) -> str:
    """Why `listener` cannot have its address; "" when it can."""
    try:
        found = socket.getaddrinfo(listener.host, listener.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(found[0], socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(found[4])
            probe.listen(1)
    except OSError as error:
        what = f"port {listener.port} on {listener.host}, wanted by {listener.program} ({listener.setting}),"
        if error.errno == errno.EADDRINUSE:
            return f"{what} is taken by {holder(listener.port) or 'another program'}"
        return f"{what} cannot be used: {error.strerror}"
    return ""


def holder(port: int) -> str:
    """Who listens on a local port: process number and command; "" when the system does not tell us."""
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    if not sockets:
        return ""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and sockets & set(_open_files(entry / "fd")):
            return f"process {entry.name} ({command_of(int(entry.name))})"
    return ""


def _listening_inodes(port: int) -> list[str]:
    inodes: list[str] = []
    for table in ("tcp", "tcp6"):
        try:
            lines = Path("/proc/net", table).read_text().splitlines()[1:]
        except OSError:
            continue
        rows = [line.split() for line in lines]
        inodes += [row[9] for row in rows if row[3] == _LISTENING and int(row[1].rpartition(":")[2], 16) == port]
    return inodes


def _open_files(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [os.readlink(entry) for entry in entries]
    except OSError:  # gone meanwhile, or another user's
        return []
