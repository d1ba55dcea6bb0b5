"""The stack that `ssmd up` runs here, as operations see it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ssmd.cli.options import Chosen
from ssmd.errors import ConfigError, SsmdError, Unavailable
from ssmd.local.crashes import crashes
from ssmd.local.home import Home, StackRecord
from ssmd.local.readiness import failure, service_health, stop_order
from ssmd.local.supervisord import Control
from ssmd.ops.programs import SLOTS, Crash, ProgramState
from ssmd.service_state import Farewell, PlannedStop, read_state, write_farewell, write_planned

_AT_REST = ("STOPPED", "EXITED", "FATAL")


class LocalPrograms:
    """See `ssmd.ops.programs.Programs`."""

    def __init__(self, home: Home, record: StackRecord, control: Control) -> None:
        self._home = home
        self._control = control
        self.names = frozenset(name for slots in SLOTS.values() for name in slots if name in record.programs)

    def states(self) -> Mapping[str, ProgramState]:
        """All programs, by name."""
        return {
            name: ProgramState(
                name=name, state=one.state, at_rest=one.state in _AT_REST, pid=one.pid, exit_code=one.exit_code,
                started=datetime.fromtimestamp(one.started, UTC) if one.pid else None,
                ended=datetime.fromtimestamp(one.stopped, UTC) if one.stopped else None,
            )
            for name, one in self._control.states().items()
        }  # fmt: skip

    def start(self, name: str) -> None:
        """Begin to start a program."""
        self._control.start(name)

    def stop(self, name: str) -> None:
        """Order a program to stop."""
        self._control.stop(name)

    def health(self, name: str, pid: int) -> Mapping[str, Any] | None:
        """What its admin endpoint says."""
        return service_health(self._home, name, pid)

    def farewell(self, name: str, pid: int) -> Mapping[str, Any] | None:
        """What it wrote at its end."""
        state = read_state(self._home.root, name)
        if state is None or state.pid != pid or state.state != "stopped":
            return None
        return state.health or {}

    def failure(self, name: str) -> SsmdError:
        """The error it left."""
        return failure(self._control.states()[name], self._home)

    def farewell_to_clients(self, service: str, farewell: Farewell | None) -> None:
        """Leave it where the service looks when it is told to stop."""
        write_farewell(self._home.root, service, farewell)

    def planned(self, name: str) -> PlannedStop | None:
        """The order that `ssmd ops stop` has left."""
        return stop_order(self._control.states()[name], self._home)

    def crashes(self, since: datetime) -> list[Crash]:
        """What the supervisor's log says."""
        return [Crash(*one) for one in crashes(self._home, since)]

    def note_planned(self, name: str, planned: PlannedStop) -> None:
        """For `ssmd status` and the terminal of `ssmd up`."""
        write_planned(self._home.root, name, planned)


@contextmanager
def local_programs(chosen: Chosen) -> Iterator[tuple[LocalPrograms, StackRecord]]:
    """The running stack of an environment; Unavailable when none runs here, ConfigError when it is another one's."""
    record = running_stack(chosen)
    control = Control(Path(record.socket), record.password)
    try:
        yield LocalPrograms(Home(chosen.home), record, control), record
    finally:
        control.close()


def running_stack(chosen: Chosen) -> StackRecord:
    """What `ssmd up` has started here for this environment."""
    name = chosen.environment.name
    if chosen.environment.spec.runtime.type != "local":
        raise ConfigError(
            f"the services of {name!r} run on {chosen.environment.spec.runtime.type}, which this command cannot reach",
            "It works where spec.runtime.type is local. Without a service, it asks Airflow: ssmd ops start --date DAY",
        )
    record = Home(chosen.home).read_record()
    if record is None or not record.supervisord.alive:
        raise Unavailable(
            f"the stack of {name!r} is not up in {chosen.home}",
            f"Run: ssmd up{chosen.with_file} (or set SSMD_HOME to where it runs)",
        )
    if record.environment != name:
        raise ConfigError(
            f"the stack that is up in {chosen.home} is {record.environment!r}, not {name!r}",
            f"Add --env {record.file}, or set SSMD_HOME to where {name!r} runs.",
        )
    return record
