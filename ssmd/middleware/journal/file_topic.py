"""One topic's file: locked appends that are whole or not there, and reading what is committed."""

import binascii
import fcntl
import json
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import structlog

from ssmd.clock import NS_PER_S
from ssmd.errors import DataError
from ssmd.middleware.journal.interface import DUPLICATE_WINDOW_S, ID_HEADER, Entry, NewEntry

_CHUNK = 1 << 20
_TAIL = 4_096

log = structlog.get_logger(component="journal")


class _Line(msgspec.Struct, frozen=True):
    """A line of the file; exactly one of the payloads is there."""

    sequence: int
    time_ns: int
    key: str = ""
    id: str = ""
    payload: msgspec.Raw = msgspec.Raw()
    payload_b64: str | None = None

    def content(self) -> bytes:
        """The payload's own bytes."""
        if self.payload_b64 is not None:
            return binascii.a2b_base64(self.payload_b64, strict_mode=True)
        return bytes(self.payload)


_decode = msgspec.json.Decoder(_Line).decode


class FileTopic:
    """A topic as this process knows it: the last sequence and the ids of the last hour, read on from where it was."""

    def __init__(self, file: Path, clock_ns: Callable[[], int]) -> None:
        self._file = file
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._read_to = 0
        self._inode = 0
        self._last = 0
        self._sequences: dict[str, int] = {}
        self._ages: deque[tuple[int, str]] = deque()

    @staticmethod
    def create(file: Path) -> None:
        """Make the file and its folder, durably; nothing happens to one that is there."""
        file.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644))
        folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @staticmethod
    def committed(file: Path) -> int:
        """The bytes of the file that no writer is at work on, up to the last whole line."""
        with _locked(file, fcntl.LOCK_SH) as descriptor:
            return _whole_lines(descriptor)

    @staticmethod
    def page(file: Path, topic: str, at: int, end: int, from_sequence: int, size: int) -> tuple[list[Entry], int]:
        """The entries of about `size` bytes from `at` on, and where the next page begins."""
        with file.open("rb") as opened:
            opened.seek(at)
            content = opened.read(min(size, end - at))
            if not content.endswith(b"\n"):
                content += opened.readline()
        entries = []
        for line in content.splitlines(keepends=True):
            entry = _entry(file, topic, at, line)
            if entry.sequence >= from_sequence:
                entries.append(entry)
            at += len(line)
        return entries, at

    def end(self) -> int:
        """The last sequence; FileNotFoundError without the file."""
        with self._lock, _locked(self._file, fcntl.LOCK_SH) as descriptor:
            self._catch_up(descriptor, _whole_lines(descriptor))
            return self._last

    def append(self, entries: Sequence[NewEntry]) -> int:
        """Write the entries whose ids are new, all in one piece and on the disk; the last one's sequence."""
        with self._lock, _locked(self._file, fcntl.LOCK_EX) as descriptor:
            start = self._mend(descriptor)
            self._catch_up(descriptor, start)
            self._forget()
            fresh: dict[str, int] = {}
            lines, told, last, now = [], self._last, 0, self._clock_ns()
            for entry in entries:
                known = (self._sequences.get(entry.id) or fresh.get(entry.id)) if entry.id else None
                if known is None:
                    known = told = told + 1
                    lines.append(_line(told, now, entry))
                    if entry.id:
                        fresh[entry.id] = told
                last = known
            if lines:
                _write(descriptor, b"".join(lines), start)
            self._catch_up(descriptor, os.fstat(descriptor).st_size)
            return last

    def _mend(self, descriptor: int) -> int:
        """Cut off what a crash left of a line: it was acknowledged to nobody. The length that remains."""
        whole, size = _whole_lines(descriptor), os.fstat(descriptor).st_size
        if whole < size:
            os.ftruncate(descriptor, whole)
            log.warning("torn entry removed", file=str(self._file), bytes=size - whole)
        return whole

    def _catch_up(self, descriptor: int, end: int) -> None:
        """Learn what other writers appended since; everything again when the file is another one."""
        inode = os.fstat(descriptor).st_ino
        if inode != self._inode or end < self._read_to:
            self._inode, self._read_to, self._last = inode, 0, 0
            self._sequences.clear()
            self._ages.clear()
        rest = b""
        while self._read_to + len(rest) < end:
            at = self._read_to + len(rest)
            rest += os.pread(descriptor, min(_CHUNK, end - at), at)
            whole = rest.rfind(b"\n") + 1
            for line in rest[:whole].splitlines(keepends=True):
                self._learn(line)
                self._read_to += len(line)
            rest = rest[whole:]

    def _learn(self, line: bytes) -> None:
        known = _parse(self._file, self._read_to, line)
        self._last = known.sequence
        if known.id and known.time_ns >= self._oldest():
            self._sequences[known.id] = known.sequence
            self._ages.append((known.time_ns, known.id))

    def _oldest(self) -> int:
        return self._clock_ns() - DUPLICATE_WINDOW_S * NS_PER_S

    def _forget(self) -> None:
        """Ids older than the window may be used again."""
        oldest = self._oldest()
        while self._ages and self._ages[0][0] < oldest:
            _, id = self._ages.popleft()
            self._sequences.pop(id, None)


@contextmanager
def _locked(file: Path, kind: int) -> Iterator[int]:
    """The open file under a lock that holds between processes and between threads."""
    flags = os.O_RDONLY if kind == fcntl.LOCK_SH else os.O_RDWR
    descriptor = os.open(file, flags | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, kind)
        yield descriptor
    finally:
        os.close(descriptor)


def _whole_lines(descriptor: int) -> int:
    """The length up to and with the last line end."""
    end = os.fstat(descriptor).st_size
    while end > 0:
        start = max(0, end - _TAIL)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _write(descriptor: int, content: bytes, at: int) -> None:
    """All of it and on the disk, or none of it and an OSError."""
    view = memoryview(content)
    try:
        while view:
            done = os.pwrite(descriptor, view, at + len(content) - len(view))
            view = view[done:]
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, at)
        raise


def _line(sequence: int, time_ns: int, entry: NewEntry) -> bytes:
    quoted = b'"payload":%b' % entry.payload
    if not _is_json_line(entry.payload):
        quoted = b'"payload_b64":"%b"' % binascii.b2a_base64(entry.payload, newline=False)
    key, id = json.dumps(entry.key).encode(), json.dumps(entry.id).encode()
    return b'{"sequence":%d,"time_ns":%d,"key":%b,"id":%b,%b}\n' % (sequence, time_ns, key, id, quoted)


def _is_json_line(payload: bytes) -> bool:
    """One line of strict UTF-8 JSON without space around it: these bytes come back unchanged."""
    if not payload or payload != payload.strip() or b"\n" in payload or b"\r" in payload:
        return False
    try:
        payload.decode()
        msgspec.json.decode(payload)
    except (UnicodeDecodeError, msgspec.MsgspecError, RecursionError):
        return False
    return True


def _parse(file: Path, at: int, line: bytes) -> _Line:
    try:
        return _decode(line)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise DataError(
            f"the journal {file} has a line at byte {at} that is no entry: {error}",
            "Move the file away and restore it from a backup; nothing was changed.",
        ) from error


def _entry(file: Path, topic: str, at: int, line: bytes) -> Entry:
    found = _parse(file, at, line)
    try:
        payload = found.content()
    except ValueError as error:
        raise DataError(f"the journal {file} has a line at byte {at} whose payload is no base64: {error}") from error
    headers = {ID_HEADER: found.id} if found.id else {}
    return Entry(found.sequence, found.time_ns, topic, found.key, payload, headers)
