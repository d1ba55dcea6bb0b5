"""The Valkey of the local stack: its configuration keeps no password, and the server takes exactly that one."""

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from valkey.asyncio import Valkey
from valkey.exceptions import AuthenticationError, NoPermissionError, ResponseError

from ssmd.errors import ConfigError
from ssmd.local.valkey_server import CacheAccess, configuration, find_server, greets, server_of
from tests.conftest import missing
from tests.servers import free_port

PASSWORD = "p\"a'ss w#rd\\ü"


def test_a_keys_fields_count_before_what_the_url_says() -> None:
    assert server_of(CacheAccess("redis://a%40b:c%2Fd@127.0.0.1:6380"))[3:] == ("a@b", "c/d")
    assert server_of(CacheAccess("redis://a:c@127.0.0.1:6380", None, "other"))[3:] == (None, "other")
    assert server_of(CacheAccess("valkey://127.0.0.1"))[:3] == ("127.0.0.1", 6379, False)
    assert server_of(CacheAccess("valkeys://[::1]:1"))[:3] == ("::1", 1, True)


def test_a_user_name_that_would_be_more_than_a_name_is_refused(tmp_path: Path) -> None:
    for name in ("a b", "a\nrequirepass x", "", '"'):
        server = server_of(CacheAccess("redis://127.0.0.1", name, "x"))
        if name:
            with pytest.raises(ConfigError, match="user name"):
                configuration(server, tmp_path)


def test_nobody_there_greets_nobody() -> None:
    assert not greets("127.0.0.1", free_port())


@contextlib.contextmanager
def running(file: Path, port: int) -> Iterator[None]:
    """valkey-server with a configuration, killed at the end."""
    try:
        program = find_server()
    except ConfigError:
        missing("valkey-server", "install the locked development packages (make setup)")
    with (file.parent / "log").open("wb") as log:
        process = subprocess.Popen([program, file], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while not greets("127.0.0.1", port):
            assert time.monotonic() < deadline, (file.parent / "log").read_text()
            time.sleep(0.02)
        yield
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("username", [None, "gateway"])
async def test_the_server_takes_the_password_and_no_other(tmp_path: Path, username: str | None) -> None:
    port, file = free_port(), tmp_path / "valkey.conf"
    file.write_text(configuration(server_of(CacheAccess(f"redis://127.0.0.1:{port}", username, PASSWORD)), tmp_path))
    assert PASSWORD not in file.read_text()
    with running(file, port):
        good = Valkey(port=port, username=username, password=PASSWORD)
        assert await good.set("k", b"v")
        assert (await good.config_get("maxmemory*"))["maxmemory-policy"] == "allkeys-lru"
        await good.aclose()
        for client in (Valkey(port=port), Valkey(port=port, username=username, password="other")):
            with pytest.raises((AuthenticationError, NoPermissionError, ResponseError)):
                await client.get("k")
            await client.aclose()
