"""A storage that fails where a test says: before or after the n-th call, as a dying process or a dying disk would."""

from collections.abc import AsyncIterator
from pathlib import Path

from ssmd.middleware.storage.interface import ObjectInfo, Storage, StorageUnavailable


class Killed(BaseException):
    """The process was killed here; nothing in ssmd may catch it."""


class FaultyStorage:
    """Passes everything on to `inner`, but kills the caller at call number `kill_at`.

    `after` says whether that call still did its work (killed before it could see the answer). While `away` is true
    every call raises StorageUnavailable. `log` holds (method, key) of the calls.
    """

    def __init__(self, inner: Storage, kill_at: int | None = None, after: bool = False) -> None:
        self._inner = inner
        self._left = kill_at
        self._after = after
        self.away = False
        self.log: list[tuple[str, str]] = []

    def _before(self, method: str, key: str) -> bool:
        """Raises when it is time; true when the caller is to be killed after the work."""
        self.log.append((method, key))
        if self.away:
            raise StorageUnavailable("the storage is switched off", "Switch it on.")
        if self._left is None:
            return False
        self._left -= 1
        if self._left >= 0:
            return False
        if not self._after:
            raise Killed(method, key)
        return True

    async def put_once(self, bucket: str, key: str, data: bytes | Path) -> bool:
        kill = self._before("put_once", key)
        stored = await self._inner.put_once(bucket, key, data)
        if kill:
            raise Killed("put_once", key)
        return stored

    async def replace(self, bucket: str, key: str, data: bytes | Path) -> None:
        kill = self._before("replace", key)
        await self._inner.replace(bucket, key, data)
        if kill:
            raise Killed("replace", key)

    async def get(self, bucket: str, key: str) -> bytes:
        kill = self._before("get", key)
        content = await self._inner.get(bucket, key)
        if kill:
            raise Killed("get", key)
        return content

    async def stream(self, bucket: str, key: str) -> AsyncIterator[bytes]:
        kill = self._before("stream", key)
        async for chunk in self._inner.stream(bucket, key):
            yield chunk
        if kill:
            raise Killed("stream", key)

    async def list(self, bucket: str, prefix: str) -> list[ObjectInfo]:
        kill = self._before("list", prefix)
        found = await self._inner.list(bucket, prefix)
        if kill:
            raise Killed("list", prefix)
        return found

    async def delete(self, bucket: str, key: str) -> None:
        kill = self._before("delete", key)
        await self._inner.delete(bucket, key)
        if kill:
            raise Killed("delete", key)

    async def ping(self) -> None:
        self._before("ping", "")
        await self._inner.ping()

    async def close(self) -> None:
        await self._inner.close()
