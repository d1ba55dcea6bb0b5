"""A captured day beside the simulated exchange's own list of trades: none is missing, and a forged one is found."""

from pathlib import Path

import pytest

from ssmd.clock import NS_PER_S, now_ns
from ssmd.feeds.catalogue import open_feed
from ssmd.feeds.interface import ListedTrade
from ssmd.feeds.kalshi.rest import KalshiRest
from ssmd.quality import exchange_trades
from ssmd.quality.exchange_trades import Exchange
from ssmd.quality.findings import VerifyReport
from ssmd.quality.verify import verify
from ssmd.simulator.options import SimulatorOptions
from tests.flow.stack import Stack, capture
from tests.kalshi_day import NORMALIZED
from tests.raw_archive import FEED, RAW

MARGIN_NS = NS_PER_S // 5


def amid(stack: Stack, since_ns: int) -> list[str]:
    """The trades since then that are far enough from the first and the last one to be compared."""
    listed = [open_feed(FEED, stack.today).listed_trade(row) for row in stack.simulator.source.trades()]
    trades = [trade for trade in listed if trade is not None]
    first, last = since_ns + 2 * MARGIN_NS, now_ns() - 2 * MARGIN_NS
    return [trade.trade_id for trade in trades if first < trade.created_ns < last]


async def verified(stack: Stack, forged: str = "") -> VerifyReport:
    parts = open_feed(FEED, stack.today)

    def read(item: object) -> ListedTrade | None:
        found = parts.listed_trade(item)
        if found is not None and found.trade_id == forged:
            return ListedTrade("forged", found.ticker, found.size, found.created_ns)
        return found

    async with KalshiRest(stack.simulator.rest_url) as client:
        return await verify(
            FEED, stack.today, stack.storage, stack.registry, raw_bucket=RAW, normalized_bucket=NORMALIZED,
            exchange=Exchange(client, read),
        )  # fmt: skip


async def test_all_trades_that_the_exchange_lists_are_archived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_trades, "MARGIN_NS", MARGIN_NS)
    async with capture(tmp_path, SimulatorOptions(rate=3000, window_s=60, heartbeat_s=1.0)) as stack:
        stack.start_connector()
        stack.start_archiver()
        await stack.until(lambda: stack.sent > 0)
        since_ns = now_ns()
        await stack.until(lambda: stack.sent > 5000 and len(amid(stack, since_ns)) > 50)
        chosen = amid(stack, since_ns)[25]  # before the end: the exchange goes on trading
        await stack.finish()

        report = await verified(stack)
        assert [finding for finding in report.findings if finding.rule == "exchange_trades"] == []
        assert report.checks["exchange"].startswith("ran: "), report.checks
        assert report.counts["exchange_trades"] > 50

        forged = await verified(stack, forged=chosen)
        found = [finding for finding in forged.findings if finding.rule == "exchange_trades"]
        assert ["forged" in finding.message for finding in found] == [True]
