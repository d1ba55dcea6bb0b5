"""Who is let in: Kalshi's three headers, checked against public keys."""

import base64
import binascii
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from ssmd.errors import ConfigError


def load_public_key(file: Path) -> RSAPublicKey | Ed25519PublicKey:
    """The public key in a PEM file, or that of the private key in it. ConfigError when there is neither."""
    hint = "Give a PEM file with an RSA or Ed25519 key: ssmd simulate --public-key FILE"
    try:
        pem = file.read_bytes()
        if b"PRIVATE KEY" in pem:
            private = load_pem_private_key(pem, password=None)
            if isinstance(private, RSAPrivateKey | Ed25519PrivateKey):
                return private.public_key()
        else:
            public = load_pem_public_key(pem)
            if isinstance(public, RSAPublicKey | Ed25519PublicKey):
                return public
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"cannot read a key from {file}: {error}", hint) from error
    raise ConfigError(f"the key in {file} is neither RSA nor Ed25519", hint)


class Gatekeeper:
    """Checks a request's headers; lets everyone in when it was given no key.

    `keys` are key ids and the files of their public keys; an id of None stands for any other id.
    """

    def __init__(self, keys: Sequence[tuple[str | None, Path]], max_skew_s: float = 5.0) -> None:
        self._keys = {key_id: load_public_key(file) for key_id, file in keys}
        self._max_skew_ms = max_skew_s * 1000

    def refusal(self, method: str, path: str, headers: Mapping[str, str], now_ms: float | None = None) -> str | None:
        """Why the request is refused, None when it is in order. Header names are lower case."""
        if not self._keys:
            return None
        key_id = headers.get("kalshi-access-key")
        timestamp = headers.get("kalshi-access-timestamp", "")
        signature = headers.get("kalshi-access-signature", "")
        if not (key_id and timestamp and signature):
            return "missing authentication headers"
        key = self._keys.get(key_id, self._keys.get(None))
        if key is None:
            return "unknown key id"
        if not (timestamp.isascii() and timestamp.isdigit()):
            return "timestamp is not milliseconds"
        if abs(int(timestamp) - (time.time() * 1000 if now_ms is None else now_ms)) > self._max_skew_ms:
            return "timestamp outside the allowed skew"
        signed = f"{timestamp}{method.upper()}{path.partition('?')[0]}".encode()
        try:
            raw = base64.b64decode(signature, validate=True)
            if isinstance(key, Ed25519PublicKey):
                key.verify(raw, signed)
            else:
                pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.DIGEST_LENGTH)
                key.verify(raw, signed, pss, hashes.SHA256())
        except (InvalidSignature, binascii.Error, ValueError):
            return "signature does not match"
        return None
