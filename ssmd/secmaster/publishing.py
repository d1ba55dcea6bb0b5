"""Tell of changes: every one as a journal entry, and those of a market's state as events into the feed's stream.

The registry remembers how far this has come; what was not told is told by the next sync. Entries and events carry ids
that are a function of the registry's rows, so that telling again is harmless for as long as the servers remember ids.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

import msgspec
import structlog

from ssmd.clock import NS_PER_S
from ssmd.errors import DataError
from ssmd.feeds.catalogue import FeedParts
from ssmd.market.events import SECMASTER, MarketStatus, Status
from ssmd.market.subjects import subject
from ssmd.middleware.journal.interface import Journal, NewEntry
from ssmd.middleware.transport.interface import Outgoing, Publisher, Transport, TransportUnavailable
from ssmd.registry.market_changes import JournalItem
from ssmd.registry.market_search import Settlement
from ssmd.wire.normalized import encode

BATCH = 1_000
MAX_TEXT_BYTES = 300_000
"""Bytes of an old or new value in an entry's JSON; a longer one is cut, and the registry has it whole."""
PATIENCE_S = 10.0
"""How long the broker may acknowledge nothing."""
LISTED = "listed"
"""The kind of a change that is a new market, without history."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SETTLING = (Status.DETERMINED, Status.SETTLED)


log = structlog.get_logger(component="secmaster")


class Unpublished(Protocol):
    """What the registry still has to tell (`registry.security_master.SecurityMaster`)."""

    def unpublished(self, feed: str, limit: int) -> Sequence[JournalItem]:
        """The oldest changes that were not told, at most `limit`."""
        ...

    def mark_published(self, feed: str, last_market_id: int, last_history_id: int) -> None:
        """Everything up to these ids was told."""
        ...


class Settlements(Protocol):
    """How markets were settled (`registry.market_search.MarketSearch`)."""

    def settlements(self, feed: str, tickers: Sequence[str]) -> Mapping[str, Settlement]:
        """Result and value by ticker."""
        ...


class Told(NamedTuple):
    """How much was told: journal entries, status events."""

    entries: int
    events: int


class Teller:
    """Tells what is unpublished. `topic` is the journal's; the feed's stream is opened when an event needs it."""

    def __init__(
        self,
        parts: FeedParts,
        master: Unpublished,
        settlements: Settlements,
        journal: Journal,
        topic: str,
        transport: Transport,
    ) -> None:
        self._parts = parts
        self._master = master
        self._settlements = settlements
        self._journal = journal
        self._topic = topic
        self._transport = transport
        self._publisher: Publisher | None = None
        self._sent = 0
        self.told = Told(0, 0)
        """What was told so far; right also after an error."""

    async def tell(self) -> Told:
        """Tell everything; Unavailable when journal or broker is away (what was told until then is marked)."""
        try:
            while True:
                items = await asyncio.to_thread(self._master.unpublished, self._parts.feed, BATCH)
                if not items:
                    return self.told
                await self._tell(items)
        finally:
            if self._publisher is not None:
                await self._publisher.close()
                self._publisher = None

    async def _tell(self, items: Sequence[JournalItem]) -> None:
        if self.told.entries == 0:
            await self._journal.create_topic(self._topic)
        feed = self._parts.feed
        await self._append(items)
        messages = await asyncio.to_thread(self._messages, items)
        if messages:
            await self._send(messages)
        last_market = max((item.market_id for item in items if item.kind == LISTED), default=0)
        last_change = max((item.history_id for item in items), default=0)
        await asyncio.to_thread(self._master.mark_published, feed, last_market, last_change)
        self.told = Told(self.told.entries + len(items), self.told.events + len(messages))

    async def _append(self, items: Sequence[JournalItem]) -> None:
        """All of them, in order; an entry that this journal does not take is told without its values."""
        feed = self._parts.feed
        try:
            await self._journal.append_all(self._topic, [entry(feed, item) for item in items])
        except DataError as error:
            if len(items) > 1:
                middle = len(items) // 2
                await self._append(items[:middle])
                await self._append(items[middle:])
                return
            log.warning("told without its values", ticker=items[0].ticker, field=items[0].field, reason=error.message)
            await self._journal.append_all(self._topic, [entry(feed, items[0], bare=True)])

    def _messages(self, items: Sequence[JournalItem]) -> list[Outgoing]:
        changed = [item for item in items if item.kind != LISTED and item.field == "status"]
        settled = [item.ticker for item in changed if self._parts.status_of(item.new or "") in _SETTLING]
        outcomes = self._settlements.settlements(self._parts.feed, settled) if settled else {}
        found = []
        for item in changed:
            try:
                token = subject(self._parts.feed, "status", item.ticker)
            except DataError:  # it cannot be captured either; the journal has it
                continue
            event = self._event(item, outcomes.get(item.ticker))
            found.append(Outgoing(token.encode(), f"{SECMASTER}:{_identity(item)}".encode(), encode(event)))
        return found

    def _event(self, item: JournalItem, outcome: Settlement | None) -> MarketStatus:
        status = self._parts.status_of(item.new or "")
        if status not in _SETTLING or outcome is None:
            outcome = Settlement("", "")
        return MarketStatus(
            exchange_ns=_ns(item.changed_at),
            received_ns=_ns(item.known_from),
            ticker=item.ticker,
            connection=SECMASTER,
            sid=0,
            seq=0,
            status=status,
            result=outcome.result,
            settlement_value=self._parts.settlement_millionths(outcome.value),
        )

    async def _send(self, messages: Sequence[Outgoing]) -> None:
        """Into the stream; returns when all are stored there."""
        if self._publisher is None:
            await self._transport.ensure_stream(self._parts.feed)
            self._publisher = await self._transport.publisher(self._parts.feed)
        publisher, left = self._publisher, list(messages)
        target = self._sent + len(messages)
        while publisher.acked < target:
            if left and (room := publisher.room):
                now, left = left[:room], left[room:]
                publisher.send(now)
                continue
            before = publisher.acked
            try:
                await asyncio.wait_for(publisher.wait(), PATIENCE_S)
            except TimeoutError as error:
                if publisher.acked == before:
                    raise TransportUnavailable(
                        f"the broker stored {before - self._sent} of {len(messages)} status events in time"
                    ) from error
        self._sent = target


def entry(feed: str, item: JournalItem, *, bare: bool = False) -> NewEntry:
    """The journal entry of a change: JSON, keyed by ticker, its id a function of the registry's row.

    `cut` says that its values are not whole; a `bare` one has none.
    """
    old, new = (None, None) if bare else (_cut(item.old), _cut(item.new))
    said: dict[str, Any] = {
        "feed": feed, "ticker": item.ticker, "event_ticker": item.event_ticker, "change": item.kind,
        "field": item.field, "old": old, "new": new,
        "changed_at": item.changed_at, "known_from": item.known_from, "evidence": item.evidence,
    }  # fmt: skip
    if (old, new) != (item.old, item.new):
        said["cut"] = True
    return NewEntry(item.ticker, f"{feed}:{_identity(item)}", msgspec.json.encode(said))


def _identity(item: JournalItem) -> str:
    """The same at every attempt; with the time, since a database made anew counts its rows from 1 again."""
    return f"{item.id}:{_ns(item.known_from)}"


def _cut(value: str | None) -> str | None:
    while value is not None and len(msgspec.json.encode(value)) > MAX_TEXT_BYTES:
        value = value[: len(value) * 3 // 4]
    return value


def _ns(at: datetime) -> int:
    whole = at - _EPOCH
    return (whole.days * 86_400 + whole.seconds) * NS_PER_S + whole.microseconds * 1_000
