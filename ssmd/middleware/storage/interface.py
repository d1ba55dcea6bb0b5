"""What ssmd needs from storage: objects that appear once and whole, in buckets."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple, Protocol

from ssmd.errors import DataError, Unavailable


class StorageUnavailable(Unavailable):
    """The storage did not answer, is full or refuses us."""


class ObjectMissing(DataError):
    """There is no such object."""


class ObjectInfo(NamedTuple):
    """One entry of a listing; `bytes` is the stored size."""

    key: str
    bytes: int


class Storage(Protocol):
    """Objects in buckets. Keys are `/`-separated, relative, made by `archive.layout`."""

    async def put_once(self, bucket: str, key: str, data: bytes | Path) -> bool:
        """Store the bytes (or the file) under a key that must not exist yet; durable on return.

        True: stored now. False: the key exists already (compare before you call that a success). A reader never sees
        a part of an object.
        """
        ...

    async def replace(self, bucket: str, key: str, data: bytes | Path) -> None:
        """Store the bytes (or the file) under the key, atomically over what was there; durable on return."""
        ...

    async def get(self, bucket: str, key: str) -> bytes:
        """The whole object; ObjectMissing when there is none."""
        ...

    def stream(self, bucket: str, key: str) -> AsyncIterator[bytes]:
        """The object in chunks of at most about 1 MiB; ObjectMissing on the first step when there is none."""
        ...

    async def list(self, bucket: str, prefix: str) -> list[ObjectInfo]:
        """All objects whose key begins with `prefix`, sorted by key; [] when there are none."""
        ...

    async def delete(self, bucket: str, key: str) -> None:
        """Remove the object; no error when it is already gone."""
        ...

    async def ping(self) -> None:
        """Return when objects can be written; StorageUnavailable (what, where, what to do) otherwise."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
