"""The foreground of `ssmd up`: notice what ends or is restarted, show the first trade, keep one line of status."""

import time
from collections.abc import Callable
from typing import NoReturn, Protocol

from ssmd.errors import EXIT_CONFIG, FatalError, Unavailable
from ssmd.local import airflow_server
from ssmd.local.home import Home
from ssmd.local.plan import SERVICES, SPARE
from ssmd.local.processes import ProcessId
from ssmd.local.progress import Progress
from ssmd.local.readiness import failure, service_health, summary
from ssmd.local.supervisord import Control, ProgramState
from ssmd.service_state import read_planned

_EVERY_S = 1.0
_PATIENCE_S = 10.0
"""supervisord may be silent this long (a slow disk, a paused machine) before it counts as lost."""


class Trade(Protocol):
    """Something that sees the first trade some time; "" before."""

    text: str


class Watch:
    """Looks at the stack once a second until `pause` raises or a service refuses to run."""

    def __init__(
        self, home: Home, control: Control, supervisord: ProcessId, progress: Progress, trade: Trade, began: float
    ) -> None:
        self._supervisord = supervisord
        self._home = home
        self._control = control
        self._progress = progress
        self._began = began
        self._pids: dict[str, int] = {}
        self._told: set[str] = set()
        self._trade: Trade | None = trade

    def run(self, pause: Callable[[float], None]) -> NoReturn:
        """Watch. Leaves by what `pause` raises, by the ConfigError of a service, or when supervisord is lost."""
        heard = time.monotonic()
        while True:
            try:
                states = self._control.states()
                heard = time.monotonic()
            except Unavailable as error:
                if not self._supervisord.alive or time.monotonic() - heard > _PATIENCE_S:
                    raise FatalError("supervisord is gone; stopping the stack", "Run: ssmd up") from error
                states = {}
            for state in states.values():
                self._look_at(state)
            self._look_for_trade()
            if self._progress.terminal:
                self._progress.status(self._status(states))
            pause(_EVERY_S)

    def _look_at(self, state: ProgramState) -> None:
        before = self._pids.get(state.name, 0)
        if state.pid:
            if before and before != state.pid:
                self._progress.line(f"○ {state.name:<10} {self._restarted(state, before)}")
            elif state.name in self._told:
                self._progress.line(f"○ {state.name:<10} runs again (process {state.pid})")
            self._told.discard(state.name)
            self._pids[state.name] = state.pid
            return
        again = state.name in airflow_server.PROGRAMS  # supervisord starts these again whatever their exit code is
        if state.state == "EXITED" and state.exit_code == EXIT_CONFIG and not again:
            raise failure(state, self._home)
        if state.state in ("EXITED", "FATAL") and state.name not in self._told:
            final = state.state == "FATAL" or (state.exit_code == 0 and not again)
            if final:
                self._told.add(state.name)
                self._progress.line(f"✗ {state.name:<10} {_ending(state, self._home)}")

        elif state.state == "STOPPED" and before:
            planned = read_planned(self._home.root, state.name, state.stopped)
            if planned is not None and planned.then is None:
                self._told.add(state.name)
                del self._pids[state.name]
                self._progress.line(f"○ {state.name:<10} {planned}")

    def _restarted(self, state: ProgramState, before: int) -> str:
        processes = f"(process {before} ended; now process {state.pid})"
        planned = read_planned(self._home.root, state.name, state.stopped)
        if planned is None:
            return f"was restarted {processes}"
        if planned.then is None:
            return f"was {planned}, and started again {processes}"
        return f"was restarted as planned, for {planned.then} by {planned.by} {processes}"

    def _look_for_trade(self) -> None:
        if self._trade and self._trade.text:
            passed = time.monotonic() - self._began
            self._progress.line(f"first live trade after {passed:.1f} s:  {self._trade.text}")
            self._trade = None

    def _status(self, states: dict[str, ProgramState]) -> str:
        hours, rest = divmod(int(time.monotonic() - self._began), 3600)
        words = [f"up {hours}:{rest // 60:02}:{rest % 60:02}"]
        for name in (SPARE, *SERVICES) if (spare := states.get(SPARE)) and spare.pid else SERVICES:
            state = states.get(name)
            health = service_health(self._home, name, state.pid) if state and state.pid else None
            words.append(f"{name} {summary(name, health) or health.get('status', '?') if health else 'away'}")
        return " · ".join(words)


def _ending(state: ProgramState, home: Home) -> str:
    if state.state == "FATAL":
        return failure(state, home).message
    return "has ended by itself and stays so"
