"""Objects in this process's memory: for tests and for environments that keep nothing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from ssmd.middleware.storage.interface import ObjectInfo, ObjectMissing
from ssmd.middleware.storage.keys import check_bucket, check_key, check_prefix

CHUNK_BYTES = 1 << 20


class MemoryStorage:
    """A dictionary that keeps the promises of `Storage`; gone with the process."""

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str], bytes] = {}

    async def put_once(self, bucket: str, key: str, data: bytes | Path) -> bool:
        """See `Storage.put_once`."""
        at = (check_bucket(bucket), check_key(key))
        content = await _content(data)
        if at in self._objects:
            return False
        self._objects[at] = content
        return True

    async def replace(self, bucket: str, key: str, data: bytes | Path) -> None:
        """See `Storage.replace`."""
        at = (check_bucket(bucket), check_key(key))
        self._objects[at] = await _content(data)

    async def get(self, bucket: str, key: str) -> bytes:
        """See `Storage.get`."""
        try:
            return self._objects[check_bucket(bucket), check_key(key)]
        except KeyError as error:
            raise ObjectMissing(f"there is no object {bucket}/{key}") from error

    async def stream(self, bucket: str, key: str) -> AsyncIterator[bytes]:
        """See `Storage.stream`."""
        content = await self.get(bucket, key)
        for start in range(0, len(content), CHUNK_BYTES):
            yield content[start : start + CHUNK_BYTES]

    async def list(self, bucket: str, prefix: str) -> list[ObjectInfo]:
        """See `Storage.list`."""
        check_bucket(bucket)
        check_prefix(prefix)
        return sorted(
            ObjectInfo(key, len(content))
            for (its_bucket, key), content in self._objects.items()
            if its_bucket == bucket and key.startswith(prefix)
        )

    async def delete(self, bucket: str, key: str) -> None:
        """See `Storage.delete`."""
        self._objects.pop((check_bucket(bucket), check_key(key)), None)

    async def ping(self) -> None:
        """Memory is always there."""

    async def close(self) -> None:
        """Nothing to let go of."""


async def _content(data: bytes | Path) -> bytes:
    return data if isinstance(data, bytes) else await asyncio.to_thread(data.read_bytes)
