"""A captured day beside the simulated exchange's own list of trades: none is missing, and a forged one is found."""

from pathlib import Path

import pytest

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


async def verified(stack: Stack, forget: bool = False) -> VerifyReport:
    parts = open_feed(FEED, stack.today)

    def read(item: object) -> ListedTrade | None:
        found = parts.listed_trade(item)
        if forget and found is not None and found.trade_id == first:
            return ListedTrade("forged", found.ticker, found.size, found.created_ns)
        return found

    rows = stack.simulator.source.trades()
    first = rows[len(rows) // 2]["trade_id"]
    async with KalshiRest(stack.simulator.rest_url) as client:
        return await verify(
            FEED, stack.today, stack.storage, stack.registry, raw_bucket=RAW, normalized_bucket=NORMALIZED,
            exchange=Exchange(client, read),
        )  # fmt: skip


async def test_all_trades_that_the_exchange_lists_are_archived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_trades, "MARGIN_NS", 200_000_000)
    async with capture(tmp_path, SimulatorOptions(rate=3000, window_s=60, heartbeat_s=1.0)) as stack:
        stack.start_connector()
        stack.start_archiver()
        await stack.until(lambda: stack.sent > 5000)
        await stack.finish()

        report = await verified(stack)
        assert [finding for finding in report.findings if finding.rule == "exchange_trades"] == []
        assert report.checks["exchange"].startswith("ran: "), report.checks
        assert report.counts["exchange_trades"] > 50

        forged = await verified(stack, forget=True)
        found = [finding for finding in forged.findings if finding.rule == "exchange_trades"]
        assert ["forged" in finding.message for finding in found] == [True]
