"""The write-ahead log: every frame stands here before anything else happens to it.

A spool is a folder of segment files; a segment holds the entries of one UTC day in the order they were written:

- RAW: raw lines of one (group, connection), with their counts, so that sealing needs no parsing;
- OUT: messages for the live stream, so that a broker outage or a crash only delays them;
- GAP: a gap record;
- HANDOVER: a record of which connection's events are the day's (`archive.handover`).

An entry is a header (magic, crc32, sizes, kind), a small JSON meta and the body. A torn entry at the end of a file is
what a crash leaves: reading stops there. Files are append-only; a process never writes into another's segment.
"""

import contextlib
import errno
import fcntl
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

import msgspec
import structlog

from ssmd.clock import NS_PER_S, now_ns
from ssmd.errors import ConfigError, FatalError
from ssmd.market.events import Gap
from ssmd.middleware.transport.interface import Outgoing

RAW, OUT, GAP, HANDOVER = 1, 2, 3, 4

_HEADER = struct.Struct("<4sIIHH")  # magic, crc32 of meta and body, body size, meta size, kind
_MAGIC = b"ssE1"
_MESSAGE = struct.Struct("<HHI")  # subject, id and payload sizes
_MAX_BODY = 1 << 31
_KEEP_FREE = 64 << 20
"""Bytes of the disk (a sixteenth of a small one) that stay free: sealing needs room for what it compresses."""

log = structlog.get_logger(component="connector")


class RawMeta(msgspec.Struct, frozen=True):
    """What a RAW entry holds: `records` lines of one group and connection."""

    group: str
    connection: str
    records: int
    first_n: int
    last_n: int
    first_ns: int
    last_ns: int


class Position(NamedTuple):
    """A place in the spool: segment number and byte offset behind an entry."""

    segment: int
    offset: int


class Entry(NamedTuple):
    """One entry as read: `end` is the offset behind it."""

    kind: int
    meta: bytes
    body: memoryview
    end: int


class SpoolFull(Exception):
    """The disk (or the configured share of it) is full; nothing of the last append was kept."""


def pack(kind: int, meta: bytes, body: bytes) -> bytes:
    """One entry as bytes."""
    crc = zlib.crc32(body, zlib.crc32(meta))
    return _HEADER.pack(_MAGIC, crc, len(body), len(meta), kind) + meta + body


def pack_messages(messages: Sequence[Outgoing]) -> bytes:
    """The body of an OUT entry."""
    sizes = _MESSAGE.pack
    return b"".join(
        [
            part
            for subject, identity, payload in messages
            for part in (sizes(len(subject), len(identity), len(payload)), subject, identity, payload)
        ]
    )


def unpack_messages(body: memoryview) -> list[Outgoing]:
    """The messages of an OUT entry."""
    messages = []
    at, size = 0, len(body)
    while at < size:
        subject, identity, payload = _MESSAGE.unpack_from(body, at)
        at += _MESSAGE.size
        end = at + subject + identity + payload
        text = bytes(body[at:end])
        messages.append(Outgoing(text[:subject], text[subject : subject + identity], text[subject + identity :]))
        at = end
    return messages


def read_entries(path: Path, offset: int = 0) -> Iterator[Entry]:
    """The complete entries of a segment file from `offset` on; stops before a torn or damaged one."""
    with path.open("rb") as file:
        file.seek(offset)
        while True:
            header = file.read(_HEADER.size)
            if len(header) < _HEADER.size:
                return
            magic, crc, body_size, meta_size, kind = _HEADER.unpack(header)
            if magic != _MAGIC or body_size > _MAX_BODY:
                return
            meta, body = file.read(meta_size), file.read(body_size)
            if len(body) < body_size or zlib.crc32(body, zlib.crc32(meta)) != crc:
                return
            offset += _HEADER.size + meta_size + body_size
            yield Entry(kind, meta, memoryview(body), offset)


class Segment(msgspec.Struct):
    """A segment file; `day` is the UTC day of its frames."""

    number: int
    day: date
    path: Path
    began_ns: int = 0

    @property
    def bytes(self) -> int:
        """Its size on disk; 0 when it is gone."""
        with contextlib.suppress(FileNotFoundError):
            return self.path.stat().st_size
        return 0


class SpoolState(msgspec.Struct):
    """What must survive a restart beside the entries themselves (`state.json`; at most a second old after a crash).

    `covered_ns`: up to here every frame is in the archive, in the spool or inside a recorded gap; 0 = never captured.
    `published`: everything before this place is stored by the broker. `recent`: a place some seconds back, behind
    which a connector that takes over looks for what was published last. `accepted_key`: a fingerprint of the exchange
    credentials that worked last. `ended_n`: the number of the last frame of `connection`. `counts_from`: frames before
    this place were captured while another connector was the feed's, and say nothing about how far that one came.
    """

    covered_ns: int = 0
    connection: str = ""
    ended_n: int | None = None
    published: Position = Position(0, 0)
    recent: Position = Position(0, 0)
    accepted_key: str = ""
    clean: bool = False
    counts_from: Position = Position(0, 0)


class Spool:
    """The folder, and the segment that is being written. Not safe for several processes: a lock file sees to it."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._state_unwritten = ""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(folder / "lock")
            self.state = read_state(folder)
            self.leftovers = self._find_segments()
            disk = os.statvfs(folder)
        except OSError as error:
            raise ConfigError(
                f"the spool folder {folder} cannot be used: {error.strerror}",
                "make it writable, free some space or set spec.connector.spool.path",
            ) from error
        self._keep_free = min(_KEEP_FREE, disk.f_blocks * disk.f_frsize // 16)
        newest = self.leftovers[-1].number if self.leftovers else 0
        self._next_number = max(newest, self.state.published.segment) + 1
        self.current: Segment | None = None
        self._file = -1
        self.offset = 0
        self.closed_bytes = sum(segment.bytes for segment in self.leftovers)
        self.dirty = False
        self._unnamed = False  # is the current file's name still to be made durable?

    # -- files --------------------------------------------------------------------------------------------------

    def _find_segments(self) -> list[Segment]:
        # Notes of a segment that is gone (killed while removing it) must not be taken for another's of that number.
        known = {path.name.partition(".")[0] for path in self._folder.glob("*.spool")}
        for path in self._folder.glob("[0-9]*-*"):
            if path.name.partition(".")[0] not in known:
                path.unlink(missing_ok=True)
        return find_segments(self._folder)

    def save_state(self) -> None:
        """Write `state.json`, whole or not at all; a full disk leaves an older one, from which a restart can go on."""
        aside = self._folder / "state.json.new"
        try:
            aside.write_bytes(msgspec.json.encode(self.state))
            aside.replace(self._folder / "state.json")
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise FatalError(f"cannot write the spool state in {self._folder}: {error.strerror}") from error
            if not self._state_unwritten:
                log.error("spool state not written", folder=str(self._folder), error=error.strerror)
            self._state_unwritten = error.strerror or "full"
        else:
            self._state_unwritten = ""

    def begin(self, day: date) -> Segment:
        """Open the next segment; the previous one must be closed."""
        segment = Segment(
            self._next_number, day, self._folder / f"{self._next_number:08d}-{day.isoformat()}.spool", now_ns()
        )
        try:
            self._file = os.open(segment.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o640)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise SpoolFull(str(segment.path)) from error
            raise FatalError(f"cannot open the spool segment {segment.path}: {error.strerror}") from error
        self._next_number += 1
        self.current = segment
        self.offset = 0
        self._unnamed = True
        return segment

    @property
    def place(self) -> Position:
        """Where the next entry will stand."""
        return Position(self._next_number, 0) if self.current is None else Position(self.current.number, self.offset)

    def append(self, entries: bytes) -> Position:
        """Append packed entries to the current segment in one write; where they end.

        SpoolFull when the disk or `max_bytes` is exhausted: the file is as it was before.
        """
        assert self.current is not None
        if self.closed_bytes + self.offset + len(entries) > self._max_bytes:
            raise SpoolFull(f"{self._folder} holds {self._max_bytes} bytes (spec.connector.spool.max_mb)")
        disk = os.fstatvfs(self._file)
        if self._keep_free and disk.f_bavail * disk.f_frsize < self._keep_free + len(entries):
            raise SpoolFull(f"less than {self._keep_free} bytes left for {self._folder}")
        written = 0
        try:
            while written < len(entries):
                written += os.write(self._file, entries[written:] if written else entries)
        except OSError as error:
            os.ftruncate(self._file, self.offset)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise SpoolFull(f"no space left for {self.current.path}") from error
            raise FatalError(f"cannot write the spool segment {self.current.path}: {error.strerror}") from error
        self.offset += written
        self.dirty = True
        return Position(self.current.number, self.offset)

    def sync(self) -> None:
        """Make what was appended durable; called from a thread. A failed sync is fatal: it must never be retried."""
        file = self._file
        if file < 0 or not self.dirty:
            return
        self.dirty = False
        unnamed, self._unnamed = self._unnamed, False
        try:
            os.fdatasync(file)
            if unnamed:
                self._sync_names()
        except OSError as error:
            if error.errno == errno.EBADF:  # closed, and synced, meanwhile
                return
            raise FatalError(f"the disk refused to make the spool durable: {error.strerror}") from error

    def end(self) -> Segment | None:
        """Close the current segment, durably; None when there is none."""
        segment = self.current
        if segment is None:
            return None
        self.dirty = True
        self.sync()
        os.close(self._file)
        self._file = -1
        self.current = None
        self.closed_bytes += self.offset
        return segment

    def remove(self, segment: Segment) -> None:
        """Forget a segment that is archived and published: the file before its notes, or a kill in between would
        leave a segment that seems never archived."""
        self.closed_bytes -= segment.bytes
        segment.path.unlink(missing_ok=True)
        for path in (*self._folder.glob(f"{segment.number:08d}-*"),):
            path.unlink(missing_ok=True)

    def note(self, segment: Segment, name: str, content: bytes) -> None:
        """Keep a durable note beside a segment (`plan`, `stored`)."""
        path = segment.path.with_suffix(f".{name}")
        aside = path.with_suffix(path.suffix + ".new")
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        self._sync_names()

    def _sync_names(self) -> None:
        """Make new names in the folder survive a power cut; syncing the files alone does not."""
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def read_note(self, segment: Segment, name: str) -> bytes | None:
        """A note, or None."""
        with contextlib.suppress(FileNotFoundError):
            return segment.path.with_suffix(f".{name}").read_bytes()
        return None

    def close(self) -> None:
        """Close everything and let another process have the folder."""
        try:
            self.end()
            self.save_state()
        finally:
            os.close(self._lock)

    def covered(self) -> tuple[int, str]:
        """See `covered`: of the last run."""
        return covered(self.state, self.leftovers)


def find_segments(folder: Path) -> list[Segment]:
    """The segment files of a folder, oldest first."""
    found = []
    for path in folder.glob("*.spool"):
        number, _, day = path.stem.partition("-")
        found.append(Segment(int(number), date.fromisoformat(day), path))
    return sorted(found, key=lambda segment: segment.number)


def read_state(folder: Path) -> SpoolState:
    """The state that a folder's connector saved last; an empty one when there is none."""
    try:
        return msgspec.json.decode((folder / "state.json").read_bytes(), type=SpoolState)
    except FileNotFoundError:
        pass
    except msgspec.MsgspecError as error:
        log.error("spool state unreadable, going by the segments alone", folder=str(folder), error=str(error))
    return SpoolState()


def covered(state: SpoolState, segments: Sequence[Segment]) -> tuple[int, str]:
    """(time, connection) of the last frame persisted or of the end of the last gap; (0, "") = never captured.

    Reads the newest segment with entries only, so that a restart is not held up by old leftovers. After a crash it
    counts more than the state, which a power cut may have spared where it took the segment's end.
    """
    connection = state.connection
    for segment in () if state.clean else reversed(segments):
        found = 0
        for entry in read_entries(segment.path):
            if Position(segment.number, entry.end) <= state.counts_from:
                continue
            if entry.kind == RAW:
                meta = msgspec.json.decode(entry.meta, type=RawMeta)
                found, connection = later(found, meta.last_ns), meta.connection
            elif entry.kind == GAP:
                found = later(found, msgspec.json.decode(entry.body, type=Gap).to_ns)
        if found:
            return found, connection
    return state.covered_ns, state.connection


def later(before_ns: int, ns: int) -> int:
    """The later of two times of entries; `ns`, which was written later, when the clock was put back between them."""
    return ns if ns < before_ns - NS_PER_S else max(before_ns, ns)


def _lock(path: Path) -> int:
    file = take_lock(path)
    if file is None:
        raise ConfigError(
            f"the spool folder {path.parent} is in use by another connector",
            "stop it first (`ssmd down`), give this one a --name, or its own spec.connector.spool.path",
        )
    return file


def take_lock(path: Path) -> int | None:
    """An open file that holds the lock `path` until it is closed; None while somebody else holds it."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file
