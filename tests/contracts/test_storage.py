"""What every storage backend promises: objects appear once and whole, listings are sorted, errors say what to do."""

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from ssmd.errors import ConfigError, DataError
from ssmd.middleware.storage.interface import ObjectInfo, ObjectMissing, Storage, StorageUnavailable
from ssmd.middleware.storage.local import LocalStorage
from ssmd.middleware.storage.memory import MemoryStorage
from ssmd.middleware.storage.s3 import S3Storage
from tests.s3 import ACCESS_KEY, SECRET_KEY, S3Server, seaweedfs

BUCKET = "ssmd-contract"


@pytest.fixture(scope="module")  # it computes while it waits: one worker has it, and only as long as needed
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(params=["memory", "local", pytest.param("s3", marks=pytest.mark.integration)])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    opened: Storage
    match request.param:
        case "memory":
            opened = MemoryStorage()
        case "local":
            opened = LocalStorage(tmp_path / "storage")
        case _:
            server: S3Server = request.getfixturevalue("s3_server")
            opened = S3Storage(server.endpoint, "us-east-1", ACCESS_KEY, SECRET_KEY, buckets=[BUCKET])
            await opened.ping()
            for entry in await opened.list(BUCKET, ""):
                await opened.delete(BUCKET, entry.key)
    yield opened
    await opened.close()


async def read(storage: Storage, key: str) -> bytes:
    return b"".join([chunk async for chunk in storage.stream(BUCKET, key)])


async def test_an_object_is_stored_once_and_never_overwritten(storage: Storage) -> None:
    assert await storage.put_once(BUCKET, "feed/a.json", b"first") is True
    assert await storage.put_once(BUCKET, "feed/a.json", b"second") is False

    assert await storage.get(BUCKET, "feed/a.json") == b"first"


async def test_of_many_writers_exactly_one_stores_its_object_whole(storage: Storage) -> None:
    contents = [bytes([65 + n]) * 200_000 for n in range(8)]

    stored = await asyncio.gather(*(storage.put_once(BUCKET, "race/one", content) for content in contents))

    assert stored.count(True) == 1
    assert await storage.get(BUCKET, "race/one") == contents[stored.index(True)]


async def test_replace_puts_a_whole_new_object_in_place(storage: Storage) -> None:
    await storage.replace(BUCKET, "k", b"one")
    await storage.replace(BUCKET, "k", b"two")

    assert await storage.get(BUCKET, "k") == b"two"


async def test_a_file_is_stored_like_bytes_and_stays_where_it_was(storage: Storage, tmp_path: Path) -> None:
    content = bytes(range(256)) * 12_000
    source = tmp_path / "source"
    source.write_bytes(content)

    assert await storage.put_once(BUCKET, "file/once", source)
    await storage.replace(BUCKET, "file/replaced", source)

    assert await storage.get(BUCKET, "file/once") == content
    assert await storage.get(BUCKET, "file/replaced") == content
    assert source.read_bytes() == content


async def test_a_stream_gives_the_object_in_bounded_chunks(storage: Storage) -> None:
    content = bytes(range(256)) * 14_000
    await storage.put_once(BUCKET, "big", content)

    chunks = [chunk async for chunk in storage.stream(BUCKET, "big")]

    assert b"".join(chunks) == content
    assert max(map(len, chunks)) <= 1 << 20


async def test_an_empty_object_exists(storage: Storage) -> None:
    await storage.put_once(BUCKET, "empty", b"")

    assert await storage.get(BUCKET, "empty") == b""
    assert await read(storage, "empty") == b""
    assert await storage.list(BUCKET, "empty") == [ObjectInfo("empty", 0)]


async def test_a_missing_object_is_a_data_error_that_names_it(storage: Storage) -> None:
    await storage.put_once(BUCKET, "there/x", b"x")

    with pytest.raises(ObjectMissing, match="there/y"):
        await storage.get(BUCKET, "there/y")
    with pytest.raises(ObjectMissing, match="there/y"):
        await read(storage, "there/y")
    with pytest.raises(ObjectMissing):
        await storage.get(BUCKET, "there")


async def test_a_listing_is_sorted_and_holds_what_begins_with_the_prefix(storage: Storage) -> None:
    for key in ("f/2026/b", "f/2026/a-01", "f/2026/a-00", "f/2026/sub/a", "f/2027/a-00", "g/x"):
        await storage.put_once(BUCKET, key, key.encode())

    assert [entry.key for entry in await storage.list(BUCKET, "f/2026/")] == [
        "f/2026/a-00",
        "f/2026/a-01",
        "f/2026/b",
        "f/2026/sub/a",
    ]
    assert [entry.key for entry in await storage.list(BUCKET, "f/2026/a")] == ["f/2026/a-00", "f/2026/a-01"]
    assert [entry.key for entry in await storage.list(BUCKET, "f/202")] == [
        "f/2026/a-00",
        "f/2026/a-01",
        "f/2026/b",
        "f/2026/sub/a",
        "f/2027/a-00",
    ]
    assert await storage.list(BUCKET, "nothing/here") == []
    assert (await storage.list(BUCKET, "g/")) == [ObjectInfo("g/x", 3)]


async def test_keys_sort_as_bytes_not_as_folders(storage: Storage) -> None:
    keys = ["d/a/x", "d/a-1", "d/a0", "d/a"]
    for key in keys[:-1]:
        await storage.put_once(BUCKET, key, b"")

    assert [entry.key for entry in await storage.list(BUCKET, "d/")] == ["d/a-1", "d/a/x", "d/a0"]


@pytest.mark.parametrize(
    "token",
    ["KXHIGHNY-25JAN09-B32%2E5", "%3E", "%2A%20%0D%0A", "_", "a-b_c", "%F0%9F%8E%B2" * 32],
    ids=["dot", "greater", "crlf", "underscore", "plain", "128 bytes of emoji"],
)
async def test_an_encoded_ticker_is_kept_literally_in_the_key(storage: Storage, token: str) -> None:
    key = f"kalshi/v1/trade/2026/11/22/{token}/data.capnp.zst"

    await storage.put_once(BUCKET, key, b"x")

    assert [entry.key for entry in await storage.list(BUCKET, "kalshi/v1/trade/2026/11/22/")] == [key]
    assert [entry.key for entry in await storage.list(BUCKET, f"kalshi/v1/trade/2026/11/22/{token}/")] == [key]
    assert await storage.get(BUCKET, key) == b"x"
    await storage.delete(BUCKET, key)
    assert await storage.list(BUCKET, "kalshi/") == []


async def test_deleting_is_idempotent_and_frees_the_key(storage: Storage) -> None:
    await storage.put_once(BUCKET, "k/1", b"one")

    await storage.delete(BUCKET, "k/1")
    await storage.delete(BUCKET, "k/1")

    with pytest.raises(ObjectMissing):
        await storage.get(BUCKET, "k/1")
    assert await storage.put_once(BUCKET, "k/1", b"two")


@pytest.mark.parametrize(
    "key",
    ["", "/etc/passwd", "../x", "a/../../x", "a/./b", "a//b", "a/", ".h", "a\\b", "a\nb", "a\0b", "a~", "x" * 1025],
    ids=lambda key: repr(key[:12]),
)
async def test_a_key_that_could_leave_the_bucket_is_refused(storage: Storage, key: str) -> None:
    with pytest.raises(DataError):
        await storage.put_once(BUCKET, key, b"x")
    with pytest.raises(DataError):
        await storage.replace(BUCKET, key, b"x")
    with pytest.raises(DataError):
        await storage.get(BUCKET, key)
    with pytest.raises(DataError):
        await storage.delete(BUCKET, key)


@pytest.mark.parametrize("prefix", ["/", "../", "a/../", "a//"], ids=repr)
async def test_a_prefix_that_could_leave_the_bucket_is_refused(storage: Storage, prefix: str) -> None:
    with pytest.raises(DataError):
        await storage.list(BUCKET, prefix)


@pytest.mark.parametrize("bucket", ["", "..", "a/b", "UPPER", "a..b", "x", ".hidden"], ids=repr)
async def test_a_bucket_name_that_is_none_is_refused(storage: Storage, bucket: str) -> None:
    with pytest.raises(ConfigError):
        await storage.put_once(bucket, "k", b"x")
    with pytest.raises(ConfigError):
        await storage.list(bucket, "")


async def test_ping_leaves_nothing_behind(storage: Storage) -> None:
    await storage.ping()

    assert await storage.list(BUCKET, "") == []


@pytest.mark.integration
async def test_a_key_reaches_the_s3_server_as_it_is_written(s3_server: S3Server) -> None:
    storage = S3Storage(s3_server.endpoint, "us-east-1", ACCESS_KEY, SECRET_KEY)
    await storage.put_once(BUCKET, "literal/A%2EB/x", b"x")

    request = urllib.request.Request(
        f"{s3_server.filer}/buckets/{BUCKET}/literal/?limit=10", headers={"Accept": "application/json"}
    )
    listing = await asyncio.to_thread(lambda: urllib.request.urlopen(request, timeout=30).read().decode())

    assert f'"/buckets/{BUCKET}/literal/A%2EB"' in listing


@pytest.mark.integration
async def test_wrong_s3_credentials_name_the_command_to_run(s3_server: S3Server) -> None:
    storage = S3Storage(s3_server.endpoint, "us-east-1", ACCESS_KEY, "wrong", buckets=[BUCKET])

    with pytest.raises(StorageUnavailable, match="ssmd key set"):
        await storage.ping()


async def test_an_s3_endpoint_that_does_not_answer_is_unavailable() -> None:
    storage = S3Storage("http://127.0.0.1:9", "us-east-1", "a", "b", buckets=[BUCKET])

    with pytest.raises(StorageUnavailable, match=r"127\.0\.0\.1:9"):
        await storage.ping()
