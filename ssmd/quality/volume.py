"""The archive's trades beside those that the exchange lists over REST, market by market.

Compared is the time that was captured: without two seconds at its ends and at each gap, and only from the oldest trade
that the exchange still lists. What cannot be asked is not compared, and says so.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ssmd.clock import NS_PER_S
from ssmd.errors import SsmdError, TransientError
from ssmd.feeds.interface import ListedTrade
from ssmd.market.events import SCALE, Gap
from ssmd.quality.export import opened
from ssmd.quality.facts import frame
from ssmd.quality.rows import PIECE
from ssmd.quality.sampling import rank
from ssmd.registry.values import day_bounds

MARGIN_NS = 2 * NS_PER_S
MAX_MARKETS = 50
MAX_WITHOUT = 10
"""So many markets without a trade here are asked about, too; each day others."""
MAX_TRADES = 50_000
"""So many of the archive's trades are compared, at most: the exchange gives a thousand a request."""
COLUMNS = (
    "ticker", "exchange_trades", "archived_trades", "missing", "only_archived", "exchange_contracts",
    "archived_contracts", "missing_ids", "compared_from", "compared_to",
)  # fmt: skip

Interval = tuple[int, int]


class Lister(Protocol):
    """The exchange's list of trades (`FeedParts.new_rest`)."""

    def trades(
        self, ticker: str | None = None, min_ts: int | None = None, max_ts: int | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Public trades of a market between two times in Unix seconds, newest first."""
        ...


class NotAsked(Exception):
    """The exchange could not be asked, or had nothing to say; the message says why."""


async def volume_rows(
    lister: Lister,
    read: Callable[[object], ListedTrade | None],
    files: Sequence[Path],
    counts: Mapping[str, int],
    captured: Interval,
    gaps: Sequence[Gap],
    day: date,
) -> pd.DataFrame:
    """The batch `volume`: of the markets with the most trades (`counts`), as many as can be asked in good time.

    `counts` has all markets that anybody knows of; of those without a trade some are chosen by the date. NotAsked when
    the exchange is away, refuses or no longer lists the day's trades.
    """
    chosen = _chosen(counts, day)
    times = _times(captured, gaps, day)
    if not chosen or not times:
        raise NotAsked("there is no trade of a time that was captured without a gap")
    first, last = times[0][0], times[-1][1]
    listed: dict[str, list[ListedTrade]] = {}
    try:
        for ticker in chosen:
            items = lister.trades(ticker, first // NS_PER_S, -(-last // NS_PER_S))
            listed[ticker] = [trade async for item in items if (trade := read(item)) is not None]
    except TransientError as error:
        raise NotAsked(f"the exchange could not be asked: {error.message}") from error
    except SsmdError as error:
        raise NotAsked(f"the exchange's answer cannot be used: {error.message}") from error
    oldest = min((trade.created_ns for trades in listed.values() for trade in trades), default=None)
    if oldest is None:
        raise NotAsked("the exchange lists no trade of that time any more")
    archived = _archived(files, set(chosen))
    return _compare(chosen, listed, archived, [(max(start, oldest), end) for start, end in times if end > oldest])


def _chosen(counts: Mapping[str, int], day: date) -> list[str]:
    chosen: list[str] = []
    total = 0
    traded = {ticker: count for ticker, count in counts.items() if count}
    for ticker, count in sorted(traded.items(), key=lambda item: (-item[1], item[0])):
        if len(chosen) == MAX_MARKETS or (chosen and total + count > MAX_TRADES):
            break
        chosen.append(ticker)
        total += count
    return chosen + sorted(counts.keys() - traded.keys(), key=lambda ticker: rank(day, ticker))[:MAX_WITHOUT]


def _times(captured: Interval, gaps: Sequence[Gap], day: date) -> list[Interval]:
    """The times that can be compared, in order."""
    start, end = max(captured[0], day_bounds(day)[0]) + MARGIN_NS, min(captured[1], day_bounds(day)[1]) - MARGIN_NS
    found = []
    for gap in sorted(gaps, key=lambda gap: gap.from_ns):
        if gap.to_ns + MARGIN_NS <= start or gap.from_ns - MARGIN_NS >= end:
            continue
        if gap.from_ns - MARGIN_NS > start:
            found.append((start, gap.from_ns - MARGIN_NS))
        start = max(start, gap.to_ns + MARGIN_NS)
    return [*found, (start, end)] if start < end else found


def _archived(files: Sequence[Path], tickers: set[str]) -> dict[str, dict[str, tuple[int, int]]]:
    """(exchange time, size) of the archive's trades by market and id."""
    found: defaultdict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
    wanted = pa.array(sorted(tickers))
    for file in files:
        with opened(file) as parquet:
            for batch in parquet.iter_batches(PIECE, columns=["ticker", "trade_id", "exchange_time", "size"]):
                names = batch.column("ticker").cast(pa.string())
                some = batch.filter(pc.is_in(names, wanted))
                times = some.column("exchange_time").cast(pa.int64())
                for ticker, trade_id, at, size in zip(
                    *(some.column(name).to_pylist() for name in ("ticker", "trade_id")),
                    times.to_pylist(), some.column("size").to_pylist(), strict=True,
                ):  # fmt: skip
                    found[ticker][trade_id] = at or 0, int(size * SCALE)
    return found


def _compare(
    chosen: Sequence[str],
    listed: Mapping[str, Sequence[ListedTrade]],
    archived: Mapping[str, Mapping[str, tuple[int, int]]],
    times: Sequence[Interval],
) -> pd.DataFrame:
    rows = []
    for ticker in chosen:
        own = archived.get(ticker, {})
        theirs = {trade.trade_id: trade for trade in listed[ticker] if _within(trade.created_ns, times)}
        ours = {trade_id: size for trade_id, (at, size) in own.items() if _within(at, times) or trade_id in theirs}
        missing = sorted(theirs.keys() - own.keys())
        rows.append(
            {
                "ticker": ticker, "exchange_trades": len(theirs), "archived_trades": len(ours),
                "missing": len(missing), "only_archived": len(ours.keys() - theirs.keys()),
                "exchange_contracts": sum(trade.size for trade in theirs.values()) / SCALE,
                "archived_contracts": sum(ours.get(trade_id, 0) for trade_id in theirs) / SCALE,
                "missing_ids": ", ".join(missing[:5]),
                "compared_from": times[0][0] if times else 0, "compared_to": times[-1][1] if times else 0,
            }
        )  # fmt: skip
    return frame(rows, COLUMNS)


def _within(at: int, times: Sequence[Interval]) -> bool:
    return any(start <= at < end for start, end in times)
