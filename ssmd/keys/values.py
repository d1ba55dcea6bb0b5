"""Are values what they look like? A private key or a certificate that does not parse is refused before it is kept."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from ssmd.errors import ConfigError
from ssmd.keys.secret import SecretValue, normalized
from ssmd.keys.stores import MAX_BYTES

_AS_IT_IS = "A secret is text: a password, a token, PEM."


ProblemOf: TypeAlias = Callable[[str, str, SecretValue], str]
"""What a value of a key's field is in place of what is needed, without the value; "" when it is right."""


def no_problem(_key: str, _field: str, _value: SecretValue) -> str:
    """Nobody knows what the values are for."""
    return ""


def checked(
    values: Mapping[str, SecretValue], key: str = "", problem_of: ProblemOf = no_problem
) -> dict[str, SecretValue]:
    """The values by field, line ends as they were meant. ConfigError names every field that cannot be kept, and why."""
    good: dict[str, SecretValue] = {}
    problems: list[str] = []
    for field, value in values.items():
        text = normalized(value.reveal())
        good[field] = SecretValue(text)
        problem = _problem(text) or unfit(problem_of(key, field, good[field]))
        if problem:
            problems.append(f"the value of {field!r} {problem}")
    if problems:
        raise ConfigError("; ".join(problems), f"Nothing was changed. {_AS_IT_IS}")
    return good


def unfit(problem: str) -> str:
    """The end of a sentence about a value that its user refuses."""
    return f"is {problem}" if problem else ""


def _problem(text: str) -> str:
    if not text.strip():
        return "is empty"
    if "\x00" in text:
        return "holds a NUL character"
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        return "is not UTF-8 text"
    if len(raw) > MAX_BYTES:
        return f"has more than {MAX_BYTES} bytes"
    first = text.lstrip().partition("\n")[0]
    if not first.startswith("-----BEGIN"):
        return ""
    return _pem_problem(raw, first)


def _pem_problem(raw: bytes, first: str) -> str:
    # Imported here: most commands never see a key.
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        if "PRIVATE KEY" in first:
            serialization.load_pem_private_key(raw, password=None)
        elif "CERTIFICATE" in first:
            x509.load_pem_x509_certificates(raw)
    except TypeError:
        return "is a PEM private key that is protected by a password; give it without one"
    except (ValueError, UnsupportedAlgorithm):
        return "looks like PEM and cannot be read as such"
    return ""
