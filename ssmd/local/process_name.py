"""A process as one word that may be stored anywhere, and that its own machine can look up again for ever."""

import hashlib
import os
import socket
from pathlib import Path

from ssmd.local.processes import ProcessId, identify

_MACHINE_ID = Path("/etc/machine-id")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")


def own_name() -> str | None:
    """This process; None where the system does not say what tells processes apart."""
    process = identify(os.getpid())
    place = _place()
    if process is None or place is None:
        return None
    return ":".join((*place, str(process.pid), str(process.started)))


def has_ended(name: str | None) -> bool | None:
    """Is the process over? None: that cannot be told from here (another machine or container, or no name)."""
    here = _place()
    try:
        machine, boot, namespace, pid, started = (name or "").split(":")
        process = ProcessId(int(pid), int(started))
    except ValueError:
        return None
    if here is None or machine != here[0]:
        return None
    if boot != here[1]:  # no process lives through a restart of its machine
        return True
    if namespace != here[2]:
        return None
    if identify(process.pid) is not None:
        return not process.alive
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return None  # there is one of this number, and the system hides the processes of others


def _place() -> tuple[str, str, str] | None:
    """Machine, its present run, and the space in which its process numbers count."""
    try:
        boot = _BOOT_ID.read_text().strip()
        namespace = "".join(letter for letter in os.readlink(_NAMESPACE) if letter.isdigit())
    except OSError:
        return None
    try:
        machine_id = _MACHINE_ID.read_text().strip()
    except OSError:
        machine_id = ""
    # machine ids are confidential by their manual, and an image of a container may give the same to all
    machine = hashlib.sha256(f"{socket.gethostname()}\0{machine_id}".encode()).hexdigest()[:16]
    return machine, boot, namespace
