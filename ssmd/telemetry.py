"""What ssmd says about itself: JSON logs on stdout, and every Prometheus metric it exports, in one list."""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any, NamedTuple, TextIO, cast

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves it untyped

LATENCY_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Upper bounds for durations in seconds: from half a millisecond to the point where an operator is called."""

METRICS = CollectorRegistry()
"""The registry behind every `/metrics`; labels are bounded sets (never a ticker, never a client)."""

LOG_LINES_LOST = Counter("ssmd_log_lines_lost", "Log lines that nobody took: the reader has gone.", registry=METRICS)

# --- connector -------------------------------------------------------------------------------------------------------

CONNECTOR_RECEIVED = Counter(
    "ssmd_connector_messages_received", "Frames received from the exchange.", ["feed", "type"], registry=METRICS
)
CONNECTOR_PUBLISHED = Counter(
    "ssmd_connector_messages_published", "Events the broker acknowledged.", ["feed"], registry=METRICS
)
CONNECTOR_LAG = Gauge(
    "ssmd_connector_lag_seconds", "Age of the oldest frame that is not yet in the stream.", ["feed"], registry=METRICS
)
CONNECTOR_ERRORS = Counter(
    "ssmd_connector_errors",
    "Frames and events that could not be used, by kind.",
    ["feed", "error_type"],
    registry=METRICS,
)
CONNECTOR_CONNECTED = Gauge(
    "ssmd_connector_connected", "Connections to the exchange that are subscribed.", ["feed"], registry=METRICS
)
CONNECTOR_ROLE = Gauge(
    "ssmd_connector_role", "1 for the place of this connector: it is active, or it stands by.", ["feed", "role"],
    registry=METRICS,
)  # fmt: skip
CONNECTOR_TAKEOVERS = Counter(
    "ssmd_connector_takeovers", "Times that this connector took over from another one.", ["feed"], registry=METRICS
)
CONNECTOR_RECONNECTS = Counter(
    "ssmd_connector_reconnects", "Sessions begun after the first one.", ["feed"], registry=METRICS
)
CONNECTOR_GAPS = Counter("ssmd_connector_gaps", "Recorded gaps, by reason.", ["feed", "reason"], registry=METRICS)
CONNECTOR_REQUESTED = Gauge(
    "ssmd_connector_tickers_requested", "Tickers whose book was asked for.", ["feed"], registry=METRICS
)
CONNECTOR_SUBSCRIBED = Gauge(
    "ssmd_connector_tickers_subscribed", "Tickers whose subscription was acknowledged.", ["feed"], registry=METRICS
)
CONNECTOR_HEARD = Gauge(
    "ssmd_connector_tickers_heard", "Tickers from which a frame came on this connection.", ["feed"], registry=METRICS
)
CONNECTOR_NEVER_HEARD = Gauge(
    "ssmd_connector_tickers_never_heard",
    "Tickers asked for since more than 60 s from which no frame ever came.",
    ["feed"],
    registry=METRICS,
)
CONNECTOR_DROPPED = Counter(
    "ssmd_connector_tickers_dropped", "Tickers given up because their market is over or no longer listed.", ["feed"],
    registry=METRICS,
)  # fmt: skip
CONNECTOR_KEY_REFUSED = Counter(
    "ssmd_connector_key_refused", "Times that the exchange refused the credentials, or they could not be used.",
    ["feed"], registry=METRICS,
)  # fmt: skip
CONNECTOR_KEY_CHANGES = Counter(
    "ssmd_connector_key_changes", "Times that changed credentials were taken into use without a restart.", ["feed"],
    registry=METRICS,
)  # fmt: skip
CONNECTOR_STALE = Gauge(
    "ssmd_connector_books_stale", "Books that wait for a snapshot after a gap.", ["feed"], registry=METRICS
)
SPOOL_BYTES = Gauge("ssmd_connector_spool_bytes", "Bytes in the spool, not yet archived.", ["feed"], registry=METRICS)
SPOOL_SYNC = Histogram(
    "ssmd_connector_spool_sync_seconds",
    "Duration of one fdatasync of the spool.",
    ["feed"],
    buckets=LATENCY_BUCKETS_S,
    registry=METRICS,
)
RAW_BYTES = Counter("ssmd_connector_bytes_archived", "Compressed bytes of raw objects.", ["feed"], registry=METRICS)
RAW_FILES = Counter("ssmd_connector_files_archived", "Raw objects archived.", ["feed"], registry=METRICS)

# --- archiver --------------------------------------------------------------------------------------------------------

ARCHIVER_BYTES = Counter(
    "ssmd_archiver_bytes_written", "Compressed bytes of objects written.", ["bucket"], registry=METRICS
)
ARCHIVER_FILES = Counter("ssmd_archiver_files_written", "Objects written.", ["bucket"], registry=METRICS)
ARCHIVER_RECEIVED = Counter(
    "ssmd_archiver_messages_received", "Messages of the stream taken, repeats not counted.", ["feed"], registry=METRICS
)
ARCHIVER_MISSING = Counter(
    "ssmd_archiver_messages_missing",
    "Messages that the stream no longer had; compaction heals.",
    ["feed"],
    registry=METRICS,
)
ARCHIVER_MALFORMED = Counter(
    "ssmd_archiver_messages_malformed", "Messages that are no event; the raw archive has their frames.", ["feed"],
    registry=METRICS,
)  # fmt: skip
ARCHIVER_UNARCHIVED = Counter(
    "ssmd_archiver_messages_unarchived",
    "Status events of the security master, acknowledged and not archived: they come from no frame.",
    ["feed"],
    registry=METRICS,
)
ARCHIVER_HELD_BYTES = Gauge(
    "ssmd_archiver_held_bytes", "Bytes taken from the stream and not yet in an object.", ["feed"], registry=METRICS
)
ARCHIVER_BACKLOG = Gauge(
    "ssmd_archiver_backlog_messages", "Messages of the stream that no object holds yet, at the last flush.", ["feed"],
    registry=METRICS,
)  # fmt: skip

# --- gateway ---------------------------------------------------------------------------------------------------------

GATEWAY_CLIENTS = Gauge("ssmd_gateway_clients_connected", "WebSocket clients now connected.", registry=METRICS)
GATEWAY_SENT = Counter("ssmd_gateway_messages_sent", "Messages sent to clients.", ["type"], registry=METRICS)
GATEWAY_DROPPED = Counter(
    "ssmd_gateway_messages_dropped",
    "Messages not sent, by reason; buffer_full and disconnected count once per client and message.",
    ["reason"],
    registry=METRICS,
)
GATEWAY_DISCONNECTIONS = Counter(
    "ssmd_gateway_disconnections", "WebSocket connections that ended, by reason.", ["reason"], registry=METRICS
)
GATEWAY_SUBSCRIPTIONS = Gauge(
    "ssmd_gateway_subscriptions_active",
    "Clients subscribed, to all symbols or to named ones.",
    ["kind"],
    registry=METRICS,
)

GATEWAY_REFUSED = Counter(
    "ssmd_gateway_refused", "Requests, WebSocket requests and connections refused at the door, by reason.", ["reason"],
    registry=METRICS,
)  # fmt: skip
GATEWAY_METADATA = Counter(
    "ssmd_gateway_metadata_answers",
    "Hot questions to the database: asked, cached (a moment old), stale (it is away) or unavailable.",
    ["source"],
    registry=METRICS,
)
GATEWAY_KEYS_AGE = Gauge(
    "ssmd_gateway_keys_age_seconds", "Age of what the gateway knows of client keys.", registry=METRICS
)
GATEWAY_TLS_EXPIRES_IN_DAYS = Gauge(
    "ssmd_gateway_tls_expires_in_days", "Days until the certificate in use expires.", registry=METRICS
)

FULLEST_CLIENTS = 50
OTHER_CLIENTS = "other"


class ClientReading(NamedTuple):
    """How full one client's buffer is (0..1), how old the oldest message in it, and whether it does not keep up."""

    client_id: str
    utilization: float
    lag_ms: float
    slow: bool


class ClientGauges(Collector):
    """Gauges per WebSocket client, read when they are scraped: the 50 fullest by name.

    Of the others `client_id="other"` has the highest value, so that labels stay bounded and an alarm still fires.
    """

    def __init__(self) -> None:
        self._read: Callable[[], list[ClientReading]] | None = None

    def follow(self, read: Callable[[], list[ClientReading]]) -> None:
        """Take the readings from here."""
        self._read = read

    def forget(self, read: Callable[[], list[ClientReading]]) -> None:
        """Take no readings from here any more."""
        if self._read == read:
            self._read = None

    def collect(self) -> Iterable[Metric]:
        """The gauges now."""
        clients = self._read() if self._read is not None else []
        utilization = GaugeMetricFamily(
            "ssmd_gateway_client_buffer_utilization",
            "Share of a client's buffer that is full, of the 50 fullest; other: the highest of the rest.",
            labels=["client_id"],
        )
        lag = GaugeMetricFamily(
            "ssmd_gateway_client_lag_ms",
            "Age of the oldest message that waits for a client, of the 50 fullest; other: the highest of the rest.",
            labels=["client_id"],
        )
        slow = GaugeMetricFamily("ssmd_gateway_slow_consumers", "Clients that do not keep up: not healthy.")
        slow.add_metric([], sum(client.slow for client in clients))
        ranked = sorted(clients, key=lambda client: (client.utilization, client.lag_ms), reverse=True)
        for client in ranked[:FULLEST_CLIENTS]:
            utilization.add_metric([client.client_id], client.utilization)
            lag.add_metric([client.client_id], client.lag_ms)
        rest = ranked[FULLEST_CLIENTS:]
        if rest:
            utilization.add_metric([OTHER_CLIENTS], rest[0].utilization)
            lag.add_metric([OTHER_CLIENTS], max(client.lag_ms for client in rest))
        return utilization, lag, slow


GATEWAY_CLIENT_GAUGES = ClientGauges()
METRICS.register(GATEWAY_CLIENT_GAUGES)

# --- checks, as the gateway reads them from the database -------------------------------------------------------------

DAY_STATUSES = ("complete", "partial", "processing", "failed", "missing")


class CheckReading(NamedTuple):
    """One check. None: not known now; `day_age_s` None: it does not look at whole days."""

    check: str
    ok: bool | None
    findings: int | None
    days_failing: int | None
    age_s: float
    day_age_s: float | None


class AlertReading(NamedTuple):
    """How many alerts of an operation are open in a state."""

    operation: str
    state: str
    number: int


class ChecksReading(NamedTuple):
    """Everything about checks; `known` False: the database does not answer. The last two are yesterday's."""

    known: bool
    checks: list[CheckReading]
    alerts: list[AlertReading]
    status: str | None
    score: float | None


class CheckGauges(Collector):
    """Gauges of checks and alerts, read when they are scraped. What is not known is NaN; ages grow all the same."""

    def __init__(self) -> None:
        self._read: Callable[[], ChecksReading] | None = None

    def follow(self, read: Callable[[], ChecksReading]) -> None:
        """Take the readings from here."""
        self._read = read

    def forget(self, read: Callable[[], ChecksReading]) -> None:
        """Take no readings from here any more."""
        if self._read == read:
            self._read = None

    def collect(self) -> Iterable[Metric]:
        """The gauges now; none where no database is followed."""
        if self._read is None:
            return []
        said = self._read()
        known = GaugeMetricFamily("ssmd_checks_known", "1 while the database says how the checks stand, else 0.")
        known.add_metric([], said.known)
        ok = _by(
            "check",
            "ssmd_check_ok",
            "1 when the check of the latest day that is over passed, else 0; NaN before an archived day is over.",
        )
        found = _by("check", "ssmd_check_findings", "What it found there.")
        failing = _by("check", "ssmd_check_days_failing", "Days of the last 31 whose last run of it did not pass.")
        age = _by(
            "check", "ssmd_check_age_seconds", "Time since it last ran to its end; never: since the archive began."
        )
        day_age = _by("check", "ssmd_check_day_age_seconds", "Time since the end of the latest day that it looked at.")
        for each in said.checks:
            ok.add_metric([each.check], _or_nan(each.ok))
            found.add_metric([each.check], _or_nan(each.findings))
            failing.add_metric([each.check], _or_nan(each.days_failing))
            age.add_metric([each.check], each.age_s)
            if each.day_age_s is not None:
                day_age.add_metric([each.check], each.day_age_s)
        alerts = GaugeMetricFamily(
            "ssmd_alerts_open", "Alerts of operations that nobody has seen to.", labels=["operation", "state"]
        )
        for alert in said.alerts:
            alerts.add_metric([alert.operation, alert.state], alert.number)
        score = GaugeMetricFamily(
            "ssmd_day_quality_score", "Stored quality score of the last day that is over, 0 to 1."
        )
        score.add_metric([], _or_nan(said.score))
        status = _by("status", "ssmd_day_status", "1 for the inventory's status of the last day that is over.")
        for name in DAY_STATUSES:
            status.add_metric([name], _or_nan(None if said.status is None else said.status == name))
        return [known, ok, found, failing, age, day_age, alerts, score, status]


def _by(label: str, name: str, documentation: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, documentation, labels=[label])


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else float(value)


CHECK_GAUGES = CheckGauges()
METRICS.register(CHECK_GAUGES)

# --- keys ------------------------------------------------------------------------------------------------------------

KEY_EXPIRES_IN_DAYS = Gauge(
    "ssmd_key_expires_in_days", "Days until a key should have been rotated; negative when it has expired.",
    ["environment", "key_name"], registry=METRICS,
)  # fmt: skip
KEY_AUDIT_LOST = Counter("ssmd_key_audit_rows_lost", "Audit rows of keys that could not be kept.", registry=METRICS)

# --- registry --------------------------------------------------------------------------------------------------------

REGISTRY_LEFT_OUT = Counter(
    "ssmd_registry_left_out", "Values that the database refused and services left out, by what was done with them.",
    ["kind"], registry=METRICS,
)  # fmt: skip

# ---------------------------------------------------------------------------------------------------------------------


def exposition() -> tuple[bytes, str]:
    """All metrics in Prometheus' text format, and its content type."""
    return generate_latest(METRICS), CONTENT_TYPE_LATEST


class _Unbreakable:
    """A stream whose reader may die: capturing goes on without its log, instead of dying of it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            return self._stream.write(text)
        LOG_LINES_LOST.inc()
        return 0

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def _common_fields_first(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """People read the beginning of a line."""
    first = {name: event.pop(name) for name in ("level", "ts", "component", "msg") if name in event}
    return {**first, **event}


def configure_logging(component: str, *, stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Log JSON lines `{"level","ts","component","msg",...}` to `stream` (stdout), also what libraries log.

    `level` holds for ssmd; libraries are heard from WARNING on.
    """
    output = cast(TextIO, _Unbreakable(stream if stream is not None else sys.stdout))

    def add_component(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event.setdefault("component", component)
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        add_component,
        structlog.processors.format_exc_info,
    ]
    ending: list[structlog.typing.Processor] = [
        structlog.processors.EventRenamer("msg"),
        _common_fields_first,
        structlog.processors.JSONRenderer(),
    ]
    structlog.configure(
        processors=[*shared, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(output),
        # Tests and the CLI configure more than once: a cached logger would go on writing to the old stream.
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))
