"""Which markets are wanted: lists that grow, shrink, collapse and fail, and what the exchange says between them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import date
from pathlib import Path

import pytest

from ssmd.connector.exchange import Credentials, Exchange, Settings
from ssmd.connector.markets import ASK_AGAIN_S, DOUBT_S, EAGER_DOUBTS, ENDED_FOR_S, LIST_EVERY_S, Markets
from ssmd.errors import Unavailable
from ssmd.feeds.catalogue import open_feed
from ssmd.registry.interface import Market
from ssmd.registry.memory import MemoryRegistry

PARTS = open_feed("kalshi", date(2026, 11, 22))


def market(ticker: str, **raw: object) -> Market:
    """A listed market that trades."""
    return Market(ticker, "EVENT", "?", "active", None, None, "", {"ticker": ticker, **raw})


class Venue:
    """An exchange whose lists are set by hand, and a connector's Markets beside it; time passes when told to."""

    def __init__(self, *always: str, selects: Callable[[str], bool] = lambda _: True) -> None:
        self.now_s = 0.0
        self.answers: list[list[Market] | Unavailable] = []
        self.waits: list[float] = []
        self.new: list[str] = []
        self.gone: list[str] = []
        self.registry = MemoryRegistry()
        settings = Settings("kalshi", "raw", Path("spool"), 1, 1, 1, False, selects, always)
        exchange = Exchange(
            "ws://x", "test", "kalshi", lambda: Credentials(dict, "k"), PARTS.decoder, PARTS.new_mapper,
            PARTS.new_session, self, PARTS.volatile,
        )  # fmt: skip
        self.markets = Markets(settings, exchange, self.registry, self.new.extend, self.gone.extend, lambda: self.now_s)

    def lists(self, *tickers: str, after_s: float = LIST_EVERY_S) -> bool:
        """The next list; whether it was believed."""
        self.now_s += after_s
        self.markets.want(tickers)
        return self.markets.believe(len(tickers), self.markets.tickers.difference(tickers))

    async def open_markets(self) -> AsyncIterator[Market]:
        """See `MarketSource`."""
        answer = self.answers.pop(0)
        if isinstance(answer, Unavailable):
            raise answer
        for each in answer:
            if each.ticker == "CUT":
                raise Unavailable("the connection broke in the middle of the list")
            yield each

    async def follow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Until the answers are used up."""
        waiting = asyncio.sleep

        async def sleep(seconds: float) -> None:
            self.waits.append(seconds)
            self.now_s += seconds
            if not self.answers:
                raise asyncio.CancelledError
            await waiting(0)

        monkeypatch.setattr("ssmd.connector.markets.asyncio.sleep", sleep)
        with pytest.raises(asyncio.CancelledError):
            await self.markets.follow()


def test_a_newly_listed_market_is_subscribed_and_one_absent_from_two_lists_is_dropped() -> None:
    venue = Venue()
    venue.lists("A", "B", "C")
    venue.lists("B", "C", "D")
    assert (venue.new, venue.gone) == (["A", "B", "C", "D"], [])
    assert venue.markets.tickers == {"A", "B", "C", "D"}

    venue.lists("B", "C", "D")
    assert venue.gone == ["A"]
    assert venue.markets.tickers == {"B", "C", "D"}


def test_one_list_that_lacks_a_market_drops_nothing() -> None:
    venue = Venue()
    for tickers in ("ABC", "AB", "ABC", "AB", "ABC"):
        venue.lists(*tickers)
    assert venue.gone == []


def test_a_collapsed_list_is_not_believed_however_often_it_comes_and_what_is_new_in_it_counts() -> None:
    venue = Venue()
    venue.lists(*"ABCDE")
    assert [venue.lists("A", "X", after_s=ASK_AGAIN_S) for _ in range(5)] == [False] * 5
    assert venue.markets.tickers == set("ABCDEX")
    assert venue.gone == []

    assert venue.lists(*"ABCX")  # recovered: the doubtful lists did not count as absences
    assert venue.gone == []
    assert venue.lists(*"ABCX")
    assert venue.gone == ["D", "E"]


def test_a_list_of_half_the_length_is_believed() -> None:
    venue = Venue()
    venue.lists(*"ABCD")
    assert venue.lists("A", "B")
    assert venue.lists("A", "B")
    assert venue.gone == ["C", "D"]


def test_a_list_that_stays_short_for_hours_is_believed_in_the_end_but_an_empty_one_never() -> None:
    venue = Venue()
    venue.lists(*"ABCDE")
    assert not venue.lists("A")
    assert venue.lists("A", after_s=DOUBT_S)
    assert venue.lists("A")
    assert venue.gone == ["B", "C", "D", "E"]

    assert [venue.lists(after_s=DOUBT_S) for _ in range(4)] == [False] * 4
    assert venue.markets.tickers == {"A"}


def test_what_the_exchange_says_is_over_is_given_up_at_once_and_not_wanted_again_by_an_older_list() -> None:
    venue = Venue()
    venue.lists("A", "B")
    venue.markets.ended(["A", "NEVER-WANTED"])
    assert venue.gone == ["A"]
    venue.lists("A", "B")
    assert venue.markets.tickers == {"B"}

    venue.lists("A", "B", after_s=ENDED_FOR_S + 1)  # listed as open still: it is open
    assert venue.markets.tickers == {"A", "B"}
    assert venue.new == ["A", "B", "A"]


def test_tickers_of_the_environment_are_wanted_whatever_is_listed_or_said() -> None:
    venue = Venue("MINE", selects=lambda ticker: ticker.startswith("K"))
    venue.lists("KA", "OTHER")
    venue.lists("KA")
    venue.lists("KA")
    venue.markets.ended(["MINE"])
    assert venue.markets.tickers == {"MINE", "KA"}
    assert (venue.new, venue.gone) == (["KA"], [])


async def test_lists_are_asked_for_each_minute_and_sooner_after_failures_and_doubts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    venue = Venue()
    venue.registry.upsert_markets("kalshi", [market("KNOWN")])
    five, one = [market(ticker) for ticker in "ABCDE"], [market("A")]
    venue.answers = [Unavailable("no answer"), five, *[one] * (EAGER_DOUBTS + 1), [], five]
    await venue.follow(monkeypatch)

    assert venue.waits == [
        ASK_AGAIN_S, LIST_EVERY_S, *[ASK_AGAIN_S] * EAGER_DOUBTS, LIST_EVERY_S, ASK_AGAIN_S, LIST_EVERY_S,
    ]  # fmt: skip
    assert venue.new == ["KNOWN", *"ABCDE"]  # what the registry knew, while the exchange did not answer
    assert venue.gone == ["KNOWN"]


async def test_listed_markets_are_written_down_and_trading_alone_changes_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    venue = Venue()
    volatile = min(PARTS.volatile)
    venue.answers = [
        [market("A", **{volatile: "1"}), market("B")],
        [market("A", **{volatile: "2"}), market("B")],
    ]
    await venue.follow(monkeypatch)
    assert {each.ticker for each in venue.registry.markets("kalshi")} == {"A", "B"}
    assert venue.markets.take_written() == {"A", "B"}
    assert venue.markets.take_written() == set()
    assert capsys.readouterr().out.count("changed=") == 1  # the second list changed no row


async def test_listed_markets_whose_tickers_no_subject_can_carry_are_left_out_and_the_others_captured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ssmd.connector.markets.PAGE", 2)
    venue = Venue()
    tickers = ["A", "L" * 200, "B", "-C", "\ud800", "", "KX\u00e9 1.5"]
    venue.answers = [[market(ticker) for ticker in tickers] for _ in range(2)]
    await venue.follow(monkeypatch)

    assert venue.waits == [LIST_EVERY_S, LIST_EVERY_S]
    assert venue.new == ["A", "B", "KX\u00e9 1.5"]
    assert venue.markets.left_out == 4
    assert {"A", "B", "KX\u00e9 1.5"} <= {each.ticker for each in venue.registry.markets("kalshi")}
    assert capsys.readouterr().out.count("markets left out, no subject") == 1


async def test_while_the_exchange_lists_nothing_all_markets_that_the_registry_knows_are_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ssmd.connector.markets.PAGE", 7)
    venue = Venue()
    known = [market(f"KX-{n:03d}") for n in range(50)]
    venue.registry.upsert_markets("kalshi", known)
    venue.answers = [Unavailable("no answer"), Unavailable("no answer")]
    await venue.follow(monkeypatch)
    assert venue.markets.tickers == {each.ticker for each in known}
    assert venue.new == sorted(venue.markets.tickers)


async def test_pages_before_a_failure_count_and_a_database_that_is_away_is_asked_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ssmd.connector.markets.PAGE", 2)
    venue = Venue()
    asked: list[int] = []

    def away(feed: str, markets: list[Market], volatile: frozenset[str]) -> int:
        asked.append(len(markets))
        raise Unavailable("the database is away")

    venue.answers = [[market(ticker) for ticker in ("A", "B", "CUT", "C")]]
    await venue.follow(monkeypatch)
    assert venue.markets.tickers == {"A", "B"}
    assert [each.ticker for each in venue.registry.markets("kalshi")] == ["A", "B"]
    assert venue.markets.take_written() == {"A", "B"}

    monkeypatch.setattr(venue.registry, "upsert_markets", away)
    venue.answers = [[market(ticker) for ticker in "ABCDE"]]
    await venue.follow(monkeypatch)
    assert venue.markets.tickers == set("ABCDE")
    assert asked == [2]
    assert venue.markets.take_written() == set()
