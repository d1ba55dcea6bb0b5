"""HTTPS and WSS from files: what is refused at the start, and certificates that change while clients are connected."""

import asyncio
import contextlib
import logging
import ssl
import warnings
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509

from ssmd.config.environment import Tls
from ssmd.errors import ConfigError
from ssmd.gateway import listening
from ssmd.gateway.tls import TlsFiles
from tests.certificates import write_pair
from tests.flow.gateway_stage import running

SETTINGS = Tls(cert_file="tls/cert.pem", key_file="tls/key.pem")


def trusting(home: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(home / "tls" / "cert.pem"))


async def served(port: int) -> str:
    """The name in the certificate that a new connection is shown."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        await writer.wait_closed()
    return x509.load_der_x509_certificate(shown).subject.rfc4514_string()


def damage(name: str, home: Path) -> None:
    cert, key = home / "tls" / "cert.pem", home / "tls" / "key.pem"
    if name == "no certificate":
        cert.unlink()
    elif name == "no key":
        key.unlink()
    elif name == "another's key":
        before = cert.read_bytes()
        write_pair(home)
        cert.write_bytes(before)
    elif name == "expired":
        write_pair(home, begins=-9, days=-1)
    elif name == "not yet":
        write_pair(home, begins=1)
    elif name == "garbage":
        cert.write_bytes(b"\x00garbage")
    elif name == "swapped":
        cert.write_bytes(key.read_bytes())
    elif name == "empty key":
        key.write_bytes(b"")
    elif name == "passphrase":
        write_pair(home, password=b"hunter2")
    elif name == "folder":
        key.unlink()
        key.mkdir()
    elif name == "huge":
        cert.write_bytes(b"-" * 2_000_000)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no certificate", "cannot read .*cert.pem .*cert_file.*No such file"),
        ("no key", "cannot read .*key.pem .*key_file.*No such file"),
        ("another's key", "key.pem is not the private key of the certificate in .*cert.pem"),
        ("expired", "expired on 20"),
        ("not yet", "not valid before 20"),
        ("garbage", "holds no PEM certificate"),
        ("swapped", "holds no PEM certificate"),
        ("empty key", "holds no PEM private key"),
        ("passphrase", "locked with a passphrase"),
        ("folder", "Is a directory"),
        ("huge", "larger than a megabyte"),
    ],
)
async def test_files_that_cannot_be_used_are_named_at_the_start(tmp_path: Path, name: str, said: str) -> None:
    write_pair(tmp_path)
    damage(name, tmp_path)
    with pytest.raises(ConfigError, match=said) as refused:
        async with running(home=tmp_path, tls=SETTINGS):
            pass
    assert str(tmp_path) in refused.value.message
    assert refused.value.hint


async def test_clients_connect_over_tls_and_old_versions_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path)
    async with running(home=tmp_path, tls=SETTINGS) as stage, aiohttp.ClientSession() as session:
        assert stage.url.startswith("https://")
        async with session.get(f"{stage.url}/v1/health", ssl=trusting(tmp_path)) as response:
            assert response.status == 200
        async with session.ws_connect(f"{stage.url}/v1/stream?symbols=*", ssl=trusting(tmp_path)) as socket:
            assert (await socket.receive_json(timeout=10))["type"] == "subscribed"
        old = trusting(tmp_path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            old.minimum_version = ssl.TLSVersion.TLSv1
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises(aiohttp.ClientError):
            await session.get(f"{stage.url}/v1/health", ssl=old)


async def test_a_renewed_certificate_is_shown_to_new_clients_while_old_ones_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_pair(tmp_path, name="one")
    async with running(home=tmp_path, tls=SETTINGS) as stage, aiohttp.ClientSession() as session:
        port = stage.gateway.port
        async with session.ws_connect(f"{stage.url}/v1/stream?symbols=*", ssl=trusting(tmp_path)) as socket:
            assert (await socket.receive_json(timeout=10))["type"] == "subscribed"
            assert await served(port) == "CN=one"

            write_pair(tmp_path, name="two")
            await shown(port, "CN=two")

            for trouble in ("another's key", "expired", "garbage", "no key"):
                damage(trouble, tmp_path)
                await asyncio.sleep(1.3)
                assert await served(port) == "CN=two", trouble
                write_pair(tmp_path, name="two")

            write_pair(tmp_path, name="three")
            await shown(port, "CN=three")
            await socket.send_json({"action": "ping"})
            assert (await socket.receive_json(timeout=10))["type"] == "pong"


async def shown(port: int, name: str) -> None:
    async with asyncio.timeout(10):
        while await served(port) != name:  # noqa: ASYNC110 files are no event
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("greeting", [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x00" * 50, b"", b"\x16\x03\x01\xff\xff"])
async def test_plain_clients_at_a_tls_port_are_cut_and_hinder_nobody(
    tmp_path: Path, greeting: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listening, "TLS_HANDSHAKE_S", 0.3)
    write_pair(tmp_path)
    with caplog.at_level(logging.WARNING):
        async with running(home=tmp_path, tls=SETTINGS) as stage:
            reader, writer = await asyncio.open_connection("127.0.0.1", stage.gateway.port)
            writer.write(greeting)
            async with asyncio.timeout(10):
                with contextlib.suppress(ConnectionError):
                    assert len(await reader.read()) < 100
            writer.close()
            assert (await served(stage.gateway.port)) == "CN=one"
    assert "Traceback" not in caplog.text


def test_an_absolute_path_is_taken_as_it_is(tmp_path: Path) -> None:
    write_pair(tmp_path)
    settings = Tls(cert_file=str(tmp_path / "tls" / "cert.pem"), key_file=str(tmp_path / "tls" / "key.pem"))
    found = TlsFiles(settings, Path("/nowhere")).check(datetime.now(UTC))
    assert (found.subject, round(found.days_left(datetime.now(UTC)))) == ("CN=one", 90)
