"""A journal in this process, for tests and for a stack wholly in memory."""

from collections.abc import AsyncIterator, Callable, Sequence

from ssmd.clock import now_ns
from ssmd.middleware.journal.interface import (
    ID_HEADER,
    Entry,
    JournalUnavailable,
    NewEntry,
    TopicMissing,
    check_entries,
    check_topic,
)


class _Topic:
    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.sequences: dict[str, int] = {}


class MemoryJournal:
    """All topics of the process; ids are remembered for ever. `up = False` plays an outage."""

    def __init__(self, clock_ns: Callable[[], int] = now_ns) -> None:
        self._clock_ns = clock_ns
        self._topics: dict[str, _Topic] = {}
        self.up = True

    async def create_topic(self, topic: str) -> None:
        self._require_up()
        self._topics.setdefault(check_topic(topic), _Topic())

    async def append(self, topic: str, payload: bytes, *, key: str = "", id: str = "") -> int:
        return self._append(topic, [NewEntry(key, id, payload)])

    async def append_all(self, topic: str, entries: Sequence[NewEntry]) -> None:
        self._append(topic, entries)

    async def read(self, topic: str, from_sequence: int = 1) -> AsyncIterator[Entry]:
        entries = self._topic(topic).entries
        for index in range(max(from_sequence, 1) - 1, len(entries)):
            yield entries[index]

    async def end(self, topic: str) -> int | None:
        self._require_up()
        found = self._topics.get(check_topic(topic))
        return None if found is None else len(found.entries)

    async def close(self) -> None:
        return

    def _require_up(self) -> None:
        if not self.up:
            raise JournalUnavailable("the in-memory journal is switched off")

    def _topic(self, topic: str) -> _Topic:
        self._require_up()
        if check_topic(topic) not in self._topics:
            raise TopicMissing(topic)
        return self._topics[topic]

    def _append(self, topic: str, entries: Sequence[NewEntry]) -> int:
        """The last entry's sequence; 0 when there was nothing to append."""
        kept = self._topic(topic)
        check_entries(entries)
        sequence = 0
        for key, id, payload in entries:
            known = kept.sequences.get(id) if id else None
            if known is not None:
                sequence = known
                continue
            sequence = len(kept.entries) + 1
            headers = {ID_HEADER: id} if id else {}
            kept.entries.append(Entry(sequence, self._clock_ns(), topic, key, bytes(payload), headers))
            if id:
                kept.sequences[id] = sequence
        return sequence
