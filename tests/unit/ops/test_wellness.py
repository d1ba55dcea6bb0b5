"""When a service is well, and whether it is its own fault when it is not."""

from typing import Any

import pytest

from ssmd.ops.telling import why_not
from ssmd.ops.wellness import Finding, await_well, exit_code, judge, judge_public

WELL = {"status": "ok", "connected": True, "books_ready": True}


@pytest.mark.parametrize(
    ("service", "health", "verdict", "said"),
    [
        ("connector", WELL, "ok", ""),
        ("connector", None, "unwell", "does not answer"),
        ("connector", {"status": "starting"}, "away", "not connected to the exchange: no answer yet"),
        ("connector", WELL | {"status": "degraded", "connected": False, "problem": "refused"}, "away", "refused"),
        ("connector", WELL | {"books_ready": False}, "unwell", "books are not there yet"),
        ("connector", WELL | {"status": "degraded", "trouble": {"registry": "gone"}}, "away", "registry: gone"),
        ("connector", WELL | {"status": "degraded", "trouble": {"spool": "is full"}}, "unwell", "spool: is full"),
        (
            "connector", WELL | {"status": "degraded", "trouble": {"spool": "is full", "stream": "behind"}},
            "unwell", "spool: is full; stream: behind",
        ),
        ("archiver", {"status": "ok", "stream": "s1", "inventory": "ok"}, "ok", ""),
        ("archiver", {"status": "degraded", "stream": "", "inventory": "ok"}, "unwell", "does not follow the stream"),
        ("archiver", {"status": "degraded", "stream": "", "problems": {"broker": "gone"}}, "away", "broker: gone"),
        ("archiver", {"status": "degraded", "stream": "s", "inventory": "database away"}, "away", "database away"),
        ("gateway", {"status": "ok"}, "ok", ""),
        (
            "gateway", {"status": "degraded", "dependencies": {"registry": {"state": "away", "error": "no route"}}},
            "away", "registry is away: no route",
        ),
        ("gateway", {"status": "degraded", "books": {"waiting": 3}}, "unwell", "3 books wait for their snapshot"),
        ("gateway", {"status": "down", "dependencies": {"transport": {"state": "away"}}}, "away", "transport is away"),
    ],
)  # fmt: skip
def test_the_verdict_says_whose_fault_it_is(
    service: str, health: dict[str, Any] | None, verdict: str, said: str
) -> None:
    found, reasons = judge(service, health)

    assert found == verdict
    assert said in "; ".join(reasons)
    assert bool(reasons) == (verdict != "ok")


def test_a_gateway_whose_port_does_not_answer_is_not_well() -> None:
    assert judge_public(None) == ("unwell", ["its port does not answer GET /v1/health"])


def test_a_service_that_is_not_well_weighs_more_than_a_server_that_is_away() -> None:
    def found(*verdicts: Any) -> list[Finding]:
        return [Finding(service="gateway", program="gateway", verdict=verdict) for verdict in verdicts]

    assert exit_code(found("ok", "ok")) == 0
    assert exit_code(found("ok", "away")) == 7
    assert exit_code(found("away", "unwell")) == 3


def test_the_wait_is_bounded_and_ends_as_soon_as_all_is_well() -> None:
    now, looks = [0.0], [0]

    def look(well_at: int) -> list[Finding]:
        looks[0] += 1
        return [Finding(service="gateway", program="gateway", verdict="ok" if looks[0] >= well_at else "unwell")]

    def pause(seconds: float) -> None:
        now[0] += seconds

    assert exit_code(await_well(lambda: look(4), 60.0, pause, lambda: now[0])) == 0
    assert (looks[0], now[0]) == (4, 1.5)
    looks[0], now[0] = 0, 0.0
    assert exit_code(await_well(lambda: look(10_000), 60.0, pause, lambda: now[0])) == 3
    assert now[0] == 60.0
    looks[0], now[0] = 0, 0.0
    await_well(lambda: look(10_000), 0.0, pause, lambda: now[0])
    assert looks[0] == 1


def test_troubles_are_words_and_no_structures() -> None:
    health = {"connected": True, "problem": "", "trouble": {"stream": "the broker is behind", "key": "refused"}}

    assert why_not(health) == "key: refused; stream: the broker is behind"
