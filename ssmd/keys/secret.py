"""A secret value that does not show itself: not in a repr, a message, a log line, a pickle or a comparison's timing."""

import hmac
from typing import NoReturn


class SecretValue:
    """Text to be kept out of sight; `reveal()` is the only way to it, and easy to search for."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SecretValue):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    __hash__ = None  # type: ignore[assignment]  # no secret in a dictionary's keys

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not to be pickled or copied elsewhere")


def normalized(text: str) -> str:
    """A value as it was meant: one line end at the end goes, except that PEM text ends with exactly one.

    PEM text in an environment variable often has its line ends written as `\\n`; they become real ones.
    """
    if text.lstrip().startswith("-----BEGIN"):
        if "\n" not in text.strip():
            text = text.replace("\\r", "").replace("\\n", "\n")
        return text.replace("\r\n", "\n").strip() + "\n"
    return text.removesuffix("\n").removesuffix("\r")
