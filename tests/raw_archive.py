"""Fill a raw archive as the connector does: frames by group, day and segment, with manifests and rows."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ssmd.archive.writer import RawSegment, compress, next_number, store_raw
from ssmd.clock import day_of
from ssmd.middleware.storage.interface import Storage
from ssmd.registry.interface import ObjectRecord
from ssmd.wire.raw import raw_line

FEED, RAW = "kalshi", "ssmd-raw"


class Frame(NamedTuple):
    """A received frame and where it belongs."""

    connection: str
    n: int
    received_ns: int
    group: str
    type: str
    data: bytes
    inline: bool = True

    @property
    def line(self) -> bytes:
        return raw_line(self.received_ns, self.type, self.connection, self.n, self.data, self.inline)


async def archive(
    storage: Storage,
    folder: Path,
    frames: Iterable[Frame],
    per_segment: int = 50,
    shard: str = "",
    frame_bytes: int = 4096,
) -> list[ObjectRecord]:
    """Store `frames` (in the order received), a segment whenever a group has `per_segment` of a day."""
    waiting: dict[tuple[object, str], list[Frame]] = defaultdict(list)
    records = []
    for frame in frames:
        held = waiting[day_of(frame.received_ns), frame.group]
        held.append(frame)
        if len(held) == per_segment:
            records.append(await store_segment(storage, folder, held, shard, frame_bytes))
            held.clear()
    left = [held for held in waiting.values() if held]
    return records + [await store_segment(storage, folder, held, shard, frame_bytes) for held in left]


async def store_segment(
    storage: Storage, folder: Path, frames: list[Frame], shard: str = "", frame_bytes: int = 4096
) -> ObjectRecord:
    """Store frames of one group and day as the next segment."""
    day, group = day_of(frames[0].received_ns), frames[0].group
    number = await next_number(storage, RAW, FEED, day, group, shard)
    connections: dict[str, tuple[int, int]] = {}
    for frame in frames:
        connections[frame.connection] = (connections.get(frame.connection, (frame.n, 0))[0], frame.n)
    times = [frame.received_ns for frame in frames]
    made = compress((frame.line for frame in frames), folder / "segment", frame_bytes)
    segment = RawSegment(FEED, day, group, shard, number, len(frames), min(times), max(times), connections, made)
    return await store_raw(storage, RAW, segment, folder / "segment")
