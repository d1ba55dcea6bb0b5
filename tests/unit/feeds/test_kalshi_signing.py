"""Signatures verified with the public key; keys that cannot be used are named, never shown."""

import base64

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ssmd.errors import ConfigError
from ssmd.feeds.kalshi.signing import secret_problem, sign_headers

KEY_ID = "00000000-0000-4000-8000-000000000001"
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ED_KEY = Ed25519PrivateKey.generate()


def pem(key: rsa.RSAPrivateKey | Ed25519PrivateKey | ec.EllipticCurvePrivateKey, password: bytes = b"") -> str:
    protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        protection = serialization.BestAvailableEncryption(password)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection).decode()


def test_an_rsa_signature_is_pss_with_sha_256_over_time_method_and_path() -> None:
    headers = sign_headers(KEY_ID, pem(RSA_KEY), "get", "/trade-api/v2/markets?limit=5", 1_795_363_200_123)
    assert headers["KALSHI-ACCESS-KEY"] == KEY_ID
    assert headers["KALSHI-ACCESS-TIMESTAMP"] == "1795363200123"
    signature = base64.b64decode(headers["KALSHI-ACCESS-SIGNATURE"], validate=True)
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
    RSA_KEY.public_key().verify(signature, b"1795363200123GET/trade-api/v2/markets", pss, hashes.SHA256())
    with pytest.raises(InvalidSignature):
        RSA_KEY.public_key().verify(signature, b"1795363200124GET/trade-api/v2/markets", pss, hashes.SHA256())


def test_an_ed25519_key_is_told_by_its_pem() -> None:
    headers = sign_headers(KEY_ID, pem(ED_KEY), "GET", "/trade-api/ws/v2", 5)
    ED_KEY.public_key().verify(base64.b64decode(headers["KALSHI-ACCESS-SIGNATURE"]), b"5GET/trade-api/ws/v2")


def test_a_pem_kept_on_one_line_works_too() -> None:
    one_line = pem(ED_KEY).replace("\n", "\\n")
    assert sign_headers(KEY_ID, one_line, "GET", "/x", 5) == sign_headers(KEY_ID, pem(ED_KEY), "GET", "/x", 5)


@pytest.mark.parametrize(
    ("secret", "says"),
    [
        ("", "empty"),
        ("hunter2-not-a-pem", "not a PEM private key"),
        ("-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----", "not a PEM private key"),
        (pem(RSA_KEY, b"hunter2"), "protected by a password"),
        (pem(ec.generate_private_key(ec.SECP256R1())), "neither an RSA nor an Ed25519 key"),
        (RSA_KEY.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ).decode(), "not a PEM private key"),
    ],
)  # fmt: skip
def test_a_private_key_that_cannot_be_used_is_named_and_not_shown(secret: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sign_headers(KEY_ID, secret, "GET", "/x", 5)
    assert says in secret_problem("api_secret", secret)
    assert "hunter2" not in secret_problem("api_secret", secret)
    text = str(caught.value)
    assert "key `kalshi`, field api_secret" in text
    assert says in text
    assert "SSMD_KEY_KALSHI_API_SECRET_FILE" in text
    assert "export SSMD_KEY_KALSHI" in text
    assert "hunter2" not in text
    assert all(line not in text for line in secret.splitlines() if len(line) > 20)


def test_a_private_key_that_can_be_used_has_no_problem_and_other_fields_are_not_looked_at() -> None:
    assert secret_problem("api_secret", pem(RSA_KEY)) == ""
    assert secret_problem("api_secret", pem(ED_KEY).replace("\n", "\\n")) == ""
    assert secret_problem("api_key", "hunter2") == ""


@pytest.mark.parametrize("key_id", ["", "two words", "a\r\nX-Injected: 1", "ключ"])
def test_a_key_id_that_cannot_be_a_header_is_refused(key_id: str) -> None:
    with pytest.raises(ConfigError, match="api_key"):
        sign_headers(key_id, pem(ED_KEY), "GET", "/x", 5)
