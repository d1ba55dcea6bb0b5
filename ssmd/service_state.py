"""`SSMD_HOME/run/{service}.json`: where a running service can be asked, or why it is not running."""

from pathlib import Path
from typing import Any

import msgspec


class ServiceState(msgspec.Struct, frozen=True):
    """Written by the service at each change. `since` is UTC, ISO 8601; `host` and `port` are the admin endpoint's.

    `health` is what the service last said of itself: written when it has stopped, and nobody can ask it any more.
    """

    service: str
    pid: int
    state: str  # starting, running, draining, stopped, failed
    host: str
    port: int
    since: str
    exit_code: int | None = None
    error: str = ""
    hint: str = ""
    health: dict[str, Any] | None = None


def state_path(home: Path, service: str) -> Path:
    """Where `service` writes its state."""
    return home / "run" / f"{service}.json"


def read_state(home: Path, service: str) -> ServiceState | None:
    """The last state that `service` wrote, or None."""
    try:
        return msgspec.json.decode(state_path(home, service).read_bytes(), type=ServiceState)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def write_state(home: Path, state: ServiceState) -> None:
    """Replace the state, whole. Raises OSError."""
    path = state_path(home, state.service)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{state.pid}.tmp")
    aside.write_bytes(msgspec.json.encode(state) + b"\n")
    aside.replace(path)
