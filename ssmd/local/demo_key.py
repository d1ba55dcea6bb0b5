"""The key pair with which the local connector signs for the simulated exchange, and the variables that hand it over."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

API_KEY = "SSMD_KEY_KALSHI_API_KEY"
API_SECRET = "SSMD_KEY_KALSHI_API_SECRET"  # noqa: S105 the name of a variable
API_SECRET_FILE = f"{API_SECRET}_FILE"


class DemoKey(NamedTuple):
    """Key id, and the PEM files of both halves."""

    key_id: str
    private: Path
    public: Path

    def variables(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The variables that give this key to the connector; {} when the operator has set a key of their own."""
        if any(environ.get(name) for name in (API_KEY, API_SECRET, API_SECRET_FILE)):
            return {}
        return {API_KEY: self.key_id, API_SECRET_FILE: str(self.private)}

    def is_used_by(self, variables: Mapping[str, str]) -> bool:
        """Does the connector sign with this key?"""
        return variables.get(API_SECRET_FILE) == str(self.private)
