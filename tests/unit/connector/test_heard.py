"""Listed but never heard: what was asked for in vain, and what the registry is told."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import cast

import pytest

from ssmd import telemetry as metrics
from ssmd.clock import NS_PER_S
from ssmd.connector import heard as module
from ssmd.connector.heard import Heard
from ssmd.connector.pipeline import Pipeline
from ssmd.errors import Unavailable
from ssmd.registry.interface import Market
from ssmd.registry.memory import MemoryRegistry


@dataclass
class Notes:
    """Of a pipeline, what `Heard` reads."""

    newly_heard: list[str] = field(default_factory=list)
    again: int = 0

    def note_again(self) -> None:
        self.again += 1


class Moody(MemoryRegistry):
    """A registry that can be away."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False

    def record_heard(self, feed: str, tickers: Sequence[str], at: datetime) -> None:
        if self.away:
            raise Unavailable("the database is away")
        super().record_heard(feed, tickers, at)


class Desk:
    def __init__(self) -> None:
        self.notes, self.registry, self.now_s = Notes(), Moody(), 0
        self.heard = Heard("kalshi", cast(Pipeline, self.notes), self.registry)

    def pass_time(self, seconds: int, *requested: str, heard: Sequence[str] = ()) -> int:
        """Some seconds later; how many were never heard."""
        self.now_s += seconds
        self.notes.newly_heard += heard
        self.heard.measure(frozenset(requested), self.now_s * NS_PER_S)
        assert metrics.CONNECTOR_NEVER_HEARD.labels("kalshi")._value.get() == self.heard.never
        return self.heard.never

    def write_list(self, *tickers: str) -> None:
        self.registry.upsert_markets(
            "kalshi", [Market(t, "E", "?", "active", None, None, "", {"ticker": t}) for t in tickers]
        )
        self.heard.listed(frozenset(tickers))

    def never_heard(self) -> list[str]:
        return [market.ticker for market in self.registry.never_heard("kalshi")]


def test_a_market_counts_when_it_was_asked_for_more_than_a_minute_ago_and_was_never_heard() -> None:
    desk = Desk()
    assert desk.pass_time(0, "A", "B", "C", heard=["A"]) == 0
    assert desk.pass_time(60, "A", "B", "C") == 0
    assert desk.pass_time(1, "A", "B", "C", "D") == 2
    assert desk.pass_time(1, "A", "B", "C", "D", heard=["B"]) == 1
    assert desk.pass_time(61, "A", "B", "C", "D") == 2
    assert desk.pass_time(1, "A", "B", "D") == 1  # nobody asks for C any more


def test_a_market_that_is_asked_for_anew_has_its_minute_again_but_keeps_what_was_heard() -> None:
    desk = Desk()
    desk.pass_time(0, "A", "B", heard=["A"])
    desk.pass_time(100)
    assert desk.pass_time(1, "A", "B") == 0
    assert desk.pass_time(61, "A", "B") == 1


async def test_newly_heard_markets_are_written_down_once_the_registry_is_there() -> None:
    desk = Desk()
    desk.write_list("A", "B")
    desk.pass_time(1, "A", "B", heard=["A"])
    desk.registry.away = True
    await desk.heard.record()
    assert desk.never_heard() == ["A", "B"]
    desk.registry.away = False
    await desk.heard.record()
    assert desk.never_heard() == ["B"]


async def test_a_market_heard_before_it_was_listed_is_written_down_when_it_is() -> None:
    desk = Desk()
    desk.pass_time(1, "EARLY", heard=["EARLY"])
    await desk.heard.record()  # the registry does not know it
    desk.write_list("EARLY")
    assert desk.never_heard() == ["EARLY"]
    await desk.heard.record()
    assert desk.never_heard() == []


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEPT", 10)
    desk = Desk()
    desk.pass_time(1, "KEPT", heard=["KEPT", *(f"T-{n}" for n in range(20))])
    assert desk.heard._heard == {"KEPT"}
    assert desk.notes.again == 1
    assert desk.pass_time(100, "KEPT", "T-1") == 0
    assert desk.pass_time(100, "KEPT", "T-1") == 1
