"""The S3 storage against a server that answers as badly as real ones do now and then."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ssmd.middleware.storage import s3
from ssmd.middleware.storage.interface import StorageUnavailable
from ssmd.middleware.storage.s3 import S3Storage

OK = "200 OK"
CONFLICT = "409 Conflict"
GONE = "404 Not Found"


@asynccontextmanager
async def answering(answers: dict[str, list[str]]) -> AsyncIterator[tuple[str, list[str]]]:
    """An HTTP server that gives each method its next answer (the last one again and again), and what it was asked."""
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().lower().split("\r\n")
                length = next((int(line.split(":")[1]) for line in lines if line.startswith("content-length:")), 0)
                await reader.readexactly(length)
                method = lines[0].split()[0].upper()
                asked.append(method)
                left = answers[method]
                answer = left.pop(0) if len(left) > 1 else left[0]
                writer.write(
                    f'HTTP/1.1 {answer}\r\nETag: "e"\r\nLast-Modified: Sun, 22 Nov 2026 00:00:00 GMT\r\n'
                    "Content-Length: 0\r\n\r\n".encode()
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


@pytest.fixture(autouse=True)
def no_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "CONFLICT_WAIT_S", 0.0)


async def test_a_409_without_an_object_is_asked_again() -> None:
    async with answering({"PUT": [CONFLICT, CONFLICT, OK], "HEAD": [GONE]}) as (endpoint, asked):
        assert await S3Storage(endpoint, "r", "a", "b").put_once("bucket", "k", b"v") is True

    assert asked.count("PUT") == 3


async def test_a_409_with_an_object_means_that_somebody_else_was_first() -> None:
    async with answering({"PUT": [CONFLICT], "HEAD": [OK]}) as (endpoint, _):
        assert await S3Storage(endpoint, "r", "a", "b").put_once("bucket", "k", b"v") is False


async def test_a_conflict_that_never_ends_is_unavailable() -> None:
    async with answering({"PUT": [CONFLICT], "HEAD": [GONE]}) as (endpoint, _):
        with pytest.raises(StorageUnavailable, match="conflicting writer"):
            await S3Storage(endpoint, "r", "a", "b").put_once("bucket", "k", b"v")


async def test_a_refusal_says_which_command_to_run() -> None:
    async with answering({"PUT": ["403 Forbidden"]}) as (endpoint, _):
        with pytest.raises(StorageUnavailable, match="ssmd key set"):
            await S3Storage(endpoint, "r", "a", "b").put_once("bucket", "k", b"v")


async def test_a_server_error_is_unavailable_after_a_few_tries() -> None:
    async with answering({"PUT": ["503 Slow Down"]}) as (endpoint, asked):
        with pytest.raises(StorageUnavailable, match="did not do it"):
            await S3Storage(endpoint, "r", "a", "b").replace("bucket", "k", b"v")

    assert asked == ["PUT"] * 3
