"""Start and stop one service for a day, by the rules of the handover; each step may be repeated at any time."""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any, Literal, TypeAlias

import msgspec

from ssmd.errors import FatalError, RefusedError, Unavailable
from ssmd.ops.days import DayOf, Days
from ssmd.ops.programs import SLOTS, Programs, ProgramState
from ssmd.ops.telling import facts_of, last_facts, ready, why_not, with_numbers
from ssmd.service_state import Farewell, PlannedStop

Handover: TypeAlias = Literal["overlap", "strict"]
Done: TypeAlias = Literal["started", "runs already", "noted", "stopped", "restarted", "nothing to stop"]

START_S = 60.0
"""A service has this long until it does its job: a connector of many markets needs its time for the books."""
STOP_S = 30.0
"""A drain that takes longer has failed; the supervisor then ends the process."""
RESTART_S, STOPPED_S = 3, 60
"""After so many seconds the clients of the gateway should come back: from a restart, and from a stop for good."""
TAKEOVER_S = 15.0
"""A connector that was standby publishes after so many seconds at the latest, when the active one has left."""
_KILLED_S = 15.0
_RETRIES = 3
_LOOK_S = 0.1


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What a step did. `program` is the process it was about; `detail` one sentence for people; `seconds` it took."""

    service: str
    day: date
    done: Done
    program: str
    detail: str
    findings: list[str] = []
    facts: dict[str, Any] = {}
    seconds: float = 0.0


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """A program that runs, and the day it runs for."""

    state: ProgramState
    day: DayOf

    @property
    def program(self) -> str:
        """Its name."""
        return self.state.name


def instances(service: str, states: Mapping[str, ProgramState], recorded: Mapping[str, DayOf]) -> list[Instance]:
    """The programs of a service that run, the one of the earliest day first.

    One that no operation has started belongs to the UTC day on which its process began.
    """
    found = []
    for name in SLOTS[service]:
        state = states.get(name)
        if state is None or state.at_rest:
            continue
        began = state.started or datetime.now(UTC)
        found.append(Instance(state=state, day=recorded.get(name) or DayOf(day=began.date(), since=began, by="")))
    return sorted(found, key=lambda one: one.day.latest)


class Operator:
    """Does the steps. `by` is who asked; `pause` sleeps and `clock` counts seconds (tests have their own)."""

    def __init__(
        self,
        programs: Programs,
        days: Days,
        handover: Handover,
        by: str,
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._programs = programs
        self._days = days
        self._handover = handover
        self._by = by
        self._pause = pause
        self._clock = clock

    def start(self, service: str, day: date) -> Step:
        """Have the service run for `day`; see the module. Raises what keeps it from doing its job."""
        began = self._clock()
        with self._days.locked():
            running = instances(service, self._programs.states(), self._days.read().programs)
            for one in running:  # else a restart after midnight would move it into the next day
                self._days.note(one.program, one.day)
            step = self._start(service, day, running)
        return msgspec.structs.replace(step, seconds=round(self._clock() - began, 2))

    def stop(self, service: str, day: date) -> Step:
        """End what runs for `day` or an earlier one; a later day that was started goes on, or begins."""
        began = self._clock()
        with self._days.locked():
            running = instances(service, self._programs.states(), self._days.read().programs)
            step = self._stop(service, day, running)
        return msgspec.structs.replace(step, seconds=round(self._clock() - began, 2))

    # -- start --------------------------------------------------------------------------------------------------

    def _start(self, service: str, day: date, running: list[Instance]) -> Step:
        newest = running[-1] if running else None
        if newest is None:
            last = self._days.read().slots.get(service, service)
            program = last if last in self._programs.names else service
            facts = self._launch(service, program, day)
            return _step(service, day, "started", program, f"runs for {day}", facts=facts)
        if newest.day.latest >= day:
            facts = self._await_ready(service, newest.program)
            said = f"runs for {newest.day.latest} already, since {newest.state.started or newest.day.since:%H:%M:%S}"
            return _step(service, day, "runs already", newest.program, said, facts=facts)
        if self._handover == "strict":
            raise RefusedError(
                f"the {service} of {newest.day.day} still runs, and the handover is strict: stop it, then start",
                f"Run: ssmd ops stop {service} --date {newest.day.day}",
            )
        if len(SLOTS[service]) == 1:
            self._days.note(newest.program, msgspec.structs.replace(newest.day, next=day))
            return _step(
                service, day, "noted", newest.program,
                f"runs for {newest.day.day} until that day is stopped, then for {day}",
            )  # fmt: skip
        return self._start_beside(service, day, running)

    def _start_beside(self, service: str, day: date, running: list[Instance]) -> Step:
        """The connector of the next day, while the one of the day before still captures."""
        taken = {one.program for one in running}
        free = [name for name in SLOTS[service] if name in self._programs.names and name not in taken]
        if not free:
            them = ", ".join(f"{one.program} of {one.day.day}" for one in running)
            raise RefusedError(
                f"cannot start the {service} of {day}: there is no place for another one beside {them}",
                f"End the earlier day first: ssmd ops stop {service} --date {running[0].day.day}",
            )
        facts = self._launch(service, free[0], day)
        before = ", ".join(f"{one.program} of {one.day.day}" for one in running)
        return _step(service, day, "started", free[0], f"captures for {day} beside {before}", facts=facts)

    def _launch(self, service: str, program: str, day: date) -> dict[str, Any]:
        # noted first: a command that is killed here leaves a program of the right day
        self._days.note(program, DayOf(day=day, since=datetime.now(UTC), by=self._by))
        self._programs.start(program)
        facts = self._await_ready(service, program)
        self._days.note_slot(service, program)
        return facts

    def _await_ready(self, service: str, program: str) -> dict[str, Any]:
        """Wait until it does its job; what it then says of itself. Its own error when it ends instead."""
        deadline = self._clock() + START_S
        pids: set[int] = set()
        health: Mapping[str, Any] = {}
        while True:
            state = self._programs.states()[program]
            if state.at_rest and (state.state == "FATAL" or state.exit_code in (0, 2) or len(pids) >= _RETRIES):
                raise self._programs.failure(program)
            if state.pid:
                pids.add(state.pid)
                health = self._programs.health(program, state.pid) or health
                if ready(service, health):
                    return {**facts_of(health), "pid": state.pid}
            if self._clock() > deadline:
                raise Unavailable(
                    f"{program} was started and is not ready after {START_S:.0f} s: {why_not(health)}",
                    "It goes on trying. Look again: ssmd ops health. Its log: SSMD_HOME/log/"
                    f"{program}.log. Then run this again: it goes on waiting.",
                )
            self._pause(_LOOK_S)

    # -- stop ---------------------------------------------------------------------------------------------------

    def _stop(self, service: str, day: date, running: list[Instance]) -> Step:
        recorded = self._days.read().programs
        ending = [one for one in running if one.day.day <= day]
        staying = [one for one in running if one.day.day > day]
        wanted = [name for name in SLOTS[service] if name in recorded and recorded[name].day > day]
        if ending and wanted:
            self._ensure(service, wanted, staying)
        announced = [one.next for name in SLOTS[service] if (one := recorded.get(name)) and one.next]
        later = max((day_after for day_after in announced if day_after > day), default=None)
        if not ending and (staying or later is None):
            said = f"{_of_days(staying)} stays" if staying else "it does not run"
            program = staying[-1].program if staying else service
            return _step(service, day, "nothing to stop", program, f"nothing of {day} runs: {said}")
        return self._hand_over(service, day, ending, wanted or [one.program for one in staying], later)

    def _ensure(self, service: str, wanted: list[str], staying: list[Instance]) -> None:
        """A later day was started: its programs must do their job before the earlier day's ends, or there is a hole.

        One that has ended is started again. Raises what keeps it from its job; then nothing was stopped.
        """
        for program in wanted:
            if program not in {one.program for one in staying}:
                self._programs.start(program)
            self._await_ready(service, program)

    def _hand_over(
        self, service: str, day: date, ending: list[Instance], staying: list[str], later: date | None
    ) -> Step:
        """End the programs of the day; then those of the later day, if one was started, are on their own."""
        findings: list[str] = []
        facts: dict[str, Any] = {}
        program = ending[-1].program if ending else service
        for one in ending:
            self._tell(service, later)
            planned = PlannedStop(day=day, by=self._by, at=datetime.now(UTC), then=later)
            self._programs.note_planned(one.program, planned)
            facts[one.program], wrong = self._end(service, one, forget=later is None)
            findings += wrong
        left = facts.get(program, {})
        if later is not None:
            facts["started"] = self._launch(service, program, later)
            detail = f"drained and stopped for {day}; {program} runs for {later} now"
            return _step(service, day, "restarted", program, with_numbers(left, detail), findings, facts)
        if not staying:
            detail = with_numbers(left, f"drained and stopped: no {service} runs now")
            return _step(service, day, "stopped", program, detail, findings, facts)
        findings += self._await_active(staying)
        detail = with_numbers(left, f"drained and stopped: {', '.join(staying)} goes on")
        return _step(service, day, "stopped", program, detail, findings, facts)

    def _await_active(self, staying: list[str]) -> list[str]:
        """One that has captured beside the one that ended publishes now; a finding when it does not."""
        deadline = self._clock() + TAKEOVER_S
        while True:
            states = self._programs.states()
            roles = [(self._programs.health(name, states[name].pid) or {}).get("role", "active") for name in staying]
            if "active" in roles:
                return []
            if self._clock() > deadline:
                return [f"{', '.join(staying)} has not taken over after {TAKEOVER_S:.0f} s; see: ssmd ops health"]
            self._pause(_LOOK_S)

    def _tell(self, service: str, later: date | None) -> None:
        """Have the clients of the gateway told why it goes, and when to come back."""
        if service != "gateway":
            return
        again = "connect again in a few seconds: from_seq gives a gap, books come anew"  # fits a close frame
        restarted = Farewell(f"the gateway is restarted for {later}; {again}", RESTART_S)
        stopped = Farewell("the gateway is stopped by an operator; try again once a minute", STOPPED_S)
        self._programs.farewell_to_clients(service, restarted if later else stopped)

    def _end(self, service: str, one: Instance, *, forget: bool) -> tuple[dict[str, Any], list[str]]:
        """Stop one program; what it said at its end, and what was not well about it.

        FatalError when the process was still there after 30 s (then it was killed), or failed while it drained.
        """
        before = self._programs.health(one.program, one.state.pid) or {}
        began = self._clock()
        self._programs.stop(one.program)
        while not (state := self._programs.states()[one.program]).at_rest:
            if self._clock() - began > STOP_S + _KILLED_S:
                raise FatalError(
                    f"{one.program} (process {one.state.pid}) does not stop: it still runs after "
                    f"{STOP_S + _KILLED_S:.0f} s",
                    f"Look into its log; as the last resort: kill -9 {one.state.pid}",
                )
            self._pause(_LOOK_S)
        self._programs.farewell_to_clients(service, None)
        if forget:  # else the day that was announced to it is still to come
            self._days.forget(one.program)
        took = self._clock() - began
        farewell = self._programs.farewell(one.program, one.state.pid)
        if one.state.pid and (took > STOP_S or state.exit_code != 0 or farewell is None):
            raise FatalError(
                f"{one.program} did not stop as it should: after {took:.0f} s, exit code {state.exit_code}"
                + ("" if farewell is not None else ", and without a last word (it was killed, or not yet up)"),
                f"What it had not stored is in its spool or in the stream, and follows when a {service} runs again. "
                f"Its log: SSMD_HOME/log/{one.program}.log",
            )
        return last_facts(service, before, farewell or {})


def _of_days(found: list[Instance]) -> str:
    return ", ".join(f"{one.program} of {one.day.day}" for one in found)


def _step(
    service: str,
    day: date,
    done: Done,
    program: str,
    detail: str,
    findings: list[str] | None = None,
    facts: dict[str, Any] | None = None,
) -> Step:
    return Step(
        service=service, day=day, done=done, program=program, detail=detail, findings=findings or [], facts=facts or {}
    )
