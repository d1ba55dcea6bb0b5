"""Nanoseconds since the epoch, UTC days, and how they are written."""

import time
from datetime import UTC, date, datetime

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
NS_PER_DAY = 86_400 * NS_PER_S


def now_ns() -> int:
    """Wall clock, nanoseconds since the epoch, UTC."""
    return time.time_ns()


def day_of(ns: int) -> date:
    """The UTC day of a time in nanoseconds."""
    return datetime.fromtimestamp(ns // NS_PER_S, UTC).date()


def day_start_ns(day: date) -> int:
    """Midnight UTC at the start of `day`, nanoseconds."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * NS_PER_S


def iso(ns: int) -> str:
    """`2026-11-22T16:00:00.123456Z`: microseconds, UTC."""
    seconds, rest = divmod(ns, NS_PER_S)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{rest // 1000:06d}Z"
