"""The services of a running environment as operations see them: programs, and what may be asked of them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

import msgspec

from ssmd.errors import ConfigError, SsmdError
from ssmd.nearest import did_you_mean
from ssmd.service_state import Farewell, PlannedStop

SERVICES = ("connector", "archiver", "gateway")
SLOTS: Mapping[str, tuple[str, ...]] = {
    "connector": ("connector", "connector-b"),
    "archiver": ("archiver",),
    "gateway": ("gateway",),
}
"""The programs a service may run as: two connectors can run at a time, one of the day and one of the next."""


class ProgramState(msgspec.Struct, frozen=True, kw_only=True):
    """A program as its supervisor knows it. `at_rest`: no process, and none will be started by itself.

    `started` is the process's start, UTC; None where there is none. `ended` is the end of the last process, UTC; None
    where there was none.
    """

    name: str
    state: str
    at_rest: bool
    pid: int
    started: datetime | None
    ended: datetime | None
    exit_code: int


class Crash(msgspec.Struct, frozen=True):
    """A program's process ended by itself, and irregularly. `at` is UTC; `how`: `killed by signal 9`, for instance."""

    program: str
    at: datetime
    how: str


class Programs(Protocol):
    """The supervisor of one environment. Every method raises Unavailable when it does not answer."""

    @property
    def names(self) -> frozenset[str]:
        """The programs that it can start."""
        ...

    def states(self) -> Mapping[str, ProgramState]:
        """All programs, by name."""
        ...

    def start(self, name: str) -> None:
        """Begin to start a program; nothing when it runs."""
        ...

    def stop(self, name: str) -> None:
        """Order a program to drain and stop; nothing when it does not run."""
        ...

    def health(self, name: str, pid: int) -> Mapping[str, Any] | None:
        """What the process says of itself now; None while it does not answer."""
        ...

    def farewell(self, name: str, pid: int) -> Mapping[str, Any] | None:
        """What the process said of itself at its end; None when it left without a word."""
        ...

    def failure(self, name: str) -> SsmdError:
        """Why a program that ended has ended, in its own words."""
        ...

    def farewell_to_clients(self, service: str, farewell: Farewell | None) -> None:
        """What a service tells its clients when it stops; None: its own words."""
        ...

    def planned(self, name: str) -> PlannedStop | None:
        """The order by which a program that is at rest was stopped; None when it has another reason."""
        ...

    def crashes(self, since: datetime) -> list[Crash]:
        """All of all programs since then, the earliest first."""
        ...

    def note_planned(self, name: str, planned: PlannedStop) -> None:
        """Leave word for others who watch the program why it is about to stop."""
        ...


def known_service(text: str) -> str:
    """`text` as a service; ConfigError with the nearest one otherwise."""
    if text in SERVICES:
        return text
    raise ConfigError(
        f"there is no service {_shown(text)!r}", did_you_mean(text, SERVICES, f"Services: {', '.join(SERVICES)}.")
    )


def _shown(text: str) -> str:
    return "".join(letter if letter.isprintable() else "·" for letter in text[:80])
