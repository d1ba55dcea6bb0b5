"""Markets that come and go while the connector runs: found by lists or by what is said, and given up again."""

from pathlib import Path

import pytest

from ssmd.feeds.kalshi.commands import BOOK_CHANNEL
from ssmd.feeds.kalshi.session import DEFAULT_CHANNELS
from ssmd.market.events import OrderBookUpdate
from ssmd.simulator.options import SimulatorOptions
from tests.flow.stack import Stack, capture

SHORT_LIVES = SimulatorOptions(rate=1500, window_s=2, heartbeat_s=1.0, strikes=2)
"""Six markets open every two seconds, and close as many; they are determined a little later."""


@pytest.fixture(autouse=True)
def _determined_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssmd.simulator.window._DETERMINE_NS", 200_000_000)
    monkeypatch.setattr("ssmd.simulator.window._SETTLE_NS", 400_000_000)


def asked_for(stack: Stack) -> set[str]:
    """The books that the connector asks for."""
    if stack.connector.health()["status"] == "starting":
        return set()
    connection = stack.connector._connections.current
    return set() if connection is None else set(connection.conversation.session.requested_tickers)


def books(stack: Stack) -> set[str]:
    """The books in the connector's memory."""
    connection = stack.connector._connections.current
    assert connection is not None
    events = connection.conversation.mapper.snapshots()
    return {event.ticker for event in events if isinstance(event, OrderBookUpdate)}


def open_now(stack: Stack) -> set[str]:
    """The markets that trade."""
    return {str(row["ticker"]) for row in stack.simulator.source.markets() if row["status"] == "active"}


async def follow_three_windows(stack: Stack) -> set[str]:
    """Run until three more windows of markets were open, each subscribed; all markets that were."""
    seen: set[str] = set()
    for _ in range(3):
        before = open_now(stack)
        await stack.until(lambda before=before: not before & open_now(stack))  # type: ignore[misc]
        now = open_now(stack)
        await stack.until(lambda now=now: now <= asked_for(stack) and now <= books(stack), 5)  # type: ignore[misc]
        seen |= now
    return seen


async def test_what_is_said_of_markets_is_followed_between_two_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssmd.connector.markets.LIST_EVERY_S", 3600.0)
    async with capture(tmp_path, SHORT_LIVES) as stack:
        stack.start_connector()
        stack.start_archiver()
        await stack.until(lambda: asked_for(stack) >= open_now(stack))
        listed = stack.connector._markets.tickers
        assert listed
        seen = await follow_three_windows(stack)

        closed = seen - open_now(stack)
        assert closed
        await stack.until(lambda: not closed & asked_for(stack) and not closed & books(stack), 5)
        assert not stack.connector._markets.tickers & listed  # what the one list had is given up as well
        await stack.finish()

        result = stack.check()
        assert not result.findings, result.table()
        assert result.missing == 0


@pytest.mark.parametrize("channels", [(BOOK_CHANNEL,), DEFAULT_CHANNELS], ids=["lists-alone", "both"])
async def test_lists_bring_new_markets_and_take_closed_ones_away_and_what_was_heard_is_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: tuple[str, ...]
) -> None:
    monkeypatch.setattr("ssmd.connector.markets.LIST_EVERY_S", 0.1)
    monkeypatch.setattr("ssmd.connector.heard.RECORD_EVERY_S", 0.05)  # also what no list has yet
    async with capture(tmp_path, SHORT_LIVES) as stack:
        stack.channels = channels
        stack.start_connector()
        await stack.until(lambda: bool(asked_for(stack)))
        seen = await follow_three_windows(stack)

        closed = seen - open_now(stack)
        await stack.until(lambda: not closed & asked_for(stack) and not closed & books(stack), 5)
        await stack.finish()

        assert closed <= {market.ticker for market in stack.registry.markets("kalshi")}
        silent = {market.ticker for market in stack.registry.never_heard("kalshi")}
        assert not silent & seen  # what was heard was written down at the latest at the end
        result = stack.check(trades=False)
        assert not result.findings, result.table()
