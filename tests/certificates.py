"""Self-signed certificates for tests."""

import os
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


def write_pair(home: Path, *, name: str = "one", days: float = 90, begins: float = -1, password: bytes = b"") -> None:
    """A certificate for 127.0.0.1 and its key, as `ssmd_home/tls/…`, each replaced whole."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=begins))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    lock = BestAvailableEncryption(password) if password else NoEncryption()
    (home / "tls").mkdir(parents=True, exist_ok=True)
    _replace(home / "tls" / "cert.pem", certificate.public_bytes(Encoding.PEM))
    _replace(home / "tls" / "key.pem", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock))


def _replace(path: Path, text: bytes) -> None:
    aside = path.with_suffix(".new")
    aside.write_bytes(text)
    os.replace(aside, path)
