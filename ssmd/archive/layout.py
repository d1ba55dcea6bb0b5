"""The key of every object in the archive, built and parsed here only.

{feed}/2026/11/22/trades-00.jsonl.zst                                   RawObject (raw bucket)
{feed}/2026/11/22/_manifest/trades-00.json                              its manifest
{feed}/2026/11/22/_gaps/{received_ns}-{connection}.json                 GapObject
{feed}/2026/11/22/_handovers/{at_ns}-{connection}.json                  HandoverObject
{feed}/v1/trade/2026/11/22/_segments/{stream}-{first}-{last}.capnp.zst  SegmentObject (normalized bucket)
{feed}/v1/trade/2026/11/22/{ticker token}/data.capnp.zst                TickerObject
{feed}/v1/trade/2026/11/22/_manifest/_segments/{…}.json                 manifest of a segment
{feed}/v1/trade/2026/11/22/_manifest/{ticker token}.json                manifest of a ticker's day
{feed}/v1/_manifest/_position/{stream}.json                             PositionObject: what the archiver has stored
{feed}/v1/_parquet/trade/date=2026-11-22/part-00000.parquet             ParquetDay: made of all that, for analysis
{feed}/v1/_parquet/trade/date=2026-11-22/_manifest.json                 what its parts hold, and were made of
"""

import re
from collections.abc import Callable
from datetime import date
from typing import TypeAlias, TypeVar

import msgspec

from ssmd.errors import DataError
from ssmd.market.subjects import check_feed, decode_ticker, encode_ticker

SCHEMA_VERSION = "v1"
"""Version of the Cap'n Proto schemas, the second segment of every normalized key."""

NO_CONNECTION = "none"
"""Stands for the connection of a gap that concerns none in particular."""

_RAW = re.compile(r"([a-z]+)(?:-([a-z0-9]+(?:-[a-z0-9]+)*))?-([0-9]{2,})")
_SHARD = re.compile(r"(?:[a-z0-9]+(?:-[a-z0-9]+)*)?")
_WORD = re.compile(r"[a-z]+")
_DAY = re.compile(r"([0-9]{4})/([0-9]{2})/([0-9]{2})")
_GAP = re.compile(r"([0-9]+)-([^./]+)(?:\.([0-9]+))?\.json")
_HANDOVER = re.compile(r"([0-9]+)-([^./]+)\.json")
_SEGMENT = re.compile(r"([^./]+)-([0-9]{12,})-([0-9]{12,})")
_RAW_SUFFIX = ".jsonl.zst"
_SUFFIX = ".capnp.zst"


def _day_path(day: date) -> str:
    return f"{day.year:04d}/{day.month:02d}/{day.day:02d}"


def _check_word(word: str, what: str) -> str:
    if not _WORD.fullmatch(word):
        raise DataError(f"{what} {word!r} must be lower-case letters")
    return word


class RawObject(msgspec.Struct, frozen=True, order=True):
    """Segment `number` of a group's frames on a day; `shard` names one of several writers ("" when there is one)."""

    feed: str
    day: date
    group: str
    shard: str
    number: int

    @property
    def name(self) -> str:
        """`trades-00` or `trades-{shard}-00`."""
        return f"{raw_stem(self.group, self.shard)}{self.number:02d}"

    @property
    def key(self) -> str:
        """Its key in the raw bucket."""
        return f"{raw_day_prefix(self.feed, self.day)}{self.name}{_RAW_SUFFIX}"

    @property
    def manifest_key(self) -> str:
        """Its manifest's key in the raw bucket."""
        return f"{raw_day_prefix(self.feed, self.day)}_manifest/{self.name}.json"


class GapObject(msgspec.Struct, frozen=True):
    """A gap that ended at `received_ns` on `connection`; `copy` tells apart gaps that agree in both."""

    feed: str
    day: date
    received_ns: int
    connection: str
    copy: int = 0

    @property
    def key(self) -> str:
        """Its key in the raw bucket."""
        mark = f".{self.copy}" if self.copy else ""
        return f"{gaps_prefix(self.feed, self.day)}{self.received_ns}-{encode_ticker(self.connection)}{mark}.json"


class HandoverObject(msgspec.Struct, frozen=True, order=True):
    """What was settled at `at_ns` about who publishes: `connection` stands by from then on, or takes over."""

    feed: str
    day: date
    at_ns: int
    connection: str

    @property
    def key(self) -> str:
        """Its key in the raw bucket."""
        return f"{handovers_prefix(self.feed, self.day)}{self.at_ns}-{encode_ticker(self.connection)}.json"


class SegmentObject(msgspec.Struct, frozen=True, order=True):
    """Events of one type and day, in stream order: all of the stream's between `first_seq` and `last_seq`."""

    feed: str
    type: str
    day: date
    stream: str
    first_seq: int
    last_seq: int

    @property
    def name(self) -> str:
        """`{stream}-{first}-{last}`; twelve digits, so that names sort by number."""
        return f"{encode_ticker(self.stream)}-{self.first_seq:012d}-{self.last_seq:012d}"

    @property
    def key(self) -> str:
        """Its key in the normalized bucket."""
        return f"{normalized_day_prefix(self.feed, self.type, self.day)}_segments/{self.name}{_SUFFIX}"

    @property
    def manifest_key(self) -> str:
        """Its manifest's key in the normalized bucket."""
        return f"{normalized_day_prefix(self.feed, self.type, self.day)}_manifest/_segments/{self.name}.json"


class TickerObject(msgspec.Struct, frozen=True, order=True):
    """All events of one type, ticker (for gaps: connection) and day."""

    feed: str
    type: str
    day: date
    ticker: str

    @property
    def key(self) -> str:
        """Its key in the normalized bucket."""
        return f"{normalized_day_prefix(self.feed, self.type, self.day)}{encode_ticker(self.ticker)}/data{_SUFFIX}"

    @property
    def manifest_key(self) -> str:
        """Its manifest's key in the normalized bucket."""
        return f"{normalized_day_prefix(self.feed, self.type, self.day)}_manifest/{encode_ticker(self.ticker)}.json"


class PositionObject(msgspec.Struct, frozen=True):
    """How far a stream is archived."""

    feed: str
    stream: str

    @property
    def key(self) -> str:
        """Its key in the normalized bucket."""
        return f"{check_feed(self.feed)}/{SCHEMA_VERSION}/_manifest/_position/{encode_ticker(self.stream)}.json"


class ParquetDay(msgspec.Struct, frozen=True, order=True):
    """All events of one type and day as Parquet files; they are no part of the archive and can be made again."""

    feed: str
    type: str
    day: date

    @property
    def prefix(self) -> str:
        """What its keys begin with: a partition as DuckDB, polars and pandas read it (`date=…`)."""
        kind = _check_word(self.type, "event type")
        return f"{check_feed(self.feed)}/{SCHEMA_VERSION}/_parquet/{kind}/date={self.day.isoformat()}/"

    @property
    def manifest_key(self) -> str:
        """Its manifest's key in the normalized bucket; readers of data sets pass over names that begin with `_`."""
        return f"{self.prefix}_manifest.json"

    def part_key(self, number: int) -> str:
        """Key of one of its files."""
        return f"{self.prefix}part-{number:05d}.parquet"


DataObject: TypeAlias = RawObject | SegmentObject | TickerObject
"""What has a manifest and a row in the inventory."""

Found = TypeVar("Found", RawObject, SegmentObject, TickerObject)


def raw_stem(group: str, shard: str) -> str:
    """`trades-` or `trades-{shard}-`; DataError for names that a key cannot hold."""
    if not _SHARD.fullmatch(shard):
        raise DataError(f"shard {shard!r} must be lower-case letters and digits, joined by single hyphens")
    return f"{_check_word(group, 'group')}-{shard}-" if shard else f"{_check_word(group, 'group')}-"


def raw_day_prefix(feed: str, day: date) -> str:
    """What all raw keys of a day begin with."""
    return f"{check_feed(feed)}/{_day_path(day)}/"


def raw_manifests_prefix(feed: str, day: date) -> str:
    """What the manifests of a day's raw objects begin with."""
    return f"{raw_day_prefix(feed, day)}_manifest/"


def gaps_prefix(feed: str, day: date) -> str:
    """What the keys of gaps that ended on a day begin with."""
    return f"{raw_day_prefix(feed, day)}_gaps/"


def handovers_prefix(feed: str, day: date) -> str:
    """What the keys of a day's handovers begin with."""
    return f"{raw_day_prefix(feed, day)}_handovers/"


def is_raw_record(key: str, feed: str, day: date) -> bool:
    """Is this key of the day no data object and no manifest, but a record: a gap's or a handover's?"""
    return key.startswith((gaps_prefix(feed, day), handovers_prefix(feed, day)))


def normalized_day_prefix(feed: str, event_type: str, day: date) -> str:
    """What all normalized keys of an event type and day begin with."""
    return f"{check_feed(feed)}/{SCHEMA_VERSION}/{_check_word(event_type, 'event type')}/{_day_path(day)}/"


def segments_prefix(feed: str, event_type: str, day: date) -> str:
    """What the archiver's segments of an event type and day begin with."""
    return f"{normalized_day_prefix(feed, event_type, day)}_segments/"


def normalized_manifests_prefix(feed: str, event_type: str, day: date) -> str:
    """What the manifests of an event type and day begin with."""
    return f"{normalized_day_prefix(feed, event_type, day)}_manifest/"


def parse_raw(key: str) -> RawObject:
    """The raw object that has this key; DataError when no object has."""
    feed, day, rest = _split_raw(key)
    return _canonical(_raw_object(feed, day, rest.removesuffix(_RAW_SUFFIX), key), key)


def parse_raw_manifest(key: str) -> RawObject:
    """The raw object whose manifest has this key; DataError when none has."""
    feed, day, rest = _split_raw(key)
    found = _raw_object(feed, day, rest.removeprefix("_manifest/").removesuffix(".json"), key)
    return _canonical_manifest(found, key)


def parse_gap(key: str) -> GapObject:
    """The gap object that has this key; DataError when none has."""
    feed, day, rest = _split_raw(key)
    match = _GAP.fullmatch(rest.removeprefix("_gaps/"))
    if match is None:
        raise _no_key(key)
    copy = int(match[3]) if match[3] else 0
    found = GapObject(feed, day, int(match[1]), decode_ticker(match[2]), copy)
    if found.key != key:
        raise _no_key(key)
    return found


def parse_handover(key: str) -> HandoverObject:
    """The handover object that has this key; DataError when none has."""
    feed, day, rest = _split_raw(key)
    match = _HANDOVER.fullmatch(rest.removeprefix("_handovers/"))
    if match is None:
        raise _no_key(key)
    found = HandoverObject(feed, day, int(match[1]), decode_ticker(match[2]))
    if found.key != key:
        raise _no_key(key)
    return found


def parse_normalized(key: str) -> SegmentObject | TickerObject:
    """The normalized object that has this key; DataError when none has."""
    feed, event_type, day, rest = _split_normalized(key)
    if rest.endswith(f"/data{_SUFFIX}"):
        token = rest.removesuffix(f"/data{_SUFFIX}")
        return _canonical(TickerObject(feed, event_type, day, decode_ticker(token)), key)
    name = rest.removeprefix("_segments/").removesuffix(_SUFFIX)
    return _canonical(_segment_object(feed, event_type, day, name, key), key)


def parse_normalized_manifest(key: str) -> SegmentObject | TickerObject:
    """The normalized object whose manifest has this key; DataError when none has."""
    feed, event_type, day, rest = _split_normalized(key)
    name = rest.removeprefix("_manifest/").removesuffix(".json")
    if name.startswith("_segments/"):
        segment = _segment_object(feed, event_type, day, name.removeprefix("_segments/"), key)
        return _canonical_manifest(segment, key)
    return _canonical_manifest(TickerObject(feed, event_type, day, decode_ticker(name)), key)


def belongs(parse: Callable[[str], object], key: str) -> bool:
    """Does `parse` know this key? A stranger's file among ours is passed over; `ssmd data verify` names it."""
    try:
        parse(key)
    except DataError:
        return False
    return True


def _no_key(key: str) -> DataError:
    return DataError(f"{key[:300]!r} is not a key of the archive's layout")


def _split_raw(key: str) -> tuple[str, date, str]:
    parts = key.split("/", 4)
    if len(parts) != 5:
        raise _no_key(key)
    return check_feed(parts[0]), _parse_day("/".join(parts[1:4]), key), parts[4]


def _split_normalized(key: str) -> tuple[str, str, date, str]:
    parts = key.split("/", 6)
    if len(parts) != 7 or parts[1] != SCHEMA_VERSION:
        raise _no_key(key)
    return check_feed(parts[0]), _check_word(parts[2], "event type"), _parse_day("/".join(parts[3:6]), key), parts[6]


def _parse_day(text: str, key: str) -> date:
    match = _DAY.fullmatch(text)
    try:
        if match is not None:
            return date(int(match[1]), int(match[2]), int(match[3]))
    except ValueError as error:
        raise _no_key(key) from error
    raise _no_key(key)


def _raw_object(feed: str, day: date, name: str, key: str) -> RawObject:
    match = _RAW.fullmatch(name)
    if match is None:
        raise _no_key(key)
    return RawObject(feed, day, match[1], match[2] or "", int(match[3]))


def _segment_object(feed: str, event_type: str, day: date, name: str, key: str) -> SegmentObject:
    match = _SEGMENT.fullmatch(name)
    if match is None:
        raise _no_key(key)
    return SegmentObject(feed, event_type, day, decode_ticker(match[1]), int(match[2]), int(match[3]))


def _canonical(found: Found, key: str) -> Found:
    if found.key != key:
        raise _no_key(key)
    return found


def _canonical_manifest(found: Found, key: str) -> Found:
    if found.manifest_key != key:
        raise _no_key(key)
    return found
