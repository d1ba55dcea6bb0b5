"""Row: backfill, a day of raw objects made into normalized ones; as compaction does, without the storage's latency."""

import asyncio
import json
import shutil
from collections import defaultdict
from collections.abc import Iterator
from datetime import date
from functools import partial
from pathlib import Path

import zstandard

from ssmd.archive.frames import Decompressor, compress, compress_lists
from ssmd.archive.layout import TickerObject
from ssmd.archive.normalize import TickerFile, normalize_day
from ssmd.archive.spill import Spill
from ssmd.archive.writer import RawSegment, store_raw
from ssmd.clock import day_start_ns
from ssmd.feeds.catalogue import open_feed
from ssmd.feeds.kalshi.decoder import KalshiDecoder
from ssmd.market.events import EVENT_TYPES
from ssmd.middleware.storage.local import LocalStorage
from ssmd.wire.raw import raw_line
from tests.bench.broker import FEED
from tests.bench.connector import BUCKET, CONNECTION
from tests.bench.frames import Tape
from tests.bench.measure import Lap, Stopwatch
from tests.bench.naive import NaiveNormalizer

DAY = date(2026, 11, 22)
_APART_NS = 100_000


class RawDay:
    """A raw archive in `folder` with the tape as its only day."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.storage = LocalStorage(folder)
        self.frames = 0

    async def write(self, tape: Tape) -> None:
        """Store the tape's frames."""
        decode = KalshiDecoder().decode
        groups: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
        for n, frame in enumerate(tape.opening + tape.frames):
            what = decode(frame)
            line = raw_line(day_start_ns(DAY) + n * _APART_NS, what.type, CONNECTION, n, frame, what.inline)
            groups[what.group].append((n, line))
        for group, lines in groups.items():
            path = self.folder / f"{group}.zst"
            first, last = lines[0][0], lines[-1][0]
            segment = RawSegment(
                feed=FEED, day=DAY, group=group, shard="", number=0, records=len(lines),
                first_ns=day_start_ns(DAY) + first * _APART_NS, last_ns=day_start_ns(DAY) + last * _APART_NS,
                connections={CONNECTION: (first, last)}, compressed=compress([line for _, line in lines], path),
            )  # fmt: skip
            await store_raw(self.storage, BUCKET, segment, path)
            path.unlink(missing_ok=True)
            self.frames += len(lines)

    def objects(self) -> list[Path]:
        """The raw objects' files, books' first."""
        return sorted((self.folder / BUCKET).rglob("*.jsonl.zst"))

    async def ours(self, folder: Path) -> Lap:
        """One lap of ssmd: read, check, merge, normalize, group by ticker, compress, sync."""
        folder.mkdir()
        watch = Stopwatch()
        watch.start()
        with Spill(folder / "spill") as spill:
            made = await normalize_day(self.storage, BUCKET, FEED, DAY, partial(open_feed, FEED), spill)
            async with asyncio.TaskGroup() as tasks:  # several at a time, as compaction writes them
                for kind in EVENT_TYPES:
                    tasks.create_task(asyncio.to_thread(compress_lists, _messages(kind, spill), folder / f"{kind}.zst"))
        lap = watch.lap(made.frames)
        shutil.rmtree(folder)
        if made.frames != self.frames or made.problems:
            raise RuntimeError(f"{made.frames} of {self.frames} frames normalized, problems {made.problems}")
        return lap

    async def naive(self, folder: Path) -> Lap:
        """One lap of the baseline: json, pycapnp with keyword arguments, one object after the other."""
        folder.mkdir()
        normalizer, frames = NaiveNormalizer(FEED, CONNECTION), 0
        watch = Stopwatch()
        watch.start()
        groups: dict[str, list[bytes]] = defaultdict(list)
        for path in self.objects():
            with path.open("rb") as file:
                reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
                for line in reader.read().splitlines():
                    record = json.loads(line)
                    message = normalizer.normalize_fields(record["data"], record["recv_ns"])
                    frames += 1
                    if message is not None:
                        groups[message[0]].append(message[1])
        compressor = zstandard.ZstdCompressor(level=3)
        with (folder / "naive.zst").open("wb") as out:
            for messages in groups.values():
                out.write(compressor.compress(b"".join(messages)))
        lap = watch.lap(frames)
        shutil.rmtree(folder)
        return lap

    async def limit(self) -> Lap:
        """One lap of decompressing and splitting into lines, and nothing else."""
        lines = 0
        watch = Stopwatch()
        watch.start()
        for path in self.objects():
            reader = Decompressor(path.name)
            with path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    lines += sum(len(content.splitlines()) for content in reader.feed(chunk))
            reader.finish()
        return watch.lap(lines)


def _messages(kind: str, spill: Spill) -> Iterator[list[bytes]]:
    for key in spill.sorted_keys():
        if key[0] == kind:
            yield from TickerFile(TickerObject(FEED, kind, DAY, key[1]), spill).lists()
