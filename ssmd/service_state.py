"""`SSMD_HOME/run/{service}.json`: where a running service can be asked, or why it is not running.

And `{service}-farewell.json`: what somebody who stops it wants it to tell its clients; `{service}-planned.json`: who
stopped it last, and for which day.
"""

import time
from collections.abc import Mapping
from datetime import date, datetime
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


def troubles_of(health: Mapping[str, Any]) -> list[str]:
    """What a service says is not as it should be, a few words for each."""
    found: list[str] = []
    for key in ("problem", "trouble", "problems"):
        said = health.get(key)
        if isinstance(said, Mapping):
            found += [f"{name}: {words}" for name, words in sorted(said.items())]
        elif said:
            found.append(str(said))
    return list(dict.fromkeys(found))


class PlannedStop(msgspec.Struct, frozen=True, kw_only=True):
    """An operator stopped it at `at` for `day`; `then` is the day that it is started again for at once."""

    day: date
    by: str
    at: datetime
    then: date | None = None

    def __str__(self) -> str:
        """For people: `stopped for DAY by WHO at HH:MM UTC`."""
        return f"stopped for {self.day} by {self.by} at {self.at:%H:%M} UTC"


PLANNED_S = 60.0
"""A process that ended longer after the order has another reason."""


def planned_path(home: Path, program: str) -> Path:
    """Where the last order to stop a program stands."""
    return home / "run" / f"{program}-planned.json"


def write_planned(home: Path, program: str, planned: PlannedStop) -> None:
    """Note an order to stop. Raises OSError."""
    path = planned_path(home, program)
    aside = path.with_suffix(".tmp")
    aside.write_bytes(msgspec.json.encode(planned) + b"\n")
    aside.replace(path)


def read_planned(home: Path, program: str, ended: float) -> PlannedStop | None:
    """The order by which a process ended that was gone at `ended` (Unix time in whole seconds); None: no order's."""
    try:
        planned = msgspec.json.decode(planned_path(home, program).read_bytes(), type=PlannedStop)
    except (OSError, msgspec.MsgspecError):
        return None
    return planned if ended - PLANNED_S <= planned.at.timestamp() < ended + 1.0 else None


FAREWELL_S = 60.0
"""A farewell that is older was meant for another stop."""


class Farewell(msgspec.Struct, frozen=True):
    """Why a service stops, for its clients, and after how many seconds they should come back."""

    message: str
    retry_after_s: int


def farewell_path(home: Path, service: str) -> Path:
    """Where the farewell of `service` stands."""
    return home / "run" / f"{service}-farewell.json"


def write_farewell(home: Path, service: str, farewell: Farewell | None) -> None:
    """Leave it for a service that is about to be stopped; None: take it away. Raises OSError."""
    path = farewell_path(home, service)
    if farewell is None:
        path.unlink(missing_ok=True)
        return
    aside = path.with_suffix(".tmp")
    aside.write_bytes(msgspec.json.encode(farewell) + b"\n")
    aside.replace(path)


def read_farewell(home: Path, service: str) -> Farewell | None:
    """What was left for this stop; None when nothing was."""
    path = farewell_path(home, service)
    try:
        if time.time() - path.stat().st_mtime > FAREWELL_S:
            return None
        return msgspec.json.decode(path.read_bytes(), type=Farewell)
    except (OSError, msgspec.MsgspecError):
        return None
