"""A cache inside the process: bounded in bytes, the entry that was used least recently goes first."""

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ssmd.errors import DataError
from ssmd.middleware.cache.interface import MAX_COUNT, milliseconds

ENTRY_BYTES = 200
"""What an entry costs besides its key and its value."""
_NS_PER_MS = 1_000_000
_WHOLE = re.compile(rb"0|-?[1-9][0-9]{0,18}")


class _Entry(NamedTuple):
    value: bytes
    ends_ns: int | None
    size: int


class MemoryCache:
    """A Cache of at most `max_bytes`; `clock` is monotonic, in nanoseconds: setting the wall clock ends nothing."""

    def __init__(self, max_bytes: int, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # the least recently used first

    async def get(self, key: str) -> bytes | None:
        """See `Cache.get`."""
        entry = self._find(key)
        return None if entry is None else entry.value

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """See `Cache.get_many`."""
        return [await self.get(key) for key in keys]

    async def set(self, key: str, value: bytes, ttl_s: float | None = None) -> None:
        """See `Cache.set`. A value larger than the whole cache is not kept."""
        ends_ns = None if ttl_s is None else self._clock() + milliseconds(ttl_s) * _NS_PER_MS
        self._keep(key, value, ends_ns)

    async def set_if_absent(self, key: str, value: bytes, ttl_s: float | None = None) -> bool:
        """See `Cache.set_if_absent`."""
        if self._find(key) is not None:
            return False
        await self.set(key, value, ttl_s)
        return True

    async def increment(self, key: str) -> int:
        """See `Cache.increment`."""
        entry = self._find(key)
        if entry is None:
            self._keep(key, b"1", None)
            return 1
        if not _WHOLE.fullmatch(entry.value) or not -MAX_COUNT - 1 <= (count := int(entry.value)) < MAX_COUNT:
            raise DataError(f"the value of {key[:80]!r} in the cache is no number that can be incremented")
        self._keep(key, b"%d" % (count + 1), entry.ends_ns)
        return count + 1

    async def delete(self, key: str) -> None:
        """See `Cache.delete`."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.bytes -= entry.size

    async def close(self) -> None:
        """See `Cache.close`."""
        self._entries.clear()
        self.bytes = 0

    def _find(self, key: str) -> _Entry | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.ends_ns is not None and self._clock() >= entry.ends_ns:
            del self._entries[key]
            self.bytes -= entry.size
            return None
        self._entries.move_to_end(key)
        return entry

    def _keep(self, key: str, value: bytes, ends_ns: int | None) -> None:
        known = self._entries.pop(key, None)
        if known is not None:
            self.bytes -= known.size
        size = 4 * len(key) + len(value) + ENTRY_BYTES
        if size > self.max_bytes:
            return
        self._entries[key] = _Entry(value, ends_ns, size)
        self.bytes += size
        while self.bytes > self.max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self.bytes -= oldest.size
