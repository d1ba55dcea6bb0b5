"""What the connector says about its work: metrics each second, counted problems to the registry."""

import contextlib

from ssmd import telemetry as metrics
from ssmd.clock import NS_PER_S, day_of, now_ns
from ssmd.connector.outbox import Outbox
from ssmd.connector.pipeline import Conversation, Pipeline
from ssmd.connector.sealer import Sealer
from ssmd.connector.spool import Spool
from ssmd.errors import TransientError
from ssmd.market.events import Gap
from ssmd.registry.interface import Registry
from ssmd.registry.unwritten import UnwrittenIssues
from ssmd.registry.values import counted_issue

_KNOWN_TYPES = frozenset(
    ("trade", "orderbook_snapshot", "orderbook_delta", "ticker", "market_lifecycle_v2", "event_lifecycle")
)
_NOT_RAW = frozenset(("not_published_spool_full",))
"""Problems of the live stream: the raw archive has the frames."""


class Report:
    """Counters as they were at the last report; issues wait here while the registry is away, one of a kind and day."""

    def __init__(self, feed: str, registry: Registry) -> None:
        self._feed = feed
        self._received: dict[str, int] = {}
        self._published = 0
        self._stored = (0, 0)
        self._problems: dict[str, int] = {}
        self._issues = UnwrittenIssues(registry)
        self.gap_count = 0

    def gap(self, gap: Gap) -> None:
        """A gap was recorded."""
        self.gap_count += 1
        metrics.CONNECTOR_GAPS.labels(self._feed, gap.reason).inc()

    def measure(
        self, pipeline: Pipeline, outbox: Outbox, spool: Spool, conversation: Conversation | None, sealer: Sealer
    ) -> None:
        """Update the metrics."""
        feed = self._feed
        for kind, count in pipeline.received.items():
            new = count - self._received.get(kind, 0)
            if new:
                metrics.CONNECTOR_RECEIVED.labels(feed, kind if kind in _KNOWN_TYPES else "other").inc(new)
                self._received[kind] = count
        acknowledged = pipeline.published - outbox.unacknowledged
        if acknowledged > self._published:
            metrics.CONNECTOR_PUBLISHED.labels(feed).inc(acknowledged - self._published)
            self._published = acknowledged
        files, size = sealer.objects_stored, sealer.bytes_stored
        metrics.RAW_FILES.labels(feed).inc(files - self._stored[0])
        metrics.RAW_BYTES.labels(feed).inc(size - self._stored[1])
        self._stored = (files, size)
        metrics.SPOOL_BYTES.labels(feed).set(spool.closed_bytes + spool.offset)
        metrics.CONNECTOR_CONNECTED.labels(feed).set(0 if conversation is None else 1)
        behind_ns = now_ns() - conversation.last_ns if outbox.behind and conversation and conversation.last_ns else 0
        metrics.CONNECTOR_LAG.labels(feed).set(behind_ns / NS_PER_S)
        if conversation is not None:
            session = conversation.session
            metrics.CONNECTOR_REQUESTED.labels(feed).set(len(session.requested_tickers))
            metrics.CONNECTOR_SUBSCRIBED.labels(feed).set(len(session.subscribed_tickers))
            metrics.CONNECTOR_HEARD.labels(feed).set(len(session.heard_tickers))
            metrics.CONNECTOR_STALE.labels(feed).set(len(conversation.mapper.stale_tickers))

    async def flush(self, pipeline: Pipeline, sealer: Sealer) -> None:
        """Write the problems since the last flush to the registry; what cannot be written waits."""
        today = day_of(now_ns())
        for kind, count in pipeline.problems.items():
            new = count - self._problems.get(kind, 0)
            if new:
                self._problems[kind] = count
                metrics.CONNECTOR_ERRORS.labels(self._feed, kind).inc(new)
                sample = pipeline.samples.pop(kind, b"").decode("utf-8", "backslashreplace")
                data_type = "normalized" if kind in _NOT_RAW else "raw"
                self._issues.add(counted_issue(self._feed, today, data_type, kind, new, sample))
        while sealer.issues:
            self._issues.add(sealer.issues.pop(0))
        with contextlib.suppress(TransientError):  # the registry tells of its troubles itself
            await self._issues.write()
