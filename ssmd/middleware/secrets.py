"""What middleware asks for the credentials of an environment."""

from collections.abc import Mapping
from typing import Protocol


class Secrets(Protocol):
    """Values behind the `$key:name` references of an environment file; ConfigError when one is not set."""

    def text(self, value: str) -> str:
        """`value` itself, or what the reference in it stands for."""
        ...

    def fields(self, reference: str) -> Mapping[str, str]:
        """The fields of a key that have values."""
        ...
