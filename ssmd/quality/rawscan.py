"""One reading of a day's raw archive: what it holds, what is missing, what came twice, what could not be understood.

Trusts nobody: every object is read and counted, every frame decoded. A damaged object is a row that says so, and the
others are read on. Bounded memory: a byte per frame for its number and one for the exchange's, 8 bytes per trade.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

import msgspec
import numpy as np

from ssmd.archive import layout
from ssmd.archive.handover import read_parts
from ssmd.archive.layout import RawObject
from ssmd.archive.manifest import Manifest, read_manifest
from ssmd.archive.reader import read_lines
from ssmd.clock import NS_PER_DAY, day_start_ns
from ssmd.errors import DataError
from ssmd.feeds.catalogue import FeedParts
from ssmd.feeds.interface import Decoded
from ssmd.market.events import Gap, Trade
from ssmd.middleware.storage.interface import Storage
from ssmd.quality.objects import Recorded
from ssmd.quality.recount import Numbers
from ssmd.quality.understood import Understood
from ssmd.wire.raw import RawRecord, parse_line

MAX_EXAMPLES = 5
_MAX_ODD = 1_000_000
_MAX_JUMP = 1 << 40
"""No exchange counts so far in a day; a number beyond it is none (and each page of numbers costs memory)."""


class RawFacts(msgspec.Struct):
    """Rows for the batches `raw_objects`, `raw_connections`, `raw_sequences`, `raw_problems` and `raw_types`.

    `trades` are the different trades of each market. `manifests` are those that could be read; `spans` the receive
    times of each connection's frames in the objects that could be read: (first, last).
    """

    objects: list[dict[str, Any]]
    connections: list[dict[str, Any]]
    sequences: list[dict[str, Any]]
    problems: list[dict[str, Any]]
    types: list[dict[str, Any]]
    trades: dict[str, int]
    manifests: dict[RawObject, Manifest]
    spans: dict[str, tuple[int, int]]


async def scan(
    storage: Storage,
    bucket: str,
    feed: str,
    day: date,
    parts: FeedParts,
    recorded: Recorded,
    gaps: Sequence[Gap],
) -> RawFacts:
    """Read the day. `recorded` are the inventory's rows, `gaps` those recorded.

    Raises StorageUnavailable; what is wrong with an object is in its row.
    """
    understood = Understood(await read_parts(storage, bucket, feed, day))
    return await _Scan(storage, bucket, feed, day, parts, recorded, gaps, understood).run()


class _Sequence:
    """The exchange's numbers of one subscription. Acknowledgements may share a number with the frame after them."""

    def __init__(self) -> None:
        self.data = Numbers()
        self.all = Numbers()
        self.odd: list[int] = []
        self.frames = 0
        self.repeated = 0
        self.published_from = 1 << 80  # before it the connection stood by: another one captured

    def add(self, seq: int, control: bool) -> None:
        """A frame that says its number."""
        self.frames += 1
        self.all.add(seq)
        if not control and not self.data.add(seq):
            self.repeated += 1

    def add_odd(self, seq: int) -> None:
        """A frame that could not be understood: it used up its number if that fits between the others."""
        if len(self.odd) < _MAX_ODD:
            self.odd.append(seq)

    def finish(self) -> None:
        """All frames were added."""
        for seq in sorted(self.odd):
            if self.all.first - 1 <= seq <= self.all.last + 1:
                self.all.add(seq)


class _Connection:
    """The frames of one connection."""

    def __init__(self, parts: FeedParts, name: str) -> None:
        self.numbers = Numbers()
        self.frames = 0
        self.repeated = 0
        self.first_ns = 1 << 64
        self.last_ns = 0
        self.sequences: defaultdict[int, _Sequence] = defaultdict(_Sequence)
        self.mapper = parts.new_mapper(name)


class _Scan:
    """One reading."""

    def __init__(
        self,
        storage: Storage,
        bucket: str,
        feed: str,
        day: date,
        parts: FeedParts,
        recorded: Recorded,
        gaps: Sequence[Gap],
        understood: Understood,
    ) -> None:
        self._storage = storage
        self._bucket = bucket
        self._feed = feed
        self._day = day
        self._start_ns = day_start_ns(day)
        self._parts = parts
        self._inventory = recorded
        self._rows = recorded.rows
        self._gaps = gaps
        self._understood = understood
        self._connections: dict[str, _Connection] = {}
        self._problems: Counter[tuple[str, str]] = Counter()
        self._examples: dict[tuple[str, str], dict[str, Any]] = {}
        self._trades: dict[str, Any] = {}

    async def run(self) -> RawFacts:
        """Everything."""
        prefix = layout.raw_day_prefix(self._feed, self._day)
        objects, manifests = [], {}
        named = await self._named(prefix)
        entries = [
            entry
            for entry in await self._storage.list(self._bucket, prefix)
            if not entry.key.startswith(f"{prefix}_manifest/")
            and not layout.is_raw_record(entry.key, self._feed, self._day)
        ]
        self._rows = await self._inventory.and_of([entry.key for entry in entries])
        for entry in entries:
            row, manifest = await self._object(entry.key, entry.bytes)
            objects.append(row)
            if manifest is not None:
                manifests[layout.parse_raw(entry.key)] = manifest
        missing = sorted(named - {row["key"] for row in objects})
        objects += [_row(key, 0, problem="the object is missing", present=False) for key in missing]
        repeated = await self._repeated_trades()
        for row in objects:
            row["repeated_trades"], row["repeated_examples"] = repeated.get(row["key"], (0, ""))
        return RawFacts(
            objects, self._connection_rows(), self._sequence_rows(), self._problem_rows(),
            self._understood.type_rows(), self._understood.trades(), manifests,
            {name: (its.first_ns, its.last_ns) for name, its in self._connections.items()},
        )  # fmt: skip

    async def _named(self, prefix: str) -> set[str]:
        """Objects that a manifest or a row of the inventory names.

        Asked before the objects are listed: each was stored before what names it.
        """
        named = set(self._rows or ())
        for entry in await self._storage.list(self._bucket, f"{prefix}_manifest/"):
            try:
                named.add(layout.parse_raw_manifest(entry.key).key)
            except DataError:
                continue  # a stray; `ssmd data verify` names it
        return named

    async def _object(self, key: str, size: int) -> tuple[dict[str, Any], Manifest | None]:
        """A row about an object, and its manifest."""
        row, manifest = _row(key, size), None
        known = (self._rows or {}).get(key)
        row["in_inventory"] = None if self._rows is None else known is not None
        try:
            its = layout.parse_raw(key)
            row["object_group"] = its.group
            manifest = await read_manifest(self._storage, self._bucket, its)
            row["manifest_records"] = manifest.records
            counted = await self._read(key, manifest, row)
        except DataError as error:
            row["problem"] = error.message
            row["readable"] = False
            return row, manifest
        row["records"] = counted
        row["same_as_inventory"] = (
            None if known is None else (known.sha256, known.records) == (manifest.sha256, counted)
        )
        return row, manifest

    async def _read(self, key: str, manifest: Manifest, row: dict[str, Any]) -> int:
        """Count the frames of an object; DataError when it cannot be trusted."""
        count, outside, backwards = 0, 0, 0
        trades: list[bytes] = []
        last: dict[str, int] = {}
        async for lines in read_lines(self._storage, self._bucket, key, manifest):
            for line in lines:
                record = parse_line(line)
                count += 1
                outside += not 0 <= record.received_ns - self._start_ns < NS_PER_DAY
                backwards += record.n <= last.get(record.connection, -1)
                last[record.connection] = record.n
                trade_id = self._frame(key, record)
                if trade_id:
                    trades.append(_hash(record.connection, trade_id))
        row["outside_day"], row["out_of_order"] = outside, backwards
        self._trades[key] = np.frombuffer(b"".join(trades), np.uint64)
        return count

    def _frame(self, key: str, record: RawRecord) -> str:
        """Follow a frame; the id of the trade in it."""
        its = self._connections.get(record.connection)
        if its is None:
            its = self._connections[record.connection] = _Connection(self._parts, record.connection)
        its.frames += 1
        its.repeated += not its.numbers.add(record.n)
        its.first_ns, its.last_ns = min(its.first_ns, record.received_ns), max(its.last_ns, record.received_ns)
        decoded = self._parts.decoder.decode(record.frame)
        self._understood.frame(decoded)
        if decoded.problem:
            self._problem(key, record, decoded, decoded.problem)
        if decoded.sid is not None and decoded.seq is not None and decoded.seq < _MAX_JUMP:
            sequence = its.sequences[decoded.sid]
            if decoded.seq < sequence.published_from and self._understood.published(record.connection, record.n):
                sequence.published_from = decoded.seq
            if decoded.problem:
                sequence.add_odd(decoded.seq)
            else:
                sequence.add(decoded.seq, decoded.group == "control")
        return self._trade(key, record, decoded, its) if decoded.group == "trades" else ""

    def _trade(self, key: str, record: RawRecord, decoded: Decoded, its: _Connection) -> str:
        decoded.seq = None  # a frame that came twice is looked at twice here
        event = its.mapper.map(decoded, record.received_ns)
        problems = its.mapper.take_problems()
        if event is None:  # what gives an event all the same (a repeat, a time that went back) is looked at elsewhere
            for problem in problems:
                self._problem(key, record, decoded, problem)
        if not isinstance(event, Trade):
            return ""
        if unfit := self._understood.trade(event, record.n):
            self._problem(key, record, decoded, unfit)
        return event.trade_id

    def _problem(self, key: str, record: RawRecord, decoded: Decoded, kind: str) -> None:
        self._understood.problem(decoded, kind)
        self._problems[key, kind] += 1
        self._examples.setdefault(
            (key, kind),
            {
                "connection": record.connection,
                "n": record.n,
                "received_ns": record.received_ns,
                "example": record.frame[:150].decode(errors="backslashreplace"),
            },
        )

    # -- rows ---------------------------------------------------------------------------------------------------

    def _connection_rows(self) -> list[dict[str, Any]]:
        rows = []
        for name, its in sorted(self._connections.items()):
            numbers = its.numbers
            rows.append(
                {
                    "connection": name, "frames": its.frames, "first_n": numbers.first, "last_n": numbers.last,
                    "missing": _missing_count(numbers), "missing_numbers": _spans(numbers.holes()),
                    "repeated": its.repeated, "first_ns": its.first_ns, "last_ns": its.last_ns,
                }
            )  # fmt: skip
        return rows

    def _sequence_rows(self) -> list[dict[str, Any]]:
        rows = []
        for name, connection in sorted(self._connections.items()):
            for sid, its in sorted(connection.sequences.items()):
                its.finish()
                holes = list(its.all.holes())
                ours = [hole for hole in holes if hole[1] >= its.published_from]
                bare = [hole for hole in ours if not self._recorded(name, sid, hole)]
                rows.append(
                    {
                        "connection": name, "sid": sid, "frames": its.frames,
                        "first_seq": its.all.first, "last_seq": its.all.last,
                        "missing": sum(last - first + 1 for first, last in holes),
                        "missing_unrecorded": sum(last - first + 1 for first, last in bare),
                        "missing_numbers": _spans(bare or holes), "repeated": its.repeated,
                        "first_ns": connection.first_ns, "last_ns": connection.last_ns,
                    }
                )  # fmt: skip
        return rows

    def _recorded(self, connection: str, sid: int, hole: tuple[int, int]) -> bool:
        """Does a recorded gap cover a hole in the exchange's numbers?"""
        for gap in self._gaps:
            if gap.connection == connection and gap.sid in (None, sid):
                if gap.last_seq is None or gap.next_seq is None:
                    continue
                if gap.last_seq < hole[0] and gap.next_seq > hole[1]:
                    return True
        return False

    def _problem_rows(self) -> list[dict[str, Any]]:
        return [
            {"key": key, "kind": kind, "frames": count, **self._examples[key, kind]}
            for (key, kind), count in sorted(self._problems.items())
        ]

    async def _repeated_trades(self) -> dict[str, tuple[int, str]]:
        """Trades that a connection brought more than once: how many times too often, and some ids, by object."""
        if not self._trades:
            return {}
        together = np.sort(np.concatenate(list(self._trades.values())))
        alike = np.unique(together[1:][together[1:] == together[:-1]])
        found: dict[str, tuple[int, str]] = {}
        if not len(alike):
            return found
        seen: Counter[tuple[str, str]] = Counter()
        for key, hashes in sorted(self._trades.items()):
            if np.isin(hashes, alike).any():
                again = await self._again(key, alike, seen)
                if again:
                    found[key] = len(again), ", ".join(again[:MAX_EXAMPLES])
        return found

    async def _again(self, key: str, alike: Any, seen: Counter[tuple[str, str]]) -> list[str]:
        """Read an object once more: the ids in it that came before, exactly."""
        wanted = set(alike.tolist())
        again = []
        async for lines in read_lines(self._storage, self._bucket, key):
            for line in lines:
                record = parse_line(line)
                decoded = self._parts.decoder.decode(record.frame)
                if decoded.group != "trades":
                    continue
                decoded.seq = None
                event = self._connections[record.connection].mapper.map(decoded, record.received_ns)
                if not isinstance(event, Trade) or not event.trade_id:
                    continue
                if int.from_bytes(_hash(record.connection, event.trade_id), "little") in wanted:
                    if seen[record.connection, event.trade_id]:
                        again.append(event.trade_id)
                    seen[record.connection, event.trade_id] += 1
        return again


def _row(key: str, size: int, *, problem: str = "", present: bool = True) -> dict[str, Any]:
    return {
        "key": key, "object_group": "", "bytes": size, "records": None, "manifest_records": None, "present": present,
        "readable": present, "in_inventory": None, "same_as_inventory": None, "outside_day": 0, "out_of_order": 0,
        "repeated_trades": 0, "repeated_examples": "", "problem": problem,
    }  # fmt: skip


def _hash(connection: str, trade_id: str) -> bytes:
    return hashlib.blake2b(f"{connection}\n{trade_id}".encode(errors="replace"), digest_size=8).digest()


def _missing_count(numbers: Numbers) -> int:
    return sum(last - first + 1 for first, last in numbers.holes())


def _spans(holes: Iterable[tuple[int, int]]) -> str:
    found = [str(first) if first == last else f"{first}-{last}" for first, last in holes]
    return ", ".join(found[:MAX_EXAMPLES]) + (f", and {len(found) - MAX_EXAMPLES} more" if found[MAX_EXAMPLES:] else "")
