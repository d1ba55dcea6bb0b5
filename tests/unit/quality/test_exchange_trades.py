"""Which markets are asked about, and what their answers mean."""

from collections.abc import AsyncIterator
from datetime import date, timedelta
from typing import Any

import pytest

from ssmd.clock import NS_PER_S, day_start_ns
from ssmd.errors import DataError, SsmdError, Unavailable
from ssmd.feeds.interface import ListedTrade
from ssmd.market.events import Gap
from ssmd.quality.exchange_trades import (
    BUSIEST,
    MAX_TRADES,
    OTHERS,
    Archived,
    Compared,
    Exchange,
    captured_spans,
    compare,
    markets_to_ask,
)
from ssmd.quality.findings import Findings
from ssmd.quality.recount import Numbers
from ssmd.quality.sampling import Sample

DAY = date(2026, 11, 21)
START = day_start_ns(DAY)
HOUR = 3_600 * NS_PER_S


def at(second: float) -> int:
    return START + 12 * HOUR + int(second * NS_PER_S)


class Lists:
    """Trades by market; whole seconds go in and out, as the exchange takes them."""

    def __init__(self, *trades: tuple[str, str, float], error: SsmdError | None = None) -> None:
        self.listed = [ListedTrade(trade_id, ticker, 1, at(second)) for trade_id, ticker, second in trades]
        self.error = error

    async def trades(
        self, ticker: str | None = None, min_ts: int | None = None, max_ts: int | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        if self.error is not None:
            raise self.error
        assert min_ts is not None
        assert max_ts is not None
        for trade in self.listed:
            if trade.ticker == ticker and min_ts * NS_PER_S <= trade.created_ns <= max_ts * NS_PER_S:
                yield {"trade": trade}


def read(item: object) -> ListedTrade | None:
    assert isinstance(item, dict)
    found: ListedTrade = item["trade"]
    return found


async def ask(
    lists: Lists, ours: dict[str, dict[str, float]], *gaps: Gap, first: float = 0, last: float = 100
) -> tuple[Compared, Findings]:
    findings = Findings()
    trades = {ticker: {trade: at(second) for trade, second in held.items()} for ticker, held in ours.items()}
    said = await compare(Exchange(lists, read), Archived(trades, [(at(first), at(last))], gaps), findings)
    return said, findings


async def test_a_trade_that_only_the_exchange_has_is_a_finding_with_its_id() -> None:
    said, findings = await ask(Lists(("t1", "A", 10), ("t2", "A", 50), ("t3", "B", 50)), {"A": {"t1": 10}, "B": {}})

    assert said == Compared("ran: 3 trades of 2 markets that the exchange lists")
    assert [(found.rule, found.object) for found in findings.found] == [
        ("exchange_trades", "A"),
        ("exchange_trades", "B"),
    ]
    assert "1 of 2 trades" in findings.found[0].message
    assert "t2" in findings.found[0].message


@pytest.mark.parametrize(
    ("second", "excused"),
    [(9.0, True), (11.9, True), (12.5, False), (50, False), (58.5, True), (65, True), (71.9, True), (72.5, False)],
)
async def test_what_capture_could_not_have_is_excused(second: float, excused: bool) -> None:
    gap = Gap("kalshi", "c-1", None, at(60), at(70), "connection_lost")
    lists = Lists(("known", "A", 20), ("early", "A", 0), ("lost", "A", second))

    _, findings = await ask(lists, {"A": {"known": 20}}, gap, first=10)

    assert bool(findings.found) is not excused


async def test_a_gap_of_other_tickers_excuses_nothing() -> None:
    gap = Gap("kalshi", "c-1", 1, at(40), at(60), "sequence_gap", tickers=("B",))
    _, findings = await ask(Lists(("t1", "A", 20), ("t2", "A", 50)), {"A": {"t1": 20}}, gap)
    assert [found.object for found in findings.found] == ["A"]


async def test_what_the_exchange_has_forgotten_is_not_held_against_us_but_noted() -> None:
    lists = Lists(("t2", "A", 50), ("t3", "A", 60))
    said, findings = await ask(lists, {"A": {"t1": 10, "t2": 50, "t3": 60, "ours": 55}})

    assert said.word.startswith("ran: 2 trades")
    assert findings.found == []
    assert findings.notes == ["1 trades are here that the exchange does not list"]


@pytest.mark.parametrize(
    ("lists", "said", "away"),
    [
        (Lists(), "lists no trade of that time", False),
        (Lists(("x", "A", 50), ("y", "A", 51)), "is it the same one?", False),
        (Lists(error=Unavailable("GET /markets/trades: no answer")), "does not answer", True),
        (Lists(error=DataError("no list `trades`")), "cannot be used", False),
    ],
)
async def test_what_could_not_be_compared_did_not_run(lists: Lists, said: str, away: bool) -> None:
    compared, findings = await ask(lists, {"A": {"t1": 52, "t2": 53}})

    assert compared.word.startswith("not run: ")
    assert said in compared.word
    assert compared.away is away
    assert findings.found == []


async def test_without_capture_or_trades_nothing_is_compared() -> None:
    assert (await ask(Lists(("t1", "A", 1)), {"A": {}}, last=3))[0].word.startswith("not run")
    assert (await ask(Lists(), {}))[0].word.startswith("not run")


async def test_all_trades_of_a_dead_channel_are_missed() -> None:
    said, findings = await ask(Lists(("t1", "A", 50)), {"A": {}})
    assert said.word.startswith("ran")
    assert [found.rule for found in findings.found] == ["exchange_trades"]


def test_the_busiest_markets_and_some_by_lot_are_asked_about_each_day_others() -> None:
    trades = {f"KX{n:03}": 1_000 - n for n in range(500)} | {f"QUIET{n}": 0 for n in range(500)}

    chosen = markets_to_ask(DAY, trades)

    assert chosen[:BUSIEST] == [f"KX{n:03}" for n in range(BUSIEST)]
    assert len(chosen) == len(set(chosen)) == BUSIEST + OTHERS
    assert any(ticker.startswith("QUIET") for ticker in chosen)
    assert chosen == markets_to_ask(DAY, dict(reversed(trades.items())))
    assert chosen != markets_to_ask(DAY + timedelta(days=1), trades)


def test_the_number_of_trades_is_bounded_and_the_busiest_is_always_asked_about() -> None:
    chosen = markets_to_ask(DAY, {"HUGE": 10 * MAX_TRADES, "BIG": MAX_TRADES, "SMALL": 5})
    assert chosen == ["HUGE"]
    assert markets_to_ask(DAY, {"BIG": MAX_TRADES - 10, "NEXT": 20, "SMALL": 5}) == ["BIG", "SMALL"]


def test_capture_is_when_any_connection_was_up_within_the_day() -> None:
    def up(first: int, last: int) -> Numbers:
        numbers = Numbers()
        numbers.first_ns, numbers.last_ns = first, last
        return numbers

    spans = captured_spans(DAY, {"a": up(START - 5, START + HOUR), "b": up(START + 10, START + 2 * HOUR),
                                 "c": up(START + 3 * HOUR, START + 40 * HOUR)})  # fmt: skip
    assert spans == [(START, START + 2 * HOUR), (START + 3 * HOUR, START + 24 * HOUR)]


def test_a_sample_is_the_same_for_a_date_and_another_for_the_next() -> None:
    tickers = [f"KX{n}" for n in range(1_000)]
    sample = Sample.parse("5%")
    assert sample.choose(DAY, tickers) == sample.choose(DAY, reversed(tickers))
    assert len(sample.choose(DAY, tickers)) == 50
    assert sample.choose(DAY, tickers) != sample.choose(DAY + timedelta(days=1), tickers)
    assert sample.choose(DAY, ["one"]) == {"one"}
    assert sample.choose(DAY, []) == frozenset()
    assert len(Sample.parse("7").choose(DAY, tickers)) == 7
    assert Sample.parse("2000").choose(DAY, tickers) == frozenset(tickers)
