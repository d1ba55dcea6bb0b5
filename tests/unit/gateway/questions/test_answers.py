"""Questions in words: what is understood, that results are what the filters say, and that nothing is invented."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from ssmd.gateway.problems import ApiProblem
from ssmd.gateway.questions.grammar import read
from ssmd.gateway.questions.status import STATUSES
from ssmd.nearest import respelled
from ssmd.registry.interface import Market
from tests.data.question_markets import NOW, markets
from tests.unit.gateway.questions.asking import Asking

DATA = Path(__file__).parents[3] / "data"
RIGHT = 0.95


def expected(filters: dict[str, Any] | None) -> dict[str, Any] | None:
    """With days as moments, and words in any order."""
    if filters is None:
        return None
    return {
        key: f"{value}T00:00:00Z" if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value) and "_" in key
        else sorted(value) if key == "words" else value
        for key, value in filters.items()
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("questions", 150),
        ("questions_second", 60),
        ("questions_third", 30),
        ("questions_fourth", 25),
    ],
)
async def test_questions_are_understood_as_they_are_meant(name: str, least: int) -> None:
    asking = Asking()
    rows = yaml.safe_load((DATA / f"{name}.yaml").read_text())
    wrong = []
    for row in rows:
        answer = await asking.ask(row["q"])
        told = expected(answer.filters) if answer.understood else None
        if told != expected(row["f"]):
            wrong.append((row["q"], expected(row["f"]), told))
    assert len(rows) >= least
    assert len({row["q"] for row in rows}) == len(rows)
    assert 1 - len(wrong) / len(rows) >= RIGHT, wrong


async def test_what_is_not_understood_claims_nothing_and_says_what_can_be_asked() -> None:
    answer = await Asking().ask("colourless green ideas sleep furiously")
    assert not answer.understood
    assert (answer.filters, answer.results, answer.total) == ({}, [], 0)
    assert any("Bitcoin" in line for line in answer.suggestions)


async def test_all_results_are_what_the_filters_say() -> None:
    by_ticker = {market.ticker: market for market in markets()}
    asking = Asking()
    for row in yaml.safe_load((DATA / "questions.yaml").read_text()):
        answer = await asking.ask(row["q"])
        for result in answer.results:
            market, filters = by_ticker[result.ticker], answer.filters
            if "status" in filters:
                assert market.status in STATUSES[filters["status"]], row["q"]
            if "result" in filters:
                assert market.result == filters["result"], row["q"]
            if filters.get("exclude", {}).get("status"):
                assert market.status not in STATUSES[filters["exclude"]["status"]], row["q"]
            for key, told in (("settled", market.settled_at), ("open", market.open_time)):
                assert told is None or _inside(told, filters, key), (row["q"], result.ticker)


def _inside(told: str, filters: dict[str, Any], key: str) -> bool:
    at = datetime.fromisoformat(told)
    after, before = filters.get(f"{key}_after"), filters.get(f"{key}_before")
    return (after is None or at >= datetime.fromisoformat(after)) and (
        before is None or at < datetime.fromisoformat(before)
    )


async def test_the_market_that_is_meant_comes_first() -> None:
    asking = Asking()
    for question, ticker in (
        ("What's the current price of the S&P 4000 prediction market?", "INXD-25-B4000"),
        ("highest temperature in New York tomorrow", "KXHIGHNY-26NOV23-T50"),
        ("bitcoin above 100k today", "KXBTCD-26NOV2219-T100000"),
        ("Chiefs game", "KXNFLGAME-26NOV22KCDEN-KC"),
        ("Will Elon Musk visit Mars?", "KXELONMARS-99"),
        ("elon muks mars", "KXELONMARS-99"),
        ("bitcoin halving", "KXBTCHALF-28-MAY"),
        ("Arsenal match", "KXEPLGAME-26NOV22ARSTOT-ARS"),
        ("crypto markets closing soonest", "KXBTC15M-26NOV221815-15"),
    ):
        assert (await asking.tickers(question))[0] == ticker, question


async def test_a_day_in_a_name_is_the_day_of_a_market_unless_closing_is_asked() -> None:
    asking = Asking()
    assert await asking.tickers("NYC high temp today") == ["KXHIGHNY-26NOV22-T52"]  # closes on the 23rd, UTC
    assert await asking.tickers("NYC high temp markets closing tomorrow") == ["KXHIGHNY-26NOV22-T52"]


async def test_exclusions_leave_out_what_they_name_and_nothing_else() -> None:
    asking = Asking()
    crypto, without = await asking.tickers("crypto markets"), await asking.tickers("crypto markets except bitcoin")
    assert set(crypto) - set(without) == {ticker for ticker in crypto if ticker.startswith("KXBTC")}
    assert len(await asking.tickers("all markets")) == len(markets())


async def test_prices_are_those_heard_live_and_a_market_without_one_is_in_no_price_range() -> None:
    asking = Asking()
    asking.quote("KXBTCD-26NOV2219-T100000", 60)
    asking.quote("KXBTCD-26NOV2219-T99000", 61, spread=4)
    asking.quote("KXHIGHNY-26NOV22-T52", 95, volume=12_000, open_interest=500)
    assert await asking.tickers("bitcoin contracts above 60 cents") == ["KXBTCD-26NOV2219-T99000"]
    assert await asking.tickers("bitcoin contracts at least 60 cents") == [
        "KXBTCD-26NOV2219-T100000", "KXBTCD-26NOV2219-T99000",
    ]  # fmt: skip
    assert await asking.tickers("markets with more than 90% probability") == ["KXHIGHNY-26NOV22-T52"]
    assert await asking.tickers("markets where the no price is below 10 cents") == ["KXHIGHNY-26NOV22-T52"]
    assert await asking.tickers("spread of at least 4 cents") == ["KXBTCD-26NOV2219-T99000"]
    assert await asking.tickers("volume over 10k") == ["KXHIGHNY-26NOV22-T52"]
    assert await asking.tickers("open interest above 499") == ["KXHIGHNY-26NOV22-T52"]
    assert (await asking.tickers("most likely markets"))[0] == "KXHIGHNY-26NOV22-T52"
    assert (await asking.tickers("least likely bitcoin market"))[0] == "KXBTCD-26NOV2219-T100000"
    assert (await asking.ask("top 1 market by price above 10 cents")).filters["limit"] == 1


async def test_a_settlement_heard_live_counts_before_the_database_knows() -> None:
    asking = Asking()
    asking.settle("KXBTC15M-26NOV221815-15", "yes")
    assert "KXBTC15M-26NOV221815-15" not in await asking.tickers("open bitcoin markets")
    assert "KXBTC15M-26NOV221815-15" in await asking.tickers("settled bitcoin markets")


async def test_counts_are_exact_while_complete_and_more_is_said_when_there_may_be() -> None:
    asking = Asking()
    answer = await asking.ask("How many bitcoin markets are open?", limit=1)
    assert (answer.total, answer.complete, len(answer.results)) == (6, True, 1)
    many = [
        Market(f"KXBTCD-26NOV25-T{n}", "KXBTCD-26NOV25", f"Bitcoin above ${n}?", "active", None, None, "", {},
               series_ticker="KXBTCD", category="Crypto")
        for n in range(2_100)
    ]  # fmt: skip
    answer = await Asking(many).ask("how many bitcoin markets are open", limit=5)
    assert (answer.total, answer.complete) == (2_000, False)


async def test_open_markets_are_found_among_many_old_ones() -> None:
    old = [
        Market(f"KXBTCD-25JAN01-T{n}", "KXBTCD-25JAN01", f"Bitcoin above ${n}?", "finalized", None, None, "no", {},
               series_ticker="KXBTCD", category="Crypto")
        for n in range(2_500)
    ]  # fmt: skip
    found = await Asking([*old, *markets()]).tickers("bitcoin markets")
    assert found[0] == "KXBTC15M-26NOV221815-15"


async def test_a_mistyped_ticker_gets_its_near_miss_and_no_result() -> None:
    answer = await Asking().ask("price of KXBTCD-26NOV2219-T10000")
    assert answer.results == []
    assert any("KXBTCD-26NOV2219-T100000" in line for line in answer.suggestions)
    both = await Asking().tickers("KXBTCD-26NOV2219")  # an event
    assert both == ["KXBTCD-26NOV2219-T100000", "KXBTCD-26NOV2219-T99000"]


async def test_words_that_no_market_has_are_named_as_ignored() -> None:
    answer = await Asking().ask("bitcoin pizza markets")
    assert answer.understood
    assert answer.ignored == ["pizza"]
    assert "words" not in answer.filters
    assert "pizza" in answer.interpretation


async def test_unlisted_markets_are_in_no_answer() -> None:
    asking = Asking()
    asking.registry.unlist_markets("kalshi", ["KXELONMARS-99"])  # type: ignore[attr-defined]
    assert not (await asking.ask("Will Elon Musk visit Mars?")).understood


@pytest.mark.parametrize(
    "text",
    [
        "'; DROP TABLE markets; --", "bitcoin' OR '1'='1", "%", "%%%%", "_", "\\", "$" * 500, "9" * 500, "1," * 250,
        "not " * 125, "between " * 60, "a\ud800b", "\x1b[31mbitcoin", "١٢٣", "🚀🌕", "KX" + "A" * 400, "-" * 500,
        "A-B-" * 120, "99999999999999999999 cents", "in 99999999 days", "31 february", "2026-13-45", "99/99/2026",
        "bitcoin above 1e400", "q5 2026", "\u202ebitcoin", "in 9999999999999999999999 weeks", "top 000 markets",
        "((((((((((", "a" * 500, "over 1" * 83, "1/1/1", "0/0", "29 feb", "kx-", "markets after year 2099",
    ],
)  # fmt: skip
async def test_hostile_text_is_answered_like_any_other(text: str) -> None:
    answer = await Asking().ask(text)
    encoded = msgspec.json.encode(answer)
    assert len(encoded) < 2_000 + 1_000 * len(answer.results)
    assert answer.total == len(answer.results)


@pytest.mark.parametrize("text", ["", "b" * 501])
async def test_a_question_has_between_one_and_500_characters(text: str) -> None:
    with pytest.raises(ApiProblem) as problem:
        await Asking().ask(text)
    assert problem.value.status == 400


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("bitcion", "bitcoin"), ("teniss", "tennis"), ("tommorow", "tomorrow"), ("boil", ""), ("marble", "")],
)
def test_slips_are_forgiven_and_other_words_are_not_bent(typed: str, meant: str) -> None:
    assert respelled(typed, ["bitcoin", "tennis", "tomorrow", "gold", "market"]) == meant


@pytest.mark.parametrize(
    ("text", "now", "after", "before"),
    [
        ("markets closing this week", "2026-11-23T00:00", "2026-11-23", "2026-11-30"),
        ("markets closing this week", "2026-11-29T23:59", "2026-11-23", "2026-11-30"),
        ("markets closing next month", "2026-12-31T12:00", "2027-01-01", "2027-02-01"),
        ("markets closing tomorrow", "2028-02-28T12:00", "2028-02-29", "2028-03-01"),
        ("markets closing next quarter", "2026-11-22T18:00", "2027-01-01", "2027-04-01"),
        ("markets closing in January", "2026-11-22T18:00", "2027-01-01", "2027-02-01"),
        ("markets closing on January 5", "2026-12-30T18:00", "2027-01-05", "2027-01-06"),
        ("markets that closed last December", "2026-11-22T18:00", "2025-12-01", "2026-01-01"),
        ("markets closing on 5/12/2026", "2026-11-22T18:00", "2026-05-12", "2026-05-13"),
        ("markets closing on 15.12.2026", "2026-11-22T18:00", "2026-12-15", "2026-12-16"),
        ("markets closing on thanksgiving", "2026-11-22T18:00", "2026-11-26", "2026-11-27"),
        ("markets closing at the weekend", "2026-11-25T18:00", "2026-11-28", "2026-11-30"),
        ("markets closing today", "2026-11-22T23:59", "2026-11-22", "2026-11-23"),
    ],
)
def test_dates_are_those_of_the_clock_in_utc(text: str, now: str, after: str, before: str) -> None:
    span = read(text, datetime.fromisoformat(now).replace(tzinfo=UTC)).asked.close
    assert [f"{at:%Y-%m-%d}" for at in span if at] == [after, before]


def test_an_ambiguous_date_says_how_it_was_read() -> None:
    assert read("markets closing on 5/12/2026", NOW).notes == ("5/12/2026 is read as month/day",)
