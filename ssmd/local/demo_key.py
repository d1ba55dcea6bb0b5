"""The key pair with which the local connector signs for the simulated exchange; made once, never used elsewhere."""

from collections.abc import Mapping
from pathlib import Path

API_KEY = "SSMD_KEY_KALSHI_API_KEY"
API_SECRET = "SSMD_KEY_KALSHI_API_SECRET"  # noqa: S105 the name of a variable
API_SECRET_FILE = f"{API_SECRET}_FILE"


class DemoKey:
    """An RSA key pair in a folder; `private` and `public` are PEM files."""

    key_id = "demo"

    def __init__(self, folder: Path) -> None:
        self.private = folder / "simulated-kalshi.pem"
        self.public = folder / "simulated-kalshi.pub.pem"

    def ensure(self) -> None:
        """Make the pair if it is not there."""
        if self.private.is_file() and self.public.is_file():
            return
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.private.touch(mode=0o600)
        self.private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        self.public.write_bytes(
            key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )

    def variables(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The variables that give this key to the connector; {} when the operator has set a key of their own."""
        if any(environ.get(name) for name in (API_KEY, API_SECRET, API_SECRET_FILE)):
            return {}
        return {API_KEY: self.key_id, API_SECRET_FILE: str(self.private)}

    def is_used_by(self, variables: Mapping[str, str]) -> bool:
        """Does the connector sign with this key?"""
        return variables.get(API_SECRET_FILE) == str(self.private)
