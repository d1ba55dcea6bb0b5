"""Start and stop one service for a day, by the rules of the handover; each step may be repeated at any time."""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any, Literal, TypeAlias

import msgspec

from ssmd.errors import FatalError, RefusedError, Unavailable
from ssmd.ops.days import DayOf, Days
from ssmd.ops.programs import SLOTS, Programs, ProgramState
from ssmd.service_state import Farewell

Handover: TypeAlias = Literal["overlap", "strict"]
Done: TypeAlias = Literal["started", "runs already", "noted", "stopped", "restarted", "nothing to stop"]

START_S = 60.0
"""A service has this long until it does its job: a connector of many markets needs its time for the books."""
STOP_S = 30.0
"""A drain that takes longer has failed; the supervisor then ends the process."""
RESTART_S, STOPPED_S = 3, 60
"""After so many seconds the clients of the gateway should come back: from a restart, and from a stop for good."""
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
            self._days.note(newest.program, service, msgspec.structs.replace(newest.day, next=day))
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
        self._days.note(program, service, DayOf(day=day, since=datetime.now(UTC), by=self._by))
        self._programs.start(program)
        return self._await_ready(service, program)

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
        ending = [one for one in running if one.day.day <= day]
        staying = [one for one in running if one.day.day > day]
        if not ending:
            said = f"{_of_days(staying)} stays" if staying else "it does not run"
            program = staying[-1].program if staying else service
            return _step(service, day, "nothing to stop", program, f"nothing of {day} runs: {said}")
        later = max((one.day.next for one in ending if one.day.next and one.day.next > day), default=None)
        findings: list[str] = []
        facts: dict[str, Any] = {}
        for one in ending:
            self._tell(service, later)
            left, wrong = self._end(service, one)
            facts[one.program] = left
            findings += wrong
        program = ending[-1].program
        if later is not None and not staying:
            facts["started"] = self._launch(service, program, later)
            detail = f"drained and stopped for {day}; {program} runs for {later} now"
            return _step(service, day, "restarted", program, _with(facts[program], detail), findings, facts)
        after = f"{_of_days(staying)} goes on" if staying else f"no {service} runs now"
        detail = _with(facts[program], f"drained and stopped: {after}")
        return _step(service, day, "stopped", program, detail, findings, facts)

    def _tell(self, service: str, later: date | None) -> None:
        """Have the clients of the gateway told why it goes, and when to come back."""
        if service != "gateway":
            return
        restarted = Farewell(f"the gateway is restarted for {later}; connect again in a few seconds", RESTART_S)
        stopped = Farewell("the gateway is stopped by an operator; try again once a minute", STOPPED_S)
        self._programs.farewell_to_clients(service, restarted if later else stopped)

    def _end(self, service: str, one: Instance) -> tuple[dict[str, Any], list[str]]:
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


def ready(service: str, health: Mapping[str, Any]) -> bool:
    """Does it do its job? A connector: it captures with all books, as the active one or beside it."""
    if service == "connector":
        return bool(health.get("connected")) and health.get("books_ready", True) is not False
    if service == "gateway":
        return health.get("status") in ("ok", "degraded")
    return health.get("status") == "ok"


def why_not(health: Mapping[str, Any]) -> str:
    """What a service itself says is missing, in a few words."""
    if not health:
        return "it does not answer yet"
    parts = [str(health.get(key)) for key in ("problem", "trouble", "problems") if health.get(key)]
    if health.get("connected") is False:
        parts.append("not connected to the exchange")
    elif health.get("books_ready") is False:
        parts.append("its books are not there yet")
    return "; ".join(parts) or f"its status is {health.get('status', 'unknown')}"


def facts_of(health: Mapping[str, Any]) -> dict[str, Any]:
    """The few words of a health answer that an operator wants in a step's answer."""
    keys = ("status", "role", "books_ready", "connection", "tickers", "taken_seq", "acked_seq", "clients")
    return {key: health[key] for key in keys if health.get(key) not in (None, "")}


def last_facts(service: str, before: Mapping[str, Any], end: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What a drained service left: counts and names from its last word, and findings (what it could not store)."""
    facts: dict[str, Any] = {}
    findings: list[str] = []
    if service == "archiver":
        facts = {key: end[key] for key in ("segments", "taken_seq", "acked_seq") if key in end}
        if isinstance(end.get("segments"), int) and isinstance(before.get("segments"), int):
            facts["drained_segments"] = end["segments"] - before["segments"]
        if end.get("taken_seq") != end.get("acked_seq"):
            findings.append("the archiver could not store all it had taken; the stream keeps it for the next one")
    elif service == "connector":
        facts = {key: end[key] for key in ("frames", "last_segment", "last_gap", "gaps", "role") if key in end}
        if end.get("waiting_segments"):
            findings.append(f"{end['waiting_segments']} spool segments wait to be sealed; the next connector does it")
    else:
        facts = {"clients": before.get("clients", 0), "clients_left": end.get("clients", 0)}
    return facts, findings


def _with(facts: Mapping[str, Any], detail: str) -> str:
    """`detail`, and the numbers that belong to it."""
    words = {
        "drained_segments": "{} segments stored while it drained",
        "last_segment": "last segment {}",
        "last_gap": "gap recorded: {}",
        "clients": "{} clients were told",
    }
    said = [text.format(facts[key]) for key, text in words.items() if facts.get(key) not in (None, "")]
    return f"{detail} ({', '.join(said)})" if said else detail


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
