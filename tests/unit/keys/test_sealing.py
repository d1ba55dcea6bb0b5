"""Sealed values open with the controller's key in their own place and nowhere else, for ssmd and for kubesealpy."""

import asyncio
import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec

from ssmd.config.writing import plain_yaml
from ssmd.errors import ConfigError, DataError, SsmdError, Unavailable
from ssmd.keys import sealing
from ssmd.keys.sealing import Scope, manifest, public_key, read_certificate, seal, unseal
from ssmd.keys.secret import SecretValue
from tests.conftest import missing
from tests.unit.keys.certificates import certificate, rsa_key

NAME, NAMESPACE = "kalshi-prod-kalshi", "ssmd"
VALUES = {"api_key": SecretValue("id-1"), "api_secret": SecretValue("-----BEGIN X-----\nä\n-----END X-----\n")}
NOW = datetime.now(UTC)


def kubesealpy() -> Any:
    try:
        import kubesealpy  # type: ignore[import-untyped]  # it has no types
    except ImportError:
        missing("kubesealpy", "install the locked development packages (make test does)")
    return kubesealpy


@pytest.mark.parametrize("scope", list(Scope))
def test_a_manifest_opens_with_another_tool(scope: Scope) -> None:
    other = kubesealpy()
    text = plain_yaml(manifest(NAME, NAMESPACE, VALUES, public_key(certificate(), "test", NOW), scope))
    secret = other.Unsealer.from_private_key(rsa_key()).unseal(other.SealedSecret.from_yaml(text))
    assert {k: v.decode() for k, v in secret.get_data_decoded().items()} == {k: v.reveal() for k, v in VALUES.items()}
    said = yaml.safe_load(text)
    assert (said["kind"], said["apiVersion"]) == ("SealedSecret", "bitnami.com/v1alpha1")
    assert said["metadata"].get("annotations", {}) == said["spec"]["template"]["metadata"].get("annotations", {})
    assert "id-1" not in text


@pytest.mark.parametrize("scope", list(Scope))
def test_what_another_tool_sealed_opens(scope: Scope) -> None:
    other = kubesealpy()
    sealer = other.Sealer.from_certificate_pem(certificate())
    made = sealer.seal(name=NAME, namespace=NAMESPACE, data={"api_key": b"id-1"}, scope=other.SealingScope(scope.value))
    text = base64.b64encode(made.get_encrypted_data()["api_key"]).decode()
    assert unseal(text, rsa_key(), scope.label(NAMESPACE, NAME)) == b"id-1"


def test_a_value_does_not_open_elsewhere_or_changed() -> None:
    key = rsa_key()
    text = seal(b"hunter2", key.public_key(), Scope.STRICT.label("ssmd", "a"))
    assert unseal(text, key, b"ssmd/a") == b"hunter2"
    for label in (b"ssmd/b", b"other/a", b"ssmd", b""):
        with pytest.raises(DataError):
            unseal(text, key, label)
    raw = base64.b64decode(text)
    for at in (0, 1, 5, 200, len(raw) - 1):
        flipped = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        with pytest.raises(DataError):
            unseal(base64.b64encode(flipped).decode(), key, b"ssmd/a")
    for short in ("", "AA==", "not base64"):
        with pytest.raises(DataError):
            unseal(short, key, b"ssmd/a")


def test_the_same_value_is_sealed_differently_each_time() -> None:
    key = rsa_key().public_key()
    assert seal(b"x", key, b"") != seal(b"x", key, b"")


@pytest.mark.parametrize(
    ("pem", "why"),
    [
        (certificate(first=-20, last=-1), "expired on"),
        (certificate(first=1), "is not valid before"),
        (certificate(ec.generate_private_key(ec.SECP256R1())), "no RSA key"),
        (certificate(rsa_key(1024)), "no RSA key of 2048"),
        (b"hello", "is not a PEM certificate"),
        (b"", "is not a PEM certificate"),
    ],
    ids=["expired", "not yet", "elliptic", "short", "text", "nothing"],
)
def test_a_certificate_that_cannot_be_trusted_is_refused(pem: bytes, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        public_key(pem, "test", NOW)


def test_a_certificate_comes_from_a_file_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "cert.pem"
    file.write_bytes(certificate())
    assert public_key(read_certificate(str(file)), "file", NOW).key_size == 2048
    for place in (None, "", str(tmp_path / "gone"), str(tmp_path), "a\x00b"):
        with pytest.raises(ConfigError):
            read_certificate(place)


async def test_a_certificate_comes_from_a_url_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    pem = certificate()

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/slow":
            await asyncio.sleep(30)
        if request.path == "/cert.pem":
            return web.Response(body=pem)
        return web.Response(
            body=b"x" * 200_000 if request.path == "/big" else b"", status=500 - 300 * ("b" in request.path)
        )

    monkeypatch.setattr(sealing, "FETCH_TIMEOUT_S", 0.3)
    app = web.Application()
    app.router.add_get("/{tail:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        assert await asyncio.to_thread(read_certificate, f"{url}/cert.pem") == pem
        for path, error in (("slow", Unavailable), ("error", Unavailable), ("big", ConfigError)):
            with pytest.raises(error):
                await asyncio.to_thread(read_certificate, f"{url}/{path}")
    finally:
        await runner.cleanup()
    with pytest.raises(Unavailable, match="cannot fetch"):
        await asyncio.to_thread(read_certificate, url)


@pytest.mark.parametrize(
    "place",
    [
        "http://u:hunter2@127.0.0.1:9/c.pem",
        "http://u:a@hunter2@127.0.0.1:9/c.pem",
        "http://u:a/hunter2@127.0.0.1:9/c.pem",
        "http://u:[hunter2@127.0.0.1:9/c.pem",
        "http://127.0.0.1:9/c.pem?token=hunter2",
        "HTTP://u:hunter2@127.0.0.1:9/c.pem",
        "http://u:hunter2@127.0.0.1:99999/c.pem",
    ],
)
def test_the_password_in_the_url_of_a_certificate_is_not_shown(place: str) -> None:
    with pytest.raises(SsmdError) as refused:
        read_certificate(place)
    assert "127.0.0.1" in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("place", ["ftp://u:hunter2@h/c.pem", "file:///c.pem", "S3://bucket/c.pem"])
def test_a_certificate_is_fetched_from_no_other_kind_of_address(place: str) -> None:
    with pytest.raises(ConfigError, match="only a file, an http:// or an https:// URL is possible") as refused:
        read_certificate(place)
    assert "hunter2" not in str(refused.value)
