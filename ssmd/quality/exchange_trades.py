"""The trades that raw gives beside those that the exchange itself lists: what it lists and we lack is a finding.

Asked about are the busiest markets of the day, and others chosen by its date, those without a trade here among them.
Compared is the time that was captured, without the recorded gaps and two seconds around them; not what the exchange has
forgotten. Where nothing could be compared, the check says that it did not run, and why.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple, Protocol

from ssmd.archive.layout import TickerObject
from ssmd.archive.normalize import TickerFile
from ssmd.archive.spill import Spill
from ssmd.clock import NS_PER_S, iso
from ssmd.errors import SsmdError, TransientError
from ssmd.feeds.interface import ListedTrade
from ssmd.market.events import Gap, Trade
from ssmd.quality.findings import Findings
from ssmd.quality.recount import Numbers
from ssmd.quality.sampling import rank
from ssmd.registry.values import day_bounds
from ssmd.wire.normalized import decode

BUSIEST, OTHERS = 20, 20
MAX_TRADES = 100_000
"""So many trades of ours are compared at most, beyond the busiest market: the exchange gives a thousand a request."""
MARGIN_NS = 2 * NS_PER_S
IDS_SHOWN = 5

Span = tuple[int, int]


class Lister(Protocol):
    """The exchange's list of trades (`FeedParts.new_rest`)."""

    def trades(
        self, ticker: str | None = None, min_ts: int | None = None, max_ts: int | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Public trades of a market between two times in Unix seconds, newest first."""
        ...


class Exchange(NamedTuple):
    """Whom to ask, and how its answers are read (`FeedParts.listed_trade`)."""

    lister: Lister
    read: Callable[[object], ListedTrade | None]


class Archived(NamedTuple):
    """Trades of the markets that are asked about (id → the exchange's time), and the times that were captured."""

    trades: Mapping[str, Mapping[str, int]]
    captured: Sequence[Span]
    gaps: Sequence[Gap]


class Compared(NamedTuple):
    """What came of it: in the words of `VerifyReport.checks`; `away`: the exchange may answer later."""

    word: str
    away: bool = False


def markets_to_ask(day: date, trades: Mapping[str, int]) -> list[str]:
    """Of all tickers of the day, with the numbers of their trades: the busiest, then some by lot."""
    by_size = sorted(trades, key=lambda ticker: (-trades[ticker], ticker))
    busy: list[str] = []
    total = 0
    for ticker in by_size[:BUSIEST]:
        if busy and total + trades[ticker] > MAX_TRADES:
            continue
        busy.append(ticker)
        total += trades[ticker]
    left = sorted(set(by_size) - set(busy), key=lambda ticker: rank(day, ticker))
    some = [ticker for ticker in left if total + trades[ticker] <= MAX_TRADES][:OTHERS]
    return busy + some


def captured_spans(day: date, numbers: Mapping[str, Numbers]) -> list[Span]:
    """When at least one connection was up."""
    first, end = day_bounds(day)
    spans: list[Span] = []
    for start, stop in sorted((max(its.first_ns, first), min(its.last_ns, end)) for its in numbers.values()):
        if spans and start <= spans[-1][1]:
            spans[-1] = spans[-1][0], max(spans[-1][1], stop)
        else:
            spans.append((start, stop))
    return spans


def trades_of(feed: str, day: date, events: Spill, tickers: Sequence[str]) -> dict[str, dict[str, int]]:
    """The trades in `events` (a day's, made from raw) of some tickers."""
    found: dict[str, dict[str, int]] = {}
    for ticker in tickers:
        mine = found[ticker] = {}
        for message in TickerFile(TickerObject(feed, "trade", day, ticker), events):
            event = decode("trade", message)
            if isinstance(event, Trade):
                mine[event.trade_id] = event.exchange_ns or event.received_ns
    return found


async def compare(exchange: Exchange, archived: Archived, findings: Findings) -> Compared:
    """Ask, and add a finding for each market of which trades are missing here."""
    spans = [(start + MARGIN_NS, stop - MARGIN_NS) for start, stop in archived.captured]
    spans = [span for span in spans if span[0] < span[1]]
    if not archived.trades or not spans:
        return Compared("not run: nothing was captured that could be compared")
    listed: dict[str, list[ListedTrade]] = {}
    try:
        for ticker in archived.trades:
            items = exchange.lister.trades(ticker, spans[0][0] // NS_PER_S, -(-spans[-1][1] // NS_PER_S))
            listed[ticker] = [its async for item in items if (its := exchange.read(item)) is not None]
    except TransientError as error:
        return Compared(f"not run: the exchange does not answer: {error.message}", away=True)
    except SsmdError as error:
        return Compared(f"not run: the exchange's answer cannot be used: {error.message}")
    oldest = min((its.created_ns for trades in listed.values() for its in trades), default=None)
    if oldest is None:
        return Compared("not run: the exchange lists no trade of that time, or none any more")
    return _compare(archived, listed, [(max(start, oldest), stop) for start, stop in spans if stop > oldest], findings)


def _compare(
    archived: Archived, listed: Mapping[str, Sequence[ListedTrade]], spans: Sequence[Span], findings: Findings
) -> Compared:
    both = only_here = missing = 0
    lost: list[tuple[str, str]] = []
    for ticker, ours in archived.trades.items():
        gaps = [gap for gap in archived.gaps if gap.tickers is None or ticker in gap.tickers]
        theirs = {its.trade_id: its.created_ns for its in listed[ticker] if _counts(its.created_ns, spans, gaps)}
        lacking = sorted((at, trade_id) for trade_id, at in theirs.items() if trade_id not in ours)
        if lacking:
            ids = ", ".join(trade_id for _, trade_id in lacking[:IDS_SHOWN])
            more = ", …" if len(lacking) > IDS_SHOWN else ""
            said = f"{len(lacking)} of {len(theirs)} trades that the exchange lists are missing"
            lost.append((ticker, f"{said}, from {iso(lacking[0][0])} on, and no gap says so: {ids}{more}"))
        known = {its.trade_id for its in listed[ticker]}
        missing += len(lacking)
        both += len(theirs) - len(lacking)
        only_here += sum(trade_id not in known and _counts(at, spans, gaps) for trade_id, at in ours.items())
    if not both and not missing:
        return Compared("not run: of the time that was captured the exchange lists no trade any more")
    if not both and only_here:
        return Compared(f"not run: the exchange lists none of the {only_here} trades here: is it the same one?")
    for ticker, message in lost:
        findings.add("exchange_trades", ticker, message)
    if only_here:
        findings.notes.append(f"{only_here} trades are here that the exchange does not list")
    findings.counts["exchange_markets"] = len(listed)
    findings.counts["exchange_trades"] = both + missing
    return Compared(f"ran: {both + missing:,} trades of {len(listed)} markets that the exchange lists")


def _counts(at: int, spans: Sequence[Span], gaps: Sequence[Gap]) -> bool:
    """Was a trade of that time to be captured?"""
    return any(start <= at < stop for start, stop in spans) and not any(
        gap.from_ns - MARGIN_NS <= at <= gap.to_ns + MARGIN_NS for gap in gaps
    )
