"""Questions to a database that is silent: one waits, the next ones are told at once, until it speaks again."""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date, timedelta

import pytest

from ssmd.gateway import catalogue as catalogue_module
from ssmd.gateway.catalogue import Catalogue
from ssmd.market.events import Gap
from ssmd.registry.interface import Market, RegistryUnavailable
from ssmd.registry.memory import MemoryRegistry

TODAY = date(2026, 11, 22)
WAIT_S = 0.2


class SilentRegistry(MemoryRegistry):
    """A registry whose server can be there and say nothing, as a stopped process."""

    def __init__(self) -> None:
        super().__init__()
        self.speaks = threading.Event()
        self.speaks.set()
        self.slow = threading.Event()
        self.slow.set()

    def _speak(self) -> None:
        assert self.speaks.wait(20)

    def market(self, feed: str, ticker: str) -> Market | None:
        self._speak()
        assert self.slow.wait(20)
        return super().market(feed, ticker)

    def gaps(self, feed: str, day: date, last: date | None = None) -> list[Gap]:
        self._speak()
        return super().gaps(feed, day, last)

    def ping(self) -> None:
        self._speak()


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[SilentRegistry]:
    monkeypatch.setattr(catalogue_module, "ANSWER_S", WAIT_S)
    silent = SilentRegistry()
    yield silent
    silent.speaks.set()
    silent.slow.set()


async def seconds_until_told(catalogue: Catalogue) -> float:
    began = asyncio.get_running_loop().time()
    with pytest.raises(RegistryUnavailable):
        await catalogue.gaps(TODAY)
    return asyncio.get_running_loop().time() - began


async def answer(catalogue: Catalogue) -> list[Gap]:
    """Ask until it is told."""
    while True:
        try:
            return await catalogue.gaps(TODAY)
        except RegistryUnavailable:
            await asyncio.sleep(0.005)


async def test_after_one_question_timed_out_the_next_ones_are_told_at_once(registry: SilentRegistry) -> None:
    catalogue = Catalogue("kalshi", registry)
    registry.speaks.clear()
    assert await seconds_until_told(catalogue) >= WAIT_S * 0.9
    for _ in range(10):
        assert await seconds_until_told(catalogue) < WAIT_S / 4
    assert not catalogue.available
    registry.speaks.set()  # the end of the loop waits for its threads


async def test_a_silent_database_is_asked_again_as_soon_as_it_speaks(registry: SilentRegistry) -> None:
    catalogue = Catalogue("kalshi", registry)
    registry.speaks.clear()
    await seconds_until_told(catalogue)
    registry.speaks.set()
    async with asyncio.timeout(5):
        assert await answer(catalogue) == []


async def test_one_slow_question_keeps_no_other_from_its_answer(registry: SilentRegistry) -> None:
    catalogue = Catalogue("kalshi", registry)
    registry.slow.clear()
    with pytest.raises(RegistryUnavailable):
        await catalogue.market("KXBTC")
    async with asyncio.timeout(WAIT_S):
        assert await answer(catalogue) == []
    registry.slow.set()


class CountingRegistry(MemoryRegistry):
    """Counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[str] = Counter()

    def market(self, feed: str, ticker: str) -> Market | None:
        self.asked["market"] += 1
        return super().market(feed, ticker)

    def unknown_tickers(self, feed: str, tickers: Sequence[str]) -> list[str]:
        self.asked["unknown_tickers"] += 1
        return super().unknown_tickers(feed, tickers)

    def gaps(self, feed: str, day: date, last: date | None = None) -> list[Gap]:
        self.asked["gaps"] += 1
        return super().gaps(feed, day, last)


async def test_a_thousand_tickers_and_a_year_of_gaps_are_one_question_each() -> None:
    registry = CountingRegistry()
    catalogue = Catalogue("kalshi", registry)
    await catalogue.ping()

    tickers = [f"KX{number}" for number in range(1_024)]
    assert await catalogue.unlisted(tickers) == tickers
    assert await catalogue.gaps_of_days([TODAY - timedelta(days=n) for n in range(366, -1, -1)]) == []

    assert registry.asked == {"unknown_tickers": 1, "gaps": 1}
