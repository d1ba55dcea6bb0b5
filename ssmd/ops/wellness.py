"""Are all services of the day well: each one's own word, and whose fault it is when it is not."""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any, Literal, TypeAlias

import msgspec

from ssmd.errors import EXIT_DONE, EXIT_REFUSED, EXIT_UNAVAILABLE
from ssmd.ops.days import DayOf
from ssmd.ops.programs import SERVICES, SLOTS, Crash, Programs, ProgramState
from ssmd.ops.steps import instances
from ssmd.ops.telling import why_not
from ssmd.service_state import PlannedStop

Verdict: TypeAlias = Literal["ok", "unwell", "away", "stopped"]

_LOOK_S = 0.5
_OUTSIDE = frozenset(("registry", "stream", "storage", "exchange", "broker"))
"""Troubles of a service that are another server's: waiting helps, a restart does not."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One service. `away`: it does its part, and something that it needs does not answer.

    `stopped`: it does not run, since an operator stopped it. `restarts`: how often its process ended by itself today
    (UTC), the last time as `last_crash` says.
    """

    service: str
    program: str
    verdict: Verdict
    reasons: list[str] = []
    day: date | None = None
    next: date | None = None
    since: datetime | None = None
    role: str = ""
    facts: dict[str, Any] = {}
    restarts: int = 0
    last_crash: Crash | None = None


def examine(
    programs: Programs, recorded: Mapping[str, DayOf], gateway: Callable[[], Mapping[str, Any] | None]
) -> list[Finding]:
    """All services now; `gateway` asks for its public health document, as a client would."""
    states = programs.states()
    found = [finding for service in SERVICES for finding in _service(service, programs, states, recorded, gateway)]
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    crashes = programs.crashes(today)
    return [_with_crashes(one, [crash for crash in crashes if crash.program == one.program]) for one in found]


def await_well(
    look: Callable[[], list[Finding]],
    wait_s: float,
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> list[Finding]:
    """Look until all is well, or until `wait_s` have passed: then what it is like at last."""
    deadline = clock() + wait_s
    while True:
        found = look()
        if exit_code(found) == EXIT_DONE or clock() >= deadline:
            return found
        pause(_LOOK_S)


def exit_code(findings: list[Finding]) -> int:
    """0 all are well; 3 a service is not, or was stopped; 7 the services are, but something they need is away."""
    verdicts = {finding.verdict for finding in findings}
    if verdicts & {"unwell", "stopped"}:
        return EXIT_REFUSED
    return EXIT_UNAVAILABLE if "away" in verdicts else EXIT_DONE


def _service(
    service: str,
    programs: Programs,
    states: Mapping[str, ProgramState],
    recorded: Mapping[str, DayOf],
    gateway: Callable[[], Mapping[str, Any] | None],
) -> list[Finding]:
    running = instances(service, states, recorded)
    if not running:
        state = states.get(service)
        if planned := _stop_order(service, programs, states):
            return [Finding(service=service, program=service, verdict="stopped", reasons=[str(planned)])]
        how = f"it is {state.state.lower()}" if state else "there is no such program"
        return [Finding(service=service, program=service, verdict="unwell", reasons=[f"does not run: {how}"])]
    found = []
    for one in running:
        health = programs.health(one.program, one.state.pid) if one.state.pid else None
        verdict, reasons = judge(service, health)
        if service == "gateway" and verdict == "ok":
            verdict, reasons = judge_public(gateway())
        said = health or {}
        role = str(said.get("role") or "")
        found.append(
            Finding(
                service=service, program=one.program, verdict=verdict, reasons=reasons, day=one.day.day, role=role,
                facts=_numbers(said), next=one.day.next, since=one.state.started or one.day.since,
            )
        )  # fmt: skip
    if service == "connector" and len(found) > 1 and all(one.role == "standby" for one in found):
        found[0] = msgspec.structs.replace(found[0], verdict="unwell", reasons=["no connector is active"])
    return found


def _stop_order(service: str, programs: Programs, states: Mapping[str, ProgramState]) -> PlannedStop | None:
    """The order by which the last of its programs was stopped; None where that one ended in another way."""
    ended = {state.ended: state.name for name in SLOTS[service] if (state := states.get(name)) and state.ended}
    return programs.planned(ended[max(ended)]) if ended else None


def _with_crashes(one: Finding, crashes: list[Crash]) -> Finding:
    return msgspec.structs.replace(one, restarts=len(crashes), last_crash=crashes[-1]) if crashes else one


def judge(service: str, health: Mapping[str, Any] | None) -> tuple[Verdict, list[str]]:
    """What a service's own health document amounts to."""
    if not health:
        return "unwell", ["does not answer"]
    if service == "gateway":
        return _judge_gateway(health)
    troubles = dict(health.get("trouble") or {}) | dict(health.get("problems") or {})
    if health.get("inventory") not in (None, "ok"):
        troubles["registry"] = health["inventory"]
    reasons = [f"{name}: {said}" for name, said in sorted(troubles.items())]
    inside = [name for name in troubles if name not in _OUTSIDE]
    if service == "connector":
        if not health.get("connected"):
            return "away", [f"not connected to the exchange: {health.get('problem') or 'no answer yet'}", *reasons]
        if health.get("books_ready") is False:
            return "unwell", ["its books are not there yet", *reasons]
    if service == "archiver" and not health.get("stream"):
        inside = inside or ([] if troubles else ["stream"])
        reasons = reasons or ["does not follow the stream yet"]
    if inside:
        return "unwell", reasons
    if troubles:
        return "away", reasons
    return ("ok", []) if health.get("status") == "ok" else ("unwell", [why_not(health)])


def judge_public(document: Mapping[str, Any] | None) -> tuple[Verdict, list[str]]:
    """The gateway's health document as its clients get it; None: they get nothing."""
    if document is None:
        return "unwell", ["its port does not answer GET /v1/health"]
    return _judge_gateway(document)


def _judge_gateway(document: Mapping[str, Any]) -> tuple[Verdict, list[str]]:
    status = document.get("status")
    if status == "ok":
        return "ok", []
    dependencies: Mapping[str, Mapping[str, Any]] = document.get("dependencies") or {}
    away = [
        f"{name} is away" + (f": {one['error']}" if one.get("error") else "")
        for name, one in sorted(dependencies.items())
        if one.get("state") == "away"
    ]
    if away:
        return "away", away
    waiting = (document.get("books") or {}).get("waiting")
    return "unwell", [f"{waiting} books wait for their snapshot" if waiting else f"its status is {status}"]


def _numbers(health: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("tickers", "frames", "gaps", "taken_seq", "acked_seq", "clients", "books_ready")
    return {key: health[key] for key in keys if key in health}
