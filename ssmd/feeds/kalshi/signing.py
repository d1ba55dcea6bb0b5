"""Kalshi's request signature: RSA-PSS or Ed25519 over time, method and path, told apart by the PEM."""

import base64
from functools import lru_cache

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from ssmd.errors import ConfigError

WS_PATH = "/trade-api/ws/v2"
_PEM_HINT = (
    "Give the PEM private key that belongs to the key id as the field api_secret of the key of this feed:"
    " ssmd key set --help shows how (or: export SSMD_KEY_KALSHI_API_SECRET_FILE=<path>)"
)
_KEY_ID_HINT = (
    "Give it as the field api_key: ssmd key set --help shows how (or: export SSMD_KEY_KALSHI_API_KEY=<key id>)"
)


def sign_headers(key_id: str, private_key_pem: str, method: str, path: str, now_ms: int) -> dict[str, str]:
    """The three headers that authenticate one request.

    `path` is the URL's path with `/trade-api/...`; a query is cut off before signing. `now_ms` is Unix milliseconds.
    Raises ConfigError, which never holds the secret, when the key id or the private key cannot be used.
    """
    if not key_id or not key_id.isascii() or not key_id.isprintable() or " " in key_id:
        raise ConfigError("key `kalshi`, field api_key: not a key id (a UUID as Kalshi shows it)", _KEY_ID_HINT)
    key = _load_key(private_key_pem)
    text = f"{now_ms}{method.upper()}{path.split('?', 1)[0]}".encode()
    if isinstance(key, Ed25519PrivateKey):
        signature = key.sign(text)
    else:
        digest = hashes.SHA256()
        pss = padding.PSS(mgf=padding.MGF1(digest), salt_length=padding.PSS.DIGEST_LENGTH)
        signature = key.sign(text, pss, digest)
    return {
        "KALSHI-ACCESS-KEY": key_id,
        "KALSHI-ACCESS-TIMESTAMP": str(now_ms),
        "KALSHI-ACCESS-SIGNATURE": base64.b64encode(signature).decode(),
    }


def secret_problem(field: str, text: str) -> str:
    """What this value of a field of the key is in place of what is needed, without it; "" when it can be used."""
    if field != "api_secret":
        return ""
    try:
        _load_key(text)
    except ConfigError as error:
        return error.message.partition(": ")[2]
    return ""


@lru_cache(maxsize=4)
def _load_key(pem: str) -> RSAPrivateKey | Ed25519PrivateKey:
    # Keys kept in one-line variables come with the two characters `\n` in place of line ends.
    text = pem.strip().replace("\\n", "\n")
    what = "key `kalshi`, field api_secret"
    if not text:
        raise ConfigError(f"{what}: empty", _PEM_HINT)
    try:
        key = serialization.load_pem_private_key(text.encode(), password=None)
    except TypeError as error:
        raise ConfigError(f"{what}: a PEM private key that is protected by a password", _PEM_HINT) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{what}: not a PEM private key (RSA or Ed25519)", _PEM_HINT) from error
    if not isinstance(key, RSAPrivateKey | Ed25519PrivateKey):
        raise ConfigError(f"{what}: a {type(key).__name__}, neither an RSA nor an Ed25519 key", _PEM_HINT)
    return key
