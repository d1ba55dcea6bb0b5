"""Which markets were heard from in the life of this process, and which were asked for in vain."""

import asyncio
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime

import structlog

from ssmd import telemetry as metrics
from ssmd.clock import NS_PER_S, now_ns
from ssmd.connector.pipeline import Pipeline
from ssmd.errors import TransientError
from ssmd.registry.interface import Registry

RECORD_EVERY_S = 60.0
PATIENCE_NS = 60 * NS_PER_S
"""A market is expected to be heard this soon after it was asked for: its snapshot comes at once."""
MAX_KEPT = 200_000
_SHOWN = 5

log = structlog.get_logger(component="connector")


class Heard:
    """Asked for minus heard. The pipeline notes a market when its first event of a kind comes, not for each frame."""

    def __init__(self, feed: str, pipeline: Pipeline, registry: Registry) -> None:
        self._feed = feed
        self._pipeline = pipeline
        self._registry = registry
        self._heard: set[str] = set()
        self._unrecorded: dict[str, None] = {}
        self._requested: frozenset[str] = frozenset()
        self._waiting: dict[str, int] = {}  # asked for and not heard: since when
        self._silent: set[str] = set()
        self.never = 0
        """Markets asked for since more than 60 s from which no event ever came."""

    def listed(self, tickers: AbstractSet[str]) -> None:
        """The registry knows these now; before, what was heard of them could not be written down."""
        self._unrecorded.update(dict.fromkeys(tickers & self._heard))

    def measure(self, requested: frozenset[str], now: int) -> None:
        """Take in what was heard, and compare it with what is asked for now; call about once a second."""
        self._take(requested)
        if requested != self._requested:
            for ticker in self._requested - requested:
                self._waiting.pop(ticker, None)
            for ticker in requested - self._requested:
                if ticker not in self._heard:
                    self._waiting[ticker] = now
            self._requested = requested
        silent = {ticker for ticker, asked_ns in self._waiting.items() if now - asked_ns > PATIENCE_NS}
        if silent - self._silent:
            log.warning("markets never heard", count=len(silent), first=sorted(silent)[:_SHOWN])
        self._silent, self.never = silent, len(silent)
        metrics.CONNECTOR_NEVER_HEARD.labels(self._feed).set(self.never)

    def _take(self, requested: frozenset[str]) -> None:
        new, self._pipeline.newly_heard = self._pipeline.newly_heard, []
        for ticker in new:
            if ticker not in self._heard:
                self._heard.add(ticker)
                self._unrecorded[ticker] = None
                self._waiting.pop(ticker, None)
        if len(self._heard) > MAX_KEPT:
            self._heard &= requested
            self._pipeline.note_again()  # should one that is forgotten here be asked for again
        if len(self._unrecorded) > MAX_KEPT:
            log.warning("heard markets not written down, registry away for too long", count=len(self._unrecorded))
            self._unrecorded.clear()

    async def follow(self) -> None:
        """Write the newly heard markets down, each minute, until cancelled."""
        while True:
            await asyncio.sleep(RECORD_EVERY_S)
            await self.record()

    async def record(self) -> None:
        """Write the newly heard markets down; what cannot be written waits."""
        tickers = list(self._unrecorded)
        if not tickers:
            return
        at = datetime.fromtimestamp(now_ns() / NS_PER_S, UTC)
        try:
            await asyncio.to_thread(self._registry.record_heard, self._feed, tickers, at)
        except TransientError:  # the registry tells of its troubles itself
            return
        for ticker in tickers:
            self._unrecorded.pop(ticker, None)
