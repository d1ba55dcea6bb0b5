"""What both registries store: values that PostgreSQL accepts, made the same way whatever an exchange sends.

PostgreSQL takes no NUL and no lone surrogate in text or JSON, and no integer above 2**63. Such values come from
outside; they are replaced, never a reason to lose the record that holds them.
"""

import posixpath
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from ssmd.clock import NS_PER_DAY, day_of, day_start_ns
from ssmd.errors import DataError
from ssmd.market.events import REASONS, Gap
from ssmd.registry.interface import Issue, ObjectRecord

MAX_BIGINT = 2**63 - 1
MAX_SAMPLE_BYTES = 1_024
BATCHES_KEPT = timedelta(days=7)
"""For this long a batch of issues that comes again is known."""
DATA_TYPES = ("raw", "normalized")
QUALITY = "quality"
"""The data type of issues that expectations found: each run of a day replaces those of the one before."""
ISSUE_DATA_TYPES = (*DATA_TYPES, QUALITY)
STATUSES = ("complete", "partial", "failed", "processing")
SEVERITIES = ("error", "warning", "info")
ISSUE_TYPES = (
    "duplicate",  # came twice; kept once
    "out_of_order",  # a number lower than one before it
    "missing_field",  # a frame without something that its kind always has
    "parse_error",  # a frame or value that could not be understood
    "missing_data",  # known to be lost, or not yet in the normalized archive
    "inconsistent",  # contradicts what came before it
    "refused",  # the exchange said no to one of our commands
    "internal_error",  # a bug of ours
)
_TYPE_OF_PROBLEM = {
    "sequence_repeat": "duplicate",
    "duplicate_trade": "duplicate",
    "redelivered": "duplicate",
    "sequence_reset": "out_of_order",
    "sequence_late": "out_of_order",
    "sequence_restart": "out_of_order",
    "time_backwards": "out_of_order",
    "no_type": "missing_field",
    "missing_field": "missing_field",
    "stream_gap": "missing_data",
    "stream_rewound": "missing_data",
    "not_published_spool_full": "missing_data",
    "spool_torn": "missing_data",
    "stale_delta": "inconsistent",
    "wrong_sid": "inconsistent",
    "negative_size": "inconsistent",
    "crossed_book": "inconsistent",
    "exchange_error": "refused",
    "unknown_market": "refused",
    "decoder_failed": "internal_error",
    "mapper_failed": "internal_error",
}

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
MAX_DEPTH = 64
_MAX_BITS = 14_000
_REPLACEMENT = "\ufffd"


def storable(text: str, limit: int | None = None) -> str:
    """An identifier as it may be stored: NUL and lone surrogates become U+FFFD, the end is cut off at `limit`."""
    return _UNSTORABLE.sub(_REPLACEMENT, text)[:limit]


def printable(text: str, limit: int | None = None) -> str:
    """Text for people: control characters (escape sequences, direction marks) become U+FFFD as well."""
    return _CONTROL.sub(_REPLACEMENT, text)[:limit]


def json_value(value: Any, depth: int = 0) -> Any:
    """`value` as jsonb may hold it; non-finite numbers become null, what is nested too deep becomes text."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, float):
        return value if value - value == 0 else None
    if depth >= MAX_DEPTH and isinstance(value, dict | list | tuple):
        return _shown(value)
    if isinstance(value, dict):
        return {storable(str(key)): json_value(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(inner, depth + 1) for inner in value]
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        return f"an integer of {value.bit_length()} bits"
    if value is None or isinstance(value, bool | int):
        return value
    return storable(str(value))


def _shown(value: object) -> str:
    try:
        return storable(repr(value), 200)
    except (RecursionError, ValueError):
        return "nested too deep to show"


def bigint(number: int | None) -> int | None:
    """`number`, at most 2**63 - 1 and at least -2**63."""
    return None if number is None else max(-MAX_BIGINT - 1, min(number, MAX_BIGINT))


def moment(text: object) -> datetime | None:
    """An exchange's time (RFC 3339, any number of fractional digits); None for none, nonsense and Go's zero time."""
    if not isinstance(text, str):
        return None
    try:
        found = datetime.fromisoformat(text.strip())
        found = found if found.tzinfo else found.replace(tzinfo=UTC)
        found = found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return found if found.year >= 1970 else None


def written(time: datetime | None) -> str | None:
    """A time as the registry returns it: `2026-09-25T19:00:00Z`, with microseconds only where there are some."""
    return None if time is None else time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def choice(what: str, value: str, allowed: tuple[str, ...]) -> str:
    """`value` if it is allowed, else DataError."""
    if value not in allowed:
        raise DataError(f"{what} {value!r} is none of {', '.join(allowed)}")
    return value


def stored_gap(gap: Gap) -> Gap:
    """The gap as it can be stored; DataError for an unknown reason. A clock set back makes an empty gap, not none."""
    choice("gap reason", gap.reason, REASONS)
    from_ns = bigint(gap.from_ns) or 0
    return Gap(
        feed=gap.feed,
        connection=storable(gap.connection, 128),
        sid=bigint(gap.sid),
        from_ns=from_ns,
        to_ns=max(from_ns, bigint(gap.to_ns) or 0),
        reason=gap.reason,
        last_seq=bigint(gap.last_seq),
        next_seq=bigint(gap.next_seq),
        tickers=None if gap.tickers is None else tuple(storable(ticker) for ticker in gap.tickers),
    )


def merged_gap(known: Gap, again: Gap) -> Gap:
    """One gap reported twice: the longer report."""
    return again if again.to_ns > known.to_ns else known


def gap_identity(gap: Gap) -> tuple[object, ...]:
    """What makes two reports the same gap."""
    return gap.feed, gap.connection, gap.sid, gap.from_ns, gap.reason


def touches(gap: Gap, first_ns: int, end_ns: int) -> bool:
    """Does the gap touch the time from `first_ns` up to and without `end_ns`?"""
    return gap.from_ns < end_ns and (gap.to_ns > first_ns or gap.from_ns >= first_ns)


def day_bounds(day: date) -> tuple[int, int]:
    """First nanosecond of a UTC day and of the next."""
    first = day_start_ns(day)
    return first, first + NS_PER_DAY


def gap_days(gap: Gap) -> tuple[date, date]:
    """First and last UTC day that the gap touches."""
    return day_of(gap.from_ns), day_of(max(gap.from_ns, gap.to_ns - 1))


def issue_type_of(problem: str) -> str:
    """The word of `ISSUE_TYPES` for a problem as feeds and services name it: `parse_error` when it has no other."""
    return problem if problem in ISSUE_TYPES else _TYPE_OF_PROBLEM.get(problem, "parse_error")


def counted_issue(feed: str, day: date, data_type: str, problem: str, count: int, sample: str = "") -> Issue:
    """`count` of a problem, by its finer name. Refusals and repeats of our own transport are for information only."""
    issue_type = issue_type_of(problem)
    if issue_type == "refused" or problem == "redelivered":
        severity = "info"
    else:
        severity = "error" if issue_type in ("parse_error", "missing_field", "internal_error") else "warning"
    return Issue(feed, day, data_type, issue_type, severity, count, sample, detail=problem)


def issue_identity(issue: Issue) -> tuple[object, ...]:
    """What is counted together."""
    return issue.feed, issue.day, issue.data_type, issue.issue_type, issue.detail, issue.connection


def issue_order(issue: Issue) -> tuple[str, str, str, str]:
    """How the issues of a day are listed."""
    return issue.data_type, issue.issue_type, issue.detail, issue.connection


def issues_of(issues: Sequence[Issue], feed: str, day: date, data_type: str) -> list[Issue]:
    """The issues, one of each kind; DataError for one that is of another feed, day or data type."""
    found: dict[tuple[object, ...], Issue] = {}
    for issue in issues:
        if (issue.feed, issue.day, issue.data_type) != (feed, day, data_type):
            raise DataError(f"an issue of {issue.feed}, {issue.day}, {issue.data_type} is none of {feed}, {day}")
        identity = issue_identity(issue)
        found[identity] = merged_issue(found[identity], issue) if identity in found else issue
    return list(found.values())


def merged_issue(known: Issue, more: Issue) -> Issue:
    """Both counted together, with the earlier sample."""
    return msgspec.structs.replace(known, count=known.count + more.count, sample=known.sample or more.sample)


def stored_issue(issue: Issue) -> Issue:
    """The issue as it can be stored; DataError for an unknown data type, issue type or severity."""
    sample = printable(issue.sample).encode()[:MAX_SAMPLE_BYTES].decode(errors="ignore")
    return Issue(
        feed=issue.feed,
        day=issue.day,
        data_type=choice("data type", issue.data_type, ISSUE_DATA_TYPES),
        issue_type=choice("issue type", issue.issue_type, ISSUE_TYPES),
        severity=choice("severity", issue.severity, SEVERITIES),
        count=max(0, min(issue.count, MAX_BIGINT)),
        sample=sample,
        connection=storable(issue.connection, 128),
        detail=printable(issue.detail, 64),
    )


def batch_id(batch: str | None) -> UUID | None:
    """The name of a batch; DataError when it is no UUID."""
    try:
        return None if batch is None else UUID(batch)
    except ValueError as error:
        raise DataError(f"the batch {printable(batch or '', 80)!r} is no UUID") from error


def score_value(score: float | None) -> float | None:
    """A score as it is stored: two digits; DataError when it is not between 0 and 1."""
    if score is None:
        return None
    if not 0 <= score <= 1:
        raise DataError(f"quality score {score} is not between 0 and 1")
    return round(score, 2)


def storage_path(feed: str, record: ObjectRecord) -> str:
    """Where a day's objects lie: `ssmd-raw/kalshi/2026/11/22/`; `*` stands for the event types of normalized data."""
    day = record.day.strftime("%Y/%m/%d")
    if record.data_type == "raw":
        return posixpath.join(record.bucket, feed, day, "")
    return posixpath.join(record.bucket, feed, record.schema_version or "", "*", day, "")


def symbol_count(objects: list[ObjectRecord]) -> int | None:
    """How many symbols a day has at least: compacted objects hold one each, segments say how many they hold."""
    compacted = {o.key.split("/")[-2] for o in objects if o.key.endswith("/data.capnp.zst")}
    return max([len(compacted), *(o.symbols or 0 for o in objects)], default=0) or None
