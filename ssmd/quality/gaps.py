"""Recorded gaps in both places where they are known: objects in the archive, rows in the database; and how they differ.

Each gap is written twice, so that one survives the loss of the other. Nothing is repaired here.
"""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta

import msgspec

from ssmd.archive import layout
from ssmd.clock import NS_PER_S, day_of, iso
from ssmd.errors import DataError
from ssmd.market.events import Gap
from ssmd.middleware.storage.interface import Storage
from ssmd.registry.interface import Registry
from ssmd.registry.values import day_bounds, gap_identity, stored_gap, touches

RECENT_NS = 60 * NS_PER_S
"""A gap that ended so lately may be written in one place only."""
LATER_DAYS = 7
"""An object lies under the day on which its gap ended: so many days after the ones asked for are looked at, too."""

BOTH, OBJECT_ONLY, ROW_ONLY = "object+row", "object only", "row only"
ROWS_NOT_ASKED, OBJECTS_NOT_ASKED = "object, rows not asked", "row, objects not asked"
_COMPARED = ("from_ns", "to_ns", "reason", "last_seq", "next_seq", "tickers")
_TIMES = {"from_ns": "from", "to_ns": "to"}


class GapObjects(msgspec.Struct, frozen=True):
    """The gaps found as objects, by key; and the keys that do not hold one, with what is wrong."""

    gaps: dict[str, Gap]
    unreadable: dict[str, str]


class KnownGap(msgspec.Struct, frozen=True):
    """A gap, and where it is known. `gap` is the object's, where there is one; `key` is the object's.

    `known` is one of `object+row`, `object only`, `row only`, or says which place could not be asked.
    `differences` say in words how the two places differ; none where they agree, or where only one could be asked.
    """

    gap: Gap
    known: str
    key: str | None
    differences: list[str]
    recent: bool

    @property
    def differs(self) -> bool:
        """Is this worth a finding?"""
        return bool(self.differences) and not self.recent


def gap_rows(registry: Registry, feed: str, first: date, last: date) -> list[Gap]:
    """The gaps of the database that touch the days, each once."""
    return list({gap_identity(gap): gap for gap in registry.gaps(feed, first, last)}.values())


async def gap_objects(
    storage: Storage, bucket: str, feed: str, first: date, last: date, rows: Sequence[Gap] | None, today: date
) -> GapObjects:
    """The gaps of the archive that touch the days; of `rows`, those that ended later are looked for, too.

    StorageUnavailable when the storage is away, also where a listing would only be empty.
    """
    span = (last - first).days
    days = {first + timedelta(days=n) for n in range(span + 1)}
    days |= {day for n in range(LATER_DAYS) if (day := last + timedelta(days=n + 1)) <= today}
    days |= {day_of(row.to_ns) for row in rows or ()}
    gaps: dict[str, Gap] = {}
    unreadable: dict[str, str] = {}
    start_ns, end_ns = day_bounds(first)[0], day_bounds(last)[1]
    for day in sorted(days):
        for entry in await storage.list(bucket, layout.gaps_prefix(feed, day)):
            try:
                layout.parse_gap(entry.key)
                gap = stored_gap(msgspec.json.decode(await storage.get(bucket, entry.key), type=Gap))
            except (DataError, msgspec.MsgspecError) as error:
                if first <= day <= last:
                    unreadable[entry.key] = f"the object is not a gap: {error}"
                continue
            if touches(gap, start_ns, end_ns):
                gaps[entry.key] = gap
    if not gaps and not unreadable and (rows is None or rows):
        await storage.ping()  # nothing at all: is it empty, or not there?
    return GapObjects(gaps, unreadable)


def join_gaps(objects: Mapping[str, Gap] | None, rows: Sequence[Gap] | None, now_ns: int) -> list[KnownGap]:
    """Each gap once, by start. None for `objects` or `rows` means that this place could not be asked."""
    longest: dict[tuple[object, ...], tuple[str, Gap]] = {}
    for key, gap in sorted((objects or {}).items()):
        identity = gap_identity(gap)
        if identity not in longest or gap.to_ns > longest[identity][1].to_ns:
            longest[identity] = key, gap
    left = {gap_identity(row): row for row in rows or ()}
    pairs: list[tuple[str, Gap, Gap | None]] = []
    for identity, (key, gap) in longest.items():
        pairs.append((key, gap, left.pop(identity, None)))
    pairs = [(key, gap, row or _altered(gap, left)) for key, gap, row in pairs]
    compared = objects is not None and rows is not None
    found = [_known(gap, key, row, compared, now_ns) for key, gap, row in pairs]
    found += [_known(row, None, row, compared, now_ns) for row in left.values()]
    return sorted(found, key=lambda known: (known.gap.from_ns, known.gap.connection, str(known.gap.sid), known.known))


def _altered(gap: Gap, left: dict[tuple[object, ...], Gap]) -> Gap | None:
    """The row that is meant to be this gap, though its start or its reason is another; taken from `left`."""
    for identity, row in left.items():
        same = (row.feed, row.connection, row.sid) == (gap.feed, gap.connection, gap.sid)
        if same and (row.from_ns == gap.from_ns or row.to_ns == gap.to_ns):
            return left.pop(identity)
    return None


def _known(gap: Gap, key: str | None, row: Gap | None, compared: bool, now_ns: int) -> KnownGap:
    known = ROW_ONLY if key is None else OBJECT_ONLY if row is None else BOTH
    if not compared:
        known = ROWS_NOT_ASKED if row is None else OBJECTS_NOT_ASKED
    differences: list[str] = []
    if compared and known == OBJECT_ONLY:
        differences = ["the database has no row of it"]
    elif compared and known == ROW_ONLY:
        differences = ["the archive has no object of it"]
    elif known == BOTH and row is not None:
        differences = [
            f"{_TIMES.get(name, name)} is {_shown(name, getattr(gap, name))} in the object, "
            f"{_shown(name, getattr(row, name))} in the row"
            for name in _COMPARED
            if getattr(gap, name) != getattr(row, name)
        ]
    recent = now_ns - gap.to_ns < RECENT_NS
    return KnownGap(gap, known, key, differences, recent)


def _shown(name: str, value: object) -> str:
    if name in _TIMES and isinstance(value, int):
        return iso(value)
    if isinstance(value, tuple):
        return f"{len(value)} tickers ({', '.join(map(str, value[:3]))}{', …' if len(value) > 3 else ''})"
    return "none" if value is None else str(value)
