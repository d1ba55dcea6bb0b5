"""A key pair for the demo: the client signs with the private one, the simulated exchange checks with the public one."""

import os
import uuid
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from ssmd.errors import ConfigError

PRIVATE = "simulator-private.pem"
PUBLIC = "simulator-public.pem"
KEY_ID = "simulator-key-id"


def make_key_pair(folder: Path, algorithm: str = "rsa") -> tuple[str, Path, Path]:
    """(key id, private PEM, public PEM) in `folder`, files of mode 0600; a pair that is already there is kept.

    `algorithm` is `rsa` (2048 bits, signs RSA-PSS) or `ed25519`.
    """
    private_file, public_file, id_file = folder / PRIVATE, folder / PUBLIC, folder / KEY_ID
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if private_file.is_file() and public_file.is_file() and id_file.is_file():
            return id_file.read_text().strip(), private_file, public_file
        key_id = str(uuid.uuid4())
        private = Ed25519PrivateKey.generate() if algorithm == "ed25519" else generate_private_key(65_537, 2048)
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _write(private_file, pem)
        _write(public_file, private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        _write(id_file, f"{key_id}\n".encode())
    except OSError as error:
        raise ConfigError(f"cannot make a key pair in {folder}: {error}", "Give a writable folder") from error
    return key_id, private_file, public_file


def _write(file: Path, content: bytes) -> None:
    aside = file.with_suffix(".new")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(content)
    aside.replace(file)
