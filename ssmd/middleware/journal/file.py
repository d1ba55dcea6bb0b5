"""A journal in files: `{path}/{topic}.jsonl`, one JSON line per entry, for one machine and for reading with `less`.

    {"sequence":1,"time_ns":1790000000123456789,"key":"KX-1","id":"m-1","payload":{"ticker":"KX-1"}}

A payload that is not one line of valid UTF-8 JSON is written as `"payload_b64":"…"`. Several processes may append to
the same folder: each batch is written under an exclusive lock and forced to the disk before the lock goes.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from ssmd.clock import now_ns
from ssmd.errors import ConfigError
from ssmd.middleware.journal.file_topic import FileTopic
from ssmd.middleware.journal.interface import (
    Entry,
    JournalUnavailable,
    NewEntry,
    TopicMissing,
    check_entries,
    check_topic,
)

_PAGE_BYTES = 1 << 20


class FileJournal:
    """A Journal in the folder `path`, which is made when the first topic is."""

    def __init__(self, path: Path, clock_ns: Callable[[], int] = now_ns) -> None:
        self._path = path
        self._clock_ns = clock_ns
        self._topics: dict[str, FileTopic] = {}
        self._opening = threading.Lock()

    async def create_topic(self, topic: str) -> None:
        file = self._file(topic)
        try:
            await asyncio.to_thread(FileTopic.create, file)
        except (FileExistsError, NotADirectoryError, PermissionError) as error:
            raise ConfigError(
                f"cannot make the journal {file}: {error.strerror}", "Correct spec.middleware.journal.path."
            ) from error
        except OSError as error:
            raise _unavailable("make", file, error) from error

    async def append(self, topic: str, payload: bytes, *, key: str = "", id: str = "") -> int:
        return await self._append(topic, [NewEntry(key, id, payload)])

    async def append_all(self, topic: str, entries: Sequence[NewEntry]) -> None:
        await self._append(topic, entries)

    async def read(self, topic: str, from_sequence: int = 1) -> AsyncIterator[Entry]:
        file = self._file(topic)
        try:
            end = await asyncio.to_thread(FileTopic.committed, file)
            at = 0
            while at < end:
                entries, at = await asyncio.to_thread(FileTopic.page, file, topic, at, end, from_sequence, _PAGE_BYTES)
                for entry in entries:
                    yield entry
        except FileNotFoundError as error:
            raise TopicMissing(topic) from error
        except OSError as error:
            raise _unavailable("read", file, error) from error

    async def end(self, topic: str) -> int | None:
        file = self._file(topic)
        try:
            return await asyncio.to_thread(self._open(topic).end)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unavailable("read", file, error) from error

    async def close(self) -> None:
        self._topics.clear()

    def _file(self, topic: str) -> Path:
        return self._path / f"{check_topic(topic)}.jsonl"

    def _open(self, topic: str) -> FileTopic:
        with self._opening:
            return self._topics.setdefault(topic, FileTopic(self._file(topic), self._clock_ns))

    async def _append(self, topic: str, entries: Sequence[NewEntry]) -> int:
        file = self._file(topic)
        check_entries(entries)
        try:
            return await asyncio.to_thread(self._open(topic).append, entries)
        except FileNotFoundError as error:
            raise TopicMissing(topic) from error
        except OSError as error:
            raise _unavailable("append to", file, error) from error


def _unavailable(doing: str, file: Path, error: OSError) -> JournalUnavailable:
    return JournalUnavailable(
        f"cannot {doing} the journal {file}: {error.strerror or error}",
        "Is there space and permission? spec.middleware.journal.path names its folder.",
    )
