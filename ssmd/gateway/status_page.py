"""What /status shows: health, rates, gaps, archive and clients, gathered into one value for its template."""

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec

from ssmd.clock import NS_PER_S, day_of, now_ns
from ssmd.gateway.catalogue import Catalogue
from ssmd.gateway.hub import Hub
from ssmd.gateway.rates import Rates
from ssmd.market.events import EVENT_TYPES, Gap
from ssmd.registry.interface import InventoryRow, ObjectRecord, RegistryUnavailable

GAPS_SHOWN = 20
DAYS_SHOWN = 7
ARCHIVE_FRESH_NS = 15 * NS_PER_S

HEADLINES = {
    "ok": "Everything flows",
    "degraded": "Live data flows, something else is missing",
    "down": "No live data",
}
_DAY_LEVELS = {"complete": "ok", "partial": "warn", "failed": "bad"}


class Archive(msgspec.Struct, frozen=True):
    """What the database said about the archive at `asked_ns`."""

    asked_ns: int
    rows: list[InventoryRow]
    last: ObjectRecord | None


class StatusView:
    """The values of the page. `states` gives the state of each client, `checks` how the checks stand."""

    def __init__(
        self,
        hub: Hub,
        catalogue: Catalogue,
        rates: Rates,
        health: Callable[[], object],
        states: Callable[[], list[str]],
        checks: Callable[..., dict[str, Any] | None],
        clock: Callable[[], int] = now_ns,
    ) -> None:
        self._checks = checks
        self._hub = hub
        self._catalogue = catalogue
        self._rates = rates
        self._health = health
        self._states = states
        self._clock = clock
        self._archive: Archive | None = None

    async def gather(self, monotonic_s: float, *, reasons: bool) -> dict[str, Any]:
        """Everything, as the template wants it; None where the database would have to say it and is away.

        What servers said when they failed only with `reasons`: it is for operators.
        """
        now = self._clock()
        gaps = await self._gaps(day_of(now))
        archive, current = await self._archived(now)
        health: dict[str, Any] = msgspec.to_builtins(self._health())
        states = Counter(self._states())
        dependencies = [_dependency(name, of, reasons=reasons) for name, of in health["dependencies"].items()]
        last = self._hub.last_message_ns
        return {
            "now": _clock_time(now), "now_iso": _moment(now).isoformat(timespec="seconds"),
            "status": health["status"], "headline": HEADLINES[health["status"]],
            "reasons": _reasons(health, dependencies),
            "rate": self._rates.per_second(), "rate_line": self._rates.line(),
            "last_message_s": (now - last) / NS_PER_S if last else None,
            "books_synced": health["books"]["synced"], "books_waiting": health["books"]["waiting"],
            "clients": sum(states.values()), "client_states": sorted(states.items()),
            "slow_clients": sum(states.values()) - states["healthy"],
            "channels": self._channels(monotonic_s), "dependencies": dependencies,
            "checks": self._checks(reasons=reasons),
            **_gap_values(gaps, now), **_archive_values(archive, now, current=current),
        }  # fmt: skip

    def _channels(self, monotonic_s: float) -> list[dict[str, Any]]:
        heard = self._rates.heard_s
        return [
            {
                "name": name,
                "rate": self._rates.per_second(name),
                "last_s": max(0.0, monotonic_s - heard[name]) if name in heard else None,
                "line": self._rates.line(name),
            }
            for name in EVENT_TYPES
        ]

    async def _gaps(self, today: date) -> list[Gap] | None:
        try:
            return await self._catalogue.gaps(today)
        except RegistryUnavailable:
            return None

    async def _archived(self, now: int) -> tuple[Archive | None, bool]:
        """The archive, and whether that is current: what was known before is better than nothing."""
        known = self._archive
        if known is not None and now - known.asked_ns < ARCHIVE_FRESH_NS:
            return known, True
        today = day_of(now)
        try:
            rows = await self._catalogue.inventory(today - timedelta(days=DAYS_SHOWN - 1), today)
            last = await self._catalogue.last_object(max((row.day for row in rows), default=today))
        except RegistryUnavailable:
            return known, False
        self._archive = Archive(now, rows, last)
        return self._archive, True


def _dependency(name: str, of: Mapping[str, Any], *, reasons: bool) -> dict[str, Any]:
    state = str(of.get("state", "unknown"))
    if state == "none":
        return {"name": name, "state": "not used", "level": "", "age_s": None, "note": ""}
    level = "ok" if state == "connected" else "bad"
    note = of.get("error") if reasons else None
    return {"name": name, "state": state, "level": level, "age_s": of.get("age_s"), "note": note or ""}


def _reasons(health: Mapping[str, Any], dependencies: list[dict[str, Any]]) -> list[str]:
    found = [f"{of['name']} {of['state']}" for of in dependencies if of["level"] == "bad"]
    waiting = health["books"]["waiting"]
    return found + ([f"{waiting} books wait for their snapshot"] if waiting else [])


def _gap_values(gaps: list[Gap] | None, now: int) -> dict[str, Any]:
    if gaps is None:
        return {"gaps": None, "gap_count": None, "gap_s": None}
    start = now - now % (86_400 * NS_PER_S)
    shown = sorted(gaps, key=lambda gap: gap.from_ns, reverse=True)[:GAPS_SHOWN]
    return {
        "gap_count": len(gaps),
        "gap_s": _covered([(max(gap.from_ns, start), gap.to_ns) for gap in gaps]) / NS_PER_S,
        "gaps": [
            {
                "start": _clock_time(gap.from_ns) if gap.from_ns >= start else f"{_moment(gap.from_ns):%m-%d %H:%M:%S}",
                "seconds": max(0, gap.to_ns - gap.from_ns) / NS_PER_S,
                "reason": gap.reason.replace("_", " "),
                "connection": gap.connection,
                "markets": "all" if gap.tickers is None else len(gap.tickers),
            }
            for gap in shown
        ],
    }


def _covered(spans: list[tuple[int, int]]) -> int:
    """The length of all spans together, what overlaps counted once."""
    total = end = 0
    for first, last in sorted(spans):
        total += max(0, last - max(first, end))
        end = max(end, last)
    return total


def _archive_values(archive: Archive | None, now: int, *, current: bool) -> dict[str, Any]:
    if archive is None:
        return {"days": None, "last_object": None, "archive_since": None}
    last = archive.last
    rows = sorted(archive.rows, key=lambda row: (row.day, row.data_type), reverse=True)
    return {
        "archive_since": None if current else _clock_time(archive.asked_ns),
        "last_object": None if last is None else {
            "key": last.key, "records": last.records, "bytes": last.bytes,
            "until": _clock_time(last.last_ns), "age_s": (now - last.last_ns) / NS_PER_S,
        },
        "days": [
            {
                "day": row.day.isoformat(), "first": before is None or before.day != row.day,
                "data_type": row.data_type, "records": row.record_count,
                "bytes": row.byte_size, "gaps": row.gap_count, "status": row.status,
                "level": _DAY_LEVELS.get(row.status, ""), "score": row.quality_score,
            }
            for before, row in zip([None, *rows], rows, strict=False)
        ],
    }  # fmt: skip


def _moment(ns: int) -> datetime:
    return datetime.fromtimestamp(ns / NS_PER_S, UTC)


def _clock_time(ns: int) -> str:
    return f"{_moment(ns):%H:%M:%S}"


# --- how numbers look -------------------------------------------------------------------------------------------------


def age(seconds: float) -> str:
    """`340 ms`, `4.2 s`, `3 min 20 s`, `5 h 12 min`, `3 d 4 h`."""
    if seconds < 1:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    whole = round(seconds)
    for size, name, smaller, below in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {name}" + (f" {rest} {below}" if rest else "")
    return f"{whole} s"


def ago(seconds: float) -> str:
    """An age for people: what is newer than a second is new."""
    return "< 1 s" if seconds < 1 else age(seconds)


def count(number: float) -> str:
    """`0`, `0.4`, `12`, `4,310`, `1.2 M`."""
    if number >= 999_950:
        return f"{number / 1e6:,.1f} M"
    if 0 < number < 9.95 and number != int(number):
        return f"{number:.1f}"
    return f"{number:,.0f}"


def size(number: float) -> str:
    """Bytes as `912 B`, `4.2 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.5:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 99.5 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"


def stroke(points: list[float]) -> str:
    """An SVG path through points 4 units apart, 2..38 high."""
    top = max(points, default=0) or 1
    return "M" + "L".join(f"{n * 4} {38 - 36 * point / top:.1f}" for n, point in enumerate(points))


def area(points: list[float]) -> str:
    """The area below it."""
    return f"{stroke(points)}L{(len(points) - 1) * 4} 40L0 40Z"
