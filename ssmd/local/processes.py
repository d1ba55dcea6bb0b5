"""Processes by identity: a number and a start time, so that a reused number is never mistaken for an old process."""

import contextlib
import os
import signal
import time
from pathlib import Path

import msgspec

MARK = "SSMD_STACK"
"""Environment variable that every process of a stack has; its value stands in the record."""

_PROC = Path("/proc")
_SUPERVISED_NAME = b"SUPERVISOR_PROCESS_NAME="


class ProcessId(msgspec.Struct, frozen=True):
    """One process for ever: `started` is its start in clock ticks since boot (field 22 of /proc/PID/stat)."""

    pid: int
    started: int

    @property
    def alive(self) -> bool:
        """Does it still run? A dead child that nobody has waited for does not."""
        found = _stat(self.pid)
        return found is not None and found[1] == self.started and found[0] not in "ZX"

    def age_s(self) -> int:
        """Whole seconds since it was started."""
        return max(0, int(time.clock_gettime(time.CLOCK_BOOTTIME) - self.started / os.sysconf("SC_CLK_TCK")))

    def send(self, sign: signal.Signals) -> None:
        """Send a signal if the process still is the one that was meant."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, sign)

    def wait(self, timeout_s: float) -> bool:
        """True as soon as it is gone, False when it still runs after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while self.alive:
            if time.monotonic() > deadline:
                return False
            with contextlib.suppress(ChildProcessError):  # our own child: collect it, or it stays as a zombie
                os.waitpid(self.pid, os.WNOHANG)
            time.sleep(0.02)
        return True

    def end(self, grace_s: float, sign: signal.Signals = signal.SIGTERM) -> None:
        """Send `sign`, and SIGKILL when it still runs after `grace_s`."""
        self.send(sign)
        if not self.wait(grace_s):
            self.send(signal.SIGKILL)
            self.wait(5.0)


def identify(pid: int) -> ProcessId | None:
    """The process that has this number now."""
    found = _stat(pid)
    return ProcessId(pid, found[1]) if found else None


def command_of(pid: int) -> str:
    """Its command line, cut to a readable length; "" when it is gone or not ours to see."""
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    text = b" ".join(words).decode(errors="replace").strip()
    return text if len(text) <= 100 else text[:97] + "..."


def marked(name: str, value: str) -> list[tuple[ProcessId, str]]:
    """All processes started with the environment variable `name=value`, as far as we may look, and their programs.

    The program is what supervisord calls it; "" for a process that supervisord did not start itself.
    """
    wanted = f"{name}={value}".encode()
    found = []
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:  # gone meanwhile, or another user's
            continue
        process = identify(int(entry.name)) if wanted in variables else None
        if process and process.alive:
            named = [one.partition(b"=")[2].decode() for one in variables if one.startswith(_SUPERVISED_NAME)]
            found.append((process, named[0] if named else ""))
    return found


def _stat(pid: int) -> tuple[str, int] | None:
    """(state letter, start time) of a process; the name in the middle may hold spaces and parentheses."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return fields[0], int(fields[19])
