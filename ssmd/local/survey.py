"""What runs now: every program of the stack, with its own word on how it is."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ssmd.errors import Unavailable
from ssmd.local.home import Home
from ssmd.local.plan import SERVICES, SPARE, service_of
from ssmd.local.readiness import failure, service_health, summary, works
from ssmd.local.supervisord import Control, ProgramState


class Component(msgspec.Struct, frozen=True):
    """One program. `state` is supervisord's word, `status` the service's own (ok, degraded, ...); `up_s` in seconds."""

    name: str
    state: str
    status: str
    pid: int
    up_s: int
    detail: str
    health: dict[str, Any]

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
    return [_component(states[name], home) for name in in_use(record.programs, states)]


def in_use(programs: Sequence[str], states: Mapping[str, ProgramState]) -> list[str]:
    """`programs` without the place for a second connector that is free now: an order stopped it, or none started it."""
    slots = [name for name in ("connector", SPARE) if name in states]
    free = {name for name in slots if states[name].state == "STOPPED"}
    if free == set(slots):
        free.discard("connector")  # no connector at all: said once
    return [name for name in programs if name in states and name not in free]


def _component(state: ProgramState, home: Home) -> Component:
    up_s = int(time.time()) - state.started if state.pid else 0
    if not state.pid:
        return Component(state.name, state.state, "down", 0, 0, failure(state, home).message, {})
    if service_of(state.name) not in SERVICES:
        status = "ok" if state.state == "RUNNING" else "starting"
        return Component(state.name, state.state, status, state.pid, up_s, "", {})
    health = service_health(home, state.name, state.pid)
    if health is None:
        return Component(state.name, state.state, "starting", state.pid, up_s, "does not answer yet", {})
    status = "ok" if works(state.name, health) else str(health.get("status", "?"))
    return Component(state.name, state.state, status, state.pid, up_s, summary(state.name, health), health)
