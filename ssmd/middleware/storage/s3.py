"""Objects in an S3-compatible store: conditional single PUTs through obstore, so that each appears once and whole."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from ssmd.errors import DataError
from ssmd.middleware.storage.interface import ObjectInfo, ObjectMissing, StorageUnavailable
from ssmd.middleware.storage.keys import check_bucket, check_key, check_prefix

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK_BYTES = 1 << 20
# One request holds the object in memory; above this, `replace` sends parts (the object still appears whole).
SINGLE_PUT_BYTES = 256 << 20
MAX_PUT_ONCE_BYTES = 5 << 30
CONFLICT_TRIES = 6
CONFLICT_WAIT_S = 0.1  # doubled each time, with jitter


class S3Storage:
    """Buckets behind one endpoint (None: AWS). Without an access key the machine's own role signs.

    `buckets` are the ones that `ping` proves to be writable; `path_style` addresses them as `endpoint/bucket`.
    """

    def __init__(
        self,
        endpoint: str | None,
        region: str,
        access_key: str | None,
        secret_key: str | None,
        buckets: Sequence[str] = (),
        path_style: bool = True,
        timeout_s: float = 120.0,
    ) -> None:
        self._endpoint = endpoint.rstrip("/") if endpoint else None
        self._region = region
        self._access_key = access_key
        self._secret_key = secret_key
        self._buckets = tuple(check_bucket(bucket) for bucket in buckets)
        self._path_style = path_style
        self._timeout = timedelta(seconds=timeout_s)
        self._stores: dict[str, S3Store] = {}

    async def put_once(self, bucket: str, key: str, data: bytes | Path) -> bool:
        """See `Storage.put_once`. A store that answers 409 (two writers at once) is asked again."""
        store = self._store(bucket, key)
        content = await _content(data)
        if len(content) > MAX_PUT_ONCE_BYTES:
            raise DataError(f"{bucket}/{key} has {len(content)} bytes; a conditional PUT takes {MAX_PUT_ONCE_BYTES}")
        for attempt in range(CONFLICT_TRIES):
            with self._translated(f"writing {bucket}/{key}"):
                try:
                    await obstore.put_async(store, key, content, mode="create", use_multipart=False)
                    return True
                except AlreadyExistsError:
                    # 412 (the object is there) and 409 (another conditional request is in progress) look the same here
                    if await self._exists(store, key):
                        return False
            await asyncio.sleep(random.uniform(0.5, 1) * CONFLICT_WAIT_S * 2**attempt)  # noqa: S311  no secret
        raise StorageUnavailable(
            f"writing {bucket}/{key} met a conflicting writer {CONFLICT_TRIES} times", "It is safe to try again."
        )

    async def replace(self, bucket: str, key: str, data: bytes | Path) -> None:
        """See `Storage.replace`."""
        store = self._store(bucket, key)
        with self._translated(f"writing {bucket}/{key}"):
            size = len(data) if isinstance(data, bytes) else (await asyncio.to_thread(data.stat)).st_size
            if size > SINGLE_PUT_BYTES:
                await obstore.put_async(store, key, data, use_multipart=True)
            else:
                await obstore.put_async(store, key, await _content(data), use_multipart=False)

    async def get(self, bucket: str, key: str) -> bytes:
        """See `Storage.get`."""
        store = self._store(bucket, key)
        with self._translated(f"reading {bucket}/{key}"):
            result = await obstore.get_async(store, key)
            return bytes(await result.bytes_async())

    async def stream(self, bucket: str, key: str) -> AsyncIterator[bytes]:
        """See `Storage.stream`."""
        store = self._store(bucket, key)
        doing = f"reading {bucket}/{key}"
        with self._translated(doing):
            chunks = aiter((await obstore.get_async(store, key)).stream(min_chunk_size=CHUNK_BYTES))
        while True:
            with self._translated(doing):
                chunk = await anext(chunks, None)
            if chunk is None:
                return
            view = memoryview(chunk)
            for start in range(0, len(view), CHUNK_BYTES):
                yield bytes(view[start : start + CHUNK_BYTES])

    async def list(self, bucket: str, prefix: str) -> list[ObjectInfo]:
        """See `Storage.list`."""
        check_prefix(prefix)
        store = self._store(bucket)
        folder = prefix.rpartition("/")[0]  # obstore's prefixes are whole segments
        found: list[ObjectInfo] = []
        with self._translated(f"listing {bucket}/{prefix}"):
            async for page in obstore.list(store, prefix=folder or None):
                found.extend(ObjectInfo(entry["path"], entry["size"]) for entry in page)
        return sorted(entry for entry in found if entry.key.startswith(prefix))

    async def delete(self, bucket: str, key: str) -> None:
        """See `Storage.delete`."""
        store = self._store(bucket, key)
        try:
            with self._translated(f"deleting {bucket}/{key}"):
                await obstore.delete_async(store, key)
        except ObjectMissing:
            return

    async def ping(self) -> None:
        """Write and remove an object in each bucket that was named at the start."""
        for bucket in self._buckets:
            key = f"_ping/{random.getrandbits(64):016x}"
            await self.replace(bucket, key, b"ping\n")
            await self.delete(bucket, key)

    async def close(self) -> None:
        """Forget the clients; obstore closes idle connections itself."""
        self._stores.clear()

    def _store(self, bucket: str, key: str | None = None) -> S3Store:
        if key is not None:
            check_key(key)
        store = self._stores.get(bucket)
        if store is None:
            options: dict[str, Any] = {"region": self._region, "virtual_hosted_style_request": not self._path_style}
            if self._endpoint is not None:
                options["endpoint"] = self._endpoint
            if self._access_key is not None:
                options |= {"access_key_id": self._access_key, "secret_access_key": self._secret_key or ""}
            store = S3Store(
                check_bucket(bucket),
                client_options={"allow_http": True, "timeout": self._timeout, "connect_timeout": timedelta(seconds=5)},
                # callers wait and retry themselves; here only what a healthy store answers now and then
                retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=20)},
                **options,
            )
            self._stores[bucket] = store
        return store

    async def _exists(self, store: S3Store, key: str) -> bool:
        try:
            await obstore.head_async(store, key)
        except FileNotFoundError:
            return False
        return True

    @contextmanager
    def _translated(self, doing: str) -> "Iterator[None]":
        where = self._endpoint or f"S3 in {self._region}"
        try:
            yield
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise _no_bucket(doing, where) from error
            raise ObjectMissing(f"{doing} failed: {where} has no such object") from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise StorageUnavailable(
                f"{doing} failed: {where} refuses the credentials",
                "Correct the key that spec.middleware.storage.credentials names. See: ssmd key set --help",
            ) from error
        except (BaseError, OSError) as error:
            if "NoSuchBucket" in str(error):  # a listing
                raise _no_bucket(doing, where) from error
            raise StorageUnavailable(
                f"{doing} failed: {where} did not do it ({_short(error)})",
                "Check that the store runs and that spec.middleware.storage.endpoint is right.",
            ) from error


def _no_bucket(doing: str, where: str) -> StorageUnavailable:
    return StorageUnavailable(
        f"{doing} failed: {where} has no such bucket", "Create the bucket, or correct spec.middleware.storage.buckets."
    )


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:256]


async def _content(data: bytes | Path) -> bytes:
    return data if isinstance(data, bytes) else cast("bytes", await asyncio.to_thread(data.read_bytes))
