"""What runs now: every program of the stack, with its own word on how it is."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from ssmd.airflow_api import health_of
from ssmd.errors import Unavailable
from ssmd.local import airflow_server
from ssmd.local.airflow_access import read_access
from ssmd.local.home import Home
from ssmd.local.memory import memory_of
from ssmd.local.plan import SERVICES, SPARE, service_of
from ssmd.local.processes import ProcessId
from ssmd.local.readiness import failure, service_health, stop_order, summary, works
from ssmd.local.supervisord import Control, ProgramState


class Component(msgspec.Struct, frozen=True):
    """One program. `state` is supervisord's word, `status` the service's own (ok, degraded, ...); `up_s` in seconds.

    `status` is `down` for a program that should run, `silent` for one that runs and gives no sign of its work, and
    `stopped` for one that an operator stopped.

    `memory_mb`: 10^6 bytes of it and its children; pages that processes share are counted once.
    """

    name: str
    state: str
    status: str
    pid: int
    up_s: int
    detail: str
    health: dict[str, Any]
    memory_mb: int = 0

    @property
    def well(self) -> bool:
        """Does it do its job?"""
        return self.status == "ok"


def survey(home: Home) -> list[Component]:
    """The components of the stack that runs in this home; [] when there is none."""
    record = home.read_record()
    if record is None:
        return []
    if not record.supervisord.alive:
        return [Component("supervisord", "EXITED", "down", 0, 0, "it was killed; clean up with: ssmd down", {})]
    control = Control(Path(record.socket), record.password)
    try:
        states = control.states()
    except Unavailable as error:
        return [Component("supervisord", "UNKNOWN", "down", record.supervisord.pid, 0, error.message, {})]
    finally:
        control.close()
    names = in_use(record.programs, states)
    airflow = _airflow_health(home) if set(names) & set(airflow_server.PROGRAMS) else None
    found = [_component(states[name], home, airflow) for name in names]
    found += [_own("supervisord", record.supervisord)] + ([_own("up", record.up)] if record.up else [])
    sizes = memory_of(record.mark, {one.name: one.pid for one in found})
    return [msgspec.structs.replace(one, memory_mb=round(sizes[one.name] / 1e6)) for one in found]


def total(components: Sequence[Component]) -> Component:
    """The stack as one line."""
    status = "ok" if all(one.well for one in components) else "degraded"
    up_s = max((one.up_s for one in components), default=0)
    return Component("total", "", status, 0, up_s, "", {}, sum(one.memory_mb for one in components))


def in_use(programs: Sequence[str], states: Mapping[str, ProgramState]) -> list[str]:
    """`programs` without the place for a second connector that is free now: an order stopped it, or none started it."""
    slots = [name for name in ("connector", SPARE) if name in states]
    free = {name for name in slots if states[name].state == "STOPPED"}
    if free == set(slots):
        free.discard("connector")  # no connector at all: said once
    return [name for name in programs if name in states and name not in free]


def _own(name: str, process: ProcessId) -> Component:
    """supervisord, and the `ssmd up` that watches it: without that one the rest goes on as after `--detach`."""
    if not process.alive:
        return Component(name, "EXITED", "ok", 0, 0, "was killed; the stack goes on without it", {})
    return Component(name, "RUNNING", "ok", process.pid, process.age_s(), "", {})


def _airflow_health(home: Home) -> dict[str, Any]:
    access = read_access(home)
    return (health_of(access.url) if access else None) or {}


_AIRFLOW_PARTS = {
    airflow_server.SCHEDULER: "scheduler",
    airflow_server.DAGS: "dag_processor",
    airflow_server.TRIGGERER: "triggerer",
}


def _airflow(state: ProgramState, home: Home, up_s: int, parts: dict[str, Any]) -> Component:
    """A part of Airflow: as the API server knows it by its heartbeats, and that one by its answer."""
    if not state.pid:
        if state.state == "STOPPED":
            return Component(state.name, state.state, "starting", 0, 0, "its database is prepared first", {})
        return Component(state.name, state.state, "down", 0, 0, failure(state, home).message, {})
    if not parts and state.name == airflow_server.API:
        status = _until_ready(up_s)
        detail = "it does not answer" + (" yet" if status == "starting" else "")
        return Component(state.name, state.state, status, state.pid, up_s, detail, {})
    if not parts:  # its heartbeats are asked of the API
        return Component(state.name, state.state, "unknown", state.pid, up_s, "the API does not answer", {})
    if state.name == airflow_server.API:
        access = read_access(home)
        return Component(state.name, state.state, "ok", state.pid, up_s, access.url if access else "", parts)
    part = parts.get(_AIRFLOW_PARTS[state.name]) or {}
    beat = _last_beat(part)
    own = beat is not None and beat.timestamp() >= state.started  # an older one is of a process before this
    if part.get("status") == "healthy" and (own or beat is None):
        return Component(state.name, state.state, "ok", state.pid, up_s, "", part)
    if beat is not None and own:  # it was up, and is no more
        detail = f"no heartbeat since {beat.astimezone(UTC):%m-%d %H:%M:%S} UTC"
        return Component(state.name, state.state, "silent", state.pid, up_s, detail, part)
    detail = "no heartbeat yet"
    return Component(state.name, state.state, _until_ready(up_s), state.pid, up_s, detail, part)


def _last_beat(part: Mapping[str, Any]) -> datetime | None:
    said = next((value for name, value in part.items() if name.startswith("latest_") and value), None)
    try:
        beat = datetime.fromisoformat(str(said))
    except ValueError:
        return None
    return beat if beat.tzinfo else beat.replace(tzinfo=UTC)


def _until_ready(up_s: int) -> str:
    """What has not reported yet is starting, but not for ever."""
    return "starting" if up_s <= airflow_server.READY_S else "silent"


def _at_rest(state: ProgramState, home: Home) -> Component:
    planned = stop_order(state, home)
    if planned is not None:
        return Component(state.name, state.state, "stopped", 0, 0, str(planned), {})
    if state.state == "STOPPED" and state.exit_code == 0:
        detail = (
            f"since {datetime.fromtimestamp(state.stopped, UTC):%H:%M} UTC, by no `ssmd ops stop`"
            if state.stopped
            else "it was not started"
        )
        return Component(state.name, state.state, "down", 0, 0, detail, {})
    return Component(state.name, state.state, "down", 0, 0, failure(state, home).message, {})


def _component(state: ProgramState, home: Home, airflow: dict[str, Any] | None) -> Component:
    up_s = int(time.time()) - state.started if state.pid else 0
    if airflow is not None and state.name in airflow_server.PROGRAMS:
        return _airflow(state, home, up_s, airflow)
    if not state.pid:
        return _at_rest(state, home)
    if service_of(state.name) not in SERVICES:
        status = "ok" if state.state == "RUNNING" else "starting"
        return Component(state.name, state.state, status, state.pid, up_s, "", {})
    health = service_health(home, state.name, state.pid)
    if health is None:
        return Component(state.name, state.state, "starting", state.pid, up_s, "does not answer yet", {})
    status = "ok" if works(state.name, health) else str(health.get("status", "?"))
    return Component(state.name, state.state, status, state.pid, up_s, summary(state.name, health), health)
