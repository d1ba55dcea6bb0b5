"""The normalized archive as Parquet, one folder per event type and day, for analysis and for quality checks.

Made from the compacted objects, or from the segments of a day that is not compacted; sorted by ticker, then in the
order of the archive. Nothing is left out and nothing is merged: a trade that stands there twice has two rows. The same
inputs give the same files; a manifest says which inputs those were, so that a day is made again only when they change.
"""

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import structlog

from ssmd import __version__
from ssmd.archive.layout import ParquetDay, SegmentObject, TickerObject
from ssmd.archive.reader import normalized_objects, read_messages
from ssmd.archive.segments import symbol_of
from ssmd.archive.spill import Spill
from ssmd.errors import DataError
from ssmd.market.events import Event
from ssmd.middleware.storage.interface import ObjectMissing, Storage
from ssmd.quality.columns import SCHEMAS, Books, table_of
from ssmd.quality.exported import FORMAT, Exported, Part, inputs_of, read_exported
from ssmd.wire.normalized import decode

ROWS_AT_ONCE = 65_536
ROWS_PER_PART = 4_000_000
_AGAIN = "Run: ssmd data export --force"

log = structlog.get_logger(component="quality")


async def export(
    storage: Storage, bucket: str, its: ParquetDay, *, force: bool = False, work: Path | None = None
) -> tuple[Exported, bool]:
    """The Parquet files of an event type and day, made now if they are absent, stale or damaged; and whether they were.

    `work` is a folder for temporary files. Raises DataError for an object that cannot be read, StorageUnavailable.
    """
    tickers, segments = await normalized_objects(storage, bucket, its.feed, its.type, its.day)
    chosen: Sequence[TickerObject | SegmentObject] = tickers or segments
    inputs = await inputs_of(storage, bucket, chosen)
    known = await read_exported(storage, bucket, its)
    if known is not None and not force and (known.inputs, known.format) == (inputs, FORMAT):
        present = {entry.key: entry.bytes for entry in await storage.list(bucket, its.prefix)}
        damaged = [part.key for part in known.parts if present.get(part.key) != part.bytes]
        damaged = damaged or [part.key for part in known.parts if not await _intact(storage, bucket, part)]
        if not damaged:
            return known, False
        log.warning("damaged export is made again", key=damaged[0], files=len(damaged))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ssmd-parquet-", dir=work)))
        messages = _by_ticker(storage, bucket, tickers) if tickers else _spilled(storage, bucket, segments, folder)
        writer = _Writer(its, folder)
        try:
            async for batch in messages:
                await asyncio.to_thread(writer.add, batch)
            await asyncio.to_thread(writer.finish)
        finally:
            writer.close()
        made = await _publish(storage, bucket, its, writer, inputs)
    log.info("exported", feed=its.feed, type=its.type, day=its.day.isoformat(), rows=made.rows, parts=len(made.parts))
    return made, True


async def _by_ticker(storage: Storage, bucket: str, objects: Sequence[TickerObject]) -> AsyncIterator[list[bytes]]:
    for its in objects:
        async for messages in read_messages(storage, bucket, its.key):
            yield messages


async def _spilled(
    storage: Storage, bucket: str, segments: Sequence[SegmentObject], folder: Path
) -> AsyncIterator[list[bytes]]:
    """The messages of segments, sorted by ticker and in stream order."""
    with Spill(folder / "events") as spill:
        for its in segments:
            async for messages in read_messages(storage, bucket, its.key):
                for message in messages:
                    spill.add((its.type, symbol_of(decode(its.type, message))), message)
        for key in spill.sorted_keys():
            for messages in spill.lists(key):
                yield messages


class _Writer:
    """Puts messages into Parquet files below `folder`, some rows at a time."""

    def __init__(self, its: ParquetDay, folder: Path) -> None:
        self._its = its
        self._folder = folder
        self._waiting: list[Event] = []
        self._books = Books()
        self._tickers: set[str] = set()
        self._open: Any = None
        self.rows: list[int] = []
        self.first_ns = 1 << 64
        self.last_ns = 0

    def path(self, number: int) -> Path:
        """The file of a part."""
        return self._folder / f"part-{number:05d}"

    @property
    def tickers(self) -> int:
        """How many markets (of gaps: connections) there are."""
        return len(self._tickers)

    def add(self, messages: Sequence[bytes]) -> None:
        """The next messages. DataError when one cannot be read."""
        kind = self._its.type
        self._waiting += [decode(kind, message) for message in messages]
        if len(self._waiting) >= ROWS_AT_ONCE:
            self._write()

    def finish(self) -> None:
        """Write what waits; there is at least one part, so that readers find the columns."""
        if self._waiting or not self.rows:
            self._write()
        self.close()

    def close(self) -> None:
        """Close the file that is open."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        if self._open is None:
            self._open = pq.ParquetWriter(
                self.path(len(self.rows)), SCHEMAS[self._its.type], compression="zstd", compression_level=3
            )
            self.rows.append(0)
        if not waiting:
            return
        self._open.write_batch(table_of(self._its.type, waiting, self._books))
        times = [event.to_ns if self._its.type == "gap" else event.received_ns for event in waiting]  # type: ignore[union-attr]
        self.first_ns, self.last_ns = min(self.first_ns, *times), max(self.last_ns, *times)
        last = symbol_of(waiting[-1])
        symbols = {symbol_of(event) for event in waiting}
        self._tickers |= symbols
        if symbols != {last}:
            self._books.keep(last)
        self.rows[-1] += len(waiting)
        if self.rows[-1] >= ROWS_PER_PART:
            self.close()


async def _publish(storage: Storage, bucket: str, its: ParquetDay, writer: _Writer, inputs: str) -> Exported:
    """Put the files in the place of earlier ones; the manifest goes first and comes last: without it nothing counts."""
    await storage.delete(bucket, its.manifest_key)
    parts = []
    for number, rows in enumerate(writer.rows):
        path = writer.path(number)
        key = its.part_key(number)
        sha256 = await asyncio.to_thread(_sha256, path)
        parts.append(Part(key, rows, path.stat().st_size, sha256))
        await storage.replace(bucket, key, path)
    kept = {part.key for part in parts}
    for entry in await storage.list(bucket, its.prefix):
        if entry.key not in kept:
            await storage.delete(bucket, entry.key)
    made = Exported(
        its.feed, its.type, its.day, inputs, sum(writer.rows), writer.tickers,
        writer.first_ns if sum(writer.rows) else 0, writer.last_ns, parts, FORMAT, __version__,
    )  # fmt: skip
    await storage.replace(bucket, its.manifest_key, msgspec.json.encode(made, order="deterministic") + b"\n")
    return made


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def _intact(storage: Storage, bucket: str, part: Part) -> bool:
    """Is a file in storage what its manifest says?"""
    found = hashlib.sha256()
    async for chunk in storage.stream(bucket, part.key):
        found.update(chunk)
    return found.hexdigest() == part.sha256


async def fetch(storage: Storage, bucket: str, part: Part, path: Path) -> Path:
    """A file of an export at `path`; DataError when it is not what its manifest says."""
    found = hashlib.sha256()
    try:
        with path.open("wb") as file:
            async for chunk in storage.stream(bucket, part.key):
                found.update(chunk)
                file.write(chunk)
    except ObjectMissing as error:
        raise DataError(f"{bucket}/{part.key} is not there, its manifest says it is", _AGAIN) from error
    if found.hexdigest() != part.sha256:
        raise DataError(f"{bucket}/{part.key} is not what its manifest says: it is damaged", _AGAIN)
    return path


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A Parquet file, closed at the end; DataError naming it when it is none, is damaged or lacks a column."""
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError, KeyError) as error:  # Arrow raises OSError for pages that are cut or damaged
        raise DataError(f"{path.name} cannot be read as Parquet: {error}", _AGAIN) from error
