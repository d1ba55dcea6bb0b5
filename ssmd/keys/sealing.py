"""Bitnami Sealed Secrets: values that only the controller in the cluster can open, as a manifest that may be committed.

A value is base64 of: length of R (two bytes, big-endian), R, C. R is a fresh 32-byte key in RSA-OAEP (SHA-256) with the
scope as label, C the value in AES-256-GCM under that key with a nonce of zeros (the key is used once).
"""

import base64
import os
import re
import struct
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ssmd.config.values import masked
from ssmd.errors import ConfigError, DataError, Unavailable
from ssmd.keys.secret import SecretValue

CERTIFICATE_VARIABLE = "SEALED_SECRETS_CERT"
MAX_CERTIFICATE_BYTES = 64 << 10
FETCH_TIMEOUT_S = 10.0
MIN_KEY_BITS = 2048
_NONCE = bytes(12)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HOW = f"Give the controller's certificate: --cert FILE or URL, or {CERTIFICATE_VARIABLE} (kubeseal --fetch-cert)."


class Scope(StrEnum):
    """Where a sealed value may be opened: under its own name, anywhere in its namespace, or anywhere."""

    STRICT = "strict"
    NAMESPACE_WIDE = "namespace-wide"
    CLUSTER_WIDE = "cluster-wide"

    def label(self, namespace: str, name: str) -> bytes:
        """What binds a value to its place."""
        return {Scope.STRICT: f"{namespace}/{name}", Scope.NAMESPACE_WIDE: namespace, Scope.CLUSTER_WIDE: ""}[
            self
        ].encode()


def seal(value: bytes, key: RSAPublicKey, label: bytes) -> str:
    """The value for the owner of `key`, bound to `label`."""
    session = os.urandom(32)
    wrapped = key.encrypt(session, _padding(label))
    return base64.b64encode(
        struct.pack(">H", len(wrapped)) + wrapped + AESGCM(session).encrypt(_NONCE, value, None)
    ).decode()


def unseal(text: str, key: RSAPrivateKey, label: bytes) -> bytes:
    """What `seal` was given; DataError for another key, another label or a changed byte."""
    try:
        raw = base64.b64decode(text, validate=True)
        end = 2 + struct.unpack(">H", raw[:2])[0]
        return AESGCM(key.decrypt(raw[2:end], _padding(label))).decrypt(_NONCE, raw[end:], None)
    except (ValueError, struct.error, InvalidTag) as error:
        raise DataError("the sealed value was made for another key or place, or was changed") from error


def manifest(
    name: str, namespace: str, values: Mapping[str, SecretValue], key: RSAPublicKey, scope: Scope
) -> dict[str, object]:
    """The SealedSecret from which the controller makes the Secret `namespace/name` with these fields."""
    label = scope.label(namespace, name)
    place: dict[str, object] = {"name": name, "namespace": namespace}
    if scope is not Scope.STRICT:
        place["annotations"] = {f"sealedsecrets.bitnami.com/{scope}": "true"}
    labels = {"app.kubernetes.io/managed-by": "ssmd", "app.kubernetes.io/part-of": "ssmd"}
    return {
        "apiVersion": "bitnami.com/v1alpha1",
        "kind": "SealedSecret",
        "metadata": place,
        "spec": {
            "encryptedData": {field: seal(value.reveal().encode(), key, label) for field, value in values.items()},
            "template": {"metadata": {**place, "labels": labels}, "type": "Opaque"},
        },
    }


def public_key(pem: bytes, where: str, now: datetime) -> RSAPublicKey:
    """The key of a controller's certificate that is valid now; ConfigError says why it cannot be used."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{where} is not a PEM certificate", _HOW) from error
    if not isinstance(key, RSAPublicKey) or key.key_size < MIN_KEY_BITS:
        raise ConfigError(f"the certificate {where} has no RSA key of {MIN_KEY_BITS} bits or more", _HOW)
    if now > certificate.not_valid_after_utc:
        raise ConfigError(f"the certificate {where} expired on {certificate.not_valid_after_utc:%Y-%m-%d}", _HOW)
    if now < certificate.not_valid_before_utc:
        raise ConfigError(f"the certificate {where} is not valid before {certificate.not_valid_before_utc}", _HOW)
    return key


def read_certificate(place: str | None) -> bytes:
    """The bytes at a path or an http(s) URL. ConfigError; Unavailable when a server does not give it."""
    if not place:
        raise ConfigError("no certificate to seal with", _HOW)
    scheme = _SCHEME.match(place)
    if scheme and scheme[1].lower() in ("http", "https"):
        return _fetch(place)
    if scheme:
        what = f"cannot fetch the certificate {masked(place)[:200]!r}"
        raise ConfigError(f"{what}: only a file, an http:// or an https:// URL is possible", _HOW)
    try:
        with Path(place).open("rb") as file:
            return file.read(MAX_CERTIFICATE_BYTES)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise ConfigError(f"cannot read the certificate {masked(place)[:200]!r}: {reason}", _HOW) from error


def _fetch(url: str) -> bytes:
    import asyncio  # only here: most commands fetch nothing

    import aiohttp

    where = masked(url)[:200]

    async def fetch() -> bytes:
        timeout = aiohttp.ClientTimeout(total=FETCH_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=True) as session, session.get(url) as answer:
            if answer.status != 200:
                raise Unavailable(f"{where!r} answered {answer.status} instead of a certificate", _HOW)
            body = await answer.content.read(MAX_CERTIFICATE_BYTES + 1)
            while len(body) <= MAX_CERTIFICATE_BYTES and (more := await answer.content.read(MAX_CERTIFICATE_BYTES)):
                body += more
        if len(body) > MAX_CERTIFICATE_BYTES:
            raise ConfigError(f"{where!r} gave more than {MAX_CERTIFICATE_BYTES} bytes", _HOW)
        return body

    try:
        return asyncio.run(fetch())
    except (aiohttp.InvalidURL, ValueError) as error:  # its text may quote the password
        raise ConfigError(f"cannot fetch the certificate {where!r}: it is not a URL", _HOW) from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        why = masked(str(error).replace(url, where))[:200] or "time-out"
        raise Unavailable(f"cannot fetch the certificate {where!r}: {why}", _HOW) from error


def _padding(label: bytes) -> padding.OAEP:
    return padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=label or None)
