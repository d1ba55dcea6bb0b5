"""Read objects of the archive back: contents, lines, messages and gaps, strictly checked, in bounded memory."""

from collections.abc import AsyncIterator, Callable
from datetime import date
from typing import TypeVar

import msgspec

from ssmd.archive import layout
from ssmd.archive.frames import Compressed, Decompressor
from ssmd.archive.layout import GapObject, SegmentObject, TickerObject
from ssmd.archive.manifest import Manifest
from ssmd.archive.segments import symbol_of
from ssmd.errors import DataError
from ssmd.market.events import Gap
from ssmd.middleware.storage.interface import Storage
from ssmd.wire.layout import message_end
from ssmd.wire.normalized import decode

MAX_LINE_BYTES = 48 << 20
_HINT = "Run: ssmd data verify"

Place = TypeVar("Place")
Record = TypeVar("Record")


async def stream_contents(
    storage: Storage,
    bucket: str,
    key: str,
    expected: Manifest | None = None,
    on_read: Callable[[int], None] | None = None,
) -> AsyncIterator[bytes]:
    """The contents of an object's zstd frames; `on_read` is told the stored bytes as they are read.

    DataError naming the object for a truncated or damaged frame and, at its end, when it is not what `expected` says.
    """
    reader = Decompressor(f"{bucket}/{key}")
    async for chunk in storage.stream(bucket, key):
        if on_read is not None:
            on_read(len(chunk))
        for content in reader.feed(chunk):
            yield content
    reader.finish()
    if expected is not None:
        told = Compressed(expected.sha256, expected.bytes, expected.zstd_frames, expected.raw_bytes)
        if reader.counted != told:
            raise DataError(f"{bucket}/{key} is not what its manifest says: {reader.counted}, not {told}", _HINT)


async def read_line_blocks(
    storage: Storage,
    bucket: str,
    key: str,
    expected: Manifest | None = None,
    on_read: Callable[[int], None] | None = None,
) -> AsyncIterator[bytes]:
    """The whole lines of a raw object with their line ends, many in one block; errors as `stream_contents`."""
    rest = b""
    async for content in stream_contents(storage, bucket, key, expected, on_read):
        if rest:
            content = rest + content
        end = content.rfind(b"\n") + 1
        rest = content[end:]
        if len(rest) > MAX_LINE_BYTES:
            raise DataError(f"{bucket}/{key} has a line of more than {MAX_LINE_BYTES} bytes")
        if end:
            yield content[:end] if rest else content
    if rest:
        raise DataError(f"{bucket}/{key} ends within a line")


async def read_lines(
    storage: Storage, bucket: str, key: str, expected: Manifest | None = None
) -> AsyncIterator[list[bytes]]:
    """The lines of a raw object, without their line ends, some at a time; errors as `stream_contents`."""
    async for block in read_line_blocks(storage, bucket, key, expected):
        yield block[:-1].split(b"\n")


async def read_messages(
    storage: Storage, bucket: str, key: str, expected: Manifest | None = None
) -> AsyncIterator[list[bytes]]:
    """The Cap'n Proto messages of a normalized object, some at a time; errors as `stream_contents`."""
    rest = b""
    async for content in stream_contents(storage, bucket, key, expected):
        messages, rest = cut_messages(rest + content)
        yield messages
    if rest:
        raise DataError(f"{bucket}/{key} ends within a message")


def cut_messages(data: bytes) -> tuple[list[bytes], bytes]:
    """The whole messages that `data` begins with, and the rest; DataError when the rest is longer than any message."""
    messages, start = [], 0
    try:
        while start < len(data):
            end = message_end(data, start)
            messages.append(data[start:end])
            start = end
    except DataError:
        if len(data) - start > MAX_LINE_BYTES:
            raise
    return messages, data[start:]


async def read_records(
    storage: Storage, bucket: str, prefix: str, parse: Callable[[str], Place], kind: type[Record]
) -> dict[Place, Record]:
    """The JSON records below a prefix by their places; DataError for an object that is none of its kind.

    Keys that are not of the layout are passed over.
    """
    found: dict[Place, Record] = {}
    for entry in await storage.list(bucket, prefix):
        if not layout.belongs(parse, entry.key):
            continue
        try:
            found[parse(entry.key)] = msgspec.json.decode(await storage.get(bucket, entry.key), type=kind)
        except msgspec.MsgspecError as error:
            raise DataError(f"{bucket}/{entry.key} is not a {kind.__name__.lower()} ({error})") from error
    return found


async def read_gaps(storage: Storage, bucket: str, feed: str, day: date) -> dict[GapObject, Gap]:
    """The recorded gaps that ended on a day, by their object; DataError for an object that is no gap."""
    return await read_records(storage, bucket, layout.gaps_prefix(feed, day), layout.parse_gap, Gap)


async def normalized_objects(
    storage: Storage, bucket: str, feed: str, event_type: str, day: date
) -> tuple[list[TickerObject], list[SegmentObject]]:
    """The compacted objects and the segments of an event type and day, sorted; other keys are passed over."""
    tickers: list[TickerObject] = []
    segments: list[SegmentObject] = []
    prefix = layout.normalized_day_prefix(feed, event_type, day)
    for entry in await storage.list(bucket, prefix):
        if entry.key.startswith(f"{prefix}_manifest/") and entry.key.endswith(".json"):
            continue
        if not layout.belongs(layout.parse_normalized, entry.key):
            continue
        its = layout.parse_normalized(entry.key)
        if isinstance(its, TickerObject):
            tickers.append(its)
        else:
            segments.append(its)
    return sorted(tickers), sorted(segments)


async def read_normalized(
    storage: Storage, bucket: str, feed: str, event_type: str, day: date, ticker: str | None = None
) -> AsyncIterator[bytes]:
    """The messages of an event type and day, of all tickers or one (of gaps: one connection).

    From the compacted objects, ticker by ticker; a day that is not compacted is read from its segments, in stream
    order. Errors as `stream_contents`.
    """
    tickers, segments = await normalized_objects(storage, bucket, feed, event_type, day)
    chosen = [its for its in tickers if ticker is None or its.ticker == ticker] if tickers else segments
    for its in chosen:
        async for messages in read_messages(storage, bucket, its.key):
            for message in messages:
                if ticker is None or tickers or symbol_of(decode(event_type, message)) == ticker:
                    yield message
