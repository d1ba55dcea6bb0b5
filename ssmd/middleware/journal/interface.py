"""What ssmd needs from a journal: topics that only grow, entries in order, a repeated append that is harmless."""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from ssmd.errors import ConfigError, DataError, Unavailable

DUPLICATE_WINDOW_S = 3600
"""For this long at least an id appended again is the entry that is there: a job that is run again repeats nothing."""
MAX_PAYLOAD_BYTES = 1_000_000
"""What every backend takes; a NATS server's own limit is 1 MiB, headers included."""
MAX_NAME_BYTES = 1_024
"""The longest key and the longest id, as UTF-8."""
ID_HEADER = "Nats-Msg-Id"

_TOPIC = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_MAX_TOPIC_CHARS = 200
_SHOWN = 80


class JournalUnavailable(Unavailable):
    """The journal did not answer; an entry may be stored or not: append it again under the same id."""


class TopicMissing(ConfigError):
    """There is no such topic."""

    def __init__(self, topic: str) -> None:
        super().__init__(
            f"the journal has no topic {topic!r}",
            "The first `ssmd market sync` or `ssmd env apply` makes it; spec.middleware.journal.topics names it.",
        )


class NewEntry(NamedTuple):
    """An entry to append: `key` says what it is about, `id` makes a repeated append harmless ("" for neither)."""

    key: str
    id: str
    payload: bytes


class Entry(NamedTuple):
    """An entry as it stands in its topic; sequences count from 1. An id stands in `headers` as `Nats-Msg-Id`."""

    sequence: int
    time_ns: int
    topic: str
    key: str
    payload: bytes
    headers: Mapping[str, str]


class Journal(Protocol):
    """An append-only log; open it with `middleware.factory`. JournalUnavailable when the backend is away."""

    async def create_topic(self, topic: str) -> None:
        """Make the topic, or see that the one there keeps what it is given (ConfigError when it does not)."""
        ...

    async def append(self, topic: str, payload: bytes, *, key: str = "", id: str = "") -> int:
        """Append one entry durably; its sequence. An id that was appended within the last hour: that entry's.

        Raises TopicMissing, and DataError for an entry that no backend takes (see the limits of this module).
        """
        ...

    async def append_all(self, topic: str, entries: Sequence[NewEntry]) -> None:
        """Append in this order; returns when all are durable. After an error any number of the first may be stored.

        Entries that no backend takes are refused (DataError) before the first is written.
        """
        ...

    def read(self, topic: str, from_sequence: int = 1) -> AsyncIterator[Entry]:
        """The entries from `from_sequence` on, in order, up to the end as of the first step; TopicMissing."""
        ...

    async def end(self, topic: str) -> int | None:
        """The sequence of the last entry; 0 when there is none yet, None when there is no such topic."""
        ...

    async def close(self) -> None:
        """Close what was opened; the entries stay (except in memory)."""
        ...


def check_topic(topic: str) -> str:
    """`topic` if it is words of letters, digits, `_` and `-`, with dots between; ConfigError otherwise."""
    if len(topic) > _MAX_TOPIC_CHARS or not _TOPIC.fullmatch(topic):
        raise ConfigError(
            f"{topic[:_SHOWN]!r} is not the name of a journal topic",
            "Write words with dots between, like ssmd.journal.secmaster (spec.middleware.journal.topics).",
        )
    return topic


def check_entries(entries: Sequence[NewEntry]) -> None:
    """DataError for the first entry that is too large or whose key or id is no Unicode text of a sane length."""
    for entry in entries:
        if len(entry.payload) > MAX_PAYLOAD_BYTES:
            raise DataError(
                f"a journal entry of {len(entry.payload)} bytes (key {entry.key[:_SHOWN]!r}) is larger than "
                f"{MAX_PAYLOAD_BYTES} bytes"
            )
        for what, text in (("key", entry.key), ("id", entry.id)):
            try:
                size = len(text.encode())
            except UnicodeEncodeError as error:
                raise DataError(f"the {what} {text[:_SHOWN]!r} of a journal entry is not valid Unicode") from error
            if size > MAX_NAME_BYTES:
                raise DataError(
                    f"the {what} {text[:_SHOWN]!r}… of a journal entry has {size} bytes, more than {MAX_NAME_BYTES}"
                )
