"""Questions about markets that other exchanges name in their own way: prefixes, categories, titles, strikes."""

from typing import Any

import pytest

from ssmd.registry.interface import Market
from tests.unit.gateway.questions.asking import Asking


def listed(
    ticker: str, series: str, title: str, category: str = "Test", status: str = "active", strike: float | None = None
) -> Market:
    raw: dict[str, Any] = {} if strike is None else {"strike_type": "greater", "floor_strike": strike}
    return Market(
        ticker, ticker.rpartition("-")[0], title, status, "2026-11-22T18:00:00Z", "2026-11-22T18:15:00Z", "", raw,
        series_ticker=series, category=category,
    )  # fmt: skip


BTC, ETH = "TEST-BTC15M-26NOV221815-T83900.00", "TEST-ETH15M-26NOV221815-T2500.00"
LOW, MIDDLE, HIGH = (f"TEST-GOLD15M-26NOV221815-T{strike}" for strike in ("4170.00", "4180.00", "4190.00"))
ABOVE, BELOW, CLOSED = "KXGOLD15M-26AUG101900-00", "KXGOLD15M-26AUG101930-30", "KXGOLD15M-26AUG101945-45"
NFL, ESPORTS = "KXMVENFLSINGLEGAME-S2026A-B1", "KXMVESPORTSMULTIGAMEEXTENDED-S2026B-C1"
UP = "Gold price up in next 15 mins?"
MARKETS = [
    listed(BTC, "TEST-BTC15M", "TEST-BTC15M at or above 83900.00?"),
    listed(ETH, "TEST-ETH15M", "TEST-ETH15M at or above 2500.00?"),
    *(listed(ticker, "TEST-GOLD15M", f"TEST-GOLD15M at or above {ticker[-7:]}?") for ticker in (LOW, MIDDLE, HIGH)),
    listed(ABOVE, "KXGOLD15M", UP, "Commodities", strike=4181.5),
    listed(BELOW, "KXGOLD15M", UP, "Commodities", strike=4179.5),
    listed(CLOSED, "KXGOLD15M", UP, "Commodities", "closed"),
    listed(NFL, "KXMVENFLSINGLEGAME", "yes Chicago,yes over 40.5", "Exotics"),
    listed(ESPORTS, "KXMVESPORTSMULTIGAMEEXTENDED", "yes A,yes B", ""),
]


@pytest.mark.parametrize(
    ("question", "tickers"),
    [
        ("gold over 4180", {MIDDLE, HIGH, ABOVE}),
        ("gold under 4180", {MIDDLE, LOW, BELOW}),
        ("gold above 4175 and below 4185", {MIDDLE, ABOVE, BELOW}),
        ("gold 4180", {MIDDLE}),
        ("gold over 5000", set()),
        ("What prediction markets about Bitcoin are trading today?", {BTC}),
        ("ethereum markets", {ETH}),
        ("crypto markets", {BTC, ETH}),
        ("NFL markets", {NFL}),
        ("esports multi game markets", {ESPORTS}),
        ("gold price up in next 15 mins", {ABOVE, BELOW, CLOSED}),
        ("Gold price up in the next 15 minutes?", {ABOVE, BELOW, CLOSED}),
        ("bitcoin markets in category Test", {BTC}),
        ("markets in category Test", {BTC, ETH, LOW, MIDDLE, HIGH}),
        ("closed gold 15 minute markets from August 10", {CLOSED}),
    ],
)
async def test_markets_are_found_by_the_names_that_an_exchange_gives_them(question: str, tickers: set[str]) -> None:
    assert set(await Asking(MARKETS).tickers(question)) == tickers


async def test_where_no_market_has_the_number_the_nearest_strikes_are_called_so() -> None:
    answer = await Asking(MARKETS).ask("gold 4183")
    assert answer.filters["strike_nearest"] == 4183
    assert "nearest" in answer.interpretation
    assert answer.results[0].ticker == ABOVE


@pytest.mark.parametrize(
    "question", ["cancelled markets", "markets with status nope", "bitcoin markets that were voided"]
)
async def test_a_status_that_no_market_can_have_is_told_with_those_there_are(question: str) -> None:
    answer = await Asking(MARKETS).ask(question)
    assert (answer.understood, answer.results) == (False, [])
    assert any("finalized" in line for line in answer.suggestions)
